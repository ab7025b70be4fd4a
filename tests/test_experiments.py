"""A user's experiments, networks, classifiers and sources, without changes to emojax."""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pytest
from small_studies import make_cohort, make_values

from emojax import experiments
from emojax.errors import InputError
from emojax.experiments import Experiment
from emojax.experiments.base import check_arms
from emojax.provenance import PROTOCOLS, LeakageError
from emojax.records import Arm

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAJORITY = pathlib.Path(__file__).with_name("majority.py").read_text()
# Variations of it that are refused.
ODD = """
import dataclasses
import numpy as np
from emojax import splits
from mypkg.majority import EXPERIMENT, arms, features, folds

NO_FOLDS = dataclasses.replace(EXPERIMENT, folds=None)
NO_FEATURES = dataclasses.replace(EXPERIMENT, features=None)
EMPTY = dataclasses.replace(EXPERIMENT, folds=lambda config, cohort, arm: [])
NO_ARMS = dataclasses.replace(EXPERIMENT, arms=lambda config, cohort: [])


def with_arm(**changes):
    first = lambda config, cohort: [dataclasses.replace(arms(config, cohort)[0], **changes)]
    return dataclasses.replace(EXPERIMENT, arms=first)


BETTER = with_arm(protocol="strict", settings="all")
CAUTIOUS = with_arm(protocol="leaky", leaks=("scaler",))
UNCAUGHT = with_arm(protocol="leaky", leaks=("epoch choice",), settings="all")
NO_SPLIT = with_arm(split="by_day")
NO_BASELINE = with_arm(baselines=("mypkg.majority:minority",))


def peeking(config, ledger, fold, arm, number):
    data = features(config, ledger, fold, arm, number)
    shift = ledger.scored(fold.test).mean(0)
    return dataclasses.replace(data, read=lambda rows: data.read(rows) - shift)


PEEKING = dataclasses.replace(EXPERIMENT, features=peeking)
"""


@pytest.fixture
def mypkg(tmp_path, monkeypatch):
    """Puts a user's package on the path."""
    package = tmp_path / "path" / "mypkg"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "majority.py").write_text(MAJORITY)
    (package / "odd.py").write_text(ODD)
    monkeypatch.syspath_prepend(package.parent)
    names = ("mypkg", "mypkg.majority", "mypkg.odd")
    for name in names:
        sys.modules.pop(name, None)
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def one_process(monkeypatch):
    """Fits classical classifiers in this process."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(*make_values(), tr=2.0)


def start(config, tmp_path, cohort, experiment="mypkg.majority:EXPERIMENT", **options):
    config.experiment = experiment
    return experiments.run(config, tmp_path / "run", cohort=cohort, **options)


@pytest.mark.slow
def test_a_third_experiment_is_sixty_lines_and_runs_to_its_report(mypkg, config, tmp_path, cohort):
    assert MAJORITY.count("\n") <= 60
    result = start(config, tmp_path, cohort)
    assert [*experiments.EXPERIMENTS] == ["A", "B"]  # it was not registered
    rows = result.summary.set_index(["arm", "classifier"])
    assert rows.loc[("plain", "mypkg.majority:majority"), "mean"] == pytest.approx(1 / 3)
    assert set(rows.index) == {
        ("plain", "mypkg.majority:majority"),
        ("plain", "logistic"),
        ("scaled by everybody", "logistic"),
        ("noise", "logistic"),
    }
    assert rows.loc[("noise", "logistic"), "on_noise"]
    assert rows.protocol.tolist().count("transductive") == 1 and set(rows.folds) == {5}
    assert len(result.folds) == 4 * 5 and len(result.predictions) == len(cohort.labels)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["experiment"] == "mypkg.majority:EXPERIMENT" and metrics["audit"]["measured"]
    audited = metrics["audit"]["arms"]
    assert audited["plain"]["moved"] == [] and "scaler" in audited["scaled by everybody"]["moved"]
    assert all(arm["folds"][0]["network"] is None for arm in metrics["arms"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "scaled by everybody" in page and "mypkg.majority:majority" in page
    for name in ("predictions.csv", "counts.csv", "config.json", "figures/accuracy.png"):
        assert (tmp_path / "run" / name).exists()
    assert not (tmp_path / "run" / "done").exists()  # nothing was trained


@pytest.mark.slow
def test_the_example_adds_a_network_a_classifier_and_a_source(tmp_path, monkeypatch, quick_compile):
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    import own_network

    text = pathlib.Path(own_network.__file__).read_text()
    code = [line for line in text.split('"""', 2)[2].splitlines() if line.strip()]
    assert sum(not line.strip().startswith(("#", '"""')) for line in code) <= 30
    result = own_network.main(tmp_path / "run")
    rows = result.summary.set_index(["arm", "classifier"])
    assert rows.loc[("nested", "own_network:ridge"), "mean"] > 0.6
    assert rows.loc[("nested", "network"), "mean"] > 0.4
    assert result.metrics["network"] == "MLP" and result.metrics["audit"]["measured"]
    assert result.metrics["data"]["subjects"] == 5
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ("Z", "experiment: found 'Z'; expected one of A, B, or 'package.module:name'"),
        ("mypkg.majority:NOTHING", "experiment: found 'mypkg.majority:NOTHING' (module 'mypkg.maj"),
        ("nowhere.at.all:X", "experiment: found 'nowhere.at.all:X' (no module 'nowhere'); expecte"),
        (
            "mypkg.majority:arms",
            "experiment: found 'mypkg.majority:arms', a function; expected an emojax.experiments.E",
        ),
        ("mypkg.odd:NO_FOLDS", "experiment: found 'mypkg.odd:NO_FOLDS' without folds; expected a "),
        ("mypkg.odd:NO_FEATURES", "experiment: found 'mypkg.odd:NO_FEATURES' without features; ex"),
        ("mypkg.odd:EMPTY", "arm 'plain': found no fold; expected one fold or more"),
        ("mypkg.odd:NO_ARMS", "experiment: found no arm; expected one arm or more"),
        ("mypkg.odd:NO_SPLIT", "splits: found 'by_day'; expected one of by_subject, by_run, by_bl"),
        ("mypkg.odd:NO_BASELINE", "baselines: found 'mypkg.majority:minority' (module 'mypkg.majo"),
    ],
)
def test_what_is_no_experiment_is_refused_in_one_line(
    mypkg, one_process, config, tmp_path, cohort, experiment, message
):
    with pytest.raises(InputError) as error:
        start(config, tmp_path, cohort, experiment)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert not (tmp_path / "run" / "metrics.json").exists()


PLAIN = Arm("plain", "strict")
LEAKY_OR_NOT = "expected 'leaky' with the steps that leak, or another protocol without any"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([], "experiment: found no arm; expected one arm or more"),
        (
            [dataclasses.replace(PLAIN, protocol="honest")],
            "arm 'plain': found protocol 'honest'; expected one of " + ", ".join(PROTOCOLS),
        ),
        (
            [dataclasses.replace(PLAIN, protocol="")],
            "arm 'plain': found protocol ''; expected one of " + ", ".join(PROTOCOLS),
        ),
        (
            [dataclasses.replace(PLAIN, protocol="leaky")],
            f"arm 'plain': found protocol 'leaky' with leaks (); {LEAKY_OR_NOT}",
        ),
        (
            [dataclasses.replace(PLAIN, leaks=("voxels",))],
            f"arm 'plain': found protocol 'strict' with leaks ('voxels',); {LEAKY_OR_NOT}",
        ),
        (
            [PLAIN, dataclasses.replace(PLAIN, on_noise=True)],
            "arm 'plain': found a second arm of this name; expected another name",
        ),
        (
            [PLAIN, Arm("again", "strict", shares="nobody")],
            "arm 'again': found shares 'nobody'; expected one of plain",
        ),
        (
            [PLAIN, Arm("b", "strict", shares="plain"), Arm("c", "strict", shares="b")],
            "arm 'c': found shares 'b'; expected one of plain",
        ),
    ],
)
def test_arms_say_what_they_are(arms, message):
    with pytest.raises(InputError) as error:
        check_arms(arms)
    assert str(error.value) == message


def test_arms_that_are_fine():
    leaky = Arm("paper", "leaky", leaks=("voxels",))
    arms = [PLAIN, leaky, Arm("last", "strict", shares="plain", pick="last")]
    assert check_arms(tuple(arms)) == arms


def test_worse_than_claimed_is_refused_before_anything_is_fitted(mypkg, config, tmp_path, cohort):
    with pytest.raises(LeakageError) as error:
        start(config, tmp_path, cohort, "mypkg.odd:BETTER")
    assert str(error.value) == (
        "plain claims to be strict, but step 'scaler' saw values of 48 scored volumes "
        "(first: row 0)"
    )


def test_an_arm_that_is_leaky_by_name_must_be_caught_there(mypkg, config, tmp_path, cohort):
    for name, step in (("CAUTIOUS", "scaler"), ("UNCAUGHT", "epoch choice")):
        with pytest.raises(LeakageError) as error:
            start(config, tmp_path, cohort, f"mypkg.odd:{name}", until="plan")
        said = str(error.value)
        assert (
            said.startswith(f"plain is declared leaky at step {step!r}, but ") and "\n" not in said
        )


def test_what_reads_past_the_ledger_is_caught_by_the_audit_alone(mypkg, config, tmp_path, cohort):
    with pytest.raises(LeakageError, match=r"^plain: step 'network' depends on what it is scored "):
        start(config, tmp_path, cohort, "mypkg.odd:PEEKING", until="plan")
    config.audit = False
    assert start(config, tmp_path, cohort, "mypkg.odd:PEEKING", until="plan") is None


def test_an_experiment_needs_no_more_than_three_functions():
    nothing = lambda *args: ()  # noqa: E731
    experiment = Experiment(nothing, nothing, nothing)
    assert experiment.program is None and experiment.pack is None
    assert experiment.check(None) is None and experiment.view(None, "cohort") == "cohort"
    assert list(experiment.baselines(None, None, ())) == []
    assert experiment.label(None) == "network"
    cohort = make_cohort(*make_values())
    np.testing.assert_array_equal(experiment.units(None, cohort, PLAIN), cohort.subject)
    by_run = dataclasses.replace(PLAIN, split="by_run")
    np.testing.assert_array_equal(experiment.units(None, cohort, by_run), cohort.run_index)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        experiments.nothing  # noqa: B018
