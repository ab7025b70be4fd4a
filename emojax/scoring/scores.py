"""Scores of one fold as plain data, and their summary over folds."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy import special

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

    Folds where a score is None are left out of it; the interval of a single one is None.
    """
    out = {}
    for name in SUMMARISED:
        values = np.array([f[name] for f in folds if f.get(name) is not None], np.float32)
        if not values.size:
            continue
        out[name] = {"mean": float(values.mean()), "sd": 0.0, "ci95": None}
        if values.size > 1:
            interval = statistics.bootstrap_interval(jax.random.key(0), values)
            out[name]["sd"] = float(values.std(ddof=1))
            out[name]["ci95"] = [float(interval.low), float(interval.high)]
    return out


def clustered_interval(
    labels: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    num_classes: int,
) -> list[float]:
    """95 % interval of balanced accuracy on volumes of new groups (runs, subjects).

    Volumes of a run are not independent, so groups are what is counted: the jackknife leaves each
    out once, and Student's t has one degree of freedom less than groups. Drawing groups again
    instead (a bootstrap) is far too sure of itself where they are few. Clipped to [0, 1], and from
    0 to 1 of a single group: nothing is known about others.

    References:
      MacKinnon, Nielsen and Webb, Cluster-robust inference, J. Econometrics 232, 2023 (CV3).
    """
    names, group = np.unique(groups, return_inverse=True)
    count = len(names)
    if count < 2:
        return [0.0, 1.0]
    tables = np.zeros((count, num_classes, num_classes))
    np.add.at(tables, (group, labels, predicted), 1)
    whole = tables.sum(0)
    confusion = np.concatenate([whole[None], whole - tables])
    truth = confusion.sum(2)
    recall = np.diagonal(confusion, axis1=1, axis2=2) / np.where(truth > 0, truth, np.nan)
    found, *without = np.nanmean(recall, axis=1)
    error = np.sqrt((count - 1) / count * np.square(without - found).sum())
    half = special.stdtrit(count - 1, 0.975) * error
    return [float(max(0.0, found - half)), float(min(1.0, found + half))]


def by_group(
    labels: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
) -> list[float]:
    """Accuracy in each group, in sorted order of the groups."""
    right = labels == predicted
    return [float(right[groups == name].mean()) for name in np.unique(groups)]


def against(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Paired comparison over folds: mean difference ours - theirs, its interval and p value.

    Of a single pair there is neither.
    """
    ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
    if len(ours) == 1:
        return {"difference": float(ours[0] - theirs[0]), "ci95": None, "p": None}
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
