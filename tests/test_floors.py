"""Classical classifiers on the noise floor: draws, splits, audit, disk, resumed runs."""

import dataclasses
import gc
import json
import weakref

import jax
import majority
import numpy as np
import pytest
from small_studies import CLASSES, NAMES, make_cohort, make_values, read

from configs import common
from emojax import experiments, metrics
from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.experiments import experiment_a, experiment_b, fits, floors
from emojax.experiments.floors import analyse, summary
from emojax.experiments.noise import noise_like
from emojax.provenance import LeakageError, Ledger
from emojax.report import floors as words


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Fits classical classifiers in this process."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(*make_values(), tr=2.0)


@pytest.fixture
def small(config):
    """Returns settings of Experiment A for small vectors."""
    config.voxels.keep, config.balance, config.headline = 10, 6, "network"
    config.update({"protocols": "nested", "baselines": "LDA", "audit": False})
    config.align.regimes, config.noise.draws = "none", 3
    return config


def floor(config, cohort, experiment=experiment_a.EXPERIMENT, view=None, **tick):
    view = view or experiment.view(config, cohort)
    arm = experiment.arms(config, cohort)[0]
    return analyse(experiment, config, view, arm, [], **tick)


def test_the_headline_has_draws_with_their_interval(small, cohort):
    ticks = []
    found = floor(small, cohort, tick=ticks.append)
    assert [*found] == ["nested"] and [*found["nested"]] == ["logistic"] and ticks == [1, 1, 1]
    entry = found["nested"]["logistic"]
    draws = entry.pop("draws")
    assert len(draws) == 3 and len(set(draws)) == 3 and entry["audited"] == []
    assert entry["low"] == min(draws) <= entry["mean"] <= max(draws) == entry["high"]
    assert entry["mean"] == pytest.approx(np.mean(draws))
    assert entry["sd"] == pytest.approx(np.std(draws, ddof=1))
    assert entry["ci95"][0] < entry["mean"] < entry["ci95"][1]
    assert json.loads(json.dumps(found)) == found
    assert floor(small, cohort)["nested"]["logistic"]["draws"] == draws  # the seed decides
    small.seed = 1
    assert floor(small, cohort)["nested"]["logistic"]["draws"] != draws


def test_a_floor_is_at_chance_where_values_tell_the_labels(small, cohort):
    small.noise.draws = 12
    entry = floor(small, cohort)["nested"]["logistic"]
    assert abs(entry["mean"] - 1 / 3) < 0.06


def test_a_draw_is_what_an_arm_of_that_number_would_score(small, cohort, tmp_path):
    """A draw uses the same values and fits as a network's arm on noise."""
    small.noise.draws = 2
    draws = floor(small, cohort)["nested"]["logistic"]["draws"]
    noisy = noise_like(jax.random.key(small.seed), cohort, Store(tmp_path / "kept"), 1)
    arm = dataclasses.replace(
        experiment_a.arms(small, cohort)[0], on_noise=True, draw=1, baselines=("logistic",)
    )
    view = read(noisy)
    folds = experiment_a.folds(small, view, arm)
    made = [experiment_a.features(small, Ledger(view), f, arm, i) for i, f in enumerate(folds)]
    fitted = fits.fit_classifiers(
        experiment_a.EXPERIMENT, small, [(arm, i, data) for i, data in enumerate(made)]
    )
    found = [
        float(metrics.balanced_accuracy(cohort.labels[f.test], own["logistic"].predicted, 3))
        for f, own in zip(folds, fitted.values(), strict=True)
    ]
    assert draws[1] == pytest.approx(np.mean(found), abs=1e-6)


@pytest.mark.parametrize(
    "settings", [{"null_floor": False}, {"null": True}, {"floor_baselines": ""}]
)
def test_it_can_be_turned_off(small, cohort, settings):
    small.update(settings)
    assert floor(small, cohort) is None


def test_no_draw_is_no_floor(small, cohort):
    small.noise.draws = 0
    assert floor(small, cohort) is None
    assert summary([0.4]) == {
        **{"draws": [0.4], "mean": 0.4, "sd": 0.0, "ci95": None, "low": 0.4, "high": 0.4}
    }


def test_an_experiment_without_classifiers_has_none(small, cohort):
    silent = dataclasses.replace(experiment_a.EXPERIMENT, baselines=lambda *args: ())
    assert floor(small, cohort, silent) is None


def test_names_that_are_not_installed_are_left_out(small, cohort):
    small.floor_baselines = "nothing such"
    with pytest.raises((InputError, KeyError), match="nothing such"):
        floor(small, cohort)


# disk


def test_draws_leave_nothing_in_the_store_and_are_gone_before_the_next(small, cohort, monkeypatch):
    alive, most = [], []

    def counted(key, real, store, draw):
        made = noise_like(key, real, store, draw)
        alive.extend(weakref.ref(run.frames) for run in made.runs)
        most.append(sum(ref() is not None for ref in alive))
        return made

    monkeypatch.setattr(floors.noise, "noise_like", lambda *a: (gc.collect(), counted(*a))[1])
    floor(small, cohort)
    assert most == [len(cohort.runs)] * 3
    store = Store(small.data.store).folder
    assert [path.name for path in store.rglob("*")] == ["paths"]


# the audit


def peeking(config, ledger, fold, arm, number):
    """Returns features of the third experiment that look at scored values, on noise only."""
    data = majority.features(config, ledger, fold, arm, number)
    if not arm.on_noise:
        return data
    shift = ledger.scored(fold.test).mean(0)
    return dataclasses.replace(data, read=lambda rows: data.read(rows) - shift)


def test_the_first_draw_is_audited(small, cohort):
    small.audit = True
    real = majority.EXPERIMENT
    first = dataclasses.replace(real, arms=lambda config, cohort: real.arms(config, cohort)[:1])
    found = floor(small, cohort, first)
    assert set(found["plain"]["logistic"]["audited"]) <= set(NAMES)
    assert len(found["plain"]["logistic"]["audited"]) == 2
    with pytest.raises(LeakageError, match="network' depends on what it is scored on"):
        floor(small, cohort, dataclasses.replace(first, features=peeking))


def test_every_draw_has_a_record_that_is_checked(small, cohort):
    def arms(config, cohort):
        return [dataclasses.replace(majority.arms(config, cohort)[1], protocol="strict")]

    careless = dataclasses.replace(majority.EXPERIMENT, arms=arms)
    with pytest.raises(LeakageError, match=r"everybody on noise claims to be strict"):
        floor(small, cohort, careless)


# splits


def make_volumes():
    rng = np.random.default_rng(0)
    y = np.arange(24) // 3 % 2
    runs = [
        Run(
            name, run, 500 + 9 * rng.normal(size=(24, 4, 4, 4)) + 4 * y[:, None, None, None], tr=2.0
        )
        for name in NAMES
        for run in ("1", "2")
    ]
    return cohorts.build(runs, CLASSES[:2], [y] * len(runs))


def volumes_config(folder, **settings):
    config = common.get_config("B")
    config.data.update({"progress": False, "store": str(folder / "store")})
    config.update({"audit": False, "splits": "by_subject,random", "baselines": ""})
    config.update({"permutations": 0, "crossed": "", "design": False})
    config.update({"floor_baselines": "1-NN", "fractions": (0.5, 0.25, 0.25)} | settings)
    config.noise.draws = 2
    config.model.name = "strangers:Volumes"
    config.train.update({"epochs": 2, "batch_size": 8, "checkpoint_epochs": 1, "lr": 1e-3})
    return config


def test_every_split_has_a_floor(tmp_path):
    config = volumes_config(tmp_path)
    found = floor(config, make_volumes(), experiment_b.EXPERIMENT)
    assert {name: [*each] for name, each in found.items()} == {
        **{"by_subject": ["1-NN"], "random": ["1-NN"]}
    }
    config.sweep = (0.1, 0.2)
    assert floor(config, make_volumes(), experiment_b.EXPERIMENT) is None


# whole runs


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.slow
def test_a_killed_run_with_floors_goes_on_to_the_same_numbers(tmp_path, monkeypatch, quick_compile):
    config = volumes_config(tmp_path)
    config.noise.network_draws = 2
    whole = experiments.run(config, tmp_path / "whole", cohort=make_volumes())
    names = [arm["name"] for arm in whole.metrics["arms"] if arm["on_noise"]]
    assert len(names) == 4 and len(set(names)) == 4
    scores = {arm["name"]: arm["folds"][0]["network"]["nll"] for arm in whole.metrics["arms"]}
    assert len(set(scores.values())) == 6
    config.data.store = str(tmp_path / "other")
    real, count = fits.fit_networks, []

    def dying(plan, arm, *args, **options):
        count.append(arm.name)
        if len(count) == 4:
            raise Killed
        return real(plan, arm, *args, **options)

    monkeypatch.setattr(fits, "fit_networks", dying)
    with pytest.raises(Killed):
        experiments.run(config, tmp_path / "run", cohort=make_volumes())
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "other").glob("*.npy")}
    assert len(kept) == 2 * len(make_volumes().runs)  # both draws of the network
    monkeypatch.setattr(fits, "fit_networks", real)
    again = experiments.run(config, tmp_path / "run", cohort=make_volumes())
    assert {path.name for path in (tmp_path / "other").glob("*.npy")} == set(kept)
    assert again.metrics["floor"] == whole.metrics["floor"]
    for a, b in zip(again.metrics["arms"], whole.metrics["arms"], strict=True):
        assert a["folds"][0]["network"]["nll"] == pytest.approx(b["folds"][0]["network"]["nll"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "by_subject: 1-NN on noise" in page and "autocorrelated" not in page


# words


def metrics_of(**floor):
    arms = [{"name": "bag", "decoder": "bag", "on_noise": False}, {"name": "nested"}]
    return {"floor": floor, "chance": 1 / 3, "arms": arms}


def test_floors_in_words():
    entry = summary([0.32, 0.34, 0.33]) | {"audited": []}
    found = metrics_of(bag={"bag": entry, "logistic": entry})
    assert words.words(entry) == "0.330 (sd 0.010 over 3 draws)"
    assert words.words(summary([0.4])) == "0.400 (one draw)"
    assert words.of(found, found["arms"][0], "logistic") == entry
    assert words.of(found, {"name": "bag", "on_noise": True}, "bag") is None
    assert words.of({"arms": []}, found["arms"][0], "bag") is None
    said = words.line(found)
    assert "bag 0.330 (sd 0.010 over 3 draws), logistic 0.330" in said and "chance 0.333" in said
    assert "Above chance" not in said
    assert words.line({"arms": []}) == "" and words.section({"arms": []}) is None
    table = words.section(found)["table"]
    assert [row[0] for row in table.rows] == ["bag on noise", "logistic on noise"]
    high = metrics_of(bag={"bag": summary([0.6, 0.61, 0.62]) | {"audited": ["a"]}})
    assert "Above chance on noise: bag" in words.line(high)
    assert "audited" in words.section(high)["table"].note
