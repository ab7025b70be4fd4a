"""Archives of arrays (.npz) from elsewhere, judged by their headers before anything is read."""

import math
import os
import pathlib
import zipfile

import numpy as np

from emojax.errors import InputError

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: pathlib.Path, inflation: float = 1.0) -> dict[str, np.ndarray]:
    """Reads every array of an archive; no pickle is ever loaded.

    Args:
      path: the archive.
      inflation: how many times the size of the file its arrays may take. With 1 it is not
        compressed, as `np.savez` writes it.

    Raises:
      InputError: no archive of arrays of numbers or text, one that is damaged, or one that would
        take more memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            size, most = sum(m.file_size for m in members), inflation * os.path.getsize(path)
            if size > most:
                raise ValueError(f"{size} bytes of arrays in a file for at most {most:.0f}")
            names = [member.filename.removesuffix(".npy") for member in members]
            if len(set(names)) < len(names) or any("\0" in name for name in names):
                raise ValueError("two arrays of one name, or one without a proper name")
            return {n: _read(archive, m) for n, m in zip(names, members, strict=True)}
    except Exception as error:  # a damaged archive raises many types
        said = str(error) or type(error).__name__
        raise InputError(path, f"no readable arrays ({said})", "a whole .npz file") from None


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """Reads an array whose header agrees with the size of its member."""
    name = member.filename
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{name} of format {version}")
        shape, _, dtype = _HEADERS[version](file)
        if dtype.hasobject or dtype.kind not in "biufcU":
            raise ValueError(f"{name} of type {dtype}")
        if file.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError(f"{name} of another size than its header says")
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    return array.astype(dtype.newbyteorder("="), copy=False)  # as this machine has it
