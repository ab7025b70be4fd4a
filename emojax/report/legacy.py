"""The schema 1 keys of metrics.json, kept for one more release."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emojax.data.cohort import Cohort
from emojax.records import ArmResult
from emojax.report import outcomes, texts


def keys(
    metrics: Mapping[str, Any], cohort: Cohort, results: Sequence[ArmResult]
) -> dict[str, Any]:
    """Returns the keys that version 0.3.0 wrote, from the arms of schema 2; {} without a network.

    Args:
      metrics: content of metrics.json so far.
      cohort: the labelled volumes that rows refer to.
      results: the arms, in the order of `metrics`.
    """
    arms = metrics["arms"]
    if not results or not any(fold.outcomes for r in results for fold in r.folds):
        return {}
    if metrics["chosen_arm"]:
        return _sweep(metrics)
    if arms[0]["split"]:
        return _splits(metrics, cohort, results)
    return _protocols(metrics)


def _protocols(metrics) -> dict[str, Any]:
    """Returns the keys of an experiment that leaves one unit out."""
    arms = metrics["arms"]
    networks = [arm for arm in arms if arm["summary"]["network"]]
    head = networks[0]
    floor = next((arm for arm in networks if arm["on_noise"]), None)
    folds = [
        {
            "test_subject": fold["test"],
            "protocols": {
                arm["name"]: arm["folds"][i]["network"] | {"epoch": arm["folds"][i]["epoch"]}
                for arm in networks
                if i < len(arm["folds"]) and arm["folds"][i]["network"]
            },
            "baselines": fold["baselines"],
        }
        for i, fold in enumerate(head["folds"])
    ]
    baselines = {}
    for name, entry in head["summary"]["baselines"].items():
        scored = {key: value for key, value in entry.items() if key != "network_minus_it"}
        baselines[name] = scored | {"nested_minus_it": entry["network_minus_it"]}
    isc = [fold.get("isc", [None, None]) for fold in head["folds"]]
    return {
        "regime": head["regime"],
        "folds": folds,
        "summary": {arm["name"]: arm["summary"]["network"] for arm in networks if arm is not floor},
        "baselines": baselines,
        "leaks": _leaks(metrics),
        "null_floor": floor["summary"]["network"] if floor else None,
        "provenance": {arm["name"]: arm["seen"] for arm in arms if not arm["shares"]},
        "isc": {"before": [pair[0] for pair in isc], "after": [pair[1] for pair in isc]},
    }


def _leaks(metrics) -> list[dict[str, Any]]:
    """Returns the gap between the published procedure and the headline, one row per closed leak."""
    rows: list[dict[str, Any]] = []
    for arm, text in texts.ladder(metrics):
        score = arm["summary"]["network"]["balanced_accuracy"]
        change = score["mean"] - rows[-1]["mean"] if rows else None
        rows.append({"closed": text, "protocol": arm["name"]} | score | {"change": change})
    return rows


def _splits(metrics, cohort, results: Sequence[ArmResult]) -> dict[str, Any]:
    """Returns the keys of an experiment with splits."""
    real: dict[str, Any] = {}
    noise: dict[str, Any] = {}
    for arm, result in zip(metrics["arms"], results, strict=True):
        if arm["summary"]["network"]:
            (noise if arm["on_noise"] else real).setdefault(arm["split"], (arm, result))
    found = {}
    for kind, pair in (real or noise).items():
        floor = noise.get(kind) if real else None
        found[kind] = _split(cohort, *pair)
        found[kind]["null_floor"] = _split(cohort, *floor) if floor else None
    return {"headline_split": next(iter(found)), "splits": found}


def _split(cohort, arm: Mapping[str, Any], result: ArmResult) -> dict[str, Any]:
    """Returns the folds and the summary of one arm with a split."""
    groups = outcomes.groups(cohort, result.arm)
    folds = []
    for scored, fold in zip(arm["folds"], result.folds, strict=True):
        instances = scored["instances"] or [
            scored["network"] | {name: scored[name] for name in ("last", "epoch", "epochs")}
        ]
        folds.append(
            {
                "volumes": scored["sizes"],
                "test_groups": np.unique(groups[fold.fold.test]).tolist(),
                "instances": instances,
                "baselines": scored["baselines"],
                "leaks": scored["leaks"],
                "rounding": scored.get("rounding", 0.0),
            }
        )
    summary = arm["summary"]
    return {
        "folds": folds,
        "summary": summary["network"],
        "ci95_groups": summary["network"]["balanced_accuracy"]["ci95"],
        "group": arm["unit"],
        "by_group": summary["by_group"],
        "baselines": {name: _baseline(arm, name) for name in summary["baselines"]},
    }


def _baseline(arm: Mapping[str, Any], name: str) -> dict[str, Any]:
    entry = dict(arm["summary"]["baselines"][name])
    test = entry.pop("network_minus_it")
    peaks = [fold["baselines"][name]["peak_bytes"] for fold in arm["folds"]]
    return {
        "summary": entry,
        "ci95_groups": entry["balanced_accuracy"]["ci95"],
        "peak_bytes": None if None in peaks else max(peaks),
        "network_minus_it": test,
    }


def _sweep(metrics) -> dict[str, Any]:
    """Returns the keys of a sweep over penalty factors."""
    rows = []
    for arm in metrics["arms"]:
        fold = arm["folds"][0]
        rows.append(
            {"factor": arm["factor"], "epoch": fold["epoch"], "epochs": fold["epochs"]}
            | fold["monitored"]
        )
    arm = next(arm for arm in metrics["arms"] if arm["name"] == metrics["chosen_arm"])
    return {
        "split": arm["split"],
        "sweep": rows,
        "chosen": arm["factor"],
        "test": arm["folds"][0]["network"],
    }
