r"""Your own study: a BIDS folder, raw or from fMRIPrep, with settings that train.

    python launch.py --mode=data --config=configs/study.py --workdir=runs/me --config.data.root=DIR
    python launch.py --config=configs/study.py --workdir=runs/me --config.data.root=DIR \
        --config.data.space=MNI152NLin2009cAsym --config.data.task=faces \
        --config.data.label_map="rest=;neutral=neutral;negative=fear|sad"
    python launch.py --config=configs/study.py:B ...          # Experiment B: a 3D ResNet-18

The first command reads, counts and stops; look at its table before you train. What to set, and
when:

  data.label_map    always: the classes, and which values of trial_type mean them. "rest=" is what
                    no event covers. A value that is left out belongs to no class.
  data.task         where the study has several tasks.
  data.space        of fMRIPrep's images, as the file names have it. One standard space for all
                    people, or voxels.own=True (Experiment A) for images in native space.
  data.entities     where a run is stored more than once: "echo=2,res=2" picks one version.
  data.events_root  folder with the events.tsv, where root holds derivatives and is neither inside
                    the raw data set nor names it.
  data.hrf_delay_s  5 s from an event to the volumes that show it; 0 where onsets contain the lag.
  data.event_duration_s  a length for events of duration 0 or n/a: how long the response lasts.
  data.mask         a region of interest; lower voxels.keep to the voxels that it has.
  data.confounds    "motion24,wm_csf,high_pass" removes them, before anything else.
  data.group        a column of participants.tsv: scores by group.

Rows of different people correspond by condition (align.match=class), so the order of events may
differ between people. The headline rotates all people by one map, which has seen nothing of the
test person and needs one run only. With two runs or more,
--config.align.regimes=independent_runs,none lets each person's other runs calibrate its own map.
Four people or more; leave-one-run-out within fewer: --config.units=run --config.align.regimes=none.
"""

from emojax.configs import common


def get_config(variant: str = ""):
    """Returns Experiment A with settings that train, or a variant."""
    config = common.get_config("B" if variant.startswith("B") else "A")
    config.data.source = "bids"
    config.data.conflicts = "drop"  # with the lag, a volume may touch two events
    return common.choose(config, variant, VARIANTS)


def experiment_a(config):
    """Sets a penalty and a rate with which the network trains, and rows that match by condition."""
    config.protocols = "nested,last"  # paper, the published procedure, costs as much again
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

    The network is small, and its moving statistics follow a short training.
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
    """Takes the same design on noise: the floor that results are compared with."""
    experiment_a(config)
    common.null(config)


def b_null(config):
    """Takes Experiment B's design on noise."""
    experiment_b(config)
    common.null(config)


VARIANTS = {"": experiment_a, "B": experiment_b, "null": null, "B_null": b_null}
