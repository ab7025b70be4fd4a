"""Cleaning of whole runs, each by itself. The paper does none; all of it is off by default."""

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from emojax.data.cohort import Cohort, Prior
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError

BLOCK = 1 << 14  # voxels at a time


def regressors(
    num_volumes: int, degree: int, motion: Float[np.ndarray, "t k"] | None = None
) -> Float[np.ndarray, "t r"]:
    """Returns an orthonormal basis of what is removed: polynomials in time, motion; no mean.

    Args:
      num_volumes: t.
      degree: degree of the polynomial; 0 is none.
      motion: [t, k] other regressors, or None.

    Returns:
      [t, r] float64; columns that the others explain are left out.

    Raises:
      ValueError: nothing would be left of the run, or the degree is negative.
    """
    if degree < 0:
        raise ValueError(f"want a degree >= 0; got {degree}")
    if degree >= num_volumes:  # before as many columns are made
        raise ValueError(f"want more volumes than regressors; got {num_volumes} and {degree}")
    time = np.linspace(-1, 1, num_volumes)
    columns = [np.polynomial.legendre.legvander(time, degree)[:, 1:]]
    if motion is not None:
        columns.append(motion)
    x = np.concatenate(columns, axis=1)
    x = x - x.mean(0)
    x = x / np.where(x.std(0) > 0, x.std(0), 1)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    basis = u[:, s > 1e-9 * max(1, s.max(initial=0))]
    if basis.shape[1] + 1 >= num_volumes:
        raise ValueError(
            f"want more volumes than regressors; got {num_volumes} and {basis.shape[1]}"
        )
    return basis


@functools.partial(jax.jit, static_argnames=("centre", "zscore"))
def clean(
    x: Float[jax.Array, "t v"],
    basis: Float[jax.Array, "t r"],
    *,
    centre: bool = False,
    zscore: bool = False,
) -> Float[jax.Array, "t v"]:
    """Removes regressors from every voxel of one run; the voxel's mean stays unless told otherwise.

    x - B B'(x - mean), then (x - mean) / sd with sd over n (not n - 1), as PyMVPA and
    scikit-learn's scaler have it. All regressors go in one step: one after the other they would
    bring each other's part back (Lindquist et al., Human Brain Mapping 40, 2019).

    Args:
      x: [t, v], one run.
      basis: [t, r] orthonormal, from `regressors`; r may be 0.
      centre: to mean 0.
      zscore: to mean 0 and sd 1; a voxel that is constant, up to rounding, becomes 0.

    Returns:
      [t, v].
    """
    mean = x.mean(0)
    centred = x - mean
    rest = centred - basis @ jnp.matmul(basis.T, centred, precision="highest")
    if not (centre or zscore):
        return rest + mean
    rest = rest - rest.mean(0)  # float32 rounds the first mean
    if not zscore:
        return rest
    sd = jnp.sqrt((rest**2).mean(0))
    alive = sd > 8 * jnp.finfo(x.dtype).eps * jnp.abs(x).max(0)
    return jnp.where(alive, rest / jnp.where(alive, sd, 1), 0)


def apply(
    cohort: Cohort,
    store: Store,
    *,
    detrend: int = 0,
    centre: bool = False,
    zscore: bool = False,
    motion: bool = False,
) -> Cohort:
    """Cleans the runs of a cohort, once into the store, a block of voxels at a time.

    Args:
      cohort: runs in time.
      store: the place of the cleaned runs, float32.
      detrend: degree of the polynomial, 0 for none.
      centre: whether voxels are centred within the run.
      zscore: whether they are z-scored within the run.
      motion: whether the realignment parameters are regressed out.

    Returns:
      The cohort of the cleaned runs, which declares the prior "cleaning": each run is cleaned with
      all of its values, those of scored volumes too. Without any cleaning, the cohort itself.

    Raises:
      InputError: a run has no realignment parameters, is not in time, or is too short.
    """
    if not (detrend or centre or zscore or motion):
        return cohort
    runs = tuple(_cleaned(run, store, detrend, centre, zscore, motion) for run in cohort.runs)
    return dataclasses.replace(cohort, runs=runs, prior=(*cohort.prior, Prior("cleaning")))


def _cleaned(run: Run, store: Store, detrend, centre, zscore, motion) -> Run:
    if motion and run.motion is None:
        raise InputError(run.place, "no realignment parameters", "six per volume for data.motion")
    if detrend and run.tr is None:
        raise InputError(run.place, "rows that are not points in time", "runs for data.detrend")
    try:
        basis = regressors(len(run.frames), detrend, run.motion if motion else None)
    except ValueError as error:
        raise InputError(run.place, str(error), "a longer run or less cleaning") from None
    step = max(1, BLOCK // int(np.prod(run.frames.shape[1:-1])))

    def fill(out):
        for start in range(0, out.shape[-1], step):  # the axis that is slowest on disk
            block = run.read(slice(None), (..., slice(start, start + step)))
            flat = block.reshape(len(block), -1)
            done = clean(flat, jnp.asarray(basis, jnp.float32), centre=centre, zscore=zscore)
            out[..., start : start + step] = np.asarray(done).reshape(block.shape)

    settings = hashlib.sha256(basis.tobytes()).hexdigest()  # degree and motion
    recipe = f"cleaned 2 {centre} {zscore} {settings}"
    key = f"{recipe} {run.subject} {run.name} {run.content}"
    return run.with_values(store.derived(key, run.frames.shape, np.float32, fill), recipe)
