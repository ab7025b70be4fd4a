"""Scores of one fold as plain data, and their summary over folds."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from emojax import metrics, statistics

SUMMARISED = ("accuracy", "balanced_accuracy", "auc_macro", "auc_micro", "f1_macro")
SUMMARISED += ("loss", "nll", "brier", "ece")
BESIDE = ("base_rate_nll", "block_accuracy")  # only if base rates and blocks are given
UNCALIBRATED = ("temperature", "nll", "brier", "ece")  # scores of a network before calibration
TINY = float(np.finfo(np.float32).tiny)  # smallest probability whose logarithm is taken


def scores(
    labels: Int[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n classes"],
    *,
    base_rates: Float[np.ndarray, " classes"] | None = None,
    blocks: Int[np.ndarray, " n"] | None = None,
) -> dict[str, Any]:
    """Returns all scores shown in the report; the most probable class is the predicted one.

    Args:
      labels: [n] int, the truth.
      probabilities: [n, classes], rows sum to 1.
      base_rates: [classes] share of each class in the training volumes, or None.
      blocks: [n] int, see `block_accuracy`, or None.

    Returns:
      Plain data: "accuracy", "balanced_accuracy" (over the classes that occur), "auc_macro",
      "auc_micro", "auc" per class, "nll" and "loss" (both the mean cross-entropy, nats), "brier"
      and "ece" (see `metrics`), "confusion" (rows are the truth), "precision", "recall", "f1" per
      class, "f1_macro"; with base rates "base_rate_nll", the loss of predicting them for every
      volume; with blocks "block_accuracy". Undefined scores are None.
    """
    labels, classes = np.asarray(labels), probabilities.shape[1]
    predicted = probabilities.argmax(1).astype(labels.dtype)
    areas = metrics.roc_auc(labels, probabilities)
    per_class = metrics.precision_recall_f1(labels, predicted, classes)
    probable = of_probabilities(labels, probabilities)
    found = {
        "accuracy": metrics.accuracy(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy(labels, predicted, classes),
        "auc_macro": areas.macro,
        "auc_micro": areas.micro,
        "auc": areas.per_class,
        "loss": probable["nll"],
        **probable,
        "confusion": metrics.confusion_matrix(labels, predicted, classes),
        "precision": per_class.precision,
        "recall": per_class.recall,
        "f1": per_class.f1,
        "f1_macro": per_class.f1.mean(),
    }
    if base_rates is not None:
        found["base_rate_nll"] = _log_loss(np.asarray(base_rates)[labels])
    if blocks is not None:
        found["block_accuracy"] = block_accuracy(labels, probabilities, blocks)
    return {name: _plain(value) for name, value in found.items()}


def of_probabilities(
    labels: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> dict[str, float]:
    """Returns "nll", "brier" and "ece", see `metrics`."""
    return {
        "nll": _log_loss(probabilities[np.arange(len(labels)), labels]),
        "brier": float(metrics.brier(labels, probabilities)),
        "ece": float(metrics.ece(labels, probabilities)),
    }


def _log_loss(chosen: Float[np.ndarray, " n"]) -> float:
    """Returns the mean negative logarithm of the probabilities of the labels, in float64."""
    return float(-np.log(np.maximum(chosen.astype(np.float64), TINY)).mean())


def fit_temperature(
    labels: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> float:
    """Fits one temperature to volumes that were not used in training.

    One extra volume, spread evenly over all volumes and classes, keeps a network that is right on
    all of a few volumes from looking infallible (Platt's scaling has one for each class).

    Args:
      labels: [n] int, the truth.
      probabilities: [n, classes], rows sum to 1.

    References:
      Platt, Probabilistic outputs for support vector machines, 1999.
    """
    n, classes = probabilities.shape
    logits = np.repeat(np.log(np.maximum(probabilities, TINY)), classes, axis=0)
    weights = np.eye(classes)[labels] + 1 / (n * classes)
    found = metrics.temperature_fit(logits, np.tile(np.arange(classes), n), weights.ravel())
    return float(found)


def with_temperature(
    probabilities: Float[np.ndarray, "n classes"], temperature: float
) -> Float[np.ndarray, "n classes"]:
    """Returns probabilities after temperature scaling, which keeps the predicted classes."""
    logits = np.log(np.maximum(probabilities, TINY))
    return np.asarray(metrics.apply_temperature(logits, temperature))


def block_accuracy(
    labels: Int[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n classes"],
    blocks: Int[np.ndarray, " n"],
) -> float | None:
    """Returns the share of blocks predicted right by the sum of log-probabilities.

    Args:
      labels: [n] int, the truth; one class in a block.
      probabilities: [n, classes], rows sum to 1.
      blocks: [n] int, number of each volume's block; negative: in no block, and ignored.

    Returns:
      The share, or None if no volume is in a block.
    """
    timed = blocks >= 0
    if not timed.any():
        return None
    _, first, place = np.unique(blocks[timed], return_index=True, return_inverse=True)
    sums = np.zeros((len(first), probabilities.shape[1]))
    np.add.at(sums, place, np.log(np.maximum(probabilities[timed].astype(np.float64), TINY)))
    return float((sums.argmax(1) == labels[timed][first]).mean())


def summary(
    folds: Sequence[Mapping[str, Any]], names: Sequence[str] = (*SUMMARISED, *BESIDE)
) -> dict[str, dict[str, Any]]:
    """Returns mean, sd (n - 1) and 95 % interval over folds of every score.

    The interval is Student's t, `statistics.mean_interval`. Folds whose score is None are ignored;
    a single fold has no interval.

    Args:
      folds: results of `scores`.
      names: scores to summarise.

    Returns:
      metric -> {"mean", "sd", "ci95": [low, high] or None}.
    """
    out = {}
    for name in names:
        values = np.array([f[name] for f in folds if f.get(name) is not None], np.float64)
        if values.size:
            interval = statistics.mean_interval(values)
            sd = float(values.std(ddof=1)) if values.size > 1 else 0.0
            out[name] = {"mean": float(interval.estimate), "sd": sd, "ci95": limits(interval)}
    return out


def by_group(
    labels: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
) -> list[float]:
    """Returns the accuracy of each group, in sorted order of the groups."""
    right = labels == predicted
    return [float(right[groups == name].mean()) for name in np.unique(groups)]


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Compares two methods on the same folds (or groups).

    Args:
      ours: scores of one method.
      theirs: scores of the other method, in the same order.

    Returns:
      "difference" (mean of ours - theirs), its "ci95" (`statistics.mean_interval`) and "p"
      (`statistics.paired_test`); a single pair has neither interval nor p.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    interval = statistics.mean_interval(a - b)
    p = None
    if len(a) > 1:
        p = float(statistics.paired_test(jax.random.key(0), a, b).p)
    return {"difference": float(interval.estimate), "ci95": limits(interval), "p": p}


def limits(interval: statistics.Interval) -> list[float] | None:
    """Returns [low, high], or None if they are undefined."""
    low, high = float(interval.low), float(interval.high)
    return None if np.isnan(low) else [low, high]


def _plain(value):
    value = np.asarray(value)
    if value.ndim:
        return [_plain(v) for v in value]
    number = value.item()
    return None if isinstance(number, float) and not np.isfinite(number) else number
