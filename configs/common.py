"""All config keys with defaults and units; each study changes a few of them."""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from emojax.nearest import hint


def get_config(experiment: str = "A") -> ConfigDict:
    """Returns all keys of Experiment A or B, locked so that a mistyped key fails.

    Raises:
      ValueError: unknown experiment.
    """
    if experiment not in EXPERIMENTS:
        raise ValueError(f"want experiment 'A' or 'B'; got {experiment!r}")
    return EXPERIMENTS[experiment]()


def choose(
    config: ConfigDict, variant: str, variants: Mapping[str, Callable[[ConfigDict], None]]
) -> ConfigDict:
    """Returns a config with one of its variants applied.

    Args:
      config: the keys that all variants share; changed in place.
      variant: the name after the colon in "expA:demo"; "" for none.
      variants: name -> function that sets the variant's keys. `emojax configs` prints the first
        line of its docstring. The entry "" applies if no variant is named.

    Raises:
      ValueError: unknown variant.
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
    """Runs the same design on noise, to compare results with."""
    config.null, config.null_floor = True, False


def _experiment_b() -> ConfigDict:
    config = ConfigDict()
    config.experiment = "B"  # a name in experiments.EXPERIMENTS, or "mypkg.module:EXPERIMENT"
    config.seed = 0  # seed of weights, orders, draws and permutations
    config.data = _data()
    config.data.synthetic.design = "B"
    _common(config)
    config.maps = False  # saliency maps of the network; they take minutes
    config.splits = "by_subject,by_run,random"  # see splits.SPLITS; the first is the headline
    # Training, validation and test fractions, of groups or (random) volumes; or three sizes.
    config.fractions = (0.64, 0.16, 0.2)
    config.folds = 1  # strict splits: 1 is a single split; with more, every group is tested once
    config.instances = 1  # training runs per fold; if several, each on a bootstrap of its rows
    config.oversample = True  # repeat training volumes of rarer classes up to the most frequent one
    config.scale = "global"  # scaler fitted to training volumes: "voxel", "global" or "none"
    config.pad = 0  # voxels; shorter axes are padded with empty slices to this length
    # Classical classifiers beside the network: in scoring.BASELINES, or "mypkg.module:function"
    config.baselines = (
        "1-NN,SVM-linear hard,LDA-shrinkage,SVM-RBF,SVM-RBF unscaled,MLP,RF,XGB-voxels"
    )
    config.floor_baselines = "1-NN,SVM-linear hard"  # classifiers that are also fitted to noise
    config.kernel_norm = 300.0  # mean squared norm of classifier features: 300 z-scored voxels
    config.sweep = ()  # L2 factors to try on the headline's first fold, instead of all else
    config.model = ConfigDict()
    config.model.name = "resnet3d"  # a name in models.NETWORKS, or a path "mypkg.nets:MyNet"
    config.model.depth = 50  # number of layers: 18, 34, 50, 101 or 152
    config.model.width = 64  # channels of the first stage
    config.model.head_features = 0  # size of a dense layer before the last one; 0 is none
    # Dtype of the computation: "float32", "bfloat16"; device: bfloat16 on GPUs, float32 on CPUs;
    # auto: the same, but the faster of the two on CPUs with bfloat16 instructions.
    config.model.dtype = "device"
    config.model.remat = False  # recompute activations: less memory, a third more time
    config.model.norm_momentum = 0.99  # momentum of moving statistics; short training needs less
    config.train = _train()
    config.train.epochs, config.train.batch_size, config.train.lr = 1250, 32, 5e-4
    config.train.penalty, config.train.penalty_factor = "l2", 2e-4
    config.train.plateau.update(factor=0.3, patience=30, min_lr=5e-10)
    config.train.early_stop = True
    config.train.feed_dtype = "auto"
    return config.lock()


def _experiment_a() -> ConfigDict:
    config = ConfigDict()
    config.experiment = "A"  # a name in experiments.EXPERIMENTS, or "mypkg.module:EXPERIMENT"
    config.seed = 0  # seed of weights, orders, draws and permutations
    config.data = _data()
    _common(config)
    # The decoder that is reported first and exported: "bag", logistic regressions that each hold
    # back a different subject; "network"; or "auto", the better one in inner folds of the training
    # subjects.
    config.headline = "bag"
    config.network = True  # False: no network, only the bag and the classical classifiers
    config.inner = 3  # headline "auto": number of inner folds per choice; 0 is all
    config.members = 10  # maximum number of subjects that a bag holds back in turn; 0 is all
    config.protocols = "nested,last,paper"  # how epochs are chosen; nested is the strict one
    config.leaks = True  # split the gap between paper and nested: one more training run per leak
    # Classical classifiers beside the headline: in scoring.BASELINES, or "mypkg.module:function"
    config.baselines = "SVM-linear,SVM-RBF,RF,XGB,LDA,MLP,MLP-modern,logistic"
    config.floor_baselines = "logistic"  # classifiers that are also fitted to noise, as the bag is
    config.units = "subject"  # what a fold leaves out: "subject" or "run"
    config.mask = ConfigDict({"lower": 0.2, "upper": 0.85, "opening": 2})  # see masking.brain_mask
    config.voxels = ConfigDict()
    config.voxels.keep = 300  # number of voxels to select, those with the largest F-scores
    config.voxels.classical = "keep"  # voxels that classical classifiers see: "keep" or "all"
    config.voxels.own = False  # select voxels for each subject, where columns do not correspond
    config.voxels.after = False  # regime piecewise: align all voxels, then select
    # Centre voxels within subjects, for F-scores and regime none; the paper does not say.
    config.voxels.centre = True
    config.align = ConfigDict()
    config.align.regimes = "independent_runs,group,transductive,none"  # the first is the headline
    config.align.match = "time"  # rows correspond by "time", or by "class": class means of each run
    # Regime piecewise: ward:N or kmeans:N clusters of training data, or the path of an atlas.
    config.align.parcels = "ward:50"
    config.align.piecewise = "procrustes"  # method for each parcel; or "ridge", "identity"
    # The rest of align: options of hyperalignment.fit.
    config.align.level2_iters = 1  # number of times that the common space is refitted
    config.align.zscore_common = True  # z-score the columns of every common space
    config.align.alpha = 1.0  # 1: plain hyperalignment; towards 0, rows are whitened first
    config.align.scaling = True  # fit a scale for each person; False: rotations only
    config.align.reflection = True  # allow reflections; False: determinant +1
    config.align.weight = 0.5  # weight of the next subject in level 1; 0 keeps the reference
    config.align.method = "svd"  # how rotations are computed; or "polar"
    config.alignments = ""  # alignment methods to compare: names as in align.regimes; "" is none
    # Accuracy in the sphere around every voxel, in addition to the headline; without alignment.
    config.searchlight = ConfigDict()
    config.searchlight.radius_mm = 0.0  # radius in mm (in voxels without an affine); 0: none
    # "lda" with shrinkage .1 and equal class priors, or "ridge" with alpha 1
    config.searchlight.classifier = "lda"
    # Leave out a "subject"; or a "run" within each subject, averaged over subjects; or the name of
    # a column: new subjects and new levels. "auto": subjects, or runs if there is one subject.
    config.searchlight.folds = "auto"
    # Number of permutations of labels, or of sign flips of subjects; 0: no p values.
    config.searchlight.permutations = 199
    config.searchlight.correction = "tfce"  # over the map: "tfce", "cluster" (size), "max" (height)
    config.searchlight.least = 10  # voxels; smaller spheres are left out
    config.instances = 1  # networks per fold (or member), from different initial weights
    # Network settings among which each fold chooses by its monitored subject, in a separate row:
    # "train.penalty_factor=1e-3,1e-2;voxels.keep=200,300" are four; "" is none
    config.sweep = ""
    config.balance = 200  # rows drawn per class and training subject, by bootstrap
    config.model = ConfigDict()
    config.model.name = "cnn1d"  # a name in models.NETWORKS, or a path "mypkg.nets:MyNet"
    config.model.filters = (128, 128, 128, 64, 64, 64)  # number of filters of each convolution
    config.model.window = 10  # voxels in the window of a convolution
    config.model.dense = (1024, 512, 256, 128, 64, 32, 16)  # sizes of the hidden layers
    config.model.conv_activation = ""  # a key of cnn1d.ACTIVATIONS; "" is none
    config.model.batch_norm = False  # batch norm after the layers of norm_layers
    config.model.norm_layers = "all"  # layers with batch norm: "all", or "dense" only
    config.model.norm_momentum = 0.99  # momentum of moving statistics; short training needs less
    config.model.dropout = (0.25, 0.5)  # dropout rates of the features and of dense layers
    config.train = _train()
    config.train.members = False  # one network per held-back subject; their mean is scored
    return config.lock()


def _common(config: ConfigDict) -> None:
    """Sets the keys of every experiment."""
    # The noise floor: the same data with random phases, or rows exchanged if they have no times.
    config.null = False  # run on a draw of noise instead of the measured values
    config.null_floor = True  # also fit to noise, and report the floor beside the result
    config.noise = ConfigDict()
    config.noise.draws = 10  # noise draws for classical classifiers; 0 is none
    config.noise.network_draws = 1  # noise draws for networks, each a full training; 0 is none
    # Additional analyses of the headline; each takes time.

    # Label permutations through the whole pipeline; -1: 99, or all if there are fewer; 0: none.
    config.permutations = -1
    config.permute = "logistic"  # classifier of the permutations: a baseline, or "network"
    config.within_subject = True  # decode each test subject from its other runs, if they are used
    # Columns of the design to cross: new subjects AND new levels. Names, or "all"; "" is none.
    config.crossed = "all"
    config.design = True  # test whether the design predicts the labels
    config.maps = True  # brain maps, patterns or saliency, compared with random weights
    config.temperature = True  # calibrate the network's probabilities on its monitored volumes
    config.audit = True  # perturb scored volumes, fit again and compare; False: "not measured"


def _train() -> ConfigDict:
    train = ConfigDict()
    train.epochs = 5000  # maximum number of epochs; see early_stop
    train.least_steps = 0  # minimum number of steps: small data get more epochs
    train.epoch_zero = False  # whether the untrained network may be the best epoch
    train.best_by = "accuracy"  # criterion of the best epoch: "accuracy" or class-balanced "nll"
    train.draws = "rows"  # an epoch has every row once, or draws with equally likely "classes"
    train.batch_size = 64  # rows per step
    train.lr = 4.5e-3  # initial learning rate; train.plateau lowers it
    train.warmup = 0  # epochs in which the rate rises from 0
    train.adam = "keras"  # where epsilon is added: "keras" or "optax"
    # Adam: decay rates of the mean and of the mean square, and epsilon.
    train.adam_b1, train.adam_b2, train.adam_eps = 0.9, 0.999, 1e-7
    train.penalty = "l2"  # "l2" of all kernels (paper) or "l1" of the dense layers (authors' code)
    train.penalty_factor = 5e-2  # weight of the penalty in the loss
    train.shortcut_l2 = -1.0  # L2 factor of shortcut kernels (ResNets); negative: as all others
    train.plateau = ConfigDict()
    train.plateau.factor = 0.2  # factor of the rate each time that the monitored loss stalls
    train.plateau.patience = 50  # epochs without a new minimum until a cut
    train.plateau.min_delta = 1e-4  # smallest decrease of the loss that counts as a new minimum
    train.plateau.cooldown = 0  # epochs after a cut that do not count
    train.plateau.min_lr = 1e-5  # lower limit of the rate
    train.early_stop = False  # stop at min_lr after `patience` epochs without improvement
    train.feed = "auto"  # "resident" on the device, "stream" from disk; auto: resident if it fits
    train.feed_dtype = "float32"  # "float32" or "bfloat16"; auto: bfloat16 if it rounds little
    train.feed_rounding = 0.05  # auto: bfloat16 if rounding errors are below this fraction of an sd
    train.memory_share = 0.9  # auto: resident if this fraction of the device's memory suffices
    train.keep_models = True  # keep networks of the headline's folds; --mode=export needs them
    train.strategy = "auto"  # "loop" (CPU) or "scan" (folds side by side, epochs on the device)
    train.checkpoint_epochs = 50  # epochs between checkpoints, and per dispatch of "scan"
    # Loggers besides metrics.jsonl: "tensorboard", "mlflow", "mypkg.module:Logger"; "": none.
    train.loggers = ""
    return train


def _data() -> ConfigDict:
    data = ConfigDict()
    data.source = "synthetic"  # bids, spm, lab, arrays, maps or synthetic
    data.root = ""  # folder of the study; not used by synthetic
    data.store = ""  # folder of decoded scans; "" is "store" beside the workdir
    data.progress = True  # show progress bars
    # Parts of the study: comma-separated, without BIDS prefixes.
    data.subjects = ""  # such as "01,02"; "" is all
    data.runs = ""  # names of runs; "" is all
    data.sessions = ""  # names of sessions; "" is all
    data.task = ""  # name of one task; "" if the study has only one
    data.space = ""  # space of derivatives, e.g. MNI152NLin2009cAsym; "" if there is only one
    data.entities = ""  # bids: which version of a run to read: "echo=2,rec=norm|raw,res=none"
    data.group = ""  # bids, maps: column with the group of each person, for scores by group
    # Voxels: their grid, and which of them are used.
    data.mask = ""  # image of the voxels to use: ROI.nii.gz, or ATLAS.nii.gz:17|18 for its labels
    data.grid = "mm"  # voxels correspond between subjects by "mm", or by index in the "array"
    # Images with one label each (maps): a table, and its columns in addition to data.label_column.
    data.table = ""  # maps: the .tsv or .csv, relative to root
    data.file_column = "file"  # table column: path of the image, relative to the table
    data.subject_column = "subject"  # table column: the image's subject
    data.run_column = ""  # table column that groups a subject's images into runs; "" is one run
    # Labels of volumes from events (bids, and onset tables of spm).
    data.events_root = ""  # BIDS folder with the events.tsv of derivatives; "" is root
    data.label_column = "trial_type"  # column of events.tsv
    data.label_map = ""  # "rest=;neutral=value;negative=value|value"; empty right side: no event
    data.hrf_delay_s = 5.0  # seconds from an event to the volumes that show its response
    data.min_overlap = 0.5  # smallest fraction of a volume's acquisition in its event, in (0, 1]
    data.event_duration_s = 0.0  # seconds, for events of duration 0 or n/a; 0: as in the table
    data.conflicts = "error"  # for a volume in events of two classes: "error" or "drop"
    data.drop_first = 0  # number of volumes at the start of each run that are never used
    data.tr = 0.0  # seconds; overrides RepetitionTime, VolumeTiming and header; 0 does not
    data.images = "ra*"  # spm: names of the images, e.g. swra* if they were also normalised
    data.labels = ""  # spm: the CSV or onset table, relative to root; or a .mat file of each run
    data.onset_unit = "s"  # spm: unit of onsets and durations, "s" or "scans" (volumes from 0)
    # Cleaning, separately for each run and over all of its volumes. The paper does none.
    data.smooth_mm = 0.0  # mm, full width at half maximum of a Gaussian kernel
    data.high_pass_hz = 0.0  # Hz; slower cosines are removed; 0.01 is common
    data.confounds = ""  # bids, fMRIPrep: regressors: "motion24,wm_csf,compcor,high_pass"
    data.scrub_fd_mm = 0.0  # mm; volumes with a larger framewise displacement are not used
    data.detrend = 0  # degree of the polynomial to remove: 0 none, 1 linear, 2 quadratic
    data.centre = False  # centre each voxel in each run
    data.zscore = False  # z-score each voxel in each run
    data.motion = False  # regress out the six realignment parameters
    # Correction of each volume by earlier ones, which a decoder can repeat at the scanner: steps
    # joined by +, see online/correction.py: gain+ema:30, cumulative, drift:1+motion, zscore:20
    data.online = ""
    data.synthetic = _synthetic()
    return data


def _synthetic() -> ConfigDict:
    synthetic = ConfigDict()
    synthetic.seed = 0  # seed of the simulated cohort
    synthetic.design = "A"  # the paper's cohort A or B
    synthetic.subjects = 0  # number of subjects; 0 is the paper's: 11 (A), 22 (B)
    synthetic.volumes = 0  # number of volumes per run; 0 is the paper's
    synthetic.grid = (64, 64, 44)  # shape of a volume in voxels
    synthetic.signal = 1.0  # strength of the response, relative to the default
    synthetic.order = "shared"  # block order of subjects: "shared" or "independent"
    synthetic.null = False  # no response at all
    # Fraction of the class difference, 0 to 1, that no linear decoder can read: opposed patterns.
    synthetic.nonlinear = 0.0
    # Response to negative beyond neutral in the same places of all subjects. With 1, contrast maps
    # agree as in real data, mean cosine .18 (faces minus shapes, 100 people); 0 is none.
    synthetic.shared = 1.0
    return synthetic


EXPERIMENTS = {"A": _experiment_a, "B": _experiment_b}
