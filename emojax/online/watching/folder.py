"""The names in a folder, as soon as their files can be read.

with Folder(path) as folder:
    for path in folder.get(timeout_s=0.1):
        ...

On local file systems of Linux, the kernel says when a file is closed after writing, or moved here.
It says nothing of what other computers write to a share, and its queue may overflow. So the folder
is looked at, too: every 250 ms besides events, every 20 ms without them. A file that is found so
can be read once its size and time of change are those of the look before.
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

POLL_MS = 20.0  # between two looks without events
SWEEP_S = 0.25  # between two looks besides events
SOON_S = 0.1  # between these, while a file has not been quiet yet
QUIET_S = 0.015  # that a file must stay unchanged between two looks
LISTING = 0.05  # of the time may go into listing the folder
PAUSE = 2  # times that the last listing took, before the next where the folder has changed
FRESH_S = 0.05  # in which the time of a folder may hide a second change
RECENT = 32  # files that have been given out and are still looked at: one may be replaced
MOST = 65536  # events that wait; what is lost is found by the next look
EVENTS, POLLING = "events", "polling"
TEMPORARY = (".tmp", ".temp", ".partial", ".part", ".filepart", ".crdownload", "~")


class _Look(NamedTuple):
    """A file as it was seen last."""

    stamp: tuple[int, ...]
    since: float  # s, when it was first seen like this
    is_given: bool


class Folder:
    """A folder that another program writes files to.

    Attributes:
      kind: "events" or "polling".
    """

    def __init__(self, path: str | os.PathLike, *, poll_ms: float | None = None):
        """Args: the folder; how often to look into it, None: by events where there are some.

        Raises:
          InputError: there is no such folder.
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
        self._observer: Any = None  # of the events
        self._known: set[str] = set()
        self._looks: dict[str, _Look] = {}
        self._notes = Notes()
        self._is_gone = False
        self._start = self._next_look = self._listed = self._changed = self._cost = 0.0

    def __enter__(self) -> "Folder":
        """Begins to listen, and looks at what is there."""
        self._listen()
        self._look()
        self._start = time.monotonic() + QUIET_S
        return self

    def __exit__(self, *_) -> None:
        """Stops listening."""
        self._hush()

    def get(self, timeout_s: float) -> list[pathlib.Path]:
        """Returns the files that have come, or have been written anew, since the last call.

        Args:
          timeout_s: how long to wait for the first; an empty list is returned then.
        """
        end, ready = time.monotonic() + timeout_s, []
        if self._start:  # what was there before comes first
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
        """Returns what has happened to the folder since the last call."""
        return self._notes.take()

    def _closed(self, timeout_s: float) -> list[str]:
        """Returns the names that events have told of."""
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
        """Looks at the folder; returns the names of files that can be read now."""
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
        """Returns the names that were not there before, in natural order.

        Without events, the time of the folder says whether there are some; some shares do not keep
        it, and it may stay as it was when files come in quick succession.

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
        """Returns the names that are not known, and how many of those that are known are there."""
        new, kept = [], 0
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name in self._known:
                    kept += 1
                elif not is_temporary(entry.name):
                    new.append(entry.name)
        return new, kept

    def _settled(self, now: float) -> list[str]:
        """Returns the files that are as they were at the look before, each once."""
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
        """Begins to listen to events of the folder as it is now."""
        if self.kind == POLLING:
            return
        self._hush()
        try:
            self._observer = events.listen(self._path, self._hear)
        except (ImportError, OSError) as error:  # the limit of watches, as a rule
            self.kind = POLLING
            self._notes.add("folder", f"{self._path}: {cause(error)}; polling")

    def _hush(self) -> None:
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    @property
    def _hears(self) -> bool:
        """Whether events would arrive; they end with the folder."""
        return self._observer is None or all(e.is_alive() for e in self._observer.emitters)

    def _hear(self, path: str) -> None:
        """Takes the path of an event, in another thread."""
        name = os.path.basename(path)
        if name and not is_temporary(name) and self._queue.qsize() < MOST:
            self._queue.put(name)


def is_temporary(name: str) -> bool:
    """Returns whether a name is one that writers give to files until they are whole."""
    return name.startswith(".") or name.lower().endswith(TEMPORARY)


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts names by their numbers: vol_2 before vol_10."""
    parts = re.split("([0-9]+)", name)
    return [(int(part), part) if i % 2 else (-1, part) for i, part in enumerate(parts)]


def _identity(path: pathlib.Path) -> tuple[int, ...]:
    """Returns what tells a folder from another of its name, and the time of its last change."""
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _stamp(path: pathlib.Path) -> tuple[int, ...] | None:
    """Returns what changes with the content of a file; None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
