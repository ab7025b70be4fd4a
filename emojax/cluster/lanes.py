"""Lanes, which are threads that each do pieces of a process's work on one of its devices."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from emojax.cluster.pieces import Store


def run(
    work: Callable[..., None], lanes: Sequence[Any], store: Store, **calls: Callable[..., Any]
) -> None:
    """Calls work(lane, store=, is_ended=, **calls) for every lane.

    Several lanes run in threads: only one at a time uses the store or another call, and a piece
    that one has claimed is not given to the others. After an error in one lane, the others end when
    they have finished their current piece.

    Args:
      work: function that claims and does pieces, and returns once `is_ended()`.
      lanes: first argument of `work`, for each lane.
      store: keeper of claims and results.
      calls: other functions that `work` calls.
    """
    if len(lanes) == 1:
        work(lanes[0], store=store, is_ended=lambda: False, **calls)
        return
    turn, ended = threading.RLock(), threading.Event()
    safe = {name: _in_turn(call, turn) for name, call in calls.items()}
    shared = _Shared(store, turn)
    with ThreadPoolExecutor(len(lanes)) as pool:
        jobs = [
            pool.submit(work, lane, store=shared, is_ended=ended.is_set, **safe) for lane in lanes
        ]
        try:
            for job in as_completed(jobs):
                job.result()
        finally:
            ended.set()


def _in_turn(call: Callable[..., Any], turn: threading.RLock) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapped(*args, **options):
        with turn:
            return call(*args, **options)

    return wrapped


class _Shared:
    """A store that one thread at a time may use, with claims that hold between threads."""

    def __init__(self, store: Store, turn: threading.RLock):
        self._store, self._turn = store, turn
        self._held: set[str] = set()

    def __getattr__(self, name: str):
        found = getattr(self._store, name)
        return _in_turn(found, self._turn) if callable(found) else found

    def claim(self, name: str) -> contextlib.AbstractContextManager | None:
        with self._turn:
            if name in self._held or (claim := self._store.claim(name)) is None:
                return None
            self._held.add(name)
        return self._holding(name, claim)

    @contextlib.contextmanager
    def _holding(self, name: str, claim) -> Iterator[None]:
        try:
            with claim:
                yield
        finally:
            self._held.discard(name)
