"""Scores of predicted classes and of their probabilities.

Definitions and limits are those of scikit-learn; what can be counted is counted in integers and
divided at the end, so that single precision loses nothing on large data.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer

from emojax._numerics import ranking, scored
from emojax._numerics.checks import Array


class ClassScores(NamedTuple):
    """One-vs-rest scores of each class; 0 where a ratio is 0 / 0."""

    precision: Float[Array, "*stack classes"]  # of those predicted as the class
    recall: Float[Array, "*stack classes"]  # of those that are the class
    f1: Float[Array, "*stack classes"]  # harmonic mean of the two
    support: Int32[Array, "*stack classes"]  # samples of the class


class RocCurve(NamedTuple):
    """One point per sample and (0, 0); samples with tied scores repeat the point after the tie.

    A point calls positive what scores at least its threshold. Both rates ascend from 0 to 1.
    """

    false_positive_rate: Float[Array, "*stack points"]  # NaN without a negative
    true_positive_rate: Float[Array, "*stack points"]  # NaN without a positive
    thresholds: Float[Array, "*stack points"]  # descending from inf


class RocAuc(NamedTuple):
    """One-vs-rest areas under the ROC curve."""

    per_class: Float[Array, "*stack classes"]  # NaN for a class that is absent, or alone
    micro: Float[Array, "*stack"]  # of all (sample, class) pairs pooled
    macro: Float[Array, "*stack"]  # plain mean of `per_class`; NaN if one of them is


def accuracy(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"]
) -> Float[Array, ""]:
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
) -> Float[Array, ""]:
    """Returns the mean recall of the classes that occur in `labels`; chance is 1 / their number.

    Args:
      labels: [samples] int in [0, num_classes), the truth.
      predicted: [samples] int in [0, num_classes).
      num_classes: static under jit.

    Returns:
      [] of the default float dtype, in [0, 1].

    Raises:
      ValueError: shapes disagree, no samples, or labels that are out of range or no integers.

    References:
      Brodersen et al., The balanced accuracy and its posterior distribution, 2010.
    """
    labels, predicted = scored.predictions(labels, predicted, num_classes)
    return _balanced_accuracy(labels, predicted, num_classes)


def confusion_matrix(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> Int32[Array, "classes classes"]:
    """Counts [num_classes, num_classes] samples by true class (rows) and predicted class (columns).

    Inside a caller's jit, where values cannot be checked, a sample with a label out of range is
    counted nowhere. Args, raises: as `balanced_accuracy`.
    """
    labels, predicted = scored.predictions(labels, predicted, num_classes)
    return _confusion_matrix(labels, predicted, num_classes)


def precision_recall_f1(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> ClassScores:
    """Returns, by class, TP / (TP + FP), TP / (TP + FN) and F1 = 2 TP / (2 TP + FP + FN).

    Scores are [num_classes], of the default float dtype. Args, raises: as `balanced_accuracy`.
    """
    labels, predicted = scored.predictions(labels, predicted, num_classes)
    return _precision_recall_f1(labels, predicted, num_classes)


def roc_curve(is_positive: Bool[Array, " samples"], scores: Float[Array, " samples"]) -> RocCurve:
    """Returns true against false positive rates as the threshold falls through all scores.

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


def auc(is_positive: Bool[Array, " samples"], scores: Float[Array, " samples"]) -> Float[Array, ""]:
    """Returns the area under the ROC curve: how often positives outscore negatives, ties half.

    AUC = sum over positives i of (#{negatives below i} + #{negatives tied with i} / 2) / (P N),
    the Mann-Whitney U over its maximum. The sum is an exact integer; only the division rounds.

    Args:
      is_positive: [samples] bool, the truth.
      scores: [samples] float, finite; larger means more likely positive. XLA takes subnormal
        numbers (below 1e-38 in float32) for 0, so there they tie.

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

    scikit-learn's `roc_auc_score(multi_class="ovr")`, average None, "micro" and "macro", but scores
    need not sum to 1. Micro compares scores of different classes: give it probabilities.

    Args:
      labels: [samples] int in [0, classes), the truth.
      scores: [samples, classes] float, finite, classes >= 2.

    Returns:
      Areas in the dtype of `scores` (at least float32). A class that is absent has area NaN, and so
      has the macro average; average `per_class` with `nanmean` to leave it out.

    Raises:
      ValueError: shapes disagree, no samples, labels out of range or no integers, scores not
        finite, or more than 2 million scores.
    """
    labels, scores = scored.by_class("scores", labels, scores)
    scored.check_size(scores)
    return RocAuc(*ranking.class_areas(labels, scores))


def brier(
    labels: Integer[Array, " samples"], probabilities: Float[Array, "samples classes"]
) -> Float[Array, ""]:
    """Returns the Brier score: mean over samples of sum_k (p_k - [k is the label])^2.

    0 is best, 2 is worst; with two classes it is twice the score of one of them.

    Args:
      labels: [samples] int in [0, classes), the truth.
      probabilities: [samples, classes] float in [0, 1], classes >= 2; rows sum to 1.

    Returns:
      [] in the dtype of `probabilities` (at least float32).

    Raises:
      ValueError: shapes disagree, no samples, labels out of range or no integers, or rows that are
        no probabilities.

    References:
      Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    return _brier(*scored.probabilities(labels, probabilities))


def expected_calibration_error(
    labels: Integer[Array, " samples"],
    probabilities: Float[Array, "samples classes"],
    num_bins: int = 10,
) -> Float[Array, ""]:
    """Returns by how much the highest probability and the accuracy differ, averaged over bins.

    ECE = sum_b n_b / n |accuracy_b - mean confidence_b|, where a sample's confidence is its highest
    probability, and bin b of B holds confidences in ((b - 1) / B, b / B].

    Args:
      labels: [samples] int in [0, classes), the truth.
      probabilities: [samples, classes] float in [0, 1], classes >= 2; rows sum to 1. The first of
        equally probable classes is predicted.
      num_bins: B; static under jit, >= 1.

    Returns:
      [] in the dtype of `probabilities` (at least float32), in [0, 1]; 0 is calibrated.

    Raises:
      ValueError: as `brier`, or num_bins < 1.

    References:
      Guo et al., On calibration of modern neural networks, 2017.
    """
    if num_bins < 1:
        raise ValueError(f"want num_bins >= 1; got {num_bins}")
    return _calibration(*scored.probabilities(labels, probabilities), num_bins)


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


@jax.jit
def _brier(labels, probabilities):
    truth = labels[:, None] == jnp.arange(probabilities.shape[1])
    return jnp.square(probabilities - truth).sum(1).mean()


@partial(jax.jit, static_argnames="num_bins")
def _calibration(labels, probabilities, num_bins):
    confidence = probabilities.max(1)
    right = (probabilities.argmax(1) == labels).astype(confidence.dtype)
    edges = jnp.asarray(np.arange(num_bins) / num_bins, confidence.dtype)
    bins = jnp.maximum(jnp.searchsorted(edges, confidence, side="left") - 1, 0)
    gap = jnp.zeros(num_bins, confidence.dtype).at[bins].add(right - confidence)
    return jnp.abs(gap).sum() / labels.size
