"""Cleaning of runs against nilearn and least squares, and what must not change."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import pytest
from nilearn import signal
from nilearn.glm.first_level import design_matrix
from test_confounds import make_table, write

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


# high-pass


@pytest.mark.parametrize(
    ("t", "tr", "cutoff"), [(120, 2.0, 0.01), (333, 0.8, 0.0078125), (40, 2, 0)]
)
def test_cosines_are_those_of_nilearn(t, tr, cutoff):
    got = cleaning.cosines(t, tr, cutoff)
    assert got.shape[1] == int(2 * t * tr * cutoff)
    if cutoff:
        want = design_matrix.create_cosine_drift(cutoff, np.arange(t) * tr)[:, :-1]
        np.testing.assert_allclose(got * np.sqrt(2 / t), want, atol=1e-12)


def test_slow_drifts_go_and_the_response_stays(tmp_path):
    time = np.arange(T) * 2.0
    slow, fast = np.cos(np.pi * (time + 1) / 80), np.sin(2 * np.pi * time / 20)
    frames = (100 + 8 * slow + fast)[:, None] * np.ones((1, 3))
    run = Run("01", "run-1", frames.astype(np.float32), 2.0)
    cohort = build([run], ("a", "b"), [np.arange(T) % 2])
    got = cleaning.apply(cohort, Store(tmp_path), high_pass_hz=0.02)
    left = got.volumes[:][:, 0] - 100
    assert np.corrcoef(left, fast)[0, 1] > 0.95 and np.ptp(left) < 4
    assert got.prior == (Prior("cleaning"),)
    assert got.notes == ("3 regressors removed from each run (data.high_pass_hz=0.02)",)


def test_a_filter_needs_times_and_leaves_something(tmp_path):
    apply = functools.partial(cleaning.apply, store=Store(tmp_path))
    with pytest.raises(InputError, match=r"not points in time; .*--config.data.high_pass_hz=0"):
        apply(make_cohort(tr=None), high_pass_hz=0.01)
    with pytest.raises(InputError, match="found irregular times"):
        apply(make_cohort(tr=None, starts=np.arange(T) ** 1.1), high_pass_hz=0.01)
    with pytest.raises(InputError, match=r"got 40 and 39; .*less data.high_pass_hz=0.5"):
        apply(make_cohort(), high_pass_hz=0.5)


# scrubbing


def test_scrubbed_volumes_do_not_influence_the_others():
    """Cleaning equals a regression on the kept volumes only, for every option."""
    x, motion = make(np.float64)
    kept = np.ones(T, bool)
    kept[[0, 11, 12, 30]] = False
    time = np.arange(T)[:, None]
    design = np.column_stack([np.ones(T), time, motion])[kept]
    residuals = x[kept] - design @ np.linalg.lstsq(design, x[kept], rcond=None)[0]
    basis = jnp.asarray(cleaning.regressors(T, 1, motion, kept=kept), jnp.float32)
    wild = x.copy()
    wild[~kept] = 1e6 * np.random.default_rng(5).normal(size=(4, 12))
    for values in (x, wild):
        single = jnp.asarray(values, jnp.float32)
        plain = cleaning.clean(single, basis, kept)
        np.testing.assert_allclose(plain[kept], residuals + x[kept].mean(0), rtol=1e-5)
        scored = cleaning.clean(single, basis, kept, zscore=True)
        np.testing.assert_allclose(scored[kept], residuals / residuals.std(0), atol=5e-3)
        np.testing.assert_allclose(scored[~kept], 0, atol=1e-4)
    first, second = (cleaning.clean(jnp.asarray(v, jnp.float32), basis, kept) for v in (x, wild))
    np.testing.assert_array_equal(first, second)


def still(*moved):
    """Returns parameters of a head that moves 1 mm away at these volumes, and stays there."""
    motion = np.zeros((T, 6))
    for t in moved:
        motion[t:, 1] += 1
    return motion


def test_volumes_of_a_moving_head_get_no_label(tmp_path):
    cohort = make_cohort(motion=still(5, 9))
    got = cleaning.apply(cohort, Store(tmp_path), scrub_fd_mm=0.9)
    assert got.prior == () and got.runs[0].frames is cohort.runs[0].frames  # labels go, values stay
    assert got.frame.tolist() == [t for t in range(T) if t not in (5, 9)]
    np.testing.assert_array_equal(got.labels, got.frame % 2)
    said = f"2 of {T} volumes scrubbed (framewise displacement above 0.9 mm), 2 of {T} labelled"
    assert got.notes == (f"{said} ones among them",)
    assert cleaning.apply(cohort, Store(tmp_path), scrub_fd_mm=1.1).notes == ()
    both = cleaning.apply(cohort, Store(tmp_path), scrub_fd_mm=0.9, centre=True)
    assert both.prior == (Prior("cleaning"),) and len(both.labels) == T - 2
    np.testing.assert_allclose(both.volumes[:].mean(0), 0, atol=1e-3)
    whole = cleaning.apply(cohort, Store(tmp_path), centre=True)
    assert both.runs[0].content != whole.runs[0].content


def test_scrubbing_may_not_take_a_class_or_a_subject(tmp_path):
    apply = functools.partial(cleaning.apply, store=Store(tmp_path), scrub_fd_mm=0.5)
    odd = still(*range(0, T))  # moves all the time
    with pytest.raises(
        InputError,
        match=r"data.scrub_fd_mm=0.5: found no volume left of class 'b'; expected a larger one, "
        "such as --config.data.scrub_fd_mm=1, or a --config.data.label_map without the class",
    ):
        apply(make_cohort(motion=still(*range(1, T, 2))))
    runs = [
        dataclasses.replace(make_cohort().runs[0], subject=name, frames=frames, motion=motion)
        for name, frames, motion in zip(
            ("01", "02"),
            np.random.default_rng(3).normal(size=(2, T, 9)),
            (still(), odd),
            strict=True,
        )
    ]
    two = build(
        [dataclasses.replace(run, affine=None) for run in runs], "ab", [np.arange(T) % 2] * 2
    )
    moving = two.runs[1].motion
    moving[0] = -9  # the first volume has no displacement
    two = two.select(two.frame > 0)
    with pytest.raises(
        InputError,
        match=r"no volume left of subject '02'; expected a larger one, .*data.subjects=01$",
    ):
        apply(two)
    with pytest.raises(InputError, match=r"no realignment parameters.*framewise_displacement"):
        apply(make_cohort(motion=None))


# confounds


def test_confounds_are_one_regression_with_the_rest(tmp_path):
    run = write(tmp_path / "study", table := make_table(steady=1))
    frames = np.random.default_rng(4).normal(500, 9, (T, 3, 2, 2)).astype(np.float32)
    run = dataclasses.replace(run, frames=frames)
    cohort = build([run], ("a", "b"), [np.arange(T) % 2])
    options = {"detrend": 1, "confounds": "motion24,wm_csf", "scrub_fd_mm": 0.25}
    got = cleaning.apply(cohort, Store(tmp_path / "store"), **options)
    kept = ~(table["framewise_displacement"].to_numpy() > 0.25)
    kept[0] = False  # no steady state
    columns = [c for c in table if c.startswith(("trans", "rot")) or c in ("csf", "white_matter")]
    values = table[columns].bfill().to_numpy()
    design = np.column_stack([np.ones(T), np.arange(T), values])[kept]
    x = frames.reshape(T, -1)[kept].astype(float)
    want = x - design @ np.linalg.lstsq(design, x, rcond=None)[0] + x.mean(0)
    np.testing.assert_array_equal(got.frame, np.flatnonzero(kept))
    np.testing.assert_allclose(got.volumes[:].reshape(kept.sum(), -1), want, rtol=1e-4)
    names = ("_bold.nii.gz", "timeseries.tsv", "timeseries.json")
    assert all(map(str.endswith, got.runs[0].hashes, names)) and len(got.runs[0].hashes) == 3
    assert len(got.notes) == 2 and got.notes[1].startswith("27 regressors removed from each run (")
    again = cleaning.apply(cohort, Store(tmp_path / "store"), **options)
    assert again.runs[0].content == got.runs[0].content
    write(tmp_path / "study", make_table(1, steady=1))
    other = cleaning.apply(cohort, Store(tmp_path / "store"), **options)
    assert other.runs[0].content != got.runs[0].content and other.hashes != got.hashes


def test_confounds_are_refused_before_anything_is_read(tmp_path):
    apply = functools.partial(cleaning.apply, make_cohort(), Store(tmp_path))
    with pytest.raises(InputError, match=r"data.confounds: found 'movement'; expected names of"):
        apply(confounds="movement")
    with pytest.raises(InputError, match="found no confounds; expected fMRIPrep's"):
        apply(confounds="motion6")


def test_is_off_by_default_and_reached_from_the_config(config, shared):
    config.data.source, config.data.root = "bids", str(shared("data/bids-haxby-1slice"))
    config.data.runs, config.data.hrf_delay_s = "1", 0.0
    raw = sources.load(config).volumes[:]
    config.data.detrend, config.data.zscore = 1, True
    cleaned = sources.load(config)
    assert raw.mean() > 100 and abs(cleaned.volumes[:].mean()) < 0.5
    whole = cleaned.runs[0].frames
    np.testing.assert_allclose(whole.mean(0), 0, atol=1e-4)
