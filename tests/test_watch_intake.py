"""Files to volumes: NIfTI as nibabel reads it, wholeness, series, and whatever else there is."""

import gzip
import os
import struct

import dicom_files
import nibabel as nib
import numpy as np
import pytest
from dicom_files import About

from emojax.errors import InputError
from emojax.online.dicom import NotWhole
from emojax.online.watching import scans
from emojax.online.watching.intake import SETTLE_S, Intake

AFFINE = dicom_files.oblique()


def volume(seed=0):
    return dicom_files.volumes(seed=seed)[0]


def image(values, affine=AFFINE, tr=2.0, order="<", kind=nib.Nifti1Image):
    made = kind(values, affine, kind.header_class(endianness=order))
    made.header.set_data_dtype(values.dtype.newbyteorder(order))
    if values.ndim > 3:
        made.header.set_zooms((*made.header.get_zooms()[:3], tr))
        made.header.set_xyzt_units("mm", "sec")
    return made


def nifti_bytes(seed=0):
    return image(volume(seed)).to_bytes()


def put(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("dtype", ["i2", "u1", "i4", "f4", "f8", "u2"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_reads_as_nibabel_does(tmp_path, dtype, order, kind, ending):
    own, path = image(volume().astype(dtype), order=order, kind=kind), tmp_path / f"v_07{ending}"
    own.to_filename(path)
    got = scans.read_nifti(path)
    want = nib.load(path)
    assert (got.series, got.number, got.ends_in_zeros) == (f"v_{{n}}{ending}", 7, False)
    assert got.values.dtype == np.float32
    np.testing.assert_array_equal(got.values, np.asarray(want.dataobj, np.float32))
    np.testing.assert_array_equal(got.affine, want.affine)


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, 0.0), (0.37, -12.5), (0.0, 5.0)])
def test_scales_as_nibabel_does(tmp_path, slope, intercept):
    data = bytearray(nifti_bytes())
    struct.pack_into("<ff", data, 112, slope, intercept)
    path = put(tmp_path / "v1.nii", bytes(data))
    want = np.asarray(nib.load(path).dataobj, np.float32)
    np.testing.assert_allclose(scans.read_nifti(path).values, want, rtol=1e-6, atol=1e-4)


def test_a_4d_file_of_one_volume_is_one_and_its_tr_is_read(tmp_path):
    image(volume()[..., None], tr=1.5).to_filename(tmp_path / "v1.nii")
    got = scans.read_nifti(tmp_path / "v1.nii")
    assert (got.values.shape, got.tr) == (volume().shape, 1.5)


@pytest.mark.parametrize(
    ("name", "pattern", "want"),
    [
        ("vol_00012.nii", "", ("vol_{n}.nii", 12)),
        ("sub-01_run-2_vol0003_bold.nii.gz", "", ("sub-01_run-2_vol{n}_bold.nii.gz", 3)),
        ("000000.NII", "", ("{n}.NII", 0)),
        ("mean.nii", "", None),
        ("vol_3.nii", "vol_{n}.nii", ("vol_{n}.nii", 3)),
        ("vol_3.nii.gz", "vol_{n:05}.nii", ("vol_{n:05}.nii", 3)),
        ("a7_vol12_3T.nii", "*_vol{n}_3T", ("*_vol{n}_3T", 12)),
        ("7_12.nii", "*{n}.nii", ("*{n}.nii", 12)),
        ("other_3.nii", "vol_{n}.nii", None),
        ("vol_3.nii.nii", "vol_{n}.nii", None),
    ],
)
def test_names(name, pattern, want):
    assert scans.identify(name, pattern) == want


@pytest.mark.parametrize("pattern", ["vol.nii", "{n}_{n}.nii", "{m}"])
def test_a_pattern_needs_one_number(pattern):
    with pytest.raises(InputError, match=r"one \{n\}"):
        Intake(pattern=pattern)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_cut_anywhere_is_not_whole(tmp_path, zipped):
    whole = gzip.compress(nifti_bytes()) if zipped else nifti_bytes()
    path = tmp_path / "v1.nii"
    for end in [
        *range(0, 400, 7),
        *range(400, len(whole), 211),
        *range(len(whole) - 9, len(whole)),
    ]:
        with pytest.raises(NotWhole):
            scans.read_nifti(put(path, whole[:end]))
    scans.read_nifti(put(path, whole))


def test_a_gzip_file_that_is_being_filled_is_not_whole(tmp_path):
    whole = gzip.compress(nifti_bytes())
    half = whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)
    with pytest.raises(NotWhole):
        scans.read_nifti(put(tmp_path / "v1.nii.gz", half))


def test_members_and_padding_of_gzip_files_are_read(tmp_path):
    data = nifti_bytes()
    members = gzip.compress(data[:1000]) + gzip.compress(data[1000:]) + bytes(512)
    got = scans.read_nifti(put(tmp_path / "v1.nii.gz", members))
    np.testing.assert_array_equal(got.values, volume())


def with_shape(*shape):
    data = bytearray(nifti_bytes())
    struct.pack_into("<8h", data, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    return bytes(data)


def with_crc_error():
    data = bytearray(gzip.compress(nifti_bytes()))
    data[-6] ^= 1
    return bytes(data)


def of_a_pair():
    data = bytearray(nifti_bytes().replace(b"n+1\0", b"ni1\0"))
    struct.pack_into("<f", data, 108, 0.0)
    return bytes(data)


def bomb():
    return gzip.compress(nifti_bytes() + bytes(1 << 27))


BAD = {
    "several volumes": (with_shape(16, 12, 5, 2), r"shape \(16, 12, 5, 2\)"),
    "no volume": (with_shape(16, 12, 10, 0), "shape"),
    "two axes": (with_shape(16, 120), "shape"),
    "too large": (with_shape(30000, 30000, 30000), "larger than"),
    "checksum": (with_crc_error(), "incorrect data check"),
    "too long": (nifti_bytes() + bytes(1 << 17), "as its header says"),
    "bomb": (bomb(), "as its header says"),
    "text": (b"hello, scanner" * 100, "damaged header"),
    "half of a pair": (of_a_pair(), "pair of files"),
    "complex": (image(volume().astype(np.complex64)).to_bytes(), "complex64"),
}


@pytest.mark.parametrize("kind", BAD)
def test_damage_is_one_line(tmp_path, kind):
    data, match = BAD[kind]
    with pytest.raises(InputError, match=match) as caught:
        scans.read_nifti(put(tmp_path / "v1.nii", data))
    assert not isinstance(caught.value, NotWhole) and "\n" not in str(caught.value)


def test_the_digest_is_of_the_values_not_of_their_order_in_memory():
    values = volume().astype(np.float32)
    assert scans.digest(values) == scans.digest(np.asfortranarray(values))
    assert scans.digest(values) != scans.digest(values + 1)


def taken(intake, *paths, now=0.0):
    return [scan for path in paths for scan in intake.offer(path, now)]


def whats(intake):
    return [note.what for note in intake.notes()]


def test_nifti_files_become_scans(tmp_path):
    intake = Intake()
    for number, ending in ((1, ".nii"), (2, ".nii")):
        path = put(tmp_path / f"vol_{number}{ending}", nifti_bytes(number))
        (scan,) = intake.offer(path, 0.0)
        np.testing.assert_array_equal(scan.values, volume(number))
        assert (scan.number, scan.files, scan.reason) == (number, (path.name,), "")
        assert scan.sha256 == scans.digest(scan.values)
        assert scan.time_closed <= scan.time_ready and scan.time_scan is None
    assert whats(intake) == ["series"]
    assert intake.series == "vol_{n}.nii"
    assert intake.offer(path, 0.0) == []  # unchanged


@pytest.mark.parametrize("form", ["mosaic", "enhanced"])
def test_dicom_files_become_scans(tmp_path, form):
    intake = Intake()
    made = getattr(dicom_files, form)
    data = volume(3) if form == "mosaic" else volume(3)[None]
    dicom_files.save(made(data, AFFINE, 4), tmp_path / "no_extension")
    (scan,) = taken(intake, tmp_path / "no_extension")
    assert (scan.number, scan.tr, scan.files) == (4, 2.0, ("no_extension",))
    np.testing.assert_array_equal(scan.values, volume(3))
    np.testing.assert_allclose(scan.affine, AFFINE, atol=1e-3)
    assert scan.time_scan > 1.7e9 and intake.series == "5"


def test_slices_become_one_scan_of_all_their_files(tmp_path):
    intake, out = Intake(), []
    paths = []
    for number in (1, 2):
        for i, data in enumerate(dicom_files.slices(volume(number), AFFINE, number)):
            paths.append(tmp_path / f"{number}_{i}.dcm")
            dicom_files.save(data, paths[-1])
    lost = paths.pop(12)
    for path in np.random.default_rng(0).permutation(paths):
        out += intake.offer(path, 0.0)
    (scan,) = out
    np.testing.assert_array_equal(scan.values, volume(1))
    assert sorted(scan.files) == sorted(p.name for p in paths if p.name.startswith("1_"))
    closed = max((tmp_path / name).stat().st_mtime for name in scan.files)
    assert scan.time_closed == pytest.approx(closed, abs=1e-6)
    assert intake.incomplete(1) == "" and intake.incomplete(2) == "9 of 10 slices"
    intake.notes()
    assert intake.offer(lost, 1.0) == []  # too late
    assert whats(intake) == ["late"]


def test_masked_slices_are_doubted_once(tmp_path):
    masked, intake, out = volume(), Intake(), []
    masked[:, :2] = 0  # the lowest rows of each image
    for number in (1, 2):
        for i, data in enumerate(dicom_files.slices(masked, AFFINE, number)):
            dicom_files.save(data, tmp_path / f"{number}_{i}.dcm")
            out += intake.offer(tmp_path / f"{number}_{i}.dcm", 0.0)
        assert len(out) == 2 * (number - 1)
        out += intake.retry(SETTLE_S)
        assert [scan.number for scan in out] == list(range(1, number + 1))


def test_a_file_of_several_volumes_gives_a_scan_of_each(tmp_path):
    data = np.stack([volume(seed) for seed in range(3)])
    dicom_files.save(dicom_files.enhanced(data, AFFINE), tmp_path / "all.dcm")
    found = taken(Intake(), tmp_path / "all.dcm")
    assert [scan.number for scan in found] == [1, 2, 3]
    np.testing.assert_array_equal(np.stack([scan.values for scan in found]), data)
    assert {scan.files for scan in found} == {("all.dcm",)}


def test_a_half_written_file_is_retried_until_it_is_whole(tmp_path):
    intake, whole = Intake(), nifti_bytes()
    path = put(tmp_path / "vol_1.nii", whole[:1000])
    assert intake.offer(path, 0.0) == [] and intake.retry(100.0) == []  # no time makes it whole
    put(path, whole)
    assert intake.retry(100.1) == []  # seen
    (scan,) = intake.retry(100.2)  # unchanged since
    np.testing.assert_array_equal(scan.values, volume())
    assert intake.retry(200.0) == []


def test_a_gap_says_what_there_is(tmp_path):
    intake = Intake()
    whole = nifti_bytes()
    taken(intake, put(tmp_path / "vol_1.nii", whole), put(tmp_path / "vol_2.nii", whole[:3000]))
    assert f"3,000 of {len(whole):,} bytes" in intake.incomplete(2)
    assert intake.incomplete(2) == ""
    taken(intake, put(tmp_path / "001_000005_000003.dcm", bytes(5000)))
    assert intake.incomplete(5) == ""
    assert intake.incomplete(3).startswith("001_000005_000003.dcm: found 0 bytes")


def test_zeros_at_the_end_are_doubted_until_they_are_usual(tmp_path):
    data = bytearray(nifti_bytes())
    data[-400:] = bytes(400)
    intake = Intake()
    first = put(tmp_path / "vol_1.nii", bytes(data))
    assert taken(intake, first) == [] and intake.retry(SETTLE_S / 2) == []
    assert "zeros at the end" in next(iter(intake._waiting.values())).text
    assert [scan.number for scan in intake.retry(SETTLE_S)] == [1]
    second = put(tmp_path / "vol_2.nii", bytes(data))  # as where the background is masked
    assert [scan.number for scan in taken(intake, second)] == [2]
    assert len(taken(intake, put(tmp_path / "vol_3.nii", nifti_bytes()))) == 1
    fourth = put(tmp_path / "vol_4.nii", bytes(data))  # not usual
    assert taken(intake, fourth) == []
    put(fourth, nifti_bytes(4))
    intake.retry(1.0)
    (scan,) = intake.retry(1.1)
    np.testing.assert_array_equal(scan.values, volume(4))


def test_a_damaged_file_is_a_scan_with_a_reason_once_it_has_settled(tmp_path):
    intake = Intake()
    taken(intake, put(tmp_path / "vol_1.nii.gz", gzip.compress(nifti_bytes())))
    assert taken(intake, put(tmp_path / "vol_2.nii.gz", with_crc_error())) == []
    (scan,) = intake.retry(SETTLE_S)
    assert (scan.number, scan.values, scan.sha256) == (2, None, "")
    assert scan.reason.startswith("vol_2.nii.gz: found damage")


def test_damage_before_the_first_good_file_is_told_with_it(tmp_path):
    intake = Intake()
    bad, other = tmp_path / "vol_1.nii", tmp_path / "note_1.nii"
    taken(intake, put(bad, b"x" * 1000), put(other, b"y" * 1000))
    assert intake.retry(SETTLE_S) == []
    found = taken(intake, put(tmp_path / "vol_2.nii", nifti_bytes()))
    assert [(scan.number, bool(scan.reason)) for scan in found] == [(1, True), (2, False)]
    with_pattern = Intake(pattern="vol_{n}.nii")
    taken(with_pattern, bad, other)
    assert [scan.number for scan in with_pattern.retry(SETTLE_S)] == [1]


def test_other_series_are_listed_once_and_ignored(tmp_path):
    kinds = {
        "localizer": About(1, "AAHead_Scout", ("ORIGINAL", "PRIMARY", "M", "ND")),
        "reference": About(4, "task_SBRef"),
        "phase": About(6, "task", ("ORIGINAL", "PRIMARY", "P", "ND")),
        "moco": About(7, "MoCoSeries", ("DERIVED", "PRIMARY", "MOCO")),
        "wanted": About(5, "task"),
        "later": About(8, "task2"),
    }
    intake, out = Intake(), []
    for number in (1, 2):
        for name, about in kinds.items():
            path = tmp_path / f"{name}{number}.dcm"
            dicom_files.save(dicom_files.mosaic(volume(number), AFFINE, number, about), path)
            out += [(name, scan.number) for scan in taken(intake, path)]
    out += taken(intake, put(tmp_path / "vol_1.nii", nifti_bytes()))
    assert out == [("wanted", 1), ("wanted", 2)]
    notes = [note.text for note in intake.notes()]
    assert notes.count("series 5 task (magnitude, echo 30 ms): taken") == 1
    assert len(notes) == len(set(notes)) == 7


@pytest.mark.parametrize("asked", ["7", "MoCoSeries"])
def test_a_series_can_be_asked_for(tmp_path, asked):
    intake, out = Intake(series=asked), []
    for number, name in ((5, "task"), (7, "MoCoSeries")):
        path = tmp_path / f"{name}.dcm"
        dicom_files.save(dicom_files.mosaic(volume(), AFFINE, 1, About(number, name)), path)
        out += [name for _ in taken(intake, path)]
    assert out == ["MoCoSeries"]


def test_names_that_do_not_fit_the_pattern_are_ignored(tmp_path):
    intake = Intake(pattern="vol_{n}.nii")
    names = ["T1_1.nii", "T1_2.nii", "vol_3.nii.gz", "mean.nii", "vol_4.nii"]
    data = nifti_bytes()
    found = taken(intake, *(put(tmp_path / name, data) for name in names))
    assert [scan.number for scan in found] == [3, 4]
    assert sorted(whats(intake)) == ["ignored", "ignored", "series"]  # T1_{n}.nii once


def test_what_is_no_file_of_the_scanner_is_a_note(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "secret.nii"
    folder.mkdir()
    put(outside, nifti_bytes())
    os.mkfifo(folder / "vol_1.nii")
    os.mkfifo(folder / "pipe")
    (folder / "vol_2.nii").mkdir()
    (folder / "vol_3.nii").symlink_to(outside)
    (folder / "vol_4.nii").symlink_to(folder / "vol_4.nii")
    (folder / "vol_5.nii").symlink_to("/dev/zero")
    put(folder / "log.txt", b"started\n" * 50)
    put(folder / "short.txt", b"x")
    put(folder / "vol_6.img", bytes(100))
    put(folder / "vol_7.hdr", nifti_bytes()[:352])
    intake = Intake()
    names = sorted(path.name for path in folder.iterdir())
    for turn in range(3):
        assert taken(intake, *(folder / name for name in names), now=float(turn)) == []
        assert intake.retry(turn + 0.5) == []
    texts = {note.text.partition(":")[0]: note.text for note in intake.notes()}
    assert texts["vol_1.nii"].endswith("not a regular file")
    assert texts["vol_2.nii"].endswith("a folder")
    assert texts["vol_3.nii"].endswith("a link out of the folder")
    assert {"pipe", "log.txt", "short.txt", "vol_5.nii", "vol_6.img", "vol_7.hdr"} <= set(texts)


def test_links_within_the_folder_are_followed(tmp_path):
    put(tmp_path / "a", nifti_bytes())
    (tmp_path / "vol_1.nii").symlink_to(tmp_path / "a")
    assert len(taken(Intake(), tmp_path / "vol_1.nii")) == 1


def test_a_file_that_is_gone_is_a_note(tmp_path):
    intake = Intake()
    assert taken(intake, tmp_path / "vol_9.nii", tmp_path / "vol_9.nii.writing") == []
    half = put(tmp_path / "vol_1.nii", nifti_bytes()[:999])
    taken(intake, half)
    half.unlink()
    assert intake.retry(1.0) == intake.retry(2.0) == []
    assert [(note.what, note.volume) for note in intake.notes()] == [("ignored", 9), ("ignored", 1)]


def test_a_file_without_permission_is_read_when_it_may_be(tmp_path, monkeypatch):
    path = put(tmp_path / "vol_1.nii", nifti_bytes())
    intake, allowed = Intake(pattern="vol_{n}.nii"), scans.read_bytes

    def refused(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(scans, "read_bytes", refused)
    assert taken(intake, path) == []
    assert intake.retry(SETTLE_S)[0].reason == "vol_1.nii: Permission denied"
    second = put(tmp_path / "vol_2.nii", nifti_bytes())
    taken(intake, second, now=1.0)
    monkeypatch.setattr(scans, "read_bytes", allowed)
    assert [scan.reason for scan in intake.retry(1.0 + SETTLE_S)] == [""]


def test_files_of_before_a_restart_are_not_read_again(tmp_path):
    paths = [put(tmp_path / f"vol_{n}.nii", nifti_bytes(n)) for n in (1, 2, 3)]
    intake = Intake(series="vol_{n}.nii", done=["vol_1.nii", "vol_2.nii"])
    assert [scan.number for scan in taken(intake, *paths)] == [3]
    put(paths[0], nifti_bytes(9))  # other content under an old name
    assert [scan.number for scan in taken(intake, paths[0])] == [1]


def test_a_clock_that_is_set_back_delays_but_does_not_stall(tmp_path):
    intake = Intake(pattern="v{n}")
    taken(intake, put(tmp_path / "v1.nii", b"x" * 1000), now=1000.0)
    assert intake.retry(10.0) == []
    assert len(intake.retry(10.0 + SETTLE_S)) == 1


def test_names_cannot_write_to_the_terminal(tmp_path):
    intake = Intake()
    path = tmp_path / "a\n\x1b[2Jvol_1.nii"
    taken(intake, put(path, b"x" * 1000), put(tmp_path / "b\n.txt", b"x" * 1000))
    intake.retry(SETTLE_S)
    found = taken(intake, put(tmp_path / "a\n\x1b[2Jvol_2.nii", nifti_bytes()))
    lines = [note.text for note in intake.notes()] + [scan.reason for scan in found]
    assert len(lines) == 4 and all(line.isprintable() for line in lines)


def test_memory_is_bounded(tmp_path):
    intake = Intake()
    for number in range(300):
        intake.offer(put(tmp_path / f"vol_{number}.nii", b"half"), 0.0)
    assert len(intake._waiting) == 256
    assert whats(intake) == ["unreadable"] * 44
