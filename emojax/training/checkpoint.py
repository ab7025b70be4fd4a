"""The workdir of a run: whose it is, its checkpoints, finished trainings and kept networks.

A workdir belongs to one configuration (`config.json`). Finished trainings are `done/<name>.npz`;
those under way are orbax checkpoints in `training/`; networks with what was fitted before them are
`models/<name>.npz`. All appear whole or not at all. This is the only import of orbax.
"""

import json
import os
import pathlib
import re
import shutil
import zipfile
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from emojax import files
from emojax.errors import InputError
from emojax.files import atomic_write

SUFFIX = {"done": ".npz", "models": ".npz", "training": ""}  # folder -> of the names in it
FORMAT = 2  # of config.json and of all that a workdir holds; 0.3.0 wrote the bare configuration


class Workdir:
    """An open workdir; also the store of `training.loop`."""

    def __init__(self, folder: pathlib.Path, plain_config: dict[str, Any]):
        """Args: the folder, and the configuration as plain data."""
        self.folder, self.plain_config = folder, plain_config
        self._names: dict[str, str] = {}  # slug -> the only name that it stands for

    @property
    def is_finished(self) -> bool:
        """Whether a whole report is there; metrics.json is written last."""
        return (self.folder / "metrics.json").exists()

    def load_finished(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the arrays of a finished training, or None."""
        return self._load("done", name)

    def save_finished(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps the arrays of a finished training and drops its checkpoint (first process)."""
        if jax.process_index() == 0:
            self._save("done", name, arrays)
            shutil.rmtree(self._path("training", name), ignore_errors=True)

    def load_model(self, name: str) -> dict[str, Any] | None:
        """Returns a tree that `save_model` kept, or None."""
        arrays = self._load("models", name)
        return None if arrays is None else files.unflatten(arrays)

    def save_model(self, name: str, tree: Any) -> None:
        """Keeps a network and what was fitted before it, for the export (first process)."""
        if jax.process_index() == 0:
            self._save("models", name, files.flatten(tree))

    def load(self, name: str, like: Any) -> tuple[int, Any] | None:
        """Returns (epochs done, pytree with the shapes of `like`) of a training, or None."""
        folder = self._path("training", name)
        if not folder.exists():
            return None
        with ocp.training.Checkpointer(folder) as checkpoints:
            if checkpoints.latest is None:
                return None
            epoch = checkpoints.latest.step
            return epoch, checkpoints.load(epoch, jax.tree.map(_abstract, like))

    def save(self, name: str, epoch: int, tree: Any) -> None:
        """Keeps the state after some epochs; the one before is removed once this is whole."""
        policy = ocp.training.preservation_policies.LatestN(1)
        folder = self._path("training", name)
        with ocp.training.Checkpointer(folder, preservation_policy=policy) as checkpoints:
            checkpoints.save(epoch, tree)

    def _path(self, kind: str, name: str) -> pathlib.Path:
        other = self._names.setdefault(slug(name), name)
        if other != name:
            expected = "names that differ in letters or digits"
            raise InputError(self.folder / kind, f"one file for {other!r} and {name!r}", expected)
        return self.folder / kind / (slug(name) + SUFFIX[kind])

    def _load(self, kind: str, name: str) -> dict[str, np.ndarray] | None:
        path = self._path(kind, name)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return dict(arrays)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(path, f"damaged ({error})", "as it was written") from None

    def _save(self, kind: str, name: str, arrays) -> None:
        path = self._path(kind, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)


def open_workdir(workdir: str | os.PathLike, config: dict[str, Any]) -> Workdir:
    """Makes the workdir, or recognises it as this configuration's.

    A workdir in which no training has begun accepts any configuration. `data.store` and
    `data.progress` may differ.

    Args:
      workdir: a folder.
      config: the configuration as plain data; written as config.json.

    Raises:
      InputError: it belongs to another configuration or version, or to something else.
    """
    folder = pathlib.Path(workdir).absolute()
    path = folder / "config.json"
    plain, theirs = plain_config(config), None
    if folder.exists() and not folder.is_dir():
        raise InputError(folder, "a file", "a folder as --workdir")
    if path.exists():
        theirs = read_config(folder)
        bound = any((folder / name).exists() for name in (*SUFFIX, "metrics.json"))
        if bound and (differs := _first_difference(theirs, plain)) is not None:
            key, old, new = differs
            expected = f"{key}={new!r}, or another --workdir"
            raise InputError(folder, f"a run with {key}={old!r}", expected)
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(folder, "files of something else", "an empty or new folder as --workdir")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0 and theirs != plain:
            with atomic_write(path) as partial:
                partial.write_text(json.dumps({"format": FORMAT, "config": plain}, indent=1))
    except OSError as error:
        raise InputError(folder, error.strerror, "a folder that can be written to") from None
    return Workdir(folder, plain)


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration as JSON holds it, without the keys that no result depends on."""
    plain = json.loads(json.dumps(config))
    for key in ("store", "progress"):
        plain.get("data", {}).pop(key, None)
    return plain


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the configuration of a workdir.

    Raises:
      InputError: it has none, or one that was written by another version.
    """
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(folder, "no config.json", "the workdir of a run") from None
    except (OSError, ValueError) as error:
        raise InputError(path, f"damaged ({error})", "as it was written") from None
    if not isinstance(found, dict):
        raise InputError(path, "damaged (no settings in it)", "as it was written")
    version = found.get("format", 1)
    if version == FORMAT and isinstance(found.get("config"), dict):
        return found["config"]
    if version == FORMAT:
        raise InputError(path, "damaged (no config in it)", "as it was written")
    written = "emojax 0.3" if version == 1 else f"another version (format {version})"
    raise InputError(folder, f"a workdir of {written}", "a new folder as --workdir")


def slug(name: str) -> str:
    """Returns a name as part of a file name: "nested, none 0" -> "nested-none-0"."""
    return re.sub(r"[^\w.+]+", "-", name).strip("-")


def _first_difference(theirs, ours, at: str = ""):
    """Returns (dotted key, value, value) of the first leaf that differs; None if all are equal."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return None if theirs == ours else (at, theirs, ours)
    for key in sorted(theirs.keys() | ours.keys()):
        place = f"{at}.{key}" if at else key
        if found := _first_difference(theirs.get(key), ours.get(key), place):
            return found
    return None


def _abstract(leaf):
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
