"""The journal of a session: JSON lines, each with the sha256 of the line before.

A line is on disk before its record is sent, and no line is ever changed: the hash of the last one
shows whether the journal is still as the session wrote it (`verify`). The first line states the
decoder and the settings; docs/realtime.md describes the others.
"""

import errno
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from emojax import files
from emojax.errors import InputError

NAME = "journal.jsonl"
FORMAT = 1
OWN = ("kind", "format", "before")  # keys of the first line that the journal adds
WANTED = "a journal of emojax watch"


class Verified(NamedTuple):
    """A journal whose chain of lines has been verified."""

    lines: tuple[dict[str, Any], ...]
    last: str  # sha256 of the last line
    size: int  # bytes of complete lines; an unfinished one may follow

    def hash_of(self, line: Mapping[str, Any]) -> str:
        """Returns the sha256 of one of the lines, which the line after it holds."""
        place = next(i for i, own in enumerate(self.lines) if own is line) + 1
        return self.lines[place]["before"] if place < len(self.lines) else self.last


class Journal:
    """A journal that one process at a time adds lines to. The first line creates the file."""

    def __init__(self, path: pathlib.Path, earlier: Verified | None = None):
        """Args: the file, and its verified content; an unfinished line after that is cut off."""
        self.path, self.last = path, earlier.last if earlier else ""
        self._file, self._size = None, earlier.size if earlier else 0

    def add(self, entry: Mapping[str, Any], *, wait: bool = True) -> str:
        """Adds a line.

        Args:
          entry: content of the line.
          wait: whether to wait until the line is on disk.

        Returns:
          The sha256 of the line.

        Raises:
          OSError: the disk is full or gone; the file is as before.
        """
        line, file = encode(entry, self.last), self._open()
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if wait:
                _to_disk(file)
        except OSError as error:
            os.ftruncate(file, self._size)
            raise OSError(error.errno, error.strerror, str(self.path)) from None
        self._size += len(line)
        self.last = hashlib.sha256(line[:-1]).hexdigest()
        return self.last

    def close(self) -> None:
        """Waits until everything is on disk, and closes the file."""
        if self._file is not None:
            _to_disk(self._file)
            os.close(self._file)

    def _open(self) -> int:
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._file, self._size)
            files.sync(self.path.parent)  # so that the file's name is on disk
        return self._file


def _to_disk(file: int) -> None:
    getattr(os, "fdatasync", os.fsync)(file)


def encode(entry: Mapping[str, Any], before: str) -> bytes:
    """Returns a line of a journal, with its newline."""
    return plain(dict(entry) | {"before": before}) + b"\n"


def plain(entry: Mapping[str, Any]) -> bytes:
    """Returns data as one line of JSON, with null for NaN and infinities."""
    text = json.dumps(_plain(entry), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


def as_read(value: Any) -> Any:
    """Returns data as they are read back from a line, for example with lists for tuples."""
    return json.loads(plain({"": value}))[""]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def read(path: str | os.PathLike) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Reads a journal line by line, checking each against the one before.

    Yields:
      The line, its sha256, and the number of bytes up to its end. An unfinished last line is left
      out.

    Raises:
      InputError: the file cannot be read, or a line does not follow from the one before.
    """
    before, end = "", 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                entry = _parse(line, f"{path}, line {number}")
                if entry.get("before") != before:
                    found = "a line that does not follow from the one before (changed, or lost)"
                    raise InputError(f"{path}, line {number}", found, f"sha256 {before or 'none'}")
                if number == 1 and (entry.get("kind"), entry.get("format")) != ("start", FORMAT):
                    raise InputError(path, "another first line", f"{WANTED}, format {FORMAT}")
                before, end = hashlib.sha256(line[:-1]).hexdigest(), end + len(line)
                yield entry, before, end
    except OSError as error:
        raise InputError(path, error.strerror, WANTED) from None


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
        raise InputError(where, "a line that is no JSON object with a kind", WANTED)
    return entry


def verify(path: str | os.PathLike) -> Verified:
    """Reads a whole journal and checks that its lines follow from each other.

    Raises:
      InputError: as `read`, or there is no complete line.
    """
    found = list(read(path))
    if not found:
        raise InputError(path, "no whole line", WANTED)
    return Verified(tuple(entry for entry, _, _ in found), *found[-1][1:])


def records(path: str | os.PathLike, first: int = 0) -> Iterator[dict[str, Any]]:
    """Yields the records of a journal as they were sent.

    Args:
      path: path of the journal, which may still be written to.
      first: smallest `seq`.

    Raises:
      InputError: as `read`.
    """
    waiting: dict[str, Any] | None = None
    for entry, line, _ in read(path):
        if entry["kind"] == "volume":
            if waiting is not None:
                yield waiting
            waiting = wire(entry, line) if entry["seq"] >= first else None
        elif entry["kind"] == "sent" and waiting is not None and entry["seq"] == waiting["seq"]:
            yield waiting | {"time_sent": entry["time_sent"]}
            waiting = None
    if waiting is not None:
        yield waiting


def wire(entry: Mapping[str, Any], line: str, time_sent: float | None = None) -> dict[str, Any]:
    """Returns a record as it is sent: with the hash of its line instead of the one before."""
    own = {name: value for name, value in entry.items() if name != "before"}
    return own | {"time_sent": time_sent, "line": line}
