r"""Negative and neutral pictures: OpenNeuro ds000108 (Wager et al. 2008), 34 subjects.

    emojax fetch ds000108 --to=ds000108   # 4.7 GB; or datalad, or aws s3 sync
    python launch.py --config=configs/ds000108.py --config.data.root=ds000108 \
        --workdir=runs/ds000108

Training settings are those of configs/study.py. Specific to this study:
  data.label_map   three of the 13 trial types; rest has no events: it is the time between events
  data.hrf_delay_s 5 s from picture to response; pictures last 8 s, so about 4 volumes each
  align.regimes    independent_runs: there are six runs, and the test subject's own map is fitted to
                   its other runs, with their labels (a calibration), never to the scored run
The raw data are in native space, where brains differ in shape: use the output of fMRIPrep
(--config.data.root=DIR --config.data.space=MNI152NLin2009cAsym), or select voxels separately for
each subject (--config.voxels.own=True).
"""

from emojax.configs import common, study


def get_config(variant: str = ""):
    """Returns the study, or a variant of it."""
    config = study.get_config()
    config.data.root = "ds000108"
    config.data.label_map = "rest=;neutral=Look_Neutral_Stim;negative=Look_Neg_Stim"
    config.align.regimes = "independent_runs,group,none"
    return common.choose(config, variant, VARIANTS)


VARIANTS = {"null": common.null}
