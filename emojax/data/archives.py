"""Reader of .npz files that checks headers before unpacking any array."""

import math
import os
import zipfile
from collections.abc import Callable, Collection, Mapping
from typing import IO, NamedTuple

import numpy as np

from emojax.data.paths import require_file
from emojax.errors import InputError

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
LARGEST = 1 << 30  # bytes; larger arrays may not exceed this compression ratio:
SHRINKS = 100


class Header(NamedTuple):
    """The shape and dtype of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """The size of the array, bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read(
    path: str | os.PathLike,
    names: Collection[str] | None = None,
    check: Callable[[Mapping[str, Header]], None] = lambda headers: None,
    *,
    file: IO[bytes] | None = None,
    shrinks: float = SHRINKS,
    largest: int = LARGEST,
) -> dict[str, np.ndarray]:
    """Reads arrays of an .npz file without unpickling objects.

    Args:
      path: the file.
      names: names of the arrays to read, if present; None for all.
      check: function called with the headers of these arrays before any is unpacked; it may raise.
      file: the file, if it is already open.
      shrinks: largest compression ratio of an array larger than `largest`.
      largest: size in bytes up to which any ratio is accepted.

    Raises:
      InputError: the file does not exist or is damaged, or an array occurs twice, consists of
        Python objects, or does not have the size in its header.
    """
    if file is None:
        require_file(path, "an .npz file")
    try:
        with zipfile.ZipFile(path if file is None else file) as archive:
            members = _members(path, archive, names)
            headers = {name: _header(path, archive, info) for name, info in members.items()}
            for name, header in headers.items():
                refuse_bomb(path, name, header.size, members[name].compress_size, shrinks, largest)
            check(headers)
            return {name: _array(archive, info) for name, info in members.items()}
    except InputError:
        raise
    except Exception as error:  # zipfile and numpy raise many types on damaged files
        said = str(error) or type(error).__name__
        raise InputError(path, f"no readable arrays ({said})", "an .npz file") from None


def refuse_bomb(
    path: str | os.PathLike,
    name: str,
    size: int,
    stored: int,
    shrinks: float = SHRINKS,
    largest: int = LARGEST,
) -> None:
    """Refuses a large array of which almost nothing is stored, since it could exhaust the memory.

    Args:
      path: the file, for messages.
      name: name of the array.
      size: size of the array, bytes.
      stored: size of its compressed data, bytes.
      shrinks: see `read`.
      largest: see `read`.

    Raises:
      InputError: the array is too large.
    """
    if size > max(largest, shrinks * stored):
        found = f"{name} of {size:,} bytes in {stored:,} stored ones"
        raise InputError(path, found, f"at most {shrinks} times the stored bytes")


def _members(
    path: str | os.PathLike, archive: zipfile.ZipFile, names: Collection[str] | None
) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if names is not None and (name not in names or name == info.filename):
            continue
        if name in found:
            raise InputError(path, f"{name} twice", "each array once")
        found[name] = info
    return found


def _header(path: str | os.PathLike, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
    with archive.open(info) as file:
        header = _read_header(file)
        there = info.file_size - file.tell()
    if header.dtype.hasobject:
        raise InputError(path, f"{info.filename} of Python objects", "numbers or text")
    if header.size != there:
        found = f"{there} bytes of {info.filename}"
        raise InputError(path, found, f"{header.size} as its header says")
    return header


def _read_header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the .npy format")
    shape, _, dtype = HEADERS[version](file)
    return Header(shape, dtype)


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("="), copy=False)  # as this machine has it
