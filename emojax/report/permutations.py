"""The headline against chance: its p value in words, the null histogram, and Holm's correction."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from emojax import statistics
from emojax.report import plots, texts
from emojax.report.outcomes import NETWORK
from emojax.report.plain import plain

FIGURE = "permutation"
ENOUGH = 39  # permutations whose outer 2.5 % can be told
LEFT_OUT = "left out"  # in place of a test, see `experiments.permutation`


def correct(tests: Sequence[dict[str, Any] | None]) -> None:
    """Writes "p_holm" beside the "p" of each test of one family; None where a test has no p.

    Args:
      tests: entries of metrics.json; None stands for no test.
    """
    family = [test for test in tests if test is not None]
    there = [test for test in family if test.get("p") is not None]
    for test in family:
        test["p_holm"] = None
    for test, p in zip(there, statistics.holm(np.array([t["p"] for t in there])), strict=True):
        test["p_holm"] = plain(p)


def correct_arms(arms: Sequence[Mapping[str, Any]]) -> None:
    """Corrects the differences between network and classical classifiers, over all arms."""
    entries = [entry for arm in arms for entry in arm["summary"]["baselines"].values()]
    correct([entry["network_minus_it"] for entry in entries])


def complete(metrics: dict[str, Any]) -> None:
    """Writes what follows from the analyses: "p_chance" of the tested arm, and corrected p values.

    The crossed scores are one family, the gains of decoders of the test subject another, and so are
    ways of aligning, against chance and against the first. A headline that could not be tested has
    a note that says why.
    """
    found = metrics.get("permutation")
    if found and LEFT_OUT in found:
        note = f"The headline was not tested against chance: {found[LEFT_OUT]}."
        metrics["notes"] = [*metrics["notes"], note]
        metrics["permutation"] = found = None
    if found and _has(arm := _tested(metrics), found["classifier"]):
        arm["p_chance"] = found["p"]
    columns = (metrics.get("crossed") or {}).values()
    entries = [entry for column in columns for entry in column.values()]
    correct([entry for entry in entries if isinstance(entry, dict)])
    aligned = list((metrics.get("alignments") or {}).get("rows", {}).values())
    correct(aligned)
    correct([row["minus_first"] for row in aligned])
    rivals = (metrics.get("within_subject") or {}).values()
    correct([entry.get("minus_cross_subject") for entry in rivals])


def _tested(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arm whose row is the permuted classifier; the permuted arm where there is none.

    Classifiers of one arm may have rows of their own, which share its fits.
    """
    found, arms = metrics["permutation"], metrics["arms"]
    name = found.get("arm", arms[0]["name"])
    own = [arm for arm in arms if name in (arm["name"], arm["shares"])]
    return next((arm for arm in own if _has(arm, found["classifier"])), own[0])


def _has(arm: Mapping[str, Any], classifier: str) -> bool:
    summary = arm["summary"]
    return bool(summary["network"]) if classifier == NETWORK else classifier in summary["baselines"]


def p_chance(metrics: Mapping[str, Any], arm: Mapping[str, Any], classifier: str) -> float | None:
    """Returns the p against chance of a row of the main table; None where it was not tested."""
    found = metrics.get("permutation")
    if not found or classifier != found["classifier"] or arm is not _tested(metrics):
        return None
    return found["p"]


def name_of(metrics: Mapping[str, Any]) -> str:
    """Returns the name of the tested row; "headline: classifier" where the table has no such row.

    Args:
      metrics: content of metrics.json, with a test.
    """
    found, arm = metrics["permutation"], _tested(metrics)
    if found["classifier"] in (arm.get("decoder") or NETWORK,):
        return arm["name"]
    return f"{arm['name']}: {found['classifier']}"


def line(metrics: Mapping[str, Any]) -> str:
    """Returns the test of the headline against chance in a sentence or two, or ""."""
    found = metrics.get("permutation")
    if not found:
        return ""
    null = np.array(found["null"])
    low, high = np.quantile(null, (0.025, 0.975))
    text = (
        f"Against chance, {name_of(metrics)}: p = {number(found['p'])}, balanced accuracy "
        f"{found['observed']:.3f} against a mean of {null.mean():.3f} (95 % from {low:.3f} to "
        f"{high:.3f}) over {len(null)} permutations of the labels ({found['scheme']}: "
        f"{found['blocks']} in all) through the whole pipeline."
    )
    if _tested(metrics)["shares"]:
        text += (
            f" It has the features of {metrics['arms'][0]['name']}, whose own p was not asked for."
        )
    if found.get("all"):
        text += f" There are no more, so that no p below {number(found['least_p'])} is possible."
    elif found["p"] <= found["least_p"] * (1 + 1e-9):
        text += f" No smaller p is possible with {len(null)} permutations."
    if low > metrics["chance"] and len(null) >= ENOUGH and found["scheme"].startswith("blocks"):
        text += (
            f" Most permutations lie above chance ({metrics['chance']:.3f}): the order of events "
            "itself can be decoded, and p, not chance, says what is left."
        )
    return text


def section(metrics: Mapping[str, Any]) -> dict[str, str] | None:
    """Returns the section's sentence and the name of its figure; None without a test."""
    said = line(metrics)
    return {"said": said, "figure": FIGURE} if said else None


def number(p: float) -> str:
    """Returns a p value with three digits, or fewer zeros where it is smaller."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"


@matplotlib.rc_context(plots.LITERAL)
def draw(metrics: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Draws the null distribution: file name -> figure and caption; {} without a test."""
    found = metrics.get("permutation")
    if not found:
        return {}
    figure = histogram(np.array(found["null"]), found["observed"], metrics["chance"])
    caption = (
        f"Balanced accuracy of {name_of(metrics)} on permuted labels ({found['scheme']}), "
        f"fitted and scored {len(found['null'])} times; with the true labels it reaches "
        f"{found['observed']:.3f} (red line): p = {number(found['p'])}."
    )
    return {FIGURE: (figure, caption)}


def histogram(null: Float[np.ndarray, " n"], observed: float, chance: float) -> Figure:
    """Draws the statistic of permuted labels, and that of the true ones as a line."""
    figure = Figure(figsize=(6, 3), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.hist(null, bins=min(max(len(null) // 5, 5), 30), color=plots.BLUE, alpha=0.7)
    axes.axvline(chance, color=plots.GREY, ls="--", lw=1, label=f"chance, {chance:.3g}")
    axes.axvline(observed, color=plots.RED, lw=2, label=f"true labels, {observed:.3f}")
    axes.set(xlabel="balanced accuracy, mean over folds", ylabel="permutations")
    axes.legend(fontsize=8, frameon=False)
    return figure


def corrected(metrics: Mapping[str, Any]) -> str:
    """Returns the corrected p values of the main table in words, for a narrow terminal; or ""."""
    many = len(texts.with_classical(metrics)) > 1
    values = []
    for arm, name, test in _tests(metrics):
        row = f"{arm['name']}: {name}" if many else name
        row = arm["name"] if name == arm.get("decoder") else row
        values.append(f"{row} {number(test['p_holm'])}")
    return f"p corrected for {len(values)} tests (Holm): {', '.join(values)}." if values else ""


def _tests(metrics) -> list[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    """Returns arm, classifier and entry of each difference that has a corrected p."""
    return [
        (arm, name, entry["network_minus_it"])
        for arm in metrics["arms"]
        for name, entry in arm["summary"]["baselines"].items()
        if (entry["network_minus_it"] or {}).get("p_holm") is not None
    ]


def limits(metrics: Mapping[str, Any]) -> str:
    """Returns what the corrected p values of the main table are, or "" where there are none."""
    count = len(_tests(metrics))
    text = f"p (Holm): corrected for the {count} tests of this table." if count else ""
    if metrics.get("permutation"):
        text += " p (chance): permuted labels through the whole pipeline."
    return text.strip()
