"""Arrays of .npz files, checked by their headers before anything is unpacked."""

import math
import os
import zipfile
from collections.abc import Callable, Collection, Mapping
from typing import IO, NamedTuple

import numpy as np

from emojax.data.paths import require_file
from emojax.errors import InputError

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
LARGEST = 1 << 30  # bytes; what is larger and shrinks so much was made to fill the memory
SHRINKS = 100


class Header(NamedTuple):
    """Shape and type of an array in a file."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """The bytes of the array."""
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
    """Reads arrays of an .npz file; no object is unpickled.

    Args:
      path: the file.
      names: arrays that are read if they are there; the others are not looked at. None: all.
      check: called with the headers of these arrays before the first is unpacked; it may raise.
      file: the same, where it is open.
      shrinks: how many times its stored bytes an array may take that is larger than `largest`.
      largest: bytes.

    Raises:
      InputError: there is no such file, it is damaged, an array occurs twice, is of Python objects,
        or is not of the size that its header says.
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
    """Refuses an array that would fill the memory and that almost nothing is stored of.

    Raises:
      InputError: names the array.
    """
    if size > max(largest, shrinks * stored):
        found = f"{name} of {size:,} bytes in {stored:,} stored ones"
        raise InputError(path, found, f"at most {shrinks} times the stored bytes")


def _members(path, archive: zipfile.ZipFile, names) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if names is not None and (name not in names or name == info.filename):
            continue
        if name in found:
            raise InputError(path, f"{name} twice", "each array once")
        found[name] = info
    return found


def _header(path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
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
