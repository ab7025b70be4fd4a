"""Locks on folders: one process at a time writes into a workdir.

A lock is a file that only one process can create. It names that process, which renews the file's
modification time while it runs. This also works on network disks and Windows, where locks of the
operating system may not. A lock is stale if its process is gone or, on another machine, has not
renewed it for `STALE` seconds by the clock of the disk; the next process takes it over.
"""

import json
import os
import pathlib
import socket
import threading
import uuid
from typing import Any

import psutil

from emojax.errors import InputError

BEAT = 20.0  # s between renewals
STALE = 180.0  # s without a renewal after which a process on another machine counts as gone


class Held(InputError):
    """An error about a lock that a running process holds."""


class Lock:
    """A lock that is held until `release`; also a context manager."""

    def __init__(self, path: pathlib.Path):
        """Creates the lock file.

        Raises:
          Held: a running process holds the lock.
          OSError: the folder cannot be written.
        """
        self.path = path
        self.text = json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": _started(os.getpid()),
                "key": uuid.uuid4().hex,
            }
        )
        self._ended = threading.Event()
        self._lost = False
        while not _make(path, self.text):
            _remove_stale(path)
        threading.Thread(target=self._renew, daemon=True).start()

    def check(self) -> None:
        """Checks that no other process has taken over the lock.

        Raises:
          InputError: another process has, e.g. while this machine was suspended.
        """
        if self._lost:
            expected = "this one to go on (start it again when the other one has ended)"
            raise InputError(self.path.parent, "another process at work in it", expected)

    def release(self) -> None:
        """Removes the file if it still belongs to this process."""
        self._ended.set()
        if _read(self.path) == self.text:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *error) -> None:
        self.release()

    def _renew(self) -> None:
        while not self._ended.wait(BEAT):
            try:
                self._lost = _read(self.path) != self.text
                if not self._lost:
                    os.utime(self.path)
            except OSError:  # a network disk may be away for a moment
                continue


def holder(path: pathlib.Path) -> str:
    """Returns the text of a lock that a running process holds, or ""."""
    text = _read(path)
    if text is not None:
        try:
            _refuse_alive(path, text)
        except Held:
            return text
    return ""


def is_alive(pid: int | str, started: float | None = None) -> bool:
    """Returns whether a process of this machine is running, and is the one that `started` names.

    Args:
      pid: process number; text that is not a number names no process.
      started: see `_started`; None: any process of this number.
    """
    try:
        process = psutil.Process(int(pid))
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or started == _started(int(pid))
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError, OverflowError):
        return False


def _started(pid: int) -> float:
    """Returns a start time that tells a process from an earlier one of the same number.

    On Linux it is in ticks since boot, as a time of day changes when the clock is set.
    """
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
        return float(text.rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return round(psutil.Process(pid).create_time())


def _make(path: pathlib.Path, text: str) -> bool:
    """Creates a file together with its content; returns False if it already exists."""
    own = aside(path)
    try:
        own.write_text(text)
        try:
            os.link(own, path)
            return True
        except FileExistsError:
            return False
        except OSError:  # a disk without hard links
            pass
        try:
            with open(path, "x") as file:
                file.write(text)
            return True
        except FileExistsError:
            return False
    finally:
        own.unlink(missing_ok=True)


def aside(path: pathlib.Path) -> pathlib.Path:
    """Returns a temporary path in a file's folder that no other process or thread uses."""
    return path.with_name(f"{path.name}.{os.getpid()}-{unique()}.partial")


def unique() -> str:
    """Returns a unique part of a name, as processes in containers may all have the same number."""
    return uuid.uuid4().hex[:8]


def _read(path: pathlib.Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _remove_stale(path: pathlib.Path) -> None:
    """Removes a lock whose process is gone.

    Raises:
      Held: its process is running.
    """
    text = _read(path)
    if text is None:
        return
    _refuse_alive(path, text)
    moved = aside(path)
    if _read(path) != text:  # another process was faster
        return
    try:
        os.replace(path, moved)
    except FileNotFoundError:
        return
    if _read(moved) != text:  # another process was faster, and this is its lock
        _make(path, moved.read_text())
    moved.unlink(missing_ok=True)


def _refuse_alive(path: pathlib.Path, text: str) -> None:
    try:
        owner: dict[str, Any] = json.loads(text)
        host, pid, started = owner["host"], int(owner["pid"]), float(owner["started"])
    except (ValueError, KeyError, TypeError):
        host, pid, started = "an unknown machine", 0, 0.0
    try:
        age = _now(path) - path.stat().st_mtime
    except FileNotFoundError:
        return
    here = host == socket.gethostname()
    if is_alive(pid, started) if here else age < STALE:
        where = "" if here else f" on {host}, last seen {max(age, 0):.0f} s ago"
        expected = "a folder that nobody uses (wait, or choose another one)"
        raise Held(path.parent, f"process {pid}{where} at work in it", expected)


def _now(path: pathlib.Path) -> float:
    """Returns the time by the clock of the disk, as in modification times of files."""
    probe = aside(path)
    try:
        probe.write_text("")
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)
