"""The numbers of an experiment, computed from its folds: metrics.json, schema 2."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emojax import splits
from emojax.data.cohort import Cohort
from emojax.records import Arm, ArmResult, FoldResult
from emojax.report import (
    console,
    figures,
    groups,
    legacy,
    outcomes,
    patterns,
    permutations,
    predictions,
    probabilities,
    searchlights,
    summary,
)
from emojax.report.outcomes import NETWORK
from emojax.report.plain import plain
from emojax.report.schema import Result
from emojax.scoring import scores
from emojax.scoring.baselines import Fitted

SCHEMA = 2
AT_EPOCH = outcomes.CURVES[:4]  # reported at the kept epoch, beside the scores of the test rows


def summarise(
    experiment: str,
    config: Mapping[str, Any],
    cohort: Cohort,
    results: Sequence[ArmResult],
    *,
    audit: Mapping[str, Any] | None = None,
    network: str = NETWORK,
    command: str = "",
    seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Returns the content of metrics.json.

    Arms with a factor form a sweep: the arm with the best monitored volumes is chosen, and only
    this arm is scored on the test volumes.

    Args:
      experiment: name of the experiment.
      config: the config as plain data, as in config.json.
      cohort: the labelled volumes that rows refer to.
      results: the arms; the first is the headline.
      audit: report of the audit, or None without one.
      network: display name of the network, such as "ResNet-50".
      command: the command line of the run.
      seconds: seconds that each stage took.
    """
    chosen = choose(results)
    scale = bool(config.get("temperature", True))
    scaled = [_calibrated(cohort, r, scale) for r in results]
    head = next((r for r in scaled if not chosen or r.arm.name == chosen), None)
    arms = [_arm(cohort, r, bool(chosen) and r.arm.name != chosen) for r in scaled]
    summary.compare(arms)
    permutations.correct_arms(arms)
    metrics = {
        "schema": SCHEMA,
        "experiment": experiment,
        "config": plain(config),
        "inputs": cohort.hashes,
        "command": command,
        "device": console.device(),
        "versions": console.versions(),
        "seconds": {} if seconds is None else seconds,
        "classes": list(cohort.classes),
        "chance": 1 / len(cohort.classes),
        "network": network,
        "data": {
            "subjects": len(cohort.subjects),
            "runs": len(cohort.runs),
            "volumes": len(cohort.labels),
            "tr": plain(cohort.tr),
            "shape": _shape(cohort),
            "before": [str(step) for step in cohort.prior],
            "factors": sorted(cohort.factors),
            "hashes": cohort.hashes,
            "counts": cohort.counts(),
        },
        "notes": list(cohort.notes),
        "events": [plain(loss._asdict()) for loss in cohort.lost],
        "groups": groups.summarise(cohort, head) if head else {},
        "arms": arms,
        "chosen_arm": chosen or None,
        "probabilities": probabilities.summarise(cohort, head, arms, scale) if head else None,
        "audit": plain(audit or {"measured": False}),
        # Filled in by later analyses; null means "not measured".
        "permutation": None,
        "crossed": None,
        "within_subject": None,
        "design": None,
    }
    return metrics | legacy.keys(metrics, cohort, results)


def choose(results: Sequence[ArmResult]) -> str:
    """Returns the arm of a sweep with the best monitored accuracy, then loss; "" for no sweep."""
    sweep = [r for r in results if r.arm.factor is not None and r.folds and r.folds[0].outcomes]

    def quality(result):
        rows = [_at_epoch(o, _epoch(result.arm, o)) for f in result.folds for o in f.outcomes]
        found = np.array([[row["accuracy"], row["loss"]] for row in rows], float).mean(0)
        accuracy, loss = np.nan_to_num(found, nan=-np.inf) * (1, -1)  # diverged arms rank last
        return accuracy, -np.inf if np.isinf(loss) else loss

    return max(sweep, key=quality).arm.name if sweep else ""


def build(
    metrics: dict[str, Any],
    cohort: Cohort,
    results: Sequence[ArmResult],
    *,
    extras: Mapping[str, Any] | None = None,
) -> Result:
    """Draws the figures and collects the content of all files of a report.

    Args:
      metrics: content of metrics.json as returned by `summarise`; p values are added to it.
      cohort: the labelled volumes that rows refer to.
      results: the arms that were summarised.
      extras: "mean" and "mask" [X, Y, Z]: background of maps, see `brain.below`; "affine": [4, 4]
        or None; "volumes": maps [X, Y, Z] of analyses, by file name.
    """
    chosen, extras = metrics["chosen_arm"], extras or {}
    pairs = zip(results, metrics["arms"], strict=True)
    results = [outcomes.calibrated(r, probabilities.temperatures(arm)) for r, arm in pairs]
    scored = [r for r in results if not chosen or r.arm.name == chosen]
    permutations.complete(metrics)
    drawn = figures.draw(metrics, cohort, results, extras) | probabilities.draw(metrics)
    drawn |= permutations.draw(metrics) | searchlights.draw(metrics, extras)
    drawn |= patterns.draw(metrics, extras)
    return Result(
        metrics,
        predictions.table(metrics, cohort, scored),
        figures={name: figure for name, (figure, _) in drawn.items()},
        captions={name: caption for name, (_, caption) in drawn.items()},
        curves={r.arm.name: outcomes.curves(r) for r in outcomes.trained(results)},
        maps=figures.maps(results[0], extras),
    )


def _shape(cohort: Cohort) -> list[int] | None:
    """Returns the number of voxels of a volume along each axis; None if runs differ."""
    shapes = {run.frames.shape[1:] for run in cohort.runs}
    return list(shapes.pop()) if len(shapes) == 1 else None


def _calibrated(cohort: Cohort, result: ArmResult, scale: bool) -> ArmResult:
    """Returns an arm with the temperatures of its networks applied, if `scale`."""
    return outcomes.calibrated(result, outcomes.temperatures(cohort, result)) if scale else result


def _arm(cohort, result: ArmResult, withheld: bool) -> dict[str, Any]:
    """Returns an entry of "arms"; its test scores are left out if `withheld`."""
    arm, blocks = result.arm, outcomes.blocks(cohort)
    folds = [_fold(cohort, arm, fold, blocks, withheld) for fold in result.folds]
    found = summary.summarise(cohort, result, folds)
    return {
        "name": arm.name,
        "protocol": result.protocol,
        "claimed": arm.protocol,
        "strict": result.protocol != "leaky",
        "regime": arm.regime,
        "split": arm.split,
        "unit": splits.SPLITS[arm.split].unit if arm.split else "",
        "on_noise": arm.on_noise,
        "draw": arm.draw,
        "decoder": arm.decoder,
        "members": arm.members,
        "shares": arm.shares,
        "pick": arm.pick,
        "oversampled": arm.oversampled,
        "factor": arm.factor,
        "leaks": list(arm.leaks),
        "folds": folds,
        "summary": probabilities.pool(cohort, result, folds, found),
        "p_chance": None,
        "gain": None if withheld else outcomes.gain(cohort, result),
        "learned_nothing": None if withheld else outcomes.learned_nothing(cohort, result),
        "seen": outcomes.seen(cohort, result),
    }


def _fold(cohort, arm: Arm, fold: FoldResult, blocks, withheld) -> dict[str, Any]:
    instances = [] if withheld else _instances(cohort, arm, fold, blocks)
    first = fold.outcomes[0] if fold.outcomes else None
    rows, rates = fold.fold.test, outcomes.base_rates(cohort, fold)
    labels, beside = cohort.labels[rows], {"base_rates": rates, "blocks": blocks[rows]}
    out = {
        "test": fold.fold.name,
        "rows": len(fold.fold.test),
        "sizes": [len(np.unique(rows)) for rows in fold.fold[1:]],
        "epoch": None if first is None or len(instances) > 1 else _epoch(arm, first),
        "epochs": None if first is None else int(first["done"]),
        "monitored": None if first is None else _at_epoch(first, _epoch(arm, first)),
        "network": _mean(instances),
        "instances": instances if len(instances) > 1 else [],
        "last": plain(np.mean([row["last"] for row in instances], dtype=float))
        if instances
        else None,
        "baselines": {
            name: scores.scores(labels, fitted.probabilities, **beside)
            | {"converged": bool(fitted.converged), "peak_bytes": fitted.peak_bytes}
            | _members(fitted)
            for name, fitted in fold.baselines.items()
        },
        "leaks": {step: int(count) for step, count in fold.leaks.items()},
    }
    if "chosen" in fold.notes and (arm.decoder == "auto" or arm.among):
        out["chosen"] = plain(fold.notes["chosen"])
    if "isc" in fold.notes:
        out["isc"] = plain(list(fold.notes["isc"]))
    if fold.notes.get("voxels") is not None:
        out["voxels"] = len(fold.notes["voxels"])
    if "parcels" in fold.notes:
        out["parcels"] = dict(fold.notes["parcels"])
    if "rounding" in fold.notes:
        out["rounding"] = float(fold.notes["rounding"])
    return out


def _members(fitted: Fitted) -> dict[str, Any]:
    """Returns the penalty and temperature of each member of a bag; {} for other classifiers."""
    weights = fitted.weights or {"C": ()}
    if len(weights["C"]) < 2:
        return {}
    return {"members": {name: plain(weights[name]) for name in ("C", "temperature")}}


def _instances(cohort, arm: Arm, fold: FoldResult, blocks) -> list[dict[str, Any]]:
    """Scores each network of a fold; "loss" is the cross-entropy without a temperature."""
    found, out = outcomes.predictions(arm, fold), []
    labels, rates = cohort.labels[found.rows], outcomes.base_rates(cohort, fold)
    for i, outcome in enumerate(fold.outcomes):
        given, before = found.networks[i], found.uncalibrated[i]
        row = scores.scores(labels, given, base_rates=rates, blocks=blocks[found.rows])
        row["uncalibrated"] = None
        if before is not None:
            row["uncalibrated"] = scores.of_probabilities(labels, before)
            row["uncalibrated"]["temperature"] = plain(np.mean(outcome["temperatures"]))
            row["loss"] = row["uncalibrated"]["nll"]
        row |= {"last": _last(cohort, fold, outcome), "epoch": _epoch(arm, outcome)}
        out.append(row | {"epochs": int(outcome["done"])})
    return out


def _last(cohort, fold: FoldResult, outcome: Mapping[str, Any]) -> float | None:
    """Returns the balanced accuracy at the last epoch, or None if the network has diverged."""
    last = np.asarray(outcome["last"])
    if not np.isfinite(last).all():
        return None
    return scores.scores(cohort.labels[fold.fold.test], last)["balanced_accuracy"]


def _epoch(arm: Arm, outcome: Mapping[str, Any]) -> int:
    """Returns the epoch (counted from 1) of the network that is scored."""
    return int(outcome["done" if arm.pick == "last" else "epoch"])


def _at_epoch(outcome: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """Returns the monitored scores of an epoch; None before the first epoch."""
    if not epoch:
        return dict.fromkeys(AT_EPOCH)
    return {name: plain(np.asarray(outcome[name])[epoch - 1]) for name in AT_EPOCH}


def _mean(instances: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Returns the scores of one network, or the means over several; confusions are summed."""
    if len(instances) < 2:
        names = ("last", "epoch", "epochs")
        return {k: v for k, v in instances[0].items() if k not in names} if instances else None
    out: dict[str, Any] = {}
    for name in (name for name in instances[0] if name != "uncalibrated"):
        values = np.array([row[name] for row in instances], float)  # None becomes NaN
        out[name] = plain(values.sum(0) if name == "confusion" else values.mean(0))
    before, out["uncalibrated"] = [row["uncalibrated"] for row in instances], None
    if all(before):
        means = {name: np.mean([row[name] for row in before]) for name in before[0]}
        out["uncalibrated"] = plain(means)
    return {k: v for k, v in out.items() if k not in ("last", "epoch", "epochs")}
