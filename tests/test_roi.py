"""Regions of interest: voxels by millimetres, labels of an atlas, refusals."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from emojax import sources
from emojax.data import hashes, roi
from emojax.data.cohort import build
from emojax.data.run import Run
from emojax.errors import InputError

AFFINE = np.array([[2.0, 0, 0, -9], [0, 3.0, 0, -7], [0, 0, 4.0, 5], [0, 0, 0, 1]])  # mm
T, SHAPE = 6, (7, 5, 4)
INSIDE = np.random.default_rng(1).random(SHAPE) < 0.4


def make_cohort(masks=None, affine=AFFINE):
    rng = np.random.default_rng(0)
    runs = [
        Run(name, "run-1", rng.normal(size=(T, *SHAPE)).astype("f4"), 2.0, affine, hashes={f: name})
        for name, f in (("01", "a.nii"), ("02", "b.nii"))
    ]
    return build(runs, ("a", "b"), [np.arange(T) % 2] * 2, masks)


def save(path, values, affine=AFFINE, dtype=np.int16):
    nib.save(nib.Nifti1Image(np.asarray(values).astype(dtype), affine), path)
    return str(path)


def lines_of(call):
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_becomes_the_mask_of_every_subject_within_its_brain(tmp_path):
    brain = np.random.default_rng(2).random(SHAPE) < 0.7
    got = roi.apply(make_cohort({"02": brain}), save(tmp_path / "roi.nii.gz", INSIDE * 3))
    np.testing.assert_array_equal(got.masks["01"], INSIDE)
    np.testing.assert_array_equal(got.masks["02"], INSIDE & brain)
    for run, first in zip(got.runs, ("a.nii", "b.nii"), strict=True):
        assert [*run.hashes] == [first, str(tmp_path / "roi.nii.gz")]
    assert got.hashes[str(tmp_path / "roi.nii.gz")] == hashes.sha256(tmp_path / "roi.nii.gz")


@pytest.mark.parametrize("turned", ["flipped", "swapped", "one volume"])
def test_images_on_another_order_of_axes_are_turned(tmp_path, turned):
    values, affine = INSIDE.astype(int), AFFINE
    if turned == "flipped":
        values, affine = values[::-1], AFFINE @ np.diag([-1, 1, 1, 1])
        affine[:3, 3] += AFFINE[:3, 0] * (SHAPE[0] - 1)
    elif turned == "swapped":
        values, affine = values.transpose(2, 0, 1), AFFINE[:, [2, 0, 1, 3]]
    else:
        values = values[..., None]
    got = roi.apply(make_cohort(), save(tmp_path / "roi.nii.gz", values, affine))
    np.testing.assert_array_equal(got.masks["01"], INSIDE)


def test_labels_of_an_atlas(tmp_path):
    atlas = np.random.default_rng(3).choice([0, 4, 17, 18], SHAPE)
    path = save(tmp_path / "atlas.nii", atlas, dtype=np.float32)
    got = roi.apply(make_cohort(), f"{path}:17|18")
    np.testing.assert_array_equal(got.masks["02"], (atlas == 17) | (atlas == 18))
    said = lines_of(lambda: roi.apply(make_cohort(), f"{path}:4|19"))
    assert said == f"{path}: found no label 19; expected labels of 4, 17, 18 in data.mask"
    path = save(tmp_path / "p.nii", atlas / 20, dtype=np.float32)
    assert "found values such as 0.2; expected whole numbers" in lines_of(
        lambda: roi.apply(make_cohort(), f"{path}:1")
    )


def test_a_probability_image_and_nan_outside(tmp_path):
    values = np.where(INSIDE, 0.3, np.nan)
    got = roi.apply(make_cohort(), save(tmp_path / "p.nii.gz", values, dtype=np.float32))
    np.testing.assert_array_equal(got.masks["01"], INSIDE)


def test_another_grid_names_both_files_and_the_way_out(tmp_path):
    path = save(tmp_path / "roi.nii.gz", INSIDE, np.diag([2, 2, 2, 1]))
    said = lines_of(lambda: roi.apply(make_cohort(), path))
    for part in (
        path,
        "a.nii",
        "(7, 5, 4)",
        "nilearn.image.resample_to_img",
        "[2.0, 0.0, 0.0, 0.0]",
    ):
        assert part in said
    other = save(tmp_path / "other.nii.gz", np.ones((9, 5, 4)))
    assert "shape (9, 5, 4)" in lines_of(lambda: roi.apply(make_cohort(), other))
    assert "no affine" in lines_of(lambda: roi.apply(make_cohort(affine=None), path))


def test_paths_are_below_the_root_or_here(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    save(tmp_path / "study/roi.nii.gz", INSIDE)
    save(tmp_path / "here.nii.gz", INSIDE)
    monkeypatch.chdir(tmp_path)
    for name in ("roi.nii.gz", "here.nii.gz", str(tmp_path / "here.nii.gz"), "roi.nii.gz:1"):
        assert roi.apply(make_cohort(), name, "study").masks["01"].sum() == INSIDE.sum()
    said = lines_of(lambda: roi.apply(make_cohort(), "ROI.nii.gz", "study"))
    assert said.startswith("data.mask: found 'ROI.nii.gz', but no file study/ROI.nii.gz or ROI.nii")
    assert "--config.data.mask=ROI.nii.gz" in said


def test_what_is_no_region_is_refused(tmp_path):
    four = save(tmp_path / "four.nii.gz", np.ones((*SHAPE, 3)))
    assert "an image of shape (7, 5, 4, 3)" in lines_of(lambda: roi.apply(make_cohort(), four))
    none = save(tmp_path / "none.nii.gz", np.zeros(SHAPE))
    assert "no voxel that is not 0" in lines_of(lambda: roi.apply(make_cohort(), none))
    (tmp_path / "text.nii.gz").write_text("no image")
    assert "found no readable image" in lines_of(
        lambda: roi.apply(make_cohort(), str(tmp_path / "text.nii.gz"))
    )
    path = save(tmp_path / "roi.nii.gz", INSIDE)
    cohort = make_cohort({"02": ~INSIDE})
    assert f"{path}: found no voxel of subject 02" in lines_of(lambda: roi.apply(cohort, path))
    vectors = build([Run("01", "1", np.ones((T, 9), "f4"))], ("a", "b"), [np.arange(T) % 2])
    assert "found rows of 9 values" in lines_of(lambda: roi.apply(vectors, path))


def test_cut_sets_the_outside_to_zero_as_it_is_read():
    cohort = make_cohort({"02": INSIDE})
    got = roi.cut(cohort)
    assert got.runs[0] is cohort.runs[0] and got.shape == SHAPE
    want = cohort.runs[1].frames * INSIDE
    np.testing.assert_array_equal(got.volumes[T:], want)
    np.testing.assert_array_equal(got.runs[1].read([4, 2]), want[[4, 2]])
    np.testing.assert_array_equal(got.features(INSIDE), cohort.features(INSIDE))
    assert got.runs[1].content != cohort.runs[1].content
    again = roi.cut(got.replace_row(T + 1, np.ones(SHAPE)))
    np.testing.assert_array_equal(again.volumes[T + 1], INSIDE)
    np.testing.assert_array_equal(again.volumes[T + 2 :], want[2:])
    plain = roi.cut(
        dataclasses.replace(cohort, runs=(dataclasses.replace(cohort.runs[1], hashes={}),))
    )
    assert len(plain.runs[0].content) > 64


def own(data):
    """Returns a cohort, as a user's source does."""
    return make_cohort()


def test_is_reached_from_the_config(tmp_path, config):
    config.data.update({"source": f"{__name__}:own", "root": str(tmp_path), "mask": "roi.nii.gz"})
    save(tmp_path / "roi.nii.gz", INSIDE)
    np.testing.assert_array_equal(sources.load(config).masks["02"], INSIDE)
