"""The audit: perturbs what is scored, fits everything again, and compares bit by bit.

The data behind scored volumes are perturbed: the values of one of them are replaced, the labels of
its unit (subject, run or block) are rotated, and the brain mask of the test subject is changed; in
a second round, the values of all scored volumes become noise. Masks, voxels, alignment, scaler,
training rows, monitored rows, inputs of classical classifiers and the features of all other scored
volumes are then made again. Whatever moves must be explained by the record: some step's reads, on
which it depends, include what was perturbed.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from emojax._numerics.seen import LeakageError, Provenance, Seen

CHUNK = 64  # rows that are compared at a time
VALUES, LABELS, MASK = (
    "the values of one scored volume were replaced",
    "the labels of the scored unit were rotated",
    "the brain mask of the test subject was changed",
)
ALL_VALUES = "the values of all scored volumes were replaced"
SOME_VALUES = "the values of all volumes that are scored together were replaced"


class Audited(NamedTuple):
    """The audit of one fold."""

    fold: str
    perturbations: tuple[str, ...]
    moved: tuple[str, ...]  # steps whose fit or rows moved, as the record says that they may
    compared: int  # arrays


class Change(NamedTuple):
    """A perturbed cohort, and what of it differs."""

    cohort: Any
    row: int  # the scored volume that was drawn; -1: no values differ
    replaced: np.ndarray  # [n] rows whose values differ
    rotated: np.ndarray  # [n] rows whose labels differ
    masked: np.ndarray  # [n] rows of the subject whose mask differs


class Changes:
    """Perturbations of a cohort, one by one or several at once."""

    def __init__(self, cohort: Any, each: Mapping[str, Change], rounds: Sequence[tuple[str, ...]]):
        """Args: the cohort, its perturbations, and those that are tried together, in order."""
        self.cohort, self.each, self.rounds = cohort, each, tuple(rounds)
        self._joined = {(name,): change for name, change in each.items()}

    @property
    def all(self) -> Change:
        """The perturbations of the first round at once."""
        return self.of(self.rounds[0])

    def of(self, names: tuple[str, ...]) -> Change:
        """Returns several perturbations at once; the same object whenever it is asked."""
        if names not in self._joined:
            self._joined[names] = _join(self.cohort, [self.each[name] for name in names])
        return self._joined[names]


class Move(NamedTuple):
    """Something that differs after a perturbation."""

    step: str
    what: str
    record: Provenance  # the reads on which it depends


def audit(
    make: Callable[[Any], Any],
    before: Any,
    changes: Changes,
    *,
    stand_in: Callable[[Any], Mapping[str, Any]] | None = None,
    name: str = "",
) -> Audited:
    """Audits one fold.

    A round perturbs several things at once. Of what moves, every perturbation that its record does
    not explain is tried again without the others, so that none hides behind an explained one.

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
        done: dict[tuple[str, ...], tuple[list[Move], int]] = {}

        def moves(names: tuple[str, ...]) -> list[Move]:
            if names not in done:
                done[names] = _compare(before, make, changes.of(names), stand_in, fits)
            return done[names][0]

        for together in changes.rounds:
            if together != changes.rounds[0] and _explains(
                before.ledger.reads.steps.values(), changes.of(together)
            ):
                continue  # whatever moves is explained
            hidden = {_hidden(move.record, changes, together) for move in moves(together)}
            for names in sorted(hidden - {()}, key=len, reverse=True):
                found = [m for m in moves(names) if _hidden(m.record, changes, names) == names]
                if found:
                    said, (step, what, _) = _alone(moves, changes, names, found[0])
                    place = f"row {changes.all.row}, fold {before.fold.name}"
                    raise LeakageError(
                        f"{name or 'audit'}: step {step!r} depends on what it is scored on: {said} "
                        f"({place}), and {what} moved, which no read on the record explains"
                    )
    moved = dict.fromkeys(
        m.step for names in changes.rounds if names in done for m in done[names][0]
    )
    compared = sum(count for _, count in done.values())
    return Audited(before.fold.name, tuple(changes.each), tuple(moved), compared)


def _hidden(record: Provenance, changes: Changes, names: Sequence[str]) -> tuple[str, ...]:
    """Returns the perturbations that a record does not explain."""
    return tuple(name for name in names if not _explains(record.steps.values(), changes.each[name]))


def _alone(moves, changes: Changes, names, move: Move) -> tuple[str, Move]:
    """Returns the one perturbation that moves something without explanation, and what it moves."""
    for name in names if len(names) > 1 else ():
        for found in moves((name,)):
            if not _explains(found.record.steps.values(), changes.each[name]):
                return name, found
    return " and ".join(names), move


def perturb(
    cohort,
    before,
    *,
    seed: Any,
    masks: Mapping[str, np.ndarray] | None,
    together: Sequence[str] = (),
) -> Changes:
    """Perturbs the data behind scored volumes of a fold.

    Args:
      cohort: the cohort.
      before: the fold as made from it.
      seed: of the choice of the volume.
      masks: the test subject's mask, changed: subject -> mask; None where there is none to change.
      together: a second round, `ALL_VALUES` or `SOME_VALUES`.
    """
    fold, n, rng = before.fold, len(cohort.labels), np.random.default_rng(seed)
    row = int(rng.choice(fold.test))
    none, unit = np.zeros(n, bool), before.unit == before.unit[row]
    labels = _other_labels(cohort, unit, rng)
    here = np.arange(n) == row
    each = {
        VALUES: Change(cohort.replace_row(row, _other_values(cohort, row)), row, here, none, none),
        LABELS: Change(cohort.with_labels(labels), -1, none, labels != cohort.labels, none),
    }
    if masks:
        of = np.isin(cohort.subject, list(masks))
        each[MASK] = Change(cohort.with_masks({**cohort.masks, **masks}), -1, none, none, of)
    rounds = [tuple(each)]
    for name in together:
        scopes = (
            [fold.test] if name == ALL_VALUES else [r for r, _ in before.ledger.seen(fold.test)]
        )
        rows = next(np.asarray(scope) for scope in scopes if row in scope)
        change = Change(
            _with_noise(cohort, rows, rng), row, np.isin(np.arange(n), rows), none, none
        )
        each[name] = change
        rounds.append((name,))
    return Changes(cohort, each, rounds)


def _other_values(cohort, row: int) -> np.ndarray:
    """Returns other values of a volume: another mean, another sd, and all places exchanged."""
    run = cohort.runs[cohort.run_index[row]]
    values = run.read([cohort.frame[row]])[0]
    finite = np.isfinite(values)
    if not finite.any():
        return np.ones_like(values)
    spread = values[finite].std(dtype=np.float64) or max(abs(float(values[finite][0])), 1.0)
    return np.ascontiguousarray(np.flip(1.25 * values + spread / 2))


def _other_labels(cohort, unit: np.ndarray, rng) -> np.ndarray:
    """Returns labels [n] of which those of a unit differ.

    All classes are exchanged in turn; then half of the commonest class of each run are dealt to the
    others, so that neither the sizes of classes nor who shares a label stay the same.
    """
    count = len(cohort.classes)
    labels = np.where(unit, (cohort.labels + 1) % count, cohort.labels)
    for run in np.unique(cohort.run_index[unit]):
        here = np.flatnonzero(unit & (cohort.run_index == run))
        common = np.bincount(labels[here]).argmax()
        same = here[labels[here] == common]
        dealt = rng.permutation(same)[: len(same) // 2]
        labels[dealt] = (common + 1 + np.arange(len(dealt)) % (count - 1)) % count
    return labels


def _with_noise(cohort, rows: np.ndarray, rng):
    """Returns the cohort with rows that are drowned in noise, voxel by voxel, run by run."""
    runs = list(cohort.runs)
    for index in np.unique(cohort.run_index[rows]).tolist():
        frames = cohort.frame[rows[cohort.run_index[rows] == index]]
        values = np.array(runs[index].read(slice(None)), order="K")
        sd = values[frames].std(0)  # 0 outside of the head: masks stay possible
        sd = sd if np.nan_to_num(sd).any() else np.ones_like(sd)
        noise = rng.standard_normal((1 + len(frames), *sd.shape), np.float32)
        values[frames] += 3 * sd * (noise[1:] + noise[0])  # another mean, too
        runs[index] = runs[index].with_values(values, f"noise in volumes {frames.tolist()}")
    return dataclasses.replace(cohort, runs=tuple(runs))


def _join(cohort, several: Sequence[Change]) -> Change:
    """Returns perturbations at once: whatever may move by none of them must not move."""
    masks = cohort.masks
    joined, row = cohort, -1
    replaced, rotated, masked = (np.any([c[i] for c in several], axis=0) for i in (2, 3, 4))
    for change in several:
        if change.row >= 0:
            joined, row = change.cohort, change.row
        if change.masked.any():
            masks = change.cohort.masks
    for change in several:
        if change.rotated.any():
            joined = joined.with_labels(change.cohort.labels)
    return Change(joined.with_masks(masks), row, replaced, rotated, masked)


def _explains(steps: Iterable[Seen], change: Change) -> bool:
    """Returns whether a step read what was perturbed."""
    for seen in steps:
        if (seen.values & change.replaced).any() or (seen.labels & change.rotated).any():
            return True
        if change.masked.any() and seen.values[change.masked].all():
            return True  # a mask is made from all values of its unit
    return False


def read_by(record: Provenance, step: str, change: Change) -> bool:
    """Returns whether a step of a record read what was perturbed."""
    own = {name: seen for name, seen in record.steps.items() if name == step}
    return _explains(own.values(), change)


def _compare(before, make, change: Change, stand_in, fits) -> tuple[list[Move], int]:
    """Returns what differs after a perturbation, and the number of comparisons."""
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
    for step, what, same in _rows_of(before, after):
        compare(step, what, same)
    for some in _chunks(before.fold.test):
        pairs = zip(before.read_test(some), after.read_test(some), strict=True)
        compare_rows("the features of another scored volume", some, pairs)
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
    """Yields (step, our record) where a step has not read the same for the same scored rows."""
    new = {rows.tobytes(): record.steps for rows, record in theirs}
    for rows, record in ours:
        steps = new.get(rows.tobytes(), {})
        for step, seen in record.steps.items():
            if step not in steps or not _equal(tuple(seen), tuple(steps[step])):
                yield step, record


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
