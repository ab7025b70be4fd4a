"""A store of decoded scans, memory-mapped and keyed by the hash of their content.

A first read decodes .nii.gz files in parallel into plain NIfTI files of the store, which any tool
can open; later reads map them, or map an already uncompressed scan in place.

    <store>/<sha256>.nii          scan, decoded from the .nii.gz file of that hash
    <store>/<key>.npy             arrays derived from scans (`derived`)
    <store>/<sha256>.json         record of a scan: NaN voxels; size and hash of the decoded file
    <store>/<key>.json            record of an array: shape, dtype, size and hash
    <store>/paths/<hash>.json     record of a source file: path, sha256, size, times, inode, device

A source file whose size, times, inode and device match its record is not read. Content of the store
is verified before use: its size always, and its hash once per `Store`. Each record has its own
hash. Damaged content is made again from the sources, and a line on stderr reports it. A store of
0.3.0, which had no such hashes, can be used, but all of its content is made again.

Everything is written under a temporary name, which identifies the writer, and renamed when it is
complete. Nothing is left half-written after a kill, and the next `Store` removes leftovers.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    source: str  # the scan that it was read from; "" if unknown
    used: float  # last use, or else creation, s since 1970


class Store:
    """A folder of decoded scans; see the module."""

    def __init__(self, folder: Path, progress: bool = False):
        """Args: the folder, created on first use; whether to draw a progress bar while decoding."""
        self.folder = pathlib.Path(folder)
        self.progress = progress
        self._kept = kept.Folder(self.folder)

    def images(self, sources: Sequence[Path | Sequence[Path]]) -> list[image.Image]:
        """Opens scans, decoding in parallel those that are not in the store yet.

        Args:
          sources: for each run one 4-D file (.nii, .nii.gz, .img or .hdr), or its 3-D files in
            order.

        Raises:
          InputError: a file is missing, truncated, not an image or not 4-D, the volumes of a run
            do not match, a volume has NaN voxels that are finite in others, or the disk is too
            small.
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
        """Returns an array that is computed once from scans, mapped read-only.

        Args:
          key: description of content and recipe; equal keys must mean equal values.
          shape: shape of the array.
          dtype: dtype of the array.
          fill: function that writes the values into the array.

        Raises:
          InputError: the disk is too small, or the store cannot be written.
        """
        self._kept.open()
        name = hashlib.sha256(key.encode()).hexdigest()
        dtype, sizes = np.dtype(dtype), [int(n) for n in shape]
        file, layout = self.folder / f"{name}.npy", {"shape": sizes, "dtype": dtype.str}

        def make() -> dict[str, Any]:
            self._kept.reserve(math.prod(sizes) * dtype.itemsize, file)
            with self._kept.partial(file) as partial:
                with self._kept.writing(file):
                    out = np.lib.format.open_memmap(partial, "w+", dtype, tuple(sizes))
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
          InputError: the path is not a regular file that can be read.
        """
        self._kept.open()
        return self._hash(pathlib.Path(path), hashes.stamp(path))

    def _hash(
        self,
        path: pathlib.Path,
        stamp: hashes.Stamp,
        tick: Callable[[int], None] = lambda size: None,
    ) -> str:
        """Returns the hash of a file from its record, or by reading the file."""
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

    def _file(
        self,
        path: pathlib.Path,
        stamps: Mapping[pathlib.Path, hashes.Stamp],
        tick: Callable[[int], None],
    ) -> dict[str, Any]:
        """Returns hashes and NaN counts of one image, from the store or by reading it."""
        rest = sum(stamp["size"] for stamp in stamps.values())

        def count(size: int) -> None:
            nonlocal rest
            rest -= size
            tick(size)

        packed = path.suffix == ".gz"
        shown = () if packed else (count,)  # a compressed file is counted while it is decoded
        digests = {str(part): self._hash(part, stamp, *shown) for part, stamp in stamps.items()}
        name = hashes.joined(digests.values())
        if packed:
            file = self.folder / f"{name}.nii"
            facts = self._kept.once(name, file, {}, lambda: self._decode(path, file, count))
        else:
            facts = self._kept.once(name, None, {}, lambda: nifti.non_finite(path, path))
        tick(max(rest, 0))
        return facts | {"hashes": digests}

    def _decode(
        self, path: pathlib.Path, file: pathlib.Path, tick: Callable[[int], None]
    ) -> dict[str, Any]:
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
        """Returns a store of temporary arrays on the same disk."""
        return scratch.Scratch(self._kept)

    @contextlib.contextmanager
    def _bar(
        self, stamps: Mapping[pathlib.Path, Mapping[pathlib.Path, hashes.Stamp]]
    ) -> Iterator[Callable[[int], None]]:
        total = sum(stamp["size"] for own in stamps.values() for stamp in own.values())
        shown = (progress.BarColumn(), progress.DownloadColumn(), progress.TimeRemainingColumn())
        columns = ("reading scans", *shown)
        with progress.Progress(*columns, transient=True, disable=not self.progress) as bar:
            task = bar.add_task("", total=total)
            yield lambda size: bar.advance(task, size)


def default(data: Any) -> pathlib.Path:
    """Returns the folder of the store: `data.store`, or "store" in the current folder if it is "".

    `launch.py` puts it beside the workdir.

    Args:
      data: `config.data`, or any object with the key `store`.
    """
    return pathlib.Path(data.store or "store")


def entries(folder: Path) -> list[Entry]:
    """Lists the files of a store, without hidden files.

    Raises:
      InputError: the folder does not exist, or contains files that do not belong to a store.
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
        with contextlib.suppress(FileNotFoundError):  # another run may have removed it
            stat, source = path.stat(), read.get(path) or of_scan.get(path.stem, "")
            out.append(Entry(path, stat.st_size, kind, source, stat.st_mtime))
    return out


def clear(folder: Path) -> int:
    """Removes the files of a store, and its folder unless it contains hidden files.

    Unfinished files are kept while another run may be writing them.

    Returns:
      The number of files removed.

    Raises:
      InputError: as `entries`; nothing is removed then.
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
