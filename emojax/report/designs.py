"""The section on the design: labels known from it, new levels, and the test subject's own runs."""

from collections.abc import Mapping
from typing import Any

from emojax.report import texts
from emojax.report.cells import Table

SURE = 0.05  # largest p that counts as outside the null
LEAST_DRAWS = 19  # with fewer permutations p cannot be that small
NAMES = ("lookup", "nuisance", "subject_and_run_out")  # keys of "design" that are not columns


def section(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the "said" and "tables" of the section; None if both are empty."""
    found = {"said": sentences(metrics), "tables": tables(metrics)}
    return found if any(found.values()) else None


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Returns sentences on the design, on new levels, and on the test subject's own runs."""
    return [*_design(metrics), *_crossed(metrics), *_within(metrics)]


def tables(metrics: Mapping[str, Any]) -> list[Table]:
    """Returns the tables of this section that have rows."""
    made = [_columns_table(metrics), _crossed_table(metrics), _rivals_table(metrics)]
    return [table for table in made if table.rows]


def _design(metrics: Mapping[str, Any]) -> list[str]:
    found, out = metrics.get("design") or {}, []
    if lookup := found.get("lookup"):
        text = (
            "Predicting the label that other subjects have at the same position of the same run: "
            f"accuracy {lookup['accuracy']:.3f} (commonest label {lookup['chance']:.3f}; "
            f"possible for {lookup['matched']:.0%} of the volumes)."
        )
        if lookup["accuracy"] > 0.99:
            text += " All subjects saw one order of events: position in the run tells the label."
        out.append(text)
    if nuisance := found.get("nuisance"):
        parts = [f"{name} {_score(entry)}" for name, entry in nuisance.items() if name != "columns"]
        columns = ", ".join(nuisance["columns"])
        out.append(
            f"From nuisance columns alone ({columns}; no image), on new subjects: "
            f"{'; '.join(parts)}; chance {metrics['chance']:.3f}."
        )
    if both := found.get("subject_and_run_out"):
        gain = both["minus_subject_out"]
        out.append(
            f"New subject and new run (logistic): {_score(both)}; new subject, known run: "
            f"{_score(both['subject_out'])}; difference {gain['difference']:+.3f}"
            f"{_between(gain)}. Voxels and alignment are those of the fold, which saw other "
            "subjects' volumes of the run."
        )
    return out


def _crossed(metrics: Mapping[str, Any]) -> list[str]:
    out = []
    for factor, found in (metrics.get("crossed") or {}).items():
        if reason := found.get("left out"):
            out.append(f"{factor} was not crossed: {reason}.")
            continue
        for classifier, entry in found.items():
            known = entry["leaving_subjects_out"]["mean"]
            text = f"{classifier}: {_score(entry)} on new subjects and new levels of {factor}"
            text += f", {known:.3f} on new subjects and known levels"
            null, p = entry["null"], entry.get("p_holm") or entry["p"]
            if null is None:
                out.append(f"{text}; without permutations (permutations=0) it has no null.")
                continue
            text += f"; null {null['mean']:.3f} (sd {null['sd']:.3f}), p {p:.3f} (Holm)"
            if null["draws"] < LEAST_DRAWS:
                out.append(f"{text}: {null['draws']} permutations are too few for a conclusion.")
            elif p > SURE:
                out.append(f"{text}: transfer to new levels of {factor} is not shown.")
            else:
                out.append(f"{text}: it generalises to new levels of {factor}.")
    return out


def _within(metrics: Mapping[str, Any]) -> list[str]:
    out = []
    for classifier, entry in (metrics.get("within_subject") or {}).items():
        text = f"Trained on the test subject's other runs alone ({classifier}): {_score(entry)}"
        if gain := entry["minus_cross_subject"]:
            text += f", {gain['difference']:+.3f}{_between(gain)} against logistic regression of "
            text += "the other subjects"
        out.append(f"{text}.")
    return out


def _columns_table(metrics: Mapping[str, Any]) -> Table:
    lines = []
    for name, entry in (metrics.get("design") or {}).items():
        if name in NAMES:
            continue
        cells = [name, str(entry["levels"])]
        for key in ("decodes_label", "decoded_by_data"):
            score = {"mean": entry[key], "ci95": entry[f"{key}_ci95"]}
            cells += ["", ""] if score["mean"] is None else _cells(score)
        lines.append([*cells, f"{entry['chance']:.3f}"])
    header = ["column", "levels", "label from column", "95 % interval", "column from data"]
    note = (
        "Balanced accuracy on new subjects. Label from column: the best guess from the column "
        f"alone (chance {metrics['chance']:.3f}). Column from data: the level of the column, "
        "decoded by a linear SVM (C = 1); its chance is in the last column."
    )
    return Table("Columns of the design", [*header, "95 % interval", "chance"], lines, note)


def _crossed_table(metrics: Mapping[str, Any]) -> Table:
    lines = []
    for factor, found in (metrics.get("crossed") or {}).items():
        for classifier, entry in found.items() if "left out" not in found else ():
            null = entry["null"]
            cells = [factor, classifier, *_cells(entry)]
            cells += [f"{null['mean']:.3f} ({null['sd']:.3f})" if null else ""]
            cells += [_p(entry["p"]), _p(entry.get("p_holm"))]
            lines.append([*cells, *_cells(entry["leaving_subjects_out"])])
    header = ["new levels of", "classifier", "balanced accuracy", "95 % interval", "null (sd)", "p"]
    header += ["p (Holm)", "known levels", "95 % interval"]
    exchanged = dict.fromkeys(
        entry["permuted"]
        for found in (metrics.get("crossed") or {}).values()
        for entry in found.values()
        if isinstance(entry, dict) and entry.get("permuted")
    )
    note = (
        "Training rows share neither subject nor level with the test rows. Intervals: Student's t "
        f"over subjects. Null: labels are permuted ({'; '.join(exchanged)}). Known levels: "
        "leaving subjects out only."
    )
    return Table("New subjects and new levels", header, lines, note)


def _rivals_table(metrics: Mapping[str, Any]) -> Table:
    lines = []
    for classifier, entry in (metrics.get("within_subject") or {}).items():
        gain = entry["minus_cross_subject"]
        cells = [classifier, *_cells(entry)]
        if gain:
            cells += [f"{gain['difference']:+.3f}", texts.interval(gain, " - ")]
            cells += [_p(gain["p"]), _p(gain.get("p_holm"))]
        else:
            cells += [""] * 4
        lines.append(cells)
    header = ["classifier", "balanced accuracy", "95 % interval"]
    header += ["minus logistic of other subjects", "95 % interval", "p", "p (Holm)"]
    note = (
        "Trained on the test subject's other runs, leaving one run out, with the voxels and the "
        "alignment that the headline has for this subject."
    )
    return Table("The test subject's own runs", header, lines, note)


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _score(entry: Mapping[str, Any]) -> str:
    return f"{entry['mean']:.3f}{_between(entry)}"


def _between(entry: Mapping[str, Any]) -> str:
    return f" ({texts.interval(entry)})" if entry["ci95"] else ""


def _cells(entry: Mapping[str, Any]) -> list[str]:
    return [f"{entry['mean']:.3f}", texts.interval(entry, " - ") if entry["ci95"] else ""]
