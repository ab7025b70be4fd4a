"""The latest records in memory, and the position of each client in them.

Everything runs in one thread, that of the servers' event loop. Clients have no queues: each has a
position in the sequence, and takes the records after it when its connection has room. Records that
are no longer in memory are read from the journal (`replay`), or dropped and counted.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

RECENT = 512  # records in memory
BATCH = 64  # largest number of records that a client takes at once

History = Callable[[int], Iterator[bytes]]


@dataclasses.dataclass(eq=False)
class Client:
    """A connection that reads records."""

    kind: str  # "tcp" or "http"
    after: int  # seq of the last record that it has taken
    replay: bool  # whether records that it missed are read from the journal, or dropped
    stored: Iterator[bytes] | None = None  # the journal, from the record after `after`


class Hub:
    """The records of a session, for any number of clients."""

    def __init__(self, history: History):
        """Args: function that yields the lines of the journal's records from a seq on."""
        self.recent: dict[int, bytes] = {}  # by seq, ascending
        self.newest = -1
        self.state: dict[str, Any] = {}
        self.closed = False
        self.dropped: Counter[str] = Counter()
        self.clients: set[Client] = set()
        self._history = history
        self._fresh = asyncio.Event()
        for line in history(0):
            self._add(_seq(line), line)

    @property
    def oldest(self) -> int:
        """The first seq in memory."""
        return next(iter(self.recent), self.newest + 1)

    @property
    def latest(self) -> bytes:
        """The last record; empty before the first."""
        return self.recent.get(self.newest, b"")

    def publish(self, seq: int, line: bytes) -> None:
        """Adds a record (after a restart, perhaps for the second time) and wakes the clients."""
        self._add(seq, line)
        self._wake()

    def update(self, values: dict[str, Any]) -> None:
        """Updates facts of the session, such as its classes."""
        self.state = self.state | values
        self._wake()

    def close(self) -> None:
        """Lets the clients take the remaining records and accepts no more."""
        self.closed = True
        self._wake()

    @contextlib.contextmanager
    def client(self, kind: str, first: int) -> Iterator[Client]:
        """Registers a new client while the context lasts; see `rewind`."""
        client = Client(kind, self.newest, replay=True)
        self.rewind(client, first)
        self.clients.add(client)
        try:
            yield client
        finally:
            self.clients.remove(client)

    def rewind(self, client: Client, first: int) -> None:
        """Moves a client to a record, from which on it misses none.

        Args:
          client: the client.
          first: seq of the next record that it takes; -300 for the first of the last 300.
        """
        start = first if first >= 0 else max(0, self.newest + 1 + first)
        client.after, client.replay, client.stored = start - 1, True, None
        self._wake()

    async def take(self, client: Client, patience: float) -> list[tuple[int, bytes]]:
        """Returns the next records of a client, waiting up to `patience` seconds for one."""
        fresh = self._fresh
        if client.after >= self.newest and patience and not self.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):  # wait_for may swallow a cancellation
                    await fresh.wait()
        while client.replay and client.after + 1 < self.oldest:
            after, stored = client.after, client.stored or self._history(client.after + 1)
            batch = await asyncio.to_thread(_next_of, stored)
            if client.after != after:  # the client has moved meanwhile
                continue
            if batch:
                client.after, client.stored = batch[-1][0], stored
                return batch
            if not client.stored:  # the journal lacks them
                break
            client.stored = None  # the journal has grown since it was opened
        client.after, client.stored = max(client.after, self.oldest - 1), None
        numbers = range(client.after + 1, min(self.newest, client.after + BATCH) + 1)
        client.after += len(numbers)
        return [(seq, self.recent[seq]) for seq in numbers if seq in self.recent]

    def _add(self, seq: int, line: bytes) -> None:
        self.recent[seq] = line
        self.newest = max(self.newest, seq)
        if len(self.recent) > RECENT:
            lost = self.oldest
            del self.recent[lost]
            slow = (c.kind for c in self.clients if c.after < lost and not c.replay)
            self.dropped.update(slow)

    def _wake(self) -> None:
        self._fresh.set()
        self._fresh = asyncio.Event()


def _next_of(lines: Iterator[bytes]) -> list[tuple[int, bytes]]:
    return [(_seq(line), line) for line in itertools.islice(lines, BATCH)]


def _seq(line: bytes) -> int:
    return json.loads(line)["seq"]
