r"""Real BIDS scans of one subject (Haxby et al. 2001), eight categories, leave one run out.

    python launch.py --config=configs/haxby.py --config.data.root=../shared/data/bids-haxby-1slice \
        --workdir=runs/haxby

With one subject there is no alignment: the runs are the folds, and the voxels stay in place. The
onsets of this data set already contain the haemodynamic lag. Hardware, time and accuracy: the
README's table of real data.
"""

from emojax.configs import common, finger7t, wholebrain


def get_config(variant: str = ""):
    """Returns the study, or a variant of it."""
    config = common.get_config()
    config.data.source = "bids"
    config.data.root = "../shared/data/bids-haxby-1slice"
    config.data.hrf_delay_s = 0.0
    config.units = "run"
    config.mask.opening = 0  # a single slice
    config.protocols = "nested,last"  # the published procedure aligns subjects
    config.align.regimes = "none"
    config.balance = 9
    return common.choose(config, variant, VARIANTS)


def searchlight(config):
    """Maps the accuracy around every voxel of the slice, and the bag's pattern; no network."""
    wholebrain.of_the_whole_brain(config)
    config.alignments = ""  # there is only one person
    config.searchlight.radius_mm, config.searchlight.least = 9.0, 5  # a disc of one slice


def null(config):
    """Runs the same design on noise, to compare results with."""
    finger7t.short(config)
    common.null(config)


VARIANTS = {"": finger7t.short, "searchlight": searchlight, "null": null}
