"""Regions of interest, given by an image or by labels of an atlas."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from typing import cast

import numpy as np
from jaxtyping import Bool, Float

from emojax.data import grid, hashes, nifti
from emojax.data.cohort import Cohort
from emojax.data.run import Rows, Run
from emojax.errors import InputError

KEY = "data.mask"
WANTED = "an image as --config.data.mask=ROI.nii.gz, or labels of one as ATLAS.nii.gz:17|18"
LABELS = re.compile(r"(.+?):(-?\d+(?:\|-?\d+)*)", re.DOTALL)


def apply(cohort: Cohort, mask: str, root: str | os.PathLike = "") -> Cohort:
    """Restricts every subject to the voxels of a region.

    Args:
      cohort: a cohort of volumes.
      mask: path of an image whose non-zero voxels form the region, or "ATLAS.nii.gz:17|18" for
        those of some labels; absolute, or relative to `root` or the current folder.
      root: folder of the study.

    Returns:
      The cohort with the region as each subject's mask, within its own brain mask if it has one.
      The hash of the image's file is added to every run's.

    Raises:
      InputError: rows are vectors; the image cannot be read, lacks a label, has another grid than a
        subject's volumes, or contains no voxel of a subject.
    """
    path, labels = _parse(mask, root)
    inside, affine = read(path, labels)
    files = {str(part): hashes.sha256(part) for part in nifti.parts(path)}
    first = {run.subject: run for run in reversed(cohort.runs)}
    masks, turned = {}, {}
    for subject, run in sorted(first.items()):
        turn = _turn(inside, affine, path, run)
        own = turned.setdefault(turn, turn.apply(inside))  # most subjects share one
        if (brain := cohort.masks.get(subject)) is not None:
            own = own & brain
        if not own.any():
            expected = f"some voxels of its brain mask in it, by {KEY}"
            raise InputError(path, f"no voxel of subject {subject}", expected)
        masks[subject] = own
    runs = tuple(dataclasses.replace(run, hashes={**run.hashes, **files}) for run in cohort.runs)
    return dataclasses.replace(cohort, runs=runs).with_masks(masks)


def cut(cohort: Cohort) -> Cohort:
    """Sets all voxels outside each subject's mask to 0, for networks of whole volumes.

    This happens when volumes are read, without a copy. Subjects without a mask are unchanged.
    """
    runs = tuple(_cut(run, mask=cohort.masks.get(run.subject)) for run in cohort.runs)
    return dataclasses.replace(cohort, runs=runs)


class _Inside:
    """The volumes of a run with 0 outside a mask; has the part of an array that `Run` needs."""

    dtype, ndim = np.dtype(np.float32), 4

    def __init__(self, run: Run, mask: Bool[np.ndarray, "X Y Z"]):
        self.shape = run.frames.shape
        self._run, self._mask = run, mask

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> Float[np.ndarray, "k X Y Z"]:
        return np.where(self._mask, self._run.read(rows), np.float32(0))

    def tobytes(self) -> bytes:
        """Returns all values, for the hash of a run without files."""
        return self[:].tobytes()


def _cut(run: Run, store: object = None, *, mask: Bool[np.ndarray, "X Y Z"] | None) -> Run:
    if mask is None:
        return run
    recipe = f"0 outside of {hashlib.sha256(np.packbits(mask).data).hexdigest()}"
    values = cast(np.ndarray, _Inside(run, mask))  # all of an array that a run reads
    return run.with_values(values, recipe, functools.partial(_cut, mask=mask))


def read(
    path: pathlib.Path, labels: tuple[int, ...] = ()
) -> tuple[Bool[np.ndarray, "X Y Z"], Float[np.ndarray, "4 4"]]:
    """Returns the voxels of a region and their affine.

    Args:
      path: an image [X, Y, Z], or [X, Y, Z, 1].
      labels: labels of the region's voxels; () for all that are not 0.

    Raises:
      InputError: the file is not such an image, has no voxel, has labels that are not whole
        numbers, or lacks a label.
    """
    values, affine = nifti.read_volume(path, WANTED)
    whole = np.nan_to_num(values, posinf=0, neginf=0)
    inside = whole != 0
    if labels:
        there = np.unique(whole[inside])
        if (there != np.round(there)).any():
            found = f"values such as {there[there != np.round(there)][0]:g}"
            raise InputError(path, found, f"whole numbers, of which {KEY} names some")
        if missing := [label for label in labels if label not in there]:
            listed = ", ".join(f"{label:.0f}" for label in there)
            raise InputError(path, f"no label {missing[0]}", f"labels of {listed} in {KEY}")
        inside = np.isin(whole, labels)
    if not inside.any():
        raise InputError(path, "no voxel that is not 0", WANTED)
    return inside, affine


def _parse(mask: str, root: str | os.PathLike) -> tuple[pathlib.Path, tuple[int, ...]]:
    """Returns the path and the labels that the setting names."""
    found = None if os.path.exists(mask) else LABELS.fullmatch(mask)
    name, numbers = found.groups() if found else (mask, "")
    places = [pathlib.Path(root, name), pathlib.Path(name)] if root else [pathlib.Path(name)]
    path = next((place for place in places if os.path.lexists(place)), None)
    if path is None:
        tried = " or ".join(dict.fromkeys(map(str, places)))
        raise InputError(KEY, f"{mask!r}, but no file {tried}", WANTED)
    return path, tuple(map(int, filter(None, numbers.split("|"))))


def _turn(
    inside: Bool[np.ndarray, "X Y Z"],
    affine: Float[np.ndarray, "4 4"],
    path: pathlib.Path,
    run: Run,
) -> grid.Turn:
    """Returns the turn of the region onto the grid of a run."""
    shape = run.frames.shape[1:]
    if len(shape) != 3:
        found = f"rows of {shape[0]} values without a place"
        raise InputError(
            run.place, found, f"volumes [X, Y, Z] for {KEY} (or --config.data.mask='')"
        )
    turn = grid.turn(affine, inside.shape, run.affine, shape)
    if turn is None:
        there, wanted = grid.describe(affine, inside.shape), grid.describe(run.affine, shape)
        expected = f"{wanted}, as {run.place} (nilearn.image.resample_to_img resamples it)"
        raise InputError(path, f"a region of {there}", expected)
    return turn
