"""Scores as plain data, against scikit-learn; summaries over folds."""

import json

import numpy as np
import pytest
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


def test_paired_comparison():
    rng = np.random.default_rng(0)
    theirs = rng.normal(0.7, 0.05, 11)
    got = scores.against(theirs + 0.03 + rng.normal(0, 0.005, 11), theirs)
    assert got["difference"] == pytest.approx(0.03, abs=0.01)
    assert got["p"] == pytest.approx(2 / 2**11, abs=1e-4) and got["ci95"][0] > 0
    assert scores.against(theirs, theirs)["p"] == 1


@pytest.mark.parametrize("count", [2, 4, 12])
def test_interval_over_groups_covers(count):
    """Groups differ by more than their volumes; 95 % of the intervals should hold the truth."""
    rng, hits, widths = np.random.default_rng(0), 0, []
    for _ in range(400):
        right = rng.random((count, 40)) < np.clip(rng.normal(0.7, 0.1, count), 0, 1)[:, None]
        labels = np.tile([0, 1], (count, 20))
        predicted = np.where(right, labels, 1 - labels)
        low, high = scores.clustered_interval(
            labels.ravel(), predicted.ravel(), np.repeat(np.arange(count), 40), 2
        )
        hits += low <= 0.7 <= high
        widths.append(high - low)
    assert hits / 400 > 0.9 and max(widths) <= 1


def test_interval_of_one_group_is_everything():
    assert scores.clustered_interval(np.arange(4) % 2, np.zeros(4, int), np.ones(4), 2) == [0, 1]
