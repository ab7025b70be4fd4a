"""Scores by group of subjects, such as patients and controls."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from emojax import metrics, statistics
from emojax.data.cohort import Cohort
from emojax.records import ArmResult
from emojax.report import outcomes
from emojax.report.outcomes import NETWORK

Part = tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]  # scored rows, predicted classes


def summarise(cohort: Cohort, result: ArmResult) -> dict[str, Any]:
    """Scores an arm's classifiers in each group of subjects.

    All groups share the training volumes; only the scored subjects differ. Intervals are Student's
    t over the group's folds if a fold leaves one unit out, else the jackknife over the group's
    subjects, runs or blocks.

    Args:
      cohort: the labelled volumes that rows refer to.
      result: the arm.

    Returns:
      group -> {"subjects", "tested": numbers of subjects; "network": {"balanced_accuracy",
      "accuracy": {"mean", "ci95"}} or None; "baselines": name -> the same}. {} without groups.
    """
    out: dict[str, Any] = {}
    if not cohort.groups or not result.folds:
        return out
    of_row = np.array([cohort.groups.get(name, "") for name in cohort.subject])
    scored = np.concatenate([fold.fold.test for fold in result.folds])
    for group in np.unique(of_row).tolist():
        here = of_row == group
        found = {name: _scores(cohort, result, folds, here) for name, folds in _classifiers(result)}
        out[group] = {
            "subjects": len(np.unique(cohort.subject[here])),
            "tested": len(np.unique(cohort.subject[scored[here[scored]]])),
            "network": found.pop(NETWORK, None),
            "baselines": found,
        }
    return out


def _classifiers(result: ArmResult) -> Iterator[tuple[str, list[list[Part]]]]:
    """Yields the name of each classifier, and the folds of each of its instances."""
    networks = [outcomes.predictions(result.arm, fold) for fold in result.folds]
    if networks[0].networks:
        many = range(len(networks[0].networks))
        yield NETWORK, [[(f.rows, f.networks[i].argmax(1)) for f in networks] for i in many]
    for name in result.folds[0].baselines:
        yield name, [[(f.fold.test, f.baselines[name].predicted) for f in result.folds]]


def _scores(cohort, result: ArmResult, instances, here: Bool[np.ndarray, " n"]):
    """Returns both accuracies of a classifier on the rows of a group; None without such rows."""
    parts = [
        [(rows[here[rows]], predicted[here[rows]]) for rows, predicted in folds if here[rows].any()]
        for folds in instances
    ]
    if not parts[0]:
        return None
    over = _over_groups if result.arm.split else _over_folds
    return over(cohort, result, parts)


def _over_folds(cohort, result: ArmResult, parts) -> dict[str, Any]:
    values = np.mean([[_both(cohort, *part) for part in folds] for folds in parts], axis=0)
    out = {}
    for name, column in zip(("balanced_accuracy", "accuracy"), values.T, strict=True):
        interval = statistics.mean_interval(column)
        limits = [max(float(interval.low), 0.0), min(float(interval.high), 1.0)]
        ci95 = limits if len(column) > 1 else None
        out[name] = {"mean": float(interval.estimate), "ci95": ci95}
    return out


def _over_groups(cohort, result: ArmResult, parts) -> dict[str, Any]:
    rows, predicted = (
        np.concatenate([part[i] for folds in parts for part in folds]) for i in range(2)
    )
    units = outcomes.groups(cohort, result.arm)[rows]
    classes = len(cohort.classes)
    interval = statistics.clustered_interval(cohort.labels[rows], predicted, units, classes)
    _, accuracy = _both(cohort, rows, predicted)
    return {
        "balanced_accuracy": {
            "mean": float(interval.estimate),
            "ci95": [float(interval.low), float(interval.high)],
        },
        "accuracy": {"mean": accuracy, "ci95": None},
    }


def _both(cohort, rows, predicted) -> tuple[float, float]:
    """Returns balanced accuracy and accuracy."""
    labels, predicted = cohort.labels[rows], predicted.astype(np.int32)
    balanced = metrics.balanced_accuracy(labels, predicted, len(cohort.classes))
    return float(balanced), float(metrics.accuracy(labels, predicted))
