"""Files that are half-written, damaged, or of another kind."""

import sys

import dicom_files as files
import numpy as np
import pytest
from dicom_kinds import part_of
from pydicom.uid import RLELossless

from emojax.errors import InputError
from emojax.online import dicom


def small(kind):
    volumes, affine = files.volumes(1, (5, 4, 3)), files.oblique(shape=(5, 4, 3))
    if kind == "mosaic":
        return files.mosaic(volumes[0], affine)
    if kind == "slice":
        return files.slices(volumes[0], affine)[1]
    data = files.enhanced(volumes, affine)
    if kind == "compressed frames":
        data.compress(RLELossless)
    return files.without_lengths(data) if kind == "frames without lengths" else data


SMALL = ("mosaic", "slice", "frames", "frames without lengths", "compressed frames")


@pytest.mark.parametrize("kind", SMALL)
def test_a_file_cut_at_any_byte_is_not_whole(kind, tmp_path):
    path, data = tmp_path / "cut.dcm", small(kind)
    files.save(data, path, data.file_meta.TransferSyntaxUID)
    whole = path.read_bytes()
    dicom.read(path)
    for size in {*range(0, len(whole), 1 if kind == "slice" else 5), len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(dicom.NotWhole, match=r"cut\.dcm: found .*; expected "):
            dicom.read(path)


@pytest.mark.parametrize("kind", ["mosaic", "slice", "frames"])
def test_a_file_with_room_for_the_rest_is_not_whole(kind, tmp_path):
    shape = (16, 12, 4)
    volumes, affine = files.volumes(1, shape), files.oblique(shape=shape)
    path = tmp_path / "zeros.dcm"
    made = {
        "mosaic": files.mosaic(volumes[0], affine),
        "slice": files.slices(volumes[0], affine)[1],
        "frames": files.enhanced(volumes, affine),
    }
    files.save(made[kind], path)
    whole = path.read_bytes()
    (part,) = dicom.read(path)
    assert not part.ends_in_zeros
    for size in range(0, len(whole) - 100, 11):
        path.write_bytes(whole[:size] + bytes(len(whole) - size))
        try:
            (part,) = dicom.read(path)
            assert part.ends_in_zeros
        except dicom.NotWhole:
            pass


@pytest.mark.parametrize("kind", SMALL)
def test_damage_ends_in_one_line(kind, tmp_path):
    path, data = tmp_path / "damaged.dcm", small(kind)
    files.save(data, path, data.file_meta.TransferSyntaxUID)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        spoilt = bytearray(whole)
        for at in rng.integers(128, len(whole), 3):
            spoilt[at] = rng.integers(256)
        path.write_bytes(bytes(spoilt))
        try:
            dicom.read(path)
        except InputError as error:
            assert "\n" not in str(error) and "damaged.dcm" in str(error)


def spoil(**values):
    made = files.slices(files.volumes()[0], files.oblique())[0]
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    "data, message",
    [
        (spoil(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22"), "an object of class"),
        (spoil(Rows=11), "bytes of pixels; expected 352: 1 x 11 x 16 of 16 bits"),
        (spoil(Rows=0), "0 x 16 pixels"),
        (spoil(SamplesPerPixel=3), "3 samples"),
        (spoil(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "two at right angles"),
        (spoil(ImageOrientationPatient=None), "0 numbers at .00200037."),
        (spoil(ImagePositionPatient=None), "0 numbers at .00200032."),
        (spoil(PixelSpacing=["0", "3"]), "sizes above 0"),
        (spoil(NumberOfFrames=2), "bytes of pixels"),
    ],
)
def test_says_what_is_wrong(data, message, tmp_path):
    with pytest.raises(InputError, match=rf"one\.dcm: found .*{message}"):
        part_of(data, tmp_path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.dcm").write_bytes(b"no image at all " * 400)
    with pytest.raises(InputError, match="no DICM"):
        dicom.read(tmp_path / "text.dcm")
    for path in (tmp_path, tmp_path / "absent.dcm"):
        with pytest.raises(InputError, match="not a regular file"):
            dicom.read(path)
    for uid in ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.100", "1.2.3"):
        data = spoil()
        files.save(data, tmp_path / "syntax.dcm")
        tag, old = b"\2\0\x10\0UI", f"{data.file_meta.TransferSyntaxUID}\0".encode()
        before, after = (tmp_path / "syntax.dcm").read_bytes().split(tag)
        new = len(uid).to_bytes(2, "little") + uid.encode() + after[2 + len(old) :]
        (tmp_path / "syntax.dcm").write_bytes(before + tag + new)
        with pytest.raises(InputError, match=f"transfer syntax {uid}; expected pixels without"):
            dicom.read(tmp_path / "syntax.dcm")


def test_names_the_package_that_is_missing(tmp_path, monkeypatch):
    files.save(spoil(), tmp_path / "one.dcm")
    monkeypatch.setitem(sys.modules, "pydicom.filereader", None)
    with pytest.raises(InputError, match=r"no package pydicom; expected pip install 'emojax\[rea"):
        dicom.read(tmp_path / "one.dcm")
