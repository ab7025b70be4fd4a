"""Balance and splits: the paper's counts, laws, scikit-learn, transforms and messages."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import LeaveOneGroupOut, StratifiedShuffleSplit

from emojax import resampling
from emojax._numerics.apportion import nearest_table

KEY = jax.random.key(0)
OTHER_KEY = jax.random.key(1)
PAPER = np.repeat([0, 1, 2], [200, 100, 100])  # one subject of Experiment A
GROUPS = np.array([7, 7, 3, 3, 3, 11, 11, 5])
LABELS = np.array([0, 1, 0, 1, 1, 1, 0, 0])

quick = settings(derandomize=True, deadline=None, max_examples=40)


def shuffled(labels, seed):
    return np.random.default_rng(seed).permutation(labels)


def subjects(count):
    return np.stack([shuffled(PAPER, seed) for seed in range(count)])


def check_partition(parts, num_rows):
    for part in parts:
        assert part.dtype == np.int32
        assert (np.diff(part) > 0).all()  # ascending, hence no row twice
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(num_rows))


# balance


def test_balance_of_the_paper():
    labels = subjects(10)
    rows = resampling.balance(KEY, labels, 200)
    assert rows.shape == (10, 600)
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(
        np.take_along_axis(labels, np.asarray(rows), axis=1), [np.repeat([0, 1, 2], 200)] * 10
    )
    for subject, chosen in zip(labels, np.asarray(rows), strict=True):
        times = np.bincount(chosen, minlength=400)
        assert (times[subject == 0] == 1).all()  # enough rows: none twice
        assert (times >= 1).all()  # minorities: none lost


def test_balance_of_a_majority_takes_different_rows_of_all():
    labels = shuffled(PAPER, 0)
    keys = jax.random.split(KEY, 2000)
    draws = np.asarray(jax.vmap(lambda k: resampling.balance(k, labels, 50))(keys))
    assert all(len(set(draw)) == 150 for draw in draws)
    # Rows of class 0 are chosen with probability 1/4, of the others with 1/2; 6 standard errors.
    often = np.bincount(draws.ravel(), minlength=400) / len(draws)
    assert np.abs(often - np.where(labels == 0, 0.25, 0.5)).max() < 6 * 0.5 / np.sqrt(len(draws))


def test_balance_draws_of_a_minority_are_independent_and_uniform():
    labels = np.array([0] * 10 + [1] * 4)
    keys = jax.random.split(KEY, 4000)
    draws = np.asarray(jax.vmap(lambda k: resampling.balance(k, labels, 10))(keys))
    extra = draws[:, 14:] - 10  # six bootstrap draws among four rows
    often = np.bincount(extra.ravel(), minlength=4) / extra.size
    assert np.abs(often - 1 / 4).max() < 6 * np.sqrt(3 / 16 / extra.size)
    same = (extra[:, :-1] == extra[:, 1:]).mean()
    assert abs(same - 1 / 4) < 6 * np.sqrt(3 / 16 / (5 * len(extra)))


@quick
@given(
    rest=st.lists(st.integers(0, 3), min_size=16, max_size=16),
    per_class=st.sampled_from([1, 4, 12]),
    seed=st.integers(0, 2**31 - 1),
)
def test_balance_law(rest, per_class, seed):
    labels = shuffled([0, 1, 2, 3, *rest], seed)
    rows = np.asarray(resampling.balance(jax.random.key(seed), labels, per_class, num_classes=4))
    np.testing.assert_array_equal(labels[rows], np.repeat(np.arange(4), per_class))
    for k, of_class in enumerate(rows.reshape(4, per_class)):
        assert len(set(of_class)) >= min((labels == k).sum(), per_class)


def test_balance_depends_on_the_key_alone():
    labels = subjects(10)
    first = np.asarray(resampling.balance(KEY, labels, 200))
    np.testing.assert_array_equal(first, resampling.balance(KEY, labels, 200))
    assert (first != resampling.balance(OTHER_KEY, labels, 200)).any()
    # Each subject has its own key: the same labels in another place give other rows.
    assert (first[0] != resampling.balance(KEY, labels[::-1], 200)[-1]).any()
    with jax.enable_x64(True):
        double = resampling.balance(KEY, labels, 200)
    assert double.dtype == np.int32
    np.testing.assert_array_equal(first, double)


def test_balance_of_a_stack_equals_a_loop_jit_and_vmap():
    labels = subjects(6)
    keys = [jax.random.fold_in(KEY, s) for s in range(6)]
    want = np.stack([resampling.balance(k, y, 150) for k, y in zip(keys, labels, strict=True)])
    np.testing.assert_array_equal(resampling.balance(KEY, labels, 150), want)
    grid = resampling.balance(KEY, labels.reshape(2, 3, 400), 150)
    np.testing.assert_array_equal(grid, want.reshape(2, 3, 450))

    def traced(key, y):
        return resampling.balance(key, y, 150, num_classes=3)

    np.testing.assert_array_equal(jax.jit(traced)(KEY, labels), want)
    np.testing.assert_array_equal(jax.vmap(traced)(jax.numpy.stack(keys), labels), want)


def test_balance_of_a_traced_missing_class_is_out_of_range():
    labels = np.array([0, 0, 2, 2])
    rows = jax.jit(lambda y: resampling.balance(KEY, y, 2, num_classes=3))(labels)
    np.testing.assert_array_equal(rows[2:4], 4)
    np.testing.assert_array_equal(np.sort(np.delete(rows, [2, 3])), [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [[0, 1, 2], [0, 2, 2]]}, "every class in subject 1; class 1 has no row"),
        ({"labels": [0, 2]}, "every class in labels; class 1 has no row"),
        ({"num_classes": 3}, "every class in labels; class 2 has no row"),
        ({"num_classes": 1}, r"labels in \[0, 1\); got values from 0 to 1"),
        ({"labels": [0, -1]}, r"labels in \[0, 1\); got values from -1 to 0"),
        ({"labels": [0.0, 1.0]}, "integer labels; got dtype float32"),
        ({"labels": 0}, r"labels \[..., n\] with n >= 1; got shape \(\)"),
        ({"labels": np.zeros((2, 0), int)}, r"n >= 1; got shape \(2, 0\)"),
        ({"per_class": 0}, "per_class >= 1, at most 100000000; got 0"),
        ({"per_class": 2**31}, "per_class >= 1, at most 100000000; got 2147483648"),
        ({"key": np.array([0, 1], np.uint32)}, r"one typed key.*; got uint32\[2\]"),
        ({"key": jax.random.split(KEY, 3)}, r"one typed key.*; got key<fry>\[3\]"),
        ({"key": 0}, r"one typed key.*; got int"),
    ],
)
def test_balance_says_what_is_wrong(change, message):
    given = {"key": KEY, "labels": [0, 1, 1], "per_class": 2, "num_classes": None} | change
    labels = np.asarray(given["labels"])
    with pytest.raises(ValueError, match=message):
        resampling.balance(
            given["key"], labels, given["per_class"], num_classes=given["num_classes"]
        )


def test_balance_under_jit_wants_the_number_of_classes():
    with pytest.raises(ValueError, match="num_classes as a static number under jit"):
        jax.jit(lambda y: resampling.balance(KEY, y, 2))(PAPER)


# leave_one_group_out, group_kfold


def test_leave_one_group_out_equals_sklearn():
    got = resampling.leave_one_group_out(GROUPS)
    want = LeaveOneGroupOut().split(GROUPS, groups=GROUPS)
    for split, (train, test) in zip(got, want, strict=True):
        np.testing.assert_array_equal(split.train, train)
        np.testing.assert_array_equal(split.test, test)
        check_partition(split, len(GROUPS))


def test_leave_one_group_out_takes_names():
    splits = resampling.leave_one_group_out(np.array(["sub-02", "sub-01", "sub-02"]))
    assert [split.test.tolist() for split in splits] == [[1], [0, 2]]


@quick
@given(
    groups=st.lists(st.integers(-5, 5), min_size=2, max_size=40),
    folds=st.integers(2, 6),
    seed=st.integers(0, 2**31 - 1),
)
def test_group_folds_law(groups, folds, seed):
    groups = np.array(groups)
    names = set(groups.tolist())
    if len(names) < folds:
        with pytest.raises(ValueError, match=f"at least {folds} groups; got {len(names)}"):
            resampling.group_kfold(jax.random.key(seed), groups, folds)
        return
    splits = resampling.group_kfold(jax.random.key(seed), groups, folds)
    for split in splits:
        check_partition(split, len(groups))
        assert not set(groups[split.train]) & set(groups[split.test])
    check_partition([np.array(split.test) for split in splits], len(groups))
    sizes = [len(set(groups[split.test])) for split in splits]
    assert len(sizes) == folds
    assert max(sizes) - min(sizes) <= 1


def test_group_kfold_depends_on_the_key_alone():
    groups = np.repeat(np.arange(22), 3)
    first, again, other = (
        [split.test.tolist() for split in resampling.group_kfold(k, groups, 5)]
        for k in (KEY, KEY, OTHER_KEY)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f(GROUPS, labels=LABELS), r"fold 1 \(group 5\), test; class 1 has no row"),
        (
            lambda f: f(np.array([0, 0, 1, 1]), labels=np.array([0, 1, 1, 1])),
            r"fold 0 \(group 0\), train; class 0 has no row",
        ),
        (
            lambda f: f(np.array([0, 1]), labels=np.array([0, 0]), num_classes=2),
            r"fold 0 \(group 0\), train; class 1 has no row",
        ),
        (lambda f: f(GROUPS[:2]), r"at least 2 groups; got 1: \[7\]"),
        (lambda f: f(GROUPS[None]), r"groups \[n\] of integers or strings; got int64\[1, 8\]"),
        (lambda f: f(GROUPS / 2), "integers or strings; got float64"),
        (lambda f: f(GROUPS, labels=LABELS[1:]), r"labels \[8\], one per row; got shape \(7,\)"),
        (lambda f: f(GROUPS, labels=LABELS / 2), "integer labels; got dtype float64"),
        (lambda f: f(GROUPS, labels=LABELS.astype(str)), "integer labels; got dtype <U"),
        (lambda f: f(GROUPS, labels=LABELS - 1), r"in \[0, 1\); got values from -1 to 0"),
        (lambda f: f(GROUPS, labels=LABELS, num_classes=1), r"in \[0, 1\); got values from 0 to 1"),
    ],
)
def test_leave_one_group_out_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(resampling.leave_one_group_out)


def test_group_kfold_says_what_is_wrong():
    with pytest.raises(ValueError, match="num_folds >= 2; got 1"):
        resampling.group_kfold(KEY, GROUPS, 1)
    with pytest.raises(ValueError, match=r"in fold \d, (train|test); class \d has no row"):
        resampling.group_kfold(KEY, GROUPS, 4, labels=LABELS)
    with pytest.raises(ValueError, match="one typed key"):
        resampling.group_kfold(0, GROUPS, 2)


# random_split, stratified_split, group_split


def test_splits_of_the_paper():
    labels = shuffled(np.repeat([1, 2], 1524), 0)  # neutral, negative
    parts = resampling.stratified_split(KEY, labels, (1950, 488, 610))
    check_partition(parts, 3048)
    assert [np.bincount(labels[p])[1:].tolist() for p in parts] == [[975] * 2, [244] * 2, [305] * 2]
    parts = resampling.random_split(KEY, 3048, (1950, 488, 610))
    check_partition(parts, 3048)
    assert [len(p) for p in parts] == [1950, 488, 610]


@pytest.mark.parametrize(
    ("num_rows", "fractions", "want"),
    [
        (10, (0.5, 0.5), [5, 5]),
        (
            3048,
            (0.64, 0.16, 0.2),
            [1951, 488, 609],
        ),  # remainders .72 .68 .6: the paper rounds twice
        (100, (0.29, 0.71), [29, 71]),
        (7, (1 / 3, 1 / 3, 1 / 3), [3, 2, 2]),  # ties go to the first
        (3, (0.9, 0.1), [2, 1]),  # 0.3 rows: takes one from the largest
        (4, (1.0,), [4]),
        (4, (4,), [4]),
    ],
)
def test_sizes_by_largest_remainder(num_rows, fractions, want):
    parts = resampling.random_split(KEY, num_rows, fractions)
    check_partition(parts, num_rows)
    assert [len(p) for p in parts] == want


def nearest_by_search(counts, sizes):
    """Returns the least squared distance from proportional of any table with these margins."""
    exact = np.outer(counts, sizes) / np.sum(counts)
    rows = [
        [row for row in itertools.product(*(range(s + 1) for s in sizes)) if sum(row) == n]
        for n in counts
    ]
    tables = (np.array(t) for t in itertools.product(*rows))
    return min(((t - exact) ** 2).sum() for t in tables if (t.sum(0) == sizes).all())


@settings(quick, max_examples=100)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=3), data=st.data())
def test_class_table_is_the_nearest_of_all(counts, data):
    total = sum(counts)
    cuts = data.draw(st.sets(st.integers(1, max(total - 1, 1)), max_size=2))
    sizes = np.diff([0, *sorted(cuts - {total}), total])
    table = nearest_table(np.array(counts), sizes)
    np.testing.assert_array_equal(table.sum(0), sizes)
    np.testing.assert_array_equal(table.sum(1), counts)
    assert table.min() >= 0
    exact = np.outer(counts, sizes) / total
    assert ((table - exact) ** 2).sum() == pytest.approx(nearest_by_search(counts, sizes))


@quick
@given(
    counts=st.lists(st.integers(20, 90), min_size=2, max_size=5),
    weights=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    seed=st.integers(0, 2**31 - 1),
)
def test_stratified_law(counts, weights, seed):
    labels = shuffled(np.repeat(np.arange(len(counts)) * 2, counts), seed)  # not 0, 1, 2, ...
    fractions = np.array(weights) / np.sum(weights)
    parts = resampling.stratified_split(jax.random.key(seed), labels, fractions)
    check_partition(parts, len(labels))
    sizes = np.array([len(p) for p in parts])
    assert np.abs(sizes - len(labels) * fractions).max() < 1
    for k, count in enumerate(counts):
        of_class = np.array([(labels[p] == 2 * k).sum() for p in parts])
        assert np.abs(of_class - count * sizes / len(labels)).max() < 1


def test_stratified_counts_agree_with_sklearn():
    labels = shuffled(np.repeat([0, 1, 2], [211, 97, 103]), 0)
    train, test = resampling.stratified_split(KEY, labels, (300, 111))
    sklearn_split = StratifiedShuffleSplit(1, train_size=300, test_size=111, random_state=0)
    for got, want in zip((train, test), next(sklearn_split.split(labels, labels)), strict=True):
        assert len(got) == len(want)
        # Both round 3 proportions to whole rows; scikit-learn draws who gets the rest.
        assert np.abs(np.bincount(labels[got]) - np.bincount(labels[want])).max() <= 1


@quick
@given(
    groups=st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=40),
    fractions=st.sampled_from([(0.5, 0.5), (0.8, 0.1, 0.1), (1 / 3, 2 / 3)]),
    seed=st.integers(0, 2**31 - 1),
)
def test_group_split_law(groups, fractions, seed):
    groups = np.array(groups)
    names = set(groups)
    key = jax.random.key(seed)
    if len(names) < len(fractions):
        with pytest.raises(ValueError, match=f"as many groups as parts; got {len(names)} for"):
            resampling.group_split(key, groups, fractions)
        return
    parts = resampling.group_split(key, groups, fractions)
    check_partition(parts, len(groups))
    in_part = [set(groups[p]) for p in parts]
    assert sum(map(len, in_part)) == len(names)  # no group in two parts
    assert min(map(len, in_part)) >= 1


def test_group_split_counts_groups():
    subject = np.repeat(np.arange(22), 200)
    parts = resampling.group_split(KEY, subject, (14, 3, 5), labels=np.arange(4400) % 3)
    assert [len(set(subject[p])) for p in parts] == [14, 3, 5]


def test_splits_depend_on_the_key_alone():
    groups, labels = np.arange(60) // 3, np.arange(60) % 2
    for split in (
        lambda key: resampling.random_split(key, 60, (0.5, 0.5)),
        lambda key: resampling.stratified_split(key, labels, (0.5, 0.5)),
        lambda key: resampling.group_split(key, groups, (0.5, 0.5)),
    ):
        first, again, other = (split(key)[0].tolist() for key in (KEY, KEY, OTHER_KEY))
        assert first == again
        assert first != other
    with jax.enable_x64(True):
        assert split(KEY)[0].tolist() == first


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((0.5, 0.4), r"fractions with sum 1 or sizes with sum 8; got \(0.5, 0.4\)"),
        ((4, 5), r"sizes with sum 8; got \(4, 5\)"),
        ((0.0, 1.0), r"one fraction > 0 per part; got \(0.0, 1.0\)"),
        ((-1, 9), r"fraction > 0 per part; got \(-1, 9\)"),
        ((float("nan"), 1.0), "fraction > 0 per part; got"),
        (("half", "half"), "fraction > 0 per part; got"),
        ((), r"fraction > 0 per part; got \(\)"),
        ((0.1,) * 10, "as many rows as parts; got 8 for 10"),
    ],
)
def test_fractions_say_what_is_wrong(fractions, message):
    with pytest.raises(ValueError, match=message):
        resampling.random_split(KEY, 8, fractions)
    with pytest.raises(ValueError, match=message):
        resampling.stratified_split(KEY, LABELS, fractions)


def test_splits_say_what_is_wrong():
    with pytest.raises(ValueError, match="in part 1; class 1 has no row"):
        resampling.stratified_split(KEY, np.array([0] * 9 + [1]), (0.5, 0.5))
    with pytest.raises(ValueError, match=r"in part \d; class \d has no row"):
        resampling.group_split(KEY, GROUPS, (0.25,) * 4, labels=LABELS)
    with pytest.raises(ValueError, match="as many groups as parts; got 4 for 5"):
        resampling.group_split(KEY, GROUPS, (0.2,) * 5)
    with pytest.raises(ValueError, match="sizes with sum 4"):
        resampling.group_split(KEY, GROUPS, (4, 4))
    with pytest.raises(ValueError, match=r"labels \[n\], one per row; got shape \(2, 4\)"):
        resampling.stratified_split(KEY, LABELS.reshape(2, 4), (0.5, 0.5))
    with pytest.raises(ValueError, match=r"labels \[n\], one per row; got shape \(0,\)"):
        resampling.stratified_split(KEY, LABELS[:0], (0.5, 0.5))


def test_require_classes():
    resampling.require_classes(LABELS, np.array([0, 1]), 2, "here")
    resampling.require_classes(LABELS + 1, np.array([0, 1]), None, "here")
    with pytest.raises(ValueError, match="want every class in here; class 1 has no row there"):
        resampling.require_classes(LABELS, np.array([0, 2]), None, "here")
    with pytest.raises(ValueError, match="in here; class 0 has no row"):
        resampling.require_classes(LABELS, np.array([], int), 2, "here")
