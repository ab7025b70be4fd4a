"""Scaling against NumPy in float64: only training rows matter, constant voxels become 0."""

import jax.numpy as jnp
import numpy as np
import pytest

from emojax.features import scaling


def make(n=150, shape=(5, 4, 3)):
    rng = np.random.default_rng(0)
    mean = rng.uniform(100, 1000, shape)
    x = (mean + rng.normal(0, 10, (n, *shape))).astype(np.float32)
    x[:, 0, 0, 0] = 7
    return x


def test_voxels_have_mean_0_and_sd_1_over_training_volumes():
    x, rows = make(), np.arange(100)
    scale = scaling.fit_scale(lambda r: x[r], rows, "voxel")
    got = scaling.apply_scale(scale, x)
    want = (x[rows].astype(np.float64) - x[rows].mean(0, dtype=np.float64)) / np.where(
        x[rows].std(0) > 0, x[rows].astype(np.float64).std(0), np.inf
    )
    np.testing.assert_allclose(got[rows], want, atol=1e-4)
    assert np.all(got[:, 0, 0, 0] == 0)


def test_global_scale_and_rounding():
    x, rows = make(), np.arange(100)
    scale = scaling.fit_scale(lambda r: x[r], rows, "global")
    got = scaling.apply_scale(scale, x[rows])
    np.testing.assert_allclose([got.mean(dtype=np.float64), got.std()], [0, 1], atol=1e-4)
    within = got.reshape(100, -1).std(0)[1:]  # without the constant voxel
    np.testing.assert_allclose(scale.within, np.sqrt((within**2).mean()), rtol=1e-3)
    error = got.astype(jnp.bfloat16).astype(np.float32) - got
    assert 0.5 < scale.rounding / (error.std() / scale.within) < 2


def test_none_changes_nothing_but_nan():
    x = make()
    x[:, 1, 1, 1] = np.nan
    scale = scaling.fit_scale(lambda r: x[r], np.arange(100), "none")
    np.testing.assert_array_equal(scaling.apply_scale(scale, x), np.nan_to_num(x))
    assert scale.rounding > 0.05  # scanner units do not fit into bfloat16


@pytest.mark.parametrize("kind", ["voxel", "global"])
def test_nan_voxels_become_0_and_test_rows_have_no_part(kind):
    x = make()
    x[:, 1, 1, 1] = np.nan
    rows = np.arange(100)
    scale = scaling.fit_scale(lambda r: x[r], rows, kind)
    x[100:] *= 1000
    again = scaling.fit_scale(lambda r: x[r], np.tile(rows, 2), kind)  # bootstrap: same volumes
    np.testing.assert_array_equal(scale.mean, again.mean)
    np.testing.assert_array_equal(scale.sd, again.sd)
    got = scaling.apply_scale(scale, x)
    assert np.isfinite(got).all() and np.all(got[:, 1, 1, 1] == 0)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match="got 'run', 1"):
        scaling.fit_scale(lambda r: make()[r], np.arange(1), "run")


def test_rows_come_in_order_at_most_64_at_a_time():
    rows = np.random.default_rng(0).permutation(130)
    parts = list(scaling.chunks(rows))
    assert [len(part) for part in parts] == [64, 64, 2]
    np.testing.assert_array_equal(np.concatenate(parts), rows)


def test_each_training_row_is_read_once():
    x, read = make(), []
    scaling.fit_scale(lambda r: read.extend(r) or x[r], np.r_[5:90, 5:90], "voxel")
    assert read == list(range(5, 90))
