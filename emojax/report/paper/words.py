"""Words and numbers that the texts of a paper share."""

from collections.abc import Mapping, Sequence
from typing import Any

from emojax.report import tables, texts

Metrics = Mapping[str, Any]


def setting(metrics: Metrics, path: str, default: Any = None) -> Any:
    """Returns the value of a dotted config key; the default where the config has no such key."""
    found: Any = metrics.get("config") or {}
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return default
        found = found[part]
    return found


def head(metrics: Metrics) -> dict[str, Any] | None:
    """Returns the headline: the first arm, of a sweep the chosen one; None without arms."""
    chosen = metrics.get("chosen_arm")
    arms = metrics.get("arms") or []
    return next((arm for arm in arms if not chosen or arm["name"] == chosen), None)


def name_of(arm: Mapping[str, Any]) -> str:
    """Returns an arm's name, with its classifier where the name does not tell."""
    classifier, _ = texts.first(arm)
    if classifier in ("", "network") or arm.get("decoder"):
        return arm["name"]
    return f"{arm['name']}: {classifier}"


def is_leaky(arm: Mapping[str, Any]) -> bool:
    """Returns whether labels of what is scored, or its neighbours in time, were seen."""
    return arm["protocol"] == "leaky"


def listed(names: Sequence[str], joint: str = " and ") -> str:
    """Returns names as "a, b and c"."""
    names = list(names)
    return joint.join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def count(number: int, noun: str) -> str:
    """Returns a number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def span(values: Sequence[float], form: str = "g") -> str:
    """Returns the one value of all, or the least and the largest."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def score(entry: Mapping[str, Any] | None) -> str:
    """Returns a mean, with its 95 % interval where it has one."""
    if not entry:
        return ""
    limits = texts.interval(entry) if entry.get("ci95") else ""
    return f"{entry['mean']:.3f}" + (f" (95 % interval {limits})" if limits else "")


def network_tests(metrics: Metrics) -> dict[str, Mapping[str, Any]]:
    """Returns "network_minus_it" of every row that has it and leaks nothing: name -> test."""
    return {
        row.name: test
        for row in tables.rows(metrics)
        if (test := row.summary.get("network_minus_it"))
        and not (row.arm["on_noise"] or is_leaky(row.arm))
    }


def sentences(*parts: str) -> str:
    """Returns those of the sentences that are there, as one text."""
    return " ".join(filter(None, parts))
