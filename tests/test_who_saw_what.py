"""The record of who saw what, if steps see labels of the test subject's other runs."""

import pytest
from small_studies import PER_RUN, make_cohort, make_values, read

from emojax.experiments import experiment_a
from emojax.provenance import Ledger
from emojax.records import ArmResult, FoldResult
from emojax.report import outcomes, tables, texts

VALUES, Y = make_values()


@pytest.fixture
def small(config):
    """Returns settings for these vectors."""
    config.update({"protocols": "nested", "baselines": "logistic", "null_floor": False})
    config.voxels.keep, config.balance, config.headline = 20, 8, "network"
    config.model.update({"filters": (8,), "window": 3, "dense": (8,)})
    return config


def seen(config):
    """Returns {step: (what it saw of the test subject in words, its class, the row)}."""
    cohort = make_cohort(VALUES, Y, tr=2.0)
    view = read(cohort)
    arm = experiment_a.arms(config, cohort)[0]
    fold = experiment_a.folds(config, view, arm)[0]
    ledger = Ledger(view)
    data = experiment_a.features(config, ledger, fold, arm, 0)
    result = FoldResult(fold, (), {}, data.ledger.seen(fold.test), {}, {})
    rows = outcomes.seen(cohort, ArmResult(arm, arm.protocol, (result,)))
    entry = {"strict": True, "leaks": []}
    return {row["step"]: (texts.whom(row), tables.kind(entry, row), row) for row in rows}


def test_labels_of_other_runs_are_told_from_scored_volumes(small):
    """Each person has own voxels and is aligned by class means, as in the 7 T finger movements."""
    small.align.regimes, small.align.match, small.voxels.own = "independent_runs", "class", True
    found = seen(small)
    for step in ("voxels", "alignment"):
        said, kind, row = found[step]
        of_others = f"values and labels of {PER_RUN} volumes of other runs of the test subjects"
        assert said == of_others and kind == "calibrated"
        assert row["of_scored"] == row["of_scored_runs"] == {"values": 0, "labels": 0}
    for step in ("network", "epoch choice", "scaler"):
        assert found[step][0] == "", step


def test_without_labels_only_values_are_said(small):
    small.align.regimes = "independent_runs"  # matched by time
    found = seen(small)
    assert (
        found["alignment"][0] == f"values of {PER_RUN} volumes of other runs of the test subjects"
    )
    assert found["voxels"][0] == ""
    small.align.regimes = "transductive"
    said, kind, _ = seen(small)["alignment"]
    assert "labels" not in said and "scored volumes" in said and kind == "transductive"
