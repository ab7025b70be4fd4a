"""Smoothing in space against nilearn, and what must not spread."""

import nibabel as nib
import numpy as np
import pytest
from nilearn import image

from emojax import sources
from emojax.data import smoothing
from emojax.data.cohort import build
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError

AFFINE = np.array([[0, -2.0, 0, 9], [3.0, 0, 0, -7], [0, 0, 4.0, 5], [0, 0, 0, 1]])  # mm
T, SHAPE = 6, (15, 18, 12)


def make_cohort(affine=AFFINE, shape=SHAPE, hole=False):
    rng = np.random.default_rng(0)
    runs = []
    for name in ("01", "02"):
        values = rng.normal(100, 10, (T, *shape)).astype(np.float32)
        if hole:
            values[:, 7, 8, 6] = np.nan
        runs.append(Run(name, "run-1", values, 2.0, affine, hashes={f"{name}.nii": name}))
    return build(runs, ("a", "b"), [np.arange(T) % 2] * 2)


def test_is_nilearns_inside_and_knows_the_voxel_sizes(tmp_path):
    cohort = make_cohort()
    got = smoothing.apply(cohort, Store(tmp_path), 5.0)
    volume = cohort.runs[0].frames[2]
    want = image.smooth_img(nib.Nifti1Image(volume, AFFINE), 5.0).get_fdata()
    inner = np.s_[5:-5, 4:-4, 4:-4]  # at the edges nilearn's volumes get darker
    np.testing.assert_allclose(got.runs[0].frames[2][inner], want[inner], rtol=1e-4)
    assert got.prior == () and got.runs[0].content != cohort.runs[0].content
    assert got.hashes == cohort.hashes and got.runs[0].motion is None


def test_a_constant_volume_stays_as_it_is():
    volume = np.full(SHAPE, 7.0, np.float32)
    volume[3, 4, 5] = np.nan
    got = smoothing.smooth(volume, (1.5, 1.0, 0.4))
    assert np.isnan(got[3, 4, 5]) and np.isnan(got).sum() == 1
    np.testing.assert_allclose(got[np.isfinite(got)], 7, rtol=1e-5)


def test_what_is_not_finite_stays_and_does_not_spread(tmp_path):
    got = smoothing.apply(make_cohort(hole=True), Store(tmp_path), 6.0).runs[0].frames
    assert np.isnan(got[:, 7, 8, 6]).all() and np.isnan(got).sum() == T
    around = got[0, 6:9, 7:10, 5:8]
    assert abs(np.nanmean(around) - 100) < 5


def test_every_volume_is_smoothed_by_itself_and_once(tmp_path):
    cohort, store = make_cohort(), Store(tmp_path)
    got = smoothing.apply(cohort, store, 5.0)
    other = smoothing.apply(cohort.replace_row(3, np.zeros(SHAPE)), store, 5.0)
    np.testing.assert_array_equal(
        np.delete(other.volumes[:], 3, 0), np.delete(got.volumes[:], 3, 0)
    )
    count = len(list(tmp_path.glob("*.npy")))
    smoothing.apply(cohort, Store(tmp_path), 5.0)
    assert len(list(tmp_path.glob("*.npy"))) == count == 3
    assert isinstance(got.runs[0].frames, np.memmap)
    assert smoothing.apply(cohort, store, 0.0) is cohort


def test_refuses_rows_without_a_place(tmp_path):
    vectors = build([Run("01", "1", np.ones((T, 9), np.float32))], ("a", "b"), [np.arange(T) % 2])
    with pytest.raises(InputError, match=r"subject 01 run 1: found rows of 9 values .*smooth_mm=0"):
        smoothing.apply(vectors, Store(tmp_path), 5.0)
    with pytest.raises(InputError, match="found no affine"):
        smoothing.apply(make_cohort(affine=None), Store(tmp_path), 5.0)


def own(data):
    """Returns a cohort, as a user's source does."""
    return make_cohort()


def test_is_reached_from_the_config(tmp_path, config):
    config.data.update({"source": f"{__name__}:own", "smooth_mm": 5.0})
    got = sources.load(config)
    want = smoothing.apply(make_cohort(), Store(tmp_path / "other"), 5.0)
    np.testing.assert_array_equal(got.volumes[:], want.volumes[:])
    assert sources.cleaned_by(config.data) == {"smooth_mm": 5.0}
