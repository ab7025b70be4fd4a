"""Realignment parameters: six numbers of head motion for each volume of a run."""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from emojax.data import events, tables
from emojax.errors import InputError

COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


def read(path: str | pathlib.Path, num_volumes: int) -> Float[np.ndarray, "t 6"]:
    """Reads the parameters of one run: translations along x, y, z in mm, then rotations in rad.

    Args:
      path: SPM's rp_*.txt (six columns of numbers, no header), or, if the name ends in .tsv,
        fMRIPrep's confounds with the columns trans_x to rot_z among others.
      num_volumes: length of the run, t.

    Returns:
      [t, 6] float64.

    Raises:
      InputError: there are not six columns or not one row per volume, or a cell is not a finite
        number (n/a, NaN).
    """
    path = pathlib.Path(path)
    if path.suffix == ".tsv":
        rows = events.read_table(path, "\t", COLUMNS)
        cells = [[row[column] for column in COLUMNS] for row in rows]
        parameters = _numbers(path, cells).reshape(-1, len(COLUMNS))
    else:
        parameters = tables.numbers(path)
    if parameters.shape != (num_volumes, len(COLUMNS)):
        found = f"{parameters.shape[0]} rows of {parameters.shape[1]} numbers"
        raise InputError(path, found, f"six for each of {num_volumes} volumes")
    return parameters


def read_if_needed(
    path: str | pathlib.Path | None, num_volumes: int, needed: bool
) -> Float[np.ndarray, "t 6"] | None:
    """Reads the parameters as `read` does, but ignores an invalid file that is not needed.

    Args:
      path: path of the file, or None.
      num_volumes: length of the run, t.
      needed: whether the parameters are needed.

    Returns:
      [t, 6]; None without a file, or for an invalid file that is not needed.

    Raises:
      InputError: as `read`, if the parameters are needed.
    """
    if path is None:
        return None
    try:
        return read(path, num_volumes)
    except InputError:
        if needed:
            raise
        return None


def notes(
    files: Sequence[pathlib.Path | None], found: Sequence[Float[np.ndarray, "t 6"] | None]
) -> list[str]:
    """Returns a sentence if a study has files of parameters, but not a complete one for every run.

    Args:
      files: file of each run, or None.
      found: result of `read_if_needed` for each run.
    """
    without = sum(parameters is None for parameters in found)
    if not (any(files) and without):
        return []
    what = f"no six whole columns of realignment parameters for {without} of {len(found)} runs"
    return [f"{what}, which only data.motion (and data.scrub_fd_mm) would need"]


def _numbers(path: pathlib.Path, cells: list[list[str]]) -> Float[np.ndarray, "t 6"]:
    """Returns cells as numbers, parsing them one by one only if that is needed for a message."""
    try:
        values = np.array(cells, float)
        if np.isfinite(values).all() and "_" not in "".join(map("".join, cells)):
            return values
    except ValueError:
        pass
    rows = enumerate(cells, 2)
    named = [
        [events.number(path, line, column, cell) for column, cell in zip(COLUMNS, row, strict=True)]
        for line, row in rows
    ]
    return np.array(named, float)
