"""The paper's own files: volumes of each run in .mat files, or aligned vectors in two .csv files.

Volumes. <root>/<subject>_run<number>_*.mat, such as E13502_run7_3D_wholeBrain_allConds.mat, with

    I, I_test            cell arrays of [X, Y, Z] volumes (the paper: 64 x 64 x 44)
    labels, labels_test  the class of each: 0 rest, 1 neutral, 2 negative

I and I_test are the authors' training and test parts of one run. Both are read, I first. The files
do not contain the times of volumes, so runs have no TR, and neighbouring rows may not be neighbours
in time.

Vectors. <root>/X_hyp_v2.csv has one row of voxels per volume, and <root>/Y_hyp_v2.csv its class.
Each subject has the same number of rows (400), one subject after the other. A first line with names
is skipped. **These vectors are leaky**: before they were written, subjects were aligned with the
values of all volumes, and voxels were chosen with the labels of all volumes, including those of the
test subject. White noise that goes through the same steps is decoded at 0.75 (chance 0.33). The
cohort declares this as a prior with labels, which only a protocol that is declared leaky accepts.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import rich.progress
from jaxtyping import Int

from emojax.data import losses, matlab, tables
from emojax.data.cohort import Cohort, Prior, build
from emojax.data.hashes import sha256
from emojax.data.label_map import EVERY_VALUE
from emojax.data.names import tidy
from emojax.data.paths import require_file, require_folder, visible
from emojax.data.run import Run
from emojax.data.store import Store, default
from emojax.errors import InputError
from emojax.files import split_list

CLASSES = ("rest", "neutral", "negative")
NAME = re.compile(r"(?P<subject>.+?)_run-?(?P<run>\d+)(_.*)?\.mat")
ALIGNED = Prior("alignment of the files", labels=True)  # includes the choice of voxels
VECTORS, CLASS_NUMBERS = "X_hyp_v2.csv", "Y_hyp_v2.csv"


def load(data: Any) -> Cohort:
    """Returns the cohort of `config.data`: vectors if the folder has them, otherwise volumes."""
    root = require_folder(data.root, "a folder of the paper's files (data.root)")
    subjects, runs = split_list(data.subjects), split_list(data.runs)
    if (root / VECTORS).exists() or (root / CLASS_NUMBERS).exists():
        return read_vectors(root, subjects=subjects, runs=runs, label_map=data.label_map)
    store = Store(default(data), data.progress)
    return read(root, store, subjects=subjects, runs=runs, label_map=data.label_map)


def read(
    root: str | pathlib.Path,
    store: Store,
    *,
    subjects: Sequence[str] = (),
    runs: Sequence[str] = (),
    label_map: str = EVERY_VALUE,
) -> Cohort:
    """Reads the .mat files of a folder; the first time, their volumes are copied to the store.

    Args:
      root: path of the folder.
      store: store of the volumes, as float32 or in the files' own integer type.
      subjects: subjects to read, as in file names ("E13502"); all if empty.
      runs: numbers of the runs to read, as in file names ("7"); all if empty.
      label_map: "class=name|name;class=name" over rest, neutral and negative, to select or merge
        classes; "" keeps the three.

    Raises:
      InputError: there is no file, a file's name lacks subject or run, a variable is missing or of
        another kind, volumes and labels do not match, or a volume has NaN.
    """
    root = pathlib.Path(root)
    matches = {path: NAME.fullmatch(path.name) for path in visible(root.glob("*.mat"))}
    if not matches:
        raise InputError(root, f"no .mat file and no {VECTORS}", "the paper's files (data.root)")
    paths = list(matches)
    have: list[tuple[str, str]] = []
    for path, match in matches.items():
        if match is None:
            raise InputError(path, f"the name {path.name}", "<subject>_run<number>_*.mat")
        require_file(path, "a .mat file")
        have.append((tidy(match["subject"]), match["run"]))
    kept = tables.choose(root, have, subjects, runs)
    labels = {i: _labels(paths[i]) for i in kept}  # cheap, so faults show before volumes are copied
    named = [_names(np.concatenate(labels[i])) for i in kept]
    classes, numbers = tables.classify(
        root, named, label_map, column="labels and labels_test", classes=CLASSES
    )
    shown = rich.progress.track(
        kept, "reading .mat files", transient=True, disable=not store.progress
    )
    counts = {i: (len(own), len(test)) for i, (own, test) in labels.items()}
    found = [_run(paths[i], *have[i], counts[i], store) for i in shown]
    return build(found, classes, numbers, notes=losses.of_rows(named, numbers, classes))


def read_vectors(
    root: str | pathlib.Path,
    *,
    rows_per_subject: int = 400,
    subjects: Sequence[str] = (),
    runs: Sequence[str] = (),
    label_map: str = EVERY_VALUE,
) -> Cohort:
    """Reads the two files of aligned vectors and classes, which are leaky (see the module).

    Args:
      root: path of the folder that holds both files.
      rows_per_subject: number of rows per subject; they form its only run, "1".
      subjects: subjects to read, numbered "01", "02", ... in the order of the file; all if empty.
      runs: runs to read; all if empty.
      label_map: the same as in `read`.

    Raises:
      InputError: a file is missing or has a cell that is not a finite number, the files differ in
        the number of rows, this is not a multiple of `rows_per_subject`, or a class is not 0, 1
        or 2.
    """
    root = pathlib.Path(root)
    x_path, y_path = root / VECTORS, root / CLASS_NUMBERS
    x = tables.numbers(x_path, delimiter=",", skip=_header(x_path))
    x = tables.as_float32(x_path, "the table", x)
    y = tables.numbers(y_path, delimiter=",", skip=_header(y_path))
    if len(y) == len(x) + 1 and y[0] == 0:
        y = y[1:]  # the header of a column without a name is 0 in some tables
    if y.shape != (len(x), 1):
        expected = f"{len(x)} rows of one class as {x_path}"
        raise InputError(y_path, f"{y.shape[0]} rows of {y.shape[1]}", expected)
    if len(x) % rows_per_subject:
        raise InputError(x_path, f"{len(x)} rows", f"a multiple of {rows_per_subject} per subject")
    named = _names(_class_numbers(y_path, "column 1", y))
    hashes = {str(path): sha256(path) for path in (x_path, y_path)}
    blocks = range(0, len(x), rows_per_subject)
    have = [(f"{i:02}", "1") for i in range(1, len(blocks) + 1)]
    kept = tables.choose(root, have, subjects, runs)
    rows = [slice(blocks[i], blocks[i] + rows_per_subject) for i in kept]
    named = [named[r] for r in rows]
    classes, labels = tables.classify(
        y_path, named, label_map, column=CLASS_NUMBERS, classes=CLASSES
    )
    found = [Run(*have[i], x[r], hashes=hashes) for i, r in zip(kept, rows, strict=True)]
    cohort = build(found, classes, labels, notes=losses.of_rows(named, labels, classes))
    return dataclasses.replace(cohort, prior=(ALIGNED,))


def _labels(path: pathlib.Path) -> list[Int[np.ndarray, " n"]]:
    """Returns `labels` and `labels_test` of a file."""
    variables = matlab.read(path, ("labels", "labels_test"))
    return [_class_numbers(path, name, value) for name, value in variables.items()]


def _class_numbers(path: pathlib.Path, name: str, value: np.ndarray) -> Int[np.ndarray, " n"]:
    """Returns a row or column of class numbers as a vector of ints."""
    numeric = value.dtype.kind in "iufb"
    if not numeric or value.size != max(value.shape, default=0):
        found = f"{name} of type {value.dtype}, shape {value.shape}"
        raise InputError(path, found, "one row or column of class numbers")
    bad = value[~np.isin(value, np.arange(len(CLASSES)))]
    if bad.size:
        listed = ", ".join(f"{i} {c}" for i, c in enumerate(CLASSES))
        raise InputError(path, f"{bad[0]:g} in {name}", listed)
    return value.ravel().astype(int)


def _names(numbers: Int[np.ndarray, " n"]) -> list[str]:
    return np.array(CLASSES)[numbers].tolist()


def _run(path: pathlib.Path, subject: str, name: str, counts: tuple[int, int], store: Store) -> Run:
    """Returns a run mapped from the store; its .mat file is only read if it is not stored yet.

    Args:
      path: path of the .mat file.
      subject: label of the subject.
      name: name of the run.
      counts: numbers of labels and of labels_test.
      store: store of the volumes.
    """
    digest = store.hash(path)

    @functools.cache
    def volumes():
        return _volumes(path, counts)

    def describe(out):
        out[:] = (
            *volumes()[0].shape,
            ord(np.result_type(*{volume.dtype for volume in volumes()}).char),
        )

    def fill(out):
        for row, volume in zip(out, volumes(), strict=True):
            row[...] = volume

    facts = store.derived(f"lab 1 shape and type {digest}", (4,), np.int64, describe)
    shape, kind = (sum(counts), *map(int, facts[:3])), np.dtype(chr(facts[3]))
    frames = store.derived(f"lab 1 {digest}", shape, kind if kind.kind in "iu" else "f4", fill)
    return Run(subject, name, frames, hashes={str(path): digest})


def _volumes(path: pathlib.Path, counts: tuple[int, int]) -> list[np.ndarray]:
    """Reads and checks the volumes of I and of I_test."""
    volumes = []
    variables = matlab.read(path, ("I", "I_test"))
    for (name, value), count in zip(variables.items(), counts, strict=True):
        own = matlab.cells(path, name, value)
        if len(own) != count:
            raise InputError(path, f"{len(own)} volumes in {name}", f"{count}, one for each label")
        volumes += own
        for i, volume in enumerate(own):
            shape = volumes[0].shape
            if volume.dtype.kind not in "iuf" or volume.ndim != 3 or volume.shape != shape:
                found = f"{volume.dtype} of shape {volume.shape} in volume {i} of {name}"
                wanted = shape if len(shape) == 3 else "[X, Y, Z]"
                raise InputError(path, found, f"real numbers {wanted}")
            tables.as_float32(path, f"volume {i} of {name}", volume)
    return volumes


def _header(path: pathlib.Path) -> int:
    """Returns 1 if the first line of a table is a header (no numbers, or 0, 1, 2, ...), else 0."""
    require_file(path, "a table of numbers")
    try:
        with open(path, encoding="utf-8-sig") as file:
            cells = [cell.strip().strip('"') for cell in file.readline().split(",")]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"no readable table ({error})", "numbers") from None
    counted = len(cells) > 1 and cells == [str(i) for i in range(len(cells))]
    return int(counted or not any(map(_is_number, cells)))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
