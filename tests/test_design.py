"""Designs that give the labels away, and columns that do."""

import dataclasses

import numpy as np
import pytest
from small_studies import NAMES, PER_RUN, ROWS, make_cohort, make_values, read

from emojax import splits
from emojax.experiments import design, experiment_a
from emojax.provenance import Ledger
from emojax.splits import Fold

VALUES, Y = make_values()
SHARED = make_cohort(VALUES, Y, tr=2.0)


def own_orders(seed=0):
    """Returns labels in another order for each subject."""
    rng = np.random.default_rng(seed)
    return [np.concatenate([rng.permutation(PER_RUN) % 3 for _ in range(2)]) for _ in NAMES]


@pytest.fixture
def small(config):
    """Returns settings for these vectors."""
    config.update({"protocols": "nested", "baselines": "logistic", "null_floor": False})
    config.voxels.keep, config.balance, config.design = 20, 8, True
    config.align.regimes, config.headline = "independent_runs", "network"
    config.data.label_column = "label"
    config.model.update({"filters": (8,), "window": 3, "dense": (8,)})
    return config


def analyse(config, cohort):
    view = read(cohort)
    arm, *_ = experiment_a.arms(config, cohort)
    made = [
        experiment_a.features(config, Ledger(view), fold, arm, i)
        for i, fold in enumerate(experiment_a.folds(config, view, arm))
    ]
    return design.analyse(experiment_a.EXPERIMENT, config, view, arm, made)


@pytest.mark.slow
@pytest.mark.parametrize("headline", ["network", "bag"])
def test_a_shared_order_is_looked_up(small, headline):
    small.headline = headline
    found = analyse(small, SHARED)
    assert found["lookup"]["accuracy"] == found["lookup"]["matched"] == 1
    assert found["nuisance"]["columns"] == ["time in the run", "run"]
    assert found["nuisance"]["random forest"]["mean"] > 0.95  # linear in neither
    assert found["nuisance"]["logistic"]["mean"] < 0.6
    both = found["subject_and_run_out"]
    assert both["mean"] > 0.6
    gain = both["mean"] - both["subject_out"]["mean"]
    np.testing.assert_allclose(both["minus_subject_out"]["difference"], gain, atol=1e-6)


def test_orders_of_their_own_say_nothing():
    cohort = make_cohort(VALUES, own_orders(), tr=2.0)
    found = design.lookup(cohort)
    assert abs(found["accuracy"] - 1 / 3) < 0.15 and found["chance"] == 1 / 3
    assert abs(design.nuisance(cohort, 0)["random forest"]["mean"] - 1 / 3) < 0.15


def test_lookup_counts_the_others_that_are_there():
    cohort = SHARED.select(np.r_[:PER_RUN, ROWS : ROWS + PER_RUN // 2])  # b lacks half of the run
    assert design.lookup(cohort) | {"chance": 0} == {
        "accuracy": 1.0,
        "chance": 0,
        "matched": PER_RUN / (PER_RUN * 1.5),
    }
    assert design.lookup(SHARED.select(np.arange(ROWS))) is None
    assert design.lookup(make_cohort(VALUES, Y)) is None  # no points in time


def test_runs_correspond_by_number():
    runs = [
        dataclasses.replace(run, name=f"run-{int(run.name):0{i % 2 + 1}d}")
        for i, run in enumerate(SHARED.runs)
    ]
    assert set(design.run_names(dataclasses.replace(SHARED, runs=tuple(runs)))) == {
        "run-1",
        "run-2",
    }


def test_nuisance_has_motion_and_needs_a_column():
    moved = [
        dataclasses.replace(run, motion=np.eye(3)[Y[i % 2 * PER_RUN :][:PER_RUN]])
        for i, run in enumerate(make_cohort(VALUES, Y).runs)
    ]
    found = design.nuisance(dataclasses.replace(SHARED, runs=tuple(moved)), 0)
    assert found["columns"] == ["run", "motion"]
    assert found["random forest"]["mean"] == found["logistic"]["mean"] == 1
    one = make_cohort(VALUES[:, :PER_RUN], Y[:PER_RUN])
    assert design.nuisance(one, 0) is None


def test_columns_decode_labels_and_are_decoded(small):
    rng = np.random.default_rng(0)
    labels = SHARED.labels
    voxels = np.concatenate(VALUES)[:, 0] > np.median(np.concatenate(VALUES)[:, 0])
    factors = {
        "label": labels.astype(str),
        "same": (labels * 7).astype(str),
        "half": np.where(labels == 0, "a", "b"),
        "coin": rng.integers(0, 2, len(labels)).astype(str),
        "seen": voxels.astype(str),
        "one": np.full(len(labels), "k"),
        "sex": np.where(np.isin(SHARED.subject, ["a", "b"]), "f", "m"),
    }
    found = analyse(small, dataclasses.replace(SHARED, factors=factors))
    columns = [name for name in found if name in factors]
    assert columns == ["same", "half", "coin", "seen", "sex"]
    assert found["same"]["decodes_label"] == 1 and found["same"]["decoded_by_data"] > 0.5
    np.testing.assert_allclose(found["half"]["decodes_label"], 2 / 3)
    assert abs(found["coin"]["decodes_label"] - 1 / 3) < 0.1
    assert abs(found["coin"]["decoded_by_data"] - 0.5) < 0.1 and found["coin"]["chance"] == 0.5
    assert found["sex"]["decoded_by_data"] is None
    low, high = found["same"]["decoded_by_data_ci95"]
    assert low <= found["same"]["decoded_by_data"] <= high


def test_the_best_guess_is_for_balanced_accuracy_and_from_others():
    level = np.array([0, 0, 0, 1] * 3)
    labels = np.array([0, 0, 1, 0] * 3)
    subject = np.repeat(["a", "b", "c"], 4)
    assert design.majority(level, labels, subject).tolist() == [1, 1, 1, 0] * 3
    labels[:4] = [1, 1, 1, 1]  # a's own labels do not change its guess
    assert design.majority(level, labels, subject)[:4].tolist() == [1, 1, 1, 0]


def test_the_key_and_single_subjects(small):
    view = read(SHARED)
    arm, *_ = experiment_a.arms(small, SHARED)
    small.design = False
    assert design.analyse(experiment_a.EXPERIMENT, small, view, arm, ()) is None


def test_leave_run_out_shares_neither():
    run = np.array(["1", "2"] * 6)
    fold = Fold("a", np.arange(4, 12), np.arange(4), np.arange(4))
    folds = splits.leave_run_out(fold, run)
    assert [f.name for f in folds] == ["a x 1", "a x 2"]
    for own, name in zip(folds, "12", strict=True):
        assert set(run[own.test]) == {name} and name not in set(run[own.train])
        assert len(own.train) == 4 and len(own.monitor) == 2
