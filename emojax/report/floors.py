"""The noise floor of classical classifiers: their score on data that hold no response to events."""

from collections.abc import Mapping
from typing import Any

from emojax.report.cells import Table

NOISE = "the same data with random phases"  # rows without time are shuffled instead: `scheme`


def of(
    metrics: Mapping[str, Any], arm: Mapping[str, Any], classifier: str
) -> dict[str, Any] | None:
    """Returns the noise floor of a classifier, or None.

    Args:
      metrics: content of metrics.json.
      arm: an entry of its "arms"; arms on noise have no floor.
      classifier: name of the classifier.
    """
    if arm.get("on_noise"):
        return None
    found = metrics.get("floor") or {}
    return (found.get(arm["name"]) or found.get(arm.get("shares")) or {}).get(classifier)


def words(entry: Mapping[str, Any]) -> str:
    """Returns a floor as text: "0.331 (sd 0.012 over 10 draws)"."""
    count = len(entry["draws"])
    spread = f"sd {entry['sd']:.3f} over {count} draws" if count > 1 else "one draw"
    return f"{entry['mean']:.3f} ({spread})"


def scheme(metrics: Mapping[str, Any]) -> str:
    """Returns the kind of noise of this study, in words."""
    entries = [e for each in (metrics.get("floor") or {}).values() for e in each.values()]
    return next((e["scheme"] for e in entries if "scheme" in e), NOISE)


def line(metrics: Mapping[str, Any]) -> str:
    """Returns a sentence on all floors, and one on those above chance; "" without floors."""
    named = _named(metrics)
    if not named:
        return ""
    parts = [f"{name} {words(entry)}" for name, entry in named.items()]
    text = f"Noise floor ({scheme(metrics)}): {', '.join(parts)}; chance {metrics['chance']:.3f}."
    above = [name for name, entry in named.items() if is_above(metrics, entry)]
    if above:
        text += f" Above chance on noise: {', '.join(above)}; compare scores with the noise floor."
    return text


def is_above(metrics: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Returns whether the 95 % interval of a floor's mean over draws lies above chance.

    Args:
      metrics: content of metrics.json.
      entry: a floor, as from `of`.
    """
    return bool(entry["ci95"]) and entry["ci95"][0] > metrics["chance"]


def section(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the "said" and "table" of the section; None without a floor."""
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
        note += " The first draw was audited, as the arms are."
    header = ["", "balanced accuracy", "95 % interval", "smallest - largest"]
    return {"said": line(metrics), "table": Table("Noise floor over draws", header, rows, note)}


def _named(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns every floor by the name of its row in the main table."""
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
