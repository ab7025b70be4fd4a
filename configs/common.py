"""All config keys with defaults and units; experiments change a few lines of it."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from emojax.nearest import hint


def get_config(experiment: str = "A") -> ConfigDict:
    """Returns all keys of Experiment A or B; locked, so that a mistyped one fails.

    Raises:
      ValueError: another experiment.
    """
    if experiment not in EXPERIMENTS:
        raise ValueError(f"want experiment 'A' or 'B'; got {experiment!r}")
    return EXPERIMENTS[experiment]()


def choose(
    config: ConfigDict, variant: str, variants: Mapping[str, Callable[[ConfigDict], None]]
) -> ConfigDict:
    """Returns a config after the steps of one of its variants.

    Args:
      config: what all variants share; changed in place.
      variant: the name that follows the colon in "expA:demo"; "" where there is none.
      variants: name -> function that sets the variant's keys. `emojax configs` prints the first
        line of its docstring. An entry "" sets keys where no variant is named.

    Raises:
      ValueError: an unknown variant.
    """
    if variant in variants:
        variants[variant](config)
    elif variant:
        names = [name for name in variants if name]
        raise ValueError(
            f"unknown variant {variant!r}{hint(variant, names)}; want {', '.join(names)} or none"
        )
    return config


def null(config: ConfigDict) -> None:
    """Takes the same design on noise: the floor that results are compared with."""
    config.null, config.null_floor = True, False


def _experiment_b() -> ConfigDict:
    config = ConfigDict()
    config.experiment = "B"  # of experiments.EXPERIMENTS, or "mypkg.module:EXPERIMENT"
    config.seed = 0  # of weights, orders, draws and permutations
    config.data = _data()
    config.data.synthetic.design = "B"
    _common(config)
    config.maps = False  # minutes, of a network
    config.splits = "by_subject,by_run,random"  # see splits.SPLITS; the first is the headline
    config.fractions = (0.64, 0.16, 0.2)  # training, validation, test: of groups, or volumes
    config.folds = 1  # of strict splits: 1 is one split, more test every group once
    config.instances = 1  # trainings of each fold; with several each has a bootstrap of its rows
    config.oversample = True  # training volumes of rarer classes, up to the commonest
    config.scale = "global"  # fitted to training volumes: "voxel", "global" or "none"
    config.pad = 0  # voxels; shorter axes are filled up with empty slices to so many
    # Classical classifiers beside the network: of scoring.BASELINES, or "mypkg.module:function".
    config.baselines = (
        "1-NN,SVM-linear hard,LDA-shrinkage,SVM-RBF,SVM-RBF unscaled,MLP,RF,XGB-voxels"
    )
    config.floor_baselines = "1-NN,SVM-linear hard"  # those that see the noise floor, too
    config.kernel_norm = 300.0  # mean squared norm of their features: of 300 standardised voxels
    config.sweep = ()  # L2 factors, tried on the headline's first fold instead of everything else
    config.model = ConfigDict()
    config.model.name = "resnet3d"  # of models.NETWORKS, or a dotted path "mypkg.nets:MyNet"
    config.model.depth = 50  # layers: 18, 34, 50, 101 or 152
    config.model.width = 64  # channels of the first stage
    config.model.head_features = 0  # a dense layer before the last one; 0 is none
    # of the computation: "float32", "bfloat16"; device: bfloat16 on GPUs, float32 on CPUs;
    # auto: the same, but the quicker of the two on CPUs with instructions for bfloat16
    config.model.dtype = "device"
    config.model.remat = False  # less memory, a third more time
    config.model.norm_momentum = 0.99  # of moving statistics; shorter trainings need less
    config.train = _train()
    config.train.epochs, config.train.batch_size, config.train.lr = 1250, 32, 5e-4
    config.train.penalty, config.train.penalty_factor = "l2", 2e-4
    config.train.plateau.update(factor=0.3, patience=30, min_lr=5e-10)
    config.train.early_stop = True
    config.train.feed_dtype = "auto"
    return config.lock()


def _experiment_a() -> ConfigDict:
    config = ConfigDict()
    config.experiment = "A"  # of experiments.EXPERIMENTS, or "mypkg.module:EXPERIMENT"
    config.seed = 0  # of weights, orders, draws and permutations
    config.data = _data()
    _common(config)
    # The decoder that is quoted and exported: "bag", logistic regressions that each hold back
    # another subject; "network"; or "auto", what inner folds of the training subjects prefer.
    config.headline = "bag"
    config.network = True  # False trains none: the bag and the classical classifiers alone
    config.inner = 3  # headline "auto": inner folds behind each choice; 0 is all
    config.members = 10  # of a bag: at most so many subjects are held back in turn; 0 is all
    config.protocols = "nested,last,paper"  # how epochs are chosen; nested is the strict one
    config.leaks = True  # break the gap between paper and nested down, one more training per leak
    # Classical classifiers beside the headline: of scoring.BASELINES, or "mypkg.module:function".
    config.baselines = "SVM-linear,SVM-RBF,RF,XGB,LDA,MLP,MLP-modern,logistic"
    config.floor_baselines = "logistic"  # those that see the noise floor, too, beside the bag
    config.units = "subject"  # what a fold leaves out: "subject" or "run"
    config.mask = ConfigDict({"lower": 0.2, "upper": 0.85, "opening": 2})  # see masking.brain_mask
    config.voxels = ConfigDict()
    config.voxels.keep = 300  # voxels of the largest F-scores that are chosen
    config.voxels.classical = "keep"  # voxels of the classical classifiers: "keep", or "all"
    config.voxels.own = False  # each subject its own voxels, where columns do not correspond
    config.voxels.after = False  # regime piecewise: align all voxels, then choose
    config.voxels.centre = True  # within subject, for F-scores and regime none; the paper is silent
    config.align = ConfigDict()
    config.align.regimes = "independent_runs,group,transductive,none"  # the first is the headline
    config.align.match = "time"  # rows that correspond: "time", or "class" means of each run
    # Of regime piecewise: ward:N or kmeans:N clusters of training data, or the path of an atlas.
    config.align.parcels = "ward:50"
    config.align.piecewise = "procrustes"  # or "ridge", "identity": of each parcel
    # The rest of align: options of hyperalignment.fit.
    config.align.level2_iters = 1  # times that the common space is fitted anew
    config.align.zscore_common = True  # columns of every common space
    config.align.alpha = 1.0  # 1: plain hyperalignment; towards 0, rows are whitened first
    config.align.scaling = True  # of each person; False: rotations only
    config.align.reflection = True  # allowed; False: determinant +1
    config.align.weight = 0.5  # of the newcomer in level 1; 0 keeps the reference
    config.align.method = "svd"  # or "polar"
    config.alignments = ""  # compared beside the headline: names as in align.regimes; "" is none
    # Accuracy in the sphere around every voxel, beside the headline; without alignment.
    config.searchlight = ConfigDict()
    config.searchlight.radius_mm = 0.0  # mm (voxels where no affine is known); 0: none
    config.searchlight.classifier = "lda"  # shrinkage .1, classes count alike; or "ridge", alpha 1
    # Leave out a "subject"; or a "run" of each subject by itself, then the mean over subjects; or
    # the name of a column: new subjects and new levels. "auto": subjects, of one subject its runs.
    config.searchlight.folds = "auto"
    config.searchlight.permutations = 199  # of labels, or of signs of subjects; 0: no p values
    config.searchlight.correction = "tfce"  # over the map: or "cluster" (size), or "max" (height)
    config.searchlight.least = 10  # voxels; smaller spheres are left out
    config.instances = 1  # networks of each fold (or member), from other initial weights
    # Settings of the network among which each fold takes one by what it monitors, in a row of its
    # own: "train.penalty_factor=1e-3,1e-2;voxels.keep=200,300" are four; "" is none.
    config.sweep = ""
    config.balance = 200  # rows of each class and training subject, by bootstrap
    config.model = ConfigDict()
    config.model.name = "cnn1d"  # of models.NETWORKS, or a dotted path "mypkg.nets:MyNet"
    config.model.filters = (128, 128, 128, 64, 64, 64)  # of each convolution
    config.model.window = 10  # voxels
    config.model.dense = (1024, 512, 256, 128, 64, 32, 16)  # hidden layers
    config.model.conv_activation = ""  # as a key of cnn1d.ACTIVATIONS; "" is none
    config.model.batch_norm = False  # behind the layers of norm_layers
    config.model.norm_layers = "all"  # that have batch norm: "all", or "dense" alone
    config.model.norm_momentum = 0.99  # of its moving statistics; shorter trainings need less
    config.model.dropout = (0.25, 0.5)  # of the features, of dense layers
    config.train = _train()
    config.train.members = False  # a network for each subject held back; their mean is scored
    return config.lock()


def _common(config: ConfigDict) -> None:
    """Sets the keys of every experiment."""
    # The noise floor: the same data with random phases, or rows exchanged where they have no time.
    config.null = False  # a draw of it instead of every value
    config.null_floor = True  # fit to such values, too, and report it beside the result
    config.noise = ConfigDict()
    config.noise.draws = 10  # that classical classifiers are fitted to; 0 is none
    config.noise.network_draws = 1  # that networks are trained on, each anew; 0 is none
    # Questions beside the headline's score; each takes its time.
    config.permutations = -1  # of labels, through the whole pipeline: 99, or all there are; 0: none
    config.permute = "logistic"  # the classifier that they fit, of the baselines, or "network"
    config.within_subject = True  # what the test subject's other runs alone decode, where used
    config.crossed = "all"  # columns of the design: new subjects AND new levels; names, or "": none
    config.design = True  # whether the design gives the labels away
    config.maps = True  # patterns or saliency in the brain, and the same of random weights
    config.temperature = True  # probabilities of the network are with one, of what it monitors
    config.audit = True  # perturb what is scored, fit again, and compare; False: "not measured"


def _train() -> ConfigDict:
    train = ConfigDict()
    train.epochs = 5000  # at most, see early_stop
    train.least_steps = 0  # small data: as many more epochs as make so many steps
    train.epoch_zero = False  # the network before its first step may be the best
    train.best_by = "accuracy"  # what the kept epoch is best in: that, or class-balanced "nll"
    train.draws = "rows"  # an epoch is every row once, or draws with equally likely "classes"
    train.batch_size = 64  # rows of a step
    train.lr = 4.5e-3  # rate at the start; train.plateau lowers it
    train.warmup = 0  # epochs in which the rate rises from 0
    train.adam = "keras"  # where epsilon is added: "keras" or "optax"
    # Adam: decay of the mean, of the mean square; epsilon.
    train.adam_b1, train.adam_b2, train.adam_eps = 0.9, 0.999, 1e-7
    train.penalty = "l2"  # "l2" of all kernels (paper) or "l1" of the dense layers (authors' code)
    train.penalty_factor = 5e-2  # what the penalty is multiplied by in the loss
    train.shortcut_l2 = -1.0  # of kernels of shortcuts (ResNets); negative: as all others
    train.plateau = ConfigDict()
    train.plateau.factor = 0.2  # of the rate, each time that the monitored loss has stalled
    train.plateau.patience = 50  # epochs without a new minimum until then
    train.plateau.min_delta = 1e-4  # least fall of the loss that counts as a new minimum
    train.plateau.cooldown = 0  # epochs after a cut that do not count
    train.plateau.min_lr = 1e-5  # the rate never falls below
    train.early_stop = False  # stop at min_lr after `patience` epochs without improvement
    train.feed = "auto"  # "resident" on the device, or "stream" from disk; auto: what fits
    train.feed_dtype = "float32"  # "bfloat16"; auto: by what rounding would do
    train.feed_rounding = 0.05  # auto: bfloat16 if its rounding is less than this part of an sd
    train.memory_share = 0.9  # auto: resident if this part of the device's memory holds it
    train.keep_models = True  # networks of the headline's folds, which --mode=export needs
    train.strategy = "auto"  # "loop" (CPU) or "scan" (folds side by side, epochs on the device)
    train.checkpoint_epochs = 50  # epochs between checkpoints, and per dispatch of "scan"
    # Where epochs are followed: "tensorboard", "mlflow", "mypkg.module:Logger"; "": metrics.jsonl.
    train.loggers = ""
    return train


def _data() -> ConfigDict:
    data = ConfigDict()
    data.source = "synthetic"  # bids, spm, lab, arrays, maps or synthetic
    data.root = ""  # folder of the study; not for synthetic
    data.store = ""  # folder of decoded scans; "" is "store" beside the workdir
    data.progress = True  # draw progress bars
    # Which part of the study. Comma-separated, without BIDS prefixes.
    data.subjects = ""  # such as "01,02"; "" is all
    data.runs = ""  # names of runs; "" is all
    data.sessions = ""  # "" is all
    data.task = ""  # one task; "" where the study has only one
    data.space = ""  # space of derivatives, e.g. MNI152NLin2009cAsym; "" where there is only one
    data.entities = ""  # bids: which version of a run enters: "echo=2,rec=norm|raw,res=none"
    data.group = ""  # bids, maps: a column of people's groups: scores by group
    # Voxels: where they are, and which of them.
    data.mask = ""  # an image whose voxels enter: a ROI.nii.gz, or ATLAS.nii.gz:17|18 for labels
    data.grid = "mm"  # voxels correspond between subjects by "mm", or by their place in the "array"
    # Images with a label each (maps): a table, its columns beside data.label_column.
    data.table = ""  # maps: the .tsv or .csv, relative to root
    data.file_column = "file"  # of the table: path of the image, relative to the table
    data.subject_column = "subject"  # of the table: whose image it is
    data.run_column = ""  # of what the images of a subject are grouped by; "" is one run for all
    # Labels of volumes from events (bids, and onset tables of spm).
    data.events_root = ""  # BIDS folder of the events.tsv of derivatives; "" is root
    data.label_column = "trial_type"  # column of events.tsv
    data.label_map = ""  # "rest=;neutral=value;negative=value|value"; empty right side: no event
    data.hrf_delay_s = 5.0  # s from an event to the volumes that show it
    data.min_overlap = 0.5  # least part of a volume's acquisition inside its event, in (0, 1]
    data.event_duration_s = 0.0  # s, of events whose duration is 0 or n/a; 0: as the table has it
    data.conflicts = "error"  # a volume in events of two classes: "error" or "drop"
    data.drop_first = 0  # volumes at the start of each run that are never used
    data.tr = 0.0  # s; overrules RepetitionTime, VolumeTiming and header; 0 is none
    data.images = "ra*"  # spm: names of the images, e.g. swra* where they were also normalised
    data.labels = ""  # spm: the CSV or onset table, relative to root; or a .mat file of each run
    data.onset_unit = "s"  # spm: of onsets and durations, "s" or "scans" (volumes from 0)
    # Cleaning of each run by itself, over all of its volumes. The paper does none.
    data.smooth_mm = 0.0  # mm, full width at half maximum of a Gaussian over each volume
    data.high_pass_hz = 0.0  # Hz; slower cosines are removed: 0.01 is usual
    data.confounds = ""  # bids, fMRIPrep: what is removed: "motion24,wm_csf,compcor,high_pass"
    data.scrub_fd_mm = 0.0  # mm; volumes with a larger framewise displacement are not used
    data.detrend = 0  # degree of the polynomial that is removed: 0 none, 1 linear, 2 quadratic
    data.centre = False  # each voxel to mean 0 in each run
    data.zscore = False  # each voxel to mean 0 and sd 1 in each run
    data.motion = False  # remove what the six realignment parameters explain
    # Correction of each volume by those before it, which a decoder repeats at the scanner: steps
    # joined by +, see online/correction.py: gain+ema:30, cumulative, drift:1+motion, zscore:20
    data.online = ""
    data.synthetic = _synthetic()
    return data


def _synthetic() -> ConfigDict:
    synthetic = ConfigDict()
    synthetic.seed = 0  # of the simulated cohort
    synthetic.design = "A"  # the paper's cohort A or B
    synthetic.subjects = 0  # 0 is the paper's number: 11 (A), 22 (B)
    synthetic.volumes = 0  # of each run; 0 is the paper's number
    synthetic.grid = (64, 64, 44)  # voxels
    synthetic.signal = 1.0  # strength of the response, in units of the default
    synthetic.order = "shared"  # the block order of subjects: "shared" or "independent"
    synthetic.null = False  # no response at all: the noise floor
    # Part of the classes' difference, 0 to 1, that no linear decoder reads: opposed patterns.
    synthetic.nonlinear = 0.0
    # What negative evokes more than neutral in the same places of all subjects: 1 gives contrast
    # maps that agree as people's do, mean cosine .18 (faces minus shapes, 100 people); 0 is none.
    synthetic.shared = 1.0
    return synthetic


EXPERIMENTS = {"A": _experiment_a, "B": _experiment_b}
