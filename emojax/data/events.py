"""Tables of events, and the settings for labelling volumes by them."""

import collections
import csv
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from emojax.data.names import NONE, tidy
from emojax.data.paths import require_file
from emojax.errors import InputError

CONFLICTS = ("error", "drop")


class Events(NamedTuple):
    """The events of one run, in order of onset."""

    path: pathlib.Path  # the table, for messages
    onset: Float[np.ndarray, " e"]  # s from the start of the first volume
    duration: Float[np.ndarray, " e"]  # s; NaN if unknown, 0 for an impulse
    value: tuple[str, ...]  # e.g. trial_type; "" for none


class Timing(NamedTuple):
    """The rules that turn events into labels; keys of `config.data`."""

    hrf_delay_s: float = 5.0
    min_overlap: float = 0.5
    conflicts: str = "error"
    drop_first: int = 0
    event_duration_s: float = 0.0  # replaces durations that are 0 or unknown; 0 to keep them


def timing(data: Any) -> Timing:
    """Returns the checked settings of `config.data`.

    Args:
      data: `config.data`, or any mapping with attributes for the fields of `Timing`.

    Raises:
      InputError: a setting is out of range.
    """
    if not 0 < data.min_overlap <= 1:
        raise InputError("data.min_overlap", data.min_overlap, "a part of a volume in (0, 1]")
    if data.conflicts not in CONFLICTS:
        raise InputError("data.conflicts", repr(data.conflicts), f"one of {', '.join(CONFLICTS)}")
    if data.drop_first < 0:
        raise InputError("data.drop_first", data.drop_first, "a number of volumes >= 0")
    if not np.isfinite(data.hrf_delay_s):
        raise InputError("data.hrf_delay_s", data.hrf_delay_s, "seconds")
    if not 0 <= data.event_duration_s < np.inf:
        raise InputError("data.event_duration_s", data.event_duration_s, "seconds >= 0")
    return Timing(**{name: data[name] for name in Timing._fields})


def read(path: pathlib.Path, column: str) -> Events:
    """Reads a BIDS events.tsv.

    Args:
      path: tab-separated table with the columns onset, duration (n/a or empty if unknown) and
        `column`.
      column: name of the column with the labels.

    Raises:
      InputError: a column is missing, a cell is not a number, or there is no event.
    """
    column = tidy(column)
    rows = read_table(path, "\t", ("onset", "duration"))
    if rows and column not in rows[0]:
        others = [name for name in rows[0] if name not in ("onset", "duration")]
        example = f" (--config.data.label_column={others[0]})" if others else ""
        listed = ", ".join(others) or "none beside onset and duration"
        raise InputError(path, f"columns {listed}", f"a column {column!r}, or another one{example}")
    return from_columns(
        path,
        [number(path, i, "onset", row["onset"]) for i, row in enumerate(rows, 2)],
        [duration(path, i, row["duration"]) for i, row in enumerate(rows, 2)],
        [row[column] for row in rows],
    )


def from_columns(
    path: pathlib.Path, onset: Sequence[float], duration: Sequence[float], value: Sequence[str]
) -> Events:
    """Returns events from three columns, sorted by onset.

    Args:
      path: source of the events, for messages.
      onset: onsets, s from the start of the first volume.
      duration: durations, s; NaN if unknown.
      value: names, unified by `names.tidy`.

    Raises:
      InputError: there is no event, or a duration is negative.
    """
    if not len(onset):
        raise InputError(path, "no events", "at least one")
    order = np.argsort(onset, kind="stable")
    onsets, durations = np.asarray(onset, float)[order], np.asarray(duration, float)[order]
    if (durations < 0).any():
        raise InputError(path, f"duration {np.nanmin(durations):g} s", "durations >= 0")
    return Events(path, onsets, durations, tuple(tidy(value[int(i)]) for i in order))


def read_table(path: pathlib.Path, delimiter: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Returns the rows of a text table, with stripped cells and tidied names of columns.

    Args:
      path: text with a header.
      delimiter: delimiter of cells.
      columns: columns that must be in the header.

    Raises:
      InputError: the file is not text, a column is missing or occurs twice, or a row has another
        number of cells than the header.
    """
    require_file(path, "text with a header")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = [row for row in csv.reader(file, delimiter=delimiter, strict=True) if any(row)]
        if any("\0" in cell for row in table for cell in row):
            raise ValueError("NUL in it")
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(path, f"no readable table ({error})", "text with a header") from None
    header = [tidy(name) for name in table[0]] if table else []
    twice = [name for name, count in collections.Counter(header).items() if name and count > 1]
    if twice:
        raise InputError(path, f"two columns {twice[0]!r}", "each column once")
    for name in columns:
        if name not in header:
            raise InputError(path, f"columns {', '.join(header) or 'none'}", f"a column {name!r}")
    for i, row in enumerate(table[1:], 2):
        if len(row) != len(header):
            raise InputError(path, f"{len(row)} cells in line {i}", f"{len(header)} as the header")
    return [
        {name: cell.strip() for name, cell in zip(header, row, strict=True)} for row in table[1:]
    ]


def number(path: pathlib.Path, line: int, column: str, cell: str) -> float:
    """Returns a finite number from a cell.

    Raises:
      InputError: the cell is not a finite number.
    """
    try:
        value = np.nan if "_" in cell else float(cell)  # Python accepts 1_0 as ten
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(path, f"{cell!r} in line {line}, column {column!r}", "a finite number")
    return value


def duration(path: pathlib.Path, line: int, cell: str) -> float:
    """Returns a duration from a cell, NaN if it is empty or n/a.

    Raises:
      InputError: any other cell is not a finite number.
    """
    return number(path, line, "duration", cell) if cell not in ("", NONE) else np.nan
