"""Smoothing in space, each volume by itself."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from emojax.data import mapped
from emojax.data.cohort import Cohort
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError

WIDTHS = np.sqrt(8 * np.log(2))  # full width at half maximum of a Gaussian, in sd


def apply(cohort: Cohort, store: Store, fwhm: float) -> Cohort:
    """Smooths every volume with a Gaussian, once into the store.

    A volume is smoothed by itself, so that this declares no prior: nothing of one volume is in
    another.

    Args:
      cohort: volumes with an affine.
      store: the place of the smoothed runs, float32.
      fwhm: mm, full width at half maximum; 0 is none.

    Raises:
      InputError: rows are vectors, or a run has no affine.
    """
    if not fwhm:
        return cohort
    runs = tuple(_smooth_run(run, store, fwhm) for run in cohort.runs)
    return dataclasses.replace(cohort, runs=runs)


def smooth(volume: Float[np.ndarray, "X Y Z"], sd: tuple[float, ...]) -> Float[np.ndarray, "X Y Z"]:
    """Returns the weighted mean of each voxel's neighbours, among those that are there.

    Neighbours outside of the volume, and those that are NaN or infinite, do not count: a constant
    volume stays as it is.

    Args:
      volume: [X, Y, Z]; what is not finite stays as it is.
      sd: of the Gaussian along each axis, in voxels.
    """
    there = np.isfinite(volume)
    weights = _gaussian(there.astype(np.float32), sd)
    total = _gaussian(np.where(there, volume, np.float32(0)), sd)
    with np.errstate(all="ignore"):
        return np.where(there, total / weights, volume)


def _gaussian(volume: np.ndarray, sd) -> np.ndarray:
    return ndimage.gaussian_filter(volume, sd, mode="constant")


def _smooth_run(run: Run, store: Store, fwhm: float) -> Run:
    off = "volumes [X, Y, Z] with an affine (or --config.data.smooth_mm=0)"
    if run.frames.ndim != 4:
        raise InputError(run.place, f"rows of {run.frames.shape[1]} values without a place", off)
    if run.affine is None:
        raise InputError(run.place, "no affine, so that voxels have no size in mm", off)
    sizes = np.sqrt((np.asarray(run.affine, float)[:3, :3] ** 2).sum(0))
    sd = tuple((fwhm / WIDTHS / sizes).tolist())

    def fill(out):
        for t in range(len(out)):
            out[t] = smooth(run.read([t])[0], sd)
        mapped.let_go(run.frames)

    recipe = f"smoothed 1 {sd}"
    key = f"{recipe} {run.subject} {run.name} {run.content}"
    frames = store.derived(key, run.frames.shape, np.float32, fill)
    return run.with_values(frames, recipe, functools.partial(_smooth_run, fwhm=fwhm))
