"""Atomic writing of files and folders, pytrees as flat archives, and comma-separated settings.

A file written under a temporary name is synchronised with the disk before it gets its final name,
and its folder afterwards: after a power cut, a name never refers to incomplete content.
"""

import contextlib
import csv
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from emojax import locks


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path to write to; it becomes `path` at the end, or is removed on error."""
    partial = locks.aside(path)
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder to fill; it becomes `folder` at the end.

    An existing folder of that name is moved aside first and removed last, so that the old or the
    new one is complete at every moment: as `folder` or, after a kill, as "<folder>.old". Remains of
    earlier attempts by killed processes are removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}-*.partial"):
        if not locks.is_alive(left.name.split("-")[-1].partition(".")[0]):
            shutil.rmtree(left, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}-{locks.unique()}-{os.getpid()}.partial")
    partial.mkdir()
    aside = folder.with_name(folder.name + ".old")
    try:
        yield partial
        for path in (*partial.rglob("*"), partial):
            sync(path)
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(folder, aside)
        try:
            os.replace(partial, folder)
        except BaseException:  # including Ctrl-C
            if aside.exists():
                os.replace(aside, folder)
            raise
        sync(folder.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync(path: pathlib.Path) -> None:
    """Waits until a file or folder is on the disk, if the platform supports this."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # folders cannot be opened on Windows
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(descriptor)


def cause(error: BaseException) -> str:
    """Returns the reason for a failure in a few words, without the text that libraries add."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        if os.strerror(number).lower() in str(error).lower():
            return os.strerror(number)
    return (str(error).splitlines() or [type(error).__name__])[0]


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Returns nested dicts and lists as {"a/0/b": array}, as stored in .npz files."""
    from flax import traverse_util  # imports jax, which other users of this module do not need

    def as_dicts(node):
        if isinstance(node, (list, tuple)):
            node = {str(i): child for i, child in enumerate(node)}
        if isinstance(node, Mapping):
            return {name: as_dicts(child) for name, child in node.items()}
        return np.asarray(node)

    return cast(dict[str, np.ndarray], traverse_util.flatten_dict(as_dicts(tree), sep="/"))


def unflatten(arrays: Mapping[str, Any]) -> Any:
    """Inverts `flatten`; tuples come back as lists."""
    from flax import traverse_util

    def as_lists(node):
        if not isinstance(node, dict):
            return node
        node = {name: as_lists(child) for name, child in node.items()}
        if node and all(name.isdecimal() for name in node):
            return [node[name] for name in sorted(node, key=lambda name: (len(name), name))]
        return node

    return as_lists(traverse_util.unflatten_dict(dict(arrays), sep="/"))


def write_csv(path: pathlib.Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes columns of equal length as a table; numbers have six significant digits."""
    with atomic_write(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        rows = zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True)
        writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)


def split_list(text: str) -> tuple[str, ...]:
    """Splits a comma-separated setting such as "01,02"; "" gives an empty tuple (no filter)."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
