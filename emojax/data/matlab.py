"""Reader of variables in MATLAB files of all versions."""

import pathlib
from collections.abc import Sequence

import h5py
import numpy as np

from emojax.data import matlab5
from emojax.data.archives import refuse_bomb
from emojax.data.paths import require_file
from emojax.errors import InputError


def read(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads some variables, skips the others, and opens no other file.

    Args:
      path: a .mat file; version 7.3 is HDF5, older versions have MATLAB's own format.
      names: names of the variables.

    Returns:
      Name -> array of MATLAB's shape; cells are object arrays, text is an array of str.

    Raises:
      InputError: the file is not a .mat file, is damaged, or lacks one of the variables.
    """
    require_file(path, "a .mat file")
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                have = sorted(name for name in map(str, file) if not name.startswith("#"))
                found = {name: _variable(file, name) for name in names if name in have}
        else:
            found, have = matlab5.read(path, names)
    except InputError:
        raise
    except Exception as error:  # both readers raise many types on damaged files
        text = str(error) or type(error).__name__
        raise InputError(path, f"no readable variables ({text})", "a .mat file") from None
    for name in names:
        if name not in found:
            listed = ", ".join(have) or "none"
            raise InputError(path, f"variables {listed}", f"{', '.join(names)}")
    return {name: found[name] for name in names}


def cells(path: pathlib.Path, name: str, value: np.ndarray) -> list[np.ndarray]:
    """Returns the contents of a cell array in MATLAB's order.

    Raises:
      InputError: the variable is not a cell array.
    """
    if value.dtype != object:
        found = f"{name} of type {value.dtype}, shape {value.shape}"
        raise InputError(path, found, f"{name} as a cell array")
    return [np.asarray(cell) for cell in value.ravel(order="F")]


def _variable(file: h5py.File, name: str) -> np.ndarray:
    """Returns one variable of a 7.3 file, refusing links, which MATLAB does not write."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link")
    return _value(file, file[name])


def _value(file: h5py.File, item: object) -> np.ndarray:
    """Returns a variable or the content of a cell; HDF5 reverses the order of MATLAB's axes."""
    if not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
        raise ValueError(f"{getattr(item, 'name', item)} is not an array of this file")
    refuse_bomb(file.filename, str(item.name), item.nbytes, item.id.get_storage_size())
    kind = bytes(item.attrs.get("MATLAB_class", b"")).decode()
    if item.attrs.get("MATLAB_empty", 0):
        return np.zeros(item[()].astype(int), object if kind == "cell" else float)
    values = item[()].T
    if kind == "cell":
        out = np.empty(values.shape, object)
        for index, reference in np.ndenumerate(values):
            out[index] = _value(file, file[reference])
        return out
    if kind == "char":
        return np.array(["".join(map(chr, row)) for row in values])
    return values
