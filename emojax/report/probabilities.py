"""The section on probabilities: their scores, and the reliability curve."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from emojax import metrics as measures
from emojax.data.cohort import Cohort
from emojax.records import ArmResult
from emojax.report import outcomes, plots, tables, texts
from emojax.report.cells import Table
from emojax.report.outcomes import NETWORK
from emojax.report.plain import plain
from emojax.scoring import scores
from emojax.scoring.baselines import BAG

FIGURE = "reliability"
WITHOUT = "without temperature"
NOTE = (
    "Lower is better for NLL (mean negative log-likelihood, in nats), Brier score (0 to 2) and ECE "
    "(expected calibration error, in 15 equal bins of the highest probability). The ECE is pooled "
    "over all scored volumes, since that of a single fold is biased upwards; all other scores are "
    "means over folds. Class base rates: a forecast that gives every volume the class shares of "
    "the training volumes. Classifiers without probabilities have the softmax of their decision "
    "values. Blocks: consecutive volumes of one run and class; the predicted class is the one with "
    "the largest sum of log-probabilities. Block borders are taken from the labels, which a "
    "decoder in use does not know."
)
LEAKY = "declared leaky: its monitored volumes may be the scored ones"


def summarise(
    cohort: Cohort, head: ArmResult, arms: Sequence[Mapping[str, Any]], scale: bool
) -> dict[str, Any] | None:
    """Returns the reliability of the headline, and the volumes its temperatures were fitted to.

    Args:
      cohort: the labelled volumes that rows refer to.
      head: the headline, as returned by `outcomes.calibrated`.
      arms: all arms, as in metrics.json.
      scale: whether temperatures were requested.

    Returns:
      "arm", "classifier", "bins"; over all scored volumes "reliability" ("count", "confidence",
      "accuracy" of each bin) and "pooled" ("nll", "brier", "ece"); "uncalibrated": both again
      without temperatures, or None; "temperature": a sentence. None without a classifier.
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
    """Returns an arm before its temperatures were applied; None if any network has none."""
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
    """Returns the summary of an arm with its calibration errors pooled over all scored volumes.

    The ECE of few volumes is biased upwards: a bin of ten volumes is off by .1 on average even if
    probabilities are right. The mean of `ece` over folds would mostly show this bias. Therefore
    "mean" is the ECE of the volumes of all folds together, which has no interval, and "sd" is that
    of the folds. A network with temperatures has "uncalibrated": the summary without them.

    Args:
      cohort: the labelled volumes that rows refer to.
      result: the arm, as returned by `outcomes.calibrated`.
      folds: scores of each of its folds, as in metrics.json.
      summary: the arm's summary, as returned by `summary.summarise`; it is changed in place.
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
    """Returns the "ece" entry with the calibration error pooled over all scored volumes."""
    rows, found = outcomes.pooled(result)
    error = scores.of_probabilities(cohort.labels[rows], found)["ece"]
    return {"ece": summary["ece"] | {"mean": error, "ci95": None}}


def _head(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the headline; in a sweep, this is the chosen arm."""
    chosen = metrics["chosen_arm"]
    return next(arm for arm in metrics["arms"] if not chosen or arm["name"] == chosen)


def temperatures(arm: Mapping[str, Any]) -> list[list[float | None]]:
    """Returns the temperatures of the scored networks in each fold of an arm of metrics.json.

    A fold without a scored network has [].
    """
    single = [[fold["network"]] if fold["network"] else [] for fold in arm["folds"]]
    rows = [fold["instances"] or own for fold, own in zip(arm["folds"], single, strict=True)]
    return [[(row["uncalibrated"] or {}).get("temperature") for row in fold] for fold in rows]


def _said(cohort, head: ArmResult, arms, classifier: str, scale: bool, whole: bool) -> str:
    """Returns a sentence on the volumes that temperatures were fitted to, or why there are none."""
    if classifier == BAG:
        return (
            "Each decoder of the bag has one temperature, fitted to the subject (or run) that it "
            "holds back, with equally weighted classes; the bag averages their probabilities."
        )
    if classifier == "auto":
        return (
            "Probabilities are those of the chosen decoder (bag or network), with its temperature."
        )
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
            "Each member has one temperature, fitted to the subject that it monitors, which is not "
            "in its training set; the probabilities of an arm are means over its members."
        )
    whom = outcomes.monitored(cohort, head.folds[0].fold).removeprefix("monitored: ")
    text = (
        f"Each network has one temperature, fitted to its monitored volumes ({whom}). These chose "
        "the epoch, so the temperature may be slightly too low, but they are neither trained on "
        "nor scored. All probabilities include the temperature, but not the loss; predicted "
        "classes do not change."
    )
    leaky = [arm["name"] for arm in arms if not arm["strict"]]
    return text + (f" An arm has none if it is {LEAKY} ({'; '.join(leaky)})." if leaky else "")


def section(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the "said", "table" and "figure" of the section; None for an older result."""
    found = metrics.get("probabilities")
    if not found:
        return None
    return {"said": found["temperature"], "table": table(metrics), "figure": FIGURE}


def table(metrics: Mapping[str, Any]) -> Table:
    """Returns the table of probability scores, and of the accuracy over blocks of volumes."""
    header = ["", "NLL", "95 % interval", "Brier", "ECE", "temperature"]
    header += ["accuracy of volumes", "accuracy of blocks", "95 % interval of blocks"]
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
    return Table("Scores of probabilities", [header[i] for i in used], rows, NOTE)


def _cells(summary) -> list[str]:
    cells = [_mean(summary, name) for name in ("nll", "brier", "ece")]
    return [cells[0], texts.interval(summary["nll"], " - "), *cells[1:]]


def _mean(summary, name: str) -> str:
    return f"{summary[name]['mean']:.3f}" if name in summary else ""


def line(metrics: Mapping[str, Any]) -> str:
    """Returns a sentence that compares the headline's NLL with class base rates; or ""."""
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
    return f"Probabilities: {text}; class base rates alone: NLL {base:.3f}."


@matplotlib.rc_context(plots.LITERAL)
def draw(metrics: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Draws accuracy by confidence, and the volumes of each bin; returns figure and caption."""
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
        f"Reliability of {name}, pooled over folds: ECE {errors}. Top: accuracy by the highest "
        f"probability, in {found['bins']} equal bins; on the dashed diagonal probabilities are "
        "calibrated, below it they are overconfident. Bottom: number of volumes in each bin."
    )
    return {FIGURE: (plots.reliability(curves), caption)}
