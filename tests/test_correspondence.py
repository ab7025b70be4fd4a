"""Correspondence of rows between subjects: runs by name, volumes by time."""

import dataclasses

import numpy as np
import pytest
from small_studies import CLASSES, read

from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.experiments import experiment_a
from emojax.experiments.base import check_arms
from emojax.features import correspondence
from emojax.provenance import Ledger

VOXELS, LENGTH = 30, 24
PATTERNS = np.random.default_rng(5).normal(size=(3, VOXELS))
ORDER = np.arange(LENGTH) // 2 % 3


def study(runs, orders=None, tr=None, subjects="abcd"):
    """Returns a cohort with these runs of each subject, and the order of classes in each run."""
    made, labels = [], []
    for s, subject in enumerate(subjects):
        for name in runs[subject] if isinstance(runs, dict) else runs:
            number = int(name.removeprefix("run-"))
            y = np.roll(ORDER, number) if orders is None else orders(subject, number)
            noise = np.random.default_rng([s, number]).normal(0, 0.3, (LENGTH, VOXELS))
            frames = (2 * PATTERNS[y] * (y >= 0)[:, None] + noise).astype(np.float32)
            made.append(Run(subject, name, frames, tr=(tr or {}).get(subject)))
            labels.append(y)
    return cohorts.build(made, CLASSES, labels)


def accuracies(config, cohort):
    """Returns the accuracy of a nearest mean in each fold of the headline, and its first ISC."""
    config.voxels.keep, config.balance, config.baselines = 20, 6, ""
    config.headline = "network"
    view, found, isc = read(cohort), [], []
    arm = check_arms(experiment_a.arms(config, cohort))[0]
    for i, fold in enumerate(experiment_a.folds(config, view, arm)):
        data = experiment_a.features(config, Ledger(view), fold, arm, i)
        x, y = data.read(fold.train), data.labels[fold.train]
        means = np.stack([x[y == k].mean(0) for k in range(3)])
        test = data.read_test(fold.test)
        predicted = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
        found.append(float((predicted == view.labels[fold.test]).mean()))
        isc.append(data.notes["isc"][0])
    return found, isc


@pytest.mark.slow
def test_runs_are_matched_by_name_not_by_rank(config):
    all_there, isc = accuracies(config, study(["run-1", "run-2", "run-3"]))
    spelled = {"a": ["run-1", "run-2", "run-3"], "b": ["run-01", "run-02", "run-03"]}
    other, _ = accuracies(config, study(spelled | {"c": spelled["a"], "d": spelled["b"]}))
    assert min(all_there) > 0.95 and other == all_there and min(isc) > 0.8
    lacks = {"a": ["run-1", "run-2", "run-3"], "b": ["run-2", "run-3"]}
    lacks |= {"c": ["run-2", "run-3"], "d": lacks["a"]}
    cohort = study(lacks)
    found, isc = accuracies(config, cohort)
    assert min(found) > 0.95 and min(isc) > 0.8
    said = correspondence.check(read(cohort))
    assert said[-1] == "not in all subjects: run-1; all share run-2, run-3"


def test_subjects_that_each_lack_another_run(config):
    names = ["run-1", "run-2", "run-3"]
    lacks = dict(zip("abcd", (names[1:], names[:1] + names[2:], names[:2], names), strict=True))
    with pytest.raises(InputError, match=r"runs of a: found runs without run-1; shared .*: none"):
        accuracies(config, study(lacks))


def counterbalanced(subject, number):
    return np.roll(ORDER, number) if subject in "ab" else (np.roll(ORDER, number) + 1) % 3


@pytest.mark.slow
def test_other_orders_are_refused_with_the_way_out(config):
    cohort = study(["run-1", "run-2"], counterbalanced)
    line = r"labels of c: found other labels in 100% .* of a in time; .* --config.align.match=cla"
    with pytest.raises(InputError, match=line):
        accuracies(config, cohort)
    config.align.match = "class"
    found, _ = accuracies(config, cohort)
    assert min(found) > 0.95


def test_events_at_other_times_are_refused(config):
    def late(subject, number):
        y = np.where(np.arange(LENGTH) < LENGTH // 2, ORDER, -1)
        return y if subject in "ab" else np.roll(y, LENGTH // 2)

    with pytest.raises(
        InputError, match=r"labels of c: found 0% of its labelled volumes at times of"
    ):
        accuracies(config, study(["run-1", "run-2"], late))


@pytest.mark.slow
def test_a_few_late_labels_are_fine_and_said(config):
    def jittered(subject, number):
        y = np.roll(ORDER, number)
        return np.r_[y[:1], y[:-1]][: len(y)] if (subject, number) == ("c", 1) else y

    def once(subject, number):
        y = np.roll(ORDER, number).copy()
        if (subject, number) == ("c", 1):
            y[3] = (y[3] + 1) % 3
        return y

    with pytest.raises(InputError, match="other labels in"):
        accuracies(config, study(["run-1", "run-2"], jittered))
    cohort = study(["run-1", "run-2"], once)
    assert min(accuracies(config, cohort)[0]) > 0.9
    assert correspondence.check(read(cohort)) == [
        "rows matched by run and time: labels agree in at least 96.0% of each class"
    ]


def test_another_tr_is_refused(config):
    with pytest.raises(InputError, match=r"volumes of b: found volumes 23 s away .* one TR"):
        accuracies(config, study(["run-1", "run-2"], tr={"a": 2.0, "b": 3.0, "c": 2.0, "d": 2.0}))


def test_another_order_is_seen_where_rest_prevails(config):
    def mostly_rest(subject, number):
        y = np.zeros(LENGTH, int)
        y[[3, 9]] = (1, 2) if subject in "ab" else (2, 1)
        return y

    with pytest.raises(InputError, match="labels of c: found other labels in 67% of a class's vol"):
        accuracies(config, study(["run-1", "run-2"], mostly_rest))


def test_times_of_volumes_that_are_not_a_tr_apart_are_compared(config):
    cohort = study(["run-1", "run-2"])
    runs = [
        dataclasses.replace(run, starts=np.arange(LENGTH) * (2.0 if run.subject in "ab" else 5.0))
        for run in cohort.runs
    ]
    with pytest.raises(InputError, match=r"volumes of c: found volumes 69 s away"):
        accuracies(config, dataclasses.replace(cohort, runs=tuple(runs)))
