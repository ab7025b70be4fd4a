r"""Experiment B: 3D ResNet-50 on single volumes, two classes.

    python launch.py --config=configs/expB.py --workdir=runs/expB           # the paper's; for a GPU
    python launch.py --config=configs/expB.py:demo --workdir=runs/demoB     # minutes on 2 CPU cores
    python launch.py --config=configs/expB.py:l2_sweep --workdir=runs/sweep # the paper's eight L2
    python launch.py --config=configs/expB.py --config.instances=10 ...     # the paper's interval

Variants: `demo` (6 simulated subjects, small volumes, the real network, few epochs), `authors` (the
published code where it differs from the paper), `null` (autocorrelated noise instead of values),
`l2_sweep`.
"""

from configs import common

SWEEP = (0.0025, 0.00125, 0.001, 0.0009, 0.00075, 0.0006, 0.0005, 0.0002)


def get_config(variant: str = ""):
    """The paper's settings (arXiv 2210.17015, Experiment B), or a variant."""
    config = common.get_config("B")
    if variant == "demo":
        demo(config)
    elif variant == "authors":
        config.splits = "random"
        config.train.lr = 1e-3
        config.train.shortcut_l2 = 1e-4
        config.scale = "none"
    elif variant == "null":
        config.null, config.null_floor = True, False
    elif variant == "l2_sweep":
        config.sweep, config.splits = SWEEP, "random"
    elif variant:
        expected = "demo, authors, null, l2_sweep or none"
        raise ValueError(f"unknown variant {variant!r}; want {expected}")
    return config


def demo(config):
    """Fewer, smaller volumes, a response twice as strong, and runs centred: a few epochs do."""
    config.data.synthetic.subjects = 6
    config.data.synthetic.grid = (24, 24, 16)
    config.data.synthetic.signal = 2.0
    config.data.centre = True  # by all volumes of a run, without labels: the report declares it
    config.fractions = (0.5, 0.17, 0.33)  # two subjects to test on
    config.model.norm_momentum = 0.9
    config.train.batch_size = 16
    config.train.epochs = 4
    config.train.lr = 3e-4
    config.train.checkpoint_epochs = 4
