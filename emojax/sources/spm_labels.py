"""Labels of SPM folders, in one of three forms; runs have the names that `spm` gives them.

A table of volumes, .csv (commas) or .tsv (tabs), with a header and one row per labelled volume:

    subject,run,volume,label     volumes are counted from 0; an empty label or n/a means none
    S01,run1,0,rest              volumes without a row are not used

A table of onsets, in the same format, with the conditions of all runs:

    subject,run,name,onset,duration
    S01,run1,negative,20,20

In both, the column `data.label_column` replaces label or name, if the table has it.

Condition files, one .mat file per run, in SPM's format for "multiple conditions": the cell arrays
`names`, `onsets` (one vector per name) and `durations` (the same, or one number for all onsets).
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from emojax.data import events, losses, matlab, windows
from emojax.data import tables as tabular
from emojax.data.label_map import labelling
from emojax.data.labels import Assigned, assign
from emojax.data.names import tidy
from emojax.data.paths import require_file
from emojax.errors import InputError

UNITS = ("s", "scans")
Key = tuple[str, str]  # subject, run
Rows = list[tuple[int, dict[str, str]]]  # line, cells


class Volumes(NamedTuple):
    """The labelled volumes of one run, from a table of volumes."""

    path: pathlib.Path  # the table
    volume: Int[np.ndarray, " k"]  # indices from 0, each once
    value: tuple[str, ...]  # label of each volume


class Labeller(NamedTuple):
    """The classes of a study, and the function that labels the volumes of its runs."""

    classes: tuple[str, ...]
    assign: Callable[..., Assigned]  # (index of the run, t, TR, subject=, run=)
    notes: Sequence[str] = ()  # on volumes that belong to no class


def read(
    root: pathlib.Path,
    labels: str,
    folders: Mapping[Key, pathlib.Path],
    column: str,
    unit: str = "s",
    *,
    subjects: Sequence[str] = (),
    runs: Sequence[str] = (),
) -> list[events.Events] | list[Volumes]:
    """Reads the labels of each run.

    Args:
      root: folder that the path of a table is relative to.
      labels: path of the table; or a name ending in .mat, in which {run} stands for the run's name.
      folders: (subject, run) -> folder of the run's images.
      column: column of a table that holds labels, if the table has it.
      unit: unit of onsets; it is checked here and applied by `labeller`.
      subjects: subjects whose rows of a table are used; all if empty.
      runs: runs whose rows of a table are used; all if empty.

    Returns:
      The labels of each run in the order of `folders`, all in one form.

    Raises:
      InputError: a file or column is missing, a run has no rows, rows belong to no run, a cell is
        not a number, a volume is labelled twice, or the arrays of a .mat file do not match.
    """
    if unit not in UNITS:
        raise InputError("data.onset_unit", repr(unit), f"one of {', '.join(UNITS)}")
    if not labels:
        raise InputError("data.labels", "no name", "a .csv or .tsv table, or a .mat file per run")
    if labels.endswith(".mat"):
        return [
            _conditions(folder / labels.replace("{run}", run))
            for (_, run), folder in folders.items()
        ]
    path = root / labels
    by_run, value = _table(path, tidy(column))
    spell = tabular.comparer(list(folders), list(by_run))
    rows = {spell(key): rows for key, rows in by_run.items()}
    _check_runs(path, list(by_run), list(folders), spell, subjects, runs)
    own = [rows[spell(key)] for key in folders]
    if "onset" in own[0][0][1]:
        return [_onsets(path, each, value) for each in own]
    return [_volumes(path, each, value) for each in own]


def _table(path: pathlib.Path, column: str) -> tuple[dict[Key, Rows], str]:
    """Returns the rows of each run in a table, and the name of the column with labels."""
    delimiter = "," if path.suffix == ".csv" else "\t"
    rows = events.read_table(path, delimiter, ("subject", "run"))
    if not rows:
        raise InputError(path, "no rows", "labels of volumes, or onsets")
    of_onsets = "onset" in rows[0]
    needed = ("onset", "duration") if of_onsets else ("volume",)
    value = column if column in rows[0] else "name" if of_onsets else "label"
    for name in (*needed, value):
        if name not in rows[0]:
            expected = f"columns {', '.join(needed)} and {column} or {value}"
            raise InputError(path, f"columns {', '.join(rows[0])}", expected)
    by_run: dict[Key, Rows] = {}
    for line, row in enumerate(rows, 2):
        by_run.setdefault((tidy(row["subject"]), tidy(row["run"])), []).append((line, row))
    return by_run, value


def _check_runs(
    path: pathlib.Path, labelled: Sequence[Key], scanned: Sequence[Key], spell, subjects, runs
) -> None:
    """Raises an InputError if a run has images but no rows, or rows but no images."""
    listed = ", ".join(f"{s} {r}" for s, r in sorted(labelled))
    rows, images = ({spell(key) for key in keys} for keys in (labelled, scanned))
    for subject, run in scanned:
        if spell((subject, run)) not in rows:
            raise InputError(path, f"rows of {listed}", f"rows of subject {subject} run {run}")
    for i in tabular.choose(path, labelled, subjects, runs):
        if spell(labelled[i]) not in images:
            subject, run = labelled[i]
            expected = "images of every run in the table (data.subjects and data.runs choose)"
            raise InputError(path, f"rows of subject {subject} run {run}, without images", expected)


def labeller(
    tables: Sequence[events.Events] | Sequence[Volumes],
    label_map: str,
    timing: events.Timing,
    unit: str = "s",
) -> Labeller:
    """Returns the classes of a study, and the function that labels one run.

    Args:
      tables: the labels of all runs, as returned by `read`.
      label_map: mapping of values to classes, see `data.label_map`.
      timing: lag, overlap, conflicts and dropped volumes.
      unit: unit of onsets and durations, "s" or "scans".

    Raises:
      InputError: `label_map.labelling` or `tabular.classify` refuses the labels.
    """
    if rows := [table for table in tables if isinstance(table, Volumes)]:
        named = [table.value for table in rows]
        classes, numbers = tabular.classify(rows[0].path, named, label_map)

        def assign_rows(index, num_volumes, tr, **run):
            table, out = rows[index], np.full(num_volumes, -1, np.int32)
            if (last := table.volume.max()) >= num_volumes:
                expected = f"volumes of a run of {num_volumes}, from 0"
                raise InputError(table.path, f"volume {last}", expected)
            out[table.volume] = numbers[index]
            out[: timing.drop_first] = -1
            return Assigned(out, ())

        return Labeller(classes, assign_rows, losses.of_rows(named, numbers, classes))
    onsets = [table for table in tables if isinstance(table, events.Events)]
    found = labelling(onsets, label_map, "data.labels")

    def assign_events(index, num_volumes, tr, **run):
        table, scale = onsets[index], tr if unit == "scans" else 1.0
        scaled = table._replace(onset=table.onset * scale, duration=table.duration * scale)
        return assign(scaled, found, timing, windows.regular(num_volumes, tr), **run)

    return Labeller(found.classes, assign_events)


def _volumes(path: pathlib.Path, rows: Sequence[tuple[int, dict]], value: str) -> Volumes:
    """Returns the labelled volumes in the rows of one run."""
    seen: dict[int, int] = {}
    for line, row in rows:
        number = events.number(path, line, "volume", row["volume"])
        if number < 0 or number != int(number):
            raise InputError(path, f"volume {row['volume']} in line {line}", "0, 1, 2, ...")
        first = seen.setdefault(int(number), line)
        if first != line:
            found = f"volume {number:g} in line {line} as in line {first}"
            raise InputError(path, found, "each volume of a run once")
    return Volumes(path, np.array(list(seen)), tuple(row[value] for _, row in rows))


def _onsets(path: pathlib.Path, rows: Sequence[tuple[int, dict]], value: str) -> events.Events:
    """Returns the events in the rows of one run."""
    onset = [events.number(path, line, "onset", row["onset"]) for line, row in rows]
    duration = [events.duration(path, line, row["duration"]) for line, row in rows]
    return events.from_columns(path, onset, duration, [row[value] for _, row in rows])


def _conditions(path: pathlib.Path) -> events.Events:
    """Reads the events of a condition file."""
    require_file(path, "names, onsets and durations of its run")
    variables = matlab.read(path, ("names", "onsets", "durations"))
    names, onsets, durations = (matlab.cells(path, *item) for item in variables.items())
    if not len(names) == len(onsets) == len(durations):
        found = f"{len(names)} names, {len(onsets)} onsets and {len(durations)} durations"
        raise InputError(path, found, "one of each per condition")
    onset, duration, value = [], [], []
    for cell, starts, lengths in zip(names, onsets, durations, strict=True):
        name = "".join(cell.ravel()) if cell.dtype.kind == "U" else ""
        if not name.strip():
            found = f"{cell.tolist()!r} among the names"
            raise InputError(path, found, "a text for each condition")
        starts, lengths = starts.ravel(), lengths.ravel()
        if lengths.size == 1:
            lengths = np.repeat(lengths, starts.size)
        kinds = starts.dtype.kind + lengths.dtype.kind
        numeric = all(kind in "iuf" for kind in kinds)
        if not numeric or starts.size != lengths.size:
            found = f"{starts.size} onsets and {lengths.size} durations of {name!r}"
            raise InputError(path, found, "numbers, one duration for each onset or for all")
        if not (np.isfinite(starts).all() and np.isfinite(lengths).all()):
            raise InputError(path, f"NaN or infinite times of {name!r}", "finite numbers")
        onset, duration = [*onset, *starts], [*duration, *lengths]
        value += [name] * starts.size
    return events.from_columns(path, onset, duration, value)
