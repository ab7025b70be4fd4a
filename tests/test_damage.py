"""A store that rots, fills up, is read-only, or shared: right values, or one line, never others."""

import contextlib
import gzip
import os
import random
import resource
import shutil
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from emojax.data import hashes
from emojax.data.store import Store, clear, entries
from emojax.errors import InputError

SHAPE = (6, 5, 4, 7)


def save(path, seed=0, dtype=np.int16):
    values = np.random.default_rng(seed).integers(0, 900, SHAPE).astype(dtype)
    nib.save(nib.Nifti1Image(values, np.diag([3.0, 3, 3, 1])), path)
    return path


@pytest.fixture
def study(tmp_path):
    """Returns (store folder, three scans: compressed, plain and a pair), all of it stored."""
    paths = [save(tmp_path / name, i) for i, name in enumerate(("a.nii.gz", "b.nii", "c.img"))]
    read(tmp_path / "store", paths)
    return tmp_path / "store", paths


def read(folder, paths, **more):
    """Returns all that a run takes from a store: values of scans, and an array made of them."""
    store = Store(folder)
    images = store.images(paths)

    def fill(out):
        for row, image in zip(out, images, strict=True):
            row[...] = image.frames * 2

    key = " ".join(d for image in images for d in image.hashes.values())
    double = store.derived(key, (len(images), *images[0].frames.shape), np.float32, fill)
    hashed = {path: digest for image in images for path, digest in image.hashes.items()}
    assert hashed == {path: hashes.sha256(path) for path in hashed}
    return [np.array(image.frames) for image in images], np.array(double)


def check(folder, paths):
    got, double = read(folder, paths)
    for path, values, twice in zip(paths, got, double, strict=True):
        want = np.moveaxis(np.asarray(nib.load(path).dataobj), -1, 0)
        np.testing.assert_array_equal(values, want)
        np.testing.assert_array_equal(twice, want * 2.0)


def delete(path, rng):
    path.unlink()


def empty(path, rng):
    path.write_bytes(b"")


def halve(path, rng):
    os.truncate(path, path.stat().st_size // 2)


def flip(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def zero(path, rng):
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data) - 16)
    data[start : start + 16] = bytes(16)
    path.write_bytes(data)


def lengthen(path, rng):
    path.write_bytes(path.read_bytes() + b"\0" * 100)


def no_json(path, rng):
    path.write_text('{"sha256": 1, ')


def other_json(path, rng):
    path.write_text(rng.choice(["[1]", "null", "3", "{}", '{"nan_voxels": 0}', "[" * 10**5]))


def pipe(path, rng):
    path.unlink()
    os.mkfifo(path)


HARMS = (delete, empty, halve, flip, flip, flip, zero, lengthen, no_json, other_json, pipe)


@pytest.mark.parametrize("pattern", ["*.nii", "*.npy", "*.json", "paths/*.json"])
def test_damage_of_any_file_is_healed(study, tmp_path, capsys, pattern):
    folder, paths = study
    rng, trial = random.Random(pattern), tmp_path / "trial"
    for harm in HARMS:
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(folder, trial)
        for file in sorted(trial.glob(pattern)):
            harm(file, rng)
        capsys.readouterr()
        check(trial, paths)
        lines = capsys.readouterr().err.splitlines()
        if harm in (empty, halve, no_json, pipe) or (pattern[2:] in ("nii", "npy")):
            assert len(lines) == len(list(trial.glob(pattern))), lines
        assert all(line.endswith(("made again", "read again")) for line in lines)
        assert not any("found" in line and line.startswith(str(paths[0])) for line in lines)
        check(trial, paths)
        assert capsys.readouterr().err == "", harm  # healed for good
        assert len(entries(trial)) == len(entries(folder))


def test_an_array_of_another_shape_or_of_another_key_is_made_again(study, capsys):
    folder, _ = study
    store = Store(folder)
    one = store.derived("one", (4,), np.int64, lambda out: out.fill(1))
    store.derived("two", (4,), np.int64, lambda out: out.fill(2))
    other = Store(folder).derived("one", (2, 2), np.int64, lambda out: out.fill(3))
    assert other.shape == (2, 2) and (other == 3).all() and (one == 1).all()
    first, second = sorted(folder.glob("*.npy"), key=lambda p: np.load(p).flat[0] != 2)[:2]
    for kind in (".npy", ".json"):  # a whole pair under another name
        shutil.copy(first.with_suffix(kind), second.with_suffix(kind))
    assert (Store(folder).derived("one", (4,), np.int64, lambda out: out.fill(4)) == 4).all()
    assert capsys.readouterr().err.count("is about something else; it was made again") == 2


def test_a_folder_in_the_place_of_a_scan_is_one_line(study):
    folder, paths = study
    (scan,) = folder.glob("*.nii")
    scan.unlink()
    scan.mkdir()
    with pytest.raises(InputError, match=rf"^{folder}: found a folder in which .* directory\)"):
        read(folder, paths)
    assert not list(folder.glob("**/*.partial"))


def test_the_store_is_hashed_once(study, monkeypatch):
    folder, paths = study
    seen, plain = [], hashes.sha256

    def counted(path, *rest):
        seen.append(path)
        return plain(path, *rest)

    monkeypatch.setattr(hashes, "sha256", counted)
    store = Store(folder)
    for _ in range(2):
        store.images(paths)
    assert seen == list(folder.glob("*.nii"))  # no source


@contextlib.contextmanager
def no_room(size):
    """Limits the length of any file, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_store_that_cannot_be_written_is_used_and_its_damage_is_one_line(study):
    folder, paths = study
    for record in folder.glob("paths/*"):
        record.unlink()
    files = sorted(folder.glob("**/*"))
    with no_room(0):
        check(folder, paths)
    assert sorted(folder.glob("**/*")) == files
    (scan,) = folder.glob("*.nii")
    scan.write_bytes(data := scan.read_bytes()[:-1] + b"?")
    match = rf"^{folder}: found a folder in which .* cannot be written"
    with no_room(0), pytest.raises(InputError, match=match):
        read(folder, paths)
    assert not list(folder.glob("**/*.partial")) and scan.read_bytes() == data


@pytest.mark.parametrize("room", [0, 100, 1500])
def test_a_disk_that_is_full_is_one_line_and_nothing_is_left(tmp_path, room):
    folder, path = tmp_path / "store", save(tmp_path / "a.nii.gz")
    for use in (
        lambda store: store.images([path]),
        lambda store: store.derived("k", SHAPE, np.int64, lambda out: out.fill(1)),
    ):
        match = rf"^{folder}: .* cannot be written \(File too large"
        with no_room(room), pytest.raises(InputError, match=match):
            use(Store(folder))
    assert not list(folder.glob("*.*")) and not list(folder.glob("**/*.partial"))


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null/x", "a\0b", "/tmp/" + "x" * 5000])
def test_places_where_no_store_can_be(tmp_path, place):
    with pytest.raises(InputError, match=r"cannot be made .*; expected one .*data.store") as error:
        Store(place).images([save(tmp_path / "a.nii.gz")])
    assert str(error.value).isprintable() and len(str(error.value)) < 1000


KILLED = """
import os, signal, sys
import numpy as np
from emojax.data.store import Store
def fill(out):
    os.kill(os.getpid(), signal.SIGKILL)
Store(sys.argv[1]).derived("k", (3,), np.float32, fill)
"""
DECODES = """
import sys
import numpy as np
from emojax.data.store import Store
store = Store(sys.argv[1])
images = store.images(sys.argv[2:])
total = sum(image.frames.sum() for image in images)
print(store.derived("sum", (1,), np.int64, lambda out: out.fill(total))[0])
"""


def test_what_a_kill_left_is_removed_at_the_next_start(study):
    folder, _ = study
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)])
    assert done.returncode == -signal.SIGKILL and len(list(folder.glob("*.partial"))) == 1
    assert "unfinished" in {entry.kind for entry in entries(folder)}
    assert Store(folder).derived("k", (3,), np.float32, lambda out: out.fill(7)).sum() == 21
    assert not list(folder.glob("**/*.partial"))


def test_processes_share_a_store(tmp_path):
    paths = [str(save(tmp_path / f"{i}.nii.gz", i)) for i in range(20)]
    command = [sys.executable, "-c", DECODES, str(tmp_path / "store"), *paths]
    running = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    said = [process.communicate() for process in running]
    want = sum(int(np.asarray(nib.load(path).dataobj, np.int64).sum()) for path in paths)
    assert said == [(f"{want}\n", "")] * 2
    assert len(entries(tmp_path / "store")) == clear(tmp_path / "store") == 3 * 20 + 2


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii.gz")
    store, plain = Store(tmp_path / "store"), hashes.sha256

    def then_changed(file, *rest):
        digest = plain(file, *rest)
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
        return digest

    with monkeypatch.context() as patch:
        patch.setattr(hashes, "sha256", then_changed)
        with pytest.raises(InputError, match="a file that changed while it was read"):
            store.images([path])
    assert not list(store.folder.glob("*.*"))
    check(store.folder, [path])
