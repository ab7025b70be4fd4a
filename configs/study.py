r"""Your own study: a BIDS folder, raw or from fMRIPrep, with settings that train.

    python launch.py --mode=data --config=configs/study.py --workdir=runs/me --config.data.root=DIR
    python launch.py --config=configs/study.py --workdir=runs/me --config.data.root=DIR \
        --config.data.space=MNI152NLin2009cAsym --config.data.task=faces \
        --config.data.label_map="rest=;neutral=neutral;negative=fear|sad"
    python launch.py --config=configs/study.py:B ...          # Experiment B: a 3D ResNet-18

The first command reads, counts and stops; look at its table before you train. The settings, and
when you need them:

  data.label_map    always: the classes and the values of trial_type that belong to them. "rest=" is
                    the time outside all events. A value that is not listed belongs to no class.
  data.task         if the study has several tasks.
  data.space        space of fMRIPrep's images, as in the file names. One standard space for all
                    people, or voxels.own=True (Experiment A) for images in native space.
  data.entities     if a run is stored more than once: "echo=2,res=2" picks one version.
  data.events_root  folder with the events.tsv, if root holds derivatives and is neither inside the
                    raw data set nor names it.
  data.hrf_delay_s  5 s from an event to the volumes that show it; 0 if onsets contain the lag.
  data.event_duration_s  length of events of duration 0 or n/a: how long the response lasts.
  data.mask         a region of interest; lower voxels.keep to the number of its voxels.
  data.confounds    "motion24,wm_csf,high_pass" regresses them out, before anything else.
  data.group        a column of participants.tsv, for scores by group.

Rows of different people correspond by condition (align.match=class), so the order of events may
differ between people. The headline rotates all people by one map, which has seen nothing of the
test person and needs only one run. With two runs or more,
--config.align.regimes=independent_runs,none fits each person's own map to its other runs. The study
needs at least four people; with fewer, leave runs out within people: --config.units=run
--config.align.regimes=none.
"""

from emojax.configs import common


def get_config(variant: str = ""):
    """Returns Experiment A with settings that train, or a variant."""
    config = common.get_config("B" if variant.startswith("B") else "A")
    config.data.source = "bids"
    config.data.conflicts = "drop"  # with the lag, a volume may touch two events
    return common.choose(config, variant, VARIANTS)


def experiment_a(config):
    """Sets a penalty and a rate with which the network trains, and matches rows by condition."""
    config.protocols = "nested,last"  # "paper", the published procedure, would double the time
    config.align.match = "class"
    config.align.regimes = "group,none"
    config.balance = 100
    config.train.epochs = 200
    config.train.lr = 5e-4
    config.train.penalty_factor = 1e-3
    config.train.early_stop = True
    config.train.plateau.patience = 10


def experiment_b(config):
    """Runs Experiment B: a 3D ResNet-18 on whole volumes, with settings that train.

    The network is small, and its moving statistics suit a short training.
    """
    config.splits = "by_subject,by_run"
    config.model.depth = 18
    config.model.norm_momentum = 0.9
    config.train.batch_size = 16
    config.train.epochs = 100
    config.train.lr = 3e-4
    config.train.plateau.patience = 10
    config.train.plateau.min_lr = 1e-5


def null(config):
    """Runs the same design on noise, to compare results with."""
    experiment_a(config)
    common.null(config)


def b_null(config):
    """Runs Experiment B's design on noise."""
    experiment_b(config)
    common.null(config)


VARIANTS = {"": experiment_a, "B": experiment_b, "null": null, "B_null": b_null}
