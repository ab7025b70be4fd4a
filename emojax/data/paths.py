"""Paths that a user names, looked at before anything opens them."""

import os
import pathlib
from collections.abc import Iterable

from emojax.errors import InputError


def require_file(path: str | os.PathLike, expected: str = "a file that can be read") -> None:
    """Refuses what is no regular file: nothing, a folder, a circular link, a pipe without end.

    Raises:
      InputError: there is no such file.
    """
    if not os.path.isfile(path):
        found = "something that is no file" if os.path.exists(path) else "no such file"
        raise InputError(path, found, expected)


def visible(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the sorted paths without hidden ones, such as the "._*" that macOS leaves behind."""
    return sorted(path for path in paths if not path.name.startswith("."))


def require_folder(path: str | os.PathLike, expected: str) -> pathlib.Path:
    """Returns the path of a folder.

    Raises:
      InputError: there is no such folder, or the path is "": the current folder is never meant.
    """
    if not str(path) or not os.path.isdir(path):
        raise InputError(path or "data.root", "no such folder", expected)
    return pathlib.Path(path)
