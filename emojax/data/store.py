"""Decoded scans, memory-mapped, keyed by the hash of their content.

A first read decodes .nii.gz files in parallel into plain NIfTI files of the store, which any tool
can open; later reads map them, or an already uncompressed scan in place.

    <store>/<sha256>.nii          scan, decoded from the .nii.gz file of that hash
    <store>/<key>.npy             arrays derived from scans (`derived`)
    <store>/<sha256>.json         record of a scan: NaN voxels; size and hash of the decoded file
    <store>/<key>.json            record of an array: shape, type, size and hash
    <store>/paths/<hash>.json     path -> sha256, and what the disk says of the file

A source file whose size, times, inode and device are those of its record is not read. What the
store holds is verified before it is used, its size always and its hash once per `Store`; a record
has a hash of its own. What is not as it was written is made again from the sources, and a line on
stderr says so. A store of 0.3.0, which had no such hashes, is used, but all in it is made again.

Everything is written under a temporary name, which tells who writes it, and renamed when it is
whole: a kill leaves nothing half-written, and the next `Store` removes what it left.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from rich import progress

from emojax import files
from emojax.data import gunzip, hashes, image, kept, nifti, scratch, sealed, unfinished
from emojax.errors import InputError, say

Path = str | os.PathLike
KINDS = {  # names of a store's files
    r"[0-9a-f]{64}\.nii": "scan",
    r"[0-9a-f]{64}\.npy": "array",
    r"[0-9a-f]{64}\.json": "facts",
    r"paths/[0-9a-f]{32}\.json": "path",
    unfinished.KIND: "unfinished",
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
        self._kept = kept.Folder(self.folder)

    def images(self, sources: Sequence[Path | Sequence[Path]]) -> list[image.Image]:
        """Opens scans, decoding in parallel what is not yet in the store.

        Args:
          sources: for each run one 4-D file (.nii, .nii.gz, .img or .hdr), or its 3-D files in
            their order.

        Raises:
          InputError: a file is missing, truncated, no image or not 4-D, the volumes of a run do not
            fit each other, a volume has NaN where others have none, or the disk is too small.
        """
        self._kept.open()
        runs = [[s] if isinstance(s, (str, os.PathLike)) else list(s) for s in sources]
        runs = [[pathlib.Path(file) for file in run] for run in runs]
        unique = dict.fromkeys(file for run in runs for file in run)
        stamps = {f: {part: hashes.stamp(part) for part in nifti.parts(f)} for f in unique}
        with ThreadPoolExecutor(os.cpu_count()) as pool, self._bar(stamps) as tick:
            jobs = {file: pool.submit(self._file, file, own, tick) for file, own in stamps.items()}
            try:
                facts = {file: job.result() for file, job in jobs.items()}
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [self._image(run, [facts[file] for file in run]) for run in runs]

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
        self._kept.open()
        name = hashlib.sha256(key.encode()).hexdigest()
        dtype, shape = np.dtype(dtype), [int(n) for n in shape]
        file, layout = self.folder / f"{name}.npy", {"shape": shape, "dtype": dtype.str}

        def make():
            self._kept.reserve(math.prod(shape) * dtype.itemsize, file)
            with self._kept.partial(file) as partial:
                with self._kept.writing(file):
                    out = np.lib.format.open_memmap(partial, "w+", dtype, tuple(shape))
                    kept.allocate(partial)
                fill(out)
                with self._kept.writing(file):
                    out.flush()
                    del out
                    files.sync(partial)
                return {"bytes": os.path.getsize(partial), "content": hashes.sha256(partial)}

        self._kept.once(name, file, layout, make)
        return np.load(file, mmap_mode="r")

    def hash(self, path: Path) -> str:
        """Returns the sha256 of a file, which is read only if it has changed since the last time.

        Raises:
          InputError: it is no regular file that can be read.
        """
        self._kept.open()
        return self._hash(pathlib.Path(path), hashes.stamp(path))

    def _hash(self, path: pathlib.Path, stamp: hashes.Stamp, tick=lambda size: None) -> str:
        """Returns the hash of a file from its record, or reads the file."""
        record, fault = self._record(path), None
        try:
            known = sealed.read(record) or {}
            if stamp.items() <= known.items():
                return known["sha256"]
        except sealed.Damaged as error:
            fault = error
        digest = hashes.sha256(path, tick)
        self._kept.remember(record, stamp | {"sha256": digest})
        if fault:
            say(f"{fault}; {path} was read again")
        return digest

    def _record(self, path: Path) -> pathlib.Path:
        return self.folder / "paths" / f"{hashes.short(os.path.abspath(path))}.json"

    def _file(self, path: pathlib.Path, stamps, tick: Callable[[int], None]) -> dict[str, Any]:
        """Facts of one image, from the store or by reading it: hashes of its files, NaN counts."""
        rest = sum(stamp["size"] for stamp in stamps.values())

        def count(size):
            nonlocal rest
            rest -= size
            tick(size)

        packed = path.suffix == ".gz"
        shown = () if packed else (count,)  # a packed file is counted while it is decoded
        digests = {str(part): self._hash(part, stamp, *shown) for part, stamp in stamps.items()}
        name = hashes.joined(digests.values())
        if packed:
            file = self.folder / f"{name}.nii"
            facts = self._kept.once(name, file, {}, lambda: self._decode(path, file, count))
        else:
            facts = self._kept.once(name, None, {}, lambda: nifti.non_finite(path, path))
        tick(max(rest, 0))
        return facts | {"hashes": digests}

    def _decode(self, path: pathlib.Path, file: pathlib.Path, tick) -> dict[str, Any]:
        """Decompresses a scan into the store; returns its record."""
        with self._kept.partial(file) as partial, self._kept.writing(file):
            with open(partial, "wb") as out:
                found = gunzip.decode(path, out, lambda size: self._kept.reserve(size, path), tick)
            if found.source != file.stem:
                self._record(path).unlink(missing_ok=True)
                raise InputError(path, "a file that changed while it was read", "one at rest")
            facts = nifti.non_finite(partial, path)
            files.sync(partial)
        return facts | {"bytes": found.bytes, "content": found.content}

    def _image(self, run: list[pathlib.Path], facts: list[dict[str, Any]]) -> image.Image:
        scans = []
        for path, own in zip(run, facts, strict=True):
            decoded = self.folder / f"{own['name']}.nii"
            scans.append(nifti.open_mapped(decoded if path.suffix == ".gz" else path, path))
        if len(run) == 1:
            return image.from_4d(run[0], scans[0], facts[0])
        return image.from_3d(run, scans, facts, self.derived)

    def scratch(self) -> scratch.Scratch:
        """Returns a store of arrays that nobody needs again."""
        return scratch.Scratch(self._kept)

    @contextlib.contextmanager
    def _bar(self, stamps) -> Iterator[Callable[[int], None]]:
        total = sum(stamp["size"] for own in stamps.values() for stamp in own.values())
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
        if entry.kind != "unfinished" or unfinished.is_abandoned(entry.path, entry.used):
            entry.path.unlink(missing_ok=True)
            removed += 1
    for empty in (pathlib.Path(folder, "paths"), pathlib.Path(folder)):
        with contextlib.suppress(OSError):
            empty.rmdir()
    return removed
