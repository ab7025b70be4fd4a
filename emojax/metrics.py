"""Scores of predicted classes and of their probabilities.

Definitions and limits are those of scikit-learn; what can be counted is counted in integers and
divided at the end, so that single precision loses nothing on large data.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int32, Integer

from emojax._numerics import calibration, ranking, scored
from emojax._numerics.checks import Array, as_float, as_labels, count_classes, known

ECE_BINS = 15  # of equal width, from 0 to 1


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


class Reliability(NamedTuple):
    """Samples by the probability of their top class, in bins of equal width from 0 to 1."""

    count: Int32[Array, "*stack bins"]  # pyright: ignore[reportIncompatibleMethodOverride]
    confidence: Float[Array, "*stack bins"]  # mean top probability; NaN in an empty bin
    accuracy: Float[Array, "*stack bins"]  # fraction predicted right; NaN in an empty bin


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
      num_classes: static under jit. None: one more than the largest of both, which must be known.

    Returns:
      [] of the default float dtype, in [0, 1].

    Raises:
      ValueError: shapes disagree, no samples, or labels that are out of range or no integers.

    References:
      Brodersen et al., The balanced accuracy and its posterior distribution, 2010.
    """
    labels, predicted, num_classes = _of_classes(labels, predicted, num_classes)
    return _balanced_accuracy(labels, predicted, num_classes)


def confusion_matrix(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> Int32[Array, "classes classes"]:
    """Counts [num_classes, num_classes] samples by true class (rows) and predicted class (columns).

    Inside a caller's jit, where values cannot be checked, a sample with a label out of range is
    counted nowhere. Args, raises: as `balanced_accuracy`.
    """
    labels, predicted, num_classes = _of_classes(labels, predicted, num_classes)
    return _confusion_matrix(labels, predicted, num_classes)


def precision_recall_f1(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> ClassScores:
    """Returns, by class, TP / (TP + FP), TP / (TP + FN) and F1 = 2 TP / (2 TP + FP + FN).

    Scores are [num_classes], of the default float dtype. Args, raises: as `balanced_accuracy`.
    """
    labels, predicted, num_classes = _of_classes(labels, predicted, num_classes)
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
    return calibration.brier(*scored.probabilities(labels, probabilities))


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
    return calibration.gap(*scored.probabilities(labels, probabilities), num_bins)


def nll(
    labels: Integer[Array, " samples"], probabilities: Float[Array, "samples classes"]
) -> Float[Array, ""]:
    """Returns the negative log-likelihood: mean over samples of -log p of the label, in nats.

    A probability below 1e-38 counts as 1e-38, so that a certain and wrong sample costs 87 nats.
    Args, returns, raises: as `brier`.
    """
    return calibration.nll(*scored.probabilities(labels, probabilities))


def ece(
    labels: Integer[Array, " samples"], probabilities: Float[Array, "samples classes"]
) -> Float[Array, ""]:
    """Returns the `expected_calibration_error` in 15 bins, as reports have it."""
    return expected_calibration_error(labels, probabilities, ECE_BINS)


def reliability(
    labels: Integer[Array, " samples"],
    probabilities: Float[Array, "samples classes"],
    num_bins: int = ECE_BINS,
) -> Reliability:
    """Returns what a reliability curve shows: accuracy by confidence.

    The bins are those of `expected_calibration_error`, which is the mean over samples of
    |accuracy - confidence| of their bin. Args, raises: as there.
    """
    if num_bins < 1:
        raise ValueError(f"want num_bins >= 1; got {num_bins}")
    found = calibration.bins(*scored.probabilities(labels, probabilities), num_bins)
    return Reliability(*found)


def temperature_fit(
    logits: Float[Array, "samples classes"],
    labels: Integer[Array, " samples"],
    weights: Float[Array, " samples"] | None = None,
) -> Float[Array, ""]:
    """Fits the temperature T of softmax(logits / T) to labels, by the least weighted NLL.

    The NLL is convex in 1 / T. T is kept in [0.05, 100]: it has no minimum where every sample is
    right (low end) or where the logits say nothing (high end). Fit it to samples that have trained
    nothing; labels of what is scored must not enter.

    Args:
      logits: [samples, classes] float, finite, classes >= 2; log-probabilities are logits, too.
      labels: [samples] int in [0, classes), the truth.
      weights: [samples] float >= 0, with a sum > 0; None: 1 each.

    Returns:
      [] in the dtype of `logits` (at least float32); 1 where no logit differs from another of its
      sample. It can be differentiated by logits and weights.

    Raises:
      ValueError: shapes disagree, no samples, labels out of range or no integers, logits not
        finite, or weights that are negative or all 0.

    References:
      Guo et al., On calibration of modern neural networks, 2017.
    """
    labels, logits = scored.by_class("logits", labels, logits)
    weights = jnp.ones(len(labels), logits.dtype) if weights is None else weights
    return calibration.temperature(labels, logits, scored.weights(labels, weights, logits.dtype))


def apply_temperature(
    logits: Float[Array, "samples classes"], temperature: Float[Array, ""] | float
) -> Float[Array, "samples classes"]:
    """Returns the probabilities softmax(logits / temperature); the order of classes stays.

    Args:
      logits: [samples, classes] float, or log-probabilities.
      temperature: [] > 0, as of `temperature_fit`; above 1 makes less certain.

    Raises:
      ValueError: a temperature that is not positive.
    """
    if known(lambda t: t > 0, temperature := jnp.asarray(temperature)) is False:
        raise ValueError(f"want a temperature > 0; got {temperature:g}")
    return jax.nn.softmax(as_float(logits) / temperature)


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
