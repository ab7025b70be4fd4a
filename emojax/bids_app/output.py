"""The output folder, with checks that it may be written to."""

import os
import pathlib

from emojax.errors import InputError
from emojax.sources.inheritance import read_json

DESCRIPTION = "dataset_description.json"
NAME = "emojax"  # name in GeneratedBy
RAW = "raw"  # name of the link to the data set, as in "bids:raw:sub-01/..."
FOLDER = "emojax"  # subfolder for workdir and store, which are not part of the data set
RUN, STORE = "run", "store"  # folders in FOLDER


def check_output(source: pathlib.Path, root: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """Returns the output folder, unless the output would mix with existing data.

    Raises:
      InputError: it is the data set, lies in its data, is a file, or holds another data set.
    """
    example = source / "derivatives" / "emojax"
    expected = f"a separate folder, such as {example}"
    target = real(out)
    for data in dict.fromkeys((source, root)):
        inside = real(data)
        if target == inside:
            raise InputError(out, "the data set itself as output", expected)
        if target.is_relative_to(inside) and target.relative_to(inside).parts[0] != "derivatives":
            raise InputError(out, f"an output inside the data of {data}", expected)
    if target == real(source / "derivatives"):
        raise InputError(out, "the folder of all derivatives as output", expected)
    if os.path.lexists(out) and not out.is_dir():
        raise InputError(out, "a file", expected)
    _check_owner(out, source)
    return out


def _check_owner(out: pathlib.Path, source: pathlib.Path) -> None:
    """Rejects a folder that holds anything but an earlier output of the same data set.

    Raises:
      InputError: it holds other files.
    """
    if not out.is_dir() or {path.name for path in out.iterdir()} <= {FOLDER}:
        return
    expected = "a new folder, or an earlier output of this data set"
    if not (out / DESCRIPTION).is_file():
        raise InputError(out, f"files without a {DESCRIPTION}", expected)
    stated = read_json(out / DESCRIPTION)
    made = stated.get("GeneratedBy")
    first = made[0] if isinstance(made, list) and made else {}
    if not isinstance(first, dict) or first.get("Name") != NAME:
        found = f"another data set ({stated.get('Name', 'without a name')})"
        raise InputError(out, found, expected)
    links = stated.get("DatasetLinks")
    link = links.get(RAW) if isinstance(links, dict) else None
    if not isinstance(link, str) or real(out / link) != real(source):
        raise InputError(out, f"an output of the data set {link}", expected)


def real(path: str | os.PathLike) -> pathlib.Path:
    """Returns a path with symbolic links resolved."""
    return pathlib.Path(os.path.realpath(path))
