"""Checks of paths named by the user, before any file is opened."""

import os
import pathlib
import shlex
import stat
from collections.abc import Iterable

from emojax.errors import InputError

ANNEX = "annex/objects"  # part of the target of a git-annex link
POINTERS = {  # start of a placeholder file -> command that downloads its content
    b"/annex/objects/": "datalad get",  # unlocked by git-annex
    b"version https://git-lfs.github.com": "git lfs pull --include",
}
LONGEST = 1 << 15  # bytes of a placeholder, the limit of git-annex


def require_file(
    path: str | os.PathLike, expected: str = "a file that can be read"
) -> os.stat_result:
    """Returns `os.stat` of a regular file whose content is present.

    Refuses missing files, folders, circular links, pipes, and placeholders whose content was not
    downloaded. Only small files are opened for this.

    Args:
      path: the file.
      expected: description of the expected file, for messages.

    Raises:
      InputError: the path is not such a file.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise _missing(path, expected, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(path, "something that is not a file", expected)
    if found.st_size <= LONGEST and (fetch := _pointed(path)):
        raise _elsewhere(path, fetch, expected)
    return found


def visible(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the sorted paths without hidden ones, such as the "._*" of macOS."""
    return sorted(path for path in paths if not path.name.startswith("."))


def require_folder(path: str | os.PathLike, expected: str) -> pathlib.Path:
    """Returns the path of a folder.

    Raises:
      InputError: there is no such folder, or the path is "", which never means the current folder.
    """
    if not str(path) or not os.path.isdir(path):
        raise InputError(path or "data.root", "no such folder", expected)
    return pathlib.Path(path)


def _missing(path: str | os.PathLike, expected: str, error: Exception) -> InputError:
    """Returns the error of a path that does not exist."""
    if not isinstance(error, FileNotFoundError):
        why = getattr(error, "strerror", None) or error
        return InputError(path, f"a path that cannot be read ({why})", expected)
    if not os.path.islink(path):
        return InputError(path, "no such file", expected)
    if ANNEX in pathlib.Path(os.path.realpath(path)).as_posix():
        return _elsewhere(path, "datalad get", expected)
    return InputError(path, "a link to a file that is not there", expected)


def _elsewhere(path: str | os.PathLike, fetch: str, expected: str) -> InputError:
    command = f"{fetch} {shlex.quote(os.fspath(path))}"
    return InputError(path, f"a file that is not downloaded ({command})", expected)


def _pointed(path: str | os.PathLike) -> str:
    """Returns the command that downloads a placeholder's content; "" for an ordinary file."""
    try:
        with open(path, "rb") as file:
            start = file.read(1024)
    except OSError:  # raised again when the file is read
        return ""
    for text, fetch in POINTERS.items():
        if start.startswith(text):
            return fetch
    line = start.strip()  # without symbolic links, git writes their target into a file
    is_path = ANNEX.encode() in line.replace(b"\\", b"/") and not any(c in line for c in b"\t\n{,")
    return "datalad get" if is_path and len(start) < 1024 else ""
