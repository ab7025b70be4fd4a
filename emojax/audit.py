"""The audit: perturbs what is scored, fits everything again, and compares bit by bit.

Three perturbations of the data behind one scored volume: its values are replaced, the labels of its
unit (subject, run or block) are rotated, and the brain mask of the test subject is changed. Masks,
voxels, alignment, scaler, training rows, monitored rows, inputs of classical classifiers and the
features of all other scored volumes are then made again. Whatever moves must be explained by the
record: some step's reads, on which it depends, include what was perturbed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from emojax._numerics.seen import LeakageError, Provenance

CHUNK = 64  # rows that are compared at a time
VALUES, LABELS, MASK = (
    "the values of one scored volume were replaced",
    "the labels of the scored unit were rotated",
    "the brain mask of the test subject was changed",
)


class Audited(NamedTuple):
    """The audit of one fold."""

    fold: str
    perturbations: tuple[str, ...]
    moved: tuple[str, ...]  # steps whose fit or rows moved, as the record says that they may
    compared: int  # arrays


class Change(NamedTuple):
    """A perturbed cohort, and what of it differs."""

    cohort: Any
    row: int  # -1: no values
    rotated: np.ndarray  # [n] rows whose labels differ
    masked: np.ndarray  # [n] rows of the subject whose mask differs


class Changes(NamedTuple):
    """Perturbations of a cohort, one by one, and all at once."""

    cohort: Any  # not perturbed
    each: Mapping[str, Change]
    all: Change


def audit(
    make: Callable[[Any], Any],
    before: Any,
    changes: Changes,
    *,
    stand_in: Callable[[Any], Mapping[str, Any]] | None = None,
    name: str = "",
) -> Audited:
    """Audits one fold.

    Args:
      make: cohort -> `records.FoldData`: reads, masks and fits again.
      before: the fold as made from the cohort that was not perturbed.
      changes: as from `perturb`.
      stand_in: FoldData -> step -> arrays: small stand-ins for networks and classifiers, fitted by
        the very functions that fit the real ones. Under "scored" it holds arrays [t, ...].
      name: of the arm, for messages.

    Returns:
      The steps that moved, all of them explained by the record.

    Raises:
      LeakageError: something moved that the record does not explain; the line names the step.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # bit-identical there
        if jax.default_backend() != "cpu":
            before = make(changes.cohort)
        fits = stand_in(before) if stand_in else {}
        moved, unexplained, compared = _compare(before, make, changes.all, stand_in, fits)
        if unexplained:
            said = "what is scored was changed"
            for text, change in changes.each.items():
                _, alone, _ = _compare(before, make, change, stand_in, fits)
                if alone:
                    said, unexplained = text, alone
                    break
            step, what = unexplained[0]
            place = f"row {changes.all.row}, fold {before.fold.name}"
            raise LeakageError(
                f"{name or 'audit'}: step {step!r} depends on what it is scored on: {said} "
                f"({place}), and {what} moved, which no read on the record explains"
            )
    return Audited(before.fold.name, tuple(changes.each), tuple(moved), compared)


def perturb(cohort, before, *, seed: Any, masks: Mapping[str, np.ndarray] | None) -> Changes:
    """Perturbs the data behind one scored volume of a fold.

    Args:
      cohort: the cohort.
      before: the fold as made from it.
      seed: of the choice of the volume.
      masks: the test subject's mask, changed: subject -> mask; None where there is none to change.
    """
    each = _each(cohort, before, seed, masks)
    return Changes(cohort, each, _join(cohort, each))


def _each(cohort, before, seed, masks) -> dict[str, Change]:
    fold, n = before.fold, len(cohort.labels)
    row = int(np.random.default_rng(seed).choice(fold.test))
    none = np.zeros(n, bool)
    values = cohort.volumes[[row]][0]
    other = np.ascontiguousarray(np.flip(values))
    if np.array_equal(other, values, equal_nan=True):
        other = values + 1
    unit = before.unit == before.unit[row]
    labels = np.where(unit, (cohort.labels + 1) % len(cohort.classes), cohort.labels)
    out = {
        VALUES: Change(cohort.replace_row(row, other), row, none, none),
        LABELS: Change(cohort.with_labels(labels), -1, unit, none),
    }
    if masks:
        of = np.isin(cohort.subject, list(masks))
        out[MASK] = Change(cohort.with_masks({**cohort.masks, **masks}), -1, none, of)
    return out


def _join(cohort, changes: Mapping[str, Change]) -> Change:
    """Returns all perturbations at once: whatever may move by none of them must not move."""
    values, labels = changes[VALUES], changes[LABELS]
    joined = values.cohort.with_labels(labels.cohort.labels)
    masked = np.zeros(len(cohort.labels), bool)
    if MASK in changes:
        joined, masked = joined.with_masks(changes[MASK].cohort.masks), changes[MASK].masked
    return Change(joined, values.row, labels.rotated, masked)


def _explains(record: Provenance, change: Change) -> bool:
    """Returns whether a step of the record read what was perturbed."""
    for step, seen in record.steps.items():
        if change.row >= 0 and seen.values[change.row]:
            return True
        if (seen.labels & change.rotated).any():
            return True
        if step == "mask" and (seen.values & change.masked).any():
            return True
    return False


def _compare(before, make, change: Change, stand_in, fits):
    """Returns (steps that moved, [(step, what)] without explanation, number of comparisons)."""
    after = make(change.cohort)
    moved: dict[str, None] = {}
    unexplained: list[tuple[str, str]] = []
    compared = 0

    def note(step, what, record):
        moved[step] = None
        if not _explains(record, change):
            unexplained.append((step, what))

    shared = before.ledger.shared
    by_row = {int(r): record for rows, record in before.ledger.seen(before.fold.test) for r in rows}
    ours, theirs = before.ledger.kept, after.ledger.kept
    for mine, new in zip(ours, theirs, strict=False):
        compared += 1
        (step, scope, fitted), (_, _, again) = mine, new
        if mine[:2] != new[:2] or not _equal(fitted, again):
            note(step, "its fit", shared if scope is None else by_row[scope[0]])
    if len(ours) != len(theirs):
        unexplained.append(("features", "the number of fits"))
    for step, what, same in _rows_of(before, after):
        compared += 1
        if not same:
            note(step, what, shared)
    rows = np.setdiff1d(before.fold.test, [change.row])
    for some in _chunks(rows):
        compared += 1
        pairs = zip(before.read_test(some), after.read_test(some), strict=True)
        for row, (a, b) in zip(some, pairs, strict=True):
            if not _equal(a, b):
                note("scoring", "the features of another scored volume", by_row[int(row)])
    if stand_in:
        again = stand_in(after)
        for step, fitted in fits.items():
            compared += 1
            if step != "scored":
                if not _equal(fitted, again[step]):
                    note(step, "what it learns", shared)
                continue
            for i, row in enumerate(before.fold.test):
                if row != change.row and not _equal(_line(fitted, i), _line(again[step], i)):
                    note("scoring", "the prediction of another scored volume", by_row[int(row)])
    return list(moved), unexplained, compared


def _rows_of(before, after) -> Iterator[tuple[str, str, bool]]:
    """Yields (step, what, equal) of training and monitored rows: numbers, labels, features."""
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
