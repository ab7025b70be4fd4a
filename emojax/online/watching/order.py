"""Ordering of volumes by number instead of arrival; volumes that never arrive are declared missing.

order = Order(window_s=1.0)
status = order.add(number, item, digest, now)
for number, item in order.pop(now):  # item None: missing
"""

import math
from typing import Any, NamedTuple

from emojax.online.watching.notes import keep

AHEAD = 1000  # a number that is farther ahead is a jump
MOST = 128  # volumes that wait; with more, a gap is declared early
IDLE_S = 0.05  # longest time between two calls of `pop`
REMEMBERED = 1024  # digests of the last volumes, which identify copies


class _Waiting(NamedTuple):
    item: Any
    digest: str
    since: float


class Order:
    """A queue that returns items in order of their numbers, each once.

    A number is declared missing `window_s` after a later one was ready. The first number is 1, or 0
    if a 0 arrives before anything has been returned. All times are the caller's; a clock that steps
    back does not stall the queue.
    """

    def __init__(self, first: int | None = None, window_s: float = 1.0):
        """Args: the first number, None for 1 or 0; and the time to wait for a gap, s."""
        self._next, self._may_be_0 = (1, True) if first is None else (first, False)
        self._window_s = window_s
        self._waiting: dict[int, _Waiting] = {}
        self._aside: dict[int, _Waiting] = {}  # the last jump, if any
        self._given: dict[int, str] = {}

    @property
    def next(self) -> int:
        """The number that is returned next."""
        return self._next

    def add(self, number: int, item: Any, digest: str, now: float) -> str:
        """Takes an item.

        Args:
          number: number of the volume.
          item: any object except None.
          digest: hash of the content; "" for unreadable content, which a good copy replaces.
          now: time, s.

        Returns:
          "new", or the reason why the item is dropped: "duplicate" for a copy, "conflict" for other
          content of the same number, "late" if it was already declared missing or unreadable,
          "jump" if it is more than `AHEAD` ahead. A jump is returned later if another number agrees
          with it, as after a long pause, or if volumes do not count from 1.
        """
        if number == 0 and self._may_be_0:
            self._next = 0
        if number < self._next:
            return _compare(self._given.get(number, ""), digest)
        own, other = _Waiting(item, digest, now), self._waiting.get(number)
        if other is not None and (other.digest or not digest):
            return _compare(other.digest, digest)
        if number > max(self._next, *self._waiting, 0) + AHEAD:
            if not any(0 < abs(number - held) <= AHEAD for held in self._aside):
                copy = [h.digest for n, h in self._aside.items() if n == number]
                self._aside = {number: own}
                return _compare(copy[0], digest) if copy else "jump"
            self._waiting |= self._aside
            self._aside = {}
        self._waiting[number] = own
        return "new"

    def pop(self, now: float) -> list[tuple[int, Any]]:
        """Returns the items that are due now, in order, with None for a missing volume."""
        out: list[tuple[int, Any]] = []
        while self._waiting:
            first = min(self._waiting)
            if first > self._next and not self._is_lost(now):
                break
            if first - self._next <= AHEAD:  # the numbers skipped by a jump are not missing
                out += [(number, None) for number in range(self._next, first)]
            own = self._waiting.pop(first)
            out.append((first, own.item))
            self._next = first + 1
            keep(self._given, first, own.digest, REMEMBERED)
        self._may_be_0 &= not out
        return out

    def wait(self, now: float) -> float:
        """Returns the number of seconds until the next useful call of `pop`, at most `IDLE_S`."""
        if not self._waiting:
            return IDLE_S
        oldest = min(own.since for own in self._waiting.values())
        return min(max(oldest + self._window_s - now, 0.0), IDLE_S)

    def finish(self, last: int | None = None) -> list[tuple[int, Any]]:
        """Returns all remaining items without waiting; with `last`, the volumes up to that one."""
        out = self.pop(math.inf)
        if last is not None:
            out += [(number, None) for number in range(self._next, last + 1)]
            self._next = max(self._next, last + 1)
        return out

    def _is_lost(self, now: float) -> bool:
        """Returns whether the wait for the next number is over."""
        for number, own in self._waiting.items():
            if own.since > now:
                self._waiting[number] = own._replace(since=now)
        oldest = min(own.since for own in self._waiting.values())
        return now - oldest >= self._window_s or len(self._waiting) > MOST


def _compare(known: str, digest: str) -> str:
    if not known:
        return "late"
    return "duplicate" if known == digest else "conflict"
