"""Decoded scans, memory-mapped, keyed by the hash of their content.

A first read decodes .nii.gz files in parallel into plain NIfTI files of the store, which any tool
can open; later reads map them, or an already uncompressed scan in place, and touch no voxel.

    <store>/<sha256>.nii          decoded scan
    <store>/<sha256>.json         its facts: NaN voxels, volumes with NaN of their own
    <store>/<key>.npy             arrays derived from scans (`derived`)
    <store>/paths/<hash>.json     path -> size, time and sha256: unchanged files are not read

A file that changed has another size or time of change, and is read again. Everything is written
under a temporary name and renamed, so that a kill leaves nothing half-written behind.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import rich.progress

from emojax.data import nifti
from emojax.errors import InputError

Path = str | os.PathLike
CHUNK = 1 << 18  # bytes; zeros can inflate to a thousand times that


class Image(NamedTuple):
    """A 4-D scan, mapped from disk."""

    path: pathlib.Path  # the source file; the first of several
    frames: np.ndarray  # [t, X, Y, Z], stored units
    slope: float  # value = slope * stored + intercept
    intercept: float
    affine: np.ndarray  # [4, 4], voxel -> mm
    tr: float | None  # s, of the header; None where it has none
    hashes: dict[str, str]  # source file -> sha256
    nan_voxels: int  # voxels that are NaN or infinite in every volume


class Store:
    """A folder of decoded scans; see the module."""

    def __init__(self, folder: Path, progress: bool = False):
        """Args: the folder, made on first use; whether to draw a progress bar while decoding."""
        self.folder = pathlib.Path(folder)
        self.progress = progress

    def images(self, sources: Sequence[Path | Sequence[Path]]) -> list[Image]:
        """Opens scans, decoding in parallel what is not yet in the store.

        Args:
          sources: for each run one 4-D file (.nii, .nii.gz, .img or .hdr), or its 3-D files in
            their order.

        Raises:
          InputError: a file is missing, truncated, no image or not 4-D, the volumes of a run do not
            fit each other, a volume has NaN where others have none, or the disk is too small.
        """
        (self.folder / "paths").mkdir(parents=True, exist_ok=True)
        self._sweep()
        runs = [[s] if isinstance(s, (str, os.PathLike)) else list(s) for s in sources]
        files = list(dict.fromkeys(pathlib.Path(f) for run in runs for f in run))
        with ThreadPoolExecutor(os.cpu_count()) as pool, self._bar(files) as tick:
            jobs = [pool.submit(self._file, file, tick) for file in files]
            try:
                facts = {file: job.result() for file, job in zip(files, jobs, strict=True)}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [self._image([pathlib.Path(f) for f in run], facts) for run in runs]

    def derived(
        self,
        key: str,
        shape: tuple[int, ...],
        dtype: np.dtype | type | str,
        fill: Callable[[np.ndarray], None],
    ) -> np.ndarray:
        """An array computed once from scans, mapped read-only.

        Args:
          key: names content and recipe; the same key must mean the same values.
          shape, dtype: of the array.
          fill: writes the values into the array that it is given.

        Raises:
          InputError: the disk is too small.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
        if not path.exists():
            self._reserve(int(np.prod(shape)) * np.dtype(dtype).itemsize, path)
            with self._partial(path) as partial:
                out = np.lib.format.open_memmap(partial, "w+", np.dtype(dtype), shape)
                fill(out)
                out.flush()
                del out
        return np.load(path, mmap_mode="r")

    def hash(self, path: Path) -> str:
        """sha256 of a file's content, read only if the file has changed since it was last read."""
        path = pathlib.Path(path)
        (self.folder / "paths").mkdir(parents=True, exist_ok=True)
        known, stamp = self._stamp(path)
        digest = self._remembered(known, stamp)
        if digest is None:
            digest = sha256(path)
            self._write(known, stamp | {"sha256": digest})
        return digest

    def _stamp(self, path: pathlib.Path) -> tuple[pathlib.Path, dict]:
        """Where a path's hash is remembered, and what tells whether it still holds."""
        try:
            stat = path.stat()
        except OSError:
            raise InputError(path, "no such file", "one that can be read") from None
        stamp = {"path": os.path.abspath(path), "size": stat.st_size, "time": stat.st_mtime_ns}
        return self.folder / "paths" / f"{_digest(stamp['path'])}.json", stamp

    def _remembered(self, known: pathlib.Path, stamp: dict) -> str | None:
        with contextlib.suppress(OSError, ValueError):
            entry = json.loads(known.read_text())
            if all(entry.get(key) == value for key, value in stamp.items()):
                return entry.get("sha256")
        return None

    def _file(self, path: pathlib.Path, tick: Callable[[int], None]) -> dict:
        """Facts of one image, from the store or by reading it: sha256, NaN counts."""
        known, stamp = self._stamp(path)
        digest = self._remembered(known, stamp)
        with contextlib.suppress(OSError, ValueError, KeyError):
            facts = json.loads((self.folder / f"{digest}.json").read_text())
            if self._mapped(path, facts).exists():
                tick(stamp["size"])
                return facts
        facts = self._decode(path, tick) if path.suffix == ".gz" else self._hash(path, tick)
        facts |= nifti.non_finite(self._mapped(path, facts), path)
        self._write(self.folder / f"{facts['sha256']}.json", facts)
        self._write(known, stamp | {"sha256": facts["sha256"]})
        return facts

    def _mapped(self, path: pathlib.Path, facts: dict) -> pathlib.Path:
        """The file that is mapped for a source: itself, unless it is compressed."""
        return self.folder / f"{facts['sha256']}.nii" if path.suffix == ".gz" else path

    def _decode(self, path: pathlib.Path, tick: Callable[[int], None]) -> dict:
        """Decompresses into the store; hashes the compressed bytes on the way."""
        sha, head, wanted, written = hashlib.sha256(), b"", 0, 0
        with self._partial(self.folder / f"{_digest(os.path.abspath(path))}.nii") as partial:
            with open(path, "rb") as source, open(partial, "wb", buffering=0) as out:
                for data in _inflated(path, source, sha, tick):
                    if not wanted and len(head := head + data) >= nifti.HEADER:
                        wanted = nifti.size(path, head)
                        self._reserve(wanted, path)
                    written += out.write(data)
            if written < max(wanted, nifti.HEADER):
                expected = f"{wanted or nifti.HEADER} or more as its header says"
                raise InputError(path, f"{written} bytes of image", expected)
            final = self.folder / f"{sha.hexdigest()}.nii"
            os.replace(partial, final)
        return {"sha256": sha.hexdigest()}

    def _hash(self, path: pathlib.Path, tick: Callable[[int], None]) -> dict:
        """Hash of an uncompressed image; of both files of an .img/.hdr pair."""
        sha = hashlib.sha256()
        for file in nifti.parts(path):
            with open(file, "rb") as source:
                while data := source.read(CHUNK):
                    sha.update(data)
                    tick(len(data))
        return {"sha256": sha.hexdigest()}

    def _image(self, files: list[pathlib.Path], facts: dict[pathlib.Path, dict]) -> Image:
        hashes = {str(file): facts[file]["sha256"] for file in files}
        scans = [nifti.open_mapped(self._mapped(file, facts[file]), file) for file in files]
        if len(files) == 1:
            scan = scans[0]
            if len(scan.frames) == 1:
                raise InputError(files[0], "one volume", "a 4-D scan [X, Y, Z, t]")
            bad = facts[files[0]]
            if bad["bad_volume"] is not None:
                raise InputError(
                    files[0],
                    f"{bad['bad_count']} NaN or infinite voxels in volume {bad['bad_volume']}",
                    "finite values, or NaN in the same voxels of every volume",
                )
            return Image(files[0], *scan, hashes, bad["nan_voxels"])
        return self._joined(files, scans, hashes, facts)

    def _joined(self, files, scans, hashes, facts) -> Image:
        """One run from 3-D files, copied into one array, values in float32 where scales differ."""
        first = scans[0]
        for file, scan in zip(files, scans, strict=True):
            if scan.frames.shape != (1, *first.frames.shape[1:]):
                found, wanted = scan.frames.shape, first.frames.shape[1:]
                raise InputError(
                    file, f"shape {found[1:]} x {found[0]}", f"one {wanted} volume as {files[0]}"
                )
            if not np.allclose(scan.affine, first.affine, atol=1e-3):
                raise InputError(file, f"another affine than {files[0]}", "one affine per run")
            if facts[file]["nan_voxels"] != facts[files[0]]["nan_voxels"]:
                raise InputError(
                    file,
                    f"{facts[file]['nan_voxels']} NaN or infinite voxels",
                    f"{facts[files[0]]['nan_voxels']} as {files[0]}",
                )
        same = len({(s.slope, s.intercept, s.frames.dtype) for s in scans}) == 1

        def fill(out):
            for row, scan in zip(out, scans, strict=True):
                row[...] = scan.frames[0] if same else scan.frames[0] * scan.slope + scan.intercept

        key = "joined " + " ".join(hashes.values())
        shape, dtype = (
            (len(files), *first.frames.shape[1:]),
            first.frames.dtype if same else np.float32,
        )
        frames = self.derived(key, shape, dtype, fill)
        scale = (first.slope, first.intercept) if same else (1.0, 0.0)
        nan_voxels = facts[files[0]]["nan_voxels"]
        return Image(files[0], frames, *scale, first.affine, first.tr, hashes, nan_voxels)

    @contextlib.contextmanager
    def _partial(self, path: pathlib.Path) -> Iterator[pathlib.Path]:
        """A temporary name beside `path`; renamed to it at the end, removed on any failure."""
        partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
        try:
            yield partial
            if partial.exists():
                os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def _write(self, path: pathlib.Path, facts: dict) -> None:
        with self._partial(path) as partial:
            partial.write_text(json.dumps(facts))

    def _reserve(self, size: int, path: pathlib.Path) -> None:
        free = shutil.disk_usage(self.folder).free
        if size > free:
            expected = f"{size / 1e9:.2f} GB for the decoded {path} (set data.store)"
            raise InputError(self.folder, f"{free / 1e9:.2f} GB free", expected)

    def _sweep(self) -> None:
        """Removes what a kill left behind an hour ago or earlier."""
        for partial in self.folder.glob("**/*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - partial.stat().st_mtime > 3600:
                    partial.unlink()

    @contextlib.contextmanager
    def _bar(self, files: list[pathlib.Path]) -> Iterator[Callable[[int], None]]:
        total = sum(file.stat().st_size for file in files if file.exists())
        columns = (
            "reading scans",
            rich.progress.BarColumn(),
            rich.progress.DownloadColumn(),
            rich.progress.TimeRemainingColumn(),
        )
        with rich.progress.Progress(*columns, transient=True, disable=not self.progress) as bar:
            task = bar.add_task("", total=total)
            yield lambda size: bar.advance(task, size)


def default(data) -> pathlib.Path:
    """The store of `config.data`: `data.store`, or "store" in the current folder where it is "".

    `launch.py` puts it beside the workdir.
    """
    return pathlib.Path(data.store or "store")


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _inflated(path, source, sha, tick) -> Iterator[bytes]:
    """The decompressed bytes of a gzip file, its members in turn, checksums verified."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    started = False
    while data := source.read(CHUNK):
        sha.update(data)
        tick(len(data))
        while data:
            if inflate.eof:
                if not data.strip(b"\0"):
                    break  # zeros after the last member pad some archives
                inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                yield inflate.decompress(data)
            except zlib.error as error:
                raise InputError(path, f"damaged gzip data ({error})", "a whole .nii.gz") from None
            started, data = True, inflate.unused_data
    if not started or not inflate.eof:
        raise InputError(path, "a truncated .nii.gz", "a whole one")
