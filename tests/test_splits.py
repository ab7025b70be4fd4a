"""Splits keep groups whole, and what they leak is refused or reported."""

import jax
import numpy as np
import pytest

from emojax import splits
from emojax.errors import InputError
from emojax.provenance import LeakageError
from emojax.training.fitting import Split

FRACTIONS = (0.5, 0.25, 0.25)


def design(subjects=8, runs=2, volumes=10):
    subject = np.repeat([f"s{i}" for i in range(subjects)], runs * volumes)
    run = np.repeat(np.arange(subjects * runs), volumes)
    frame = np.tile(np.arange(volumes), subjects * runs)
    return splits.Design(np.arange(len(run)) // 5 % 2, subject, run, frame)


@pytest.mark.parametrize("kind", splits.KINDS)
@pytest.mark.parametrize("folds", [1, 4])
def test_parts_are_disjoint_and_groups_whole(kind, folds):
    d = design()
    made = splits.make(jax.random.key(0), d, kind, FRACTIONS, folds)
    assert len(made) == (1 if kind == "random" else folds)
    for split in made:
        rows = np.concatenate(split)
        assert len(np.unique(rows)) == len(rows) == len(d.labels)
        groups = d.groups(kind)
        shared = set(groups[split.test]) & set(groups[np.concatenate([split.train, split.monitor])])
        assert bool(shared) == (kind == "random")
    if folds > 1 and kind != "random":
        assert np.array_equal(np.sort(np.concatenate([s.test for s in made])), np.arange(160))


def test_blocks_end_at_runs_classes_and_gaps():
    d = splits.Design(
        np.array([0, 0, 1, 1, 1, 1, 0]),
        np.zeros(7, int),
        np.array([0, 0, 0, 0, 1, 1, 1]),
        np.array([0, 1, 2, 3, 0, 2, 3]),
    )
    assert d.block.tolist() == [1, 1, 2, 2, 3, 4, 5]


def test_published_sizes():
    d = splits.Design(np.arange(3048) % 2, *np.zeros((3, 3048), int))
    (split,) = splits.make(jax.random.key(0), d, "random", (1950, 488, 610))
    assert [len(part) for part in split] == [1950, 488, 610]


@pytest.mark.parametrize("kind", splits.KINDS)
def test_only_the_published_split_scores_runs_it_has_seen(kind):
    d = design()
    (split,) = splits.make(jax.random.key(0), d, kind, FRACTIONS)
    assert bool(splits.check(d, split, kind)) == (kind == "random")


@pytest.mark.parametrize("kind", ["by_run", "by_subject"])
@pytest.mark.parametrize("part", ["train", "monitor"])
def test_a_planted_leak_is_refused(kind, part):
    d = design()
    (split,) = splits.make(jax.random.key(0), d, kind, FRACTIONS)
    leaky = split._replace(**{part: np.append(getattr(split, part), split.test[0])})
    with pytest.raises(LeakageError, match=f"protocol '{kind}' refuses"):
        splits.check(d, leaky, kind)
    neighbour = split._replace(test=split.test[1:], train=np.append(split.train, split.test[0]))
    with pytest.raises(LeakageError, match="the labels of 1 other volumes"):
        splits.check(d, neighbour, kind)


def test_cleaning_of_whole_runs_is_declared():
    d = design()
    (split,) = splits.make(jax.random.key(0), d, "by_run", FRACTIONS)
    assert splits.check(d, split, "by_run", ("z-score",)) == {"z-score": len(split.test)}


@pytest.mark.parametrize("bootstrap", [False, True])
def test_balanced_rows_come_from_the_training_rows(bootstrap):
    labels = np.r_[np.zeros(30, int), np.ones(10, int)]
    split = Split(np.r_[:20, 30:38], np.r_[20:25, 38], np.r_[25:30, 39])
    new = splits.resampled(jax.random.key(1), split, labels, balance=True, bootstrap=bootstrap)
    assert np.bincount(labels[new.train]).tolist() == [20, 20]
    assert set(new.train) <= set(split.train)
    assert (set(new.train) == set(split.train)) == (not bootstrap)
    assert new.monitor is split.monitor and new.test is split.test


def test_too_few_groups_are_named():
    d = design(subjects=2)
    with pytest.raises(InputError, match=r"split by_subject: found .*3"):
        splits.make(jax.random.key(0), d, "by_subject", FRACTIONS)
    one_class = d._replace(labels=(d.run < 2).astype(int))
    with pytest.raises(InputError, match=r"split by_run: found .*class"):
        splits.make(jax.random.key(0), one_class, "by_run", FRACTIONS)
