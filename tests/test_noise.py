"""The noise floor's runs: same moments, AR(1), smooth in space only, and nothing of the blocks."""

import dataclasses

import jax
import numpy as np
import pytest

from emojax.data.cohort import Prior, build
from emojax.data.noise import noise_like
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError

KEY = jax.random.key(0)


def cohort(volumes=400, shape=(12, 12, 10), tr=2.0, **changes):
    rng = np.random.default_rng(0)
    labels = np.arange(volumes) // 10 % 2
    mean = rng.uniform(400, 900, shape)
    response = 40 * labels.reshape(-1, *[1] * len(shape))
    frames = (mean + 9 * rng.normal(size=(volumes, *shape)) + response) / 2
    run = Run("01", "run-1", frames.astype(np.float32), tr=tr, slope=2.0, hashes={"a": "b"})
    return build([dataclasses.replace(run, **changes)], ("x", "y"), [labels])


def vectors(runs=2, rows=400, voxels=300):
    """Rows that are no points in time: two runs of one file, as `arrays` reads them."""
    rng = np.random.default_rng(1)
    made = [
        Run("s1", str(i), rng.normal(i, 1 + i, (rows, voxels)).astype("f4"), hashes={"a": "b"})
        for i in range(runs)
    ]
    return build(made, ("x", "y"), [np.arange(rows) % 2] * runs)


def standard(values):
    return (values - values.mean(0)) / values.std(0)


def lag(z):
    return (z[1:] * z[:-1]).mean()


def test_moments_stay_and_the_response_goes(tmp_path):
    real = cohort()
    noisy = noise_like(KEY, real, Store(tmp_path))
    x, e = real.volumes[:], noisy.volumes[:]
    assert noisy.labels is real.labels and noisy.shape == real.shape
    assert noisy.frame is real.frame and noisy.run_index is real.run_index
    assert np.abs(e.mean(0) - x.mean(0)).max() < 0.3 * x.std(0).min()
    np.testing.assert_allclose(e.std(0), x.std(0), rtol=0.3)
    z = standard(e)
    gap = z[real.labels == 1].mean(0) - z[real.labels == 0].mean(0)
    assert np.abs(gap.mean()) < 0.1
    assert abs(lag(z) - 0.4) < 0.05
    assert (z[:, 1:] * z[:, :-1]).mean() > 0.5  # neighbouring voxels
    again = noise_like(KEY, real, Store(tmp_path))
    np.testing.assert_array_equal(again.volumes[:5], e[:5])
    other = noise_like(jax.random.key(1), real, Store(tmp_path))
    assert not np.array_equal(other.volumes[:5], e[:5])


def test_vectors_are_correlated_in_time_only_and_within_runs_only(tmp_path):
    real = vectors()
    noisy = noise_like(KEY, real, Store(tmp_path))
    for before, after in zip(real.runs, noisy.runs, strict=True):
        x, e = before.read(slice(None)), after.read(slice(None))
        np.testing.assert_allclose(e.mean(0), x.mean(0), atol=0.4 * x.std())
        np.testing.assert_allclose(e.std(0), x.std(0), rtol=0.2)
        z = standard(e)
        assert abs(lag(z) - 0.4) < 0.02
        assert abs((z[:, 1:] * z[:, :-1]).mean()) < 0.02  # voxels are no neighbours
    first, second = (standard(run.read(slice(None))) for run in noisy.runs)
    assert abs((first[-1] * second[0]).mean()) < 0.15  # a run starts anew
    assert abs((first * second).mean()) < 0.02
    assert noisy.tr is None and noisy.subject.tolist() == real.subject.tolist()


@pytest.mark.parametrize("phi", [-0.3, 0.0, 0.8])
def test_phi_and_width_are_settings(tmp_path, phi):
    real = vectors(runs=1, rows=800)
    e = noise_like(KEY, real, Store(tmp_path), phi=phi).volumes[:]
    assert abs(lag(standard(e)) - phi) < 0.02
    white = standard(noise_like(KEY, cohort(), Store(tmp_path), phi=phi, width=0.0).volumes[:])
    assert abs((white[:, 1:] * white[:, :-1]).mean()) < 0.02
    wide = standard(noise_like(KEY, cohort(), Store(tmp_path), phi=phi, width=1.5).volumes[:])
    assert (wide[:, 1:] * wide[:, :-1]).mean() > 0.8


def test_each_setting_and_each_content_has_its_own_entry(tmp_path):
    def entries(real, key=KEY, **options):
        noise_like(key, real, Store(tmp_path), **options)
        return len(list(tmp_path.glob("*.npy")))

    real = cohort(volumes=20)
    assert entries(real) == 1
    assert entries(real) == 1
    assert entries(real, phi=0.5) == 2
    assert entries(real, width=1.0) == 3
    assert entries(real, jax.random.key(1)) == 4
    assert entries(cohort(volumes=20, name="run-2")) == 5  # another run of the same file
    assert entries(cohort(volumes=20, hashes={"a": "c"})) == 6
    assert entries(real.replace_row(3, np.zeros((12, 12, 10)))) == 7
    unnamed = cohort(volumes=20, hashes={})
    assert entries(unnamed) == 8
    assert entries(cohort(volumes=20, hashes={}, slope=3.0)) == 9
    assert entries(unnamed) == 9
    assert entries(vectors(1, 20)) == 10
    assert entries(vectors(1, 20), width=2.0) == 10  # vectors have no space


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_missing_voxels_stay_missing_and_do_not_spread(tmp_path, value):
    whole = cohort(volumes=30)
    frames = whole.runs[0].frames.copy()
    missing = np.random.default_rng(2).random(frames.shape[1:]) < 0.2
    frames[:, missing] = value
    holes = noise_like(KEY, cohort(volumes=30, frames=frames), Store(tmp_path / "holes"))
    full = noise_like(KEY, whole, Store(tmp_path / "full"))
    assert np.isnan(holes.volumes[:][:, missing]).all()
    np.testing.assert_array_equal(holes.volumes[:][:, ~missing], full.volumes[:][:, ~missing])


def test_constant_voxels_keep_their_value(tmp_path):
    real = cohort(volumes=20, frames=np.full((20, 4, 4, 1), 7, np.int16))
    np.testing.assert_array_equal(noise_like(KEY, real, Store(tmp_path)).volumes[:], 14)


def test_what_else_the_cohort_holds_stays(tmp_path):
    masks = {"01": np.ones((12, 12, 10), bool)}
    real = dataclasses.replace(cohort(volumes=20), masks=masks, prior=(Prior("cleaning"),))
    noisy = noise_like(KEY, real, Store(tmp_path))
    assert noisy.masks is masks and noisy.prior == (Prior("cleaning"),)
    assert noisy.hashes == real.hashes and noisy.tr == real.tr


def test_refuses(tmp_path):
    for options, match in (
        ({"phi": 1.0}, r"noise.phi: found 1.0; expected a correlation in \(-1, 1\)"),
        ({"phi": np.nan}, "noise.phi: found nan"),
        ({"width": -1.0}, "noise.width: found -1.0; expected a number of voxels >= 0"),
        ({"width": np.inf}, "noise.width: found inf"),
    ):
        with pytest.raises(InputError, match=match):
            noise_like(KEY, cohort(volumes=20), Store(tmp_path), **options)
