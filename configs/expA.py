r"""Experiment A: leave one subject out, 3 classes, hyperalignment and the 1D CNN.

    python launch.py --config=configs/expA.py --workdir=runs/expA           # the paper's; for a GPU
    python launch.py --config=configs/expA.py:demo --workdir=runs/demo      # minutes on 2 CPU cores
    python launch.py --config=configs/expA.py --config.data.source=bids --config.data.root=DIR ...

Variants: `demo` (6 simulated subjects, the real network, few epochs), `authors` (the published code
where it differs from the paper), `null` (autocorrelated noise instead of every value), `demo030`
(the demo of version 0.3.0, frozen: the fixture for decoder and real-time targets).

"""

from configs import common


def get_config(variant: str = ""):
    """The paper's settings (SPEC of the method: arXiv 2210.17015, section 2), or a variant."""
    config = common.get_config()
    if variant == "demo":
        demo(config)
    elif variant == "demo030":
        demo030(config)
    elif variant == "authors":
        config.train.penalty, config.train.penalty_factor = "l1", 5e-3
        config.voxels.centre = False
    elif variant == "null":
        config.null, config.null_floor = True, False
    elif variant:
        raise ValueError(f"unknown variant {variant!r}; want demo, demo030, authors, null or none")
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


def demo030(config):
    """The cohort, settings and seeds of 0.3.0's demo, written out: nothing else may change them."""
    config.seed = 0
    config.data.source = "synthetic"
    config.data.hrf_delay_s = 5.0
    config.data.min_overlap = 0.5
    config.data.synthetic.update(
        {
            "seed": 0,
            "design": "A",
            "subjects": 6,
            "volumes": 0,
            "grid": (32, 32, 22),
            "signal": 1.0,
            "order": "shared",
            "null": False,
        }
    )
    config.mask.update({"lower": 0.2, "upper": 0.85, "opening": 2})
    config.voxels.update({"keep": 300, "own": False, "centre": True})
    config.align.update({"regimes": "independent_runs,none", "match": "time", "level2_iters": 1})
    config.balance = 50
    config.model.update({"conv_activation": "", "batch_norm": False, "dropout": (0.25, 0.5)})
    config.train.update(
        {
            "epochs": 4,
            "batch_size": 64,
            "lr": 5e-4,
            "adam": "keras",
            "penalty": "l2",
            "penalty_factor": 1e-3,
            "checkpoint_epochs": 4,
        }
    )
    config.train.plateau.update(
        {"factor": 0.2, "patience": 50, "min_delta": 1e-4, "cooldown": 0, "min_lr": 1e-5}
    )
