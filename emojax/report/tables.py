"""The tables of the report, made from the content of metrics.json."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from emojax.data.losses import HEADERS
from emojax.report import gains, permutations, texts
from emojax.report.cells import Table
from emojax.report.outcomes import NETWORK

CLASS_SCORES = {"precision": "precision", "recall": "recall", "f1": "F1"}


class Row(NamedTuple):
    """A line of the main table: one classifier of one arm."""

    name: str  # the same in tables, figures, terminal and docs
    arm: dict[str, Any]  # entry of metrics.json
    classifier: str  # `NETWORK`, or the name of a classical classifier
    summary: dict[str, Any]  # metric -> {"mean", "sd", "ci95"}


def rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Returns the lines of the main table.

    If only one arm has classical classifiers, they follow the networks under their own names, and
    noise comes last. Otherwise they follow their arm, and an arm on noise follows its original.
    """
    if len(texts.with_classical(metrics)) > 1:
        return [row for arm in _in_pairs(metrics) for row in _of_arm(arm, f"{arm['name']}: ")]
    found = [row for arm in metrics["arms"] for row in _of_arm(arm, "")]

    def place(row: Row):
        return row.arm["on_noise"], row.classifier not in (NETWORK, row.arm.get("decoder"))

    return sorted(found, key=place)


def _of_arm(arm: dict[str, Any], prefix: str) -> list[Row]:
    summary, out = arm["summary"], []
    if summary["network"]:
        out.append(Row(arm["name"], arm, NETWORK, summary["network"]))
    own = {arm.get("decoder"): arm["name"]}
    pairs = summary["baselines"].items()
    return out + [Row(own.get(name, prefix + name), arm, name, entry) for name, entry in pairs]


def _in_pairs(metrics) -> list[dict[str, Any]]:
    """Returns the arms, each followed by its counterpart on noise."""
    out: list[dict[str, Any]] = []
    for arm in texts.real(metrics):
        noise = texts.floor(metrics, arm)
        out += [a for a in (arm, noise) if a is not None and a not in out]
    return out + [arm for arm in metrics["arms"] if arm not in out]


def row_name(metrics: Mapping[str, Any], arm: Mapping[str, Any], classifier: str) -> str:
    """Returns the name of a row of the main table."""
    names = {(row.arm["name"], row.classifier): row.name for row in rows(metrics)}
    return names[arm["name"], classifier]


def make(metrics: Mapping[str, Any]) -> list[Table]:
    """Returns all tables; the first is the result."""
    details = [seen(metrics), audit(metrics), events(metrics), counts(metrics)]
    if metrics["chosen_arm"]:
        first = sweep(metrics)
    else:
        first = main(metrics)
        details = [folds(metrics), trainings(metrics), classes(metrics), *details]
    return [first, *(table for table in [groups(metrics), *details] if table.rows)]


def main(metrics: Mapping[str, Any]) -> Table:
    """Returns the result, with one row per arm and classifier."""
    header = ["", "balanced accuracy", "95 % interval", "p (chance)", "network minus it", "p"]
    header += [
        "p (Holm)",
        "adds to its linear path",
        "accuracy",
        "AUC (macro)",
        "NLL",
        "peak memory (GB)",
        "protocol",
    ]
    lines = []
    for row in rows(metrics):
        score, test = row.summary["balanced_accuracy"], row.summary.get("network_minus_it")
        cells = [row.name, f"{score['mean']:.3f} ({score['sd']:.3f})", texts.interval(score, " - ")]
        cells.append(_p(permutations.p_chance(metrics, row.arm, row.classifier)))
        cells.append("" if test is None else f"{test['difference']:+.3f}")
        cells += [_p(None if test is None else test.get(name)) for name in ("p", "p_holm")]
        cells.append(gains.cell(row.arm.get("gain")) if row.classifier == NETWORK else "")
        for name in ("accuracy", "auc_macro", "nll"):
            cells.append(f"{row.summary[name]['mean']:.3f}" if name in row.summary else "")
        lines.append([*cells, _peak(row), row.arm["protocol"]])
    used = [i for i, _ in enumerate(header) if i < 3 or any(line[i] for line in lines)]
    note = " ".join(filter(None, [texts.limits(metrics), permutations.limits(metrics)]))
    if texts.with_classical(metrics):
        note += " Classical classifiers are trained on the volumes and features of their arm's"
        note += " network; nuisance classifiers on time in run, global signal and motion only."
    return Table(
        "Balanced accuracy",
        [header[i] for i in used],
        [[line[i] for i in used] for line in lines],
        note,
    )


def _p(value: float | None) -> str:
    return "" if value is None else permutations.number(value)


def _peak(row: Row) -> str:
    """Returns the peak memory of a classifier of whole volumes, in GB; "" for others."""
    if row.classifier == NETWORK or not row.arm["split"]:
        return ""
    peaks = [fold["baselines"][row.classifier]["peak_bytes"] for fold in row.arm["folds"]]
    return "" if None in peaks else f"{max(peaks) / 1e9:.2f}"


def groups(metrics: Mapping[str, Any]) -> Table:
    """Returns the headline's scores in each group of subjects."""
    name = metrics["chosen_arm"] or (metrics["arms"] or [{"name": ""}])[0]["name"]
    lines = []
    for group, entry in (metrics.get("groups") or {}).items():
        tested = f"{entry['tested']} of {entry['subjects']}"
        rows = {name: entry["network"]} if entry["network"] else {}
        for row, found in (rows | entry["baselines"] or {name: None}).items():
            if found is None:
                lines.append([row, group or "no group", tested, "", "", ""])
                continue
            score, accuracy = found["balanced_accuracy"], found["accuracy"]
            cells = [f"{score['mean']:.3f}", texts.interval(score, " - ")]
            lines.append([row, group or "no group", tested, *cells, f"{accuracy['mean']:.3f}"])
    header = ["", "group", "subjects tested", "balanced accuracy", "95 % interval", "accuracy"]
    note = "The decoder is trained on all groups; intervals are over the tested units of a group."
    order = list(dict.fromkeys(line[0] for line in lines))
    lines.sort(key=lambda line: order.index(line[0]))
    return Table(f"By group: {name}", header, lines, note)


def folds(metrics: Mapping[str, Any]) -> Table:
    """Returns the balanced accuracy in each fold, for arms with the headline's folds."""
    head = metrics["arms"][0]
    tested = [fold["test"] for fold in head["folds"]]
    shown = [
        row
        for row in rows(metrics)
        if [fold["test"] for fold in row.arm["folds"]] == tested
        and row.arm["split"] == head["split"]
    ]
    lines = []
    for i, name in enumerate(tested if len(tested) > 1 else []):
        values = [of_folds(row)[i] for row in shown]
        lines.append([name, *(f"{value:.3f}" for value in values)])
    return Table("Balanced accuracy in each fold", ["tested", *(r.name for r in shown)], lines)


def of_folds(row: Row) -> list[float]:
    """Returns the balanced accuracy of a row in each of its folds."""
    return [scored["balanced_accuracy"] for scored in scores_of(row)]


def scores_of(row: Row) -> list[dict[str, Any]]:
    """Returns the scores of a row in each of its folds; over several instances, their means."""
    if row.classifier == NETWORK:
        return [fold["network"] for fold in row.arm["folds"]]
    return [fold["baselines"][row.classifier] for fold in row.arm["folds"]]


def trainings(metrics: Mapping[str, Any]) -> Table:
    """Returns the sizes, kept epoch and scores of every trained network."""
    header = ["arm", "fold", "instance", "volumes: train / monitored / test", "epoch kept"]
    header += ["balanced accuracy", "at the last epoch"]
    lines = []
    for arm in metrics["arms"]:
        for fold in arm["folds"] if not arm["shares"] else ():
            kept = {name: fold[name] for name in ("epoch", "epochs", "last")}
            single = [fold["network"] | kept] if fold["network"] else []
            for i, row in enumerate(fold["instances"] or single):
                sizes = " / ".join(map(str, fold["sizes"]))
                cells = [_number(row[name]) for name in ("balanced_accuracy", "last")]
                epochs = f"{row['epoch']} of {row['epochs']}"
                lines.append([arm["name"], fold["test"], str(i + 1), sizes, epochs, *cells])
    return Table("Trainings", header, lines, "Volumes that are drawn repeatedly count once.")


def _number(value: float | None) -> str:
    return "diverged" if value is None else f"{value:.3f}"


def classes(metrics: Mapping[str, Any]) -> Table:
    """Returns precision, recall and F1 of each class, for the headline or for every split."""
    arms = [arm for arm in texts.real(metrics) if arm["split"]] or metrics["arms"][:1]
    lines = []
    for arm in arms:
        classifier, _ = texts.first(arm)
        name = row_name(metrics, arm, classifier)
        means = scores_of(Row(name, arm, classifier, {}))
        pairs = zip(arm["folds"], means, strict=True)
        found = [r for fold, mean in pairs for r in (fold["instances"] or [mean])]
        for k, label in enumerate(metrics["classes"]):
            cells = []
            for score in CLASS_SCORES:
                values = np.array([r[score][k] for r in found], float)
                sd = f" ({values.std(ddof=1):.3f})" if len(values) > 1 else ""
                cells.append(f"{values.mean():.3f}{sd}")
            lines.append([name, label, *cells])
    return Table("Scores of each class", ["", "class", *CLASS_SCORES.values()], lines)


def seen(metrics: Mapping[str, Any]) -> Table:
    """Returns the volumes that each step of each arm has seen."""
    lines = []
    for arm in texts.real(metrics):
        if arm["shares"]:
            continue
        for row in arm["seen"]:
            what = texts.whom(row)
            said = f"{kind(arm, row)}: {what}" if what else "nothing"
            lines.append([arm["name"], row["step"], str(row["values"]), str(row["labels"]), said])
    return Table(
        "Who saw what",
        ["arm", "step", "volumes seen", "labels seen", "seen of the test subject"],
        lines,
        "Recorded whenever a step reads data. Numbers of volumes in the first fold; the last "
        "column refers to its first scored volumes. Arms that share a training are shown once.",
    )


def kind(arm: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Returns "LEAK", "transductive" or "calibrated" for a step that saw the test subject.

    Args:
      arm: entry of metrics.json.
      row: one of the arm's "seen".
    """
    labels = row["of_scored"]["labels"] + row["of_scored_runs"]["labels"]
    if not arm["strict"] and (row["step"] in arm["leaks"] or labels):
        return "LEAK"
    return "transductive" if row["of_scored"]["values"] else "calibrated"


def audit(metrics: Mapping[str, Any]) -> Table:
    """Returns what was perturbed in each arm, and which steps changed."""
    protocols = {arm["name"]: arm["protocol"] for arm in metrics["arms"]}
    lines = [
        [
            name,
            protocols.get(name, ""),
            ", ".join(map(str, entry["folds"])),
            "; ".join(entry["perturbations"]),
            ", ".join(entry["moved"]) or "nothing",
            ", ".join(entry["expected"]),
        ]
        for name, entry in metrics["audit"].get("arms", {}).items()
    ]
    header = ["arm", "protocol", "folds", "perturbed", "changed", "had to change"]
    note = (
        "Changed: steps whose fit or rows differed after the perturbation, which their record "
        "explains (otherwise the run ends). Had to change: the steps that are declared leaky."
    )
    return Table("Audit", header, lines, note)


def counts(metrics: Mapping[str, Any]) -> Table:
    """Returns the volumes of each class in each run, and the totals."""
    rows = metrics["data"].get("counts") or []
    lines = [[str(value) for value in row.values()] for row in rows]
    if lines:
        sums = [str(sum(row[name] for row in rows)) for name in list(rows[0])[2:]]
        lines.append(["all", f"{len(rows)} run{'' if len(rows) == 1 else 's'}", *sums])
    return Table("Volumes", list(rows[0]) if rows else [], lines)


def events(metrics: Mapping[str, Any]) -> Table:
    """Returns the used and lost events of all runs, one row per value of the label column."""
    found: dict[tuple[str, str], np.ndarray] = {}
    for row in metrics.get("events") or []:
        numbers = np.array([row[name] for name in HEADERS])
        key = row["value"], row["name"]
        found[key] = found.get(key, 0) + numbers
    lines = [[*key, *map(str, numbers.tolist())] for key, numbers in found.items()]
    note = (
        "All runs. Events that label no volume are too short, or lie in volumes of another class."
    )
    return Table("Events", ["value", "class", *HEADERS.values()], lines, note)


def sweep(metrics: Mapping[str, Any]) -> Table:
    """Returns the monitored scores of a sweep's arms at their kept epochs."""
    lines = []
    for arm in metrics["arms"]:
        fold = arm["folds"][0]
        monitored = fold["monitored"]
        values = [monitored[n] for n in ("train_accuracy", "accuracy", "train_loss", "loss")]
        cells = [_number(value) for value in values]
        chosen = "chosen" if arm["name"] == metrics["chosen_arm"] else ""
        lines.append([arm["name"], f"{fold['epoch']} of {fold['epochs']}", *cells, chosen])
    header = ["", "epoch kept", "training accuracy", "validation accuracy"]
    note = (
        "Scores at the epoch with the best validation accuracy. Losses include the penalty. Only "
        "the chosen arm is scored on the test volumes."
    )
    return Table("Sweep", [*header, "training loss", "validation loss", ""], lines, note)
