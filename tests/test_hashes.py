"""Hashes of sources: changed files are read again, irregular files are refused at once."""

import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from emojax.data import cleaning, hashes, sealed
from emojax.data.cohort import build
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError

SHAPE = (6, 5, 4, 7)


def save(path):
    values = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([3.0, 3, 3, 1])), path)
    return path


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def reads(monkeypatch):
    """Records the paths that are hashed by reading them."""
    seen, plain = [], hashes.sha256
    monkeypatch.setattr(hashes, "sha256", lambda p, *rest: seen.append(p) or plain(p, *rest))
    return seen


def rewrite(path, times):
    """Writes into the same file."""
    path.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(path, ns=times)


def replace(path, times):
    """Puts another file in its place, as rsync does."""
    other = path.with_name("other")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    os.utime(other, ns=times)
    os.replace(other, path)


@pytest.mark.parametrize("change", [rewrite, replace])
def test_other_content_of_the_same_size_and_time_is_seen(tmp_path, store, change, reads):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tduration\n")
    first, stat = store.hash(path), path.stat()
    assert store.hash(path) == first and reads == [path]
    change(path, (stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size and path.stat().st_mtime_ns == stat.st_mtime_ns
    assert store.hash(path) == hashes.sha256(path) != first


def test_any_regular_file_has_a_hash(tmp_path, store, reads):
    for name, content in (("a.json", b"{}"), ("mask.nii.gz", b"?"), ("empty.tsv", b"")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / f"link-{name}").symlink_to(tmp_path / name)
        assert store.hash(str(tmp_path / f"link-{name}")) == store.hash(tmp_path / name)
    assert len(reads) == 6
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3 * hashes.CHUNK + 1))
    ticks = []
    assert hashes.sha256(big, ticks.append) and sum(ticks) == 3 * hashes.CHUNK + 1


def header_only(pair, times):
    header = nib.load(pair).header
    header["scl_slope"], header["scl_inter"] = 10.0, 0.0
    with open(pair.with_suffix(".hdr"), "r+b") as file:
        header.write_to(file)
    os.utime(pair.with_suffix(".hdr"), ns=times)


def test_a_header_that_changes_alone_is_another_image(tmp_path, store):
    pair = save(tmp_path / "a.img")

    def cleaned():
        (image,) = store.images([pair])
        run = Run("01", "1", image.frames, 2.0, slope=image.slope, hashes=image.hashes)
        cohort = build([run], ("a", "b"), [np.arange(7) % 2])
        return image.hashes, cleaning.apply(cohort, store, detrend=1).volumes[:]

    before, values = cleaned()
    assert list(before) == [str(tmp_path / "a.img"), str(tmp_path / "a.hdr")]
    assert before == {path: hashes.sha256(path) for path in before}
    stat = (tmp_path / "a.hdr").stat()
    header_only(pair, (stat.st_atime_ns, stat.st_mtime_ns))
    after, others = cleaned()
    assert [before[path] == after[path] for path in before] == [True, False]
    np.testing.assert_allclose(others, 10 * values, rtol=1e-4)
    (tmp_path / "a.mat").write_bytes(b"of another tool")  # NIfTI has its affine in the header
    assert cleaned()[0] == after


def test_the_third_file_of_an_analyze_image_belongs_to_it(tmp_path, store):
    import scipy.io

    values = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    nib.save(nib.Spm99AnalyzeImage(values, np.diag([3.0, 3, 3, 1])), tmp_path / "a.img")
    scipy.io.savemat(tmp_path / "a.mat", {"M": np.diag([4.0, 4, 4, 1])})
    (image,) = store.images([tmp_path / "a.img"])
    assert [os.path.basename(path) for path in image.hashes] == ["a.img", "a.hdr", "a.mat"]
    assert image.affine[2, 2] == 4


def folder(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def dangling(path):
    path.symlink_to("nowhere")


def loop(path):
    path.symlink_to(path.name)


def device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img", "a.hdr"])
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (folder, "found something that is not a file; expected a file that can be read"),
        (pipe, "found something that is not a file; expected a file that can be read"),
        (device, "found something that is not a file; expected a file that can be read"),
        (dangling, r"found (a link to a file that is not there|no such file); expected"),
        (loop, r"(cannot be read \(Too many levels of symbolic links\)|no such file); expected"),
    ],
)
def test_what_is_no_regular_file(tmp_path, store, name, make, found):
    path = tmp_path / name
    image = save(tmp_path / ("a.img" if name == "a.hdr" else name))
    path.unlink()
    make(path)
    for use in (store.hash, lambda path: store.images([path]), lambda _: store.images([image])):
        with pytest.raises(InputError, match=f"^{path}: .*{found}"):
            use(path)
    assert not list(store.folder.glob("**/*.*"))


def test_paths_that_no_disk_has(tmp_path, store):
    (tmp_path / "file").touch()
    for path, found in (
        (tmp_path / "a\0b.nii.gz", "cannot be read .embedded null byte"),
        (tmp_path / ("x" * 5000 + ".nii"), "cannot be read .File name too long"),
        (tmp_path / "file" / "a.img", "cannot be read .Not a directory"),
        (tmp_path / "none.nii", "no such file"),
    ):
        for use in (store.hash, lambda path: store.images([path])):
            with pytest.raises(InputError, match=f"found .*{found}.*; expected a file") as error:
                use(path)
            assert str(error.value).isprintable() and len(str(error.value)) < 1000


def test_a_file_that_may_not_be_read(tmp_path, store, monkeypatch):
    path = save(tmp_path / "a.nii.gz")

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(InputError, match=rf"^{path}: .*cannot be read \(Permission denied\)"):
        store.hash(path)


def test_records_know_when_they_are_damaged(tmp_path):
    path = tmp_path / "record"
    record = {"sha256": "0f" * 32, "nan_voxels": 0, "bad_volume": None, "path": "é\udcff"}
    assert sealed.read(path) is None
    sealed.write(path, record)
    want, data = sealed.read(path), path.read_bytes()
    assert want.items() >= record.items()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            assert sealed.read(path) in (None, want)
        except sealed.Damaged as error:
            assert str(path) in str(error)
    for size in range(0, len(data), 9):
        path.write_bytes(data[:size])
        with pytest.raises(sealed.Damaged):
            sealed.read(path)
    path.write_text('{"sha256": "of version 1"}')
    assert sealed.read(path) is None


def test_a_copied_study_keeps_its_hashes(tmp_path, store, reads):
    path = save(tmp_path / "a.nii.gz")
    store.images([path])
    shutil.copytree(store.folder, tmp_path / "copy")
    moved = tmp_path / "b.nii.gz"
    path.rename(moved)
    reads.clear()
    (image,) = Store(tmp_path / "copy").images([moved])
    assert list(image.hashes) == [str(moved)] and len(reads) == 2  # source and copy; not decoded
