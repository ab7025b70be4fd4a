"""Images with one label each (betas, contrasts, t maps), and the table that lists them.

    file                 subject  emotion  priming
    sub-01/anger.nii.gz  01       anger    congruent

The columns of file, subject, label and run have keys; the label and all others are factors of the
design, which the cohort keeps. Maps are not points in time: runs have no TR, and rows keep the
table's order.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from emojax.data import events, grid, hashes, losses, nifti, tables
from emojax.data.cohort import Cohort, build
from emojax.data.label_map import EVERY_VALUE
from emojax.data.names import tidy
from emojax.data.paths import require_folder
from emojax.data.run import Run
from emojax.data.store import Store, default
from emojax.errors import InputError
from emojax.files import cause, split_list

ONLY_RUN = "maps"  # where the table has no column of runs


class Map(NamedTuple):
    """One row of the table."""

    line: int
    file: pathlib.Path
    subject: str
    run: str
    cells: Mapping[str, str]  # of the other columns, by name


class Scan(NamedTuple):
    """Header of a map's image, and hashes of its files."""

    image: Any  # of nibabel
    turn: grid.Turn  # onto the grid of the first map
    hashes: dict[str, str]


def load(data) -> Cohort:
    """Returns the cohort of `config.data`; see `read` for what it needs and refuses."""
    return read(
        data.root,
        Store(default(data)),
        table=data.table,
        file_column=data.file_column,
        subject_column=data.subject_column,
        label_column=data.label_column,
        run_column=data.run_column,
        label_map=data.label_map,
        subjects=split_list(data.subjects),
        runs=split_list(data.runs),
        group=data.group,
        own_grids=data.grid == "array",
    )


def read(
    root: str | pathlib.Path,
    store: Store,
    *,
    table: str,
    file_column: str = "file",
    subject_column: str = "subject",
    label_column: str = "label",
    run_column: str = "",
    label_map: str = EVERY_VALUE,
    subjects: Sequence[str] = (),
    runs: Sequence[str] = (),
    group: str = "",
    own_grids: bool = False,
) -> Cohort:
    """Reads maps as the module describes them.

    Args:
      root: folder of the study.
      store: for the decoded maps.
      table: the .tsv or .csv, relative to root.
      file_column: of the table: the image, relative to the table.
      subject_column: the person, with or without sub-.
      label_column: what the map shows.
      run_column: groups the maps of a person, e.g. by session; "" is one group.
      label_map: "class=value|value;class=value" to choose or join classes; "" takes every value.
      subjects, runs: only these; empty for all.
      group: a column of the table or of participants.tsv that is constant within each person.
      own_grids: whether maps of different people may have different grids.

    Returns:
      The cohort. The brain mask of a person holds the voxels that are finite in all of its maps,
      and not 0 in all of them.

    Raises:
      InputError: a table or an image cannot be read; a file is listed or stored twice; images are
        not on one grid; a person has no voxel; or anything that `tables.classify` and
        `cohort.build` refuse.
    """
    root = require_folder(root, "a folder of maps (data.root)")
    columns = {"file": file_column, "subject": subject_column, "run": run_column}
    path = _path(root, table)
    rows = _rows(path, columns, label_column)
    kept = tables.choose(path, [(row.subject, row.run) for row in rows], subjects, runs)
    rows = [rows[i] for i in kept]
    scans = _scans(path, rows, store, own_grids)
    by_run: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        by_run.setdefault((row.subject, row.run), []).append(i)
    found = [
        _run(subject, run, [rows[i] for i in own], [scans[i] for i in own], store)
        for (subject, run), own in by_run.items()
    ]
    cells = [[rows[i].cells for i in own] for own in by_run.values()]
    named = [[row[label_column] for row in own] for own in cells]
    classes, labels = tables.classify(path, named, label_map, column=label_column)
    design = [name for name in rows[0].cells if name != group]
    return build(
        found,
        classes,
        labels,
        _masks(found, store),
        factors={name: [np.array([row[name] for row in own]) for own in cells] for name in design},
        groups=_groups(root, path, rows, group) if group else None,
        notes=losses.of_rows(named, labels, classes),
    )


def _path(root: pathlib.Path, table: str) -> pathlib.Path:
    path = root / table
    if not table or not os.path.lexists(path):
        there = sorted(
            str(p.relative_to(root)) for end in ("tsv", "csv") for p in root.glob(f"*.{end}")
        )
        found = f"no table {table!r} in {root}" if table else "no table"
        expected = f"its path below data.root, as --config.data.table={(there or ['maps.tsv'])[0]}"
        raise InputError("data.table", found, expected)
    return path


def _rows(path: pathlib.Path, columns: Mapping[str, str], label_column: str) -> list[Map]:
    """Returns the rows of the table, every image once."""
    wanted = [name for name in (*columns.values(), label_column) if name]
    out: list[Map] = []
    lines: dict[pathlib.Path, int] = {}
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    for line, row in enumerate(_table(path, delimiter, columns, label_column), 2):
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
    return out


def _table(path: pathlib.Path, delimiter: str, columns, label_column: str) -> list[dict[str, str]]:
    """Returns the cells; a column that is missing is answered with its key."""
    keys = {f"data.{key}_column": name for key, name in columns.items() if name}
    keys["data.label_column"] = label_column
    rows = events.read_table(path, delimiter, ())
    for key, name in keys.items():
        if rows and name not in rows[0]:
            listed = ", ".join(rows[0])
            raise InputError(path, f"columns {listed}, but no {name!r}", f"one of them as {key}")
    return rows


def _scans(path: pathlib.Path, rows: Sequence[Map], store: Store, own_grids: bool) -> list[Scan]:
    """Returns the header of every map; no value is read."""
    out: list[Scan] = []
    first: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for row in rows:
        try:
            files = {str(part): store.hash(part) for part in nifti.parts(row.file)}
            image = nifti.load(row.file)
        except InputError as error:
            where, _, rest = str(error).partition(": found ")
            found, _, expected = rest.rpartition("; expected ")
            found = f"{found} (line {row.line} of {path.name})"
            raise InputError(where, found, expected) from None
        shape = image.shape
        if len(shape) not in (3, 4) or shape[3:] not in ((), (1,)):
            where = f"{row.file} (line {row.line} of {path.name})"
            raise InputError(where, f"an image of shape {shape}", "one map [X, Y, Z]")
        whole = hashes.joined(files.values())
        if whole in lines:
            found = f"{row.file.name} in line {row.line}, the same content as line {lines[whole]}"
            raise InputError(path, found, "each map once")
        lines[whole] = row.line
        wanted = first.setdefault(row.subject if own_grids else "", image)
        turn = grid.turn(image.affine, shape[:3], wanted.affine, wanted.shape[:3])
        if turn is None:
            found = (
                f"another grid than {wanted.get_filename()}: {_said(image)}, not {_said(wanted)}"
            )
            expected = "maps on one grid (nilearn.image.resample_to_img resamples them)"
            raise InputError(row.file, found, expected)
        out.append(Scan(image, turn, files))
    return out


def _said(image) -> str:
    return f"shape {image.shape[:3]} and affine {np.round(image.affine[:3], 3).tolist()}"


def _run(subject: str, name: str, rows: Sequence[Map], scans: Sequence[Scan], store: Store) -> Run:
    """Joins the maps of a run, turned, float32."""
    files = {file: digest for scan in scans for file, digest in scan.hashes.items()}
    turns = [(scan.turn.axes, scan.turn.flipped) for scan in scans]
    shape = scans[0].turn.apply(np.empty(scans[0].image.shape[:3], bool)).shape

    def fill(out):
        for target, row, scan in zip(out, rows, scans, strict=True):
            target[...] = scan.turn.apply(_values(row.file, scan.image))

    key = f"maps 1 {turns} {' '.join(files.values())}"
    frames = store.derived(key, (len(rows), *shape), np.float32, fill)
    affine = grid.turned(scans[0].image.affine, scans[0].image.shape[:3], scans[0].turn)
    changes = () if all(scan.turn.is_identity for scan in scans) else (f"turned {turns}",)
    return Run(subject, name, frames, affine=affine, hashes=files, changes=changes)


def _values(file: pathlib.Path, image) -> np.ndarray:
    """Returns the values of a map."""
    expected = "a map of real numbers, NaN outside of the brain at most"
    if image.get_data_dtype().kind not in "iuf":
        raise InputError(file, f"values of type {image.get_data_dtype()}", expected)
    try:
        with np.errstate(all="ignore"):
            values = np.asarray(image.dataobj).reshape(image.shape[:3])
            out = values.astype(np.float32)
    except Exception as error:  # nibabel raises many types on damaged files
        raise InputError(file, f"no readable image ({cause(error)})", expected) from None
    if np.isinf(out).any():
        found = f"{int(np.isinf(out).sum())} values that are infinite or too large for float32"
        raise InputError(file, found, expected)
    return out


def _masks(runs: Sequence[Run], store: Store) -> dict[str, Bool[np.ndarray, "X Y Z"]]:
    """Returns subject -> voxels that are finite in all of its maps, and not 0 in all of them."""
    masks = {}
    for subject in dict.fromkeys(run.subject for run in runs):
        own = [run for run in runs if run.subject == subject]

        def fill(out, own=own):
            finite, used = np.ones(out.shape, bool), np.zeros(out.shape, bool)
            for values in (run.frames[t] for run in own for t in range(len(run.frames))):
                finite &= np.isfinite(values)
                used |= values != 0
            out[...] = finite & used

        key = "brain of maps 1 " + " ".join(run.content for run in own)
        masks[subject] = np.array(store.derived(key, own[0].frames.shape[1:], bool, fill))
        if not masks[subject].any():
            found = f"no voxel that is finite in all maps of subject {subject}, and not 0"
            raise InputError(own[0].place, found, "maps of one brain")
    return masks


def _groups(root: pathlib.Path, path: pathlib.Path, rows: Sequence[Map], column: str):
    """Returns the group of each subject, from the table or from participants.tsv."""
    if column not in rows[0].cells:
        from emojax.sources import participants

        return participants.read((root,), column, sorted({row.subject for row in rows}))
    groups: dict[str, str] = {}
    for row in rows:
        value = row.cells[column]
        if not value or groups.setdefault(row.subject, value) != value:
            found = f"{column} {value or 'n/a'!r} of subject {row.subject} in line {row.line}"
            expected = f"one group for each subject ({groups.get(row.subject)!r} before)"
            raise InputError(path, found, expected)
    return groups
