r"""Negative and neutral pictures: OpenNeuro ds000108 (Wager et al. 2008), 34 subjects.

    openneuro-py download --dataset=ds000108 --target-dir=ds000108   # or datalad, or aws s3 sync
    python launch.py --config=configs/ds000108.py --config.data.root=ds000108 \\
        --workdir=runs/ds000108

What the flags say:
  data.label_map   three of the 13 trial types; rest has no events: it is what no event covers
  data.hrf_delay_s 5 s from picture to response; pictures last 8 s, so about 4 volumes each
  data.conflicts   drop: with the lag, a volume may touch two events
  align.match      class: pictures come at other times in each subject, so rows correspond by their
                   condition and run, and the alignment of the test subject uses labels of its other
                   runs (a calibration); never of the run that is scored
The subjects' own brains differ in shape here, and the voxels are native: normalise first (fMRIPrep,
--config.data.space=MNI152NLin2009cAsym and --config.data.events_root=ds000108), or choose each
subject's own voxels (--config.voxels.own=True).
"""

from configs import common


def get_config(variant: str = ""):
    """The study, with the paper's network and training, or `null`: the same design on noise."""
    config = common.get_config()
    config.data.source = "bids"
    config.data.root = "ds000108"
    config.data.label_map = "rest=;neutral=Look_Neutral_Stim;negative=Look_Neg_Stim"
    config.data.conflicts = "drop"
    config.align.match = "class"
    config.align.regimes = "independent_runs,group,none"
    config.balance = 100
    return common.null_or_none(config, variant)
