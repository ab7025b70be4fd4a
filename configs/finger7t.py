r"""Five fingers of seven real subjects at 7 T (Ejaz et al. 2015), leave one subject out.

    python launch.py --config=configs/finger7t.py --config.data.root=../shared/data/finger7t \
        --workdir=runs/finger7t

Each subject has different voxels, so F-scores are separate, too; rows correspond by run and finger.
The test subject's voxels and rotation come from its other runs, with their labels (a calibration),
never from the scored run. Hardware, time and accuracy: the README's table of real data.
"""

from emojax.configs import common


def get_config(variant: str = ""):
    """Returns the study, or a variant of it."""
    config = common.get_config()
    config.data.source = "arrays"
    config.data.root = "../shared/data/finger7t"
    config.align.regimes = "independent_runs,none"
    config.align.match = "class"
    config.voxels.own = True
    config.balance = 8
    short(config)
    return common.choose(config, variant, VARIANTS)


def short(config):
    """Trains on a few hundred rows, where the paper's L2 would shrink all weights to zero."""
    config.train.epochs = 12
    config.train.lr = 5e-4
    config.train.penalty_factor = 1e-3
    config.train.checkpoint_epochs = 6


VARIANTS = {"null": common.null}
