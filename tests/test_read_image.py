"""Image files for a decoder: whole ones are read, damaged ones refused by their header."""

import gzip
import logging.config
import os
import warnings

import nibabel as nib
import numpy as np
import pytest

from emojax import decoder
from emojax.errors import InputError

GRID, T = (4, 3, 2), 5
VALUES = np.arange(np.prod(GRID) * T, dtype=np.int16).reshape(*GRID, T)


def write(path, **fields):
    """Writes an image; then fields of its header, unchecked."""
    nib.save(nib.Nifti1Image(VALUES, np.diag([3.0, 3, 3, 1])), path)
    data = path.read_bytes()
    plain = bytearray(gzip.decompress(data) if path.suffix == ".gz" else data)
    head = np.frombuffer(bytes(plain[:348]), nib.Nifti1Header.template_dtype).copy()
    for name, value in fields.items():
        if isinstance(value, dict):
            for i, one in value.items():
                head[0][name][i] = one
        else:
            head[0][name] = value
    plain[:348] = head.tobytes()
    path.write_bytes(gzip.compress(plain) if path.suffix == ".gz" else bytes(plain))
    return path


def refused(path, said):
    with warnings.catch_warnings(), pytest.raises(InputError) as error:
        warnings.simplefilter("error")  # a warning would be an extra line
        decoder.read_image(path)
    line = str(error.value)
    assert line.startswith(f"{path}: found ") and said in line and "\n" not in line


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_whole_image(tmp_path, suffix):
    values, affine = decoder.read_image(
        write(tmp_path / f"a{suffix}", scl_slope=2.0, scl_inter=1.0)
    )
    np.testing.assert_array_equal(values, 2 * VALUES + 1.0)
    assert values.dtype == np.float32 and affine[0, 0] == 3


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dim": {4: 0}}, "no readable image"),
        ({"dim": {1: -4}}, "no readable image"),
        ({"dim": {i: 32767 for i in range(1, 5)}}, "more than the file can hold"),
        ({"dim": {4: 30000}}, "more than the file can hold"),
        ({"datatype": 32, "bitpix": 64}, "values of type complex64"),
        ({"datatype": 128, "bitpix": 24}, "values of type [("),
        ({"datatype": 9999}, "no readable image"),
        ({"sform_code": 1, "srow_x": [np.nan] * 4}, "an affine that is not finite"),
        ({"magic": b"xxx"}, "no readable image"),
    ],
)
def test_headers_that_promise_something_else(tmp_path, suffix, fields, said):
    refused(write(tmp_path / f"a{suffix}", **fields), said)


def test_what_is_no_image(tmp_path):
    refused(tmp_path, "something that is not a file; expected an image")
    refused(tmp_path / "none.nii", "no such file; expected an image")
    os.mkfifo(tmp_path / "pipe.nii")
    refused(tmp_path / "pipe.nii", "something that is not a file")
    for content in (b"", b"hello", bytes(400)):
        (tmp_path / "a.nii").write_bytes(content)
        refused(tmp_path / "a.nii", "no readable image")


def test_an_error_without_words(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nii")
    monkeypatch.setattr(nib, "load", lambda path: (_ for _ in ()).throw(MemoryError()))
    refused(path, "no readable image (MemoryError")


def test_infinite_values_are_left_to_the_check_of_volumes(tmp_path):
    path = write(tmp_path / "a.nii", scl_slope=1e38, scl_inter=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, _ = decoder.read_image(path)
    assert np.isinf(values).any()


@pytest.mark.parametrize("enabled", [False, True])
def test_what_nibabel_mends_is_not_logged(tmp_path, caplog, enabled):
    if enabled:  # as packages do that configure their own loggers
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    values, _ = decoder.read_image(write(tmp_path / "a.nii", sform_code=255))
    np.testing.assert_array_equal(values, VALUES)
    assert not caplog.records
