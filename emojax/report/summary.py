"""Means and 95 % intervals of an arm.

If a fold leaves one unit out, the interval is Student's t over folds. If a split keeps groups
whole, it is the jackknife over groups, with Student's t.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emojax import statistics
from emojax.data.cohort import Cohort
from emojax.records import ArmResult
from emojax.report import outcomes
from emojax.scoring import scores

SHARES = (
    "accuracy",
    "balanced_accuracy",
    "block_accuracy",
    "auc_macro",
    "auc_micro",
    "f1_macro",
    "ece",
)


def summarise(
    cohort: Cohort, result: ArmResult, folds: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Summarises the network and the classical classifiers of an arm over its folds.

    Args:
      cohort: the labelled volumes that rows refer to.
      result: the arm.
      folds: scores of each of its folds, as in metrics.json.

    Returns:
      "network": metric -> {"mean", "sd", "ci95"}, or None without a network; "baselines": name ->
      the same, with "network_minus_it", the paired difference; with a split also "by_group", the
      network's accuracy in each tested group, in sorted order.
    """
    rows = [f["network"] for f in folds if f["network"]]
    names = list(folds[0]["baselines"]) if folds else []
    if result.arm.split:
        return _over_groups(cohort, result, folds, names)
    out = {"network": _over_folds(rows) if rows else None, "baselines": {}}
    for name in names:
        theirs = [f["baselines"][name] for f in folds]
        test = None
        if rows:
            pairs = [[row["balanced_accuracy"] for row in side] for side in (rows, theirs)]
            test = scores.paired_difference(*pairs)
        out["baselines"][name] = _over_folds(theirs) | {"network_minus_it": test}
    return out


def compare(arms: Sequence[Mapping[str, Any]]) -> None:
    """Adds "network_minus_it" to decoders with an arm of their own, paired with the first network.

    Args:
      arms: entries of metrics.json, changed in place.
    """
    network = next((arm for arm in arms if arm["summary"]["network"] and not arm["on_noise"]), None)
    if network is None or not network["strict"]:
        return
    for arm in arms:
        if not arm["decoder"] or not arm["strict"]:
            continue
        pairs = {fold["test"]: fold["network"] for fold in network["folds"]}
        theirs = {fold["test"]: fold["baselines"][arm["decoder"]] for fold in arm["folds"]}
        if pairs.keys() == theirs.keys():
            sides = [
                [side[name]["balanced_accuracy"] for name in pairs] for side in (pairs, theirs)
            ]
            found = scores.paired_difference(*sides)
            arm["summary"]["baselines"][arm["decoder"]]["network_minus_it"] = found


def _over_folds(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarises an arm that leaves one unit out; intervals of shares are clipped to [0, 1]."""
    found = scores.summary(rows)
    for name in SHARES:
        if name in found and found[name]["ci95"]:
            low, high = found[name]["ci95"]
            found[name]["ci95"] = [max(low, 0.0), min(high, 1.0)]
    return found


def _over_groups(cohort, result: ArmResult, folds, names: Sequence[str]) -> dict[str, Any]:
    """Summarises an arm with a split; the independent units are groups, not folds."""
    arm, groups = result.arm, outcomes.groups(cohort, result.arm)
    rows = np.concatenate([fold.fold.test for fold in result.folds])
    labels, where = cohort.labels[rows], groups[rows]

    def interval(found, predicted):
        many = len(predicted)
        limits = statistics.clustered_interval(
            np.tile(labels, many), predicted.ravel(), np.tile(where, many), len(cohort.classes)
        )
        summary = {name: entry | {"ci95": None} for name, entry in scores.summary(found).items()}
        summary["balanced_accuracy"]["ci95"] = [float(limits.low), float(limits.high)]
        return summary

    out, ours = {"network": None, "baselines": {}}, None
    if folds[0]["network"]:
        networks = zip(*(outcomes.predictions(arm, f).networks for f in result.folds), strict=True)
        predicted = np.array([np.concatenate(parts).argmax(1) for parts in networks])
        found = [row for f in folds for row in (f["instances"] or [f["network"]])]
        out["network"] = interval(found, predicted)
        ours = np.mean([scores.by_group(labels, line, where) for line in predicted], axis=0)
        out["by_group"] = ours.tolist()
    for name in names:
        predicted = np.concatenate([fold.baselines[name].predicted for fold in result.folds])
        entry = interval([f["baselines"][name] for f in folds], predicted[None])
        theirs = scores.by_group(labels, predicted, where)
        test = None if ours is None else scores.paired_difference(ours, theirs)
        out["baselines"][name] = entry | {"network_minus_it": test}
    return out
