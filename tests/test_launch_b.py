"""Experiment B by its command: a small run, a killed one, a sweep, refusals."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from test_launch import finished, killed, same_numbers

from configs import expB
from emojax.errors import InputError
from emojax.experiments import experiment_b, plans
from emojax.experiments.experiment_b import EXPERIMENT
from emojax.records import Arm

pytestmark = pytest.mark.slow

SMALL = (
    "--config.data.progress=False",
    "--config.data.synthetic.subjects=5",
    "--config.data.synthetic.grid=(16,16,12)",
    "--config.data.synthetic.volumes=80",
    "--config.data.online=",
    "--config.fractions=(0.4,0.2,0.4)",
    "--config.folds=1",
    "--config.model.depth=18",
    "--config.model.width=4",
    "--config.baselines=1-NN,LDA-shrinkage,SVM-RBF unscaled,RF",
    "--config.floor_baselines=1-NN",
    "--config.permutations=2",
    "--config.noise.draws=2",
)
DEMO = {"config": "expB.py:demo"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs two instances of every split, and the noise floor."""
    workdir = tmp_path_factory.mktemp("runs") / "small"
    code, out, err = finished(
        workdir, *SMALL, "--config.train.epochs=2", "--config.instances=2", **DEMO
    )
    assert code == 0, err
    return workdir, out, json.loads((workdir / "metrics.json").read_text())


def test_metrics_have_the_contract(whole):
    metrics = whole[2]
    assert metrics["experiment"] == "B" and metrics["classes"] == ["neutral", "negative"]
    assert [*metrics["splits"]] == ["by_subject", "by_run", "random"]
    assert metrics["headline_split"] == "by_subject"
    for kind, found in metrics["splits"].items():
        (fold,) = found["folds"]
        assert len(fold["instances"]) == 2 and len(fold["volumes"]) == 3
        for row in fold["instances"]:
            assert 1 <= row["epoch"] <= 2 == row["epochs"]
            assert np.sum(row["confusion"]) == fold["volumes"][2]
        mean = np.mean([row["balanced_accuracy"] for row in fold["instances"]])
        assert found["summary"]["balanced_accuracy"]["mean"] == pytest.approx(mean, abs=1e-6)
        assert found["ci95_groups"][0] <= mean <= found["ci95_groups"][1]
        assert len(found["by_group"]) == len(fold["test_groups"])
        assert len(found["null_floor"]["folds"][0]["instances"]) == 1
        assert found["null_floor"]["baselines"].keys() == {"1-NN"}
        assert len(found["baselines"]) == 4
        assert all(o["peak_bytes"] > 1e6 for o in found["baselines"].values())
        assert bool(fold["leaks"]) == (kind == "random")
    nearest = {k: f["null_floor"]["baselines"]["1-NN"] for k, f in metrics["splits"].items()}
    score = {k: f["summary"]["balanced_accuracy"]["mean"] for k, f in nearest.items()}
    assert score["random"] > 0.7 > 0.62 > score["by_run"]  # noise, remembered


def test_predictions_and_report(whole):
    rows = list(csv.DictReader((whole[0] / "predictions.csv").open()))
    for kind, found in whole[2]["splits"].items():
        for i, scored in enumerate(found["folds"][0]["instances"]):
            mine = [r for r in rows if (r["split"], r["values"]) == (kind, "real")]
            mine = [r for r in mine if r["instance"] == str(i)]
            assert len(mine) == found["folds"][0]["volumes"][2]
            hits = np.mean([r["predicted"] == r["label"] for r in mine])
            assert hits == pytest.approx(scored["accuracy"], abs=1e-6)
    page = (whole[0] / "report.html").read_text()
    figures = list((whole[0] / "figures").glob("*.png"))
    assert page.count("data:image/png;base64") == len(figures) >= 5
    assert "LEAK" in page and "dealt at random" in page and "Who saw what" in page
    assert "plan: 9 trainings" in whole[1] and "resident on the device" in whole[1]


def test_killed_run_goes_on_to_the_same_numbers(tmp_path):
    flags = (
        *SMALL,
        "--config.train.epochs=8",
        "--config.train.checkpoint_epochs=1",
        "--config.splits=by_run",
        "--config.null_floor=False",
        "--config.baselines=",
        "--config.train.feed=stream",
        f"--config.data.store={tmp_path / 'store'}",
    )
    code, out, err = finished(tmp_path / "whole", *flags, **DEMO)
    assert code == 0 and "streamed from disk" in out, err
    killed(tmp_path / "killed", "by_run-0-0/[2-6]*", *flags, **DEMO)
    code, _, err = finished(tmp_path / "killed", *flags, **DEMO)
    assert code == 0, err
    same_numbers(tmp_path, "splits")


def test_sweep_chooses_by_validation(tmp_path):
    flags = (*SMALL, "--config.sweep=(1e-4,1e-2)", "--config.splits=random")
    code, out, err = finished(tmp_path / "sweep", *flags, "--config.train.epochs=2", **DEMO)
    assert code == 0, err
    found = json.loads((tmp_path / "sweep" / "metrics.json").read_text())
    assert [row["factor"] for row in found["sweep"]] == [1e-4, 1e-2]
    best = max(found["sweep"], key=lambda row: (row["accuracy"], -row["loss"]))
    assert found["chosen"] == best["factor"] and "validation" in out
    assert found["sweep"][1]["loss"] > found["sweep"][0]["loss"]  # it contains the penalty
    assert (tmp_path / "sweep" / "figures" / "sweep.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--config.splits=by_site"], "splits: found 'by_site'; expected one of by_subject"),
        (["--config.model.depth=20"], "model.depth: found 20; expected one of 18,"),
        (["--config.train.feed=disk"], "train.feed: found 'disk'"),
        (["--config.baselines=SVN"], "baselines: found 'SVN'"),
        (["--config.scale=run"], "scale: found 'run'"),
        (["--config.train.lr=-1"], "train.lr: found -1.0; expected a number in"),
        (["--config.data.synthetic.subjects=2"], "split by_subject: found"),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path, flags, said):
    code, _, err = finished(tmp_path / "run", *SMALL, *flags, **DEMO)
    assert code == 2 and err.count("\n") == 1 and said in err
    assert not (tmp_path / "run" / "metrics.json").exists()


class Shaped:
    """The part of a cohort that is checked before training."""

    def __init__(self, shape, labels=(0, 1), classes=("a", "b")):
        self.shape, self.labels, self.classes = shape, np.array(labels), classes


@pytest.mark.parametrize(
    ("cohort", "said"),
    [
        (Shaped((40, 20, 1)), r"40 x 20 x 1 voxels; expected 9 .* \(--config.pad=9"),
        (Shaped((300,)), "rows of 300 values; expected volumes"),
        (Shaped((10, 10, 10), [0, 0]), r"volumes of a; expected volumes of every class \(a, b\)"),
    ],
)
def test_volumes_that_the_network_cannot_read(cohort, said):
    with pytest.raises(InputError, match=said):
        experiment_b.arms(expB.get_config(), cohort)


@pytest.mark.usefixtures("quick_compile")
def test_too_little_memory_is_said_before_training(monkeypatch):
    config = expB.get_config("demo")
    config.model.update(depth=18, width=4)
    monkeypatch.setattr(plans.cost, "memory_limit", lambda: 10**6)
    data = SimpleNamespace(read=lambda rows: np.zeros((1, 9, 9, 9)), monitor=np.arange(1))
    arm = Arm("by_run", "calibrated")
    with pytest.raises(InputError, match=r"found 0.0 GB; expected .*less with train.batch_size"):
        plans.make_plan(None, EXPERIMENT, config, Shaped((9, 9, 9)), [arm], {"by_run": [data]})


def test_padded_slices_are_nothing():
    got = experiment_b._padder(9)(np.ones((2, 12, 10, 1), np.float32))
    assert got.shape == (2, 12, 10, 9)
    assert np.isnan(got).sum() == 2 * 12 * 10 * 8 and (got[..., 4] == 1).all()
