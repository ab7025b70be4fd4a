"""Files that fMRIPrep wrote beside a run: its confounds, and the mask of its brain."""

import collections
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool

from emojax.data import grid, nifti
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.sources.bids_names import IMAGES, File

Mask = Bool[np.ndarray, "X Y Z"]


class Beside:
    """The derived files of a data set, by the acquisition that they belong to."""

    def __init__(self, files: Iterable[File]):
        """Args: all files of the data set."""
        self._of = collections.defaultdict(list)
        for file in files:
            self._of[file.acquisition, file.same.get("desc")].append(file)

    def confounds(self, scan: File) -> pathlib.Path | None:
        """Returns the table of confounds of a run; they are the same in all spaces."""
        suffixes = ("regressors", "timeseries")  # the older name first: the last one counts
        tables = [f for f in self._fitting(scan, "confounds", suffixes) if f.ext == ".tsv"]
        tables.sort(key=lambda file: suffixes.index(file.suffix))
        return tables[-1].path if tables else None

    def mask(self, scan: File) -> pathlib.Path | None:
        """Returns the brain mask of a run, in its own space and resolution.

        Raises:
          InputError: there are two.
        """
        masks = [
            file
            for file in self._fitting(scan, "brain", ("mask",))
            if file.ext in IMAGES
            and all(file.same.get(e) == scan.same.get(e) for e in ("space", "res"))
        ]
        if len(masks) > 1 and masks[-1].same == masks[-2].same:
            found = f"the same mask as {masks[-2].path.name}"
            raise InputError(masks[-1].path, found, "one of the two: remove the other")
        return masks[-1].path if masks else None

    def _fitting(self, scan: File, desc: str, suffixes: Sequence[str]) -> list[File]:
        """Returns the files whose entities are all in the scan's name, the best match last."""
        found = self._of[scan.acquisition, desc]
        fitting = [f for f in found if f.suffix in suffixes and f.fits(scan, ignored=("desc",))]
        return sorted(fitting, key=lambda file: len(file.same))


def masks(runs: Sequence[Run], paths: Sequence[pathlib.Path | None]) -> dict[str, Mask]:
    """Returns the voxels that are brain in all runs of a subject that have a mask.

    Args:
      runs: of the study.
      paths: the mask of each run, or None.

    Returns:
      Subject -> its mask, on the grid of its first run.

    Raises:
      InputError: a mask cannot be read, or has another grid than its run.
    """
    first: dict[str, Run] = {}
    found: dict[str, Mask] = {}
    for run, path in zip(runs, paths, strict=True):
        own = first.setdefault(run.subject, run)
        if path is None:
            continue
        mask, affine = _read(path)
        _turned(path, mask, affine, run)
        if grid.turn(run.affine, run.frames.shape[1:], own.affine, own.frames.shape[1:]) is None:
            continue  # such runs cannot be of one subject, which the cohort says
        found[run.subject] = found.get(run.subject, True) & _turned(path, mask, affine, own)
    return found


def _turned(path: pathlib.Path, mask: Mask, affine, run: Run) -> Mask:
    """Returns a mask on the grid of a run."""
    shape = run.frames.shape[1:]
    by = grid.turn(affine, mask.shape, run.affine, shape)
    if by is None:
        off = ""
        if mask.shape == shape:
            off = f", off by up to {grid.offset(affine, run.affine, shape):.3g} voxels"
        expected = f"the grid of its run, {shape}: {run.place} (or remove the mask)"
        raise InputError(path, f"a mask on another grid, {mask.shape}{off}", expected)
    return by.apply(mask)


def _read(path: pathlib.Path) -> tuple[Mask, np.ndarray]:
    """Returns a brain mask and its affine."""
    values, affine = nifti.read(path, "a brain mask")
    if values.ndim != 3:
        found = f"a mask of shape {values.shape}"
        raise InputError(path, found, "one [X, Y, Z] as its run")
    mask = values > 0
    if not mask.any():
        raise InputError(path, "a mask without voxels", "a brain mask")
    return mask, affine
