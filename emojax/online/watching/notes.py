"""Notes of incidents for the log, and memory that stays small however long a run is."""

from collections import deque
from typing import Any, NamedTuple

from emojax.errors import one_line

MOST = 4096  # notes that wait to be read, and things that are noted once only


class Note(NamedTuple):
    """An incident for the log."""

    what: str
    text: str
    volume: int | None = None


class Notes:
    """The notes since they were last taken."""

    def __init__(self):
        """Begins without any."""
        self._notes: deque[Note] = deque(maxlen=MOST)
        self._noted: dict[str, None] = {}

    def add(self, what: str, text: str, volume: int | None = None) -> None:
        """Adds a note; what names of files hold is spelled out."""
        self._notes.append(Note(what, one_line(text), volume))

    def once(self, what: str, key: str, text: str, volume: int | None = None) -> None:
        """Adds a note unless there has been one with the same key."""
        if key not in self._noted:
            keep(self._noted, key, None, MOST)
            self.add(what, text, volume)

    def take(self) -> list[Note]:
        """Returns the notes, and forgets them."""
        notes = list(self._notes)
        self._notes.clear()
        return notes


def keep(into: dict, key: Any, value: Any, most: int) -> Any:
    """Puts a value last; if there are more than `most` then, removes the first and returns it."""
    into.pop(key, None)
    into[key] = value
    return into.pop(next(iter(into))) if len(into) > most else None
