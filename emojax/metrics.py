"""Scores of predicted classes: accuracy, confusion, precision, recall, ROC curves, their areas.

Definitions and limits are those of scikit-learn; everything is counted in integers and divided at
the end, so that single precision loses nothing on large data.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer

from emojax._numerics.checks import Array, as_float, check_finite, check_labels

_MAX_SCORES = 2_000_000  # up to here the integer sums of `_auc` stay below 2**31


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
    """Fraction of samples predicted right.

    Args:
      labels: [samples] int, the truth.
      predicted: [samples] int.

    Returns:
      [] of the default float dtype, in [0, 1].

    Raises:
      ValueError: shapes disagree, no samples, or a dtype that is not an integer.
    """
    labels, predicted = _checked(labels, predicted)
    return _accuracy(labels, predicted)


def balanced_accuracy(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> Float[Array, ""]:
    """Mean recall over the classes that occur in `labels`; chance is 1 / their number.

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
    labels, predicted = _checked(labels, predicted, num_classes)
    return _balanced_accuracy(labels, predicted, num_classes)


def confusion_matrix(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> Int32[Array, "classes classes"]:
    """Counts [num_classes, num_classes] samples by true class (rows) and predicted class (columns).

    Inside a caller's jit, where values cannot be checked, a sample with a label out of range is
    counted nowhere. Args, raises: as `balanced_accuracy`.
    """
    labels, predicted = _checked(labels, predicted, num_classes)
    return _confusion_matrix(labels, predicted, num_classes)


def precision_recall_f1(
    labels: Integer[Array, " samples"], predicted: Integer[Array, " samples"], num_classes: int
) -> ClassScores:
    """Precision TP / (TP + FP), recall TP / (TP + FN) and F1 = 2 TP / (2 TP + FP + FN) by class.

    Scores are [num_classes], of the default float dtype. Args, raises: as `balanced_accuracy`.
    """
    labels, predicted = _checked(labels, predicted, num_classes)
    return _precision_recall_f1(labels, predicted, num_classes)


def roc_curve(is_positive: Bool[Array, " samples"], scores: Float[Array, " samples"]) -> RocCurve:
    """True against false positive rate as the threshold falls through all scores.

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
    return _roc_curve(*_checked_scores(is_positive, scores))


def auc(is_positive: Bool[Array, " samples"], scores: Float[Array, " samples"]) -> Float[Array, ""]:
    """Area under the ROC curve: how often a positive outscores a negative, ties counting half.

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
    is_positive, scores = _checked_scores(is_positive, scores)
    _check_size(scores)
    return _auc(is_positive, scores)


def roc_auc(labels: Integer[Array, " samples"], scores: Float[Array, "samples classes"]) -> RocAuc:
    """One-vs-rest AUC of each class, pooled (micro) and averaged (macro).

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
    labels, scores = _as_array(labels), _widened(scores)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not labels.size:
        raise ValueError(
            "want labels [samples] and scores [samples, classes] with samples >= 1; "
            f"got {labels.shape}, {scores.shape}"
        )
    if scores.shape[1] < 2:
        raise ValueError(f"want scores of at least 2 classes; got shape {scores.shape}")
    check_labels("labels", labels, scores.shape[1])
    check_finite("scores", scores)
    _check_size(scores)
    return _roc_auc(jnp.asarray(labels), scores)


def _as_array(x):
    return x if isinstance(x, jax.Array) else np.asarray(x)  # numpy keeps int64, to be checked


def _widened(scores):
    scores = as_float(scores)
    return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))


def _checked(labels, predicted, num_classes=None):
    labels, predicted = _as_array(labels), _as_array(predicted)
    if labels.ndim != 1 or labels.shape != predicted.shape or not labels.size:
        raise ValueError(
            "want labels and predicted of one shape [samples >= 1]; "
            f"got {labels.shape}, {predicted.shape}"
        )
    for name, x in (("labels", labels), ("predicted", predicted)):
        if num_classes is not None:
            check_labels(name, x, num_classes)
        elif not np.issubdtype(x.dtype, np.integer):
            raise ValueError(f"want integer {name}; got dtype {x.dtype}")
    return jnp.asarray(labels), jnp.asarray(predicted)


def _checked_scores(is_positive, scores):
    is_positive, scores = _as_array(is_positive), _widened(scores)
    if scores.ndim != 1 or is_positive.shape != scores.shape or not scores.size:
        raise ValueError(
            "want is_positive and scores of one shape [samples >= 1]; "
            f"got {is_positive.shape}, {scores.shape}"
        )
    if is_positive.dtype != bool:
        raise ValueError(f"want bool is_positive; got dtype {is_positive.dtype}")
    check_finite("scores", scores)
    return jnp.asarray(is_positive), scores


def _check_size(scores):
    if scores.size > _MAX_SCORES:
        raise ValueError(f"want at most {_MAX_SCORES} scores; got shape {scores.shape}")


def _ratio(count, total, dtype=float):
    """count / total, exactly 1 if they are equal; 0 / 0 is NaN.

    jax divides two int32 in float32 even under x64, and XLA may multiply by the rounded reciprocal
    of a common total, which takes 49 / 49 below 1.
    """
    dtype = jnp.result_type(dtype)
    ratio = jnp.asarray(count, dtype) / jnp.asarray(total, dtype)
    return jnp.where((count == total) & (total > 0), 1, ratio)


@jax.jit
def _accuracy(labels, predicted):
    return _ratio((labels == predicted).sum(dtype=jnp.int32), labels.size)


@partial(jax.jit, static_argnames="num_classes")
def _balanced_accuracy(labels, predicted, num_classes):
    scores = _precision_recall_f1(labels, predicted, num_classes)
    return _ratio(scores.recall.sum(), (scores.support > 0).sum())


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
    precision, recall = (_ratio(right, jnp.maximum(n, 1)) for n in (found, support))
    f1 = _ratio(2 * right, jnp.maximum(found + support, 1))
    return ClassScores(precision, recall, f1, support)


class _Ranking(NamedTuple):
    """Samples by descending score; sample i is tied with those in [first[i], end[i])."""

    scores: Float[Array, " n"]
    is_positive: Bool[Array, " n"]
    positives: Int32[Array, " n+1"]  # number among the first i samples
    negatives: Int32[Array, " n+1"]
    first: Int32[Array, " n"]
    end: Int32[Array, " n"]


def _rank(is_positive, scores):
    order = jnp.argsort(scores, descending=True)
    scores, is_positive = scores[order], is_positive[order]
    ascending = -scores
    first, end = (jnp.searchsorted(ascending, ascending, side=x) for x in ("left", "right"))
    positives = jnp.pad(jnp.cumsum(is_positive, dtype=jnp.int32), (1, 0))
    negatives = jnp.arange(scores.size + 1, dtype=jnp.int32) - positives
    return _Ranking(scores, is_positive, positives, negatives, first, end)


@jax.jit
def _roc_curve(is_positive, scores):
    ranking = _rank(is_positive, scores)
    end = jnp.pad(ranking.end, (1, 0))
    counts = (ranking.negatives, ranking.positives)
    rates = [_ratio(count[end], count[-1], scores.dtype) for count in counts]
    return RocCurve(*rates, jnp.pad(ranking.scores, (1, 0), constant_values=jnp.inf))


@jax.jit
def _auc(is_positive, scores):
    ranking = _rank(is_positive, scores)
    positives, negatives = ranking.positives[-1], ranking.negatives
    # Twice the negatives below plus those tied. Its sum, up to n^2 / 2, leaves int32 and the digits
    # of float32; the sums of its low ten and its high bits stay exact up to `_MAX_SCORES`.
    wins = 2 * negatives[-1] - negatives[ranking.first] - negatives[ranking.end]
    wins = jnp.where(ranking.is_positive, wins, 0)
    low, high = (x.sum(dtype=jnp.int32).astype(scores.dtype) for x in (wins & 1023, wins >> 10))
    pairs = positives.astype(scores.dtype) * negatives[-1].astype(scores.dtype)
    return jnp.minimum((1024 * high + low) / (2 * pairs), 1)  # 0 / 0 is NaN, and stays so


@jax.jit
def _roc_auc(labels, scores):
    is_class = labels[:, None] == jnp.arange(scores.shape[1])
    per_class = jax.vmap(_auc, in_axes=1)(is_class, scores)
    return RocAuc(per_class, _auc(is_class.ravel(), scores.ravel()), per_class.mean())
