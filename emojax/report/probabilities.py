"""How far probabilities can be trusted: their scores, and the reliability curve."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from emojax import metrics as measures
from emojax.data.cohort import Cohort
from emojax.records import ArmResult
from emojax.report import outcomes, plots, tables, texts
from emojax.report.outcomes import NETWORK
from emojax.report.plain import plain
from emojax.scoring import scores
from emojax.scoring.baselines import BAG

FIGURE = "reliability"
WITHOUT = "without temperature"  # what a network says by itself
NOTE = (
    "NLL: mean negative log-likelihood in nats; Brier: 0 to 2; ECE: expected calibration error in "
    "15 equal bins of the highest probability, over all scored volumes: the ECE of a fold's few "
    "volumes would be too high by chance. Lower is better. The others are means over folds. Class "
    "base rates: the shares of the classes in the training volumes, quoted for every volume. "
    "Classifiers without probabilities have the softmax of their decision values. Blocks: "
    "consecutive volumes of one run and class. Their borders are taken from the labels, which a "
    "decoder in use does not know; predicted is the class with the largest sum of "
    "log-probabilities."
)
LEAKY = "leaky by name: its monitored volumes may be those that are scored"


def summarise(
    cohort: Cohort, head: ArmResult, arms: Sequence[Mapping[str, Any]], scale: bool
) -> dict[str, Any] | None:
    """Returns the reliability of the headline, and what its temperatures were fitted to.

    Args:
      cohort: the labelled volumes that rows refer to.
      head: the headline, as of `outcomes.calibrated`.
      arms: all arms, as in metrics.json.
      scale: whether temperatures were asked for.

    Returns:
      "arm", "classifier", "bins"; over all scored volumes "reliability" ("count", "confidence",
      "accuracy" of each bin) and "pooled" ("nll", "brier", "ece"); "uncalibrated": both again
      without temperatures, None where there is none; "temperature": a sentence. None without a
      classifier.
    """
    arm = next(arm for arm in arms if arm["name"] == head.arm.name)
    classifier, _ = texts.first(arm)
    if not classifier:
        return None
    before = _uncalibrated(head)
    return {
        "arm": arm["name"],
        "classifier": classifier,
        "bins": measures.ECE_BINS,
        **_reliability(cohort, head),
        "uncalibrated": None if before is None else _reliability(cohort, before),
        "temperature": _said(cohort, head, arms, classifier, scale, before is not None),
    }


def _reliability(cohort: Cohort, result: ArmResult) -> dict[str, Any]:
    rows, found = outcomes.pooled(result)
    bins = measures.reliability(cohort.labels[rows], found)._asdict()
    return {
        "reliability": plain(bins),
        "pooled": scores.of_probabilities(cohort.labels[rows], found),
    }


def _uncalibrated(result: ArmResult) -> ArmResult | None:
    """Returns an arm as it was before temperatures, or None if not every network has one."""
    pick, folds = result.arm.pick, []
    for fold in result.folds:
        before = [outcome.get(f"uncalibrated_{pick}") for outcome in fold.outcomes]
        if not before or any(values is None for values in before):
            return None
        pairs = zip(fold.outcomes, before, strict=True)
        folds.append(fold._replace(outcomes=tuple({**o, pick: p} for o, p in pairs)))
    return result._replace(folds=tuple(folds)) if folds else None


def pool(
    cohort: Cohort,
    result: ArmResult,
    folds: Sequence[Mapping[str, Any]],
    summary: dict[str, Any],
) -> dict[str, Any]:
    """Returns the summary of an arm with its calibration errors over all scored volumes.

    The ECE of few volumes is too high by chance: a bin that holds ten of them is off by .1 on
    average even where probabilities are right. The mean over folds of `ece` would be mostly this;
    so "mean" is the ECE of all folds' volumes together, for which there is no interval, and "sd" is
    that of the folds. A network with temperatures has "uncalibrated": the summary without them.

    Args:
      cohort: the labelled volumes that rows refer to.
      result: the arm, as of `outcomes.calibrated`.
      folds: scores of each of its folds, as in metrics.json.
      summary: as of `summary.summarise`.
    """
    network = summary["network"]
    if network:
        summary["network"] = network = network | _pooled(cohort, result, network)
        before = _uncalibrated(result)
        if before is not None:
            rows = [row["uncalibrated"] for f in folds for row in f["instances"] or [f["network"]]]
            found = scores.summary(rows, scores.UNCALIBRATED)
            network["uncalibrated"] = found | _pooled(cohort, before, found)
    for name, entry in summary["baselines"].items():
        own = tuple(fold._replace(outcomes=()) for fold in result.folds)
        arm = dataclasses.replace(result.arm, decoder=name)
        entry |= _pooled(cohort, result._replace(arm=arm, folds=own), entry)
    return summary


def _pooled(cohort: Cohort, result: ArmResult, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the calibration error over all scored volumes, in place of a mean over folds."""
    rows, found = outcomes.pooled(result)
    error = scores.of_probabilities(cohort.labels[rows], found)["ece"]
    return {"ece": summary["ece"] | {"mean": error, "ci95": None}}


def _head(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the headline, or of a sweep the arm that was chosen."""
    chosen = metrics["chosen_arm"]
    return next(arm for arm in metrics["arms"] if not chosen or arm["name"] == chosen)


def temperatures(arm: Mapping[str, Any]) -> list[list[float | None]]:
    """Returns the temperature of every network that is scored, by fold, of an arm of metrics.json.

    [] stands for a fold without a scored network.
    """
    single = [[fold["network"]] if fold["network"] else [] for fold in arm["folds"]]
    rows = [fold["instances"] or own for fold, own in zip(arm["folds"], single, strict=True)]
    return [[(row["uncalibrated"] or {}).get("temperature") for row in fold] for fold in rows]


def _said(cohort, head: ArmResult, arms, classifier: str, scale: bool, whole: bool) -> str:
    """Returns a sentence on what temperatures were fitted to, or why there is none."""
    if classifier == BAG:
        return (
            "One temperature for each decoder of the bag, fitted to what it holds back (a subject "
            "or run) with classes of one weight; the bag's probabilities are means of theirs."
        )
    if classifier == "auto":
        return "Those of the decoder that was chosen, bag or network, with its temperature."
    if classifier != NETWORK:
        return "No temperature is fitted to classical classifiers."
    if not scale:
        return "No temperature was fitted (temperature=False)."
    if head.arm.leaks:
        return f"No temperature was fitted: {head.arm.name} is {LEAKY}."
    if not whole:
        return "No temperature was fitted: finite predictions of the monitored volumes are missing."
    if head.arm.members:
        return (
            "One temperature for each member, fitted to the subject that it monitors, who does not "
            "train it; the probabilities of an arm are means over its members."
        )
    whom = outcomes.monitored(cohort, head.folds[0].fold).removeprefix("monitored: ")
    text = (
        f"One temperature for each network, fitted to its monitored volumes ({whom}): they chose "
        "its epoch, so that it may be a little too low, but they neither train the network nor are "
        "scored. Probabilities are with it, everywhere but in the loss; the predicted classes stay "
        "the same."
    )
    leaky = [arm["name"] for arm in arms if not arm["strict"]]
    return text + (f" None where an arm is {LEAKY} ({'; '.join(leaky)})." if leaky else "")


def section(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the section's sentence, table and name of its figure; None in an older result."""
    found = metrics.get("probabilities")
    if not found:
        return None
    return {"said": found["temperature"], "table": table(metrics), "figure": FIGURE}


def table(metrics: Mapping[str, Any]) -> tables.Table:
    """Returns the scores of probabilities, and the accuracy over blocks of volumes."""
    header = ["", "NLL", "95 % interval", "Brier", "ECE", "temperature"]
    header += ["accuracy of volumes", "of blocks", "95 % interval of blocks"]
    real, lines, base = texts.real(metrics), [], None
    for row in tables.rows(metrics):
        if row.arm not in real:
            continue
        base = base or row.summary.get("base_rate_nll")
        hits = [_mean(row.summary, name) for name in ("accuracy", "block_accuracy")]
        hits.append(texts.interval(row.summary.get("block_accuracy") or {"ci95": None}, " - "))
        before = row.summary.get("uncalibrated")
        value = f"{before['temperature']['mean']:.2f}" if before else ""
        lines.append([row.name, *_cells(row.summary), value, *hits])
        if before:
            lines.append([f"{row.name}, {WITHOUT}", *_cells(before), *[""] * 4])
    if base:
        cells = [f"{base['mean']:.3f}", texts.interval(base, " - ")]
        lines.append(["class base rates", *cells, *[""] * (len(header) - 3)])
    used = [i for i, _ in enumerate(header) if any(line[i] for line in lines)]
    rows = [[line[i] for i in used] for line in lines]
    return tables.Table("Scores of probabilities", [header[i] for i in used], rows, NOTE)


def _cells(summary) -> list[str]:
    cells = [_mean(summary, name) for name in ("nll", "brier", "ece")]
    return [cells[0], texts.interval(summary["nll"], " - "), *cells[1:]]


def _mean(summary, name: str) -> str:
    return f"{summary[name]['mean']:.3f}" if name in summary else ""


def line(metrics: Mapping[str, Any]) -> str:
    """Returns the headline's NLL against quoting the class base rates, in a sentence; or ""."""
    found = metrics.get("probabilities")
    if not found:
        return ""
    _, summary = texts.first(_head(metrics))
    nll, base = (summary[name]["mean"] for name in ("nll", "base_rate_nll"))
    text = f"NLL {nll:.3f}"
    if before := summary.get("uncalibrated"):
        given, value = (before[name]["mean"] for name in ("nll", "temperature"))
        text += f" with a temperature of {value:.2f} ({given:.3f} without)"
    text += f", ECE {summary['ece']['mean']:.3f}"
    return f"Probabilities: {text}; quoting the class base rates: NLL {base:.3f}."


@matplotlib.rc_context(plots.LITERAL)
def draw(metrics: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Draws accuracy by confidence and the volumes of each bin: name -> figure, caption."""
    found = metrics.get("probabilities")
    if not found:
        return {}
    name = found["classifier"]
    name = _head(metrics)["name"] if name == NETWORK else name
    curves, errors = {name: found["reliability"]}, f"{found['pooled']['ece']:.3f}"
    if before := found["uncalibrated"]:
        curves[f"{name}, {WITHOUT}"] = before["reliability"]
        errors += f" ({before['pooled']['ece']:.3f} {WITHOUT})"
    caption = (
        f"Reliability of {name}, all folds pooled: ECE {errors}. Above: accuracy by the highest "
        f"probability, in {found['bins']} equal bins; on the dashed diagonal probabilities are "
        "what they say, under it they are too sure. Below: number of volumes in each bin."
    )
    return {FIGURE: (plots.reliability(curves), caption)}
