"""Formatting helpers for the texts of a paper."""

from collections.abc import Mapping, Sequence
from typing import Any

from emojax.report import tables, texts

Metrics = Mapping[str, Any]


def setting(metrics: Metrics, path: str, default: Any = None) -> Any:
    """Returns the value of a dotted config key, or the default if the config lacks the key."""
    found: Any = metrics.get("config") or {}
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return default
        found = found[part]
    return found


def head(metrics: Metrics) -> dict[str, Any] | None:
    """Returns the headline: the first arm, or the chosen arm of a sweep; None without arms."""
    chosen = metrics.get("chosen_arm")
    arms = metrics.get("arms") or []
    return next((arm for arm in arms if not chosen or arm["name"] == chosen), None)


def name_of(arm: Mapping[str, Any]) -> str:
    """Returns an arm's name, followed by its classifier if the name does not imply it."""
    classifier, _ = texts.first(arm)
    if classifier in ("", "network") or arm.get("decoder"):
        return arm["name"]
    return f"{arm['name']}: {classifier}"


def is_leaky(arm: Mapping[str, Any]) -> bool:
    """Returns whether labels of the scored volumes, or of their neighbours in time, were seen."""
    return arm["protocol"] == "leaky"


def listed(names: Sequence[str], joint: str = " and ") -> str:
    """Joins names as "a, b and c".

    Args:
      names: names in order.
      joint: text before the last name.
    """
    names = list(names)
    return joint.join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def count(number: int, noun: str) -> str:
    """Returns a number with its noun, in the plural unless the number is 1."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def span(values: Sequence[float], form: str = "g") -> str:
    """Formats the range of values as "low to high", or as one number if they are all equal.

    Args:
      values: at least one number.
      form: format of a number.
    """
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def score(entry: Mapping[str, Any] | None) -> str:
    """Formats a mean, with its 95 % interval if there is one."""
    if not entry:
        return ""
    limits = texts.interval(entry) if entry.get("ci95") else ""
    return f"{entry['mean']:.3f}" + (f" (95 % interval {limits})" if limits else "")


def network_tests(metrics: Metrics) -> dict[str, Mapping[str, Any]]:
    """Returns the tests of the network against all rows without leaks, by the name of the row."""
    return {
        row.name: test
        for row in tables.rows(metrics)
        if (test := row.summary.get("network_minus_it"))
        and not (row.arm["on_noise"] or is_leaky(row.arm))
    }


def sentences(*parts: str) -> str:
    """Joins sentences into one text, skipping empty ones."""
    return " ".join(filter(None, parts))
