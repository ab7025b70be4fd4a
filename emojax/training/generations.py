"""Checkpoints of a training run in progress: two generations, each with a list of hashes.

    <folder>/<steps>/        an orbax checkpoint
    <folder>/<steps>.json    its files with their sha256, and the digest of the run

The list is written last: a checkpoint without one counts as unsaved. If one is damaged, the one
before is used. This is the only import of orbax.
"""

import contextlib
import json
import logging
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from emojax import files
from emojax.data import hashes
from emojax.errors import InputError, say

KEPT = 2  # number of checkpoints kept of a training run
TEMPORARY = "*.orbax-checkpoint-tmp*"  # names of unfinished ones


def load(folder: pathlib.Path, digest: str, like: Any) -> Any:
    """Returns the tree of the newest intact checkpoint, or None; removes damaged ones.

    Args:
      folder: folder of one training run.
      digest: digest of the run.
      like: tree with the same shapes, types and shardings.
    """
    if jax.process_index() == 0:
        _drop_damaged(folder, digest)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"checkpoints of {folder.name}")
    if not (steps := _steps(folder)):
        return None
    # pathlib.Path is accepted, but not declared.
    with ocp.training.Checkpointer(folder) as checkpoints:  # pyright: ignore[reportArgumentType]
        return checkpoints.load(steps[-1], jax.tree.map(_abstract, like))


def save(folder: pathlib.Path, digest: str, steps: int, tree: Any) -> None:
    """Writes a checkpoint and removes all older ones but the last.

    Args:
      folder: folder of one training run.
      digest: digest of the run.
      steps: number of steps done.
      tree: pytree of arrays.

    Raises:
      InputError: the disk is full, or cannot be written.
    """
    policy = ocp.training.preservation_policies.LatestN(KEPT)
    try:
        with (
            _without_log(),
            ocp.training.Checkpointer(
                folder,  # pyright: ignore[reportArgumentType]  # as above
                preservation_policy=policy,  # pyright: ignore[reportArgumentType]  # orbax's own
            ) as checkpoints,
        ):
            if steps not in [found.step for found in checkpoints.checkpoints]:
                checkpoints.save(steps, tree)
        if jax.process_index() == 0:
            _seal(folder, digest, steps)
    except (OSError, ValueError, RuntimeError) as error:  # orbax passes errors of the disk on
        expected = "room for a checkpoint (the same command goes on from the one before)"
        raise InputError(folder, files.cause(error), expected) from None


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Keeps orbax from printing traces of errors that it also raises."""
    log = logging.getLogger("absl")
    log.disabled, before = True, log.disabled
    try:
        yield
    finally:
        log.disabled = before


def _seal(folder: pathlib.Path, digest: str, steps: int) -> None:
    """Writes the list of a checkpoint's files and hashes, and removes lists of older ones."""
    place = folder / str(steps)
    listed = _list(place)
    for path in listed:
        files.sync(place / path)
    with files.atomic_write(folder / f"{steps}.json") as partial:
        partial.write_text(json.dumps({"digest": digest, "sha256": listed}, indent=1))
    for path in folder.glob("*.json"):
        if not path.with_suffix("").exists():
            path.unlink()


def _drop_damaged(folder: pathlib.Path, digest: str) -> None:
    """Removes damaged checkpoints that are newer than the newest intact one."""
    for steps in reversed(_steps(folder)):
        seal, place = folder / f"{steps}.json", folder / str(steps)
        try:
            sealed = json.loads(seal.read_text())
            said = "of another run" if sealed["digest"] != digest else "damaged"
            if sealed == {"digest": digest, "sha256": _list(place)}:
                return
        except FileNotFoundError:
            said = ""
        except (OSError, ValueError, KeyError, TypeError):
            said = "damaged"
        if said:
            say(f"{place}: a checkpoint that is {said}; the one before is taken, if there is one")
        shutil.rmtree(place, ignore_errors=True)
        seal.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _list(folder: pathlib.Path) -> dict[str, str]:
    """Returns the relative path and sha256 of every file in a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashes.sha256(path) for path in found}


def _steps(folder: pathlib.Path) -> list[int]:
    """Returns the numbers of the checkpoints in a folder, ascending."""
    return sorted(int(path.name) for path in folder.glob("*") if re.fullmatch("[0-9]+", path.name))


def _abstract(leaf):
    if isinstance(leaf, np.ndarray):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
