"""The noise floor's runs: same moments, AR(1), smooth, and nothing of the blocks."""

import jax
import numpy as np

from emojax.data import noise
from emojax.data.cohort import Run, build
from emojax.data.store import Store


def cohort(volumes=400, shape=(12, 12, 10)):
    rng = np.random.default_rng(0)
    labels = np.arange(volumes) // 10 % 2
    mean = rng.uniform(400, 900, shape)
    frames = (mean + 9 * rng.normal(size=(volumes, *shape)) + 40 * labels[:, None, None, None]) / 2
    run = Run("01", "run-1", frames.astype(np.float32), tr=2.0, slope=2.0, hashes={"a": "b"})
    return build([run], ("x", "y"), [labels])


def test_moments_stay_and_the_response_goes(tmp_path):
    real = cohort()
    noisy = noise.noise_like(jax.random.key(0), real, Store(tmp_path))
    x, e = real.volumes[:], noisy.volumes[:]
    assert noisy.labels is real.labels and noisy.shape == real.shape
    assert np.abs(e.mean(0) - x.mean(0)).max() < 0.3 * x.std(0).min()
    np.testing.assert_allclose(e.std(0), x.std(0), rtol=0.3)
    z = (e - e.mean(0)) / e.std(0)
    gap = z[real.labels == 1].mean(0) - z[real.labels == 0].mean(0)
    assert np.abs(gap.mean()) < 0.1
    assert abs((z[1:] * z[:-1]).mean() - noise.PHI) < 0.05
    assert (z[:, 1:] * z[:, :-1]).mean() > 0.5  # neighbouring voxels
    again = noise.noise_like(jax.random.key(0), real, Store(tmp_path))
    np.testing.assert_array_equal(again.volumes[:5], e[:5])
    other = noise.noise_like(jax.random.key(1), real, Store(tmp_path))
    assert not np.array_equal(other.volumes[:5], e[:5])
