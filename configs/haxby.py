r"""Real BIDS scans of one subject (Haxby et al. 2001), eight categories, leave one run out.

    python launch.py --config=configs/haxby.py --config.data.root=../shared/data/bids-haxby-1slice \
        --workdir=runs/haxby

One subject has nobody to be aligned with: the runs are the folds and the voxels stay as they are.
The onsets of this data set contain the haemodynamic lag already. Hardware, time and accuracy: the
README's table of real data. Variants: `null` (the same design on noise), `searchlight` (no network;
the accuracy around every voxel of the slice, and the pattern of the bag).
"""

from configs import common, finger7t, wholebrain


def get_config(variant: str = ""):
    """Returns the study, or a variant that the module describes."""
    if variant not in ("", "searchlight", "null"):
        raise ValueError(f"unknown variant {variant!r}; want searchlight, null or none")
    config = common.get_config()
    config.data.source = "bids"
    config.data.root = "../shared/data/bids-haxby-1slice"
    config.data.hrf_delay_s = 0.0
    config.units = "run"
    config.mask.opening = 0  # a single slice
    config.protocols = "nested,last"  # the published procedure aligns subjects
    config.align.regimes = "none"
    config.balance = 9
    if variant == "searchlight":
        wholebrain.of_the_whole_brain(config)
        config.alignments = ""  # of one person
        config.searchlight.radius_mm, config.searchlight.least = 9.0, 5  # a disc of one slice
    else:
        finger7t.short(config)
    return common.null_or_none(config, "null" if variant == "null" else "")
