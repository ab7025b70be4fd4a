"""Parcels of an atlas or of clusters: places in space, the record, refusals."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from emojax import splits
from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.features import common_space, masked, parcels
from emojax.provenance import Ledger

GRID = (8, 9, 7)
AFFINE = np.diag([3.0, 3, 4, 1]) + np.array([[0, 0, 0, -20.0]] * 3 + [[0] * 4])
CLASSES = ("rest", "neutral", "negative")


def make_view(seed=0):
    """Returns four subjects with two runs; each quarter of the grid has its own time course."""
    rng = np.random.default_rng(seed)
    quarter = 2 * (np.arange(GRID[0]) > 3)[:, None, None] + (np.arange(GRID[1]) > 4)[None, :, None]
    quarter = np.broadcast_to(quarter, GRID)
    runs, labels = [], []
    for name in "abcd":
        for run in "12":
            course = 5 * rng.standard_normal((24, 4))
            x = 100 + course[:, quarter] + rng.standard_normal((24, *GRID))
            x[:, 0], x[:, :, 0] = 0, 0  # outside of the head
            runs.append(Run(name, run, x.astype(np.float32), affine=AFFINE, tr=2.0))
            labels.append(rng.permutation(24) % 3)
    made = cohorts.build(runs, CLASSES, labels)
    return masked.read(made, {"lower": 0.2, "upper": 0.85, "opening": 0}, "subject"), quarter


VIEW, QUARTER = make_view()
FOLD, *_ = splits.leave_one_out(VIEW.units)
COLUMNS = np.arange(int(VIEW.union.sum()))


def find(text, view=VIEW, columns=COLUMNS):
    ledger = Ledger(view)
    team = common_space.team_of(ledger, FOLD)
    return parcels.find(ledger, team, text, columns), ledger


def save(tmp_path, values, affine=AFFINE, name="atlas.nii.gz"):
    path = tmp_path / name
    nib.Nifti1Image(values.astype(np.int16), affine).to_filename(path)
    return str(path)


@pytest.mark.parametrize("text", ["ward:4", "kmeans:4"])
def test_clusters_find_what_has_one_time_course(text):
    columns = COLUMNS[::-1]  # any order
    labels, ledger = find(text, columns=columns)
    truth = QUARTER[VIEW.union][columns]
    assert len({*zip(labels.tolist(), truth.tolist(), strict=True)}) == 4
    assert set(labels.tolist()) == {1, 2, 3, 4}
    seen = ledger.reads.steps["parcels"]
    np.testing.assert_array_equal(np.flatnonzero(seen.values), np.sort(FOLD.train))
    assert not seen.labels.any()
    assert [step for step, *_ in ledger.kept] == ["parcels"]


def test_wards_parcels_are_connected_in_space():
    labels, _ = find("ward:12")
    whole = np.zeros(GRID, int)
    whole[VIEW.union] = labels
    assert all(ndimage.label(whole == name)[1] == 1 for name in range(1, 13))
    again, _ = find("ward:12")
    np.testing.assert_array_equal(again, labels)


def test_an_atlas_is_read_by_millimetres(tmp_path):
    values = QUARTER + 1
    values[4] = 0  # background
    want = values[VIEW.union]
    got, ledger = find(save(tmp_path, values))
    np.testing.assert_array_equal(got, want)
    assert "parcels" not in ledger.reads.steps
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] = (AFFINE @ [GRID[0] - 1, 0, 0, 1])[:3]
    got, _ = find(save(tmp_path, values[::-1], flipped, "flipped.nii.gz"))
    np.testing.assert_array_equal(got, want)


def test_says_what_cannot_be_an_atlas(tmp_path):
    with pytest.raises(InputError, match=r"an atlas of shape .*interpolation='nearest'"):
        find(save(tmp_path, QUARTER + 1, AFFINE @ np.diag([2.0, 1, 1, 1])))
    with pytest.raises(InputError, match="no label above 0 inside the brain masks"):
        find(save(tmp_path, QUARTER * 0, name="empty.nii.gz"))
    path = tmp_path / "float.nii.gz"
    nib.Nifti1Image(np.full(GRID, 0.5, np.float32), AFFINE).to_filename(path)
    with pytest.raises(InputError, match="no whole numbers"):
        find(str(path))


def test_labels_that_float32_would_join_are_refused(tmp_path):
    path = tmp_path / "atlas.nii.gz"
    nib.Nifti1Image(np.full((3, 3, 3), 614454277, np.int32), AFFINE).to_filename(path)
    with pytest.raises(InputError, match=r"labels of 16,777,216 or more.*renumbers them"):
        parcels.read_atlas(str(path))


@pytest.mark.parametrize("text", ["ward", "ward:0", "ward:x", "kmeans:-3", "no/such/atlas.nii.gz"])
def test_says_what_is_no_parcellation(text):
    with pytest.raises(InputError, match=r"align\.parcels.*neither parcels nor a file.*ward:300"):
        parcels.parse(text)


def test_says_where_there_are_too_few_voxels_or_no_places():
    with pytest.raises(InputError, match="at most 3, the voxels to be aligned"):
        find("ward:4", columns=COLUMNS[:3])
    vectors = dataclasses.replace(VIEW, union=None)
    with pytest.raises(InputError, match=r"no place.*kmeans:4"):
        find("ward:4", vectors)
    assert len(find("kmeans:4", vectors)[0]) == len(COLUMNS)
