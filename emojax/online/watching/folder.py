"""A watched folder, which lists files as soon as they can be read.

with Folder(path) as folder:
    for path in folder.get(timeout_s=0.1):
        ...

On local file systems of Linux, the kernel reports when a file is closed after writing, or moved
here. It does not report what other computers write to a share, and its queue may overflow. The
folder is therefore polled too: every 250 ms in addition to events, every 20 ms without them. A file
found by polling can be read once its size and modification time are unchanged.
"""

import contextlib
import os
import pathlib
import queue
import re
import time
from typing import Any, NamedTuple

from emojax.errors import InputError
from emojax.files import cause
from emojax.online.watching import events
from emojax.online.watching.notes import Note, Notes

POLL_MS = 20.0  # between two polls without events
SWEEP_S = 0.25  # between two polls with events
SOON_S = 0.1  # between two polls with events, while a file is changing
QUIET_S = 0.015  # for which a file must stay unchanged between two polls
LISTING = 0.05  # largest share of time spent on listing the folder
PAUSE = 2  # durations of the last listing before the next one, if the folder has changed
FRESH_S = 0.05  # during which the modification time of a folder may hide a second change
RECENT = 32  # returned files that are still polled, as they may be replaced
MOST = 65536  # events that wait; lost ones are made up for by the next poll
EVENTS, POLLING = "events", "polling"
TEMPORARY = (".tmp", ".temp", ".partial", ".part", ".filepart", ".crdownload", "~")

Stamp = tuple[int, ...]


class _Look(NamedTuple):
    """The state of a file at the last poll."""

    stamp: Stamp
    since: float  # time at which it was first seen with this stamp, s
    is_given: bool  # whether it has been returned


class Folder:
    """A folder that another program writes files to.

    Attributes:
      kind: "events" or "polling".
    """

    def __init__(self, path: str | os.PathLike, *, poll_ms: float | None = None):
        """Prepares to watch a folder.

        Args:
          path: the folder.
          poll_ms: time between two polls; None to use events if available.

        Raises:
          InputError: the folder does not exist.
        """
        self._path = pathlib.Path(path)
        try:
            self._own = _identity(self._path)
            os.listdir(self._path)
        except OSError as error:
            expected = "the folder that the scanner writes to"
            raise InputError(path, error.strerror, expected) from None
        self.kind = EVENTS if poll_ms is None and events.has_events(self._path) else POLLING
        self._poll_s = (poll_ms or POLL_MS) / 1000
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._observer: Any = None  # watchdog's
        self._known: set[str] = set()
        self._looks: dict[str, _Look] = {}
        self._notes = Notes()
        self._is_gone = False
        self._start = self._next_look = self._listed = self._changed = self._cost = 0.0

    def __enter__(self) -> "Folder":
        """Starts listening, and lists the files that exist."""
        self._listen()
        self._look()
        self._start = time.monotonic() + QUIET_S
        return self

    def __exit__(self, *_: object) -> None:
        """Stops listening."""
        self._hush()

    def get(self, timeout_s: float) -> list[pathlib.Path]:
        """Returns the files that are new or have been rewritten since the last call.

        Args:
          timeout_s: maximum time to wait for a file; the list is empty then.
        """
        end, ready = time.monotonic() + timeout_s, []
        if self._start:  # files that existed before come first
            time.sleep(max(self._start - time.monotonic(), 0))
            ready, self._start = self._look(), 0.0
        while not ready:
            ready = self._closed(0)
            now = time.monotonic()
            if now >= self._next_look:
                ready += self._look()
            if ready or now >= end:
                break
            ready = self._closed(min(end, self._next_look) - now)
        return [self._path / name for name in dict.fromkeys(ready)]

    def notes(self) -> list[Note]:
        """Returns the notes about the folder since the last call."""
        return self._notes.take()

    def _closed(self, timeout_s: float) -> list[str]:
        """Returns the names reported by events."""
        names: list[str] = []
        with contextlib.suppress(queue.Empty):
            names.append(self._queue.get(timeout_s > 0, max(timeout_s, 0)))
            while True:
                names.append(self._queue.get(False))
        for name in names:
            self._known.add(name)
            self._looks.pop(name, None)
            if (stamp := _stamp(self._path / name)) is not None:
                self._looks[name] = _Look(stamp, time.monotonic(), True)
        return names

    def _look(self) -> list[str]:
        """Polls the folder; returns the names of files that can be read now."""
        now = time.monotonic()
        self._next_look = now + (SWEEP_S if self.kind == EVENTS else self._poll_s)
        try:
            new = self._new_names(now)
        except OSError as error:
            if not self._is_gone:
                self._is_gone = True
                self._notes.add("folder", f"{self._path}: {error.strerror}; waiting")
            return []
        if self._is_gone:
            self._is_gone = False
            self._notes.add("folder", f"{self._path}: it is back")
        for name in new:
            self._looks.setdefault(name, _Look((), now, False))
        return self._settled(now)

    def _new_names(self, now: float) -> list[str]:
        """Returns the names that are new, in natural order.

        Without events, the modification time of the folder indicates new names. Some shares do not
        update it, and it may not change when files appear in quick succession.

        Raises:
          OSError: the folder is gone.
        """
        own = _identity(self._path)
        if own[:2] != self._own[:2] or self._is_gone or not self._hears:
            self._listen()
        if own != self._own:
            self._own, self._changed = own, now
        idle, is_urgent = now - self._listed - self._cost, self.kind == POLLING
        is_urgent &= self._listed < self._changed + FRESH_S
        if idle < self._cost * (PAUSE if is_urgent else 1 / LISTING):
            return []
        new, kept = self._list()
        if kept < len(self._known):
            self._known.intersection_update(os.listdir(self._path))
        self._known.update(new)
        self._listed, self._cost = now, time.monotonic() - now
        return sorted(new, key=natural)

    def _list(self) -> tuple[list[str], int]:
        """Returns the unknown names, and the number of known ones that are still there."""
        new, kept = [], 0
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name in self._known:
                    kept += 1
                elif not is_temporary(entry.name):
                    new.append(entry.name)
        return new, kept

    def _settled(self, now: float) -> list[str]:
        """Returns the files that are unchanged since the last poll, each once."""
        ready = []
        for name, look in list(self._looks.items()):
            stamp = _stamp(self._path / name)
            if stamp is None:
                del self._looks[name]
                self._known.discard(name)
            elif stamp != look.stamp:
                self._looks[name] = _Look(stamp, now, False)
            elif not look.is_given and now - look.since >= QUIET_S:
                self._looks[name] = look._replace(is_given=True)
                ready.append(name)
        given = [name for name, look in self._looks.items() if look.is_given]
        if len(given) < len(self._looks):
            self._next_look = min(self._next_look, now + SOON_S)
        for name in given[:-RECENT]:
            del self._looks[name]
        return ready

    def _listen(self) -> None:
        """Starts listening to events of the folder, which may have been replaced."""
        if self.kind == POLLING:
            return
        self._hush()
        try:
            self._observer = events.listen(self._path, self._hear)
        except (ImportError, OSError) as error:  # usually the system's limit of watches
            self.kind = POLLING
            self._notes.add("folder", f"{self._path}: {cause(error)}; polling")

    def _hush(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    @property
    def _hears(self) -> bool:
        """True if events would arrive; they end with the folder."""
        return self._observer is None or all(e.is_alive() for e in self._observer.emitters)

    def _hear(self, path: str) -> None:
        """Queues the path of an event; called in another thread."""
        name = os.path.basename(path)
        if name and not is_temporary(name) and self._queue.qsize() < MOST:
            self._queue.put(name)


def is_temporary(name: str) -> bool:
    """Returns whether a name is typical of files that are still being written."""
    return name.startswith(".") or name.lower().endswith(TEMPORARY)


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts names by their numbers: vol_2 before vol_10."""
    parts = re.split("([0-9]+)", name)
    return [(int(part), part) if i % 2 else (-1, part) for i, part in enumerate(parts)]


def _identity(path: pathlib.Path) -> tuple[int, ...]:
    """Returns the device and inode of a folder, and its modification time."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns


def stamp_of(path: pathlib.Path, *, follow_links: bool) -> Stamp | None:
    """Returns modification time, size and inode of a file; None if it does not exist.

    Args:
      path: the file.
      follow_links: whether a link stands for its target or for itself.
    """
    try:
        found = os.stat(path, follow_symlinks=follow_links)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _stamp(path: pathlib.Path) -> Stamp | None:
    return stamp_of(path, follow_links=False)
