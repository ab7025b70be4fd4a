"""Ownership of a workdir: the configuration and the data that it belongs to."""

import json
import pathlib
import re
from typing import Any

from emojax.errors import InputError

FORMAT = 2  # of config.json and all contents of a workdir; 0.3.0 wrote the bare configuration
LOCK = ".lock"


def check_config(folder: pathlib.Path, plain: dict[str, Any]) -> None:
    """Checks that a configuration is that of a run in progress.

    Raises:
      InputError: it is another one; the message names the first key that differs.
    """
    if differs := _first_difference(read_config(folder), plain):
        key, old, new = differs
        expected = f"{key}={new!r} (or another --workdir)"
        raise InputError(folder, f"a run with {key}={old!r}", expected)


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration as JSON data, without the keys that no result depends on."""
    plain = json.loads(json.dumps(config))
    for part, key in (("data", "store"), ("data", "progress"), ("train", "loggers")):
        plain.get(part, {}).pop(key, None)
    return plain


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the configuration of a workdir.

    Raises:
      InputError: it has none, or one written by another version or program.
    """
    path = folder / "config.json"
    found = _read_json(path, "the workdir of a run")
    version = found.get("format", 1)
    if version == FORMAT and isinstance(config := found.get("config"), dict):
        model = config.get("model")
        if isinstance(model, dict) and model.get("dtype") == "auto":
            model["dtype"] = "device"  # the meaning of "auto" before it measured
        return config
    if version == FORMAT:
        raise InputError(path, "damaged (no config in it)", "as it was written")
    if version == 1 and not {"experiment", "data"} <= found.keys():
        raise InputError(path, "settings of something else", "an empty or new folder as --workdir")
    written = "emojax 0.3" if version == 1 else f"another version (format {version})"
    raise InputError(folder, f"a workdir of {written}", "a new folder as --workdir")


def read_run(folder: pathlib.Path) -> dict[str, Any]:
    """Returns run.json: "inputs", their "stamps", "versions" and "digest".

    Raises:
      InputError: it is missing or damaged.
    """
    path = folder / "run.json"
    run = _read_json(path, "the one that the run has written (or --restart to begin anew)")
    if run.get("format") != FORMAT or not {"inputs", "stamps", "versions", "digest"} <= run.keys():
        raise InputError(path, "damaged (parts of it are missing)", "as it was written")
    return run


def slug(name: str) -> str:
    """Returns a name as part of a file name: "nested, none 0" -> "nested-none-0"."""
    return re.sub(r"[^\w.+]+", "-", name).strip("-")


def check_ours(folder: pathlib.Path) -> None:
    """Refuses a folder that contains anything other than a run."""
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "a file", "a folder as --workdir")
    if (folder / "config.json").exists():
        read_config(folder)
    elif folder.exists():
        ours = (LOCK, ".partial")
        if any(not path.name.endswith(ours) for path in folder.iterdir()):
            expected = "an empty or new folder as --workdir"
            raise InputError(folder, "files of something else", expected)


def same_config(folder: pathlib.Path, plain: dict[str, Any], is_bound: bool) -> dict[str, Any]:
    """Returns the configuration of a workdir, which must be ours once training has begun.

    Raises:
      InputError: it is another one; the message names the first key that differs.
    """
    theirs = read_config(folder)
    if is_bound and (differs := _first_difference(theirs, plain)):
        key, old, new = differs
        expected = f"{key}={new!r} (or --restart to begin anew, or another --workdir)"
        raise InputError(folder, f"a run with {key}={old!r}", expected)
    return theirs


def _first_difference(theirs, ours, at: str = ""):
    """Returns (dotted key, their value, our value) of the first difference, or None."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return None if theirs == ours else (at, theirs, ours)
    for key in sorted(theirs.keys() | ours.keys()):
        place = f"{at}.{key}" if at else key
        if found := _first_difference(theirs.get(key), ours.get(key), place):
            return found
    return None


def _read_json(path: pathlib.Path, expected: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(path.parent, f"no {path.name}", expected) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, f"damaged ({error})", "as it was written") from None
    if not isinstance(found, dict):
        raise InputError(path, "damaged (no settings in it)", "as it was written")
    return found
