"""Files that appear whole or not at all; pytrees as flat archives; comma-separated settings."""

import contextlib
import csv
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary name to write to; it becomes `path` at the end, and goes on a failure."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder to fill; it becomes `folder` at the end.

    A folder of that name is moved aside first and removed last, so that at every moment either the
    old or the new one can be found whole: as `folder`, or after a kill as "<folder>.old".
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    aside = folder.with_name(folder.name + ".old")
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes folders for one user only
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(folder, aside)
        try:
            os.replace(partial, folder)
        except BaseException:  # Ctrl-C, too
            if aside.exists():
                os.replace(aside, folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Returns nested dicts and lists as {"a/0/b": array}, the way .npz files hold them."""

    def as_dicts(node):
        if isinstance(node, (list, tuple)):
            node = {str(i): child for i, child in enumerate(node)}
        if isinstance(node, Mapping):
            return {name: as_dicts(child) for name, child in node.items()}
        return np.asarray(node)

    return traverse_util.flatten_dict(as_dicts(tree), sep="/")


def unflatten(arrays: Mapping[str, Any]) -> Any:
    """Inverts `flatten`, with lists for tuples."""

    def as_lists(node):
        if not isinstance(node, dict):
            return node
        node = {name: as_lists(child) for name, child in node.items()}
        if node and all(name.isdecimal() for name in node):
            return [node[name] for name in sorted(node, key=int)]
        return node

    return as_lists(traverse_util.unflatten_dict(dict(arrays), sep="/"))


def write_csv(path: pathlib.Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes columns of one length as a table; numbers have six significant digits."""
    with atomic_write(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        rows = zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True)
        writer.writerows([f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)


def split_list(text: str) -> tuple[str, ...]:
    """Splits a comma-separated setting such as "01,02"; "" is empty: no filter."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
