"""The section on the permutation test: its sentences, the null histogram, and Holm's correction."""

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
ENOUGH = 39  # permutations from which the outer 2.5 % can be estimated
LEFT_OUT = "left out"  # key of the reason if there is no test, see `experiments.permutation`


def correct(tests: Sequence[dict[str, Any] | None]) -> None:
    """Adds "p_holm" to each test of one family; it is None if a test has no "p".

    Args:
      tests: entries of metrics.json; None for no test.
    """
    family = [test for test in tests if test is not None]
    there = [test for test in family if test.get("p") is not None]
    for test in family:
        test["p_holm"] = None
    for test, p in zip(there, statistics.holm(np.array([t["p"] for t in there])), strict=True):
        test["p_holm"] = plain(p)


def correct_arms(arms: Sequence[Mapping[str, Any]]) -> None:
    """Corrects the p values of the differences between network and classical classifiers.

    Args:
      arms: entries of metrics.json; the tests of all arms are one family.
    """
    entries = [entry for arm in arms for entry in arm["summary"]["baselines"].values()]
    correct([entry["network_minus_it"] for entry in entries])


def complete(metrics: dict[str, Any]) -> None:
    """Adds "p_chance" of the tested arm, and the corrected p values of the analyses.

    Families of tests: the crossed scores; the gains of decoders of the test subject's own runs;
    ways of aligning against chance; ways of aligning against the first. If the headline could not
    be tested, a note gives the reason.

    Args:
      metrics: content of metrics.json, changed in place.
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
    """Returns the arm whose row is the permuted classifier, or else the permuted arm.

    A classifier of an arm may have an arm of its own, which shares its fits.
    """
    found, arms = metrics["permutation"], metrics["arms"]
    name = found.get("arm", arms[0]["name"])
    own = [arm for arm in arms if name in (arm["name"], arm["shares"])]
    return next((arm for arm in own if _has(arm, found["classifier"])), own[0])


def _has(arm: Mapping[str, Any], classifier: str) -> bool:
    summary = arm["summary"]
    return bool(summary["network"]) if classifier == NETWORK else classifier in summary["baselines"]


def p_chance(metrics: Mapping[str, Any], arm: Mapping[str, Any], classifier: str) -> float | None:
    """Returns the permutation p of a row of the main table; None if the row was not tested.

    Args:
      metrics: content of metrics.json.
      arm: entry of "arms".
      classifier: name of the row's classifier.
    """
    found = metrics.get("permutation")
    if not found or classifier != found["classifier"] or arm is not _tested(metrics):
        return None
    return found["p"]


def name_of(metrics: Mapping[str, Any]) -> str:
    """Returns the name of the tested row, or "arm: classifier" if the table has no such row.

    Args:
      metrics: content of metrics.json with a permutation test.
    """
    found, arm = metrics["permutation"], _tested(metrics)
    if found["classifier"] in (arm.get("decoder") or NETWORK,):
        return arm["name"]
    return f"{arm['name']}: {found['classifier']}"


def line(metrics: Mapping[str, Any]) -> str:
    """Returns sentences on the permutation test of the headline, or ""."""
    found = metrics.get("permutation")
    if not found:
        return ""
    null = np.array(found["null"])
    low, high = np.quantile(null, (0.025, 0.975))
    unit = found["scheme"].split()[0]  # "blocks" or "rows"
    text = (
        f"Permutation test of {name_of(metrics)}: p = {number(found['p'])}; balanced accuracy "
        f"{found['observed']:.3f}, mean of the null {null.mean():.3f} (95 % of it from {low:.3f} "
        f"to {high:.3f}). For each of {len(null)} permutations of the labels ({found['scheme']}, "
        f"{found['blocks']} {unit}), the whole pipeline was fitted again."
    )
    if _tested(metrics)["shares"]:
        head = metrics["arms"][0]["name"]
        text += f" {name_of(metrics)} uses the features of {head}, which was not permuted itself."
    if found.get("all"):
        text += f" These are all permutations, so p cannot be below {number(found['least_p'])}."
    elif found["p"] <= found["least_p"] * (1 + 1e-9):
        text += f" No smaller p is possible with {len(null)} permutations."
    if low > metrics["chance"] and len(null) >= ENOUGH and found["scheme"].startswith("blocks"):
        text += (
            f" Most permutations score above chance ({metrics['chance']:.3f}): the order of events "
            "itself can be decoded, so compare the score with the null, not with chance."
        )
    return text


def section(metrics: Mapping[str, Any]) -> dict[str, str] | None:
    """Returns the "said" and "figure" of the section; None without a test."""
    said = line(metrics)
    return {"said": said, "figure": FIGURE} if said else None


def number(p: float) -> str:
    """Formats a p value with three decimals, or with one significant digit below .001."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"


@matplotlib.rc_context(plots.LITERAL)
def draw(metrics: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Draws the null distribution; returns figure and caption by file name, {} without a test."""
    found = metrics.get("permutation")
    if not found:
        return {}
    figure = histogram(np.array(found["null"]), found["observed"], metrics["chance"])
    caption = (
        f"Balanced accuracy of {name_of(metrics)} over {len(found['null'])} permutations of the "
        f"labels ({found['scheme']}). Red line: with the true labels, {found['observed']:.3f} "
        f"(p = {number(found['p'])})."
    )
    return {FIGURE: (figure, caption)}


def histogram(null: Float[np.ndarray, " n"], observed: float, chance: float) -> Figure:
    """Draws the scores of permuted labels, and that of the true labels as a line.

    Args:
      null: balanced accuracy of each permutation.
      observed: balanced accuracy with the true labels.
      chance: chance level.
    """
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
    """Returns the corrected p values of the main table as a sentence, for the terminal; or ""."""
    many = len(texts.with_classical(metrics)) > 1
    values = []
    for arm, name, test in _tests(metrics):
        row = f"{arm['name']}: {name}" if many else name
        row = arm["name"] if name == arm.get("decoder") else row
        values.append(f"{row} {number(test['p_holm'])}")
    return f"p corrected for {len(values)} tests (Holm): {', '.join(values)}." if values else ""


def _tests(metrics) -> list[tuple[Mapping[str, Any], str, Mapping[str, Any]]]:
    """Returns the arm, classifier and test of each difference that has a corrected p."""
    return [
        (arm, name, entry["network_minus_it"])
        for arm in metrics["arms"]
        for name, entry in arm["summary"]["baselines"].items()
        if (entry["network_minus_it"] or {}).get("p_holm") is not None
    ]


def limits(metrics: Mapping[str, Any]) -> str:
    """Returns a note on the corrected and permutation p values of the main table, or ""."""
    count = len(_tests(metrics))
    text = f"p (Holm): corrected for the {count} tests of this table." if count else ""
    if metrics.get("permutation"):
        text += " p (chance): permutation test, with everything fitted again for permuted labels."
    return text.strip()
