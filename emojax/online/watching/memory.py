"""The memory of a causal correction, kept on disk for a restart.

Two files alternate, each with the seq of its record. If a process is killed between writing one of
them and the line of the journal, the other one still belongs to the last line.
"""

import os
import pathlib
import zipfile

import jax
import numpy as np

from emojax.online import correction


def keep(folder: pathlib.Path, seq: int, memory: correction.State) -> None:
    """Writes the memory after the record `seq`.

    Raises:
      OSError: the disk is full or gone; the other file is as before.
    """
    path = _path(folder, seq)
    partial = path.with_suffix(".partial")
    with open(partial, "wb") as file:
        np.savez(file, np.int64(seq), *map(np.asarray, jax.tree.leaves(memory)))
    os.replace(partial, path)


def restore(folder: pathlib.Path, seq: int, like: correction.State) -> correction.State | None:
    """Returns the memory after the record `seq`, or None if it was not kept.

    Args:
      folder: folder of the session.
      seq: seq of the last record.
      like: a memory of the same correction.
    """
    try:
        with np.load(_path(folder, seq)) as found:
            own, *leaves = found.values()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    structure = jax.tree.structure(like)
    wanted = [np.shape(leaf) for leaf in jax.tree.leaves(like)]
    if own != seq or [leaf.shape for leaf in leaves] != wanted:
        return None
    return jax.tree.unflatten(structure, leaves)


def _path(folder: pathlib.Path, seq: int) -> pathlib.Path:
    return folder / f"memory-{seq % 2}.npz"
