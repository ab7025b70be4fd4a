"""Scores of one fold as plain data, and their summary over folds."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from emojax import metrics, statistics

SUMMARISED = ("accuracy", "balanced_accuracy", "auc_macro", "auc_micro", "loss", "f1_macro")


def scores(
    labels: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> dict[str, Any]:
    """Every score that the report shows; the class with the highest probability is predicted.

    Args:
      labels: [n] int, the truth.
      probabilities: [n, classes], rows sum to 1.

    Returns:
      Plain data: "accuracy", "balanced_accuracy" (over the classes that occur), "auc_macro",
      "auc_micro", "auc" per class, "loss" (mean cross-entropy, nats), "confusion" (rows are the
      truth), "precision", "recall", "f1" per class, "f1_macro". None where one is not defined.
    """
    labels, classes = np.asarray(labels), probabilities.shape[1]
    predicted = probabilities.argmax(1).astype(labels.dtype)
    areas = metrics.roc_auc(labels, probabilities)
    per_class = metrics.precision_recall_f1(labels, predicted, classes)
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    found = {
        "accuracy": metrics.accuracy(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy(labels, predicted, classes),
        "auc_macro": areas.macro,
        "auc_micro": areas.micro,
        "auc": areas.per_class,
        "loss": -np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean(),
        "confusion": metrics.confusion_matrix(labels, predicted, classes),
        "precision": per_class.precision,
        "recall": per_class.recall,
        "f1": per_class.f1,
        "f1_macro": per_class.f1.mean(),
    }
    return {name: _plain(value) for name, value in found.items()}


def summary(folds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean, sd (n - 1) and 95 % bootstrap interval over folds of every score in `SUMMARISED`.

    Folds where a score is None are left out of it.
    """
    out = {}
    for name in SUMMARISED:
        values = np.array([f[name] for f in folds if f.get(name) is not None], np.float32)
        if not values.size:
            continue
        interval = statistics.bootstrap_interval(jax.random.key(0), values)
        out[name] = {
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)) if values.size > 1 else 0.0,
            "ci95": [float(interval.low), float(interval.high)],
        }
    return out


def against(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Paired comparison over folds: mean difference ours - theirs, its interval and p value."""
    ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
    test = statistics.paired_test(jax.random.key(0), ours, theirs)
    interval = statistics.bootstrap_interval(jax.random.key(0), ours - theirs)
    return {
        "difference": float(test.difference),
        "ci95": [float(interval.low), float(interval.high)],
        "p": float(test.p),
    }


def _plain(value):
    value = np.asarray(value)
    if value.ndim:
        return [_plain(v) for v in value]
    number = value.item()
    return None if isinstance(number, float) and not np.isfinite(number) else number
