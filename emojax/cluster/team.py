"""Roles of the processes of one run: one leads and writes the report; the others help it.

The first process to lock the workdir leads. The others wait until it has read the data, check that
they have the same configuration, data and versions, and take pieces of the work (`pieces`). If the
leader ends, one of them takes its place.
"""

import contextlib
import os
import pathlib
import shutil
import time
from collections.abc import Iterator
from typing import Any

from emojax import stops
from emojax.cluster.jobs import JOBS
from emojax.cluster.pieces import POLL
from emojax.errors import InputError
from emojax.locks import Held, Lock, holder
from emojax.training import checkpoint
from emojax.training.checkpoint import Workdir


def enter(workdir: str | os.PathLike, config: dict[str, Any], members: int) -> Workdir:
    """Opens the workdir to lead the run, or to help the process that does.

    Args:
      workdir: a folder that all processes can access.
      config: the configuration as plain data.
      members: number of processes.

    Raises:
      InputError: as `checkpoint.open_workdir`, or the run has another configuration.
      stops.Stopped: a signal asked this process to end.
    """
    folder = pathlib.Path(workdir).absolute()
    while True:
        try:
            return checkpoint.open_workdir(folder, config, members=members)
        except Held:
            pass
        if is_bound(folder):
            plain = checkpoint.plain_config(config)
            checkpoint.check_config(folder, plain)
            return Workdir(folder, plain, members=members, serves=True)
        stops.check()
        time.sleep(POLL)


@contextlib.contextmanager
def nothing_left(workdir: str | os.PathLike, *, but: str = "") -> Iterator[None]:
    """Removes a newly created workdir if input is rejected before any training.

    It is kept if another process uses it, or if it holds logs of jobs or other files.

    Args:
      workdir: the folder.
      but: name of a requested file in it; if the file exists, the folder is kept.
    """
    folder = pathlib.Path(workdir).absolute()
    there = os.path.lexists(folder)
    try:
        yield
    except Held:
        raise
    except InputError:
        if not there and folder.is_dir() and not (but and (folder / but).exists()):
            with contextlib.suppress(Held, OSError):
                _remove_unbound(folder)
        raise


def _remove_unbound(folder: pathlib.Path) -> None:
    """Removes a workdir in which no training has begun, unless it holds other files.

    Raises:
      Held: another process is using it.
      OSError: it cannot be removed, e.g. because another process has just opened it.
    """
    with Lock(folder / checkpoint.LOCK):
        names = {path.name for path in folder.iterdir()} - {checkpoint.LOCK}
        if Workdir(folder, {}).is_bound or not names <= set(checkpoint.OWN) - {JOBS}:
            return
        for path in map(folder.joinpath, names):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.rmdir()


def is_bound(folder: pathlib.Path) -> bool:
    """Returns whether a living process leads the run and has read its data."""
    leader = holder(folder / checkpoint.LOCK)
    try:
        return bool(leader) and (folder / checkpoint.BOUND).read_text() == leader
    except OSError:
        return False


def has_leader(work: Workdir) -> bool:
    """Returns whether a living process leads the run."""
    return bool(holder(work.folder / checkpoint.LOCK))
