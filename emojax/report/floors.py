"""The noise floor of classical classifiers: what they reach where nothing belongs to an event."""

from collections.abc import Mapping
from typing import Any

NOISE = "the same data with random phases"  # or, without time, in another order: `scheme`


def of(
    metrics: Mapping[str, Any], arm: Mapping[str, Any], classifier: str
) -> dict[str, Any] | None:
    """Returns the floor of a classifier of an arm on measured values; None where it has none."""
    if arm.get("on_noise"):
        return None
    found = metrics.get("floor") or {}
    return (found.get(arm["name"]) or found.get(arm.get("shares")) or {}).get(classifier)


def words(entry: Mapping[str, Any]) -> str:
    """Returns a floor as "0.331 (0.012 over 10 draws)": mean and sd."""
    count = len(entry["draws"])
    return f"{entry['mean']:.3f} " + (
        f"({entry['sd']:.3f} over {count} draws)" if count > 1 else "(one draw)"
    )


def scheme(metrics: Mapping[str, Any]) -> str:
    """Returns what noise is in this study, in words."""
    entries = [e for each in (metrics.get("floor") or {}).values() for e in each.values()]
    return next((e["scheme"] for e in entries if "scheme" in e), NOISE)


def line(metrics: Mapping[str, Any]) -> str:
    """Returns all floors in a sentence, and those that are not at chance in another; or ""."""
    named = _named(metrics)
    if not named:
        return ""
    parts = [f"{name} {words(entry)}" for name, entry in named.items()]
    text = f"On noise ({scheme(metrics)}): {', '.join(parts)}; chance {metrics['chance']:.3f}."
    above = [name for name, entry in named.items() if is_above(metrics, entry)]
    if above:
        text += f" Above chance without any event: {', '.join(above)}; compare with that."
    return text


def is_above(metrics: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Returns whether the 95 % interval of the mean over draws lies above chance."""
    return bool(entry["ci95"]) and entry["ci95"][0] > metrics["chance"]


def section(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what the page shows: "said" and "table"; None without a floor."""
    from emojax.report.tables import Table  # which is made of sentences on floors, too

    named = _named(metrics)
    if not named:
        return None
    rows = []
    for name, entry in named.items():
        limits = " - ".join(f"{limit:.3f}" for limit in entry["ci95"] or ())
        range_ = f"{entry['low']:.3f} - {entry['high']:.3f}"
        rows.append(
            [f"{name} on noise", f"{entry['mean']:.3f} ({entry['sd']:.3f})", limits, range_]
        )
    audited = [name for name, entry in named.items() if entry["audited"]]
    note = "Mean (sd) over draws; 95 % interval of the mean: Student's t over draws."
    if len(audited) == len(named):
        note += " The first draw was audited as the arms are."
    header = ["", "balanced accuracy", "95 % interval", "least - largest"]
    return {"said": line(metrics), "table": Table("Noise floor", header, rows, note)}


def _named(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns every floor under the name of its row."""
    found = metrics.get("floor") or {}
    decoders = {arm["name"]: arm.get("decoder") for arm in metrics["arms"]}
    out = {}
    for arm, entries in found.items():
        for name, entry in entries.items():
            own = [
                a for a in metrics["arms"] if a.get("shares") == arm and a.get("decoder") == name
            ]
            row = own[0]["name"] if own else name if len(found) == 1 else f"{arm}: {name}"
            out[arm if decoders.get(arm) == name else row] = entry
    return out
