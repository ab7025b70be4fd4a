"""Decoded scans: values as nibabel reads them, nothing read twice, nothing half-written."""

import gzip
import hashlib
import json
import os
import time

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax.data import cleaning
from emojax.data.cohort import build
from emojax.data.run import Run
from emojax.data.store import Store, clear, entries
from emojax.errors import InputError

SHAPE = (6, 5, 4, 7)


def save(path, values=None, *, dtype=np.int16, slope=1.0, tr=2.0, units="sec", affine=None):
    values = np.random.default_rng(0).integers(0, 900, SHAPE) if values is None else values
    affine = np.diag([3.0, 3, 3, 1]) if affine is None else affine
    image = nib.Nifti1Image(values.astype(dtype), affine)
    image.header.set_slope_inter(slope, 5.0 if slope != 1 else 0.0)
    if values.ndim == 4:
        image.header.set_zooms((3, 3, 3, tr))
    image.header.set_xyzt_units("mm", units)
    nib.save(image, path)
    return path


def values_of(image):
    return image.frames * image.slope + image.intercept


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, ">i2"])
def test_values_and_header_as_nibabel_reads_them(tmp_path, store, name, dtype):
    values = np.random.default_rng(1).integers(0, 200, SHAPE)
    path = save(tmp_path / name, values, dtype=dtype, slope=0.5)
    want = nib.load(path)
    for _ in range(2):  # decoded, then mapped
        (got,) = store.images([path])
        np.testing.assert_allclose(values_of(got), np.moveaxis(want.get_fdata(), -1, 0), rtol=1e-6)
        np.testing.assert_array_equal(got.affine, want.affine)
        assert got.tr == 2.0 and got.nan_voxels == 0 and next(iter(got.hashes)) == str(path)


@pytest.mark.parametrize(
    ("units", "tr", "want"), [("msec", 2500.0, 2.5), ("unknown", 1.0, None), ("sec", 0.0, None)]
)
def test_tr_needs_a_unit(tmp_path, store, units, tr, want):
    assert store.images([save(tmp_path / "a.nii", tr=tr, units=units)])[0].tr == want


def test_second_read_opens_no_source(tmp_path, store, monkeypatch):
    path = save(tmp_path / "a.nii.gz")
    store.images([path])
    monkeypatch.setattr(Store, "_decode", lambda *_: pytest.fail("decoded again"))
    assert store.images([path])[0].frames.shape == (7, 6, 5, 4)


def test_changed_file_is_read_again(tmp_path, store):
    path = save(tmp_path / "a.nii.gz")
    before = store.images([path])[0]
    save(path, np.ones(SHAPE))
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 10**9))
    after = store.images([path])[0]
    assert (after.frames == 1).all() and after.hashes != before.hashes


def test_lost_or_damaged_store_files_are_made_again(tmp_path, store):
    path = save(tmp_path / "a.nii.gz")
    store.images([path])
    for file in store.folder.glob("*.nii"):
        file.unlink()
    for file in store.folder.glob("paths/*.json"):
        file.write_text("{half")
    assert store.images([path])[0].frames.shape == (7, 6, 5, 4)


def test_3d_files_are_one_run(tmp_path, store):
    values = np.random.default_rng(0).integers(0, 900, SHAPE)
    paths = [save(tmp_path / f"v{t}.nii", values[..., t]) for t in range(7)]
    (got,) = store.images([paths])
    np.testing.assert_array_equal(got.frames, np.moveaxis(values, -1, 0))
    assert len(got.hashes) == 7
    save(paths[3], values[..., 3], slope=2.0)  # another scale in one file
    np.testing.assert_allclose(values_of(store.images([paths])[0])[3], values[..., 3] * 2.0 + 5)


def test_multi_member_and_padded_gzip(tmp_path, store):
    raw = save(tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]) + b"\0" * 512)
    np.testing.assert_array_equal(
        store.images([path])[0].frames, store.images([tmp_path / "a.nii"])[0].frames
    )


def truncated(path):
    path.write_bytes(path.read_bytes()[:-40])


def damaged(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def short_image(path):
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))


def no_image(path):
    path.write_bytes(gzip.compress(b"onset\tduration\n" * 100))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (truncated, "a truncated .nii.gz; expected a whole one"),
        (damaged, "damaged gzip data|truncated"),
        (short_image, r"1932 bytes|bytes of image; expected \d+"),
        (no_image, "no NIfTI header; expected a .nii.gz image"),
        (empty, "a truncated .nii.gz"),
    ],
)
def test_bad_files_leave_nothing_behind(tmp_path, store, harm, match):
    good, bad = save(tmp_path / "good.nii.gz"), save(tmp_path / "bad.nii.gz")
    save(bad, np.random.default_rng(5).integers(0, 900, SHAPE))
    harm(bad)
    with pytest.raises(InputError, match=match) as error:
        store.images([good, bad])
    assert str(error.value).startswith(str(bad)) and "\n" not in str(error.value)
    assert not list(store.folder.glob("**/*.partial"))
    facts = [json.loads(f.read_text())["name"] for f in store.folder.glob("*.json")]
    assert {f.stem for f in store.folder.glob("*.nii")} == set(facts)
    assert store.images([good])[0].frames.shape == (7, 6, 5, 4)


def test_other_files_that_cannot_be_used(tmp_path, store):
    with pytest.raises(InputError, match="no such file"):
        store.images([tmp_path / "none.nii"])
    with pytest.raises(InputError, match="expected a 4-D scan"):
        store.images([save(tmp_path / "a.nii", np.ones(SHAPE[:3]))])
    pair = save(tmp_path / "p.img")
    (tmp_path / "p.hdr").unlink()
    with pytest.raises(InputError, match=r"the other half|no readable image"):
        store.images([pair])
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), np.eye(4))
    image.header["srow_x"][0] = np.nan
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    (tmp_path / "b.nii").write_bytes(image.header.binaryblock + b"\0" * 4 + bytes(2 * 840))
    with pytest.raises(InputError, match="affine"):
        store.images([tmp_path / "b.nii"])


def test_nan_in_every_volume_is_counted_and_in_one_is_refused(tmp_path, store):
    values = np.random.default_rng(0).normal(size=SHAPE)
    values[0, 0] = np.nan
    path = save(tmp_path / "a.nii", values, dtype=np.float32)
    assert store.images([path])[0].nan_voxels == 4
    values[3, 3, 3, 5] = np.inf
    path = save(tmp_path / "b.nii.gz", values, dtype=np.float32)
    for _ in range(2):
        with pytest.raises(InputError, match="5 NaN or infinite voxels in volume 5"):
            store.images([path])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=6),
    compressed=st.booleans(),
)
def test_any_damaged_header_gives_an_image_or_one_line(tmp_path_factory, changes, compressed):
    folder = tmp_path_factory.mktemp("fuzz")
    raw = bytearray(save(folder / "good.nii").read_bytes())
    for place, value in changes:
        raw[place] = value
    path = folder / ("bad.nii.gz" if compressed else "bad.nii")
    path.write_bytes(gzip.compress(raw, 1) if compressed else raw)
    store = Store(folder / "store")
    try:
        (image,) = store.images([path])
    except InputError as error:
        assert str(error).startswith((str(path), str(store.folder))) and "\n" not in str(error)
    else:
        assert image.frames.ndim == 4 and np.isfinite(image.affine).all()
        assert image.tr is None or image.tr > 0
        values_of(image)[-1].sum()  # the last byte is there
    assert not list(store.folder.glob("**/*.partial"))


def test_disk_too_small(tmp_path, store, monkeypatch):
    usage = type("usage", (), {"free": 1100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    path = save(tmp_path / "a.nii.gz")
    match = f"1,100 bytes free on its disk; expected 2,032 for data made from {path} .data.store"
    with pytest.raises(InputError, match=match):
        store.images([path])


def test_derived_is_filled_once_and_never_half(store):
    def fails(out):
        out[0] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.derived("k", (3, 2), np.float32, fails)
    assert [path.name for path in store.folder.iterdir()] == ["paths"]
    store.derived("k", (3, 2), np.float32, lambda out: out.fill(7))
    got = store.derived("k", (3, 2), np.float32, fails)
    assert (got == 7).all() and not got.flags.writeable


def store_of_030(folder, path):
    """Writes what 0.3.0 kept of a compressed scan and of its cleaning: 4 files."""
    compressed, place = path.read_bytes(), str(path.resolve())
    digest = hashlib.sha256(compressed).hexdigest()
    (folder / "paths").mkdir(parents=True)
    (folder / f"{digest}.nii").write_bytes(gzip.decompress(compressed))
    facts = {"sha256": digest, "nan_voxels": 0, "bad_volume": None, "bad_count": 0}
    (folder / f"{digest}.json").write_text(json.dumps(facts))
    stat = path.stat()
    stamp = {"path": place, "size": stat.st_size, "time": stat.st_mtime_ns, "sha256": digest}
    name = hashlib.sha256(place.encode()).hexdigest()[:32]
    (folder / "paths" / f"{name}.json").write_text(json.dumps(stamp))
    settings = hashlib.sha256(cleaning.regressors(7, 1).tobytes()).hexdigest()
    key = hashlib.sha256(f"cleaned 2 False True {settings} 01 run-1 {digest}".encode()).hexdigest()
    np.save(folder / f"{key}.npy", np.full((7, 6, 5, 4), 0.5, np.float32))


def test_a_store_of_030_is_used_and_what_it_has_no_hash_of_is_made_once_more(
    tmp_path, store, monkeypatch, capsys
):
    store_of_030(store.folder, path := save(tmp_path / "a.nii.gz"))
    names = {file.name for file in store.folder.glob("**/*.*")}
    want = np.moveaxis(np.asarray(nib.load(path).dataobj), -1, 0)
    for again in (False, True):
        (image,) = store.images([path])
        np.testing.assert_array_equal(image.frames, want)
        run = Run("01", "run-1", image.frames, image.tr, image.affine, hashes=image.hashes)
        cohort = build([run], ("a", "b"), [np.arange(7) % 2])
        cleaned = cleaning.apply(cohort, store, detrend=1, zscore=True)
        assert abs(cleaned.volumes[:].mean()) < 1e-5  # 0.3.0's, without a hash, was 0.5
        if not again:
            more = {file.name for file in store.folder.glob("**/*.*")} - names
            assert [name.rpartition(".")[2] for name in more] == ["json"]  # the array's record
            monkeypatch.setattr(Store, "_decode", lambda *_: pytest.fail("decoded again"))
            store = Store(store.folder)
    assert capsys.readouterr().err == ""
    assert {e.kind for e in entries(store.folder)} == {"scan", "facts", "array", "path"}


def test_entries_and_when_they_were_used(tmp_path, store):
    first, second = save(tmp_path / "a.nii.gz"), save(tmp_path / "b.nii")
    store.images([first, second])
    store.derived("k", (3, 2), np.float32, lambda out: out.fill(7))
    found = entries(store.folder)
    assert {e.path for e in found} == {p for p in store.folder.glob("**/*") if p.is_file()}
    assert all(e.bytes == e.path.stat().st_size for e in found)
    by_kind = {kind: [e for e in found if e.kind == kind] for kind in ("scan", "array", "facts")}
    assert [(e.source, e.path.suffix) for e in by_kind["scan"]] == [(str(first), ".nii")]
    assert [(e.source, e.path.suffix) for e in by_kind["array"]] == [("", ".npy")]
    assert {e.source for e in by_kind["facts"]} == {str(first), str(second), ""}
    for entry in found:
        os.utime(entry.path, (1000, 1000))
    os.utime(second, (1000, 1000))
    assert {e.used for e in entries(store.folder)} == {1000}
    now = time.time()
    store.images([first])
    store.derived("k", (3, 2), np.float32, lambda out: out.fill(8))
    used = {e.kind: e.used for e in entries(store.folder)}
    assert used["scan"] >= now - 2 and used["array"] >= now - 2
    assert second.stat().st_mtime == 1000  # a scan that is mapped in place is not touched


def test_damaged_entries_are_listed_all_the_same(tmp_path, store):
    store.images([save(tmp_path / "a.nii.gz")])
    for file, text in zip(store.folder.glob("paths/*.json"), ("[1]",), strict=True):
        file.write_text(text)
    assert {e.source for e in entries(store.folder)} == {""}


def test_clear_removes_a_store_and_nothing_else(tmp_path, store):
    store.images([save(tmp_path / "a.nii.gz"), save(tmp_path / "b.nii")])
    store.derived("k", (3, 2), np.float32, lambda out: out.fill(7))
    kept = sorted(tmp_path.glob("*.*"))
    number = len(entries(store.folder))
    assert number == 7 and clear(store.folder) == number
    assert not store.folder.exists() and sorted(tmp_path.glob("*.*")) == kept
    assert store.images([tmp_path / "a.nii.gz"])[0].frames.shape == (7, 6, 5, 4)


def test_clear_leaves_what_another_run_writes_and_hidden_files(tmp_path, store):
    store.images([save(tmp_path / "a.nii.gz")])
    old, new = (store.folder / f"{'a' * 64}.npy.{n}-7.partial" for n in (1, 2))
    hidden = store.folder / ".DS_Store"
    for file in (old, new, hidden):
        file.touch()
    os.utime(old, (0, 0))
    assert clear(store.folder) == 4
    assert sorted(store.folder.iterdir()) == sorted([hidden, new])


def test_clear_refuses_what_is_no_store(tmp_path, store):
    for foreign in ("results.csv", "a.nii", "paths/notes.json", "sub/x.npy", f"{'A' * 64}.npy"):
        store.images([save(tmp_path / "a.nii.gz")])
        path = store.folder / foreign
        path.parent.mkdir(exist_ok=True)
        path.touch()
        before = sorted(store.folder.glob("**/*"))
        name = foreign.split("/")[0] if foreign.startswith("sub") else foreign
        match = f"{store.folder}: found {name} in it; expected a store, which holds"
        for function in (entries, clear):
            with pytest.raises(InputError, match=match):
                function(store.folder)
        assert sorted(store.folder.glob("**/*")) == before
        path.unlink()
        if foreign.startswith("sub"):
            path.parent.rmdir()
    for function in (entries, clear):
        with pytest.raises(InputError, match="no such folder; expected a store"):
            function(tmp_path / "none")


def test_a_store_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    path = save(tmp_path / "a.nii.gz")
    for use in (
        lambda store: store.images([path]),
        lambda store: store.derived("k", (3,), "f4", lambda out: None),
        lambda store: store.hash(path),
    ):
        with pytest.raises(InputError, match=r"cannot be made .*; expected one .*data.store"):
            use(Store(tmp_path / "file"))


def test_real_scans(shared, store):
    paths = sorted(shared("data").glob("**/*.nii.gz"))
    assert len(paths) > 30
    scans = [p for p in paths if len(nib.load(p).shape) == 4]
    for path, image in zip(scans, store.images(scans), strict=True):
        want = np.moveaxis(np.asarray(nib.load(path).dataobj), -1, 0)
        np.testing.assert_array_equal(values_of(image), want)
