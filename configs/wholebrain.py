r"""Whole-brain analyses: an accuracy map, a pattern map, and a comparison of alignment methods.

    python launch.py --config=configs/wholebrain.py --workdir=runs/wholebrain

The cohort is that of `configs/expA.py:demo`, without a network: bag and logistic regression on 200
voxels. The report has the accuracy on new subjects in a sphere around every voxel, corrected over
the map; the brain pattern of the decoder, compared with random weights; and logistic regression
after each alignment method, with interval, noise floor and p. docs/wholebrain.md says which to use
when. On real data: `configs/emotion_maps.py:wholebrain`, `configs/haxby.py:searchlight`.
"""

from emojax.configs import common


def get_config(variant: str = ""):
    """Returns the study, or a variant of it."""
    config = common.get_config()
    config.data.synthetic.subjects = 6
    config.data.synthetic.grid = (32, 32, 22)
    config.voxels.keep, config.balance = 200, 40
    config.align.regimes = "independent_runs"
    config.voxels.after = True  # regime piecewise: 50 parcels of about 100 voxels
    of_the_whole_brain(config)
    config.searchlight.radius_mm = 12.0  # 33 voxels of 6 mm
    return common.choose(config, variant, VARIANTS)


def of_the_whole_brain(config):
    """Turns on all maps and alignment methods, and trains no network."""
    config.network, config.protocols, config.baselines = False, "nested", ""
    config.within_subject, config.crossed, config.design = False, "", False
    config.alignments = "none,group,independent_runs,piecewise,piecewise:ridge"
    config.permutations, config.noise.draws = 19, 4


VARIANTS = {"null": common.null}
