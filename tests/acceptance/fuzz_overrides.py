"""Every key of both configs, with values of a wrong type or out of range."""

from fuzz_cases import Case, nothing
from fuzz_inputs import LABEL_MAP

BAD = {
    int: (
        *("abc", "1.5", "nan", "", "[1,2]", "None", "-1"),
        *("99999999999999999999", "2147483648"),
    ),
    float: ("abc", "", "(1,)", "nan", "inf", "-1", "1e308"),
    bool: ("maybe", "2", ""),
    str: ("\x00", "nonsense", "../../etc/passwd", "[/red]", ",,,", "x" * 10000),
    tuple: (
        *("abc", "()", "(1,)", "('a','b','c')", "(float('nan'),)*3"),
        *("(-1,-1,-1)", "(0,0,0)", "(1e30,1e30,1e30)", "5"),
    ),
}
# Texts that a source other than the one read uses, or that may be anything.
FREE = ("onset_unit", "root", "store", "events_root", "label_column", "label_map", "labels")
FREE += ("task", "space", "sessions", "subjects", "runs")
FREE = {f"data.{name}" for name in FREE} | {"experiment", "align.parcels", "searchlight.folds"}
HUGE, HUGER = "2147483648", "99999999999999999999"
SLOW = ("align.level2_iters", "train.epochs", "instances")  # in range, but would run for ever
FINE = {  # in range for that key, whatever it looks like
    *((key, value) for key in SLOW for value in (HUGE, HUGER)),
    *(("data.hrf_delay_s", "-1"), ("seed", "-1"), ("train.shortcut_l2", "-1")),
    ("permutations", "-1"),  # as many as there are, up to 99
    *(("sweep", "(1,)"), ("sweep", "(0,0,0)"), ("sweep", "5"), ("sweep", "()")),
    *(("data.synthetic.volumes", HUGE), ("data.synthetic.volumes", HUGER)),
    *(("train.checkpoint_epochs", HUGE), ("train.checkpoint_epochs", HUGER)),
    *(("train.batch_size", HUGE), ("train.plateau.min_delta", "1e308")),  # A takes all rows
    *(("train.plateau.patience", HUGE), ("train.plateau.cooldown", HUGE)),
    *(("model.dense", "()"), ("model.dense", "(1,)"), ("model.dense", "5")),
    *(("model.filters", "(1,)"), ("model.filters", "5")),
    *(("data.drop_first", "-1"), ("seed", HUGE), ("data.synthetic.seed", HUGE)),
}
SHARED = ("data.", "train.", "seed", "null", "null_floor")  # keys of both A and B; tried with A
AGAIN = ("shortcut_l2", "early_stop", "feed", "feed_dtype", "lr", "batch_size", "penalty_factor")
OFF = ("permutations=0", "within_subject=False", "crossed=", "design=False", "maps=False")
QUICK = {  # one short training of a study in files
    "A": (
        *("voxels.keep=56", "balance=8", "baselines=", "protocols=nested"),
        *("align.regimes=independent_runs", "leaks=False", "null_floor=False"),
        *("train.epochs=1", "train.keep_models=False", "audit=False", LABEL_MAP[9:], *OFF),
    ),
    "B": (
        *("data.online=", "fractions=(0.5,0.25,0.25)", "model.depth=18", "model.width=4"),
        *("baselines=", "floor_baselines=", "splits=by_subject", "folds=1", "null_floor=False"),
        *("train.epochs=1", "train.keep_models=False", "audit=False", *OFF),
        "data.label_map=neutral=neutral;negative=negative",
    ),
}


def cases():
    """Yields the cases of all keys."""
    from configs import expA, expB

    for which, config in (("A", expA.get_config("demo")), ("B", expB.get_config("demo"))):
        for key, value in leaves(config):
            again = key.removeprefix("train.") in AGAIN
            if key in FREE or (which == "B" and key.startswith(SHARED) and not again):
                continue
            for bad in BAD[type(value)]:
                empty = bad == "" and isinstance(value, str | tuple)
                nobody = bad == ",,," and isinstance(value, str)
                if (key, bad) not in FINE and not empty and not nobody:
                    name = f"{key}={bad[:40]!r}"
                    yield Case(f"override {which}", name, nothing, argv(which, f"{key}={bad}"))


def argv(which, *settings):
    """Returns the flags of a short training with other settings."""

    def flags(folder, work):
        words = [f"--config=configs/exp{which}.py:demo", f"--workdir={work}"]
        own = [f"data.root={folder}", "data.source=bids", *QUICK[which]]
        if any(setting.startswith("data.synthetic") for setting in settings):
            own = [word for word in QUICK[which] if "label_map" not in word]
            words.append("--mode=data")
        keys = ("data.progress=False", *own, *settings)
        return [*words, *(f"--config.{key}" for key in keys)]

    return flags


def leaves(node, at=""):
    """Yields (dotted key, value) of a config."""
    for key, value in node.items():
        place = f"{at}.{key}" if at else key
        if hasattr(value, "items"):
            yield from leaves(value, place)
        else:
            yield place, value
