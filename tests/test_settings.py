"""The range of every config key: refused in one line before data is read, or in range."""

import math

import pytest
from ml_collections import ConfigDict
from test_configs import flat

from configs import common
from emojax.errors import InputError
from emojax.experiments import EXPERIMENTS, settings

ANY_TEXT = {
    *("experiment", "baselines", "floor_baselines", "splits", "model.name", "train.penalty"),
    *(
        f"data.{name}"
        for name in ("source", "root", "store", "labels", "label_map", "label_column")
    ),
    *(f"data.{name}" for name in ("events_root", "subjects", "runs", "sessions", "task", "space")),
    *(f"data.{name}" for name in ("entities", "group", "mask", "confounds", "images", "table")),
    *("data.file_column", "data.subject_column", "data.run_column", "permute", "crossed"),
    *("align.parcels", "searchlight.folds", "sweep"),
}  # other names and paths than ours may stand for something
HUGE = 99999999999999999999
BAD = {
    bool: (2, None, "maybe", 1.0),
    int: (-1, 2.5, math.nan, "7", None, (1,)),
    float: (math.nan, math.inf, -math.inf, 1e308, "0.1", None, (0.1,)),
    str: ("\0", "nonsense", "../../etc/passwd", "[/red]", ",,,", "x" * 10_000, None, 3),
    tuple: ("abc", 5, None, ("a", "b", "c"), (math.nan,) * 3, (-1,) * 3, (1e30,) * 3),
}
ALLOWED = {  # in range, whatever it looks like
    *(("train.plateau.min_delta", 1e308), ("data.subjects", ",,,"), ("permutations", -1)),
    ("train.loggers", ",,,"),
}
BIG = {  # more than a study can need, less than hangs or ends the process
    "balance": 10**5,
    "voxels.keep": 10**6,
    "align.level2_iters": 100,
    "instances": 1000,
    "folds": 1000,
    "train.epochs": 10**5,
    "train.batch_size": 4096,
    "train.checkpoint_epochs": HUGE,
    "data.synthetic.volumes": HUGE,
    "data.hrf_delay_s": -3.0,
    "data.drop_first": 1000,
    "data.tr": 30.0,
    "seed": 2**32 - 1,
    "train.shortcut_l2": -1e6,
    "model.width": 512,
    "model.window": 100,
}
ENDLESS = {"data.synthetic.volumes", "train.checkpoint_epochs"}  # more of it changes nothing


def cases():
    for experiment in "AB":
        for key, value in flat(common.get_config(experiment)).items():
            kind = tuple if isinstance(value, list) else type(value)
            values = BAD[kind]
            if kind is str and key in ANY_TEXT:
                values = ("\0", None, 3) if key.startswith(("data.", "exp", "mod", "tr")) else (3,)
            if kind is int and key not in ENDLESS:
                values = (*values, HUGE)
            for bad in values:
                if (key, bad) not in ALLOWED:
                    yield experiment, key, bad


def changed(experiment, key, value):
    """Returns a config with any value at a key, whatever its type."""
    config = common.get_config(experiment).copy_and_resolve_references()
    config.unlock()
    *path, last = key.split(".")
    node = config
    for name in path:
        node = node[name]
    with node.ignore_type():
        node[last] = value
    return config


@pytest.mark.parametrize("experiment", ["A", "B"])
def test_every_key_has_a_rule(experiment):
    config = common.get_config(experiment)
    keys = flat(config).keys()
    assert not keys - settings.rules_of(config).keys()
    needed = settings.SHARED | settings.OWN[experiment]
    assert not needed.keys() - keys


def test_every_key_out_of_range_is_one_line():
    count = 0
    for experiment, key, bad in cases():
        with pytest.raises(InputError) as refused:
            settings.check(changed(experiment, key, bad))
            pytest.fail(f"{key}={bad!r} is accepted")
        said = str(refused.value)
        assert said.startswith(f"{key}: found ") and "\n" not in said and len(said) < 2000
        count += 1
    assert count > 700


def test_big_studies_are_in_range():
    for key, value in BIG.items():
        for experiment in "AB":
            if key in flat(common.get_config(experiment)):
                settings.check(changed(experiment, key, value))


@pytest.mark.parametrize(
    ("experiment", "key", "value", "said"),
    [
        ("A", "protocols", "best", "protocols: found 'best'; expected one or more of nested, last"),
        ("A", "protocols", "nested,nested", "expected one or more of nested, last, paper, each on"),
        (
            "A",
            "balance",
            2**31,
            r"balance: found 2147483648; expected a whole number in \[1, 1e6\]",
        ),
        ("A", "align.regimes", "", "align.regimes: found ''; expected one or more of group, indep"),
        ("A", "align.match", "run", "align.match: found 'run'; expected one of 'time', 'class'"),
        ("A", "train.lr", -1.0, r"train.lr: found -1.0; expected a number in \[1e-30, 1e30\]"),
        ("A", "train.strategy", "pmap", "train.strategy: found 'pmap'; expected one of 'auto', 'l"),
        ("A", "model.conv_activation", "sine", "model.conv_activation: found 'sine'; expected"),
        ("A", "model.dropout", (0.5,), r"model.dropout: found \(0.5,\); expected 2 values"),
        ("A", "data.synthetic.volumes", 39, "expected 0, or a whole number in"),
        ("A", "data.synthetic.grid", (8, 8, 6), "data.synthetic.grid: found .*; expected 3 values"),
        ("B", "model.depth", 20, "model.depth: found 20; expected one of 18, 34, 50, 101, 152"),
        ("B", "train.penalty_factor", -1.0, "train.penalty_factor: found -1.0"),
        ("B", "train.shortcut_l2", math.nan, "train.shortcut_l2: found nan"),
        ("B", "fractions", (0.5, 0.5), "fractions: found .* expected three parts with sum 1, or"),
        ("B", "fractions", (0.5, 0.5, 0.5), "fractions: found"),
        ("B", "fractions", (0.5, 0.5, 0.0), "fractions: found"),
        ("B", "fractions", (), "fractions: found"),
        ("B", "sweep", (0.1, 0.1), "sweep: found .* expected numbers in .*, each once"),
        ("B", "splits", "random,random", "splits: found .* each once"),
    ],
)
def test_what_is_said(experiment, key, value, said):
    with pytest.raises(InputError, match=said):
        settings.check(changed(experiment, key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("fractions", value) for value in ((1950, 488, 610), (0.5, 0.25, 0.25), [1, 1, 1])),
        *(("sweep", value) for value in ((), (0.0,), (1,), (0.1, 0.01))),
        *(("baselines", value) for value in ("", "1-NN", "mypkg.models:ridge")),
    ],
)
def test_what_is_in_range(key, value):
    settings.check(changed("B", key, value))


def test_keys_of_somebody_else_are_left_alone():
    own = {
        "experiment": "mypkg:X",
        "depth": -1,
        "train": {"epochs": 3},
        "model": {"layers": "many"},
    }
    settings.check(ConfigDict(own))
    settings.check(ConfigDict(own | {"train": 7}))
    with pytest.raises(InputError, match=r"train\.epochs: found 0"):
        settings.check(ConfigDict(own | {"train": {"epochs": 0}}))
    config = common.get_config("A").copy_and_resolve_references().unlock()
    config.model = ConfigDict({"name": "strangers:MLP", "dropout": 0.3})  # not that of our network
    settings.check(config)


@pytest.mark.parametrize("experiment", ["A", "B"])
def test_a_config_of_the_other_experiment(experiment):
    other = common.get_config("B" if experiment == "A" else "A")
    with pytest.raises(InputError, match=f"experiment: found '{experiment}' and a config without"):
        EXPERIMENTS[experiment].check(other)
    with pytest.raises(InputError, match=f"a config without seed, .* expected .*exp{experiment}"):
        settings.require(ConfigDict({"experiment": experiment}), experiment)
    settings.require(common.get_config(experiment), experiment)


@pytest.mark.parametrize(
    ("experiment", "values", "said"),
    [
        ("A", {"mask.lower": 0.9}, "mask.lower: found 0.9; expected less than mask.upper, 0.85"),
        ("A", {"align.alpha": 0.5}, "align.alpha: found 0.5; expected 1 if align.regimes has g"),
        ("A", {"voxels.keep": 20}, "voxels.keep: found 20; expected 55 or more for the network"),
        ("A", {"baselines": "LDA,kNN"}, "baselines: found 'kNN'; expected one of SVM-linear"),
        (
            "A",
            {"model.name": "resnet3d"},
            "model.name: found 'resnet3d'; expected a network of vec",
        ),
        ("A", {"train.penalty": "l3"}, "train.penalty: found 'l3'; expected 'l1' or 'l2' for cnn"),
        ("A", {"train.plateau.factor": 0.999999}, "train.plateau: found want a factor"),
        ("B", {"splits": ""}, "splits: found ''"),
        ("B", {"splits": "by_site"}, "splits: found 'by_site'; expected one of by_subject"),
        ("B", {"model.name": "cnn1d"}, "model.name: found 'cnn1d'; expected a network of volumes"),
        ("B", {"baselines": "nuisance only (logistic)"}, "expected classifiers of volumes"),
    ],
)
def test_settings_that_do_not_go_together(experiment, values, said):
    config = common.get_config(experiment).copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    settings.check(config)
    with pytest.raises(InputError, match=said.replace("(", r"\(").replace(")", r"\)")):
        EXPERIMENTS[experiment].check(config)
