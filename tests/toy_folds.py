"""Folds whose only fit is a mean of training volumes, and leaks to be planted in it."""

import dataclasses

import jax
import numpy as np
from hand_made import GRID, make_cohort

from emojax import splits
from emojax.provenance import Ledger
from emojax.records import FoldData

MASKS = {f"0{i}": np.random.default_rng(i).random(GRID) < 0.7 for i in range(1, 5)}


def integers(cohort):
    """Returns integer values, whose sums do not depend on their order."""
    rng = np.random.default_rng(0)
    runs = [
        dataclasses.replace(run, frames=rng.integers(0, 999, run.frames.shape).astype(np.float32))
        for run in cohort.runs
    ]
    return dataclasses.replace(cohort, runs=tuple(runs))


COHORT = integers(make_cohort()).with_masks(MASKS)
FOLD = splits.leave_one_out(COHORT.subject)[0]
OTHER_MASKS = {"01": MASKS["01"] & (np.random.default_rng(9).random(GRID) < 0.5)}


def nothing(ledger, cohort, fold):
    return 0.0


def make_with(leak=nothing, **changes):
    """Returns a function cohort -> fold: volumes minus a mean of training rows and a leak.

    Args:
      leak: (ledger, cohort, fold) -> values to subtract as well; it may read past the ledger.
      changes: field of `FoldData` -> (cohort, fold) -> its value.
    """

    def make(cohort):
        ledger = Ledger(cohort)
        mean = ledger.values("scaler", FOLD.train).mean(0) + leak(ledger, cohort, FOLD)
        ledger.keep("scaler", mean)
        return fold_data(ledger, cohort, mean, changes)

    return make


def fold_data(ledger, cohort, mean, changes=None):
    labels = np.full(ledger.cohort_size, -1)
    labels[FOLD.train] = ledger.labels("network", FOLD.train)
    labels[FOLD.monitor] = ledger.labels("epoch choice", FOLD.monitor)
    read = ledger.reader({"network": FOLD.train, "epoch choice": FOLD.monitor})
    read_test = ledger.scored_reader(FOLD.test)
    data = FoldData(
        FOLD,
        ledger,
        lambda rows: read(rows) - mean,
        lambda rows: read_test(rows) - mean,
        labels,
        (FOLD.train,),
        FOLD.monitor,
        (jax.random.key(0),),
        unit=cohort.subject,
    )
    made = {name: change(cohort, data) for name, change in (changes or {}).items()}
    return dataclasses.replace(data, **made)


def make_by_run(cohort):
    """Returns a fold in which each run is centred by the other runs of the test subject."""
    ledger = Ledger(cohort)
    runs = cohort.run_index[FOLD.test]
    means = {}
    for run in np.unique(runs):
        part = ledger.scoring(FOLD.test[runs == run])
        means[run] = part.values("centring", FOLD.test[runs != run]).mean(0)
        part.keep("centring", means[run])
    mean = ledger.values("scaler", FOLD.train).mean(0)
    ledger.keep("scaler", mean)
    data = fold_data(ledger, cohort, mean)

    def read_test(rows):
        return data.read_test(rows) - np.stack([means[run] for run in cohort.run_index[rows]])

    return dataclasses.replace(data, read_test=read_test)
