"""Scores of one fold as plain data, and their summary over folds."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from emojax import metrics, statistics

SUMMARISED = ("accuracy", "balanced_accuracy", "auc_macro", "auc_micro", "f1_macro")
SUMMARISED += ("loss", "nll", "brier", "ece")


def scores(
    labels: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> dict[str, Any]:
    """Returns every score that the report shows; the most probable class is the predicted one.

    Args:
      labels: [n] int, the truth.
      probabilities: [n, classes], rows sum to 1.

    Returns:
      Plain data: "accuracy", "balanced_accuracy" (over the classes that occur), "auc_macro",
      "auc_micro", "auc" per class, "nll" and "loss" (both the mean cross-entropy, nats), "brier"
      and "ece" (see `metrics`), "confusion" (rows are the truth), "precision", "recall", "f1" per
      class, "f1_macro". None where one is not defined.
    """
    labels, classes = np.asarray(labels), probabilities.shape[1]
    predicted = probabilities.argmax(1).astype(labels.dtype)
    areas = metrics.roc_auc(labels, probabilities)
    per_class = metrics.precision_recall_f1(labels, predicted, classes)
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    nll = -np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean()
    found = {
        "accuracy": metrics.accuracy(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy(labels, predicted, classes),
        "auc_macro": areas.macro,
        "auc_micro": areas.micro,
        "auc": areas.per_class,
        "loss": nll,
        "nll": nll,
        "brier": metrics.brier(labels, probabilities),
        "ece": metrics.expected_calibration_error(labels, probabilities),
        "confusion": metrics.confusion_matrix(labels, predicted, classes),
        "precision": per_class.precision,
        "recall": per_class.recall,
        "f1": per_class.f1,
        "f1_macro": per_class.f1.mean(),
    }
    return {name: _plain(value) for name, value in found.items()}


def summary(folds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns mean, sd (n - 1) and 95 % interval over folds of every score in `SUMMARISED`.

    The interval is Student's t, `statistics.mean_interval`. Folds where a score is None are left
    out of it; of a single fold there is no interval.

    Args:
      folds: rows as `scores` returns them.

    Returns:
      metric -> {"mean", "sd", "ci95": [low, high] or None}.
    """
    out = {}
    for name in SUMMARISED:
        values = np.array([f[name] for f in folds if f.get(name) is not None], np.float64)
        if values.size:
            interval = statistics.mean_interval(values)
            sd = float(values.std(ddof=1)) if values.size > 1 else 0.0
            out[name] = {"mean": float(interval.estimate), "sd": sd, "ci95": _limits(interval)}
    return out


def by_group(
    labels: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
) -> list[float]:
    """Returns the accuracy in each group, in sorted order of the groups."""
    right = labels == predicted
    return [float(right[groups == name].mean()) for name in np.unique(groups)]


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Compares two methods on the same folds (or groups).

    Args:
      ours: scores of one method.
      theirs: those of the other, in the same order.

    Returns:
      "difference" (mean of ours - theirs), its "ci95" (`statistics.mean_interval`) and "p"
      (`statistics.paired_test`); of a single pair there is neither interval nor p.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    interval = statistics.mean_interval(ours - theirs)
    p = None
    if len(ours) > 1:
        p = float(statistics.paired_test(jax.random.key(0), ours, theirs).p)
    return {"difference": float(interval.estimate), "ci95": _limits(interval), "p": p}


def _limits(interval):
    """Returns [low, high], or None where they are not defined."""
    low, high = float(interval.low), float(interval.high)
    return None if np.isnan(low) else [low, high]


def _plain(value):
    value = np.asarray(value)
    if value.ndim:
        return [_plain(v) for v in value]
    number = value.item()
    return None if isinstance(number, float) and not np.isfinite(number) else number
