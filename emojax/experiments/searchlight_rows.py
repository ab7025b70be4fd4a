"""Folds of a searchlight: their rows, their values and their provenance record."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from emojax.errors import InputError
from emojax.experiments import crossed, held_out
from emojax.provenance import PROTOCOLS, Ledger, classify
from emojax.splits import Fold


class Part(NamedTuple):
    """Rows that are decoded together: one subject's, or all rows."""

    name: str
    folds: list[Fold]
    unit: Shaped[np.ndarray, " n"]  # unit of each row; training and test rows share none
    centred: bool  # whether the mean of the subject's other runs is subtracted
    claimed: str  # protocol class


def check(config: Any, cohort: Any) -> None:
    """Rejects folds that a study does not allow, before anything is fitted.

    Raises:
      InputError: names the key.
    """
    kinds = ("auto", "subject", "run", *crossed.columns(config, cohort))
    if config.searchlight.radius_mm and config.searchlight.folds not in kinds:
        expected = f"one of {', '.join(kinds)}"
        raise InputError("searchlight.folds", repr(config.searchlight.folds), expected)


def parts(config: Any, view: Any) -> tuple[list[Part], str]:
    """Returns the parts that are decoded separately, and the kind of folds.

    Raises:
      ValueError: too few subjects or runs, a column that cannot be crossed, or a fold that trains
        without one of the classes.
    """
    found, kind = _parts(config, view)
    for part in found:
        for fold in part.folds:
            lacks = np.setdiff1d(range(len(view.cohort.classes)), view.labels[fold.train])
            if len(lacks):
                name = view.cohort.classes[lacks[0]]
                raise ValueError(f"fold {fold.name} trains without a volume of {name!r}")
    return found, kind


def _parts(config: Any, view: Any) -> tuple[list[Part], str]:
    cohort, kind = view.cohort, config.searchlight.folds
    if kind == "auto":
        several = len(cohort.subjects) > 1 and config.units == "subject"
        kind = "subject" if several else "run"
    if kind == "run":
        return [_own_runs(view, name) for name in cohort.subjects], kind
    if kind == "subject":
        if len(cohort.subjects) < 2:
            raise ValueError("one subject cannot be left out; folds=run leaves its runs out")
        folds = held_out.leaving_subjects_out(view)
    else:
        folds = crossed.folds_of(cohort, cohort.factors[kind])
    runs = [np.unique(cohort.run_index[cohort.subject == name]) for name in cohort.subjects]
    centred = config.voxels.centre and min(map(len, runs)) > 1
    claimed = "calibrated" if centred else "strict"
    return [Part("", folds, cohort.subject, centred, claimed)], kind


def _own_runs(view: Any, name: str) -> Part:
    run, none = view.run_index, np.zeros(0, int)
    own = np.flatnonzero(view.subject == name)
    folds = [
        Fold(f"{name}/{number}", own[run[own] != number], none, own[run[own] == number])
        for number in np.unique(run[own])
    ]
    if len(folds) < 2:
        raise ValueError(f"{name} has one run; folds=run needs two of each subject")
    return Part(name, folds, run, False, "calibrated")


def read(
    view: Any, part: Part, rows: Int[np.ndarray, " k"], step: str
) -> tuple[Float[np.ndarray, "k v"], str]:
    """Reads every row once, with a provenance record for each fold.

    Args:
      view: the data that ledgers read.
      part: see `Part`.
      rows: rows of its folds, in ascending order.
      step: name of the decoders in the record.

    Returns:
      Values of the rows, centred if `part.centred`, and the worst protocol class of all folds.

    Raises:
      LeakageError: a fold saw more than the part claims.
    """
    subject, run = view.subject, view.run_index
    width = len(next(iter(view.inside.values())))
    values = np.zeros((len(rows), width), np.float32)
    missing, worst = np.ones(len(subject), bool), 0
    for fold in part.folds:
        ledger = Ledger(view)
        for own, reader in _grant(ledger, part, fold, step):
            own = own[missing[own]]
            values[np.searchsorted(rows, own)] = reader(own)
            missing[own] = False
        kind, _ = classify(
            ledger.seen(fold.test, prior=False),
            subject=subject,
            unit=part.unit,
            claimed=part.claimed,
            name=f"{step} {fold.name}",
            prior=ledger.prior,
        )
        worst = max(worst, PROTOCOLS.index(kind))
    if part.centred:
        _centre(values, subject[rows], run[rows])
    return values, PROTOCOLS[worst]


def _grant(ledger: Ledger, part: Part, fold: Fold, step: str) -> list[tuple[np.ndarray, Callable]]:
    """Writes the provenance record of a fold; returns pairs of (rows, reader)."""
    subject, run = ledger.design("subject"), ledger.design("run_index")
    ledger.labels(step, fold.train)
    seen = {step: fold.train}
    if part.centred:
        seen["centring"] = np.flatnonzero(np.isin(subject, subject[fold.train]))
        for number in np.unique(run[fold.test]):
            here = fold.test[run[fold.test] == number]
            own = (subject == subject[here[0]]) & (run != number)
            ledger.scoring(here).reader({"centring": np.flatnonzero(own)})
    return [(fold.train, ledger.reader(seen)), (fold.test, ledger.scored_reader(fold.test))]


def _centre(values, subject, run) -> None:
    """Subtracts the mean of the subject's rows in other runs from each row, in place."""
    for name in np.unique(subject):
        own = np.flatnonzero(subject == name)
        sums = {k: values[own[run[own] == k]].sum(0, dtype=np.float64) for k in np.unique(run[own])}
        total = np.sum(list(sums.values()), axis=0)
        for number, part in sums.items():
            here = own[run[own] == number]
            values[here] -= (total - part) / (len(own) - len(here))
