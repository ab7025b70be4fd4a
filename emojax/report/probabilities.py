"""How far probabilities can be trusted: scores, reliability curve, and probabilities.csv."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from emojax import metrics as measures
from emojax.data.cohort import Cohort
from emojax.records import ArmResult, FoldResult
from emojax.report import outcomes, plots, predictions, tables, texts
from emojax.report.outcomes import NETWORK
from emojax.report.plain import plain
from emojax.scoring import scores
from emojax.training.checkpoint import slug

FIGURE = "reliability"
WITH = "with temperature"  # a network's probabilities
NOTE = (
    "NLL: mean negative log-likelihood in nats; Brier: 0 to 2; ECE: expected calibration error in "
    "15 equal bins of the highest probability. Lower is better. Class base rates: the shares of "
    "the classes in the training volumes, quoted for every volume. Classifiers without "
    "probabilities have the softmax of their decision values. Blocks: consecutive volumes of one "
    "run and class. Their borders are taken from the labels, which a decoder in use does not know; "
    "predicted is the class with the largest sum of log-probabilities. Means over folds; the ECE "
    "of few volumes is too high by chance."
)
LEAKY = "leaky by name: its monitored volumes may be those that are scored"


def summarise(
    cohort: Cohort, head: ArmResult, arms: Sequence[Mapping[str, Any]], scale: bool
) -> dict[str, Any] | None:
    """Returns the reliability of the headline, and what its temperatures were fitted to.

    Args:
      cohort: the labelled volumes that rows refer to.
      head: the headline.
      arms: all arms, as in metrics.json.
      scale: whether temperatures were asked for.

    Returns:
      "arm", "classifier", "bins"; over all scored volumes, for "given" and, with a temperature, for
      "calibrated" probabilities: "reliability" ("count", "confidence", "accuracy" of each bin) and
      "pooled" ("nll", "brier", "ece"); "temperature": a sentence. None without a classifier.
    """
    arm = next(arm for arm in arms if arm["name"] == head.arm.name)
    classifier, _ = texts.first(arm)
    if not classifier:
        return None
    rows, given = outcomes.pooled(head)
    labels, found = cohort.labels[rows], {"given": given}
    scored = [outcomes.first_predictions(head.arm, fold) for fold in head.folds]
    each = [network for fold in scored for network in fold.networks]
    fitted = [value for fold in _temperatures(arm) for value in fold if value is not None]
    whole = len(fitted) == len(each)
    if whole:
        pairs = zip(each, fitted, strict=True)
        found["calibrated"] = np.concatenate([scores.with_temperature(*pair) for pair in pairs])
    bins = {kind: measures.reliability(labels, p)._asdict() for kind, p in found.items()}
    return {
        "arm": arm["name"],
        "classifier": classifier,
        "bins": measures.ECE_BINS,
        "reliability": plain(bins),
        "pooled": {kind: scores.of_probabilities(labels, p) for kind, p in found.items()},
        "temperature": _said(cohort, head, arms, classifier, scale, whole),
    }


def _head(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the headline, or of a sweep the arm that was chosen."""
    chosen = metrics["chosen_arm"]
    return next(arm for arm in metrics["arms"] if not chosen or arm["name"] == chosen)


def _temperatures(arm: Mapping[str, Any]) -> list[list[float | None]]:
    """Returns the temperature of every network of an arm by fold; [None] for a classical one."""
    rows = [fold["instances"] or [fold["network"] or {}] for fold in arm["folds"]]
    return [[(row.get("calibrated") or {}).get("temperature") for row in fold] for fold in rows]


def _said(cohort, head: ArmResult, arms, classifier: str, scale: bool, whole: bool) -> str:
    """Returns a sentence on what temperatures were fitted to, or why there is none."""
    if classifier != NETWORK:
        return "No temperature is fitted to classical classifiers."
    if not scale:
        return "No temperature was fitted (temperature=False)."
    if head.arm.leaks:
        return f"No temperature was fitted: {head.arm.name} is {LEAKY}."
    if not whole:
        return "No temperature was fitted: finite predictions of the monitored volumes are missing."
    whom = outcomes.monitored(cohort, head.folds[0].fold).removeprefix("monitored: ")
    text = (
        f"One temperature for each network, fitted to its monitored volumes ({whom}): they chose "
        "its epoch, so that it may be a little too low, but they neither train the network nor are "
        "scored. The predicted classes stay the same."
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
        lines.append([row.name, *_cells(row.summary), "", *hits])
        if scaled := row.summary.get("calibrated"):
            value = f"{scaled['temperature']['mean']:.2f}"
            lines.append([f"{row.name}, {WITH}", *_cells(scaled), value, *hits])
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
    given, base = (summary[name]["mean"] for name in ("nll", "base_rate_nll"))
    text = f"NLL {given:.3f}"
    if scaled := summary.get("calibrated"):
        nll, value = (scaled[name]["mean"] for name in ("nll", "temperature"))
        text = f"NLL {nll:.3f} with a temperature of {value:.2f} ({given:.3f} without)"
    return f"Probabilities: {text}; quoting the class base rates: {base:.3f}."


@matplotlib.rc_context(plots.LITERAL)
def draw(metrics: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Draws accuracy by confidence and the volumes of each bin: name -> figure, caption."""
    found = metrics.get("probabilities")
    if not found:
        return {}
    name = found["classifier"]
    name = _head(metrics)["name"] if name == NETWORK else name
    curves = {
        name if kind == "given" else f"{name}, {WITH}": bins
        for kind, bins in found["reliability"].items()
    }
    errors = " and ".join(
        f"{found['pooled'][kind]['ece']:.3f}" + (f" {WITH}" if kind == "calibrated" else "")
        for kind in found["reliability"]
    )
    caption = (
        f"Reliability of {name}, all folds pooled: ECE {errors}. Above: accuracy by the highest "
        f"probability, in {found['bins']} equal bins; on the dashed diagonal probabilities are "
        "what they say, under it they are too sure. Below: number of volumes in each bin."
    )
    return {FIGURE: (plots.reliability(curves), caption)}


def tidy(metrics: Mapping[str, Any], cohort: Cohort, results: Sequence[ArmResult]) -> pd.DataFrame:
    """Returns the headline's probabilities: a row per scored volume and method.

    Methods are "network", "network-calibrated" (with its temperature) and the classical classifiers
    by names without blanks, commas and colons; networks of several instances are numbered. NaN
    stands where a classifier predicts without probabilities.

    Args:
      metrics: content of metrics.json.
      cohort: the labelled volumes that rows refer to.
      results: the arms, the headline among them.
    """
    if not metrics["probabilities"]:
        return pd.DataFrame()
    arm = _head(metrics)
    head = next(r for r in results if r.arm.name == arm["name"])
    head = head._replace(arm=predictions.once(head.arm))
    parts: dict[str, list[pd.DataFrame]] = {}
    classes = np.array(cohort.classes)
    for fold, temperatures in zip(head.folds, _temperatures(arm), strict=True):
        for method, predicted, given in _methods(head, fold, temperatures):
            place = predictions.places(cohort, fold.fold.test)
            label = place.pop("label")
            part = place | {"method": method, "label": label, "predicted": classes[predicted]}
            part |= {column: given[:, k] for k, column in enumerate(columns(cohort.classes))}
            parts.setdefault(method, []).append(pd.DataFrame(part | {"fold": fold.fold.name}))
    return pd.concat([part for each in parts.values() for part in each], ignore_index=True)


def columns(classes: Sequence[str]) -> list[str]:
    """Returns the names of the columns of probabilities, without commas and colons."""
    return [f"p_{name}".replace(",", "-").replace(":", "-") for name in classes]


def _methods(
    head: ArmResult, fold: FoldResult, temperatures: Sequence[float | None]
) -> Iterator[tuple[str, Int[np.ndarray, " t"], Float[np.ndarray, "t classes"]]]:
    """Yields name, predicted classes and probabilities of everything that predicts a fold."""
    networks = outcomes.predictions(head.arm, fold).networks
    for i, given in enumerate(networks):
        number = f"-{i + 1}" if len(networks) > 1 else ""
        yield f"{NETWORK}{number}", given.argmax(1), given
        if (temperature := temperatures[i]) is not None:
            scaled = scores.with_temperature(given, temperature)
            yield f"{NETWORK}-calibrated{number}", given.argmax(1), scaled
    taken: set[str] = {NETWORK}
    for name, fitted in fold.baselines.items():
        method = slug(name) or "classifier"
        while method in taken:
            method += "-2"
        taken.add(method)
        given = np.asarray(fitted.probabilities)
        if np.isin(given, (0, 1)).all():  # a classifier that only names a class
            given = np.full_like(given, np.nan)
        yield method, fitted.predicted, given
