"""Realignment parameters: how the head moved, six numbers for each volume of a run."""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from emojax.data import events, tables
from emojax.errors import InputError

COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


def read(path: str | pathlib.Path, num_volumes: int) -> Float[np.ndarray, "t 6"]:
    """Reads the parameters of one run: shifts along x, y, z in mm, then turns about them in rad.

    Args:
      path: SPM's rp_*.txt (six columns of numbers, no header), or, where the name ends in .tsv,
        fMRIPrep's confounds with the columns trans_x to rot_z among others.
      num_volumes: t, the length of the run.

    Returns:
      [t, 6] float64.

    Raises:
      InputError: there are not six columns, a cell is no finite number (n/a, NaN), or the rows are
        not one per volume.
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
    """Returns the parameters as `read` does; what nobody needs stops nothing.

    Args:
      path: of the file, or None.
      num_volumes: t.
      needed: whether they must be whole.

    Returns:
      [t, 6]; None without a file, or where `read` would refuse one that is not needed.
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
    """Returns a sentence if a study has files of parameters, but not whole ones for every run.

    Args:
      files: of each run, or None.
      found: what `read_if_needed` returned for each run.
    """
    without = sum(parameters is None for parameters in found)
    if not (any(files) and without):
        return []
    what = f"no six whole columns of realignment parameters for {without} of {len(found)} runs"
    return [f"{what}, which only data.motion (and data.scrub_fd_mm) would need"]


def _numbers(path: pathlib.Path, cells: list[list[str]]) -> Float[np.ndarray, "t 6"]:
    """Returns cells as numbers; only a table with one that is none is looked at cell by cell."""
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
