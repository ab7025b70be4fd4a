r"""Experiment A: leave one subject out, 3 classes, hyperalignment and the 1D CNN.

    python launch.py --config=configs/expA.py --workdir=runs/expA           # the paper's; for a GPU
    python launch.py --config=configs/expA.py:demo --workdir=runs/demo      # minutes on 2 CPU cores
    python launch.py --config=configs/expA.py --config.data.source=bids --config.data.root=DIR ...

Variants: `demo` (6 simulated subjects, the real network, few epochs), `authors` (the published code
where it differs from the paper), `null` (autocorrelated noise instead of every value).
Hardware, time and accuracy: the README's result table.
"""

from configs import common


def get_config(variant: str = ""):
    """The paper's settings (SPEC of the method: arXiv 2210.17015, section 2), or a variant."""
    config = common.get_config()
    if variant == "demo":
        demo(config)
    elif variant == "authors":
        config.train.penalty, config.train.penalty_factor = "l1", 5e-3
        config.voxels.centre = False
    elif variant == "null":
        config.null, config.null_floor = True, False
    elif variant:
        raise ValueError(f"unknown variant {variant!r}; want demo, authors, null or none")
    return config


def demo(config):
    """A smaller cohort, and a penalty and a rate with which few epochs are enough."""
    config.data.synthetic.subjects = 6
    config.data.synthetic.grid = (32, 32, 22)
    config.align.regimes = "independent_runs,none"
    config.balance = 50
    config.train.epochs = 4
    config.train.lr = 5e-4
    config.train.penalty_factor = 1e-3
    config.train.checkpoint_epochs = 4
