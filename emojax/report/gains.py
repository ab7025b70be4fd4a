"""Sentences on what a network adds to the linear path on which it was built."""

from collections.abc import Mapping
from typing import Any


def cell(gain: Mapping[str, Any] | None) -> str:
    """Returns a gain with its interval as a table cell; "" without a gain."""
    return "" if gain is None else _difference(gain)


def sentence(metrics: Mapping[str, Any]) -> str:
    """Returns sentences on what the network of each arm adds to its linear path, or ""."""
    found = [(arm, arm["gain"]) for arm in metrics["arms"] if arm.get("gain")]
    return " ".join(_said(arm["name"], len(arm["folds"]), gain) for arm, gain in found)


def _said(name: str, folds: int, gain: Mapping[str, Any]) -> str:
    p = "" if gain["p"] is None else f", p {gain['p']:.2g}"
    text = (
        f"{name}: the network adds {_difference(gain)} to the balanced accuracy of its linear path "
        f"(paired over {folds} folds, 95 % interval by Student's t{p}) and "
        f"{_difference(gain['nll'])} to its NLL; the two predict the same class in "
        f"{gain['agreement']:.1%} of the rows."
    )
    return f"{text} {_judged(gain)}"


def _judged(gain: Mapping[str, Any]) -> str:
    """Returns the conclusion that a gain allows."""
    low, high = gain["ci95"] or (-1.0, 1.0)
    if not gain["counts"]:
        return "This is no gain: the network decides almost as its linear path does."
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
