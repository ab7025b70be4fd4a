"""What a run leaves on disk so that it can go on after a kill; the only import of orbax.

A workdir belongs to one configuration. Finished trainings are `done/<name>.npz`; the one under way
is an orbax checkpoint in `training/`; networks that are exported later are `models/<name>.npz`. All
appear whole or not at all.
"""

import json
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from emojax import files
from emojax.errors import InputError
from emojax.files import atomic_write


def claim(workdir: str | os.PathLike, config: dict[str, Any]) -> pathlib.Path:
    """Makes the workdir, or recognises it as this configuration's.

    Nothing binds a workdir in which no training has begun; nor do `data.store` and `data.progress`.

    Args:
      workdir: a folder.
      config: plain data; written as config.json.

    Returns:
      Its absolute path.

    Raises:
      InputError: it belongs to another configuration, or to something else.
    """
    workdir = pathlib.Path(workdir).absolute()
    path = workdir / "config.json"
    plain = json.loads(json.dumps(config))
    for key in ("store", "progress"):
        plain.get("data", {}).pop(key, None)
    if any((workdir / name).exists() for name in ("done", "metrics.json")) and path.exists():
        if (differs := _first_difference(json.loads(path.read_text()), plain)) is not None:
            key, theirs, ours = differs
            expected = f"{key}={ours!r}, or another --workdir"
            raise InputError(workdir, f"a run with {key}={theirs!r}", expected)
    elif workdir.exists() and any(workdir.iterdir()) and not path.exists():
        raise InputError(workdir, "files of something else", "an empty or new folder as --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(plain, indent=1))
    return workdir


def _first_difference(theirs, ours, at: str = ""):
    """(dotted key, value, value) of the first leaf that differs; None if all are the same."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return None if theirs == ours else (at, theirs, ours)
    for key in sorted(theirs.keys() | ours.keys()):
        place = f"{at}.{key}" if at else key
        if found := _first_difference(theirs.get(key), ours.get(key), place):
            return found
    return None


class Progress:
    """Finished and unfinished trainings of one workdir."""

    def __init__(self, workdir: pathlib.Path):
        """Args: the claimed workdir."""
        self._done = workdir / "done"
        self._training = workdir / "training"
        self._models = workdir / "models"
        self._done.mkdir(parents=True, exist_ok=True)

    def done(self, name: str) -> dict[str, np.ndarray] | None:
        """Arrays of a finished training, or None."""
        path = self._done / f"{name}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    def finish(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps the arrays of a finished training and drops its checkpoint (first process)."""
        if jax.process_index() > 0:
            return
        path = self._done / f"{name}.npz"
        with atomic_write(path) as partial, open(partial, "wb") as file:
            np.savez(file, **arrays)
        shutil.rmtree(self._training / name, ignore_errors=True)

    def keep(self, name: str, best: Any) -> None:
        """Keeps a network, anything with `params` and `batch_stats` (first process)."""
        if jax.process_index() > 0:
            return
        self._models.mkdir(exist_ok=True)
        tree = {"params": best.params, "batch_stats": best.batch_stats}
        path = self._models / f"{name.replace(' ', '-')}.npz"
        with atomic_write(path) as partial, open(partial, "wb") as file:
            np.savez(file, **files.flatten(tree))

    def model(self, name: str) -> dict[str, Any] | None:
        """{"params", "batch_stats"} of a network that was kept, or None."""
        path = self._models / f"{name.replace(' ', '-')}.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as arrays:
            return {"batch_stats": {}} | files.unflatten(dict(arrays))

    def load(self, name: str, like: Any) -> tuple[int, Any] | None:
        """(epochs done, pytree as `like`) of a training under way, or None."""
        if not (self._training / name).exists():
            return None
        with ocp.training.Checkpointer(self._training / name) as checkpoints:
            if checkpoints.latest is None:
                return None
            epoch = checkpoints.latest.step
            return epoch, checkpoints.load(epoch, jax.tree.map(_abstract, like))

    def save(self, name: str, epoch: int, tree: Any) -> None:
        """Keeps the state after some epochs; the one before is removed once this is whole."""
        policy = ocp.training.preservation_policies.LatestN(1)
        with ocp.training.Checkpointer(
            self._training / name, preservation_policy=policy
        ) as checkpoints:
            checkpoints.save(epoch, tree)


def _abstract(leaf):
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
