"""Files of a bundle: regular ones, and arrays whose headers are checked before they are read."""

import os
import pathlib
import stat
from collections.abc import Callable, Mapping
from io import BufferedReader
from typing import IO, Any

import numpy as np

from emojax import files
from emojax.data import archives
from emojax.errors import InputError

FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def open_regular(path: pathlib.Path) -> BufferedReader:
    """Opens a regular file, without following links or waiting for pipes.

    Raises:
      InputError: the file does not exist or is not a regular file.
    """
    expected = "a regular file of the decoder"
    try:
        file = os.fdopen(os.open(path, FLAGS), "rb")
    except FileNotFoundError:
        raise InputError(path, "no such file", "the whole decoder") from None
    except (OSError, ValueError) as error:  # ValueError: a path with NUL
        found = (
            "a link"
            if os.path.islink(path)
            else f"a path that cannot be read ({files.cause(error)})"
        )
        raise InputError(path, found, expected) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(path, "something that is not a file", expected)
    return file


def read_tree(path: pathlib.Path, file: IO[bytes], check: Callable[[Any], Any]) -> dict[str, Any]:
    """Reads the arrays of a file as nested dicts and lists, after checking their headers.

    Args:
      path: path of the file, for messages.
      file: the opened file.
      check: function called first with dummy arrays of the same types and shapes; it may raise.

    Raises:
      InputError: the file is damaged, or its arrays claim more bytes than are stored.
    """
    file.seek(0)
    stored = os.fstat(file.fileno()).st_size

    def check_headers(headers: Mapping[str, archives.Header]) -> None:
        total = sum(header.size for header in headers.values())
        if total > stored:
            raise InputError(path, f"{total:,} bytes in {stored:,} stored ones", "no more")
        empty = {n: np.broadcast_to(np.ones((), h.dtype), h.shape) for n, h in headers.items()}
        check(_as_tree(path, empty))

    # `np.savez` does not compress.
    return _as_tree(path, archives.read(path, None, check_headers, file=file, shrinks=1, largest=0))


def _as_tree(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    try:
        tree = files.unflatten(arrays)
    except Exception:  # flax raises many types
        tree = None
    if not isinstance(tree, dict) or files.flatten(tree).keys() != arrays.keys():
        found = f"arrays called {', '.join(arrays) or 'nothing'}"
        raise InputError(path, found, "names as they were saved")
    return tree
