"""Names of unfinished files: they tell who writes a file, and so what a kill left behind."""

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
KIND = r"(paths/)?[0-9a-f]{32,64}\.(nii|npy|json)\.[^/]+\.partial"  # below the folder
WRITER = re.compile(r"\w+\.\w+\.(?P<host>.*)-(?P<pid>\d+)-(?P<process>[0-9a-f]{8})-\d+\.partial")
PROCESS = uuid.uuid4().hex[:8]  # tells this process from a dead one of the same number


def beside(path: pathlib.Path) -> pathlib.Path:
    """Returns the name under which this thread writes a file."""
    writer = f"{_host()}-{os.getpid()}-{PROCESS}-{threading.get_ident()}"
    return path.with_name(f"{path.name}.{writer}.partial")


def sweep(folder: pathlib.Path) -> None:
    """Removes the unfinished files of a folder that nobody writes any more."""
    for path in (*folder.glob("*.partial"), *folder.glob("paths/*.partial")):
        with contextlib.suppress(OSError):  # another process was faster, or it is read-only
            name = path.relative_to(folder).as_posix()
            if re.fullmatch(KIND, name) and is_abandoned(path, path.stat().st_mtime):
                path.unlink()


def is_abandoned(path: pathlib.Path, written: float) -> bool:
    """Returns whether nobody writes an unfinished file any more.

    Of this machine's files, the process decides, whatever the clock says. What another machine
    wrote, or a version that did not note the machine, is abandoned when it is old.

    Args:
      path: the unfinished file.
      written: time of its last change, s since 1970.
    """
    writer = WRITER.fullmatch(path.name)
    if writer is None or writer["host"] != _host():
        return time.time() - written > ABANDONED
    if int(writer["pid"]) == os.getpid():
        return writer["process"] != PROCESS
    return not locks.is_alive(writer["pid"])


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())[:64]
