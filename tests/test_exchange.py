"""Tests of exchangeability under the null hypothesis: blocks or rows, within runs or subjects."""

import itertools

import numpy as np
import pytest

from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.experiments import exchange

CLASSES = ("a", "b", "c")


def cohort_of(runs, tr=2.0):
    """Returns a cohort of vectors: (subject, run) -> label of each volume, -1 for none."""
    made = [
        Run(*name, np.random.default_rng(i).random((len(labels), 2), np.float32), tr=tr)
        for i, (name, labels) in enumerate(runs.items())
    ]
    return cohorts.build(made, CLASSES, [np.array(labels) for labels in runs.values()])


def drawn(cohort, found, count=200):
    """Returns the labels of that many draws, checked for what always holds."""
    rng = np.random.default_rng(0)
    out = np.array([found.draw(rng) for _ in range(count)])
    assert (found.label[found.block] == cohort.labels).all()  # the true order is one of them
    for number in np.unique(found.within):
        here = np.flatnonzero(found.within == number)
        first = [np.flatnonzero(found.block == block)[0] for block in here]
        want = np.sort(found.label[here])
        assert (np.sort(out[:, first]) == want).all()  # classes change places, none is new
    for block in range(len(found.label)):
        rows = out[:, found.block == block]
        assert (rows == rows[:, :1]).all()  # a block has one class
    return out


ORDER = [0, 0, 1, 1, -1, 2, 2, 0, 0]
OTHER = [2, 2, 0, 0, -1, 1, 1, 2, 2]


def test_one_order_for_subjects_who_saw_one_order():
    cohort = cohort_of({("x", "run-1"): ORDER, ("y", "run-01"): ORDER, ("z", "run-1"): ORDER})
    found = exchange.design(cohort, timed=True)
    assert found.scheme == "blocks within runs, one order for all subjects"
    assert len(found.label) == 4 and found.arrangements == 12  # 4! / 2!
    labels = drawn(cohort, found)
    x, y, z = (labels[:, cohort.subject == name] for name in "xyz")
    assert (x == y).all() and (x == z).all()
    assert {tuple(row) for row in x[:, ::2].tolist()} == {
        order for order in itertools.permutations([0, 1, 2, 0])
    }


def test_each_subject_its_own_where_orders_differ():
    cohort = cohort_of({("x", "1"): ORDER, ("y", "1"): OTHER})
    found = exchange.design(cohort, timed=True)
    assert found.scheme == "blocks within runs, each subject by itself"
    assert len(found.label) == 8 and found.arrangements == 144
    labels = drawn(cohort, found)
    x, y = (labels[:, cohort.subject == name] for name in "xy")
    assert len(np.unique(np.concatenate([x, y], 1)[:, ::2], axis=0)) > 60


def test_groups_of_subjects_with_counterbalanced_orders():
    runs = {(name, "1"): order for name, order in zip("wxyz", [ORDER, OTHER] * 2, strict=True)}
    cohort = cohort_of(runs)
    found = exchange.design(cohort, timed=True)
    assert found.scheme.endswith("one order for each of 2 groups of subjects")
    labels = drawn(cohort, found)
    w, x, y, z = (labels[:, cohort.subject == name] for name in "wxyz")
    assert (w == y).all() and (x == z).all() and found.arrangements == 144


def test_blocks_stay_in_their_run():
    cohort = cohort_of({("x", "1"): [0, 0, 1, 1], ("x", "2"): [2, 2, 1, 1], ("y", "1"): [1, 0, 0]})
    found = exchange.design(cohort, timed=True)
    assert found.arrangements == 2 * 2 * 2
    labels = drawn(cohort, found)
    assert set(map(tuple, labels[:, :4].tolist())) == {(0, 0, 1, 1), (1, 1, 0, 0)}
    assert set(map(tuple, labels[:, 4:8].tolist())) == {(2, 2, 1, 1), (1, 1, 2, 2)}
    assert set(map(tuple, labels[:, 8:].tolist())) == {(1, 0, 0), (0, 1, 1)}  # with other lengths


def test_a_scrubbed_or_late_volume_does_not_break_the_shared_order():
    whole = np.repeat([0, 1, 2, 1], 12)
    scrubbed, late = whole.copy(), np.concatenate([whole[:1], whole[:-1]])
    scrubbed[[5, 30]] = -1
    cohort = cohort_of({("x", "1"): whole, ("y", "1"): scrubbed, ("z", "1"): late})
    found = exchange.design(cohort, timed=True)
    assert "one order for all" in found.scheme and len(found.label) == 4
    labels = drawn(cohort, found)
    z = labels[:, cohort.subject == "z"]
    assert (z[:, 1:] == labels[:, cohort.subject == "x"][:, :-1]).all()  # as late as before


def test_a_common_class_does_not_pass_for_a_shared_order():
    rng = np.random.default_rng(0)
    runs = {}
    for name in "xy":
        labels = np.zeros(120, int)
        labels[rng.permutation(120)[:8]] = 1
        runs[name, "1"] = labels
    found = exchange.design(cohort_of(runs), timed=True)
    assert found.scheme.endswith("each subject by itself")


def test_runs_that_only_some_subjects_have_follow_their_order():
    cohort = cohort_of({("x", "1"): ORDER, ("y", "1"): ORDER, ("y", "2"): OTHER})
    found = exchange.design(cohort, timed=True)
    assert "one order for all" in found.scheme and found.arrangements == 144
    labels = drawn(cohort, found)
    assert (labels[:, :8] == labels[:, 8:16]).all()


def test_maps_are_exchanged_within_runs_that_have_every_class_else_within_subjects():
    full = {
        ("x", "1"): [0, 1, 2],
        ("x", "2"): [2, 1, 0],
        ("y", "1"): [0, 1, 2],
        ("y", "2"): [1, 0, 2],
    }
    found = exchange.design(cohort_of(full, tr=None), timed=False)
    assert found.scheme == "rows within runs" and found.arrangements == 6**4
    drawn(cohort_of(full, tr=None), found)
    single = {("x", "1"): [0, 0, 1, 1, 2, 2], ("y", "1"): [0, 0, 1, 1, 2, 2]}
    found = exchange.design(cohort_of(single, tr=None), timed=False)
    assert found.scheme == "rows within subjects" and found.arrangements == 90**2
    labels = drawn(cohort_of(single, tr=None), found)
    assert (labels[:, :6] != labels[:, 6:]).any()  # each subject alone
    lacking = full | {("y", "2"): [0, 0, 1]}
    found = exchange.design(cohort_of(lacking, tr=None), timed=False)
    assert found.scheme == "rows within complete runs or subjects"
    assert found.arrangements == 36 * 60


@pytest.mark.parametrize("timed", [True, False])
def test_draws_are_equally_likely(timed):
    cohort = cohort_of({("x", "1"): [0, 1, 2]})
    labels = drawn(cohort, exchange.design(cohort, timed), 6000)
    counts = np.unique(labels, axis=0, return_counts=True)[1]
    assert len(counts) == 6 and (np.abs(counts - 1000) < 4 * np.sqrt(1000 * 5 / 6)).all()
