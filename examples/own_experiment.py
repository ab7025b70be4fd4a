"""The smallest experiment of one's own: logistic regression of new people, in one row of results.

`emojax.experiments` runs it as it runs A and B: record of the reads, audit, noise floor, report.
docs/tutorials/leakage_lab.md plants a leak in it.
"""

import numpy as np

from emojax import splits
from emojax.experiments import Experiment
from emojax.records import Arm, FoldData
from emojax.scoring import baselines


def arms(config, cohort):
    """Returns the rows of the result table: one, which claims to have seen nothing."""
    return [Arm("new people", "strict", baselines=("logistic",))]


def folds(config, cohort, arm):
    """Returns who trains and who is tested: every subject is left out once."""
    return splits.leave_one_out(cohort.subject)


def features(config, ledger, fold, arm, number):
    """Returns standardised vectors; the mean and sd are those of the training subjects."""
    x = ledger.values("scaler", fold.train)  # the read writes the record: who saw what
    mean, sd = x.mean(0), x.std(0)
    ledger.keep("scaler", (mean, sd))  # the audit compares it
    labels = np.full(ledger.cohort_size, -1)
    labels[fold.train] = ledger.labels("classifier", fold.train)
    read, read_test = ledger.reader({"classifier": fold.train}), ledger.scored_reader(fold.test)
    return FoldData(
        fold,
        ledger,
        read=lambda rows: (read(rows) - mean) / sd,
        read_test=lambda rows: (read_test(rows) - mean) / sd,
        labels=labels,
        train=(fold.train,),
        monitor=fold.monitor[:0],  # nothing is chosen
        keys=(),  # no network is trained
    )


def jobs(config, data, names):
    """Yields the fits of one fold, by the names of the classifiers."""
    x, y = data.read(data.fold.train), data.labels[data.fold.train]
    test = data.read_test(data.fold.test)
    for name in names:
        yield baselines.make_job(name, config.seed, x, y, test, y.max() + 1)


EXPERIMENT = Experiment(arms, folds, features, baselines=jobs)
