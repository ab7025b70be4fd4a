"""A decoder of the test subject's own runs: features, record, where it applies."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from small_studies import NAMES, PER_RUN, ROWS, make_cohort, make_values, read

from emojax.experiments import experiment_a, within_subject
from emojax.provenance import Ledger

VALUES, Y = make_values(noise=1.0)
COHORT = make_cohort(VALUES, Y, tr=2.0)


@pytest.fixture
def small(config):
    """Returns settings for these vectors, with a map of each run."""
    config.update({"protocols": "nested", "baselines": "logistic", "null_floor": False})
    config.voxels.keep, config.balance, config.within_subject = 20, 8, True
    config.align.regimes, config.headline = "independent_runs", "network"
    config.model.update({"filters": (8,), "window": 3, "dense": (8,)})
    return config


def make(config, cohort=COHORT):
    view = read(cohort)
    arm, *_ = experiment_a.arms(config, cohort)
    folds = experiment_a.folds(config, view, arm)
    made = [
        experiment_a.features(config, Ledger(view), fold, arm, i) for i, fold in enumerate(folds)
    ]
    return view, arm, made


def analyse(config, cohort=COHORT):
    view, arm, made = make(config, cohort)
    return within_subject.analyse(experiment_a.EXPERIMENT, config, view, arm, made)


@pytest.mark.parametrize(
    ("match", "own", "headline"),
    [("time", False, "network"), ("class", True, "network"), ("time", False, "bag")],
)
def test_scores_decoders_of_the_subjects_own_runs(small, match, own, headline):
    small.align.match, small.voxels.own, small.headline = match, own, headline
    found = analyse(small)
    assert [*found] == ["logistic", "LDA-shrinkage"]
    for entry in found.values():
        assert entry["mean"] > 0.6 and len(entry["folds"]) == len(NAMES)
        np.testing.assert_allclose(entry["mean"], np.mean(entry["folds"]))
        gain = entry["minus_cross_subject"]
        low, high = gain["ci95"]
        assert low <= gain["difference"] <= high


@pytest.mark.parametrize(("match", "own"), [("time", False), ("class", True)])
def test_the_scored_run_has_the_headlines_features(small, match, own):
    small.align.match, small.voxels.own = match, own
    view, arm, made = make(small)
    data = made[1]
    for rows, train, labels, test in within_subject._runs(view, arm, data):
        np.testing.assert_allclose(test, data.read_test(rows), atol=1e-5)
        assert len(rows) == len(train) == PER_RUN
        others = np.setdiff1d(data.fold.test, rows)
        np.testing.assert_array_equal(labels, view.labels[others])
        # The other run, whose own map is another one, comes by the map of the scored run.
        assert not np.allclose(train, data.read_test(others), atol=1e-3)
        model = LogisticRegression(C=1e-2, class_weight="balanced", max_iter=500).fit(train, labels)
        assert (model.predict(test) == view.labels[rows]).mean() > 0.5


def test_labels_of_the_scored_run_are_never_read(small):
    view, arm, made = make(small)
    rotated = COHORT.labels.copy()
    first = made[0].fold.test[:PER_RUN]
    rotated[first] = (rotated[first] + 1) % 3
    other = dataclasses.replace(view, cohort=COHORT.with_labels(rotated))
    before, after = (next(iter(within_subject._runs(v, arm, made[0]))) for v in (view, other))
    for ours, theirs in zip(before, after, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_applies_where_voxels_or_alignment_use_its_other_runs(small):
    small.within_subject = False
    assert analyse(small) is None
    small.within_subject = True
    for regime in ("group", "none", "transductive"):
        small.align.regimes = regime
        assert analyse(small) is None, regime
    small.align.regimes, small.voxels.own = "none", True
    assert analyse(small) is not None


def test_runs_that_lack_a_class_train_nothing(small):
    labels = Y.copy()
    labels[:PER_RUN][labels[:PER_RUN] == 2] = 1
    assert len(labels) == ROWS
    assert analyse(small, make_cohort(VALUES, labels, tr=2.0)) is None
