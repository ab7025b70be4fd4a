"""A table with the valid range of every config key, checked before data is read.

Keys of `model` are in the table of their network (`rules` of a `models.Network`). Rules that
combine several keys, or resolve a name, are in the experiment's own `check`.
"""

from collections.abc import Mapping
from typing import Any, get_args

from ml_collections import ConfigDict

from emojax import clusters, models, piecewise, plateau, searchlight, tracking
from emojax.alignment import REGIMES
from emojax.data import causal_settings
from emojax.data.events import CONFLICTS
from emojax.errors import InputError
from emojax.features import scaling
from emojax.features.across_subjects import MATCHES
from emojax.rules import Rule, each, flag, names, number, one_of, some_of, text, tuple_of, whole
from emojax.sources.synthetic_design import CLASSES, ORDERS

HEADLINES = ("bag", "network", "auto")  # headlines of Experiment A
# Alignment methods that can be compared.
WAYS = (*REGIMES, *(f"piecewise:{method}" for method in get_args(piecewise.Way)))
CHOICES = ("nested", "last", "paper")  # protocols: how the epoch is chosen
_MISSING = object()


def _below(part: str, rules: Mapping[str, Rule]) -> dict[str, Rule]:
    return {f"{part}.{name}": rule for name, rule in rules.items()}


def _are_shares(value: Any) -> bool:
    """Returns whether values are three sizes, or three fractions that sum to 1."""
    if not tuple_of(*[number("(0, 1e9]")] * 3).holds(value):
        return False
    return each(whole("[1, 1e9]")).holds(value) or abs(sum(value) - 1) < 1e-6


def _are_factors(value: Any) -> bool:
    return each(number("[0, 1e20]")).holds(value) and len(set(value)) == len(value)


def _are_volumes(value: Any) -> bool:
    return whole("[0, 0]").holds(value) or whole("[40, inf)").holds(value)


DATA = {
    "source": text,  # a name in sources.SOURCES, or a path
    "root": text,
    "store": text,
    "progress": flag,
    "subjects": text,
    "runs": text,
    "sessions": text,
    "task": text,
    "space": text,
    "entities": text,
    "group": text,
    "mask": text,
    "grid": one_of("mm", "array"),
    "table": text,
    "file_column": text,
    "subject_column": text,
    "run_column": text,
    "event_duration_s": number("[0, 1e6]"),
    "smooth_mm": number("[0, 100]"),
    "high_pass_hz": number("[0, 1]"),
    "confounds": names,
    "scrub_fd_mm": number("[0, 1000]"),
    "events_root": text,
    "label_column": text,
    "label_map": text,
    "hrf_delay_s": number("[-1000, 1000]"),
    "min_overlap": number("(0, 1]"),
    "conflicts": one_of(*CONFLICTS),
    "drop_first": whole("[0, 1e6]"),
    "tr": number("[0, 1000]"),
    "images": text,
    "labels": text,
    "onset_unit": one_of("s", "scans"),
    "detrend": whole("[0, 100]"),
    "centre": flag,
    "zscore": flag,
    "motion": flag,
    "online": Rule(causal_settings.EXPECTED, causal_settings.is_known),
}
SYNTHETIC = {
    "seed": whole("[0, 4294967295]"),
    "design": one_of(*CLASSES),
    "subjects": whole("[0, 22]"),
    "volumes": Rule("0, or a whole number in [40, inf)", _are_volumes),
    "grid": tuple_of(whole("[16, 1024]"), whole("[16, 1024]"), whole("[12, 1024]")),
    "signal": number("[0, 10)"),
    "order": one_of(*ORDERS),
    "null": flag,
    "nonlinear": number("[0, 1]"),
    "shared": number("[0, 10)"),
}
TRAIN = {
    "epochs": whole("[1, 1e6]"),
    "least_steps": whole("[0, 1e6]"),
    "epoch_zero": flag,
    "best_by": one_of("accuracy", "nll"),
    "draws": one_of("rows", "classes"),
    "warmup": whole("[0, 1e6]"),
    "batch_size": whole("[1, 1e6]"),
    "lr": number("[1e-30, 1e30]"),
    "adam": one_of("keras", "optax"),
    "adam_b1": number("[0, 1)"),
    "adam_b2": number("[0, 1)"),
    "adam_eps": number("[0, 1]"),
    "penalty": text,  # one of the network's `kinds`
    "penalty_factor": number("[0, 1e20]"),
    "shortcut_l2": number("(-inf, 1e20]"),
    **_below("plateau", {name: plateau.RULES[name] for name in plateau.RULES if name != "base_lr"}),
    "early_stop": flag,
    "feed": one_of("auto", "resident", "stream"),
    "feed_dtype": one_of("auto", "bfloat16", "float32"),
    "feed_rounding": number("[0, 1e6]"),
    "memory_share": number("[0, 1]"),
    "keep_models": flag,
    "strategy": one_of("auto", "loop", "scan"),
    "checkpoint_epochs": whole("[1, inf)"),
    "loggers": names,  # in tracking.SHIPPED, from other packages, or paths
}
SEARCHLIGHT = {
    "radius_mm": number("[0, 1000]"),
    "classifier": one_of(*get_args(searchlight.Classifier)),
    "folds": text,  # auto, subject, run, or a column of the design
    "permutations": whole("[0, 100000]"),
    "correction": one_of(*get_args(clusters.Correction)),
    "least": whole("[1, 1e6]"),
}
SHARED = {
    "experiment": text,  # a name in experiments.EXPERIMENTS, or a path
    "seed": whole("[0, 4294967295]"),  # the range of scikit-learn
    "null": flag,
    "null_floor": flag,
    "audit": flag,
    "permutations": whole("[-1, 100000]"),
    "permute": text,  # in baselines.BASELINES, or "network"
    "within_subject": flag,
    "crossed": names,
    "design": flag,
    "maps": flag,
    "temperature": flag,
    "noise.draws": whole("[0, 10000]"),
    "noise.network_draws": whole("[0, 1000]"),
    "baselines": names,  # in baselines.BASELINES, or paths
    "floor_baselines": names,
    "model.name": text,  # in models.NETWORKS, or a path
    **_below("data", DATA),
    **_below("data.synthetic", SYNTHETIC),
    **_below("train", TRAIN),
}
OWN = {  # keys of one experiment
    "A": {
        "headline": one_of(*HEADLINES),
        "network": flag,
        "inner": whole("[0, 1e6]"),
        "members": whole("[0, 1e6]"),
        "train.members": flag,
        "instances": whole("[1, 10000]"),
        "protocols": some_of(*CHOICES),
        "leaks": flag,
        "units": one_of("subject", "run"),
        "mask.lower": number("[0, 1]"),
        "mask.upper": number("[0, 1]"),
        "mask.opening": whole("[0, 1000]"),
        "voxels.keep": whole("[1, 1e8]"),
        "voxels.own": flag,
        "voxels.after": flag,
        "voxels.classical": one_of("keep", "all"),
        "voxels.centre": flag,
        "align.regimes": some_of(*REGIMES),
        "align.match": one_of(*MATCHES),
        "align.parcels": text,  # ward:N, kmeans:N, or a path
        "align.piecewise": one_of(*get_args(piecewise.Way)),
        "align.level2_iters": whole("[0, 10000]"),
        "align.zscore_common": flag,
        "align.alpha": number("[0, 1]"),
        "align.scaling": flag,
        "align.reflection": flag,
        "align.weight": number("[0, 1]"),
        "align.method": one_of("svd", "polar"),
        "alignments": some_of(*WAYS, least=0),
        **_below("searchlight", SEARCHLIGHT),
        "balance": whole("[1, 1e6]"),
        "sweep": text,  # settings; see `sweeps`
    },
    "B": {
        "splits": names,  # in splits.SPLITS, or paths
        "fractions": Rule("three parts with sum 1, or three sizes, all above 0", _are_shares),
        "folds": whole("[1, 100000]"),
        "instances": whole("[1, 10000]"),
        "oversample": flag,
        "scale": one_of(*scaling.KINDS),
        "pad": whole("[0, 1024]"),
        "kernel_norm": number("[1e-12, 1e12]"),
        "sweep": Rule("numbers in [0, 1e20], each once", _are_factors),
    },
}


def rules_of(config: Any) -> dict[str, Rule]:
    """Returns dotted key -> rule, for all experiments and the config's network.

    Raises:
      InputError: unknown network.
    """
    own = {key: rule for rules in OWN.values() for key, rule in rules.items()}
    like = "A" if isinstance(_find(config, "sweep"), str) else "B"  # for an experiment of your own
    own |= {"sweep": OWN[like]["sweep"]} | OWN.get(str(_find(config, "experiment")), {})
    name = _find(config, "model.name")
    network = models.find(name).rules if isinstance(name, str) else {}
    return SHARED | own | _below("model", network)


def check(config: Any) -> None:
    """Rejects settings that are out of range.

    A key without a rule may have any value: it belongs to an experiment or a network outside this
    package, which checks it.

    Args:
      config: a ConfigDict with any of the keys of `configs/common.py`.

    Raises:
      InputError: names the first key that is out of range.
    """
    for key, rule in rules_of(config).items():
        found = _find(config, key)
        if found is not _MISSING and not rule.holds(found):
            raise InputError(key, repr(found), rule.expected)
    if (loggers := _find(config, tracking.KEY)) is not _MISSING:
        tracking.check(loggers)


def require(config: Any, experiment: str) -> None:
    """Rejects a config without the keys that Experiment A or B reads.

    Raises:
      InputError: names the first missing keys.
    """
    needed = SHARED | OWN[experiment]
    if missing := [key for key in needed if _find(config, key) is _MISSING]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        found = f"{experiment!r} and a config without {', '.join(missing[:3])}{more}"
        expected = f"a config of Experiment {experiment}, such as exp{experiment}"
        raise InputError("experiment", found, expected)


def _find(config: Any, key: str) -> Any:
    """Returns the value of a dotted key, or `_MISSING`."""
    for part in key.split("."):
        if not isinstance(config, Mapping | ConfigDict) or part not in config:
            return _MISSING
        config = config[part]
    return config
