"""DICOM files of every kind against the volume they were written from, and against dcm2niix."""

import subprocess
import time

import dicom_files as files
import nibabel as nib
import numpy as np
import pytest
from dicom_kinds import GE, PHILIPS, PLANES, SHAPE, WRITERS, each, part_of, read
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from emojax.errors import InputError
from emojax.online import dicom
from emojax.online.dicom import mosaic, slices


def by_dcm2niix(folder):
    """Returns the images that dcm2niix makes of the files that `read` wrote."""
    program = pytest.importorskip("dcm2niix").bin
    out = folder / "nii"
    out.mkdir()
    call = [program, "-b", "n", "-z", "n", "-f", "%s_%e", "-o", out, folder / "in"]
    subprocess.run(call, check=True, capture_output=True)
    return [nib.load(path) for path in sorted(out.glob("*.nii"))]


@pytest.mark.parametrize("mirrored", [True, False], ids=["mirrored", "not mirrored"])
@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("kind", WRITERS)
def test_gives_the_volume_that_was_written(kind, plane, mirrored, tmp_path):
    affine = files.oblique(1, plane=plane, mirrored=mirrored)
    volumes = files.volumes(2, (*SHAPE[:2], 16) if kind.endswith("CSA header") else SHAPE)
    found, state = read(WRITERS[kind](volumes, affine), tmp_path, given=volumes.shape[3])
    assert sorted(found) == [("magnitude", 1), ("magnitude", 2)] and not slices.waiting(state)
    for number, want in enumerate(volumes, 1):
        got = found["magnitude", number]
        if not mirrored and not kind.startswith("mosaic"):  # slices always run along the normal
            want, place = want[:, :, ::-1], affine @ np.diag([1, 1, -1, 1])
            place[:3, 3] += affine[:3, 2] * (SHAPE[2] - 1)
        elif kind.endswith("CSA header") and np.linalg.det(got.affine) * (-1) ** mirrored < 0:
            continue  # nothing in the file says which way its slices run
        else:
            place = affine
        np.testing.assert_array_equal(got.values, want)
        assert got.values.dtype == np.float32
        np.testing.assert_allclose(got.affine, place, atol=1e-5)
        assert got.tr == 2.0 and got.series.echo == 30.0 and got.series.number == 5
    assert found["magnitude", 2].time - found["magnitude", 1].time == 2.0


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("kind", WRITERS)
def test_equals_dcm2niix(kind, plane, tmp_path):
    csa = not kind.endswith("CSA header")
    if not csa and plane != "axial":
        pytest.skip("without the header, dcm2niix takes the slices to run upwards")
    volumes = files.volumes(2, SHAPE if csa else (*SHAPE[:2], 16))
    affine = files.oblique(2, plane=plane, mirrored=plane != "coronal")
    found, _ = read(WRITERS[kind](volumes, affine), tmp_path, given=volumes.shape[3])
    images = by_dcm2niix(tmp_path)
    if kind == "one frame per file" and len(images) != 1:
        pytest.skip("dcm2niix takes them for single images")
    (image,) = images
    want = np.asarray(image.dataobj)
    for i, number in enumerate(sorted(found)):
        np.testing.assert_array_equal(found[number].values, want[..., i])
        np.testing.assert_allclose(found[number].affine, image.affine, atol=1e-3)


@pytest.mark.filterwarnings("ignore:The DICOM readers")
def test_mosaic_equals_nibabel(tmp_path):
    from nibabel.nicom import dicomwrappers

    affine = files.oblique(3, plane="sagittal", mirrored=False)
    data = files.mosaic(files.volumes()[0], affine)
    found, _ = read([data], tmp_path)
    want = dicomwrappers.wrapper_from_file(tmp_path / "in" / "0000.dcm")
    got = found["magnitude", 1]
    np.testing.assert_array_equal(got.values[:, ::-1].swapaxes(0, 1), want.get_data())
    turned = want.affine[:, [1, 0, 2, 3]] * [1, -1, 1, 1]  # rows first; y runs down the image
    turned[:3, 3] += want.affine[:3, 0] * (SHAPE[1] - 1)
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ turned, got.affine, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The DICOM readers")
def test_csa_headers_equal_nibabel():
    from nibabel.nicom import csareader

    values = {"NumberOfImagesInMosaic": ["44      "], "SliceNormalVector": ["0.1", "-.2", "0.97"]}
    header = files.csa_header(values)
    want = csareader.read(header)["tags"]
    for name in values:
        got = mosaic.csa_numbers(header, name, "file")
        assert list(got) == [float(item) for item in want[name]["items"]]
    assert mosaic.csa_numbers(header, "Absent", "file") == ()
    at = header.find(b"SliceNormalVector")
    with pytest.raises(InputError, match="damaged CSA header"):
        mosaic.csa_numbers(header[: at + 90], "SliceNormalVector", "file")


def test_counts_the_slices_of_a_mosaic(tmp_path):
    affine, volume = files.oblique(), files.volumes()[0]
    times = files.mosaic(volume, affine, csa=False)
    block = times.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x29, "FD", list(np.arange(10.0)))
    private = files.mosaic(volume, affine, count=False)
    private.private_block(0x0019, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", 10)
    for data in (times, private):
        np.testing.assert_array_equal(read([data], tmp_path)[0]["magnitude", 1].values, volume)
    bare = files.mosaic(volume, affine, csa=False)
    del bare.AcquisitionMatrix
    with pytest.raises(InputError, match="without its number of slices"):
        part_of(bare, tmp_path)
    uneven = files.mosaic(volume, affine)
    uneven.Columns, uneven.Rows = 3, 1024  # as many pixels, and no four tiles in a row
    with pytest.raises(InputError, match="with 10 slices"):
        part_of(uneven, tmp_path)


def test_split_mosaics_are_slices(tmp_path):
    about = files.About(image_type=("ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"))
    made = files.slices(files.volumes()[0], files.oblique(), 1, about)
    for data in made:
        data.AcquisitionMatrix = [0, SHAPE[0], SHAPE[1], 0]
    found, _ = read(made, tmp_path, given=SHAPE[2])
    np.testing.assert_array_equal(found["magnitude", 1].values, files.volumes()[0])


@pytest.mark.parametrize("order", ["random", "by place"])
def test_frames_in_any_order(order, tmp_path):
    volumes = files.volumes(3)
    frames = np.arange(30).reshape(3, 10).T.ravel()
    if order == "random":
        frames = np.random.default_rng(0).permutation(30)
    data = files.enhanced(volumes, files.oblique(), 1, PHILIPS, order=frames)
    if order == "by place":  # and nothing counts the volumes
        for frame in data.PerFrameFunctionalGroupsSequence:
            del frame.FrameContentSequence[0].TemporalPositionIndex
    found, _ = read([data], tmp_path)
    for number, want in enumerate(volumes, 1):
        np.testing.assert_array_equal(found["magnitude", number].values, want)


def test_kinds_and_echoes_of_one_file_are_apart(tmp_path):
    volumes, affine = files.volumes(2), files.oblique()
    made = files.enhanced(volumes, affine, 7, PHILIPS, kinds=["MAGNITUDE", "PHASE"])
    found, _ = read([made], tmp_path)
    np.testing.assert_array_equal(found["magnitude", 7].values, volumes[0])
    np.testing.assert_array_equal(found["phase", 7].values, volumes[1])
    files.save(files.enhanced(volumes, affine, 7, PHILIPS, echoes=[12.0, 35.0]), tmp_path / "e")
    assert [part.series.echo for part in dicom.read(tmp_path / "e")] == [12.0, 35.0]


def test_an_unfinished_last_volume_waits(tmp_path):
    made = files.enhanced(files.volumes(2), files.oblique(), 1, PHILIPS, order=np.arange(17))
    found, state = read([made], tmp_path)
    assert list(found) == [("magnitude", 1)]
    (lacking,) = slices.waiting(state)
    assert (lacking.number, lacking.have, lacking.want) == (2, 7, 10)


@pytest.mark.parametrize("varying", [True, False])
def test_frames_are_scaled_as_by_dcm2niix(varying, tmp_path):
    volumes = files.volumes(2)
    slopes = np.linspace(1, 3, 20) if varying else np.full(20, 2.5)
    found, _ = read([files.enhanced(volumes, files.oblique(), 1, PHILIPS, slopes=slopes)], tmp_path)
    want = by_dcm2niix(tmp_path)[0].get_fdata(dtype=np.float32)
    for t in range(2):
        got = found["magnitude", t + 1].values
        np.testing.assert_allclose(got, volumes[t] * slopes[10 * t : 10 * t + 10], rtol=1e-6)
        np.testing.assert_allclose(got, want[..., t], rtol=1e-6)


def test_philips_values_are_precise_as_by_dcm2niix(tmp_path):
    made = each(files.slices, PHILIPS)(files.volumes(2), files.oblique())
    for data in made:
        data.RescaleSlope, data.RescaleIntercept = "2.5", "-3"
        block = data.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", 0.0125)
    found, _ = read(made, tmp_path)
    want = by_dcm2niix(tmp_path)[0].get_fdata(dtype=np.float32)
    np.testing.assert_allclose(found["magnitude", 2].values, want[..., 1], rtol=1e-5)


@pytest.mark.parametrize("kind", ["mosaic", "slice", "frames"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_syntaxes(syntax, kind, tmp_path):
    volume, affine = files.volumes()[0], files.oblique()

    def make():
        if kind == "frames":
            return files.without_lengths(files.enhanced(volume[None], affine))
        return files.mosaic(volume, affine) if kind == "mosaic" else files.slices(volume, affine)[3]

    want = part_of(make(), tmp_path, "plain.dcm")
    data = make()
    if syntax == RLELossless:
        data.compress(syntax)
    files.save(data, tmp_path / "other.dcm", syntax)
    (got,) = dicom.read(tmp_path / "other.dcm")
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


TYPES = {
    "ORIGINAL/PRIMARY/M/ND": "magnitude",
    "ORIGINAL/PRIMARY/FMRI/NONE": "magnitude",
    "ORIGINAL/PRIMARY/M/MB/TE1/ND/NORM": "magnitude",
    "DERIVED/PRIMARY/M/MOCO/ND": "motion-corrected",
    "ORIGINAL/PRIMARY/P/ND": "phase",
    "ORIGINAL/PRIMARY/PHASE MAP/P/FFE": "phase",
    "ORIGINAL/PRIMARY/R/ND": "real",
    "ORIGINAL/PRIMARY/IMAGINARY": "imaginary",
    "DERIVED/SECONDARY/MPR": "derived",
    "ORIGINAL/PRIMARY/LOCALIZER": "localizer",
}
NAMES = {
    "MoCoSeries": "motion-corrected",
    "task_SBRef": "reference",
    "AAHead_Scout": "localizer",
    "localizer_32ch": "localizer",
    "SURVEY": "localizer",
    "task-emotion_bold": "magnitude",
}


@pytest.mark.parametrize("image_type, kind", TYPES.items())
def test_kinds_by_image_type(image_type, kind, tmp_path):
    about = files.About(image_type=tuple(image_type.split("/")))
    made = files.slices(files.volumes()[0], files.oblique(), 1, about)[0]
    assert kind in dicom.KINDS and part_of(made, tmp_path).series.kind == kind


@pytest.mark.parametrize("name, kind", NAMES.items())
def test_kinds_by_name(name, kind, tmp_path):
    made = files.mosaic(files.volumes()[0], files.oblique(), 1, files.About(name=name))
    assert part_of(made, tmp_path).series[1:3] == (name, kind)


@pytest.mark.parametrize("code, kind", [(0, "magnitude"), (1, "phase"), (3, "imaginary")])
def test_kinds_of_ge(code, kind, tmp_path):
    made = files.slices(files.volumes()[0], files.oblique(), 1, GE)[0]
    made.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", code)
    assert part_of(made, tmp_path).series.kind == kind


def test_times(tmp_path):
    made = files.slices(files.volumes()[0], files.oblique())[0]
    assert part_of(made, tmp_path).time == 1772357400.0
    del made.AcquisitionTime, made.RepetitionTime
    part = part_of(made, tmp_path)
    assert np.isnan(part.time) and part.tr == 0


def benchmark(folder, repeats=200):
    """Prints the times from file to volume, of 64 x 64 x 44 voxels."""
    shape = (64, 64, 44)
    volume, affine = files.volumes(1, shape)[0], files.oblique(shape=shape)
    made = {
        "mosaic": files.mosaic(volume, affine),
        "multi-frame": files.enhanced(volume[None], affine),
        "slice": files.slices(volume, affine)[0],
    }
    for name, data in made.items():
        files.save(data, folder / "one.dcm")
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            for part in dicom.read(folder / "one.dcm"):
                slices.add(slices.init(), part)
            times.append(1000 * (time.perf_counter() - start))
        print(f"{name}: p50 {np.median(times):.2f} ms, p99 {np.quantile(times, 0.99):.2f} ms")
