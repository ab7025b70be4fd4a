"""The figures of the report, with their captions."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import sklearn.metrics
from matplotlib.figure import Figure

from emojax.data.cohort import Cohort
from emojax.records import ArmResult
from emojax.report import brain, outcomes, plots, tables, texts
from emojax.report.outcomes import NETWORK

Drawn = dict[str, tuple[Figure, str]]  # file name -> figure, caption


@matplotlib.rc_context(plots.LITERAL)
def draw(
    metrics: Mapping[str, Any],
    cohort: Cohort,
    results: Sequence[ArmResult],
    extras: Mapping[str, Any],
) -> Drawn:
    """Draws all figures of an experiment.

    Args:
      metrics: content of metrics.json.
      cohort: the labelled volumes that rows refer to.
      results: the arms; the first is the headline.
      extras: "mean" and "mask" [X, Y, Z]: background of the map of chosen voxels, if there is one,
        see `brain.below`; "affine": voxel -> mm [4, 4], or None.
    """
    if metrics["chosen_arm"]:
        return {"sweep": _sweep(metrics)}
    head = results[0]
    out = {"accuracy": _by_split(metrics) if head.arm.split else _accuracies(metrics)}
    if rows := texts.ladder(metrics):
        out["leaks"] = _ladder(rows, metrics["chance"])
    out |= _classification(metrics, cohort, head)
    networks = outcomes.trained(results)
    if networks and outcomes.curves(networks[0]):
        out["curves"] = _curves(cohort, networks)
    counts = chosen_voxels(head, extras)
    if counts is not None:
        out["voxels"] = _voxels(counts, extras, len(head.folds))
    pairs = [fold.notes["isc"] for fold in head.folds if "isc" in fold.notes]
    if pairs and np.isfinite(pairs).all():
        out["correlation"] = (
            plots.correlation(*zip(*pairs, strict=True)),
            "Mean correlation between training subjects of each voxel's time course (after "
            "alignment: of each dimension of the common space). Thin lines: folds; thick: mean.",
        )
    return out


def chosen_voxels(head: ArmResult, extras: Mapping[str, Any]) -> np.ndarray | None:
    """Returns the number of folds that chose each voxel, [X, Y, Z]; None without a voxel grid.

    Args:
      head: the headline.
      extras: the same as in `draw`.
    """
    chosen = [fold.notes.get("voxels") for fold in head.folds]
    if extras.get("mean") is None or not chosen or any(voxels is None for voxels in chosen):
        return None
    counts = np.zeros(extras["mean"].size, int)
    for voxels in chosen:
        counts[voxels] += 1
    return counts.reshape(extras["mean"].shape)


def maps(head: ArmResult, extras: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the values and affine of each image to be written as NIfTI, by name.

    Args:
      head: the headline.
      extras: as in `draw`, and "volumes": maps [X, Y, Z] of analyses, by file name.
    """
    found = dict(extras.get("volumes") or {})
    if (counts := chosen_voxels(head, extras)) is not None:
        found = {"chosen_voxels": counts.astype(np.int16)} | found
    affine = np.eye(4) if extras.get("affine") is None else extras["affine"]
    return {name: (values, affine) for name, values in found.items()}


def _voxels(counts, extras, num_folds: int) -> tuple[Figure, str]:
    affine = extras.get("affine")
    caption = "Number of folds that chose each voxel, over the mean volume. "
    caption += (
        "Array axes: the images do not define left and right."
        if affine is None
        else "Above: planes through a voxel that most folds chose. Coordinates in mm."
    )
    return brain.voxels(counts, brain.below(extras), num_folds, affine), caption


def _accuracies(metrics) -> tuple[Figure, str]:
    """Draws a line per arm and classifier; inner steps of the ladder have their own figure."""
    inner = {arm["name"] for arm, _ in texts.ladder(metrics)[1:-1]}
    noise = texts.floor(metrics, metrics["arms"][0])
    shown = [r for r in tables.rows(metrics) if r.arm is not noise and r.arm["name"] not in inner]
    lines = [
        (row.name, tables.of_folds(row), row.summary["balanced_accuracy"]["ci95"]) for row in shown
    ]
    figure = plots.accuracies(
        lines,
        metrics["chance"],
        texts.first(noise)[1]["balanced_accuracy"]["ci95"] if noise else None,
        ours={row.name for row in shown if row.classifier == NETWORK},
        leaky={row.name for row in shown if not row.arm["strict"]},
    )
    caption = (
        "Balanced accuracy in each fold (dots), its mean and 95 % interval. Blue: networks; "
        "orange: classical classifiers; red: leaky, for comparison only."
    )
    return figure, caption


def _by_split(metrics) -> tuple[Figure, str]:
    """Draws one panel per arm with a split, and in it one line per classifier."""
    panels: dict[str, dict[str, tuple]] = {}
    arms = [arm for arm in texts.real(metrics) if arm["split"]]
    for arm in arms:
        noise = texts.floor(metrics, arm)
        floors = {row.classifier: row.summary for row in tables.rows(metrics) if row.arm is noise}
        for row in tables.rows(metrics):
            if row.arm is arm:
                score = row.summary["balanced_accuracy"]
                floor = floors.get(row.classifier, {"balanced_accuracy": {"mean": None}})
                name = metrics["network"] if row.classifier == NETWORK else row.classifier
                line = score["mean"], score["ci95"], floor["balanced_accuracy"]["mean"]
                panels.setdefault(arm["name"], {})[name] = line
    figure = plots.by_split(
        panels,
        metrics["chance"],
        ours=metrics["network"],
        leaky={arm["name"] for arm in arms if not arm["strict"]},
    )
    caption = (
        "Balanced accuracy by what is new about the test volumes, with 95 % interval. Diamonds: "
        "noise floor, the same procedure on data with random phases; a diamond to the right of the "
        "chance line is memorisation, not decoding. Red: leaky, for comparison only."
    )
    return figure, caption


def _ladder(rows, chance: float) -> tuple[Figure, str]:
    steps = []
    for arm, text in rows:
        score = arm["summary"]["network"]["balanced_accuracy"]
        steps.append((f"{arm['name']}\n({text})", score["mean"], score["ci95"]))
    caption = (
        "From the published procedure (top) to the network without leaks (bottom): each bar closes "
        "one leak, named in brackets. With a held-back subject for epoch and learning rate, one "
        "subject fewer is in the training set."
    )
    return plots.ladder(steps, chance), caption


def _classification(metrics, cohort, head: ArmResult) -> Drawn:
    """Draws confusion matrix and ROC curves of the headline, pooled over folds and instances."""
    classifier, summary = texts.first(metrics["arms"][0])
    row = tables.Row("", metrics["arms"][0], classifier, summary)
    name = tables.row_name(metrics, row.arm, classifier)
    confusion = np.sum([found["confusion"] for found in tables.scores_of(row)], axis=0)
    rows, probabilities = outcomes.pooled(head)
    truth = np.eye(len(cohort.classes), dtype=bool)[cohort.labels[rows]]
    pairs = {label: (truth[:, k], probabilities[:, k]) for k, label in enumerate(cohort.classes)}
    if len(cohort.classes) > 2:
        pairs["micro-average"] = truth.ravel(), probabilities.ravel()
    lines = {}
    for label, (is_it, score) in pairs.items():
        if is_it.any() and not is_it.all():
            x, y, _ = sklearn.metrics.roc_curve(is_it, score)
            lines[label] = x, y, sklearn.metrics.auc(x, y)
    over = "pooled over folds and instances" if head.arm.instances > 1 else "pooled over folds"
    caption = f"Confusion matrix of {name}, {over}: share and number of volumes."
    return {
        "confusion": (plots.confusion(confusion, cohort.classes), caption),
        "roc": (plots.roc(lines), f"One-vs-rest ROC curves of {name}, {over}."),
    }


def _curves(cohort, networks: Sequence[ArmResult]) -> tuple[Figure, str]:
    """Draws the learning curves of all splits, or of the first arm and the first leaky one."""
    head = networks[0]
    shown = [r for r in networks if not r.arm.on_noise or head.arm.on_noise]
    shown = [r for r in shown if bool(r.arm.split) == bool(head.arm.split)]
    if not head.arm.split:
        shown = [head, *[r for r in shown if r is not head and r.protocol == "leaky"][:1]]
    names = [f.fold.name for f in head.folds for _ in f.outcomes]
    found = {r.arm.name: outcomes.curves(r) for r in shown}
    few = len(names) <= plots.MANY_FOLDS or head.arm.split
    if few:  # one column per arm, with no more lines than can be told apart
        found = {
            name: {key: lines[: plots.MANY_FOLDS] for key, lines in curves.items()}
            for name, curves in found.items()
        }
    figure = plots.curves(
        found,
        {r.arm.name: outcomes.monitored(cohort, r.folds[0].fold) for r in shown},
        names,
        leaky={r.arm.name for r in shown if r.protocol == "leaky"},
    )
    caption = (
        f"Learning curves. Thin lines: folds and instances (at most {plots.MANY_FOLDS})."
        if few
        else "Learning curves of each fold, titled by the subject or run that is tested. Thin: "
        "training batches; thick: monitored volumes."
    )
    return figure, caption + " Losses include the penalty."


def _sweep(metrics) -> tuple[Figure, str]:
    rows = [arm["folds"][0]["monitored"] for arm in metrics["arms"]]
    factors = [arm["factor"] for arm in metrics["arms"]]
    return plots.sweep(factors, rows), "Loss and accuracy at the kept epoch, by L2 factor."
