"""Sentences on what a network adds to the linear path that it was built on."""

from collections.abc import Mapping
from typing import Any


def cell(gain: Mapping[str, Any] | None) -> str:
    """Returns the gain with its interval as a cell of a table, or "" where there is none."""
    return "" if gain is None else _difference(gain)


def sentence(metrics: Mapping[str, Any]) -> str:
    """Returns what the network of each arm adds to its linear path, or ""."""
    found = [(arm, arm["gain"]) for arm in metrics["arms"] if arm.get("gain")]
    return " ".join(_said(arm["name"], len(arm["folds"]), gain) for arm, gain in found)


def _said(name: str, folds: int, gain: Mapping[str, Any]) -> str:
    p = "" if gain["p"] is None else f", p {gain['p']:.2g}"
    text = (
        f"{name}: the network adds {_difference(gain)} to the balanced accuracy of its linear path "
        f"(paired over {folds} folds, 95 % interval by Student's t{p}) and "
        f"{_difference(gain['nll'])} to its NLL; both name the same class in "
        f"{gain['agreement']:.1%} of the rows."
    )
    return f"{text} {_judged(gain)}"


def _judged(gain: Mapping[str, Any]) -> str:
    """Returns what follows from a gain."""
    low, high = gain["ci95"] or (-1.0, 1.0)
    if not gain["counts"]:
        return "That is no gain: a network that agrees with its linear path is its linear path."
    if low > 0:
        return "So it adds to this linear path."
    if high < 0:
        return "So it makes the linear path worse here."
    return "So it adds nothing measurable to its linear path here."


def _difference(gain: Mapping[str, Any]) -> str:
    """Returns a difference and its interval: "+.001 (-.002 .. +.004)"."""
    limits = "" if gain["ci95"] is None else f" ({' .. '.join(map(_signed, gain['ci95']))})"
    return f"{_signed(gain['difference'])}{limits}"


def _signed(value: float) -> str:
    text = f"{round(value, 3) + 0.0:+.3f}"  # no -.000
    return text.replace("0.", ".", 1) if abs(value) < 1 and text[1] == "0" else text
