"""Hashes of files, remembered by path, size and time, so that unchanged files are not read."""

import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any

from emojax.errors import InputError

Path = str | os.PathLike
Stamp = dict[str, Any]  # path, size and time of change of a file


def sha256(path: Path) -> str:
    """Returns the hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short(text: str) -> str:
    """Returns a name for a text, 32 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stamp(folder: pathlib.Path, path: pathlib.Path) -> tuple[pathlib.Path, Stamp]:
    """Returns the file of `folder` that remembers a path's hash, and the stamp of the path.

    Raises:
      InputError: there is no such path.
    """
    try:
        stat = path.stat()
    except OSError:
        raise InputError(path, "no such file", "one that can be read") from None
    now = {"path": os.path.abspath(path), "size": stat.st_size, "time": stat.st_mtime_ns}
    return folder / f"{short(now['path'])}.json", now


def remembered(known: pathlib.Path, now: Stamp) -> str | None:
    """Returns the hash that a file remembers, or None where it holds for another stamp."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        entry = json.loads(known.read_text())
        if all(entry.get(key) == value for key, value in now.items()):
            return entry.get("sha256")
    return None
