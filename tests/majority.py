"""Majority class and logistic regression on vectors, leaving one subject out."""

import numpy as np
from sklearn.dummy import DummyClassifier

from emojax import splits
from emojax.experiments import Experiment
from emojax.records import Arm, FoldData
from emojax.scoring import baselines


def majority(seed):
    return DummyClassifier(strategy="prior")


def arms(config, cohort):
    both = (f"{__name__}:majority", "logistic")
    return [
        Arm("plain", "strict", baselines=both),
        Arm("scaled by everybody", "transductive", settings="all", baselines=both[1:]),
        Arm("noise", "strict", on_noise=True, baselines=both[1:]),
    ]


def folds(config, cohort, arm):
    return splits.leave_one_out(cohort.subject)


def features(config, ledger, fold, arm, number):
    rows = np.arange(ledger.cohort_size) if arm.settings == "all" else fold.train
    x = ledger.values("scaler", rows)
    mean, sd = x.mean(0), x.std(0)
    ledger.keep("scaler", (mean, sd))
    labels = np.full(ledger.cohort_size, -1)
    labels[fold.train] = ledger.labels("classifier", fold.train)
    read = ledger.reader({"classifier": fold.train})
    read_test = ledger.scored_reader(fold.test)
    return FoldData(
        fold,
        ledger,
        lambda rows: (read(rows) - mean) / sd,
        lambda rows: (read_test(rows) - mean) / sd,
        labels,
        (fold.train,),
        fold.monitor[:0],
        (),
    )


def jobs(config, data, names):
    x, y = data.read(data.fold.train), data.labels[data.fold.train]
    test = data.read_test(data.fold.test)
    for name in names:
        yield baselines.make_job(name, config.seed, x, y, test, y.max() + 1)


EXPERIMENT = Experiment(arms, folds, features, baselines=jobs)
