"""Sharing of a run among processes: every piece of work is claimed, computed and stored once.

A piece is a named unit of work: a training run, a fold's classical classifiers, a permutation, an
analysis. The process that claims a piece computes it and stores the result; it is never computed
again. If a process dies, its claim passes to the next process that asks; see `emojax.locks`.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from emojax import stops

POLL = 0.5  # seconds between checks of pieces that others are computing
Arrays = Mapping[str, np.ndarray]


class Store(Protocol):
    """The keeper of claims and results, such as `checkpoint.Workdir`."""

    members: int  # number of processes that share the work
    serves: bool  # whether another process waits for the results and writes the report

    @property
    def is_over(self) -> bool:
        """True if the run has ended."""
        ...

    def claim(self, name: str) -> contextlib.AbstractContextManager | None:
        """Returns a context that holds a piece, or None if another process holds it."""

    def load_part(self, name: str) -> dict[str, np.ndarray] | None:
        """Returns the stored result of a piece, or None."""

    def save_part(self, name: str, arrays: Arrays) -> None:
        """Stores the result of a piece."""


class Alone:
    """The store of a process that shares nothing."""

    members, serves, is_over = 1, False, False

    def claim(self, name: str) -> contextlib.AbstractContextManager:
        """Returns an empty context, as there are no other processes."""
        return contextlib.nullcontext()

    def load_part(self, name: str) -> None:
        """Returns None: nothing was kept."""

    def save_part(self, name: str, arrays: Arrays) -> None:
        """Keeps nothing."""


def claimed(
    store: Store,
    names: Iterable[str],
    is_done: Callable[[str], bool],
    *,
    most: int = 1,
    wait: bool = True,
) -> Generator[list[str], None, None]:
    """Yields pieces to compute; each claim lasts until the next pieces are requested.

    Args:
      store: keeper of the claims.
      names: names of all pieces, in the order in which they are taken.
      is_done: name -> whether its result exists.
      most: maximum number of pieces yielded at a time.
      wait: whether to return only when all pieces are done, taking over those of a process that
        has died.

    Raises:
      stops.Stopped: a signal asked this process to end.
    """
    left = list(names)
    while left := [name for name in left if not is_done(name)]:
        ahead, took = iter(left), False
        while True:
            with contextlib.ExitStack() as held:
                mine = list(itertools.islice(_take(store, ahead, is_done, held), most))
                if not mine:
                    break
                took = True
                yield mine
        if took:
            continue  # other processes may have dropped pieces that were skipped here
        if not wait or store.is_over:
            return
        stops.check()
        time.sleep(POLL)


def _take(
    store: Store, names: Iterator[str], is_done: Callable[[str], bool], held: contextlib.ExitStack
) -> Iterator[str]:
    """Yields pieces that are not done, each claimed until `held` is closed."""
    for name in names:
        if is_done(name) or (claim := store.claim(name)) is None:
            continue
        held.enter_context(claim)
        if not is_done(name):  # it may have been done before the claim
            yield name


def each(
    store: Store,
    names: Sequence[str],
    compute: Callable[[list[str]], Iterable[tuple[str, Arrays]]],
    *,
    most: int = 1,
    wait: bool = True,
) -> dict[str, Arrays]:
    """Returns the result of every piece, computed here, by another process, or before.

    Args:
      store: keeper of claims and results.
      names: names of the pieces, unique in the run.
      compute: names -> (name, result) of each.
      most: maximum number of pieces given to `compute` at a time; a process without others gives
        all at once.
      wait: see `claimed`; if False, results that other processes are computing are missing.
    """
    found: dict[str, Arrays] = {}

    def is_done(name):
        if name not in found and (part := store.load_part(name)) is not None:
            found[name] = part
        return name in found

    if store.members == 1:
        if left := [name for name in names if not is_done(name)]:
            found.update(compute(left))
        return found
    with contextlib.closing(claimed(store, names, is_done, most=most, wait=wait)) as pieces:
        for mine in pieces:
            for name, result in compute(mine):
                store.save_part(name, result)
                found[name] = result
    return found


def each_value(
    store: Store,
    kind: str,
    count: int,
    compute: Callable[[list[int]], Iterable[Any]],
    *,
    most: int = 1,
) -> np.ndarray:
    """Returns the values [count] of the pieces "<kind> 0", "<kind> 1", and so on.

    Args:
      store: keeper of claims and results. A helper process does not wait: values that another
        process is computing are NaN.
      kind: first part of the pieces' names.
      count: number of pieces.
      compute: numbers of pieces -> a value for each.
      most: see `each`.
    """
    numbers = {f"{kind} {i}": i for i in range(count)}

    def some(names: list[str]) -> Iterator[tuple[str, Arrays]]:
        values = compute([numbers[name] for name in names])
        return (
            (name, {"value": np.asarray(v, float)}) for name, v in zip(names, values, strict=True)
        )

    found = each(store, list(numbers), some, most=most, wait=not store.serves)
    return np.array([found[name]["value"] if name in found else np.nan for name in numbers])
