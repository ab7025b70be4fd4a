"""A reviewer's questions about a decoding result, with the answers of a run."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from emojax.report import floors, permutations, texts
from emojax.report.outcomes import NETWORK
from emojax.report.paper import findings
from emojax.report.paper.words import (
    Metrics,
    count,
    head,
    is_leaky,
    listed,
    name_of,
    score,
    setting,
)
from emojax.scoring.baselines import BAG

Arm = Mapping[str, Any]
AUTO = "auto"


class Check(NamedTuple):
    """A question and its answer."""

    asked: str
    found: str
    place: str  # id of the section of the page that has more


def make(metrics: Metrics) -> list[Check]:
    """Returns the questions in the order in which a reviewer asks them; [] without a score."""
    arm = head(metrics)
    if arm is None or not texts.first(arm)[0]:
        return []
    parts = {
        "chance": (_chance, "result"),
        "headline": (_headline, "result"),
        "noise floor": (_floor, "floor"),
        "permutation test": (_null, "chance"),
        "the test subject's own runs": (_within, "design"),
        "new subjects and new levels": (_crossed, "design"),
        "the design without any image": (_design, "design"),
        "calibration of probabilities": (_probabilities, "probabilities"),
        "who saw what": (_seen, "seen"),
        "what was tuned on what": (_tuned, "seen"),
        "another seed": (_seeds, "result"),
    }
    there = sections(metrics)
    return [
        Check(asked, answer(metrics, arm), place if place in there else "result")
        for asked, (answer, place) in parts.items()
    ]


def sections(metrics: Metrics) -> set[str]:
    """Returns the ids of the sections that the page of a run has."""
    found = {"result", "seen"}
    if metrics.get("permutation"):
        found.add("chance")
    if metrics.get("floor"):
        found.add("floor")
    if any(metrics.get(key) for key in ("design", "crossed", "within_subject")):
        found.add("design")
    return found | ({"probabilities"} if metrics.get("probabilities") else set())


def _not(key: str) -> str:
    return f"not measured (--config.{key})"


def _chance(metrics: Metrics, arm: Arm) -> str:
    return f"{metrics['chance']:.3f} ({len(metrics['classes'])} classes)"


def _headline(metrics: Metrics, arm: Arm) -> str:
    found = texts.first(arm)[1]["balanced_accuracy"]
    text = f"{name_of(arm)}: {score(found)}, protocol {arm['protocol']}"
    return f"{text}: LEAK, no result" if is_leaky(arm) else text


def _floor(metrics: Metrics, arm: Arm) -> str:
    entry = floors.of(metrics, arm, texts.first(arm)[0])
    if entry:
        return floors.words(entry)
    noise = texts.floor(metrics, arm)
    if noise is None:
        whole = setting(metrics, "null", False) or arm["on_noise"]
        return "the whole run is on noise" if whole else _not("null_floor=True")
    return score(texts.first(noise)[1].get("balanced_accuracy"))


def _null(metrics: Metrics, arm: Arm) -> str:
    found = metrics.get("permutation")
    if not found:
        asked = setting(metrics, "permutations", 0)
        return "the events have too few orders" if asked else _not("permutations=999")
    return (
        f"p = {permutations.number(found['p'])}: {permutations.name_of(metrics)} "
        f"{found['observed']:.3f}, null {np.mean(found['null']):.3f} over {len(found['null'])} "
        f"permutations of {found['blocks']} {found['scheme']}"
    )


def _within(metrics: Metrics, arm: Arm) -> str:
    found = metrics.get("within_subject")
    if found:
        return "; ".join(f"{name} {score(entry)}" for name, entry in found.items())
    if not any(any(row["of_other_runs"].values()) for row in arm["seen"]):
        return "no other run of the test subject was used"
    if setting(metrics, "units") == "run":
        return "the headline itself trains on them"
    return (
        "these runs lack a class"
        if setting(metrics, "within_subject")
        else (_not("within_subject=True"))
    )


def _crossed(metrics: Metrics, arm: Arm) -> str:
    parts = []
    for factor, found in (metrics.get("crossed") or {}).items():
        if reason := found.get("left out"):
            parts.append(f"{factor} cannot be crossed: {reason}")
            continue
        for classifier, entry in found.items():
            p = entry.get("p")
            null = "" if p is None else f", p = {permutations.number(p)} against its null"
            parts.append(f"{factor}, {classifier} {score(entry)}{null}")
    if parts:
        return "; ".join(parts)
    asked = setting(metrics, "crossed", "")
    return "the study has no column to cross" if asked else _not("crossed=all")


def _design(metrics: Metrics, arm: Arm) -> str:
    found = metrics.get("design")
    if not found:
        return "does not apply to these data" if setting(metrics, "design") else _not("design=True")
    parts = []
    if lookup := found.get("lookup"):
        parts.append(
            f"other subjects' label at the same time: {lookup['accuracy']:.3f} (commonest label "
            f"{lookup['chance']:.3f})"
        )
    for name, entry in (found.get("nuisance") or {}).items():
        if name != "columns":
            parts.append(f"{name} on nuisance columns {score(entry)}")
    parts += [f"{name} {said}" for name, said in findings.factors(metrics).items()]
    return "; ".join(parts) or "rows are not points in time and have no nuisance columns"


def _probabilities(metrics: Metrics, arm: Arm) -> str:
    _, summary = texts.first(arm)
    if "nll" not in summary:
        return "not measured"
    text = f"NLL {summary['nll']['mean']:.3f}"
    if "base_rate_nll" in summary:
        text += f" (class base rates {summary['base_rate_nll']['mean']:.3f})"
    return f"{text}, ECE {summary['ece']['mean']:.3f}"


def _seen(metrics: Metrics, arm: Arm) -> str:
    found = metrics.get("audit") or {}
    steps = [f"{row['step']} saw {what}" for row in arm["seen"] if (what := texts.whom(row))]
    saw = "; ".join(steps) or "no step saw anything of the test subject"
    if not found.get("measured"):
        return f"recorded, {_not('audit=True')}: {saw}"
    return f"measured by an audit of {count(len(found['arms']), 'arm')}: {saw}"


def _tuned(metrics: Metrics, arm: Arm) -> str:
    if "epoch choice" in arm["leaks"]:
        return "LEAK: epoch and learning rate on the scored volumes themselves"
    classifier, summary = texts.first(arm)
    unit = setting(metrics, "units", "subject")
    if classifier == NETWORK:
        what = ["epoch"] if arm["pick"] != "last" else []
        what += ["learning rate", *["temperature"] * bool(summary.get("uncalibrated"))]
        return f"{listed(what)} on monitored volumes, neither trained on nor scored"
    if classifier == AUTO:
        return f"bag or network on inner folds without the test {unit}; both as in the table below"
    if classifier == BAG:
        return f"C and temperature of each member on a held-back {unit}, never on the test {unit}"
    return "nothing was tuned"


def _seeds(metrics: Metrics, arm: Arm) -> str:
    if found := findings.spread(arm):
        return f"sd {found['sd']:.3f} over {len(found['means'])} networks per fold"
    if texts.first(arm)[0] == BAG:
        return "the bag uses no random numbers"
    return _not(f"seed={setting(metrics, 'seed', 0) + 1}")
