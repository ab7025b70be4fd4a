"""Folds: the rows of a cohort that train, are monitored and are tested."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int, Shaped

from emojax import resampling
from emojax._numerics.checks import as_labels
from emojax.errors import InputError
from emojax.registry import Registry

Rows = Int[np.ndarray, " _"]


class Fold(NamedTuple):
    """The rows of one fold; the monitored ones choose the epoch and the learning rate."""

    name: str  # the tested unit, e.g. a subject, or the number of the fold, from 1
    train: Rows
    monitor: Rows
    test: Rows


class Kind(NamedTuple):
    """A kind of split. Groups stay whole, unless the split is declared leaky."""

    groups: Callable[[Any], Shaped[np.ndarray, " n"]]  # cohort -> group of each row
    unit: str  # noun for one group
    protocol: str  # class of protocol, one of `provenance.PROTOCOLS`
    text: str  # for the report
    leaks: tuple[str, ...] = ()  # steps at which the audit must catch a leaky split


def blocks(cohort: Any) -> Int[np.ndarray, " n"]:
    """Returns the block of each row: consecutive volumes of one run and class share a number."""
    new = np.diff(cohort.run_index, prepend=-1) != 0
    new |= np.diff(cohort.labels, prepend=-1) != 0
    new |= np.diff(cohort.frame, prepend=-1) != 1
    return np.cumsum(new)


SPLITS = Registry(
    "splits",
    {
        "by_subject": Kind(
            lambda cohort: cohort.subject,
            "subject",
            "strict",
            "tested on people of whom the network has seen nothing: the accuracy to expect for a "
            "new participant.",
        ),
        "by_run": Kind(
            lambda cohort: cohort.run_index,
            "run",
            "calibrated",
            "tested on whole runs that the network has not seen, of people whose other runs train "
            "it.",
        ),
        "by_block": Kind(
            blocks,
            "block",
            "calibrated",
            "tested on whole blocks that the network has not seen, of runs whose other blocks "
            "train it: for studies of a single run. Volumes at the edges of a block still have "
            "neighbours in time on the other side.",
        ),
        "random": Kind(
            lambda cohort: cohort.run_index,
            "run",
            "leaky",
            "the published split: single volumes are dealt at random, so that the network has seen "
            "a neighbour in time of nearly every test volume, with its label. A block is several "
            "such volumes, and noise changes slowly: a classifier that memorises blocks gets the "
            "label right. Compare the same split on noise, above all with 1-NN, which only "
            "memorises.",
            leaks=("network",),
        ),
    },
    of=Kind,
)


def make(
    key: jax.Array,
    cohort: Any,
    kind: str,
    fractions: Sequence[int | float],
    folds: int = 1,
    *,
    strata: Shaped[np.ndarray, " n"] | None = None,
) -> list[Fold]:
    """Makes the folds of one split.

    Args:
      key: [] typed key.
      cohort: labelled rows: an object with `labels`, `subject`, `run_index` and `frame`, [n] each.
      kind: name in `SPLITS`.
      fractions: fractions of volumes (`random`) or groups for training, validation and test; sizes,
        or floats with sum 1.
      folds: number of folds. 1: one split by `fractions`. More: every group is tested in exactly
        one fold, and the other groups are divided as in `fractions`. `random` has one fold.
      strata: [n] kind of person of each row, e.g. patient or control: every part gets its share of
        each, as closely as whole groups allow. None: all are of one kind. `random` ignores it.

    Raises:
      InputError: an unknown split, not three fractions above 0, too few groups or volumes, or a
        part that lacks a class.
    """
    if len(fractions) != 3 or not all(0 < part < np.inf for part in fractions):
        expected = "three numbers above 0: training, validation, test"
        raise InputError("fractions", tuple(fractions), expected)
    labels, groups = cohort.labels, SPLITS[kind].groups(cohort)
    options = {"labels": labels, "strata": strata}
    try:
        if SPLITS[kind].protocol == "leaky":
            train, monitor, test = resampling.stratified_split(key, labels, fractions)
            return [Fold("1", train, monitor, test)]
        if folds == 1:
            shares = np.divide(fractions, np.sum(fractions)).tolist()
            train, monitor, test = resampling.group_split(key, groups, shares, **options)
            return [Fold("1", train, monitor, test)]
        made = []
        outer = resampling.group_kfold(key, groups, folds, **options)
        share = fractions[1] / (fractions[0] + fractions[1])
        for i, (rest, test) in enumerate(outer):
            own = {name: None if x is None else x[rest] for name, x in options.items()}
            key_inner = jax.random.fold_in(key, i)
            shares = 1 - share, share
            train, monitor = resampling.group_split(key_inner, groups[rest], shares, **own)
            made.append(Fold(str(i + 1), rest[train], rest[monitor], test))
        return made
    except ValueError as error:
        raise InputError(f"split {kind}", error, "more volumes, runs or subjects") from None


def leave_one_out(units: Shaped[np.ndarray, " n"], *, monitor_test: bool = False) -> list[Fold]:
    """Leaves one unit (subject or run) out at a time, in sorted order.

    Args:
      units: [n] name of the unit of each row.
      monitor_test: True for the published procedure, in which the test unit itself is monitored
        and all others train. Otherwise the next unit in order is monitored and does not train.

    Raises:
      InputError: fewer than four units.
    """
    units = np.asarray(as_labels(units, "units"))
    names = np.unique(units).tolist()
    if len(names) < 4:
        found = f"{len(names)} ({', '.join(map(str, names))})"
        expected = "4 or more: one to test, one to monitor, two to train"
        raise InputError("subjects or runs to leave out", found, expected)
    rows = {name: np.flatnonzero(units == name) for name in names}
    folds = []
    for i, test in enumerate(names):
        monitor = test if monitor_test else names[(i + 1) % len(names)]
        train = [rows[name] for name in names if name not in (test, monitor)]
        folds.append(Fold(str(test), np.concatenate(train), rows[monitor], rows[test]))
    return folds


def unmonitored(fold: Fold) -> Fold:
    """Returns a fold without monitoring: its monitored rows train with the others."""
    train = np.sort(np.concatenate([fold.train, fold.monitor]))
    return Fold(fold.name, train, fold.monitor[:0], fold.test)


def each_monitored(fold: Fold, units: Shaped[np.ndarray, " n"]) -> list[Fold]:
    """Returns one version of the fold for each unit that is not tested, which it monitors.

    Args:
      fold: fold of whole units.
      units: [n] name of the unit of each row.
    """
    rows = unmonitored(fold).train
    own = units[rows]
    return [
        Fold(f"{fold.name} without {name}", rows[own != name], rows[own == name], fold.test)
        for name in np.unique(own).tolist()
    ]


def crossed(subject: Shaped[np.ndarray, " n"], condition: Shaped[np.ndarray, " n"]) -> list[Fold]:
    """Tests on a new subject AND a new condition: training rows share neither with the test rows.

    Args:
      subject: [n] subject of each row.
      condition: [n] second factor of each row, e.g. stimulus, priming or study.

    Returns:
      One fold per pair that occurs, named "<subject> x <condition>"; no rows are monitored.

    Raises:
      ValueError: shapes disagree, or a pair leaves no training row.
    """
    subject, condition = np.asarray(as_labels(subject)), np.asarray(as_labels(condition))
    if subject.shape != condition.shape or subject.ndim != 1:
        raise ValueError(
            f"want subject and condition [n]; got {subject.shape} and {condition.shape}"
        )
    none, folds = np.zeros(0, int), []
    for person in np.unique(subject).tolist():
        for other in np.unique(condition[subject == person]).tolist():
            train = np.flatnonzero((subject != person) & (condition != other))
            test = np.flatnonzero((subject == person) & (condition == other))
            if not train.size:
                raise ValueError(f"no row shares neither {person!r} nor {other!r} with the test")
            folds.append(Fold(f"{person} x {other}", train, none, test))
    return folds


def leave_run_out(fold: Fold, run: Shaped[np.ndarray, " n"]) -> list[Fold]:
    """Tests one run of a fold at a time and trains on the others: new subjects AND a new run.

    Args:
      fold: training and test rows of different subjects.
      run: [n] name of each row's run; equal names correspond between subjects.

    Returns:
      One fold per tested run, named "<fold> x <run>".
    """
    return [
        Fold(
            f"{fold.name} x {name}",
            fold.train[run[fold.train] != name],
            fold.monitor[run[fold.monitor] != name],
            fold.test[run[fold.test] == name],
        )
        for name in np.unique(run[fold.test]).tolist()
    ]


def resample(
    key: jax.Array,
    rows: Rows,
    labels: Int[np.ndarray, " n"],
    *,
    balance: bool,
    bootstrap: bool,
) -> Rows:
    """Draws the training rows of one network.

    Args:
      key: [] typed key.
      rows: the fold's training rows.
      labels: [n] class of every row of the cohort; only those of `rows` are read.
      balance: whether each class occurs as often as the most frequent one, by drawing rows again.
      bootstrap: whether the rows of each class are drawn with replacement.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    classes = [rows[labels[rows] == k] for k in np.unique(labels[rows])]
    most = max(map(len, classes))
    drawn = []
    for own in classes:
        count = most if balance else len(own)
        again = count if bootstrap else count - len(own)
        kept = own[:0] if bootstrap else own
        drawn.append(np.concatenate([kept, rng.choice(own, again)]))
    return np.concatenate(drawn)


def mask_of(rows: Rows, n: int) -> Bool[np.ndarray, " n"]:
    """Returns rows as a mask [n]."""
    out = np.zeros(n, bool)
    out[rows] = True
    return out
