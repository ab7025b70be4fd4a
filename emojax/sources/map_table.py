"""The table of a study of maps: one row per image, with its subject, label and design."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from emojax.data import events
from emojax.data.acquisitions import number
from emojax.data.names import tidy
from emojax.errors import InputError

ONLY_RUN = "maps"  # name of the run if the table has no column of runs


class Map(NamedTuple):
    """One row of the table."""

    line: int
    file: pathlib.Path
    subject: str
    run: str
    cells: Mapping[str, str]  # label and other columns, by name


def find(root: pathlib.Path, table: str) -> pathlib.Path:
    """Returns the path of a table.

    Args:
      root: folder of the study.
      table: path of the table, relative to root.

    Raises:
      InputError: there is no such table; the message names one that is there.
    """
    path = root / table
    if not table or not os.path.lexists(path):
        there = sorted(
            str(p.relative_to(root)) for end in ("tsv", "csv") for p in root.glob(f"*.{end}")
        )
        found = f"no table {table!r} in {root}" if table else "no table"
        expected = f"its path below data.root, as --config.data.table={(there or ['maps.tsv'])[0]}"
        raise InputError("data.table", found, expected)
    return path


def read(path: pathlib.Path, columns: Mapping[str, str], label_column: str) -> list[Map]:
    """Reads the rows of a table; every image may occur once.

    Args:
      path: path of the table: .csv with commas, or another extension with tabs.
      columns: names of the columns "file", "subject" and "run"; "" if there is no run column.
      label_column: name of the column with labels, which is kept among the cells.

    Raises:
      InputError: the table has no rows, lacks one of these columns or cells, or lists a file twice.
    """
    wanted = [name for name in (*columns.values(), label_column) if name]
    out: list[Map] = []
    lines: dict[pathlib.Path, int] = {}
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    for line, row in enumerate(_cells(path, delimiter, columns, label_column), 2):
        cells = {tidy(name): tidy(cell) for name, cell in row.items()}
        file, subject = row[columns["file"]], cells[columns["subject"]].removeprefix("sub-")
        run = cells[columns["run"]] if columns["run"] else ONLY_RUN
        for key, value in (("file", tidy(file)), ("subject", subject), ("run", run)):
            if not value:
                raise InputError(path, f"no {key} in line {line}", "one in every line")
        image = path.parent / file
        place = image.resolve()
        if place in lines:
            found = f"{file} in line {line}, as in line {lines[place]}"
            raise InputError(path, found, "each image once")
        lines[place] = line
        others = {k: v for k, v in cells.items() if k and (k not in wanted or k == label_column)}
        out.append(Map(line, image, subject, run, others))
    if not out:
        raise InputError(path, "no line below the header", "one line for each map")
    _refuse_spellings(path, out)
    return out


def _refuse_spellings(path: pathlib.Path, rows: Sequence[Map]) -> None:
    """Raises an InputError if a subject is written in two ways, such as 1 and 01."""
    first: dict[str, Map] = {}
    for row in rows:
        other = first.setdefault(number(row.subject), row)
        if other.subject != row.subject:
            found = f"subject {row.subject!r} in line {row.line}"
            expected = f"{other.subject!r} as in line {other.line}, or another number"
            raise InputError(path, found, expected)


def _cells(path: pathlib.Path, delimiter: str, columns, label_column: str) -> list[dict[str, str]]:
    """Returns the cells of all rows; if a column is missing, the InputError names its key."""
    keys = {f"data.{key}_column": name for key, name in columns.items() if name}
    keys["data.label_column"] = label_column
    rows = events.read_table(path, delimiter, ())
    for key, name in keys.items():
        if rows and name not in rows[0]:
            listed = ", ".join(rows[0])
            raise InputError(path, f"columns {listed}, but no {name!r}", f"one of them as {key}")
    return rows
