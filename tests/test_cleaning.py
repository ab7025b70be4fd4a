"""Cleaning of runs against nilearn and least squares, and what must not change."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from nilearn import signal

from emojax import sources
from emojax.data import cleaning
from emojax.data.cohort import Prior, build
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError

T = 40


def make(dtype=np.float32):
    rng = np.random.default_rng(0)
    time = np.linspace(0, 1, T)[:, None]
    motion = rng.normal(size=(T, 6)).cumsum(0)
    x = 800 + rng.normal(0, 5, (T, 12)) + 40 * time + motion @ rng.normal(size=(6, 12))
    return x.astype(dtype), motion


@pytest.mark.parametrize("with_motion", [False, True])
def test_agrees_with_nilearn(dtype, with_motion):
    x, motion = make(dtype)
    basis = cleaning.regressors(T, 1, motion if with_motion else None)
    got = cleaning.clean(jnp.asarray(x), jnp.asarray(basis, dtype), zscore=True)
    confounds = np.column_stack([np.arange(T), motion]) if with_motion else np.arange(T)[:, None]
    want = signal.clean(
        x.astype(np.float64),
        detrend=False,
        standardize="zscore_sample",
        confounds=confounds,
        ensure_finite=False,
    )
    want *= np.sqrt(T / (T - 1))  # its sd is over n - 1
    np.testing.assert_allclose(got, want, atol=1e-9 if dtype == np.float64 else 2e-3)


def test_residuals_of_least_squares_with_the_mean_kept(dtype):
    x, motion = make(dtype)
    got = cleaning.clean(jnp.asarray(x), jnp.asarray(cleaning.regressors(T, 2, motion), dtype))
    time = np.arange(T)[:, None]
    design = np.column_stack([np.ones(T), time, time**2, motion])
    want = x - design @ np.linalg.lstsq(design, x.astype(np.float64), rcond=None)[0] + x.mean(0)
    np.testing.assert_allclose(got, want, rtol=1e-10 if dtype == np.float64 else 1e-5)


def test_cleaning_twice_is_cleaning_once():
    x, motion = make(np.float32)
    basis = jnp.asarray(cleaning.regressors(T, 2, motion), jnp.float32)
    once = cleaning.clean(jnp.asarray(x), basis, zscore=True)
    np.testing.assert_allclose(cleaning.clean(once, basis, zscore=True), once, atol=1e-5)


def test_constant_voxel_becomes_zero_and_repeated_regressors_do_not_matter():
    x, motion = make(np.float32)
    x[:, 3] = 800.1
    basis = cleaning.regressors(T, 1, np.column_stack([motion, motion[:, :2], np.ones(T)]))
    assert basis.shape == (T, 7)
    got = cleaning.clean(jnp.asarray(x), jnp.asarray(basis, jnp.float32), zscore=True)
    assert (got[:, 3] == 0).all() and np.isfinite(got).all()


def test_refuses_a_run_that_is_too_short():
    with pytest.raises(ValueError, match="want more volumes than regressors; got 8 and 7"):
        cleaning.regressors(8, 1, np.random.default_rng(0).normal(size=(8, 6)))
    with pytest.raises(ValueError, match="want a degree >= 0; got -1"):
        cleaning.regressors(8, -1)


def make_cohort(**changes):
    frames = np.random.default_rng(1).integers(0, 900, (T, 4, 3, 5)).astype(np.int16)
    run = Run("01", "run-1", frames, 2.0, np.eye(4), 0.5, 3.0, make()[1])
    return build([dataclasses.replace(run, **changes)], ("a", "b"), [np.arange(T) % 2])


def test_whole_runs_are_cleaned_into_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "BLOCK", 24)  # several blocks
    c, store = make_cohort(), Store(tmp_path)
    got = cleaning.apply(c, store, detrend=2, zscore=True, motion=True)
    x = (c.runs[0].frames * 0.5 + 3).reshape(T, -1)
    basis = cleaning.regressors(T, 2, c.runs[0].motion)
    want = cleaning.clean(jnp.asarray(x, jnp.float32), jnp.asarray(basis, jnp.float32), zscore=True)
    np.testing.assert_allclose(got.volumes[:].reshape(T, -1), want, atol=1e-5)
    assert got.prior == (Prior("cleaning"),) and not got.prior[0].labels
    assert got.runs[0].content != c.runs[0].content
    assert cleaning.apply(c, store, detrend=0, zscore=False, motion=False) is c
    assert len(list(tmp_path.glob("*.npy"))) == 1
    cleaning.apply(c, store, detrend=2, zscore=True, motion=True)
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_a_replaced_volume_is_cleaned_anew(tmp_path):
    c, store = make_cohort(hashes={"a": "b"}), Store(tmp_path)
    first = cleaning.apply(c, store, zscore=True).volumes[:]
    other = cleaning.apply(c.replace_row(3, np.zeros(c.shape)), store, zscore=True).volumes[:]
    assert (other[3] < first[3]).all()
    np.testing.assert_array_equal(cleaning.apply(c, store, zscore=True).volumes[:], first)


def test_what_cleaning_needs(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(InputError, match="no realignment parameters"):
        cleaning.apply(make_cohort(motion=None), store, detrend=0, zscore=False, motion=True)
    with pytest.raises(InputError, match="not points in time"):
        cleaning.apply(make_cohort(tr=None), store, detrend=1, zscore=False, motion=False)


def test_is_off_by_default_and_reached_from_the_config(config, shared):
    config.data.source, config.data.root = "bids", str(shared("data/bids-haxby-1slice"))
    config.data.runs, config.data.hrf_delay_s = "1", 0.0
    raw = sources.load(config).volumes[:]
    config.data.detrend, config.data.zscore = 1, True
    cleaned = sources.load(config)
    assert raw.mean() > 100 and abs(cleaned.volumes[:].mean()) < 0.5
    whole = cleaned.runs[0].frames
    np.testing.assert_allclose(whole.mean(0), 0, atol=1e-4)
