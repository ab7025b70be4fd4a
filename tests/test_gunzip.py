"""Decompression, bounded by the header."""

import gzip
import io
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from emojax.data import gunzip, nifti
from emojax.data.store import Store
from emojax.errors import InputError

SHAPE = (6, 5, 4, 7)


def raw(values=None, kind=nib.Nifti1Image):
    values = np.random.default_rng(0).integers(0, 900, SHAPE) if values is None else values
    return kind(values.astype(np.int16), np.diag([3.0, 3, 3, 1])).to_bytes()


def decode(path):
    out, reserved = io.BytesIO(), []
    found = gunzip.decode(path, out, reserved.append, lambda size: None)
    assert reserved == [found.bytes] == [len(out.getvalue())]
    return out.getvalue()


@pytest.mark.parametrize("padding", [0, 1, 512, 10**4, nifti.TRAILING])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_padding_is_left_out(tmp_path, padding, kind):
    path, image = tmp_path / "a.nii.gz", raw(kind=kind)
    path.write_bytes(gzip.compress(image + b"\1" * padding))
    assert decode(path) == image
    plain = tmp_path / "a.nii"
    plain.write_bytes(image + b"\1" * padding)
    assert nifti.open_mapped(plain, plain).frames.shape == (7, 6, 5, 4)


def test_more_than_padding_is_refused(tmp_path):
    path, plain, image = tmp_path / "a.nii.gz", tmp_path / "a.nii", raw()
    path.write_bytes(gzip.compress(image + bytes(nifti.TRAILING + 1)))
    with pytest.raises(InputError, match=r"65,536 bytes after the last voxel; .* 2,032 bytes"):
        decode(path)
    plain.write_bytes(image + bytes(nifti.TRAILING + 1))
    with pytest.raises(InputError, match="67569 bytes; expected 2032 as its header says"):
        nifti.open_mapped(plain, plain)


def test_a_bomb_takes_neither_memory_nor_disk(tmp_path):
    path, store = tmp_path / "a.nii.gz", Store(tmp_path / "store")
    path.write_bytes(gzip.compress(raw() + bytes(100 << 20), 1))
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"^{path}: .* after the last voxel"):
        store.images([path])
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert not list(store.folder.glob("*.*"))


def test_a_header_that_asks_for_too_much_is_refused_by_arithmetic(tmp_path):
    path, data = tmp_path / "a.nii.gz", bytearray(raw())
    data[40:50] = np.array([4, 32767, 32767, 32767, 32767], "<i2").tobytes()
    path.write_bytes(gzip.compress(data))
    with pytest.raises(InputError, match=r"\d compressed bytes; expected more for the 2,305,5"):
        gunzip.decode(path, io.BytesIO(), lambda size: pytest.fail("reserved"), lambda size: None)


def test_the_best_compression_there_is_passes(tmp_path):
    path, image = tmp_path / "a.nii.gz", raw(np.zeros((64, 64, 44, 40)))
    path.write_bytes(gzip.compress(image, 9))
    assert len(image) > 1000 * path.stat().st_size and decode(path) == image


@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (1, 1, 1, 40), SHAPE])
@pytest.mark.parametrize("size", [1, 7, 400, 10**6])
def test_members_of_any_size(tmp_path, shape, size):
    path, image = tmp_path / "a.nii.gz", raw(np.ones(shape))
    parts = [image[i : i + size] for i in range(0, len(image), size)]
    path.write_bytes(b"".join(gzip.compress(part, 1) for part in [b"", *parts]) + bytes(600))
    assert decode(path) == image


def test_output_that_ends_where_a_step_ends(tmp_path, monkeypatch):
    path, image = tmp_path / "a.nii.gz", raw(np.zeros((8, 8, 8, 64)))
    path.write_bytes(gzip.compress(image))
    for step in (1, 258, 353, len(image), len(image) - 1, len(image) // 2):
        monkeypatch.setattr(gunzip, "STEP", step)
        assert decode(path) == image
    path.write_bytes(path.read_bytes()[:-1])
    for step in (258, len(image)):
        monkeypatch.setattr(gunzip, "STEP", step)
        with pytest.raises(InputError, match=r"a truncated .nii.gz"):
            decode(path)
