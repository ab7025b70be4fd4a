"""Cleaning of whole runs, each by itself. It is off by default, as the paper does none."""

import dataclasses
import functools
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from emojax.data import confounds as tables
from emojax.data import mapped, scrubbing
from emojax.data.cleaning_settings import Settings
from emojax.data.cohort import Cohort, Prior
from emojax.data.run import Run
from emojax.data.scratch import Scratch
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.files import split_list

BLOCK = 1 << 14  # voxels at a time
WIDTH = 16  # bases are padded to multiples of this width, so that runs share compiled programs


def cosines(num_volumes: int, tr: float, cutoff: float) -> Float[np.ndarray, "t n"]:
    """Returns the discrete cosines below a cutoff frequency, as in SPM and fMRIPrep.

    Args:
      num_volumes: number of volumes, t.
      tr: TR, s.
      cutoff: cutoff, Hz; the number of cosines is 2 t TR cutoff, rounded down.
    """
    count = min(int(2 * num_volumes * tr * cutoff + 1e-9), num_volumes - 1)
    time = (np.arange(num_volumes) + 0.5) / num_volumes
    return np.cos(np.pi * np.outer(time, np.arange(1, count + 1)))


def regressors(
    num_volumes: int,
    degree: int,
    motion: Float[np.ndarray, "t k"] | None = None,
    *,
    kept: Bool[np.ndarray, " t"] | None = None,
) -> Float[np.ndarray, "t r"]:
    """Returns an orthonormal basis of the regressors, without the mean.

    Args:
      num_volumes: number of volumes, t.
      degree: degree of the polynomial in time; 0 for none.
      motion: [t, k] other regressors, or None.
      kept: [t] False for volumes that get their own regressor (a spike), so that they do not
        influence the others; None keeps all.

    Returns:
      [t, r] float64, without linearly dependent columns.

    Raises:
      ValueError: the regressors would explain the whole run, or the degree is negative.
    """
    if degree < 0:
        raise ValueError(f"want a degree >= 0; got {degree}")
    if degree >= num_volumes:  # before so large a matrix is made
        raise ValueError(f"want more volumes than regressors; got {num_volumes} and {degree}")
    time = np.linspace(-1, 1, num_volumes)
    columns = [np.polynomial.legendre.legvander(time, degree)[:, 1:]]
    if motion is not None:
        columns.append(motion)
    if kept is not None:
        columns.append(np.eye(num_volumes)[:, ~kept])
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
    kept: Bool[jax.Array, " t"] | None = None,
    *,
    centre: bool = False,
    zscore: bool = False,
) -> Float[jax.Array, "t v"]:
    """Removes regressors from every voxel of one run; by default, the voxel's mean stays.

    x - B B'(x - mean), then (x - mean) / sd with sd over n (not n - 1), as in PyMVPA and
    scikit-learn's scaler. All regressors are removed in one step, since one after the other they
    would bring back each other's part (Lindquist et al., Human Brain Mapping 40, 2019).

    Args:
      x: [t, v], one run.
      basis: [t, r] orthonormal, from `regressors`; r may be 0.
      kept: [t] False for volumes that are ignored and set to the mean of the others; their spikes
        are in the basis. None keeps all.
      centre: whether to centre voxels.
      zscore: whether to scale voxels to mean 0 and sd 1; constant ones, up to rounding, become 0.

    Returns:
      [t, v].
    """
    count = len(x)
    if kept is None:
        mean = x.mean(0)
    else:
        count = kept.sum()
        mean = jnp.where(kept[:, None], x, 0).sum(0) / count
        x = jnp.where(kept[:, None], x, mean)
    centred = x - mean
    rest = centred - basis @ jnp.matmul(basis.T, centred, precision="highest")
    if not (centre or zscore):
        return rest + mean
    rest = rest - rest.mean(0)  # float32 rounds the first mean
    if not zscore:
        return rest
    sd = jnp.sqrt((rest**2).sum(0) / count)
    alive = sd > 8 * jnp.finfo(x.dtype).eps * jnp.abs(x).max(0)
    return jnp.where(alive, rest / jnp.where(alive, sd, 1), 0)


class _Done(NamedTuple):
    run: Run
    kept: Bool[np.ndarray, " t"] | None  # None for all
    removed: int  # number of regressors


def apply(cohort: Cohort, store: Store, **settings: Any) -> Cohort:
    """Cleans the runs of a cohort, a block of voxels at a time, and keeps them in the store.

    Args:
      cohort: runs that are time series.
      store: store for the cleaned runs (float32).
      **settings: fields of `Settings`.

    Returns:
      The cohort of the cleaned runs, which declares the prior "cleaning", since each run is cleaned
      with all of its values, including those of scored volumes. Scrubbing alone only removes
      labels. Without any cleaning, the cohort itself.

    Raises:
      InputError: a run has no realignment parameters or confounds, is not a time series, or is too
        short; or scrubbing leaves no volume of a class or a subject.
    """
    chosen = Settings(**settings)
    if not any(chosen):
        return cohort
    if chosen.confounds:
        tables.options(split_list(chosen.confounds))  # checks the names before anything is read
    done = [_clean_run(run, store, chosen) for run in cohort.runs]
    cohort = dataclasses.replace(cohort, runs=tuple(one.run for one in done))
    cohort = scrubbing.drop(cohort, [one.kept for one in done], chosen.scrub_fd_mm)
    if not any(chosen._replace(scrub_fd_mm=0.0)):
        return cohort
    notes, counts = cohort.notes, [one.removed for one in done]
    if max(counts):
        often = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else counts[0]
        notes = (*notes, f"{often} regressors removed from each run ({chosen.in_use})")
    return dataclasses.replace(cohort, prior=(*cohort.prior, Prior("cleaning")), notes=notes)


def _clean_run(run: Run, store: Store, settings: Settings) -> _Done:
    names, count = split_list(settings.confounds), len(run.frames)
    others: list[np.ndarray] = [np.zeros((count, 0))]
    kept, path = np.ones(count, bool), None
    if names or settings.scrub_fd_mm:
        path = tables.require(run) if names else run.confounds
    if path is not None:
        read = {str(part): store.hash(part) for part in tables.files(path)}
        run = dataclasses.replace(run, hashes={**run.hashes, **read})
    if settings.motion:
        if run.motion is None:
            expected = "six per volume for data.motion (or --config.data.motion=False)"
            raise InputError(run.place, "no realignment parameters", expected)
        others.append(run.motion)
    if names:
        assert path is not None  # by `require`
        found = tables.read(path, names, count)
        others.append(found.values)
        kept &= found.steady
    if settings.scrub_fd_mm:
        kept &= tables.displacement(run, path) <= settings.scrub_fd_mm
    for key in ("detrend", "high_pass_hz"):
        if getattr(settings, key) and run.tr is None:
            apart = "rows that are not points in time" if run.starts is None else "irregular times"
            raise InputError(run.place, apart, f"runs with one TR (or --config.data.{key}=0)")
    if settings.high_pass_hz:
        assert run.tr is not None  # checked above
        others.append(cosines(count, run.tr, settings.high_pass_hz))
    spikes = None if kept.all() else kept
    if not kept.any() or not any(settings._replace(scrub_fd_mm=0.0)):
        return _Done(run, spikes, 0)
    try:
        basis = regressors(count, settings.detrend, np.concatenate(others, 1), kept=spikes)
    except ValueError as error:
        raise InputError(
            run.place, str(error), f"a longer run, or less {settings.in_use}"
        ) from None
    cleaned = _project(run, store, settings=settings, basis=basis, kept=spikes)
    return _Done(cleaned, spikes, basis.shape[1] - int((~kept).sum()))


def _project(
    run: Run,
    store: Store | Scratch,
    *,
    settings: Settings,
    basis: Float[np.ndarray, "t r"],
    kept: Bool[np.ndarray, " t"] | None,
) -> Run:
    """Returns the run with cleaned values."""
    step = max(1, BLOCK // int(np.prod(run.frames.shape[1:-1])))
    few = basis.shape[1] < WIDTH  # wider bases have spikes, whose number differs between runs
    wide = np.pad(basis, ((0, 0), (0, 0 if few else -basis.shape[1] % WIDTH)))
    centre, zscore = settings.centre, settings.zscore

    def fill(out: np.ndarray) -> None:
        columns = jnp.asarray(wide, jnp.float32)
        for start in range(0, out.shape[-1], step):  # the slowest axis on disk
            block = run.read(slice(None), (..., slice(start, start + step)))
            flat = block.reshape(len(block), -1)
            done = clean(flat, columns, kept, centre=centre, zscore=zscore)
            out[..., start : start + step] = np.asarray(done).reshape(block.shape)
        mapped.let_go(run.frames)

    removed = hashlib.sha256(basis.tobytes()).hexdigest()
    without = "" if kept is None else f" without {np.flatnonzero(~kept).tolist()}"
    recipe = f"cleaned 2 {centre} {zscore} {removed}{without}"
    key = f"{recipe} {run.subject} {run.name} {run.content}"
    frames = store.derived(key, run.frames.shape, np.float32, fill)
    again = functools.partial(_project, settings=settings, basis=basis, kept=kept)
    return run.with_values(frames, recipe, again)
