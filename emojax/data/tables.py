"""Helpers of the sources of labelled rows: tables of numbers, filters, classes of named rows."""

import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from emojax.data import events
from emojax.data.paths import require_file
from emojax.errors import InputError


def numbers(
    path: pathlib.Path, *, delimiter: str | None = None, skip: int = 0
) -> Float[np.ndarray, "n k"]:
    """Reads a text table of finite numbers, float64.

    Args:
      path: the table.
      delimiter: between cells; None is any white space.
      skip: lines at the start that are not read.

    Raises:
      InputError: the table is no text, is empty, has lines of different lengths, or has a cell that
        is no finite number, which is named by line and column.
    """
    require_file(path, "a table of numbers")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file; refused below
            table = np.loadtxt(
                path,
                delimiter=delimiter,
                skiprows=skip,
                comments=None,
                ndmin=2,
                encoding="utf-8-sig",
            )
    except (OSError, ValueError) as error:
        raise InputError(path, _fault(path, delimiter, skip) or error, "numbers") from None
    if not table.size:
        raise InputError(path, "no numbers", "a table of numbers")
    if not np.isfinite(table).all():
        raise InputError(path, _fault(path, delimiter, skip), "finite numbers")
    return table


def as_float32(
    path: pathlib.Path, name: str, values: Num[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Returns real numbers as float32.

    Args:
      path: where they come from, for messages.
      name: of the values.
      values: real numbers of any type.

    Raises:
      InputError: one is NaN, infinite, or too large for float32; the first is named.
    """
    with np.errstate(over="ignore"):
        out = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(out))
    if len(bad):
        first = tuple(bad[0].tolist())
        found = f"{len(bad)} values of {name} like {values[first]} (first: at {list(first)})"
        raise InputError(path, found, "finite numbers below 3.4e38")
    return out


def choose(
    root: pathlib.Path,
    found: Sequence[tuple[str, str]],
    subjects: Sequence[str] = (),
    runs: Sequence[str] = (),
) -> list[int]:
    """Returns the indices of the (subject, run) pairs that the filters allow; empty ones allow all.

    Raises:
      InputError: a filter names what does not exist, or nothing is left.
    """
    for column, what, wanted in ((0, "subject", subjects), (1, "run", runs)):
        have = {pair[column] for pair in found}
        for name in wanted:
            if name not in have:
                raise InputError(root, f"no {what} {name!r}", f"one of {', '.join(sorted(have))}")
    kept = [
        i
        for i, (subject, run) in enumerate(found)
        if (not subjects or subject in subjects) and (not runs or run in runs)
    ]
    if not kept:
        raise InputError(root, "no run that both filters allow", "data.subjects and data.runs")
    return kept


def classify(
    path: pathlib.Path,
    named: Sequence[Sequence[str]],
    label_map: str = events.EVERY_VALUE,
    *,
    column: str = "label",
    classes: Sequence[str] = (),
) -> tuple[tuple[str, ...], list[Int[np.ndarray, " _"]]]:
    """Returns the class numbers of rows that carry the name of what they show.

    Args:
      path: where the names come from, for messages.
      named: for each run, the name of each row; "" and "n/a" have no class.
      label_map: a map of these names that `events.parse_label_map` reads.
      column: where the names stand, for messages.
      classes: all names in the order of their numbers, if the map is ""; else they are sorted.

    Returns:
      The classes, and for each run int32 [t], -1 where a row has none.

    Raises:
      InputError: anything that `events.labelling` refuses, or a class of the map has no values:
        what is not labelled may be anything, and is not taken for rest.
    """
    names, number = tuple(classes), {name: i for i, name in enumerate(classes)}
    if label_map != events.EVERY_VALUE or not names:
        none = np.zeros(0)
        used = [tuple(name for name in run if name not in events.UNUSED) for run in named]
        found = events.labelling(
            [events.Events(path, none, none, values) for values in used], label_map, column
        )
        names, number = found.classes, found.number
        if found.baseline >= 0:
            raise InputError(
                "data.label_map",
                f"class {names[found.baseline]!r} without values",
                f"values of {column} for each class: rows without a label are not used",
            )
    return names, [np.array([number.get(name, -1) for name in run], np.int32) for run in named]


def _fault(path: pathlib.Path, delimiter: str | None, skip: int) -> str:
    """Describes the first cell that is no finite number, or line of another length; "" if none."""
    width = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                cells = text.strip("\r\n").split(delimiter)
                if line <= skip or not text.strip():
                    continue
                for column, cell in enumerate(cells, 1):
                    try:
                        finite = np.isfinite(float(cell))
                    except ValueError:
                        finite = False
                    if not finite:
                        return f"{cell.strip()!r} in line {line}, column {column}"
                width = width or len(cells)
                if len(cells) != width:
                    return f"{len(cells)} cells in line {line}, {width} before"
    except UnicodeDecodeError:
        return "bytes that are no text"
    except OSError:
        pass
    return ""
