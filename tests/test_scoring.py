"""Scores as plain data, against scikit-learn; summaries over folds."""

import json

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics

from emojax.scoring import scores


def make(seed=0, n=90, classes=3):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    logits = rng.normal(size=(n, classes)) + 1.5 * np.eye(classes)[labels]
    p = np.exp(logits)
    return labels, (p / p.sum(1, keepdims=True)).astype(np.float32)


def test_agrees_with_sklearn():
    labels, p = make()
    got, predicted = scores.scores(labels, p), p.argmax(1)
    assert got["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    want = metrics.balanced_accuracy_score(labels, predicted)
    assert got["balanced_accuracy"] == pytest.approx(want)
    assert got["loss"] == pytest.approx(metrics.log_loss(labels, p), rel=1e-5)
    assert got["auc_macro"] == pytest.approx(metrics.roc_auc_score(labels, p, multi_class="ovr"))
    np.testing.assert_array_equal(got["confusion"], metrics.confusion_matrix(labels, predicted))
    want = metrics.precision_recall_fscore_support(labels, predicted)
    for name, values in zip(("precision", "recall", "f1"), want, strict=False):
        np.testing.assert_allclose(got[name], values, rtol=1e-6)
    assert got["nll"] == got["loss"]
    want = np.square(p - np.eye(3)[labels]).sum(1).mean()
    assert got["brier"] == pytest.approx(want, rel=1e-6)
    assert 0 < got["ece"] < 1
    json.dumps(got, allow_nan=False)


def test_an_absent_class_has_no_area():
    labels, p = make()
    got = scores.scores(labels[labels < 2], p[labels < 2])
    assert got["auc"][2] is None and got["auc_macro"] is None and got["accuracy"] > 0
    assert "auc_macro" not in scores.summary([got, got])


def test_certain_and_wrong_has_a_finite_loss():
    assert np.isfinite(scores.scores(np.array([0, 1]), np.eye(2, dtype="f4")[::-1])["loss"])


def test_summary_is_mean_sd_and_an_interval_around_it():
    folds = [scores.scores(*make(seed)) for seed in range(8)]
    got, values = scores.summary(folds)["accuracy"], [f["accuracy"] for f in folds]
    assert got["mean"] == pytest.approx(np.mean(values))
    assert got["sd"] == pytest.approx(np.std(values, ddof=1))
    assert min(values) <= got["ci95"][0] < got["mean"] < got["ci95"][1] <= max(values)


def test_summary_has_student_t_over_folds():
    folds = [scores.scores(*make(seed)) for seed in range(6)]
    got = scores.summary(folds)
    assert set(got) == set(scores.SUMMARISED) >= {"balanced_accuracy", "nll", "brier", "ece"}
    for name, found in got.items():
        values = [fold[name] for fold in folds]
        want = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert found["ci95"] == pytest.approx([want.low, want.high], rel=1e-12)
    one = scores.summary(folds[:1])["nll"]
    assert one["mean"] == folds[0]["nll"] and one["ci95"] is None
    gaps = [*folds[:2], folds[2] | {"auc_macro": None}]
    assert scores.summary(gaps)["auc_macro"] == scores.summary(folds[:2])["auc_macro"]
    assert scores.summary([]) == {}
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize("folds", [4, 6, 7, 11])
def test_what_is_called_ci95_covers_in_95_of_100_cases(folds):
    drawn = np.random.default_rng(folds).normal(0.7, 0.08, (5000, folds))
    hits = differ = 0
    for values in drawn:
        found = scores.summary([{"balanced_accuracy": v} for v in values])
        low, high = found["balanced_accuracy"]["ci95"]
        hits += low <= 0.7 <= high
    assert 0.93 <= hits / 5000 <= 0.97
    for values in drawn[:1000]:
        low, high = scores.paired_difference(values, np.full(folds, 0.5))["ci95"]
        differ += low <= 0.2 <= high
    assert 0.93 <= differ / 1000 <= 0.97


def test_paired_difference():
    rng = np.random.default_rng(0)
    theirs = rng.normal(0.7, 0.05, 11)
    ours = theirs + 0.03 + rng.normal(0, 0.005, 11)
    got = scores.paired_difference(ours, theirs)
    assert got["difference"] == pytest.approx(0.03, abs=0.01)
    assert got["p"] == pytest.approx(2 / 2**11, abs=1e-4) and got["ci95"][0] > 0
    want = scipy.stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert got["ci95"] == pytest.approx([want.low, want.high])
    assert scores.paired_difference(theirs, theirs)["p"] == 1
    one = scores.paired_difference(ours[:1], theirs[:1])
    assert one == {"difference": pytest.approx(ours[0] - theirs[0]), "ci95": None, "p": None}


def test_accuracy_by_group():
    labels, predicted = np.array([0, 1, 0, 1, 1]), np.array([0, 0, 0, 1, 1])
    assert scores.by_group(labels, predicted, np.array(list("babab"))) == [0.5, 1.0]
