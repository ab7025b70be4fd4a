"""The section that compares ways of aligning subjects: one table, and its sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from emojax.report import floors, texts
from emojax.report.cells import Table

SURE = 0.05


def section(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the "said" and "table" of the section; None if nothing was compared."""
    found = metrics.get("alignments")
    if not found:
        return None
    return {"said": sentences(metrics), "table": _table(metrics, found)}


def sentences(metrics: Mapping[str, Any]) -> str:
    """Returns sentences that compare each way of aligning with the first; "" without any."""
    found = metrics.get("alignments")
    if not found:
        return ""
    first, *others = found["rows"]
    out = [f"Classifier: {found['classifier']}; all ways of aligning use the same folds."]
    for name in others:
        gain = found["rows"][name]["minus_first"]
        text = f"{name} minus {first}: {gain['difference']:+.3f}"
        if gain["ci95"]:
            text += f" ({texts.interval(gain)})"
        out.append(f"{text}, {_judged(gain)}.")
    return " ".join(out)


def parcels(metrics: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each arm and each compared way that was aligned by parcels."""
    named = {
        arm["name"]: [fold["parcels"] for fold in arm["folds"] if "parcels" in fold]
        for arm in metrics["arms"]
    }
    rows = (metrics.get("alignments") or {}).get("rows", {})
    named |= {name: row["parcels"] for name, row in rows.items()}
    return [f"{name}: {_counts(folds)}." for name, folds in named.items() if folds]


def _counts(folds: Sequence[Mapping[str, int]]) -> str:
    def said(key):
        values = {fold[key] for fold in folds}
        return " to ".join(str(value) for value in sorted({min(values), max(values)}))

    return (
        f"aligned in {said('parcels')} parcels per fold ({said('parcels of one voxel')} of one "
        f"voxel); of {said('voxels')} voxels, {said('background')} belong to no parcel and "
        f"{said('without signal')} to parcels without signal; these were left unaligned"
    )


def _judged(gain: Mapping[str, Any]) -> str:
    p = gain.get("p_holm") if gain.get("p_holm") is not None else gain["p"]
    if p is None:
        return "one fold, no test"
    said = "a difference" if p <= SURE else "no evidence of a difference"
    return f"p {p:.3f} (Holm): {said}"


def _table(metrics: Mapping[str, Any], found: Mapping[str, Any]) -> Table:
    first = next(iter(found["rows"]))
    lines = [_line(name, row) for name, row in found["rows"].items()]
    header = ["", "protocol", "balanced accuracy", "95 % interval", "noise floor (sd)", "null (sd)"]
    header += ["p", "p (Holm)", f"minus {first}", "95 % interval", "p (Holm)", "ISC before, after"]
    note = (
        f"Classifier: {found['classifier']}. Intervals: Student's t over folds. Chance: "
        f"{metrics['chance']:.3f}. Noise floor: {floors.scheme({'floor': _floors(found)})}. Null: "
        "labels are permuted and everything is fitted again"
        f"{_least(found)}. ISC: inter-subject correlation, of a voxel's rows "
        "with the mean of the other training subjects."
    )
    if all(row["audited"] for row in found["rows"].values()):
        note += " Every row was audited."
    return Table("Ways of aligning subjects", header, lines, note)


def _least(found: Mapping[str, Any]) -> str:
    """Returns the smallest possible p values, in brackets; "" without permutations."""
    draws = [row["null"]["draws"] for row in found["rows"].values() if row["null"]]
    if not draws:
        return ""
    least, many = 1 / (1 + min(draws)), len(found["rows"])
    return f" (p cannot be below {least:.3f}, nor Holm's for the best row below {many * least:.3f})"


def _floors(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    rows = found["rows"].items()
    return {name: {found["classifier"]: row["floor"]} for name, row in rows if row["floor"]}


def _line(name: str, row: Mapping[str, Any]) -> list[str]:
    null, gain, floor = row["null"], row["minus_first"], row["floor"]
    cells = [name, row["protocol"], f"{row['mean']:.3f}"]
    cells += [texts.interval(row, " - ") if row["ci95"] else ""]
    cells += [_mean_sd(floor)]
    cells += [_mean_sd(null)]
    cells += [_p(row["p"]), _p(row.get("p_holm"))]
    if gain:
        limits = texts.interval(gain, " - ") if gain["ci95"] else ""
        cells += [f"{gain['difference']:+.3f}", limits, _p(gain.get("p_holm"))]
    else:
        cells += [""] * 3
    return [*cells, " ".join(f"{value:.3f}" for value in row["isc"] or ())]


def _mean_sd(entry: Mapping[str, Any] | None) -> str:
    return f"{entry['mean']:.3f} ({entry['sd']:.3f})" if entry else ""


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
