"""Folds keep groups whole, and their record says what a split leaks."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax import splits
from emojax.data.cohort import Prior
from emojax.errors import InputError
from emojax.provenance import PROTOCOLS, LeakageError, Ledger, classify
from emojax.splits import SPLITS, Fold

FRACTIONS = (0.5, 0.25, 0.25)

OF_0_3_0 = {  # tested subjects, runs, blocks of each fold, rows
    "by_subject": ["s1", "s7"],
    "by_run": [1, 8, 13, 15],
    "by_block": [
        [2, 12, 16, 17, 22, 23, 27, 32],
        [1, 4, 5, 14, 15, 21, 24, 29],
        [8, 10, 11, 18, 20, 26, 28, 31],
        [3, 6, 7, 9, 13, 19, 25, 30],
    ],
    "random": [0, 7, 12, 14, 26, 29, 31, 32],
    "resample": [30, 37, 30, 31, 33, 34, 35, 32, 33, 30, 35, 32],
}

quick = settings(derandomize=True, deadline=None, max_examples=50)


def make_cohort(labels, subject, run_index, frame, prior=()):
    """Returns the parts of a cohort that splits and ledgers need."""
    return SimpleNamespace(
        labels=np.asarray(labels),
        subject=np.asarray(subject),
        run_index=np.asarray(run_index),
        frame=np.asarray(frame),
        volumes=np.zeros((len(labels), 3), np.float32),
        prior=prior,
    )


def design(subjects=8, runs=2, volumes=10, **options):
    subject = np.repeat([f"s{i}" for i in range(subjects)], runs * volumes)
    run = np.repeat(np.arange(subjects * runs), volumes)
    frame = np.tile(np.arange(volumes), subjects * runs)
    return make_cohort(np.arange(len(run)) // 5 % 2, subject, run, frame, **options)


def judge(cohort, fold, kind, claimed=None, unit=None):
    """Returns the protocol class after the reads of a scaler, a network and the chosen epoch."""
    ledger = Ledger(cohort)
    ledger.values("scaler", np.unique(fold.train))
    ledger.reader({"network": fold.train, "epoch choice": fold.monitor})
    ledger.labels("network", fold.train)
    ledger.labels("epoch choice", fold.monitor)
    return classify(
        ledger.seen(fold.test),
        subject=cohort.subject,
        unit=SPLITS[kind].groups(cohort) if unit is None else unit,
        claimed=claimed or SPLITS[kind].protocol,
        name=kind,
    )


# splits.make


@pytest.mark.parametrize("kind", SPLITS)
@pytest.mark.parametrize("folds", [1, 4])
def test_parts_are_disjoint_and_groups_whole(kind, folds):
    cohort = design()
    made = splits.make(jax.random.key(0), cohort, kind, FRACTIONS, folds)
    assert [fold.name for fold in made] == ["1", "2", "3", "4"][: 1 if kind == "random" else folds]
    for fold in made:
        rows = np.concatenate(fold[1:])
        assert len(np.unique(rows)) == len(rows) == len(cohort.labels)
        groups = SPLITS[kind].groups(cohort)
        others = np.concatenate([fold.train, fold.monitor])
        assert bool(set(groups[fold.test]) & set(groups[others])) == (kind == "random")
    if folds > 1 and kind != "random":
        assert np.array_equal(np.sort(np.concatenate([f.test for f in made])), np.arange(160))


def test_rows_are_those_of_0_3_0():
    fold, *_ = splits.make(jax.random.key(0), design(), "by_subject", FRACTIONS)
    assert np.unique(design().subject[fold.test]).tolist() == OF_0_3_0["by_subject"]
    fold, *_ = splits.make(jax.random.key(0), design(), "by_run", FRACTIONS)
    assert np.unique(design().run_index[fold.test]).tolist() == OF_0_3_0["by_run"]
    made = splits.make(jax.random.key(1), design(), "by_block", FRACTIONS, 4)
    blocks = [np.unique(splits.blocks(design())[fold.test]).tolist() for fold in made]
    assert blocks == OF_0_3_0["by_block"]
    fold, *_ = splits.make(jax.random.key(0), design(), "random", FRACTIONS)
    assert fold.test[:8].tolist() == OF_0_3_0["random"]


def shares(cohort, fold, patients):
    """Returns the share of patients among the subjects of each part of a fold."""
    people = [np.unique(cohort.subject[part]) for part in fold[1:]]
    return [np.isin(names, patients).mean() for names in people]


@pytest.mark.parametrize("kind", ["by_subject", "by_run"])
@pytest.mark.parametrize("folds", [1, 4])
def test_every_part_has_its_share_of_each_stratum(kind, folds):
    cohort = design(16)
    patients = [f"s{i}" for i in (0, 1, 2, 3)]
    strata = np.where(np.isin(cohort.subject, patients), "MDD", "control")
    units = SPLITS[kind].groups(cohort)
    for seed in range(5):
        key = jax.random.key(seed)
        for fold in splits.make(key, cohort, kind, FRACTIONS, folds, strata=strata):
            for part in fold[1:]:
                first = np.unique(units[part], return_index=True)[1]
                of_part = (strata[part][first] == "MDD").mean()
                assert abs(of_part - 0.25) < 0.1
    dealt = splits.make(jax.random.key(1), cohort, kind, FRACTIONS, folds)
    same = splits.make(
        jax.random.key(1), cohort, kind, FRACTIONS, folds, strata=np.zeros(len(units))
    )
    for a, b in zip(dealt, same, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a[1:], b[1:], strict=True))


def test_a_stratum_of_one_person_stops_nothing():
    cohort = design(6)
    strata = np.where(cohort.subject == "s0", "rare", "common")
    made = splits.make(jax.random.key(0), cohort, "by_subject", FRACTIONS, strata=strata)
    assert sum(shares(cohort, made[0], ["s0"])) > 0
    with pytest.raises(InputError, match="groups of one stratum"):
        splits.make(
            jax.random.key(0), cohort, "by_subject", FRACTIONS, strata=np.arange(len(strata)) % 2
        )


def test_blocks_end_at_runs_classes_and_gaps():
    cohort = make_cohort(
        [0, 0, 1, 1, 1, 1, 0], np.zeros(7, int), [0, 0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 0, 2, 3]
    )
    assert splits.blocks(cohort).tolist() == [1, 1, 2, 2, 3, 4, 5]


def test_published_sizes():
    cohort = make_cohort(np.arange(3048) % 2, *np.zeros((3, 3048), int))
    (fold,) = splits.make(jax.random.key(0), cohort, "random", (1950, 488, 610))
    assert [len(part) for part in fold[1:]] == [1950, 488, 610]


def test_too_few_groups_are_named():
    with pytest.raises(InputError, match=r"split by_subject: found .*3"):
        splits.make(jax.random.key(0), design(subjects=2), "by_subject", FRACTIONS)
    one_class = design(subjects=2)
    one_class.labels = (one_class.run_index < 2).astype(int)
    with pytest.raises(InputError, match=r"split by_run: found .*class"):
        splits.make(jax.random.key(0), one_class, "by_run", FRACTIONS)
    with pytest.raises(InputError, match="splits: found 'by_day'; expected one of by_subject, by_"):
        splits.make(jax.random.key(0), design(), "by_day", FRACTIONS)


# the record of a split


@pytest.mark.parametrize("kind", SPLITS)
def test_a_split_is_of_the_class_that_it_claims(kind):
    cohort = design()
    (fold,) = splits.make(jax.random.key(0), cohort, kind, FRACTIONS)
    protocol, counts = judge(cohort, fold, kind)
    assert protocol == SPLITS[kind].protocol
    assert bool(counts) == (kind == "random")  # only the published split scores what it has seen
    if kind == "random":
        assert {"network", "epoch choice"} == set(counts) >= set(SPLITS[kind].leaks)


@pytest.mark.parametrize("kind", ["by_run", "by_subject"])
@pytest.mark.parametrize("part", ["train", "monitor"])
def test_a_planted_leak_is_refused(kind, part):
    cohort = design()
    (fold,) = splits.make(jax.random.key(0), cohort, kind, FRACTIONS)
    leaky = fold._replace(**{part: np.append(getattr(fold, part), fold.test[0])})
    step = {"train": "network", "monitor": "epoch choice"}[part]
    with pytest.raises(LeakageError, match=f"^{kind} claims .*step '{step}' saw labels of 1 scor"):
        judge(cohort, leaky, kind)
    neighbour = fold._replace(test=fold.test[1:], train=np.append(fold.train, fold.test[0]))
    with pytest.raises(LeakageError, match="saw labels of 1 other volumes of their unit"):
        judge(cohort, neighbour, kind)


def test_cleaning_of_whole_runs_is_transductive_and_labels_in_it_leak():
    cohort = design(prior=(Prior("z-score"),))
    (fold,) = splits.make(jax.random.key(0), cohort, "by_run", FRACTIONS)
    got = judge(cohort, fold, "by_run", "transductive")
    assert got == ("transductive", {"z-score": len(fold.test)})
    with pytest.raises(LeakageError, match="step 'z-score' saw values of 40 scored volumes"):
        judge(cohort, fold, "by_run")
    with_labels = design(prior=(Prior("voxels of everybody", labels=True),))
    with pytest.raises(LeakageError, match="step 'voxels of everybody' saw labels of 40 scored"):
        judge(with_labels, fold, "by_run", "transductive")


def test_every_entry_is_whole():
    cohort = design()
    for name, kind in SPLITS.items():
        assert kind.groups(cohort).shape == cohort.labels.shape, name
        assert kind.protocol in PROTOCOLS and bool(kind.leaks) == (kind.protocol == "leaky")
        assert kind.unit and kind.text.endswith(".")
    assert [*SPLITS] == ["by_subject", "by_run", "by_block", "random"]


def test_a_split_of_somebody_else(tmp_path, monkeypatch):
    (tmp_path / "own_splits.py").write_text(
        "from emojax.splits import Kind\n"
        "FIFTHS = Kind(lambda c: c.frame % 5, 'fifth', 'calibrated', 'Every fifth volume.')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cohort = design()
    (fold,) = splits.make(jax.random.key(0), cohort, "own_splits:FIFTHS", (0.4, 0.2, 0.4))
    fifths = [set(cohort.frame[rows] % 5) for rows in fold[1:]]
    assert [len(part) for part in fifths] == [2, 1, 2] and len(set.union(*fifths)) == 5
    with pytest.raises(
        InputError, match=r"splits: found 'own_splits:NO' .*; expected an importable"
    ):
        splits.make(jax.random.key(0), cohort, "own_splits:NO", FRACTIONS)
    expected = (
        "splits: found 'own_splits:Kind', an object of the class type; expected one of the cl"
    )
    with pytest.raises(InputError, match=expected):
        splits.make(jax.random.key(0), cohort, "own_splits:Kind", FRACTIONS)


@pytest.mark.parametrize(
    "fractions",
    [(), (1,), (0.5, 0.5), (0, 0, 0), (-1, -1, -1), (float("nan"),) * 3, (1, 1, float("inf"))],
)
def test_fractions_are_three_numbers(fractions):
    with pytest.raises(InputError, match=r"fractions: found .*; expected three numbers above 0"):
        splits.make(jax.random.key(0), design(), "by_subject", fractions, 2)


# leave one out


def test_each_unit_is_tested_once_and_another_monitored():
    units = np.repeat(["a", "b", "c", "d", "e"], 3)
    folds = splits.leave_one_out(units)
    assert [fold.name for fold in folds] == list("abcde")
    for fold in folds:
        parts = [set(units[rows].tolist()) for rows in fold[1:]]
        assert parts[2] == {fold.name} and [len(part) for part in parts] == [3, 1, 1]
        assert len(set.union(*parts)) == 5
        assert sorted(np.concatenate(fold[1:])) == list(range(15))
    assert set(units[folds[-1].monitor]) == {"a"}  # the next in the order, and after the last one
    with pytest.raises(InputError, match=r"3 \(a, b, c\); expected 4 or more"):
        splits.leave_one_out(units[:9])


def test_published_folds_train_on_everybody_else():
    units = np.array(list("abcde"))
    strict, paper = (splits.leave_one_out(units, monitor_test=on) for on in (False, True))
    assert [len(fold.train) for fold in (strict[0], paper[0])] == [3, 4]
    assert units[paper[0].monitor] == units[paper[0].test] == "a"
    assert units[strict[0].monitor] == "b"
    np.testing.assert_array_equal(paper[0].monitor, paper[0].test)


def test_numbers_may_name_units():
    folds = splits.leave_one_out(np.array([3, 1, 2, 10]))
    assert [fold.name for fold in folds] == ["1", "2", "3", "10"]
    with pytest.raises(InputError, match=r"found 2 \(1, 3\)"):
        splits.leave_one_out(np.array([3, 1]))


# crossed


@quick
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=1, max_size=30))
def test_crossed_folds_share_neither_factor(pairs):
    subject, condition = (np.array(column) for column in zip(*pairs, strict=True))
    try:
        folds = splits.crossed(subject, condition)
    except ValueError:
        lonely = [((subject != s) & (condition != c)).any() for s, c in set(pairs)]
        assert not all(lonely)
        return
    assert len(folds) == len(set(pairs))
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(len(pairs)))
    for fold in folds:
        assert fold.train.size and not fold.monitor.size
        for factor in (subject, condition):
            assert len(set(factor[fold.test])) == 1
            assert not set(factor[fold.test]) & set(factor[fold.train])
        left = (subject != subject[fold.test[0]]) & (condition != condition[fold.test[0]])
        np.testing.assert_array_equal(fold.train, np.flatnonzero(left))


def test_crossed_folds_are_named_and_refuse_what_leaves_nothing():
    folds = splits.crossed(np.array(["01", "01", "02", "02"]), np.array(["x", "y", "x", "y"]))
    assert [fold.name for fold in folds] == ["01 x x", "01 x y", "02 x x", "02 x y"]
    assert folds[0] == Fold("01 x x", *folds[0][1:]) and folds[0].train.tolist() == [3]
    with pytest.raises(ValueError, match=r"no row shares neither '01' nor 'x' with the test"):
        splits.crossed(np.array(["01", "02"]), np.array(["x", "x"]))
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3,\)"):
        splits.crossed(np.zeros(2), np.zeros(3))


# resample


@pytest.mark.parametrize("bootstrap", [False, True])
def test_balanced_rows_come_from_the_training_rows(bootstrap):
    labels = np.r_[np.zeros(30, int), np.ones(10, int)]
    train = np.r_[:20, 30:38]
    new = splits.resample(jax.random.key(1), train, labels, balance=True, bootstrap=bootstrap)
    assert np.bincount(labels[new]).tolist() == [20, 20]
    assert set(new) <= set(train)
    assert (set(new) == set(train)) == (not bootstrap)
    if bootstrap:
        assert new[-12:].tolist() == OF_0_3_0["resample"]


def test_without_either_the_rows_stay_class_by_class():
    labels = np.array([1, 0, 1, 0, 0])
    rows = splits.resample(jax.random.key(0), np.arange(5), labels, balance=False, bootstrap=False)
    assert rows.tolist() == [1, 3, 4, 0, 2]
    drawn = splits.resample(jax.random.key(0), np.arange(5), labels, balance=False, bootstrap=True)
    assert np.bincount(labels[drawn]).tolist() == [3, 2]
    again = splits.resample(jax.random.key(0), np.arange(5), labels, balance=False, bootstrap=True)
    np.testing.assert_array_equal(drawn, again)


def test_labels_of_other_rows_are_not_read():
    labels, train = np.array([0, 1, 0, 1, -1, -1]), np.arange(4)
    key = jax.random.key(2)
    some = splits.resample(key, train, labels, balance=True, bootstrap=True)
    labels[4:] = 1
    all_known = splits.resample(key, train, labels, balance=True, bootstrap=True)
    np.testing.assert_array_equal(some, all_known)
