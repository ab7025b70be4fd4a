"""Maps with one label each (betas, contrasts, t maps), listed in a table.

    file                 subject  emotion  priming
    sub-01/anger.nii.gz  01       anger    congruent

Config keys name the columns of file, subject, label and run. The label and all other columns are
kept as factors of the design. Maps are not points in time: runs have no TR, and rows keep the
order of the table.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from nibabel.arrayproxy import ArrayProxy

from emojax.data import copies, grid, hashes, losses, nifti, tables
from emojax.data.cohort import Cohort, build
from emojax.data.label_map import EVERY_VALUE
from emojax.data.paths import require_folder
from emojax.data.run import Run
from emojax.data.store import Store, default
from emojax.errors import InputError
from emojax.files import split_list
from emojax.sources import map_table, participants
from emojax.sources.map_table import Map


class Scan(NamedTuple):
    """The header of a map's image, and the hashes of its files."""

    image: Any  # a nibabel image
    turn: grid.Turn  # reordering of axes to match the grid of the first map
    hashes: dict[str, str]


def load(data: Any) -> Cohort:
    """Returns the cohort of `config.data`, see `read`."""
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
    """Reads maps as this module describes them.

    Args:
      root: folder of the study.
      store: store of the decoded maps.
      table: path of the .tsv or .csv table, relative to root.
      file_column: column with the path of the image, relative to the table.
      subject_column: column with the subject, with or without "sub-".
      label_column: column with the label of the map.
      run_column: column that groups a subject's maps into runs, such as sessions; "" for one run.
      label_map: "class=value|value;class=value" to select or merge classes; "" keeps every value.
      subjects: subjects to read; all if empty.
      runs: runs to read; all if empty.
      group: column of the table or of participants.tsv that is constant within each subject.
      own_grids: whether maps of different subjects may have different grids.

    Returns:
      The cohort. A subject's brain mask contains the voxels that are finite in all of its maps and
      nonzero in at least one.

    Raises:
      InputError: a table or an image cannot be read, a file is listed or stored twice, images are
        not on one grid, a subject has no voxels, or `tables.classify` or `cohort.build` refuses
        the data.
    """
    root = require_folder(root, "a folder of maps (data.root)")
    columns = {"file": file_column, "subject": subject_column, "run": run_column}
    path = map_table.find(root, table)
    rows = map_table.read(path, columns, label_column)
    kept = tables.choose(path, [(row.subject, row.run) for row in rows], subjects, runs)
    rows = [rows[i] for i in kept]
    scans = _scans(path, rows, store, own_grids)
    groups = _groups(root, path, rows, group) if group else participants.Groups({}, {})
    listed = {str(path): store.hash(path), **groups.hashes}
    by_run: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        by_run.setdefault((row.subject, row.run), []).append(i)
    found = [
        _run(subject, run, [rows[i] for i in own], [scans[i] for i in own], store, listed)
        for (subject, run), own in by_run.items()
    ]
    _refuse_copies(path, zip(found, by_run.values(), strict=True), rows, scans)
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
        groups=groups.of,
        notes=losses.of_rows(named, labels, classes),
    )


def _scans(path: pathlib.Path, rows: Sequence[Map], store: Store, own_grids: bool) -> list[Scan]:
    """Returns the header of every map, without reading values."""
    out: list[Scan] = []
    first: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for row in rows:
        try:
            files = {str(part): store.hash(part) for part in nifti.parts(row.file)}
            image = nifti.load(row.file)
            shape = nifti.shape_of_volume(row.file, image.shape)
        except InputError as error:
            where, _, rest = str(error).partition(": found ")
            found, _, expected = rest.rpartition("; expected ")
            found = f"{found} (line {row.line} of {path.name})"
            raise InputError(where, found, expected) from None
        whole = hashes.joined(files.values())
        if whole in lines:
            found = f"{row.file.name} in line {row.line}, the same content as line {lines[whole]}"
            raise InputError(path, found, "each map once")
        lines[whole] = row.line
        wanted = first.setdefault(row.subject if own_grids else "", image)
        turn = grid.turn(image.affine, shape, wanted.affine, wanted.shape[:3])
        if turn is None:
            own, other = (grid.describe(i.affine, i.shape[:3]) for i in (image, wanted))
            found = f"another grid than {wanted.get_filename()}: {own}, not {other}"
            expected = "maps on one grid (nilearn.image.resample_to_img resamples them)"
            raise InputError(row.file, found, expected)
        out.append(Scan(image, turn, files))
    return out


def _run(
    subject: str,
    name: str,
    rows: Sequence[Map],
    scans: Sequence[Scan],
    store: Store,
    listed: Mapping[str, str],
) -> Run:
    """Joins the maps of a run as float32 on one grid; `listed` are the hashes of the tables."""
    files = {file: digest for scan in scans for file, digest in scan.hashes.items()}
    turns = [(scan.turn.axes, scan.turn.flipped) for scan in scans]
    shape = scans[0].turn.apply(np.empty(scans[0].image.shape[:3], bool)).shape

    def fill(out):
        for target, row, scan in zip(out, rows, scans, strict=True):
            target[...] = scan.turn.apply(_values(row.file))

    key = f"maps 1 {turns} {' '.join(files.values())}"
    frames = store.derived(key, (len(rows), *shape), np.float32, fill)
    affine = grid.turned(scans[0].image.affine, scans[0].image.shape[:3], scans[0].turn)
    changes = () if all(scan.turn.is_identity for scan in scans) else (f"turned {turns}",)
    return Run(subject, name, frames, affine=affine, hashes={**files, **listed}, changes=changes)


def _refuse_copies(path: pathlib.Path, runs, rows: Sequence[Map], scans: Sequence[Scan]) -> None:
    """Raises an InputError if a subject has a map twice, in files of any type or compression.

    Args:
      path: path of the table.
      runs: each run with the indices of its rows.
      rows: rows of all maps.
      scans: headers of all maps.
    """
    alone: dict[str, list[Run]] = {}
    for run, own in runs:
        for values, i in zip(run.frames, own, strict=True):
            place = f"{rows[i].file.name} in line {rows[i].line}"
            single = _stored(values, scans[i].image.dataobj)
            alone.setdefault(run.subject, []).append(Run("", place, hashes={place: ""}, **single))
    for maps in alone.values():
        try:
            copies.check(maps)
        except InputError as error:
            found = str(error).replace(": found ", ", ").partition(" (volume ")[0]
            raise InputError(path, found, "each map once: remove one of the two lines") from None


def _stored(values: Float[np.ndarray, "X Y Z"], proxy: Any) -> dict[str, Any]:
    """Returns one map as its file stores it: integers with their scale, or floating point."""
    if type(proxy) is not ArrayProxy or proxy.dtype.kind == "f":
        return {"frames": values[None]}
    scale = {"slope": float(proxy.slope), "intercept": float(proxy.inter)}
    whole = np.rint((values[None] - scale["intercept"]) / scale["slope"])
    return {"frames": whole.astype(np.int32), **scale}


def _values(file: pathlib.Path) -> Float[np.ndarray, "X Y Z"]:
    """Returns the values of a map."""
    expected = "a map of real numbers, with NaN at most outside the brain"
    values, _ = nifti.read_volume(file, expected)
    if np.isinf(values).any():
        found = f"{int(np.isinf(values).sum())} values that are infinite or too large for float32"
        raise InputError(file, found, expected)
    return values


def _masks(runs: Sequence[Run], store: Store) -> dict[str, Bool[np.ndarray, "X Y Z"]]:
    """Returns each subject's mask: voxels finite in all of its maps and nonzero in at least one."""
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
            found = f"no voxel that is finite in all maps of subject {subject} and not always 0"
            raise InputError(own[0].place, found, "maps of one brain")
    return masks


def _groups(
    root: pathlib.Path, path: pathlib.Path, rows: Sequence[Map], column: str
) -> participants.Groups:
    """Returns the group of each subject, from the table or from participants.tsv."""
    if column not in rows[0].cells:
        return participants.read((root,), column, sorted({row.subject for row in rows}))
    groups: dict[str, str] = {}
    for row in rows:
        value = row.cells[column]
        if not value or groups.setdefault(row.subject, value) != value:
            found = f"{column} {value or 'n/a'!r} of subject {row.subject} in line {row.line}"
            expected = f"one group for each subject ({groups.get(row.subject)!r} before)"
            raise InputError(path, found, expected)
    return participants.Groups(groups, {})
