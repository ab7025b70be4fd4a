"""Perturbations of the scored data: other values, labels and masks, one by one or together."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from emojax._numerics.seen import Provenance, Seen

SOME = 64  # number of rows to average
VALUES, LABELS, MASK = (
    "the values of one scored volume were replaced",
    "the labels of the scored unit were rotated",
    "the brain mask of the test subject was changed",
)
ALL_VALUES = "the values of all scored volumes were replaced"
SOME_VALUES = "the values of all volumes that are scored together were replaced"
ALL_LABELS = "the labels of all units that are scored together were rotated"


class Change(NamedTuple):
    """A perturbed cohort, and where it differs."""

    cohort: Any
    row: int  # the scored volume that was drawn; -1: no values differ
    replaced: np.ndarray  # [n] bool, rows whose values differ
    rotated: np.ndarray  # [n] bool, rows whose labels differ
    masked: np.ndarray  # [n] bool, rows of the subject whose mask differs


class Changes:
    """Perturbations of a cohort, one by one or several together."""

    def __init__(self, cohort: Any, each: Mapping[str, Change], rounds: Sequence[tuple[str, ...]]):
        """Args: the cohort, its perturbations, and rounds of those to try together."""
        self.cohort, self.each, self.rounds = cohort, each, tuple(rounds)
        self._joined: dict[tuple[str, ...], Change] = {(name,): own for name, own in each.items()}

    @property
    def all(self) -> Change:
        """The perturbations of the first round together."""
        return self.of(self.rounds[0])

    def of(self, names: tuple[str, ...]) -> Change:
        """Returns several perturbations together, or none; the result is cached."""
        if names not in self._joined:
            several = [self.each[name] for name in names]
            self._joined[names] = _join(self.cohort, several)
        return self._joined[names]


def perturb(
    cohort: Any,
    before: Any,
    *,
    seed: Any,
    masks: Mapping[str, np.ndarray] | None,
    together: Sequence[str] = (),
) -> Changes:
    """Perturbs the data behind scored volumes of a fold.

    Args:
      cohort: a `data.cohort.Cohort`.
      before: the fold made from it, a `records.FoldData`.
      seed: seed for choosing the volume.
      masks: the test subject's changed mask: subject -> mask; None if there is none to change.
      together: second rounds, `ALL_VALUES` or `SOME_VALUES`; if several units are scored together,
        their labels are rotated as well.
    """
    fold, n, rng = before.fold, len(cohort.labels), np.random.default_rng(seed)
    row = int(rng.choice(fold.test))
    none, unit = np.zeros(n, bool), before.unit == before.unit[row]
    labels = _other_labels(cohort, unit, rng)
    here = np.arange(n) == row
    replaced = _with_motion(cohort.replace_row(row, _other_values(cohort, row)), np.array([row]))
    each = {
        VALUES: Change(replaced, row, here, none, none),
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
        here, units = np.isin(np.arange(n), rows), np.isin(before.unit, before.unit[rows])
        each[name] = Change(_turned_over(cohort, rows, rng), row, here, none, none)
        rounds.append((name,))
        if units.sum() > unit.sum():
            labels = _other_labels(cohort, units, rng)
            changed = labels != cohort.labels
            each[ALL_LABELS] = Change(cohort.with_labels(labels), -1, none, changed, none)
            rounds[-1] = name, ALL_LABELS
    return Changes(cohort, each, rounds)


def _other_values(cohort, row: int) -> np.ndarray:
    """Returns other values of a volume: another mean and sd, and reversed positions."""
    run = cohort.runs[cohort.run_index[row]]
    values = run.read([cohort.frame[row]])[0]
    finite = np.isfinite(values)
    if not finite.any():
        return np.ones_like(values)
    spread = values[finite].std(dtype=np.float64) or max(abs(float(values[finite][0])), 1.0)
    return np.ascontiguousarray(np.flip(1.25 * values + spread / 2))


def _other_labels(cohort, unit: np.ndarray, rng) -> np.ndarray:
    """Returns labels [n] that differ in the rows of a unit.

    All classes are rotated; then half of the most frequent class of each run are distributed over
    the others, so that both the class sizes and the sets of rows that share a label change.
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


def _turned_over(cohort, rows: np.ndarray, rng):
    """Returns the cohort with rows reflected about the mean of others, plus noise.

    The nearest neighbour of a scored row is then the farthest from it: a choice made among a few
    candidates by scored values alone changes. The noise hides any remaining signal.
    """
    runs, centres = list(cohort.runs), {}
    others = rng.permutation(np.setdiff1d(np.arange(len(cohort.labels)), rows))
    for index in np.unique(cohort.run_index[rows]).tolist():
        frames = cohort.frame[rows[cohort.run_index[rows] == index]]
        values = np.array(runs[index].read(slice(None)), order="K")
        shape = values.shape[1:]
        if shape not in centres:
            centres[shape] = _mean_of(cohort, others, shape)
        turned = 2 * centres[shape] - values[frames]
        values[frames] = np.where(np.isfinite(turned), turned, values[frames])
        sd = values[frames].std(0)  # 0 outside the head, so that masks can still be made
        sd = sd if np.nan_to_num(sd).any() else np.ones_like(sd)
        noise = rng.standard_normal((1 + len(frames), *shape), np.float32)
        values[frames] += 3 * sd * (noise[1:] + noise[0])  # noise[0] also changes the mean
        runs[index] = runs[index].with_values(values, f"volumes {frames.tolist()} turned over")
    return _with_motion(dataclasses.replace(cohort, runs=tuple(runs)), rows)


def _with_motion(cohort, rows: np.ndarray):
    """Returns the cohort with other motion parameters, as these derive from the values."""
    runs = list(cohort.runs)
    for index in np.unique(cohort.run_index[rows]).tolist():
        if runs[index].motion is not None:
            motion = np.array(runs[index].motion)
            motion[cohort.frame[rows[cohort.run_index[rows] == index]]] += 1 + motion.std(0)
            runs[index] = dataclasses.replace(runs[index], motion=motion)
    return dataclasses.replace(cohort, runs=tuple(runs))


def _mean_of(cohort, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the mean of some rows of a shape; NaN if there are none."""
    found = (cohort.runs[cohort.run_index[row]] for row in rows)
    pairs = ((run, cohort.frame[row]) for run, row in zip(found, rows, strict=True))
    fitting = (run.read([frame])[0] for run, frame in pairs if run.frames.shape[1:] == shape)
    volumes = list(itertools.islice(fitting, SOME))
    return np.mean(volumes, axis=0) if volumes else np.full(shape, np.nan, np.float32)


def _join(cohort, several: Sequence[Change]) -> Change:
    """Returns several perturbations together, as a single change."""
    masks, joined, row = cohort.masks, cohort, -1
    none = np.zeros(len(cohort.labels), bool)
    replaced = np.any([none, *(c.replaced for c in several)], axis=0)
    rotated = np.any([none, *(c.rotated for c in several)], axis=0)
    masked = np.any([none, *(c.masked for c in several)], axis=0)
    for change in several:
        if change.row >= 0:
            joined, row = change.cohort, change.row
        if change.masked.any():
            masks = change.cohort.masks
    for change in several:
        if change.rotated.any():
            joined = joined.with_labels(change.cohort.labels)
    joined = joined.with_masks(masks) if masked.any() else joined
    return Change(joined, row, replaced, rotated, masked)


def explains(steps: Iterable[Seen], change: Change) -> bool:
    """Returns whether any step read what was perturbed."""
    for seen in steps:
        if (seen.values & change.replaced).any() or (seen.labels & change.rotated).any():
            return True
        if change.masked.any() and seen.values[change.masked].all():
            return True  # a mask is made from all values of its unit
    return False


def read_by(record: Provenance, step: str, change: Change) -> bool:
    """Returns whether a step of a record read what was perturbed."""
    own = {name: seen for name, seen in record.steps.items() if name == step}
    return explains(own.values(), change)
