"""The audit: it perturbs the scored data, refits everything, and compares bit by bit.

The data behind scored volumes are perturbed: the values of one volume are replaced, the labels of
its unit (subject, run or block) are rotated, and the brain mask of the test subject is changed. In
a second round, the values of all scored volumes are replaced. Masks, voxels, alignment, scaler,
training rows, monitored rows, inputs of classical classifiers and the features of all other scored
volumes are then computed again. The record must explain every change: the reads of some step that
the changed result depends on must include the perturbed data.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from emojax._numerics.perturbed import (
    ALL_LABELS,
    ALL_VALUES,
    LABELS,
    MASK,
    SOME_VALUES,
    VALUES,
    Change,
    Changes,
    explains,
    perturb,
    read_by,
)
from emojax._numerics.seen import LeakageError, Provenance

__all__ = [
    "ALL_LABELS",
    "ALL_VALUES",
    "LABELS",
    "MASK",
    "SOME_VALUES",
    "VALUES",
    "Audited",
    "Changes",
    "audit",
    "perturb",
    "read_by",
]

CHUNK = 64  # rows compared at a time


class Audited(NamedTuple):
    """The audit of one fold."""

    fold: str
    perturbations: tuple[str, ...]
    moved: tuple[str, ...]  # steps whose fit or rows changed, as the record allows
    compared: int  # number of comparisons


class Move(NamedTuple):
    """A result that differs after a perturbation."""

    step: str
    what: str
    record: Provenance  # the reads that it depends on


def audit(
    make: Callable[[Any], Any],
    before: Any,
    changes: Changes,
    *,
    stand_in: Callable[[Any], Mapping[str, Any]] | None = None,
    name: str = "",
) -> Audited:
    """Audits one fold.

    A round applies several perturbations at once. If a result changes, the perturbations that its
    record does not explain are tried again without the others, so that an explained one cannot
    hide them.

    Args:
      make: function of a cohort that reads, masks and fits again, and returns `records.FoldData`.
      before: the fold as made from the unperturbed cohort.
      changes: perturbations, as from `perturb`.
      stand_in: function of FoldData that returns step -> arrays: small stand-ins for networks and
        classifiers, fitted by the same functions as the real ones. "scored" holds arrays [t, ...].
      name: name of the arm, for messages.

    Returns:
      The steps that changed, all of them explained by the record.

    Raises:
      LeakageError: something changed that the record does not explain; the message names the step.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # bit-identical there
        if jax.default_backend() != "cpu":
            before = make(changes.cohort)
        fits = stand_in(before) if stand_in else {}
        done: dict[tuple[str, ...], tuple[list[Move], int]] = {}

        def moves(names: tuple[str, ...]) -> list[Move]:
            if names not in done:
                done[names] = _compare(before, make, changes.of(names), stand_in, fits)
            return done[names][0]

        for together in changes.rounds:
            first = together == changes.rounds[0]
            if not first and not _hidden(before.ledger.reads, changes, together):
                continue  # any change is explained
            hidden = {_hidden(move.record, changes, together) for move in moves(together)}
            for names in sorted(hidden - {()}, key=len, reverse=True):
                found = [m for m in moves(names) if _hidden(m.record, changes, names) == names]
                if found:
                    raise LeakageError(_said(name or "audit", before, moves, changes, names, found))
    moved = dict.fromkeys(
        m.step for names in changes.rounds if names in done for m in done[names][0]
    )
    compared = sum(count for _, count in done.values())
    return Audited(before.fold.name, tuple(changes.each), tuple(moved), compared)


def _hidden(record: Provenance, changes: Changes, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the perturbations that a record does not explain."""
    return tuple(name for name in names if not explains(record.steps.values(), changes.each[name]))


def _said(name: str, before, moves, changes: Changes, names, found: Sequence[Move]) -> str:
    """Returns the message about a change without explanation."""
    if idle := moves(()):
        step, what, _ = idle[0]
        return (
            f"{name}: step {step!r} depends on something beside its data: made again from the same "
            f"data (fold {before.fold.name}), {what} moved"
        )
    said, (step, what, _) = _alone(moves, changes, names, found[0])
    return (
        f"{name}: step {step!r} depends on what it is scored on: {said} (row {changes.all.row}, "
        f"fold {before.fold.name}), and {what} moved, which no read on the record explains"
    )


def _alone(moves, changes: Changes, names, move: Move) -> tuple[str, Move]:
    """Returns the single perturbation that causes an unexplained change, and that change."""
    for name in names if len(names) > 1 else ():
        for found in moves((name,)):
            if not explains(found.record.steps.values(), changes.each[name]):
                return name, found
    return " and ".join(names), move


def _compare(before, make, change: Change, stand_in, fits) -> tuple[list[Move], int]:
    """Returns the results that differ after a perturbation, and the number of comparisons."""
    after = make(change.cohort)
    found: list[Move] = []
    compared = 0
    shared = before.ledger.reads
    seen = before.ledger.seen(before.fold.test, prior=False)
    by_row = {int(row): record for rows, record in seen for row in rows}

    def compare(step: str, what: str, same: bool, record: Provenance = shared):
        nonlocal compared
        compared += 1
        if not same:
            found.append(Move(step, what, record))

    def compare_rows(what: str, rows, pairs):
        nonlocal compared
        compared += 1
        for row, (a, b) in zip(rows, pairs, strict=True):
            if not change.replaced[row] and not _equal(a, b):
                found.append(Move("scoring", what, by_row[int(row)]))

    ours, theirs = before.ledger.kept, after.ledger.kept
    for (step, scope, fitted), (other, again_scope, again) in zip(ours, theirs, strict=False):
        same = (step, scope) == (other, again_scope) and _equal(fitted, again)
        compare(step, "its fit", same, shared if scope is None else by_row[scope[0]])
    if len(ours) != len(theirs):
        compare("features", "the number of fits", False)
    for step, record in _other_reads(seen, after.ledger.seen(after.fold.test, prior=False)):
        compare(step, "what it reads", False, record)
    pairs = zip((before, *before.members), (after, *after.members), strict=True)
    for step, what, same in itertools.chain.from_iterable(_rows_of(*pair) for pair in pairs):
        compare(step, what, same)
    blind = change.replaced[before.fold.test].any()
    for some in _chunks(before.fold.test):
        pairs = list(zip(before.read_test(some), after.read_test(some), strict=True))
        compare_rows("the features of another scored volume", some, pairs)
        blind = blind and all(
            _equal(a, b) for row, (a, b) in zip(some, pairs, strict=True) if change.replaced[row]
        )
    if blind:
        raise LeakageError(
            "step 'scoring' depends on something beside its data: scored volumes were replaced "
            f"(fold {before.fold.name}), and none of their own features moved"
        )
    again = stand_in(after) if stand_in else {}
    for step, fitted in fits.items():
        if step != "scored":
            compare(step, "what it learns", _equal(fitted, again[step]))
    if "scored" in fits:
        rows, ours, theirs = before.fold.test, fits["scored"], again["scored"]
        pairs = ((_line(ours, i), _line(theirs, i)) for i in range(len(rows)))
        compare_rows("the prediction of another scored volume", rows, pairs)
    return found, compared


def _other_reads(ours, theirs) -> Iterator[tuple[str, Provenance]]:
    """Yields (step, our record) where a step's reads differ for the same scored rows."""
    new = {rows.tobytes(): record.steps for rows, record in theirs}
    for rows, record in ours:
        steps = new.get(rows.tobytes(), {})
        for step, seen in record.steps.items():
            if step not in steps or not _equal(tuple(seen), tuple(steps[step])):
                yield step, record


def _rows_of(before, after) -> Iterator[tuple[str, str, bool]]:
    """Yields (step, what, equal) of training and monitored rows: indices, labels, features."""
    groups = {"network": np.concatenate(before.train), "epoch choice": before.monitor}
    new = {"network": np.concatenate(after.train), "epoch choice": after.monitor}
    for step, rows in groups.items():
        same = np.array_equal(rows, new[step])
        yield step, "its rows", same
        if not same:
            continue
        rows = np.unique(rows)
        yield (
            step,
            "the labels of its rows",
            np.array_equal(before.labels[rows], after.labels[rows]),
        )
        for some in _chunks(rows):
            yield step, "the features of its rows", _equal(before.read(some), after.read(some))


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]


def _line(tree, i: int):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[i], tree)


def _equal(a: Any, b: Any) -> bool:
    """Returns whether two pytrees have the same arrays, bit by bit."""
    mine, theirs = jax.tree.leaves(a), jax.tree.leaves(b)
    if len(mine) != len(theirs):
        return False
    for x, y in zip(mine, theirs, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if x.dtype != y.dtype or x.shape != y.shape or x.tobytes() != y.tobytes():
            return False
    return True
