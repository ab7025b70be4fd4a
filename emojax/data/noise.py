"""The noise floor: the same runs, labels and anatomy, without any response."""

import dataclasses
import json

import jax
import numpy as np
from jaxtyping import Array, Float, Key
from scipy import ndimage

from emojax.data.cohort import Cohort
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError


def noise_like(
    key: Key[Array, ""], cohort: Cohort, store: Store, *, phi: float = 0.4, width: float = 0.85
) -> Cohort:
    """Returns the cohort with noise for values: the one noise floor of all experiments.

    Each run becomes, for every voxel and before any masking,

        x_t = mean + sd e_t    e_t = phi e_{t-1} + sqrt(1 - phi^2) w_t    e_0 = w_0

    with the voxel's own mean and sd in that run, and white noise w_t of mean 0 and sd 1, which
    starts anew in every run. In volumes, w_t is smoothed in space by a Gaussian and scaled back to
    sd 1; vectors have no space, so that their voxels are independent. Neighbouring volumes are
    alike, as in every scan, but labels explain nothing within a run. Voxels that are NaN or
    infinite in all volumes of a run are NaN, and do not touch their neighbours.

    Args:
      key: [] typed.
      cohort: volumes [X, Y, Z] or vectors [voxels]; rows of runs without TR are taken in order.
      store: the place of the noise, float32, mapped; another setting makes another entry.
      phi: correlation of neighbouring rows of a run, in (-1, 1); 0.4 is fMRI noise at a TR of 2 s.
      width: sd of the Gaussian in voxels; 0.85 is 2 voxels at half maximum, 0 is none.

    Returns:
      A cohort of the same labels, runs, frames, masks and priors.

    Raises:
      InputError: phi or width is out of range, or the disk is too small.
    """
    if not -1 < phi < 1:
        raise InputError("noise.phi", phi, "a correlation in (-1, 1)")
    if not 0 <= width < np.inf:
        raise InputError("noise.width", width, "a number of voxels >= 0")
    runs = []
    for i, run in enumerate(cohort.runs):
        seed = np.asarray(jax.random.key_data(jax.random.fold_in(key, i))).tolist()
        smoothing = float(width) if run.frames.ndim == 4 else 0.0
        recipe = ["noise 2", float(phi), smoothing, seed]
        name = json.dumps([*recipe, run.subject, run.name, run.content, run.frames.shape])
        frames = store.derived(
            name,
            run.frames.shape,
            np.float32,
            lambda out, r=run, s=seed, w=smoothing: _fill(out, r, s, phi, w),
        )
        runs.append(run.with_values(frames, json.dumps(recipe)))
    return dataclasses.replace(cohort, runs=tuple(runs))


def _fill(out: Float[np.ndarray, "t ..."], run: Run, seed: list[int], phi: float, width: float):
    """Writes the noise of one run, volume by volume."""
    rng, (mean, sd) = np.random.default_rng(seed), _moments(run)
    # A filter shrinks white noise by the root of its kernel's sum of squares.
    impulse = np.zeros(np.minimum(mean.shape, 2 * int(4 * width + 0.5) + 1))
    impulse[tuple(n // 2 for n in impulse.shape)] = 1
    shrunk = np.sqrt((_smooth(impulse, width) ** 2).sum())
    e = None
    for t in range(len(out)):
        w = _smooth(rng.standard_normal(mean.shape, np.float32), width) / shrunk
        e = w if e is None else phi * e + (1 - phi**2) ** 0.5 * w
        out[t] = mean + sd * e


def _smooth(volume: np.ndarray, width: float) -> np.ndarray:
    """Smooths over all axes, around the edges, so that the sd is the same in all places."""
    return ndimage.gaussian_filter(volume, width, mode="wrap") if width else volume


def _moments(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each voxel over the run, NaN where a voxel has no finite values."""
    total, squares, first = 0.0, 0.0, run.read([0])[0].astype(np.float64)
    first[~np.isfinite(first)] = np.nan
    for start in range(0, len(run.frames), 64):
        values = run.read(slice(start, start + 64)) - first
        total, squares = total + values.sum(0), squares + (values**2).sum(0)
    mean = total / len(run.frames)
    return first + mean, np.sqrt(np.maximum(squares / len(run.frames) - mean**2, 0))
