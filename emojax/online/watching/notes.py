"""Notes about incidents for the log, in bounded memory."""

from collections import deque
from typing import NamedTuple, TypeVar

from emojax.errors import one_line

MOST = 4096  # notes that wait to be read, and incidents that are noted only once

Key = TypeVar("Key")
Value = TypeVar("Value")


class Note(NamedTuple):
    """An incident for the log."""

    what: str
    text: str
    volume: int | None = None


class Notes:
    """The notes since they were last taken."""

    def __init__(self) -> None:
        """Starts without any."""
        self._notes: deque[Note] = deque(maxlen=MOST)
        self._noted: dict[str, None] = {}

    def add(self, what: str, text: str, volume: int | None = None) -> None:
        """Adds a note, with control characters (as in file names) spelled out."""
        self._notes.append(Note(what, one_line(text), volume))

    def once(self, what: str, key: str, text: str, volume: int | None = None) -> None:
        """Adds a note unless there has been one with the same key."""
        if key not in self._noted:
            keep(self._noted, key, None, MOST)
            self.add(what, text, volume)

    def take(self) -> list[Note]:
        """Returns and removes all notes."""
        notes = list(self._notes)
        self._notes.clear()
        return notes


def keep(into: dict[Key, Value], key: Key, value: Value, most: int) -> Value | None:
    """Puts a value last; if there are now more than `most`, removes and returns the first."""
    into.pop(key, None)
    into[key] = value
    return into.pop(next(iter(into))) if len(into) > most else None
