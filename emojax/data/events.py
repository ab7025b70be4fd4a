"""From a table of events to one class per volume: lag, overlap, baseline, conflicts."""

import collections
import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from emojax.data.paths import require_file
from emojax.errors import InputError

CONFLICTS = ("error", "drop")
EVERY_VALUE = ""  # the label map of a user who names none
UNUSED = ("", "n/a")  # values of no class


class Events(NamedTuple):
    """The events of one run, in order of onset."""

    path: pathlib.Path  # the table, for messages
    onset: Float[np.ndarray, " e"]  # s from the start of the first volume
    duration: Float[np.ndarray, " e"]  # s
    value: tuple[str, ...]  # e.g. trial_type


class Timing(NamedTuple):
    """The rules that turn events into labels; keys of `config.data`."""

    hrf_delay_s: float = 5.0
    min_overlap: float = 0.5
    conflicts: str = "error"
    drop_first: int = 0


class Labelling(NamedTuple):
    """The values of the label column that mean each class."""

    classes: tuple[str, ...]
    number: Mapping[str, int]  # value -> index into `classes`
    baseline: int  # class of volumes outside all events; -1 where they have none


def timing(data) -> Timing:
    """The settings of `config.data`, checked.

    Raises:
      InputError: one is out of range.
    """
    if not 0 < data.min_overlap <= 1:
        raise InputError("data.min_overlap", data.min_overlap, "a part of a volume in (0, 1]")
    if data.conflicts not in CONFLICTS:
        raise InputError("data.conflicts", repr(data.conflicts), f"one of {', '.join(CONFLICTS)}")
    if data.drop_first < 0:
        raise InputError("data.drop_first", data.drop_first, "a number of volumes >= 0")
    if not np.isfinite(data.hrf_delay_s):
        raise InputError("data.hrf_delay_s", data.hrf_delay_s, "seconds")
    return Timing(data.hrf_delay_s, data.min_overlap, data.conflicts, data.drop_first)


def read(path: pathlib.Path, column: str) -> Events:
    """Reads a BIDS events.tsv.

    Args:
      path: tab-separated, with columns onset, duration and `column`.
      column: the one that labels come from.

    Raises:
      InputError: a column is missing, a cell is no number, or there is no event.
    """
    rows = read_table(path, "\t", ("onset", "duration", column))
    return from_columns(
        path,
        [number(path, i, "onset", row["onset"]) for i, row in enumerate(rows, 2)],
        [
            0.0 if row["duration"] == "n/a" else number(path, i, "duration", row["duration"])
            for i, row in enumerate(rows, 2)
        ],
        [row[column] for row in rows],
    )


def from_columns(
    path: pathlib.Path, onset: Sequence[float], duration: Sequence[float], value: Sequence[str]
) -> Events:
    """Events from three columns, sorted by onset.

    Raises:
      InputError: there is none, or a duration is negative.
    """
    if not len(onset):
        raise InputError(path, "no events", "at least one")
    order = np.argsort(onset, kind="stable")
    onset, duration = np.asarray(onset, float)[order], np.asarray(duration, float)[order]
    if duration.min() < 0:
        raise InputError(path, f"duration {duration.min():g} s", "durations >= 0")
    return Events(path, onset, duration, tuple(value[i] for i in order))


def read_table(path: pathlib.Path, delimiter: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a text table with a header, cells stripped; `columns` must be among its names.

    Raises:
      InputError: it cannot be read as text, a column is missing or occurs twice, or a row has
        another number of cells than the header.
    """
    require_file(path, "text with a header")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = [row for row in csv.reader(file, delimiter=delimiter, strict=True) if any(row)]
        if any("\0" in cell for row in table for cell in row):
            raise ValueError("NUL in it")
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(path, f"no readable table ({error})", "text with a header") from None
    header = [name.strip() for name in table[0]] if table else []
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
    """A finite number from a cell.

    Raises:
      InputError: it is none.
    """
    try:
        value = np.nan if "_" in cell else float(cell)  # Python reads 1_0 as ten
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(path, f"{cell!r} in line {line}, column {column!r}", "a finite number")
    return value


def parse_label_map(text: str) -> dict[str, tuple[str, ...]]:
    """Classes in their order with the values that mean them, from "rest=;bad=fear|anger".

    Raises:
      InputError: it cannot be parsed, a class or value occurs twice, or two classes have no values.
    """
    classes, seen = {}, set()
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, equals, right = (p.strip() for p in part.partition("="))
        values = tuple(value.strip() for value in right.split("|") if value.strip())
        if not equals or not name or name in classes or seen & {*values}:
            raise InputError(
                "data.label_map",
                f"{part!r} in {text!r}",
                "class=value|value;class=value, each once",
            )
        classes[name] = values
        seen |= {*values}
    if sum(not values for values in classes.values()) > 1:
        raise InputError(
            "data.label_map", repr(text), "at most one class without values (baseline)"
        )
    return classes


def labelling(tables: Sequence[Events], label_map: str, column: str) -> Labelling:
    """Class numbers of all values that occur in a study.

    Args:
      tables: the events of every run.
      label_map: a map that `parse_label_map` reads; "" makes every value a class, sorted.
      column: name of the column, for messages.

    Raises:
      InputError: a value of the map occurs in no run; those that do are listed with their counts.
    """
    counts = collections.Counter(value for events in tables for value in events.value)
    if label_map == EVERY_VALUE:
        classes = {value: (value,) for value in sorted(counts) if value not in UNUSED}
    else:
        classes = parse_label_map(label_map)
    for name, values in classes.items():
        for value in values:
            if value not in counts:
                exist = ", ".join(f"{v} ({n})" for v, n in sorted(counts.items()))
                raise InputError(
                    "data.label_map",
                    f"value {value!r} of class {name!r}",
                    f"values of {column}: {exist}",
                )
    if len(classes) < 2:
        raise InputError("data.label_map", f"classes {', '.join(classes) or 'none'}", "two or more")
    names = tuple(classes)
    number = {value: names.index(name) for name, values in classes.items() for value in values}
    baseline = next((i for i, values in enumerate(classes.values()) if not values), -1)
    return Labelling(names, number, baseline)


def assign(
    events: Events, labels: Labelling, timing: Timing, num_volumes: int, tr: float
) -> Int[np.ndarray, " t"]:
    """One class per volume of a run, -1 where there is none.

    Volume k is acquired in [k TR, (k + 1) TR); an event shows in [onset, onset + duration) shifted
    by the haemodynamic delay. A volume belongs to a class if events of that class cover at least
    `min_overlap` of its acquisition, and to the baseline if it belongs to no class and all events,
    those that map to no class as well, leave at least `min_overlap` of it uncovered.

    Args:
      events: of this run.
      labels: classes of their values.
      timing: delay, overlap, conflicts, and volumes to drop at the start.
      num_volumes: t.
      tr: s.

    Raises:
      InputError: an onset lies after the end of the run, an event of a class lasts 0 s, or, where
        conflicts are errors, a volume is in two classes.
    """
    end = num_volumes * tr
    if events.onset[-1] >= end:
        raise InputError(
            events.path,
            f"an onset at {events.onset[-1]:g} s",
            f"onsets before the end of the run, {end:g} s",
        )
    number = np.array([labels.number.get(value, -1) for value in events.value])
    empty = np.flatnonzero((number >= 0) & (events.duration == 0))
    if empty.size:
        found = f"duration 0 or n/a of {events.value[empty[0]]!r} at {events.onset[empty[0]]:g} s"
        raise InputError(events.path, found, "a duration > 0, so that volumes can be inside it")
    edges = np.arange(num_volumes + 1) * tr - timing.hrf_delay_s
    covered = np.stack([_covered(events, number == c, edges) for c in range(len(labels.classes))])
    least = timing.min_overlap - 1e-6  # onsets are written with a few decimals
    inside = covered >= least
    out = np.where(inside.any(0), inside.argmax(0), -1)
    if labels.baseline >= 0:
        free = 1 - _covered(events, np.ones(len(number), bool), edges)
        out[(out < 0) & (free >= least)] = labels.baseline
    twice = np.flatnonzero(inside.sum(0) > 1)
    if twice.size and timing.conflicts == "error":
        names = " and ".join(labels.classes[c] for c in np.flatnonzero(inside[:, twice[0]]))
        raise InputError(
            events.path,
            f"{twice.size} volumes in two classes (first: volume {twice[0]}, {names})",
            "one class per volume, or data.conflicts=drop",
        )
    out[twice] = -1
    out[: timing.drop_first] = -1
    return out.astype(np.int32)


def _covered(events: Events, chosen: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Part of each volume, between its edges, that the chosen events cover; overlaps count once."""
    start, stop = events.onset[chosen], (events.onset + events.duration)[chosen]
    if not start.size:
        return np.zeros(len(edges) - 1)
    stop = np.maximum.accumulate(stop)
    first = np.r_[True, start[1:] > stop[:-1]]  # of each group of events that touch
    start, stop = start[first], stop[np.r_[first[1:], True]]
    before = np.clip(edges[:, None] - start, 0, stop - start).sum(1)  # covered s up to each edge
    return np.diff(before) / np.diff(edges)
