"""The noise floor of volumes: the same runs, blocks and anatomy, without any response."""

import dataclasses
import json

import jax
import numpy as np
from scipy import ndimage

from emojax.data.cohort import Cohort, Run
from emojax.data.store import Store

PHI = 0.4  # AR(1) of fMRI noise at a TR of 2 s
WIDTH = 0.85  # voxels, sd of the Gaussian that makes neighbours alike: 2 voxels at half maximum


def noise_like(key: jax.Array, cohort: Cohort, store: Store) -> Cohort:
    """A cohort whose runs have each voxel's mean and sd, and otherwise only noise.

    x_t = mean + sd e_t, e_t = phi e_{t-1} + sqrt(1 - phi^2) w_t, w_t smooth in space with sd 1.
    Neighbouring volumes are alike whatever is shown, as in every scan; labels explain nothing.

    Args:
      key: [] typed.
      cohort: of volumes [X, Y, Z].
      store: where the noise is kept, float32, mapped.
    """
    runs = []
    for i, run in enumerate(cohort.runs):
        seed = np.asarray(jax.random.key_data(jax.random.fold_in(key, i))).tolist()
        name = json.dumps(["noise 1", PHI, WIDTH, seed, dict(run.hashes), run.frames.shape])
        frames = store.derived(
            name, run.frames.shape, np.float32, lambda out, r=run, s=seed: _fill(out, r, s)
        )
        runs.append(dataclasses.replace(run, frames=frames, slope=1.0, intercept=0.0))
    return dataclasses.replace(cohort, runs=tuple(runs))


def _fill(out: np.ndarray, run: Run, seed: list[int]) -> None:
    rng, (mean, sd) = np.random.default_rng(seed), _moments(run)
    # A filter shrinks white noise by the root of its kernel's sum of squares.
    impulse = np.zeros(np.minimum(mean.shape, 17))
    impulse[tuple(n // 2 for n in impulse.shape)] = 1
    shrunk = np.sqrt((_smooth(impulse) ** 2).sum())
    e = None
    for t in range(len(out)):
        w = _smooth(rng.standard_normal(mean.shape, np.float32)) / shrunk
        e = w if e is None else PHI * e + (1 - PHI**2) ** 0.5 * w
        out[t] = mean + sd * e


def _smooth(volume):
    return ndimage.gaussian_filter(volume, WIDTH, mode="wrap")


def _moments(run: Run) -> tuple[np.ndarray, np.ndarray]:
    total, squares, first = 0.0, 0.0, run.read([0])[0].astype(np.float64)
    for start in range(0, len(run.frames), 64):
        values = run.read(slice(start, start + 64)) - first
        total, squares = total + values.sum(0), squares + (values**2).sum(0)
    mean = total / len(run.frames)
    return first + mean, np.sqrt(np.maximum(squares / len(run.frames) - mean**2, 0))
