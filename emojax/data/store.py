"""Decoded scans, memory-mapped, keyed by the hash of their content.

A first read decodes .nii.gz files in parallel into plain NIfTI files of the store, which any tool
can open; later reads map them, or an already uncompressed scan in place, and touch no voxel.

    <store>/<sha256>.nii          decoded scan
    <store>/<sha256>.json         its facts: NaN voxels, volumes with NaN of their own
    <store>/<key>.npy             arrays derived from scans (`derived`)
    <store>/paths/<hash>.json     path -> size, time and sha256: unchanged files are not read

A file that changed has another size or time of change, and is read again. Everything is written
under a temporary name and renamed, so that a kill leaves nothing half-written behind.

The layout is that of 0.3.0, whose stores are used as they are. An array whose recipe has changed
since (the noise floor's) has another key: it is computed anew, and the old one stays until `clear`.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from rich import progress

from emojax.data import gunzip, hashes, image, nifti
from emojax.errors import InputError

Path = str | os.PathLike
ABANDONED = 3600  # s after which an unfinished file is what a kill left behind
KINDS = {  # names of a store's files
    r"[0-9a-f]{64}\.nii": "scan",
    r"[0-9a-f]{64}\.npy": "array",
    r"[0-9a-f]{64}\.json": "facts",
    r"paths/[0-9a-f]{32}\.json": "path",
    r"(paths/)?[0-9a-f]{32,64}\.(nii|npy|json)\.\d+-\d+\.partial": "unfinished",
}


class Entry(NamedTuple):
    """One file of a store."""

    path: pathlib.Path
    bytes: int
    kind: str  # of KINDS: "scan", "array", "facts", "path", "unfinished"
    source: str  # the scan that it was read from; "" where the store does not say
    used: float  # s since 1970: its last use, or when it was written


class Store:
    """A folder of decoded scans; see the module."""

    def __init__(self, folder: Path, progress: bool = False):
        """Args: the folder, made on first use; whether to draw a progress bar while decoding."""
        self.folder = pathlib.Path(folder)
        self.progress = progress

    def images(self, sources: Sequence[Path | Sequence[Path]]) -> list[image.Image]:
        """Opens scans, decoding in parallel what is not yet in the store.

        Args:
          sources: for each run one 4-D file (.nii, .nii.gz, .img or .hdr), or its 3-D files in
            their order.

        Raises:
          InputError: a file is missing, truncated, no image or not 4-D, the volumes of a run do not
            fit each other, a volume has NaN where others have none, or the disk is too small.
        """
        self._make_folder()
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
          InputError: the disk is too small, or the store cannot be written.
        """
        self._make_folder("")
        path = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npy"
        if not path.exists():
            self._reserve(int(np.prod(shape)) * np.dtype(dtype).itemsize, path)
            with self._partial(path) as partial:
                out = np.lib.format.open_memmap(partial, "w+", np.dtype(dtype), shape)
                fill(out)
                out.flush()
                del out
        _touch(path)
        return np.load(path, mmap_mode="r")

    def hash(self, path: Path) -> str:
        """sha256 of a file's content, read only if the file has changed since it was last read."""
        path = pathlib.Path(path)
        self._make_folder()
        known, stamp = hashes.stamp(self.folder / "paths", path)
        digest = hashes.remembered(known, stamp)
        if digest is None:
            digest = hashes.sha256(path)
            self._write(known, stamp | {"sha256": digest})
        return digest

    def _file(self, path: pathlib.Path, tick: Callable[[int], None]) -> dict:
        """Facts of one image, from the store or by reading it: sha256, NaN counts."""
        known, stamp = hashes.stamp(self.folder / "paths", path)
        digest = hashes.remembered(known, stamp)
        with contextlib.suppress(OSError, ValueError, KeyError):
            facts = json.loads((self.folder / f"{digest}.json").read_text())
            if self._mapped(path, facts).exists():
                tick(stamp["size"])
                return facts
        if path.suffix == ".gz":
            facts = {"sha256": self._decode(path, tick)}
        else:
            facts = {"sha256": nifti.digest(path, tick)}
        facts |= nifti.non_finite(self._mapped(path, facts), path)
        self._write(self.folder / f"{facts['sha256']}.json", facts)
        self._write(known, stamp | {"sha256": facts["sha256"]})
        return facts

    def _mapped(self, path: pathlib.Path, facts: dict) -> pathlib.Path:
        """The file that is mapped for a source: itself, unless it is compressed."""
        return self.folder / f"{facts['sha256']}.nii" if path.suffix == ".gz" else path

    def _decode(self, path: pathlib.Path, tick: Callable[[int], None]) -> str:
        """Decompresses into the store, under the hash of the compressed file."""
        with self._partial(self.folder / f"{hashes.short(os.path.abspath(path))}.nii") as partial:
            with open(partial, "wb", buffering=0) as out:
                digest = gunzip.decode(path, out, lambda size: self._reserve(size, path), tick)
            os.replace(partial, self.folder / f"{digest}.nii")
        return digest

    def _image(self, files: list[pathlib.Path], facts: dict[pathlib.Path, dict]) -> image.Image:
        own = [facts[file] for file in files]
        mapped = [self._mapped(file, f) for file, f in zip(files, own, strict=True)]
        for file, copy in zip(files, mapped, strict=True):
            if copy != file:
                _touch(copy)
        scans = [nifti.open_mapped(*pair) for pair in zip(mapped, files, strict=True)]
        if len(files) == 1:
            return image.from_4d(files[0], scans[0], own[0])
        return image.from_3d(files, scans, own, self.derived)

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

    def _make_folder(self, name: str = "paths") -> None:
        try:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            found = f"a folder that cannot be made ({error.strerror})"
            raise InputError(self.folder, found, "one that can be written (data.store)") from None

    def _reserve(self, size: int, path: pathlib.Path) -> None:
        free = shutil.disk_usage(self.folder).free
        if size > free:
            expected = f"{size / 1e9:.2f} GB for the decoded {path} (set data.store)"
            raise InputError(self.folder, f"{free / 1e9:.2f} GB free", expected)

    def _sweep(self) -> None:
        """Removes what a kill left behind."""
        for partial in self.folder.glob("**/*.partial"):
            with contextlib.suppress(OSError):
                if _is_abandoned(partial.stat().st_mtime):
                    partial.unlink()

    @contextlib.contextmanager
    def _bar(self, files: list[pathlib.Path]) -> Iterator[Callable[[int], None]]:
        total = sum(file.stat().st_size for file in files if file.exists())
        shown = (progress.BarColumn(), progress.DownloadColumn(), progress.TimeRemainingColumn())
        columns = ("reading scans", *shown)
        with progress.Progress(*columns, transient=True, disable=not self.progress) as bar:
            task = bar.add_task("", total=total)
            yield lambda size: bar.advance(task, size)


def default(data) -> pathlib.Path:
    """The store of `config.data`: `data.store`, or "store" in the current folder where it is "".

    `launch.py` puts it beside the workdir.
    """
    return pathlib.Path(data.store or "store")


def entries(folder: Path) -> list[Entry]:
    """Lists the files of a store; hidden files do not count.

    Raises:
      InputError: the folder does not exist, or holds anything that no store has.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "a store of decoded scans")
    found = {}
    for path in sorted((*folder.iterdir(), *folder.glob("paths/*"))):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith(".") or (name == "paths" and path.is_dir()):
            continue
        kinds = [kind for text, kind in KINDS.items() if re.fullmatch(text, name)]
        if not kinds or not path.is_file():
            raise InputError(folder, f"{name} in it", "a store, which holds decoded scans only")
        found[path] = kinds[0]
    read, of_scan = {}, {}
    for path in (path for path, kind in found.items() if kind == "path"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text())
            read[path] = of_scan[known["sha256"]] = known["path"]
    out = []
    for path, kind in found.items():
        with contextlib.suppress(FileNotFoundError):  # another run has finished or removed it
            stat, source = path.stat(), read.get(path) or of_scan.get(path.stem, "")
            out.append(Entry(path, stat.st_size, kind, source, stat.st_mtime))
    return out


def clear(folder: Path) -> int:
    """Removes the files of a store, and its folder unless hidden files are left in it.

    Unfinished files stay while another run may be writing them.

    Returns:
      The number of files removed.

    Raises:
      InputError: as `entries`; nothing has been removed then.
    """
    removed = 0
    for entry in entries(folder):
        if entry.kind != "unfinished" or _is_abandoned(entry.used):
            entry.path.unlink(missing_ok=True)
            removed += 1
    for empty in (pathlib.Path(folder, "paths"), pathlib.Path(folder)):
        with contextlib.suppress(OSError):
            empty.rmdir()
    return removed


def _touch(path: pathlib.Path) -> None:
    """Notes the use of a file, where the store can be written."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _is_abandoned(written: float) -> bool:
    return time.time() - written > ABANDONED
