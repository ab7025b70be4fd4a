"""Volumes of each class in each run: printed, and written to the workdir."""

import csv
import pathlib

import rich.console
import rich.table

from emojax import files
from emojax.data.cohort import Cohort

MOST_ROWS = 24  # printed; the file has all


def show(console: rich.console.Console, cohort: Cohort) -> None:
    """Prints one line per run and the totals."""
    rows = cohort.counts()
    table = rich.table.Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for i, column in enumerate(rows[0]):
        table.add_column(column, justify="left" if i < 2 else "right")
    shown = rows if len(rows) <= MOST_ROWS else rows[: MOST_ROWS - 1]
    for row in shown:
        table.add_row(*map(str, row.values()))
    if len(rows) > len(shown):
        table.add_row(f"... {len(rows) - len(shown)} more", "counts.csv")
    totals = [sum(row[column] for row in rows) for column in list(rows[0])[2:]]
    whole = (_count(len(cohort.subjects), "subject"), _count(len(rows), "run"))
    table.add_row(*whole, *map(str, totals))
    console.print(table)
    shapes = sorted({run.frames.shape[1:] for run in cohort.runs})
    sizes = [" x ".join(map(str, shape)) for shape in (shapes[0], shapes[-1])]
    about = ["volumes of " + " to ".join(dict.fromkeys(sizes)) + " voxels"]
    if cohort.tr is not None:
        about.append(f"TR {cohort.tr:g} s")
    about += [f"before: {step}, on all volumes" for step in cohort.prior]
    console.print(", ".join(about))


def write(folder: pathlib.Path, cohort: Cohort) -> None:
    """Writes counts.csv, one row per run."""
    rows = cohort.counts()
    path = folder / "counts.csv"
    with files.atomic_write(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
