"""Sweeps of Experiment A: every fold chooses by its monitored rows, never by scored ones."""

import dataclasses
import json

import numpy as np
import pytest
from small_studies import NAMES, make_cohort, make_values
from test_bag import small

from emojax import experiments
from emojax.errors import InputError
from emojax.experiments import experiment_a, experiment_b, sweeps
from emojax.experiments.base import check_arms
from emojax.records import Arm
from emojax.training.checkpoint import Workdir, plain_config

VALUES, LABELS = make_values()
SWEEP = "train.penalty_factor=1e-3,1e-1; voxels.keep=8,12"


def swept(text=SWEEP, **changes):
    config = small(headline="network", sweep=text, **changes)
    config.align.regimes = "none"
    return config


def refused(config):
    with pytest.raises(InputError) as found:
        experiment_a.check(config)
    return str(found.value)


def test_every_combination_is_a_candidate_with_values_of_the_keys_types():
    found = sweeps.parse(swept())
    factor, keep = "train.penalty_factor", "voxels.keep"
    assert found == [
        ((factor, 1e-3), (keep, 8)),
        ((factor, 1e-3), (keep, 12)),
        ((factor, 1e-1), (keep, 8)),
        ((factor, 1e-1), (keep, 12)),
    ]
    assert sweeps.parse(swept("")) == []
    ((_, value),) = sweeps.parse(swept("align.scaling=False"))[0]
    assert value is False
    assert sweeps.parse(swept("train.penalty=l1"))[0] == (("train.penalty", "l1"),)
    assert sweeps.parse(swept("train.lr=1"))[0] == (("train.lr", 1.0),)
    assert isinstance(sweeps.parse(swept("train.lr=1"))[0][0][1], float)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("train.lr", "sweep: found 'train.lr'; expected key=value,value; ... such as"),
        ("train.lr=", "sweep: found 'train.lr='; expected key=value,value"),
        ("train.lrr=1", "sweep: found 'train.lrr' (did you mean 'train.lr'?); expected a key that"),
        ("data.root=a,b", "sweep: found 'data.root', a key that cannot be swept; expected a key "),
        ("mask.lower=.1,.2", "sweep: found 'mask.lower', a key that cannot be swept; expected a"),
        ("align.regimes=none", "sweep: found 'align.regimes'"),
        ("model.dense=1,2", "sweep: found 'model.dense', a key that cannot be swept;"),
        ("model.filters=3", "sweep: found 'model.filters', a key that cannot be swept; expected"),
        ("voxels.keep=8.5", "sweep: found voxels.keep=8.5; expected a whole number"),
        ("voxels.keep=many", "sweep: found voxels.keep=many; expected a whole number"),
        ("voxels.keep=8,8", "sweep: found voxels.keep=8 twice; expected every value once"),
        ("balance=5;balance=6", "sweep: found balance twice; expected every key once"),
        ("voxels.keep=" + ",".join(map(str, range(10, 80))), "sweep: found 70 combinations"),
        ("voxels.keep=0", "voxels.keep: found 0; expected a whole number in [1, 1e8]"),
        ("voxels.keep=2,8", "voxels.keep: found 2; expected"),
        ("train.penalty=l3", "train.penalty: found 'l3'"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_line(text, line):
    assert refused(swept(text)).startswith(line)


def test_a_choice_that_is_not_nested_is_refused():
    config = swept(protocols="paper")
    assert refused(config) == (
        "sweep: found protocols='paper'; expected nested among the protocols, since test scores "
        "must not choose settings"
    )
    config = swept(instances=2)
    assert "several networks in each fold" in refused(config)
    config = swept()
    config.train.members = True
    assert "several networks in each fold" in refused(config)
    config = small(headline="bag", network=False, sweep=SWEEP)
    assert "network=False" in refused(config)
    with config.ignore_type():
        config.sweep = (1.0, 2.0)
    assert "numbers are for Experiment B" in refused(config)


def test_experiment_b_sweeps_numbers_alone():
    from configs import common

    config = common.get_config("B")
    with config.ignore_type():
        config.sweep = SWEEP
    with pytest.raises(InputError, match=r"sweep: found .*; expected numbers, L2 factors"):
        experiment_b.check(config)


def test_candidates_are_arms_of_their_own_behind_one_row():
    config, cohort = swept(), make_cohort(VALUES, LABELS, tr=2.0)
    experiment_a.check(config)
    arms = {arm.name: arm for arm in check_arms(experiment_a.arms(config, cohort))}
    row = arms["swept"]
    names = [name for name in arms if name.startswith("swept: ")]
    assert row.among == tuple(names) and len(names) == 4 and row.shares == names[0]
    first = arms["swept: train.penalty_factor=0.001, voxels.keep=8"]
    assert first.settings.settings.keep == 8 and arms["nested"].settings.settings.keep == 10
    own = sweeps.config_of(config, first)
    assert (own.train.penalty_factor, own.voxels.keep, own.sweep) == (1e-3, 8, "")
    assert sweeps.config_of(config, arms["nested"]) is config
    assert not any(arm.setting or arm.among for arm in arms.values() if "swept" not in arm.name)


def outcome(rows, p):
    return ({"monitored_rows": np.asarray(rows), "monitored_best": np.asarray(p, np.float32)},)


def test_a_fold_takes_the_best_on_its_monitored_rows_and_the_first_of_equals():
    row = Arm("swept", "strict", among=("a", "b", "c"))
    labels = np.array([0, 0, 0, 1, -1, -1])  # the last two are scored: unknown

    def choose(by, **p):
        found = {name: {0: outcome([0, 1, 2, 3], own)} for name, own in p.items()}
        data = {name: [dataclasses.make_dataclass("D", ["labels"])(labels)] for name in p}
        return sweeps.choose(row, 0, data, found, by)

    sure, mild = [[0.9, 0.1]] * 3, [[0.6, 0.4]] * 3
    chosen, inner = choose(
        "accuracy", a=[*sure, [0.9, 0.1]], b=[*mild, [0.4, 0.6]], c=[*mild, [0.3, 0.7]]
    )
    assert chosen == "c" and inner == {"a": 0.5, "b": 1.0, "c": 1.0}
    same = [*mild, [0.4, 0.6]]
    assert choose("accuracy", a=same, b=same, c=same)[0] == "a"
    chosen, inner = choose("nll", a=[*sure, [0.45, 0.55]], b=same, c=same)
    assert chosen == "a"
    assert inner["a"] == pytest.approx(-(np.log(0.9) + np.log(0.55)) / 2, rel=1e-6)


def run(folder, values, labels):
    config = swept("train.penalty_factor=1e-3,3;voxels.keep=8,12")
    config.train.epochs, config.train.lr = 6, 5e-3
    config.data.progress, config.data.store = False, str(folder / "store")
    config.update({"crossed": "", "design": False, "permutations": 0, "within_subject": False})
    config.maps, config.baselines = False, ""
    experiments.run(config, folder / "run", cohort=make_cohort(values, labels, tr=2.0))
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    return config, metrics


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return folder, *run(folder, VALUES, LABELS)


@pytest.mark.slow
def test_the_row_is_scored_with_what_each_fold_has_chosen(finished):
    folder, config, metrics = finished
    arms = {arm["name"]: arm for arm in metrics["arms"]}
    assert set(arms) == {"nested", "swept"}  # no candidate is scored
    names = [name for name in metrics["audit"]["arms"] if name.startswith("swept: ")]
    assert len(names) == 4 and metrics["audit"]["measured"]
    with Workdir(folder / "run", plain_config(config.to_dict())) as work:
        work.check_inputs()
        for i, fold in enumerate(arms["swept"]["folds"]):
            chosen, inner = fold["chosen"]["chosen"], fold["chosen"]["inner"]
            assert set(inner) == set(names) and inner[chosen] == max(inner.values())
            kept = work.load_finished(f"{chosen} {i} 0")
            right = kept["best"].argmax(1) == LABELS
            balanced = np.mean([right[k == LABELS].mean() for k in range(3)])
            assert fold["network"]["balanced_accuracy"] == pytest.approx(balanced, abs=1e-6)
    page = (folder / "run" / "report.html").read_text()
    assert "swept" in page and fold["chosen"]["chosen"].removeprefix("swept: ") in page


@pytest.mark.slow
def test_nothing_of_the_scored_subject_can_change_its_choice(finished, tmp_path):
    """Values and labels of the first subject are others: its own fold chooses as before."""
    rng = np.random.default_rng(0)
    other = VALUES.copy()
    other[0] = rng.normal(size=other[0].shape)
    labels = [rng.permutation(LABELS), *[LABELS] * (len(NAMES) - 1)]
    *_, before = finished
    _, after = run(tmp_path, other, labels)
    first, second = (
        next(arm["folds"] for arm in metrics["arms"] if arm["name"] == "swept")
        for metrics in (before, after)
    )
    assert first[0]["chosen"] == second[0]["chosen"]
    assert [f["chosen"]["inner"] for f in first[1:]] != [f["chosen"]["inner"] for f in second[1:]]
