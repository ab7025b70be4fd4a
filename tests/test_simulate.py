"""A simulated scanner: its files, its times, and the traces of its faults on disk."""

import io
import subprocess
import time

import nibabel as nib
import numpy as np
import pydicom
import pytest
from simulated import AFFINE, COUNT, SHAPE, TR, VALUES, WHOLE, sizes, write, write_run

from emojax.online import dicom
from emojax.online.dicom import slices
from emojax.online.simulate import dicom_files as writing
from emojax.online.simulate import faults, writers
from emojax.online.simulate.disk import PART, Disk
from emojax.online.simulate.faults import plan


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "run.nii.gz")


def volumes(folder):
    """Returns {(kind, number): volume} as `dicom.read` finds them in a folder."""
    state, found = slices.init(), {}
    for path in sorted(folder.iterdir()):
        for part in dicom.read(path):
            state, whole = slices.add(state, part)
            found |= {(volume.series.kind, volume.number): volume for volume in whole}
    assert not slices.waiting(state)
    return found


# The files


@pytest.mark.parametrize("form", ["nifti", "nifti.gz"])
@pytest.mark.parametrize("kind", ["int16", "uint16", "float32"])
def test_nifti_files_hold_the_run(form, kind, tmp_path):
    values = (VALUES * 15).astype(kind) + (0.25 if kind == "float32" else 0)
    run = write_run(tmp_path / "run.nii", values.astype(kind))
    write(run, tmp_path / "out", form=form)
    paths = sorted((tmp_path / "out").iterdir())
    end = form.removeprefix("nifti")
    assert [path.name for path in paths] == [f"vol_{n:05}.nii{end}" for n in range(1, COUNT + 1)]
    for path, want in zip(paths, values, strict=True):
        image = nib.load(path)
        assert image.get_data_dtype() == kind and image.header.get_xyzt_units() == ("mm", "sec")
        assert image.header["pixdim"][4] == TR and image.shape == SHAPE
        np.testing.assert_array_equal(np.asarray(image.dataobj), want)
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)


@pytest.mark.parametrize("form", ["mosaic", "enhanced", "slices"])
@pytest.mark.parametrize("kind", ["int16", "uint16", "float32"])
def test_dicom_files_hold_the_run(form, kind, tmp_path):
    values = (VALUES.astype(float) * (15 if kind == "uint16" else 1)).astype(kind)
    values = values / np.float32(700) if kind == "float32" else values
    run = write_run(tmp_path / "run.nii", values)
    write(run, tmp_path / "out", form=form, first=11, repeat=2)
    found = volumes(tmp_path / "out")
    assert sorted(found) == [("magnitude", n) for n in range(11, 11 + 2 * COUNT)]
    for (_, number), volume in found.items():
        want = values[(number - 11) % COUNT]
        np.testing.assert_allclose(volume.values, want, atol=1e-4 if kind == "float32" else 0)
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-3)
        assert volume.tr == TR and volume.time == found["magnitude", 11].time + TR * (number - 11)
        assert volume.series == found["magnitude", 11].series


@pytest.mark.parametrize("form", ["mosaic", "enhanced", "slices"])
def test_dcm2niix_reads_the_files(form, run, tmp_path):
    program = pytest.importorskip("dcm2niix").bin
    write(run, tmp_path / "out", form=form, faults=["series@2"])
    (tmp_path / "nii").mkdir()
    call = [program, "-b", "n", "-z", "n", "-f", "%s", "-o", tmp_path / "nii", tmp_path / "out"]
    subprocess.run(call, check=True, capture_output=True)
    images = [nib.load(path) for path in sorted((tmp_path / "nii").glob("5*.nii"))]
    (image,) = images
    np.testing.assert_array_equal(np.moveaxis(np.asarray(image.dataobj), -1, 0), VALUES)
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-3)


def plain(data):
    """Returns all elements except the UIDs, and the text of XA with the number in it."""
    return [
        (element.tag, element.value)
        for element in data.iterall()
        if element.VR not in ("SQ", "UI") and element.tag != 0x0021118E
    ]


@pytest.mark.parametrize("form", ["mosaic", "enhanced", "slices"])
@pytest.mark.parametrize("number", [1, 45, 999_999])
def test_renumbered_headers_equal_written_ones(form, number):
    about = writing.About(tr=0.8)
    heads = writing.heads(form, VALUES[0] * 0, AFFINE, about)
    volume = VALUES[:1] if form == "enhanced" else VALUES[0]
    files = getattr(writing, form)(volume, AFFINE, number, about)
    files = files if form == "slices" else [files]
    for head, made, pixels in zip(heads, files, writing.images(form, VALUES[0]), strict=True):
        data = writing.stamped(head, number, about) + pixels.tobytes()
        read = pydicom.dcmread(io.BytesIO(data))
        assert plain(read) == plain(made) and len(read.SOPInstanceUID) <= 64
        assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID


def test_numbers_go_on_where_the_run_is_repeated(run, tmp_path):
    lines = write(run, tmp_path / "out", repeat=3, first=0, name="{n}.nii")
    assert [line["volume"] for line in lines] == [*range(3 * COUNT)]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{n}.nii" for n in range(3 * COUNT)
    }
    last = nib.load(tmp_path / "out" / f"{3 * COUNT - 1}.nii")
    np.testing.assert_array_equal(np.asarray(last.dataobj), VALUES[-1])


# The times


@pytest.mark.parametrize("form", ["nifti", "slices"])
def test_volumes_are_closed_in_time(form, run, tmp_path):
    start = time.time()
    lines = write(run, tmp_path / "out", form=form, speed=50.0)
    closed, due = (np.array([line[key] for line in lines]) for key in ("closed", "due"))
    np.testing.assert_allclose(np.diff(due), TR / 50, atol=1e-6)
    assert (closed >= due - 1e-3).all() and np.median(closed - due) < TR / 50
    assert start + COUNT * TR / 50 <= closed[-1] < time.time()
    for line in lines:
        stamp = (tmp_path / "out" / line["file"]).stat().st_mtime
        assert abs(stamp - line["closed"]) < 0.05


# Faults on the disk


def after_each(fault, folder, form="nifti", **settings):
    """Runs the steps of three volumes with a fault in the second; yields each of them."""
    source = writers.Run(np.moveaxis(VALUES[:3], 0, -1), AFFINE, TR)
    writer = writers.writer(form, source, TR, "")
    folder.mkdir()
    with Disk(folder, **settings) as disk:
        for action in plan(3, [f"{fault}@2"]):
            if action.fault != "lost":
                image = writers.image(source, action, 0)
                contents = writer(image, action.volume, action.fault == "series")
                ends = ("",) if len(contents) == 1 else [f"_{k}" for k in range(len(contents))]
                disk.do(action, [f"{action.prefix}{action.volume}{e}" for e in ends], contents)
            yield action


@pytest.mark.parametrize("fault", ["half", "slow", "prealloc"])
def test_files_that_grow(fault, tmp_path):
    seen = []
    for action in after_each(fault, tmp_path / "out"):
        if action.volume == 2:
            data = (tmp_path / "out" / "2").read_bytes()
            seen.append((len(data), len(data.rstrip(b"\0"))))
    want = {
        "half": [(WHOLE // 2, WHOLE // 2), (WHOLE, WHOLE)],
        "slow": [(WHOLE * k // 8,) * 2 for k in range(1, 9)],
        "prealloc": [(WHOLE, 0), (WHOLE, WHOLE // 2), (WHOLE, WHOLE)],
    }[fault]
    assert [size for size, _ in seen] == [size for size, _ in want]
    np.testing.assert_allclose([n for _, n in seen], [n for _, n in want], atol=20)
    data = np.asarray(nib.Nifti1Image.from_bytes((tmp_path / "out" / "2").read_bytes()).dataobj)
    np.testing.assert_array_equal(data, VALUES[1])


def test_half_of_the_slices(tmp_path):
    steps = after_each("half", tmp_path / "out", "slices")
    counts = [len(list((tmp_path / "out").glob("2_*"))) for action in steps if action.volume == 2]
    assert counts == [SHAPE[2] // 2, SHAPE[2]]


@pytest.mark.parametrize("fault", ["half", "slow", "prealloc", "shuffled", "duplicate"])
@pytest.mark.parametrize("form", ["nifti", "slices"])
def test_names_appear_when_files_are_whole(fault, form, tmp_path):
    full = {}
    for _ in after_each(fault, tmp_path / "out", form, atomic=True):
        named = {name: size for name, size in sizes(tmp_path / "out").items() if PART not in name}
        assert all(size == full.setdefault(name, size) for name, size in named.items())
    assert not list((tmp_path / "out").glob(f"*{PART}"))


def test_truncated_files_stay_so(tmp_path):
    list(after_each("truncated", tmp_path / "out"))
    assert sizes(tmp_path / "out") == {"1": WHOLE, "2": int(0.6 * WHOLE), "3": WHOLE}


def test_lost_volumes_leave_a_line_only(run, tmp_path):
    lines = write(run, tmp_path / "out", faults=["lost@3"])
    assert len(list((tmp_path / "out").iterdir())) == COUNT - 1
    (lost,) = [line for line in lines if line["fault"] == "lost"]
    assert (lost["volume"], lost["file"], lost["closed"]) == (3, None, None) and lost["due"]


def test_what_follows_a_sound_file(run, tmp_path):
    settings = {"form": "mosaic", "faults": ["series@2", "duplicate@3", "conflict@5"]}
    for seed in range(4):  # some under their own names, others under new ones
        write(run, tmp_path / f"{seed}", seed=seed, **settings)
    names = [{path.name for path in (tmp_path / f"{seed}").iterdir()} for seed in range(4)]
    assert all("phase_vol_00002.dcm" in found for found in names)
    for number in (3, 5):
        assert 0 < sum(f"copy_vol_{number:05}.dcm" in found for found in names) < 4
    again = {}
    for seed in range(4):
        for path in (tmp_path / f"{seed}").glob("*vol_0000[35].dcm"):
            (part,) = dicom.read(path)
            again.setdefault(part.number, set()).add(part.values.tobytes())
    assert len(again[3]) == 1 and len(again[5]) == 2


@pytest.mark.parametrize("form", ["mosaic", "enhanced", "slices"])
def test_a_series_of_phase_images(form, run, tmp_path):
    write(run, tmp_path / "out", form=form, faults=["series@2"])
    found = volumes(tmp_path / "out")
    assert sorted(found) == [*(("magnitude", n) for n in range(1, COUNT + 1)), ("phase", 2)]
    assert found["phase", 2].series.number == 6
    assert not np.array_equal(found["phase", 2].values, VALUES[1])


def test_faults_of_the_image(run, tmp_path):
    write(run, tmp_path / "out", faults=["zeros@2", "frozen@3", "drift:0.1"], seed=1)
    got = [np.asarray(nib.load(path).dataobj) for path in sorted((tmp_path / "out").iterdir())]
    gain = 1 + 0.1 * np.arange(COUNT) / (COUNT - 1)
    np.testing.assert_array_equal(got[1][..., 4:], 0)
    np.testing.assert_allclose(got[1][..., :4], gain[1] * VALUES[1][..., :4], atol=0.51)
    np.testing.assert_allclose(got[2], gain[2] * VALUES[1], atol=0.51)
    np.testing.assert_allclose(got[5], gain[5] * VALUES[5], atol=0.51)


def test_motion_shifts_by_half_a_voxel():
    grid = np.stack(np.meshgrid(*map(np.arange, (20, 20, 20)), indexing="ij"))
    ramp = (10 * grid[0] + 20 * grid[1] + 30 * grid[2]).astype(np.float32)
    source = writers.Run(ramp[..., None], np.eye(4), TR)
    moved = writers.image(source, faults.Action(1.0, 1, 0, "motion"), 5)
    shift, inner = writers.shift(5), slice(4, -4)
    assert np.linalg.norm(shift) == pytest.approx(writers.MOVE) and (np.abs(shift) > 0.05).all()
    want = ramp - shift @ (10, 20, 30)
    np.testing.assert_allclose(moved[inner, inner, inner], want[inner, inner, inner], atol=0.05)


# What stays


def test_keeps_the_last_volumes(run, tmp_path):
    write(run, tmp_path / "out", keep=2, form="slices")
    left = {path.name[:9] for path in (tmp_path / "out").iterdir()}
    assert left == {f"vol_{n:05}" for n in (COUNT - 1, COUNT)}


@pytest.mark.parametrize("atomic", [False, True])
def test_removes_all_that_it_wrote(atomic, run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").touch()
    given = ["duplicate:.5", "series", "half", "truncated@2"]
    write(run, tmp_path / "out", clean=True, faults=given, atomic=atomic)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["theirs"]


@pytest.mark.parametrize("fault", ["half", "slow", "prealloc"])
@pytest.mark.parametrize("atomic", [False, True])
def test_a_stop_leaves_whole_files(fault, atomic, tmp_path):
    steps = after_each(fault, tmp_path / "out", atomic=atomic)
    next(action for action in steps if action.volume == 2)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    assert sizes(tmp_path / "out") == {"1": WHOLE}
