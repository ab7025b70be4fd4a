"""The skeleton: one way from a config to its files, whatever the experiment."""

import dataclasses
import json

import numpy as np
import pytest
from hand_made import make_cohort as make_volumes
from small_studies import ROWS, make_cohort, make_values

from configs import common
from emojax import experiments, sources
from emojax.data.cohort import Prior
from emojax.data.hashes import sha256
from emojax.errors import InputError
from emojax.provenance import LeakageError
from emojax.report.schema import Result


@pytest.fixture(scope="module")
def cohort():
    return make_cohort(*make_values(), tr=2.0)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    """Fits classical classifiers in this process."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")


def quick(folder, **settings):
    """Returns a config of the third experiment, which trains no network."""
    config = common.get_config()
    config.data.progress, config.audit, config.experiment = False, False, "majority:EXPERIMENT"
    config.data.store = str(folder / "store")
    config.permutations, config.noise.draws, config.design = 0, 0, False
    config.update(settings)
    return config


@pytest.fixture(scope="module")
def finished(cohort, tmp_path_factory):
    """Returns a finished run: its config, its folder and what it returned."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        config = quick(folder)
        return config, folder / "run", experiments.run(config, folder / "run", cohort=cohort)


def contents(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_the_callers_config_stays_as_it_is(cohort, tmp_path):
    for locked in (True, False):
        config = quick(tmp_path)
        config.data.store = ""  # beside the workdir
        config = config.lock() if locked else config.unlock()
        before = config.to_dict()
        assert experiments.run(config, tmp_path / "run", cohort=cohort, until="data") is None
        assert config.to_dict() == before and config.is_locked == locked


def test_the_config_is_told_once(finished):
    config, folder, result = finished
    metrics = json.loads((folder / "metrics.json").read_text())
    stored = json.loads((folder / "config.json").read_text())
    assert metrics["config"] == stored["config"] == result.metrics["config"]
    assert stored["format"] == metrics["schema"] == 2
    assert metrics["config"]["experiment"] == metrics["experiment"] == config.experiment
    assert {"store", "progress"}.isdisjoint(metrics["config"]["data"])


def test_a_result_is_for_notebooks(finished, cohort, tmp_path):
    _, folder, result = finished
    assert isinstance(result, Result)
    assert list(result.summary.columns[:7]) == [
        *("arm", "classifier", "protocol", "mean", "sd", "low", "high"),
    ]
    of_folds = result.folds.groupby(["arm", "classifier"]).balanced_accuracy.mean()
    for row in result.summary.itertuples():
        assert row.mean == pytest.approx(of_folds[row.arm, row.classifier], abs=1e-6)
        assert row.low <= row.mean <= row.high
    predictions = result.predictions
    assert len(predictions) == len(cohort.labels) == 5 * ROWS
    assert {"fold", "subject", "run", "frame", "label", "predicted"} <= set(predictions)
    classes = np.array(cohort.classes)
    place = {
        (s, r, f): i
        for i, (s, r, f) in enumerate(zip(cohort.subject, cohort.run, cohort.frame, strict=True))
    }
    rows = [place[p.subject, p.run, p.frame] for p in predictions.itertuples()]
    assert sorted(rows) == list(range(len(rows)))
    np.testing.assert_array_equal(predictions.label, classes[cohort.labels[rows]])
    assert "<table" in result._repr_html_() and "plain" in repr(result)
    result.save(tmp_path / "copy")
    for name in ("metrics.json", "predictions.csv", "curves.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes(), name
    assert (tmp_path / "copy" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "copy" / "figures" / "accuracy.png").stat().st_size > 1000


def test_a_result_comes_back_from_its_files(finished):
    _, folder, result = finished
    again = Result.load(folder)
    assert again.metrics == json.loads((folder / "metrics.json").read_text())
    assert again.summary.equals(Result.load(folder).summary)
    np.testing.assert_allclose(again.summary["mean"], result.summary["mean"])
    assert list(again.predictions) == list(result.predictions)
    assert (again.predictions.predicted == result.predictions.predicted).all()
    with pytest.raises(InputError, match=r"Result.save: found a result that was read from its fil"):
        again.save(folder)
    with pytest.raises(
        InputError, match=r"no metrics.json; expected the workdir of a finished run"
    ):
        Result.load(folder.parent)


def test_a_finished_workdir_prints_its_table_and_changes_nothing(finished, monkeypatch, capsys):
    config, folder, result = finished
    before = contents(folder)
    seconds = json.loads((folder / "metrics.json").read_text())["seconds"]

    def never(*args, **kwargs):
        raise AssertionError("read again")

    monkeypatch.setattr(sources, "load", never)
    import majority

    monkeypatch.setattr(majority, "arms", never)
    again = experiments.run(config, folder)
    assert contents(folder) == before
    assert again.metrics["seconds"] == seconds
    said = capsys.readouterr().out
    assert "finished before" in said and "plain: majority:majority" in said
    np.testing.assert_allclose(again.summary["mean"], result.summary["mean"])


def test_a_finished_workdir_belongs_to_its_config(finished):
    config, folder, _ = finished
    before = contents(folder)
    other = config.copy_and_resolve_references()
    other.seed = 1
    with pytest.raises(
        InputError, match=r"found a run with seed=0; expected seed=1 \(or --restart"
    ):
        experiments.run(other, folder)
    assert contents(folder) == before
    quiet = config.copy_and_resolve_references()
    quiet.data.update({"progress": True, "store": "elsewhere"})
    assert experiments.run(quiet, folder).metrics["seconds"]


def test_a_finished_workdir_belongs_to_its_data(finished, cohort):
    """Asking for its table, plan or counts checks the data alike."""
    config, folder, _ = finished
    before = contents(folder)
    labels = cohort.labels.copy()
    labels[:2] = labels[1::-1]
    changed = cohort.with_labels(labels)
    assert (changed.labels != cohort.labels).any()
    for until in ("report", "plan", "data"):
        with pytest.raises(InputError, match=r"run a 1: found other labels than before.*--restart"):
            experiments.run(config, folder, cohort=changed, until=until)
        experiments.run(config, folder, cohort=cohort, until=until)
        assert contents(folder) == before


def test_a_run_begins_anew_where_the_user_says_so(cohort, tmp_path):
    config = quick(tmp_path)
    experiments.run(config, tmp_path / "run", cohort=cohort)
    smaller = cohort.select(np.isin(cohort.subject, list("abcd")))
    again = experiments.run(config, tmp_path / "run", cohort=smaller, restart=True)
    assert again.metrics["data"]["subjects"] == 4
    assert not list((tmp_path / "run").glob(".lock*"))


def test_data_that_change_under_a_run_end_it(cohort, tmp_path, monkeypatch):
    path = tmp_path / "events.tsv"
    path.write_text("onset")
    runs = [dataclasses.replace(run, hashes={str(path): sha256(path)}) for run in cohort.runs]
    named = dataclasses.replace(cohort, runs=tuple(runs))
    import majority

    arms = majority.arms
    write = lambda *args: path.write_text("onsets") and arms(*args)  # noqa: E731
    changing = dataclasses.replace(majority.EXPERIMENT, arms=write)
    monkeypatch.setattr(majority, "EXPERIMENT", changing)
    with pytest.raises(InputError, match=r"events.tsv: found other content"):
        experiments.run(quick(tmp_path), tmp_path / "run", cohort=named)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_run_can_end_after_the_data_or_the_plan(cohort, tmp_path, capsys):
    config = quick(tmp_path)
    assert experiments.run(config, tmp_path / "run", cohort=cohort, until="data") is None
    said = capsys.readouterr().out
    assert "5 subjects" in said and "TR 2 s" in said and "Audit" not in said
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("config.json", "counts.csv", "run.json"),
    ]
    assert experiments.run(config, tmp_path / "run", cohort=cohort, until="plan") is None
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_the_cohort_that_is_given_is_used_and_else_that_of_the_config(
    cohort, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(sources, "load", lambda data: asked.append(data.source) or cohort)
    smaller = cohort.select(np.isin(cohort.subject, list("abcd")))
    config = quick(tmp_path)
    result = experiments.run(config, tmp_path / "given", cohort=smaller)
    assert not asked and result.metrics["data"]["subjects"] == 4
    result = experiments.run(config, tmp_path / "read")
    assert asked == ["synthetic"] and result.metrics["data"]["subjects"] == 5


def test_without_an_audit_the_result_says_so(finished):
    _, folder, result = finished
    assert result.metrics["audit"] == {"measured": False, "arms": {}}
    assert "no audit measured it" in (folder / "report.html").read_text()


def test_arms_on_noise_see_noise_and_null_makes_all_of_them(finished, cohort, tmp_path):
    _, _, result = finished
    arms = {arm["name"]: arm for arm in result.metrics["arms"]}
    real, noise = (arms[name]["folds"] for name in ("plain", "noise"))
    assert arms["noise"]["on_noise"] and not arms["plain"]["on_noise"]
    pairs = zip(real, noise, strict=True)
    assert any(
        a["baselines"]["logistic"]["nll"] != b["baselines"]["logistic"]["nll"] for a, b in pairs
    )
    null = experiments.run(quick(tmp_path, null=True), tmp_path / "null", cohort=cohort)
    both = {arm["name"]: arm for arm in null.metrics["arms"]}
    for a, b in zip(both["plain"]["folds"], both["noise"]["folds"], strict=True):
        assert a["baselines"]["logistic"]["nll"] == b["baselines"]["logistic"]["nll"]
    for a, b in zip(both["noise"]["folds"], noise, strict=True):  # the same noise
        assert a["baselines"]["logistic"]["nll"] == b["baselines"]["logistic"]["nll"]


def test_labels_that_were_seen_before_the_data_was_read_leak(cohort, tmp_path):
    chosen = dataclasses.replace(cohort, prior=(Prior("vectors of others", labels=True),))
    said = (
        r"^plain claims to be strict, but step 'vectors of others' saw labels of 48 scored volumes"
    )
    with pytest.raises(LeakageError, match=said):
        experiments.run(quick(tmp_path), tmp_path / "run", cohort=chosen)
    assert not (tmp_path / "run" / "metrics.json").exists()


FACTORS = (0.5, 0.25, 0.0)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Returns an L2 sweep of a single-layer network whose rate leaves it at its initial weights."""
    folder = tmp_path_factory.mktemp("sweep")
    config = common.get_config("B")
    config.data.update({"progress": False, "store": str(folder / "store")})
    config.update({"audit": False, "sweep": FACTORS, "splits": "random", "baselines": ""})
    config.model.name = "strangers:Volumes"
    config.train.update({"epochs": 1, "batch_size": 8, "checkpoint_epochs": 1, "lr": 1e-12})
    config.train.plateau.min_lr = 0.0
    before = config.to_dict()
    result = experiments.run(config, folder / "run", cohort=make_volumes(classes=("a", "b")))
    return before, config, result, folder / "run"


def test_a_sweep_is_arms_that_carry_the_factor_that_ran(sweep):
    before, config, result, folder = sweep
    assert config.to_dict() == before
    stored = json.loads((folder / "config.json").read_text())["config"]
    assert stored["train"]["penalty_factor"] == before["train"]["penalty_factor"] == 2e-4
    arms = result.metrics["arms"]
    assert [arm["factor"] for arm in arms] == list(FACTORS)
    assert [arm["name"] for arm in arms] == ["L2 0.5", "L2 0.25", "L2 0"]
    # The loss of the first epoch is the cross-entropy and factor * (sum of squared weights): the
    # same network, data and order of batches in all arms.
    curves = json.loads((folder / "curves.json").read_text())
    loss = [monitored(arm)["loss"] for arm in arms]
    assert loss[0] - loss[2] == pytest.approx(2 * (loss[1] - loss[2]), rel=1e-3)
    assert loss[0] > loss[1] > loss[2]
    assert set(curves) == {arm["name"] for arm in arms}


def monitored(arm):
    return arm["folds"][0]["monitored"]


def test_one_arm_of_a_sweep_is_chosen_by_its_monitored_volumes_and_scored(sweep):
    _, _, result, _ = sweep
    chosen = result.metrics["chosen_arm"]
    assert chosen == "L2 0"  # equal accuracy, least loss
    for arm in result.metrics["arms"]:
        assert (arm["folds"][0]["network"] is None) == (arm["name"] != chosen)
    assert set(result.predictions.arm) == {chosen}


def test_trainings_are_kept_and_logged(sweep):
    *_, folder = sweep
    done = sorted(path.name for path in (folder / "done").iterdir())
    assert done == ["L2-0-0-0.npz", "L2-0.25-0-0.npz", "L2-0.5-0-0.npz"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [line["training"] for line in lines] == ["L2 0.5", "L2 0.25", "L2 0"]
    assert all(line["epoch"] == 1 and line["fold"] == "1" for line in lines)
    assert {"loss", "accuracy", "rate", "train_loss", "train_accuracy"} <= lines[0].keys()


def test_a_run_that_lost_its_report_trains_nothing_again(sweep, tmp_path):
    _, config, result, folder = sweep
    logged = (folder / "metrics.jsonl").read_bytes()
    (folder / "metrics.json").unlink()
    again = experiments.run(config, folder, cohort=make_volumes(classes=("a", "b")))
    assert (folder / "metrics.jsonl").read_bytes() == logged
    for a, b in zip(again.metrics["arms"], result.metrics["arms"], strict=True):
        assert a == b
