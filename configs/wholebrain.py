r"""The whole brain beside a decoder: an accuracy map, a pattern map, ways of aligning subjects.

    python launch.py --config=configs/wholebrain.py --workdir=runs/wholebrain

The cohort of `configs/expA.py:demo`, without a network: bag and logistic regression on 200 voxels.
The report has the accuracy in a sphere around every voxel, new subjects, corrected over the map;
the pattern of the decoder in the brain, beside that of random weights; and logistic regression
after each way of aligning subjects, with interval, noise floor and p. docs/wholebrain.md says which
to use when. On real data: `configs/emotion_maps.py:wholebrain`, `configs/haxby.py:searchlight`.
"""

from emojax.configs import common


def get_config(variant: str = ""):
    """Returns the study, or a variant of it."""
    config = common.get_config()
    config.data.synthetic.subjects = 6
    config.data.synthetic.grid = (32, 32, 22)
    config.voxels.keep, config.balance = 200, 40
    config.align.regimes = "independent_runs"
    config.voxels.after = True  # of regime piecewise: 50 parcels of some 100 voxels
    of_the_whole_brain(config)
    config.searchlight.radius_mm = 12.0  # 33 voxels of 6 mm
    return common.choose(config, variant, VARIANTS)


def of_the_whole_brain(config):
    """Asks for all maps and ways of aligning, and for no network."""
    config.network, config.protocols, config.baselines = False, "nested", ""
    config.within_subject, config.crossed, config.design = False, "", False
    config.alignments = "none,group,independent_runs,piecewise,piecewise:ridge"
    config.permutations, config.noise.draws = 19, 4


VARIANTS = {"null": common.null}
