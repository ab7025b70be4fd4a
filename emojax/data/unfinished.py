"""Names of unfinished files, which identify the writer and thus leftovers of killed processes."""

import contextlib
import os
import pathlib
import re
import socket
import threading
import time
import uuid

from emojax import locks

ABANDONED = 7 * 86400.0  # s without a change; clocks and network disks lag by less
KIND = r"(paths/)?[0-9a-f]{32,64}\.(nii|npy|json)\.[^/]+\.partial"  # relative to the folder
WRITER = re.compile(r"\w+\.\w+\.(?P<host>.*)-(?P<pid>\d+)-(?P<process>[0-9a-f]{8})-\d+\.partial")
PROCESS = uuid.uuid4().hex[:8]  # distinguishes this process from a dead one with the same pid


def beside(path: pathlib.Path) -> pathlib.Path:
    """Returns the temporary name under which this thread writes a file."""
    writer = f"{_host()}-{os.getpid()}-{PROCESS}-{threading.get_ident()}"
    return path.with_name(f"{path.name}.{writer}.partial")


def sweep(folder: pathlib.Path) -> None:
    """Removes the abandoned unfinished files of a folder."""
    for path in (*folder.glob("*.partial"), *folder.glob("paths/*.partial")):
        with contextlib.suppress(OSError):  # already removed, or a read-only folder
            name = path.relative_to(folder).as_posix()
            if re.fullmatch(KIND, name) and is_abandoned(path, path.stat().st_mtime):
                path.unlink()


def is_abandoned(path: pathlib.Path, written: float) -> bool:
    """Returns whether an unfinished file is no longer being written.

    For files of this machine, that depends on the process, whatever the clock says. Files of other
    machines, or of a version that did not record the machine, are abandoned when they are old.

    Args:
      path: the unfinished file.
      written: last modification, s since 1970.
    """
    writer = WRITER.fullmatch(path.name)
    if writer is None or writer["host"] != _host():
        return time.time() - written > ABANDONED
    if int(writer["pid"]) == os.getpid():
        return writer["process"] != PROCESS
    return not locks.is_alive(writer["pid"])


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())[:64]
