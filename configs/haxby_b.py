r"""Real BIDS scans of one subject (Haxby et al. 2001), faces and houses, 3D ResNet-18.

    python launch.py --config=configs/haxby_b.py --workdir=runs/haxby_b \
        --config.data.root=../shared/data/bids-haxby-1slice

The volumes are one slice of 40 x 20 voxels, padded with empty slices. The onsets of this data set
already contain the haemodynamic lag. Hardware, time and accuracy: the README's table of real data.
"""

from emojax.configs import common


def get_config(variant: str = ""):
    """Returns the study, or a variant of it."""
    config = common.get_config("B")
    config.data.source = "bids"
    config.data.root = "../shared/data/bids-haxby-1slice"
    config.data.hrf_delay_s = 0.0
    config.data.label_map = "face=face;house=house"
    config.data.online = "gain+cumulative"
    config.splits = "by_run,random"
    config.folds = 4
    config.pad = 9
    short(config)
    return common.choose(config, variant, VARIANTS)


def short(config):
    """Sets a smaller network and fewer epochs, for a few hundred volumes."""
    config.model.depth = 18
    config.model.norm_momentum = 0.9
    config.train.batch_size = 16
    config.train.epochs = 15
    config.train.lr = 3e-4
    config.train.checkpoint_epochs = 15


VARIANTS = {"null": common.null}
