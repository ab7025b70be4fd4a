"""Hashes and stamps of files; an unchanged stamp means unchanged content."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from emojax import files
from emojax.data import paths
from emojax.errors import InputError

Path = str | os.PathLike
Stamp = dict[str, Any]  # path, and the numbers of STAMP
STAMP = {  # a copy that keeps the modification time still has another ctime or inode
    "size": "st_size",
    "time": "st_mtime_ns",
    "status_time": "st_ctime_ns",
    "inode": "st_ino",
    "device": "st_dev",
}
CHUNK = 1 << 18  # bytes read at a time


def sha256(path: Path, tick: Callable[[int], Any] = lambda size: None) -> str:
    """Returns the hash of a file's content.

    Args:
      path: the file.
      tick: function called with the number of bytes after each chunk.

    Raises:
      InputError: the path is not a regular file that can be read.
    """
    digest = hashlib.sha256()
    for data in chunks(path):
        digest.update(data)
        tick(len(data))
    return digest.hexdigest()


def chunks(path: Path) -> Iterator[bytes]:
    """Yields the content of a file in chunks.

    Raises:
      InputError: the path is not a regular file that can be read.
    """
    stamp(path)
    try:
        with open(path, "rb", buffering=0) as file:
            while data := file.read(CHUNK):
                yield data
    except OSError as error:
        found = f"a path that cannot be read ({files.cause(error)})"
        raise InputError(path, found, "a file that can be read") from None


def stamp(path: Path) -> Stamp:
    """Returns the absolute path, size, times, inode and device of a file.

    Raises:
      InputError: the path is not a regular file, see `paths.require_file`.
    """
    found = paths.require_file(path)
    numbers = {key: getattr(found, name) for key, name in STAMP.items()}
    return {"path": os.path.abspath(path), **numbers}


def short(text: str) -> str:
    """Returns the first 32 hexadecimal digits of the sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the sha256 of named arrays with their dtypes and shapes."""
    sha = hashlib.sha256()
    for name, value in sorted(arrays.items()):
        array = np.ascontiguousarray(value)
        kind = array.dtype.str.lstrip("<|=")  # files lose the byte order of some dtypes
        sha.update(f"{name} {kind} {array.shape} ".encode())
        sha.update(array.reshape(-1).view(np.uint8).data if array.nbytes else b"")
    return sha.hexdigest()


def joined(digests: Iterable[str]) -> str:
    """Returns one hash for the files of an image: that of a single file, or the hash of all."""
    first, *others = digests
    return hashlib.sha256(" ".join((first, *others)).encode()).hexdigest() if others else first
