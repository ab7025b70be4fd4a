"""The cases of the fuzzer: what a case is, and the steps that spoil a sound input."""

import gzip
import hashlib
import json
import os
import pathlib
import random
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import h5py
import nibabel as nib
import numpy as np
import scipy.io

MUST, MAY, GOOD = "must", "may", "good"  # be refused, perhaps, must run
DAMAGE = ("truncated", "bits", "head", "zeroed", "inserted", "removed", "twice")
CERTAIN = ("empty", "garbage")  # never a file of the kind

Step = Callable[[pathlib.Path], object]  # changes the input in a folder
Argv = Callable[[pathlib.Path, pathlib.Path], list[str]]  # folder, workdir -> flags


class Case(NamedTuple):
    """One input and how it has to end."""

    family: str
    name: str
    prepare: Step
    argv: Argv | None
    rule: str = MUST
    call: Callable[[pathlib.Path], int] | None = None  # instead of the command; an exit code


def rows(family: str, argv: Argv, table: Iterable[tuple], rule: str = MUST) -> Iterator[Case]:
    """Yields a case per row: (name, step), (name, step, rule) or (name, step, rule, argv)."""
    for name, step, *more in table:
        own, flags = (*more, *(rule, argv)[len(more) :])
        yield Case(family, name, step, flags, own)


def data_argv(source: str, *more: str, config: str = "expA.py:demo") -> Argv:
    """Returns the flags that read and count the data of a folder."""

    def argv(folder, work):
        return [
            f"--config=configs/{config}",
            f"--workdir={work}",
            "--mode=data",
            "--config.data.progress=False",
            f"--config.data.source={source}",
            f"--config.data.root={folder}",
            *more,
        ]

    return argv


# ---------------------------------------------------------------- damage of bytes


def damaged(kind: str, data: bytes, rng: random.Random) -> bytes:
    """Returns bytes with damage of a kind in `DAMAGE` or `CERTAIN`."""
    if kind == "empty":
        return b""
    if kind == "truncated":
        return data[: rng.randrange(1, max(2, len(data)))]
    if kind == "garbage":
        return bytes(rng.randrange(256) for _ in range(rng.choice([1, 10, 348, 5000])))
    out = bytearray(data)
    if kind == "bits":
        for _ in range(rng.choice([1, 3, 20])):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    if kind == "head":
        for _ in range(rng.choice([1, 2, 4])):
            out[rng.randrange(min(len(out), 400))] = rng.choice([0, 255, rng.randrange(256)])
    if kind == "zeroed":
        a = rng.randrange(len(out))
        b = min(len(out), a + rng.choice([1, 16, 512]))
        out[a:b] = bytes(b - a)
    if kind == "inserted":
        rng.randrange(len(out))
        place = rng.randrange(len(out))
        out[place:place] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 7, 300])))
    if kind == "removed":
        place = rng.randrange(len(out))
        del out[place : place + rng.choice([1, 8, 100])]
    if kind == "twice":
        out += data
    return bytes(out)


def damage(relative: str, kind: str, rng: random.Random) -> Step:
    """Damages a file; the damaged part is drawn when the case is made."""
    seed = rng.random()
    return change(relative, lambda data: damaged(kind, data, random.Random(seed)))


# ---------------------------------------------------------------- steps


def nothing(folder):
    """Leaves the input as it is."""


def both(*steps: Step) -> Step:
    """Takes several steps."""

    def prepare(folder):
        for step in steps:
            step(folder)

    return prepare


def change(relative: str, fill: Callable[[bytes], bytes]) -> Step:
    """Rewrites one file."""

    def prepare(folder):
        path = folder / relative
        path.write_bytes(fill(path.read_bytes()))

    return prepare


def put(relative: str, content: bytes | str) -> Step:
    """Writes one file."""

    def prepare(folder):
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


def swap(relative: str, what: str) -> Step:
    """Puts a folder, nothing, a dangling link, a loop or a fifo in the place of a file."""

    def prepare(folder):
        path = folder / relative
        path.unlink()
        if what == "folder":
            path.mkdir()
        elif what == "link":
            path.symlink_to(folder / "nowhere")
        elif what == "loop":
            path.symlink_to(path)
        elif what == "fifo":
            os.mkfifo(path)

    return prepare


def move(old: str, new: str) -> Step:
    """Renames a file or folder."""

    def prepare(folder):
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(folder / new)

    return prepare


def image(relative: str, make: Callable[[], nib.spatialimages.SpatialImage]) -> Step:
    """Puts an image in the place of another."""

    def prepare(folder):
        (folder / relative).unlink(missing_ok=True)
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        nib.save(make(), folder / relative)

    return prepare


def header(relative: str, **fields) -> Step:
    """Sets fields of a NIfTI-1 header in place, unchecked; of .gz, too."""

    def fill(data):
        zipped = data[:2] == b"\x1f\x8b"
        data = bytearray(gzip.decompress(data) if zipped else data)
        head = np.frombuffer(bytes(data[:348]), nib.Nifti1Header.template_dtype).copy()
        for name, value in fields.items():
            field = head[0] if head.ndim else head
            if isinstance(value, dict):
                for i, v in value.items():
                    field[name][i] = v
            else:
                field[name] = value
        data[:348] = head.tobytes()
        return gzip.compress(bytes(data)) if zipped else bytes(data)

    return change(relative, fill)


def npz(relative: str, rehash: bool = False, drop=(), **arrays) -> Step:
    """Replaces arrays of an .npz; with `rehash` the hashes and the id of a bundle agree."""

    def prepare(folder):
        path = folder / relative
        with np.load(path, allow_pickle=False) as old:
            content = {k: old[k] for k in old.files if k not in drop} | arrays
        np.savez(path, **content)
        if rehash:
            manifest(lambda m: None)(folder)

    return prepare


def manifest(edit: Callable[[dict], object], renew: bool = True) -> Step:
    """Edits the manifest of a bundle, whose hashes then agree with its files.

    With `renew` the id agrees, too, as after an edit by someone who knows the format: the rules of
    the schema have to hold, or it is another decoder.
    """

    def prepare(folder):
        path = folder / "decoder" / "manifest.json"
        content = json.loads(path.read_text())
        for name in content["sha256"]:
            file = path.with_name(name)
            if file.is_file():
                content["sha256"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
        content = edit(content) or content
        if renew and isinstance(content, dict) and "id" in content:
            bound = {k: v for k, v in content.items() if k not in ("id", "signature")}
            canonical = json.dumps(bound, sort_keys=True, separators=(",", ":"))
            content["id"] = hashlib.sha256(canonical.encode()).hexdigest()
        path.write_text(json.dumps(content))

    return prepare


def mat(relative: str, **variables) -> Step:
    """Writes a .mat file of version 5."""
    return lambda folder: scipy.io.savemat(folder / relative, variables)


def cell(*values) -> np.ndarray:
    """Returns a row of cells."""
    out = np.empty((1, len(values)), object)
    for i, value in enumerate(values):
        out[0, i] = value
    return out


def h5(relative: str, edit: Callable[[h5py.File], object]) -> Step:
    """Edits an HDF5 file."""

    def prepare(folder):
        with h5py.File(folder / relative, "r+") as file:
            edit(file)

    return prepare
