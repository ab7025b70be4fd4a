"""Spatial smoothing of single volumes."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from emojax.data import mapped
from emojax.data.cohort import Cohort
from emojax.data.run import Run
from emojax.data.scratch import Scratch
from emojax.data.store import Store
from emojax.errors import InputError

WIDTHS = float(np.sqrt(8 * np.log(2)))  # sd, full width at half maximum of a Gaussian


def apply(cohort: Cohort, store: Store, fwhm: float) -> Cohort:
    """Smooths every volume with a Gaussian, and keeps the result in the store.

    Each volume is smoothed by itself. No information passes between volumes, so this declares no
    prior.

    Args:
      cohort: volumes with an affine.
      store: store for the smoothed runs (float32).
      fwhm: full width at half maximum, mm; 0 for none.

    Raises:
      InputError: rows are vectors, or a run has no affine.
    """
    if not fwhm:
        return cohort
    runs = tuple(_smooth_run(run, store, fwhm) for run in cohort.runs)
    return dataclasses.replace(cohort, runs=runs)


def smooth(volume: Float[np.ndarray, "X Y Z"], sd: tuple[float, ...]) -> Float[np.ndarray, "X Y Z"]:
    """Returns a smoothed volume, the weighted mean of each voxel's neighbours.

    Neighbours outside the volume, and those that are NaN or infinite, do not count, so that a
    constant volume does not change.

    Args:
      volume: [X, Y, Z]; values that are not finite do not change.
      sd: standard deviation of the Gaussian along each axis, voxels.
    """
    there = np.isfinite(volume)
    weights = _gaussian(there.astype(np.float32), sd)
    total = _gaussian(np.where(there, volume, np.float32(0)), sd)
    with np.errstate(all="ignore"):
        return np.where(there, total / weights, volume)


def _gaussian(volume: np.ndarray, sd: tuple[float, ...]) -> np.ndarray:
    return ndimage.gaussian_filter(volume, sd, mode="constant")


def _smooth_run(run: Run, store: Store | Scratch, fwhm: float) -> Run:
    off = "volumes [X, Y, Z] with an affine (or --config.data.smooth_mm=0)"
    if run.frames.ndim != 4:
        raise InputError(run.place, f"rows of {run.frames.shape[1]} values without a place", off)
    if run.affine is None:
        raise InputError(run.place, "no affine, so that voxels have no size in mm", off)
    sizes = np.sqrt((np.asarray(run.affine, float)[:3, :3] ** 2).sum(0))
    sd = tuple((fwhm / WIDTHS / sizes).tolist())

    def fill(out: np.ndarray) -> None:
        for t in range(len(out)):
            out[t] = smooth(run.read([t])[0], sd)
        mapped.let_go(run.frames)

    recipe = f"smoothed 1 {sd}"
    key = f"{recipe} {run.subject} {run.name} {run.content}"
    frames = store.derived(key, run.frames.shape, np.float32, fill)
    return run.with_values(frames, recipe, functools.partial(_smooth_run, fwhm=fwhm))
