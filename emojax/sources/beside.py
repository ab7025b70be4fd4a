"""Files that fMRIPrep writes beside a run: its confounds and its brain mask."""

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
    """The derived files of a data set, grouped by acquisition."""

    def __init__(self, files: Iterable[File]):
        """Groups files.

        Args:
          files: all files of the data set.
        """
        self._of = collections.defaultdict(list)
        for file in files:
            self._of[file.acquisition, file.same.get("desc")].append(file)

    def confounds(self, scan: File) -> pathlib.Path | None:
        """Returns the table of confounds of a run, or None. It is the same in all spaces.

        Args:
          scan: BOLD image of the run.

        Raises:
          InputError: two tables have equivalent names, such as run-1 and run-01.
        """
        suffixes = ("regressors", "timeseries")  # the older name first, since the last one counts
        tables = [f for f in self._fitting(scan, "confounds", suffixes) if f.ext == ".tsv"]
        tables.sort(key=lambda file: suffixes.index(file.suffix))
        return _last(tables, "confounds", scan)

    def mask(self, scan: File) -> pathlib.Path | None:
        """Returns the brain mask of a run in its space and resolution, or None.

        Args:
          scan: BOLD image of the run.

        Raises:
          InputError: two masks have equivalent names.
        """
        masks = [
            file
            for file in self._fitting(scan, "brain", ("mask",))
            if file.ext in IMAGES
            and all(file.same.get(e) == scan.same.get(e) for e in ("space", "res"))
        ]
        return _last(masks, "a mask", scan)

    def _fitting(self, scan: File, desc: str, suffixes: Sequence[str]) -> list[File]:
        """Returns the files whose entities all occur in the scan's name, the best match last."""
        found = self._of[scan.acquisition, desc]
        fitting = [f for f in found if f.suffix in suffixes and f.fits(scan, ignored=("desc",))]
        return sorted(fitting, key=lambda file: len(file.same))


def _last(files: Sequence[File], noun: str, scan: File) -> pathlib.Path | None:
    """Returns the last file, which matches the scan best; None without files."""
    if not files:
        return None
    *others, best = files
    if others and (others[-1].same, others[-1].suffix) == (best.same, best.suffix):
        found = f"{noun} of {scan.label}, as {others[-1].path}"
        raise InputError(best.path, found, "one of the two files: remove the other")
    return best.path


def masks(runs: Sequence[Run], paths: Sequence[pathlib.Path | None]) -> dict[str, Mask]:
    """Returns each subject's mask: the voxels inside the masks of all its runs that have one.

    Args:
      runs: runs of the study.
      paths: path of the mask of each run, or None.

    Returns:
      Subject -> mask, on the grid of the subject's first run.

    Raises:
      InputError: a mask cannot be read, or is on another grid than its run.
    """
    first: dict[str, Run] = {}
    found: dict[str, Mask] = {}
    for run, path in zip(runs, paths, strict=True):
        own = first.setdefault(run.subject, run)
        if path is None:
            continue
        mask, affine = _read(path)
        _turn_mask(path, mask, affine, run)
        if grid.turn(run.affine, run.frames.shape[1:], own.affine, own.frames.shape[1:]) is None:
            continue  # runs on different grids: `cohort.build` refuses them
        found[run.subject] = found.get(run.subject, True) & _turn_mask(path, mask, affine, own)
    return found


def _turn_mask(path: pathlib.Path, mask: Mask, affine, run: Run) -> Mask:
    """Reorders the axes of a mask to match the grid of a run."""
    shape = run.frames.shape[1:]
    by = grid.turn(affine, mask.shape, run.affine, shape)
    if by is None:
        off = ""
        if mask.shape == shape and run.affine is not None:
            off = f", off by up to {grid.offset(affine, run.affine, shape):.3g} voxels"
        expected = f"the grid of its run, {shape}: {run.place} (or remove the mask)"
        raise InputError(path, f"a mask on another grid, {mask.shape}{off}", expected)
    return by.apply(mask)


def _read(path: pathlib.Path) -> tuple[Mask, np.ndarray]:
    """Returns a brain mask and its affine."""
    values, affine = nifti.read_volume(path, "a brain mask")
    mask = values > 0
    if not mask.any():
        raise InputError(path, "a mask without voxels", "a brain mask")
    return mask, affine
