"""Values that no run can have, and headers as nibabel reads them."""

import os

import nibabel as nib
import numpy as np
import pytest

from emojax.data import nifti
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError

SHAPE = (6, 5, 4, 7)


def save(path, values, dtype=np.float32, **fields):
    image = nib.Nifti1Image(values.astype(dtype), np.diag([3.0, 3, 3, 1]))
    raw = bytearray(image.to_bytes())
    header = np.frombuffer(raw[:348], image.header.structarr.dtype).copy()
    for name, value in fields.items():
        header[name] = value
    raw[:348] = header.tobytes()
    if path.suffix == ".gz":
        import gzip

        raw = gzip.compress(bytes(raw))
    path.write_bytes(raw)
    return path


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def normal():
    return np.random.default_rng(0).normal(100, 1, SHAPE)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(
    ("change", "dtype", "fields", "found"),
    [
        (lambda x: x * np.nan, "f4", {}, "NaN or infinite values in every voxel"),
        (lambda x: x * np.inf, "f8", {}, "NaN or infinite values in every voxel"),
        (lambda x: x * 0 + 1e300, "f8", {}, "120 values too large for float32 in volume 0"),
        (lambda x: x, "i2", {"scl_slope": 3e38}, "120 values too large for float32 in volume 0"),
        (lambda x: x > 100, "i2", {"scl_slope": 1, "scl_inter": -3.4e38}, None),
        (lambda x: x, "u1", {"scl_slope": 1, "scl_inter": 3.4e38}, None),
        (lambda x: x, "i2", {"scl_slope": 1, "scl_inter": np.nan}, "no readable image|damaged h"),
        (lambda x: x, "i2", {"scl_slope": 1, "scl_inter": np.inf}, "no readable image|damaged h"),
        (lambda x: x, "i2", {"scl_slope": np.nan}, None),  # as NIfTI and nibabel have it: no scale
        (lambda x: x, "i2", {"scl_slope": -np.inf}, None),
        (lambda x: x, "i2", {"scl_slope": 0, "scl_inter": 5}, None),
    ],
)
def test_values_of_all_voxels(tmp_path, store, capfd, name, change, dtype, fields, found):
    path = save(tmp_path / name, change(normal()), dtype, **fields)
    for _ in range(2):  # read, then from the record
        if found:
            with pytest.raises(InputError, match=f"^{path}: found .*({found})"):
                store.images([path])
        else:
            (image,) = store.images([path])
            run = Run("", "", image.frames, slope=image.slope, intercept=image.intercept)
            want = np.moveaxis(nib.load(path).get_fdata(), -1, 0)
            np.testing.assert_allclose(run.read(slice(None)), want, rtol=1e-6)
            assert image.nan_voxels == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("value", "dtype"), [(1e300, "f8"), (-1e39, "f8"), (1e30, "f4")])
def test_values_that_float32_cannot_hold(tmp_path, store, capfd, name, value, dtype):
    values = normal()
    values[3, 3, 3] = value  # in all volumes, where NaN would pass
    scale = {"scl_slope": 1e10, "scl_inter": 1.0} if dtype == "f4" else {}
    path = save(tmp_path / name, values, dtype, **scale)
    with pytest.raises(InputError, match=f"^{path}: found 1 values too large .* in volume 0"):
        store.images([path])
    assert capfd.readouterr().err == "" and not list(store.folder.glob("*.*"))


def test_volumes_of_a_run_have_nan_in_the_same_voxels(tmp_path, store):
    values = normal()
    values[2, 2, 2] = np.nan
    paths = [save(tmp_path / f"v{t}.nii", values[..., t]) for t in range(7)]
    assert store.images([paths])[0].nan_voxels == 1
    values[2, 2, 2, 4], values[3, 3, 3, 4] = 1, np.nan
    save(paths[4], values[..., 4])
    with pytest.raises(InputError, match=f"^{paths[4]}: .*the same voxels as in {paths[0]}"):
        store.images([paths])
    save(paths[4], values[..., 4] * np.nan)
    with pytest.raises(InputError, match=f"^{paths[4]}: found NaN or infinite values in every"):
        store.images([paths])


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": [9, 6, 5, 4, 7, 1, 1, 1]},
        {"dim": [4, -6, 5, 4, 7, 1, 1, 1]},
        {"dim": [4, 6, 5, 4, 0, 1, 1, 1]},
        {"dim": [4, 32767, 32767, 32767, 32767, 1, 1, 1]},
        {"dim": [5, 6, 5, 2, 7, 2, 1, 1]},
        {"datatype": 9999},
        {"datatype": 32, "bitpix": 64},
        {"datatype": 128, "bitpix": 24},
        {"vox_offset": -352},
        {"vox_offset": 1e30},
        {"vox_offset": np.nan},
        {"magic": b"xxx"},
        {"sform_code": 1, "srow_x": np.nan},
        {"sform_code": 1, "srow_x": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_headers_that_are_refused_in_one_line(tmp_path, store, capfd, name, fields):
    path = save(tmp_path / name, normal(), np.int16, **fields)
    with pytest.raises(InputError, match=f"^{path}: found ") as error:
        store.images([path])
    assert str(error.value).isprintable()
    assert capfd.readouterr().err == ""  # nothing from nibabel's logger
    assert not list(store.folder.glob("*.*"))


@pytest.mark.parametrize(
    "fields", [{"pixdim": np.nan}, {"sizeof_hdr": 349}, {"bitpix": 77}, {"xyzt_units": 4}]
)
def test_headers_that_nibabel_repairs_are_repaired_in_silence(tmp_path, store, capfd, fields):
    path = save(tmp_path / "a.nii", normal(), np.int16, **fields, sform_code=1)
    try:
        assert store.images([path])[0].frames.shape == (7, 6, 5, 4)
    except InputError as error:
        assert str(error).startswith(str(path))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 1)])
def test_an_image_of_one_volume(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = save(tmp_path / "a.nii", values)
    got, affine = nifti.read_volume(path, "a mask")
    np.testing.assert_array_equal(got, values.reshape(6, 5, 4))
    np.testing.assert_array_equal(affine, nib.load(path).affine)


@pytest.mark.parametrize("shape", [(6, 5, 4, 2), (6, 5), (6, 5, 4, 1, 1)])
def test_what_is_not_one_volume_is_refused(tmp_path, shape):
    path = save(tmp_path / "a.nii", np.ones(shape))
    with pytest.raises(InputError, match=r"a.nii: found an image of shape .*; expected one volume"):
        nifti.read_volume(path, "a mask")


def test_load_opens_regular_files_only(tmp_path):
    path = save(tmp_path / "a.nii", normal())
    assert nifti.load(path).shape == SHAPE
    os.mkfifo(tmp_path / "b.nii")
    with pytest.raises(InputError, match=r"b.nii: found something that is not a file"):
        nifti.load(tmp_path / "b.nii")
    (tmp_path / "c.nii").write_text("text")
    with pytest.raises(InputError, match=r"c.nii: found no readable image"):
        nifti.load(tmp_path / "c.nii")
