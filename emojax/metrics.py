"""Scores of predicted classes and of their probabilities.

Definitions and limits are those of scikit-learn. Counts are kept as integers and divided only at
the end, so that single precision loses nothing on large data.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32, Integer

from emojax._numerics import ranking, scored
from emojax._numerics.checks import Array, as_labels, count_classes
from emojax.probabilities import (
    ECE_BINS,
    Reliability,
    apply_temperature,
    brier,
    ece,
    expected_calibration_error,
    nll,
    reliability,
    temperature_fit,
)

__all__ = [
    "ECE_BINS",
    "ClassScores",
    "Reliability",
    "RocAuc",
    "RocCurve",
    "accuracy",
    "apply_temperature",
    "auc",
    "balanced_accuracy",
    "brier",
    "confusion_matrix",
    "ece",
    "expected_calibration_error",
    "nll",
    "precision_recall_f1",
    "reliability",
    "roc_auc",
    "roc_curve",
    "temperature_fit",
]


class ClassScores(NamedTuple):
    """One-vs-rest scores of each class; 0 where a ratio is 0 / 0."""

    precision: Float[Array, "*stack classes"]  # fraction right among samples predicted as the class
    recall: Float[Array, "*stack classes"]  # fraction right among samples of the class
    f1: Float[Array, "*stack classes"]  # harmonic mean of the two
    support: Int32[Array, "*stack classes"]  # number of samples of the class


class RocCurve(NamedTuple):
    """One point per sample and (0, 0); samples with tied scores repeat the point after the tie.

    At each point, samples that score at least its threshold are called positive. Both rates ascend
    from 0 to 1.
    """

    false_positive_rate: Float[Array, "*stack points"]  # NaN without a negative sample
    true_positive_rate: Float[Array, "*stack points"]  # NaN without a positive sample
    thresholds: Float[Array, "*stack points"]  # descending from inf


class RocAuc(NamedTuple):
    """One-vs-rest areas under the ROC curve."""

    per_class: Float[Array, "*stack classes"]  # NaN for a class that is absent or the only one
    micro: Float[Array, "*stack"]  # area over all (sample, class) pairs pooled
    macro: Float[Array, "*stack"]  # plain mean of `per_class`; NaN if any of them is


def accuracy(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"]
) -> Float[jax.Array, ""]:
    """Returns the fraction of samples predicted right.

    Args:
      labels: [samples] int, the truth.
      predicted: [samples] int.

    Returns:
      [] of the default float dtype, in [0, 1].

    Raises:
      ValueError: shapes disagree, no samples, or a dtype that is not an integer.
    """
    labels, predicted = scored.predictions(labels, predicted)
    return _accuracy(labels, predicted)


def balanced_accuracy(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> Float[jax.Array, ""]:
    """Returns the mean recall of the classes that occur in `labels`; chance is 1 / their number.

    Args:
      labels: [samples] int in [0, num_classes), the truth.
      predicted: [samples] int in [0, num_classes).
      num_classes: static under jit. None: one more than the largest value, which must be known.

    Returns:
      [] of the default float dtype, in [0, 1].

    Raises:
      ValueError: shapes disagree, no samples, or labels that are out of range or not integers.

    References:
      Brodersen et al., The balanced accuracy and its posterior distribution, 2010.
    """
    labels, predicted, num_classes = _of_classes(labels, predicted, num_classes)
    return _balanced_accuracy(labels, predicted, num_classes)


def confusion_matrix(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> Int32[jax.Array, "classes classes"]:
    """Counts [num_classes, num_classes] samples by true class (rows) and predicted class (columns).

    Inside a caller's jit, where values cannot be checked, a sample with a label out of range is not
    counted. Args and raises: as for `balanced_accuracy`.
    """
    labels, predicted, num_classes = _of_classes(labels, predicted, num_classes)
    return _confusion_matrix(labels, predicted, num_classes)


def precision_recall_f1(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> ClassScores:
    """Returns TP / (TP + FP), TP / (TP + FN) and F1 = 2 TP / (2 TP + FP + FN) for each class.

    Scores are [num_classes], of the default float dtype. Args and raises: as for
    `balanced_accuracy`.
    """
    labels, predicted, num_classes = _of_classes(labels, predicted, num_classes)
    return _precision_recall_f1(labels, predicted, num_classes)


def roc_curve(is_positive: Bool[Array, " samples"], scores: Float[Array, " samples"]) -> RocCurve:
    """Returns true and false positive rates as the threshold falls through all scores.

    The distinct points are those of scikit-learn's `roc_curve(..., drop_intermediate=False)`;
    repeating a point at a tie keeps the size fixed and changes neither the line nor its area.

    Args:
      is_positive: [samples] bool, the truth.
      scores: [samples] float, finite; larger means more likely positive.

    Returns:
      The curve, samples + 1 points, in the dtype of `scores` (at least float32).

    Raises:
      ValueError: shapes disagree, no samples, truth that is not bool, or scores not finite.

    References:
      Fawcett, An introduction to ROC analysis, 2006, algorithm 1.
    """
    return RocCurve(*ranking.roc_points(*scored.binary(is_positive, scores)))


def auc(
    is_positive: Bool[Array, " samples"], scores: Float[Array, " samples"]
) -> Float[jax.Array, ""]:
    """Returns the area under the ROC curve: how often positives outscore negatives (ties half).

    AUC = sum over positives i of (#{negatives below i} + #{negatives tied with i} / 2) / (P N),
    the Mann-Whitney U over its maximum. The sum is an exact integer; only the division rounds.

    Args:
      is_positive: [samples] bool, the truth.
      scores: [samples] float, finite; larger means more likely positive. XLA flushes subnormal
        numbers (below 1e-38 in float32) to 0, so they are tied.

    Returns:
      [] in the dtype of `scores` (at least float32); NaN if all samples are of one class.

    Raises:
      ValueError: shapes disagree, no samples, truth that is not bool, scores not finite, or more
        than 2 million samples.

    References:
      Mann & Whitney, 1947. Hanley & McNeil, 1982.
    """
    is_positive, scores = scored.binary(is_positive, scores)
    scored.check_size(scores)
    return ranking.auc(is_positive, scores)


def roc_auc(labels: Integer[Array, " samples"], scores: Float[Array, "samples classes"]) -> RocAuc:
    """Returns the one-vs-rest AUC of each class, pooled (micro) and averaged (macro).

    These are scikit-learn's `roc_auc_score(multi_class="ovr")` with average None, "micro" and
    "macro", except that scores need not sum to 1. Micro compares scores of different classes: give
    it probabilities.

    Args:
      labels: [samples] int in [0, classes), the truth.
      scores: [samples, classes] float, finite, classes >= 2.

    Returns:
      Areas in the dtype of `scores` (at least float32). An absent class has area NaN, and then so
      does the macro average; average `per_class` with `nanmean` to leave the class out.

    Raises:
      ValueError: shapes disagree, no samples, labels out of range or not integers, scores not
        finite, or more than 2 million scores.
    """
    labels, scores = scored.by_class("scores", labels, scores)
    scored.check_size(scores)
    return RocAuc(*ranking.class_areas(labels, scores))


def _of_classes(labels, predicted, num_classes):
    """Returns checked labels and predicted classes, and their number."""
    labels, predicted = as_labels(labels), as_labels(predicted, "predicted")
    num_classes = count_classes(num_classes, labels, predicted)
    return *scored.predictions(labels, predicted, num_classes), num_classes


@jax.jit
def _accuracy(labels, predicted):
    return ranking.ratio((labels == predicted).sum(dtype=jnp.int32), labels.size)


@partial(jax.jit, static_argnames="num_classes")
def _balanced_accuracy(labels, predicted, num_classes):
    scores = _precision_recall_f1(labels, predicted, num_classes)
    return ranking.ratio(scores.recall.sum(), (scores.support > 0).sum())


@partial(jax.jit, static_argnames="num_classes")
def _confusion_matrix(labels, predicted, num_classes):
    classes = jnp.arange(num_classes)
    is_true, is_predicted = (x[:, None] == classes for x in (labels, predicted))
    return is_true.astype(jnp.int32).T @ is_predicted.astype(jnp.int32)


@partial(jax.jit, static_argnames="num_classes")
def _precision_recall_f1(labels, predicted, num_classes):
    counts = _confusion_matrix(labels, predicted, num_classes)
    right = counts.diagonal()
    found, support = (counts.sum(axis, dtype=jnp.int32) for axis in (0, 1))
    precision, recall = (ranking.ratio(right, jnp.maximum(n, 1)) for n in (found, support))
    f1 = ranking.ratio(2 * right, jnp.maximum(found + support, 1))
    return ClassScores(precision, recall, f1, support)
