"""File system events of the kernel: whether a folder has them, and listening to them."""

import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

# File systems in user space (fuse.*) may be shares, too.
SHARES = {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "virtiofs", "vboxsf", "prl_fs"}
SHARES |= {"afs", "ceph", "lustre", "gpfs", "beegfs", "ncpfs", "coda", "fakeowner", "drvfs"}
MOUNTS = pathlib.Path("/proc/self/mountinfo")


def file_system(path: str | os.PathLike, mounts: str) -> str:
    """Returns the type of the file system of a path; "" if unknown.

    Args:
      path: absolute path without links.
      mounts: content of /proc/self/mountinfo.
    """
    best, kind = "", ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, types = left.split(), right.split()
        if len(fields) < 5 or not types:
            continue
        place = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])  # \040 is a space
        is_inside = pathlib.PurePosixPath(path).is_relative_to(place)
        if is_inside and len(place) >= len(best):  # the last of equal mounts is on top
            best, kind = place, types[0]
    return kind


def is_share(kind: str) -> bool:
    """Returns whether other computers may write to a file system of this type."""
    return kind in SHARES or kind.startswith("fuse.")


def has_events(path: pathlib.Path) -> bool:
    """Returns whether the kernel reports all files that are written to a folder."""
    try:
        kind = file_system(path.resolve(), MOUNTS.read_text(errors="replace"))
    except OSError:  # other platforms do not report when a file is closed
        return False
    return sys.platform == "linux" and not is_share(kind)


def listen(path: pathlib.Path, hear: Callable[[str], None]) -> Any:
    """Starts calling `hear` with the path of each file that is closed after writing, or moved.

    Args:
      path: the folder.
      hear: function that takes a path; called in another thread.

    Returns:
      The observer, which has `stop` and `join`.

    Raises:
      OSError: the kernel's limit of watches is reached, or the folder is gone.
      ImportError: watchdog is not installed.
    """
    from watchdog import events
    from watchdog.observers.inotify import InotifyObserver

    class Handler(events.FileSystemEventHandler):
        def dispatch(self, event: events.FileSystemEvent) -> None:
            is_moved = isinstance(event, events.FileMovedEvent)
            hear(os.fsdecode(event.dest_path if is_moved else event.src_path))

    observer = InotifyObserver(generate_full_events=True)  # includes moves from other folders
    wanted = [events.FileClosedEvent, events.FileMovedEvent]
    observer.schedule(Handler(), str(path), event_filter=wanted)
    try:
        observer.start()
    except OSError:
        observer.stop()
        raise
    return observer
