"""Features computed elsewhere (betas, parcels, surfaces): one .npz file per subject.

    <root>/<subject>.npz
        x        [rows, voxels] real numbers; the number of voxels may differ between subjects
        y        [rows] class of each row: int, or str (the classes are then the sorted names)
        run      [rows] run of each row: int or str
        classes  [classes] str, optional: names of the numbers in y; the same in all files

Rows need not be points in time, so runs have no TR; rows keep their order within each run. Names
are stripped of surrounding blanks, and rows whose class is "" or "n/a" are not used.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emojax.data import archives, losses, tables
from emojax.data.archives import Header
from emojax.data.cohort import Cohort, build
from emojax.data.hashes import sha256
from emojax.data.label_map import EVERY_VALUE
from emojax.data.names import tidy
from emojax.data.paths import require_folder, visible
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.files import split_list

KINDS = {  # key -> kinds of NumPy dtypes, and their description
    "x": ("iuf", "real numbers"),
    "y": ("iuU", "int or str"),
    "run": ("iuU", "int or str"),
    "classes": ("U", "str"),
}


def load(data: Any) -> Cohort:
    """Returns the cohort of `config.data`, see `read`."""
    return read(
        data.root,
        subjects=split_list(data.subjects),
        runs=split_list(data.runs),
        label_map=data.label_map,
    )


def read(
    root: str | pathlib.Path,
    *,
    subjects: Sequence[str] = (),
    runs: Sequence[str] = (),
    label_map: str = EVERY_VALUE,
) -> Cohort:
    """Reads a folder of .npz files in the format that this module describes.

    Args:
      root: path of the folder.
      subjects: subjects to read, by the names of their files; all if empty.
      runs: runs to read, as named in `run`; all if empty.
      label_map: "class=name|name;class=name" to select or merge classes; "" keeps them all.

    Raises:
      InputError: there is no file, a file cannot be read or lacks a key, lengths disagree, x has
        NaN or infinite values, classes differ between files, or y has numbers without a class
        (without `classes`, the numbers in all files together must be 0, 1, ... without gaps).
    """
    root = require_folder(root, "a folder of .npz files (data.root)")
    paths = visible(root.glob("*.npz"))
    if not paths:
        raise InputError(root, "no .npz file", "one per subject (data.root)")
    have = [(tidy(path.stem), "") for path in paths]
    kept = tables.choose(root, have, subjects)
    subset = [paths[i] for i in kept]
    contents = [_read(path) for path in subset]
    classes = _classes(subset, contents)
    found, named = [], []
    for i, path, content in zip(kept, subset, contents, strict=True):
        hashes = {str(path): sha256(path)}
        own = classes[content["y"]] if content["y"].dtype.kind in "iu" else content["y"]
        for name in np.unique(content["run"]):
            here = content["run"] == name
            found.append(Run(have[i][0], str(name), content["x"][here], hashes=hashes))
            named.append(own[here].tolist())
    kept = tables.choose(root, [(run.subject, run.name) for run in found], (), runs)
    found, named = [found[i] for i in kept], [named[i] for i in kept]
    names = tuple(dict.fromkeys(filter(None, classes.tolist())))
    final, labels = tables.classify(root, named, label_map, column="y", classes=names)
    return build(found, final, labels, notes=losses.of_rows(named, labels, final))


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads and checks the arrays of one file."""
    content = archives.read(path, KINDS, lambda headers: _check(path, headers))
    if content["x"].dtype.kind == "f":
        content["x"] = tables.as_float32(path, "x", content["x"])  # runs hold float32
    classes = content.get("classes", np.array([])).tolist()
    if len({*classes}) < len(classes):
        raise InputError(path, f"classes {classes}", "names, each once")
    tidied = {key: _tidy(content[key]) for key in ("y", "run", "classes") if key in content}
    if "" in tidied["run"].tolist():
        raise InputError(path, "a row without a run", "a name or a number for each")
    return content | tidied


def _tidy(names: np.ndarray) -> np.ndarray:
    """Returns names in their normalised spelling, and numbers unchanged."""
    if names.dtype.kind != "U":
        return names
    written, index = np.unique(names, return_inverse=True)
    return np.array([tidy(name) for name in written], str)[index]


def _check(path: pathlib.Path, headers: Mapping[str, Header]) -> None:
    """Raises an InputError if headers show wrong shapes or types, before values are read."""
    for key in ("x", "y", "run"):
        if key not in headers:
            listed = ", ".join(headers) or "none"
            raise InputError(path, f"keys {listed}", "x, y and run (and classes)")
    x, y, run = (headers[key].shape for key in ("x", "y", "run"))
    if len(x) != 2 or y != x[:1] or run != x[:1] or 0 in x:
        found = f"x of shape {x}, y {y}, run {run}"
        raise InputError(path, found, "x [rows, voxels], y [rows] and run [rows]")
    for key, header in headers.items():
        kinds, words = KINDS[key]
        if header.dtype.kind not in kinds:
            raise InputError(path, f"{key} of type {header.dtype}", words)
    if "classes" in headers and len(headers["classes"].shape) != 1:
        raise InputError(path, f"classes of shape {headers['classes'].shape}", "classes [classes]")


def _classes(paths: Sequence[pathlib.Path], contents: Sequence[dict]) -> np.ndarray:
    """Returns [classes] str, the class names of all files, after checking that they agree."""
    first = contents[0]
    for path, content in zip(paths, contents, strict=True):
        ours, theirs = (c["classes"].tolist() if "classes" in c else None for c in (content, first))
        if ours != theirs:
            raise InputError(path, f"classes {ours}", f"{theirs} as in {paths[0]}")
        if (content["y"].dtype.kind == "U") != (first["y"].dtype.kind == "U"):
            expected = f"{first['y'].dtype} as in {paths[0]}"
            raise InputError(path, f"y of type {content['y'].dtype}", expected)
    used = np.unique(np.concatenate([content["y"] for content in contents]))
    if "classes" in first:
        classes = first["classes"]
    elif used.dtype.kind == "U":
        classes = used
    else:
        classes = np.arange(len(used)).astype(str)
    if len({*classes.tolist()} - {""}) < 2:
        raise InputError(paths[0], f"classes {classes.tolist()}", "two or more names")
    for path, content in zip(paths, contents, strict=True):
        y = content["y"]
        known = [*classes, ""] if y.dtype.kind == "U" else np.arange(len(classes))
        strange = y[~np.isin(y, known)]
        if strange.size:
            numbers = "" if y.dtype.kind == "U" else f"0 to {len(classes) - 1}, "
            expected = f"{numbers}the classes {', '.join(classes.tolist())}"
            raise InputError(path, f"y has {strange[0].item()!r}", expected)
    return classes
