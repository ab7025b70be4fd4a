"""Tables of the functional core beside its peers: alignment, F-scores, searchlights."""

from typing import Any

from benchmarks.tables.stored import OURS, Part, Stored, significant, source, spread, table

PEERS = ("fmralign", "hyperalignment")
ANOVA = {
    "emojax f_scores (jax array)": "emojax, jax array",
    "emojax f_scores (NumPy array)": "emojax, NumPy array",
    "scikit-learn f_classif": "scikit-learn",
}


def core_hyperalignment(stored: Stored) -> list[str]:
    """Returns seconds of hyperalignment on one core and on two."""
    part = stored.part("core_cpu", "hyperalignment")
    tools = [(OURS, "float32"), (OURS, "float64"), *((peer, "float64") for peer in PEERS)]
    found: dict[tuple[int, tuple[int, ...]], dict[tuple[str, str], dict[str, Any]]] = {}
    for row in part.results:
        place = row["threads"], tuple(row["shape"])
        found.setdefault(place, {})[row["tool"], row["dtype"]] = row
    rows = []
    for (threads, shape), own in found.items():
        cells = [_seconds(own.get(tool)) for tool in tools]
        rows.append([str(threads), " x ".join(f"{n:,}" for n in shape), *cells])
    versions = part.environment["versions"]
    head = ["cores", "subjects x rows x voxels", "emojax float32", "emojax float64"]
    head += [f"{peer} {versions[peer]}" for peer in PEERS]
    return table(head, rows) + source(spread(_rounds(part)), part)


def _seconds(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not run"
    return f"{significant(row['seconds'], 2)} s" if "seconds" in row else row["failed"]


def _rounds(part: Part) -> dict[str, list[list[float]]]:
    rounds: dict[str, list[list[float]]] = {}
    for row in part.results:
        if "seconds_rounds" in row:
            rounds.setdefault(row["tool"].split(" f_")[0], []).append(row["seconds_rounds"])
    return rounds


def core_anova(stored: Stored) -> list[str]:
    """Returns milliseconds of F-scores, and how many times that scikit-learn takes."""
    part = stored.part("core_cpu", "anova")
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in part.results:
        shape = " x ".join(f"{n:,}" for n in row["shape"])
        found.setdefault((shape, row["dtype"]), {})[ANOVA[row["tool"]]] = row["seconds"]
    rows = []
    for place, own in found.items():
        peer = own["scikit-learn"]
        cells = [
            f"{1e3 * own[tool]:.0f} ms"
            + (f" ({peer / own[tool]:.1f} x)" if own[tool] < peer else "")
            for tool in ANOVA.values()
        ]
        rows.append([" ".join(place), *cells])
    head = ["F-scores, rows x voxels", *ANOVA.values()]
    return table(head, rows) + source(spread(_rounds(part)), part)


def speed_alignment(stored: Stored) -> list[str]:
    """Returns the time of a piecewise template of a whole brain."""
    part = stored.part("wholebrain_cpu", "alignment")
    rows = []
    for row in part.results:
        ours = row["tool"] == OURS
        cells = [
            row["tool"],
            f"{row['seconds']:.1f}",
            f"{row['first_seconds']:.1f}" if ours else "",
        ]
        ratio = f"{row['ratio']:.1f} x" if "ratio" in row else ""
        rows.append([*cells, f"{row['peak_mib'] / 1024:.1f} GiB", ratio])
    one = part.results[0]
    head = f"{one['subjects']} people, {one['rows']} rows, {one['voxels']:,} voxels"
    head = [f"template of {head}, {one['parcels']} parcels, three passes"]
    head += ["seconds", "first call", "peak memory", "peer / emojax"]
    return table(head, rows) + source(spread(_rounds(part)), part)


def speed_searchlight(stored: Stored) -> list[str]:
    """Returns the time of a searchlight of a whole brain."""
    part = stored.part("wholebrain_cpu", "searchlight")
    rows, first = [], part.results["rows"][0]
    rounds: dict[str, list[list[float]]] = {}
    for row in part.results["rows"]:
        ours = row["tool"].startswith(OURS)
        cells = [row["tool"], f"{row['centres']:,}", f"{row['seconds']:.1f}"]
        cells.append(f"{row['first_seconds']:.1f}" if ours else "")
        cells += [f"{row['per_second']:,.0f}", f"{row['peak_mib']} MiB"]
        ratio = first["per_second"] / row["per_second"]
        rows.append([*cells, "" if ours else f"{ratio:,.0f} x"])
        rounds.setdefault(row["tool"].split(",")[0], []).append(row["seconds_rounds"])
    head = ["96 samples, 12 folds, spheres of 33 voxels", "centres", "seconds", "first call"]
    head += ["centres a second", "peak memory", "peer / emojax, ridge"]
    return table(head, rows) + source(spread(rounds), part)
