"""Tests of significance against SciPy and enumeration, their laws, and their error rates."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax import metrics, statistics
from emojax._numerics import draws

KEY = jax.random.key(0)
laws = settings(max_examples=25, deadline=None, derandomize=True)
RUNS = np.array([7, -2, 7, 7, -2, 2**40, 7, -2])  # not contiguous, beyond int32


# Tests share these sizes, and so compiled programs: compiling random draws is what takes the time.
permute = partial(statistics.permutation_test, num_permutations=99)  # 24 samples
bootstrap = partial(statistics.bootstrap_interval, num_samples=400)  # [8, 3, 1]
paired = partial(statistics.paired_test, num_permutations=127)  # 24 folds


def mean_difference(labels, predicted):
    """Returns a statistic without ties: mean score of class 1 minus that of class 0."""
    return jnp.mean(predicted * (2 * labels - 1))


def rejected(p, level=0.05):
    return float((np.array(p) <= level).mean())


# permute_within


@laws
@given(st.lists(st.sampled_from([0, 3, -5, 2**40]), min_size=8, max_size=8), st.integers(0, 2**31))
def test_permutes_and_every_sample_stays_in_its_run(runs, seed):
    runs = np.array(runs)
    index = statistics.permute_within(jax.random.key(seed), runs)
    assert index.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(index), np.arange(8))
    np.testing.assert_array_equal(runs[index], runs)


def test_all_permutations_within_runs_are_equally_likely():
    runs = np.array([1, 0, 1, 1, 0])
    keys = jax.random.split(KEY, 12_000)
    drawn = jax.vmap(statistics.permute_within, in_axes=(0, None))(keys, runs)
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 12  # 3! 2!
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_a_single_sample_stays():
    assert statistics.permute_within(KEY, np.array([3])).tolist() == [0]


# permutation_test


def test_p_converges_to_the_enumerated_one(dtype):
    runs = np.array([0, 1, 0, 1, 0, 1, 0])
    labels, predicted = np.array([0, 1, 1, 0, 0, 0, 1]), np.array([0, 1, 1, 0, 0, 1, 0])
    a, b = np.flatnonzero(runs == 0), np.flatnonzero(runs == 1)
    scores = []
    for order in itertools.product(itertools.permutations(a), itertools.permutations(b)):
        moved = labels.copy()
        moved[a], moved[b] = labels[list(order[0])], labels[list(order[1])]
        scores.append((moved == predicted).mean())
    got = statistics.permutation_test(KEY, labels, predicted, runs, num_permutations=4000)
    assert (
        got.null.shape == (4000,) and got.null.dtype == got.observed.dtype == got.p.dtype == dtype
    )
    want = (np.array(scores) >= 5 / 7 - 1e-9).mean()
    np.testing.assert_allclose(got.observed, 5 / 7, rtol=1e-6)
    np.testing.assert_allclose(got.p, want, atol=4 * (want * (1 - want) / 4000) ** 0.5)
    count = (np.array(got.null) >= np.array(got.observed)).sum()
    np.testing.assert_allclose(got.p, (1 + count) / 4001, rtol=1e-6)


def test_perfect_predictions_get_the_smallest_p_and_constant_labels_get_one():
    runs, labels = np.repeat([0, 1], 12), np.tile([0, 1], 12)
    got = permute(KEY, labels, labels, runs)
    assert (got.observed, got.p) == (1, np.float32(0.01))
    got = permute(KEY, runs, runs, runs)
    assert (got.observed, got.p) == (1, 1)


def test_statistics_of_scores_and_of_classes():
    rng = np.random.default_rng(0)
    labels, runs = np.arange(24) % 3, np.repeat(np.arange(2), 12)
    scores = rng.random((24, 3)) + np.eye(3)[labels]
    got = permute(KEY, labels, scores, runs, statistic=lambda y, s: metrics.auc(y == 1, s[:, 1]))
    assert got.observed == metrics.auc(labels == 1, scores[:, 1])
    np.testing.assert_allclose(got.null.mean(), 0.5, atol=0.04)
    assert got.p == np.float32(0.01)
    balanced = partial(metrics.balanced_accuracy, num_classes=3)
    got = permute(KEY, labels, scores.argmax(1), runs, statistic=balanced)
    np.testing.assert_allclose(got.null.mean(), 1 / 3, atol=0.04)


def test_a_statistic_that_is_nan_counts_against():
    x = np.arange(24) % 2
    got = permute(KEY, x, x, 0 * x, statistic=lambda y, p: jnp.where((y == p).all(), 1.0, jnp.nan))
    assert got.p == 1


def test_p_is_uniform_under_the_null():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, (400, 24)), rng.normal(size=(400, 24)).astype(np.float32)
    test = partial(permute, statistic=mean_difference)
    runs = np.repeat(np.arange(3), 8)
    p = jax.vmap(test, in_axes=(0, 0, 0, None))(jax.random.split(KEY, 400), labels, scores, runs).p
    assert scipy.stats.kstest(np.array(p) - 0.005, "uniform").pvalue > 0.01
    assert abs(rejected(p) - 0.05) < 0.03


def test_knowing_the_run_is_no_skill():
    # Class 1 prevails in odd runs, and the predictions know the run and nothing else.
    rng = np.random.default_rng(1)
    runs = np.tile(np.arange(4), 6)
    odd = runs % 2
    labels, predicted = (odd ^ (rng.random((200, 24)) < 0.1) for _ in range(2))
    test = jax.vmap(permute, (0, 0, 0, None))
    keys = jax.random.split(KEY, 200)
    assert rejected(test(keys, labels, predicted, runs).p) <= 0.08
    assert rejected(test(keys, labels, predicted, 0 * runs).p) > 0.7


def test_blocks_keep_the_level_where_single_volumes_do_not():
    # Labels and predictions are constant over blocks of four, and independent of each other.
    rng = np.random.default_rng(2)
    blocks, runs = np.repeat(np.arange(6), 4), np.zeros(24, int)
    labels, predicted = np.repeat(rng.integers(0, 2, (2, 200, 6)), 4, axis=-1)

    def test(blocks):
        over = jax.vmap(partial(permute, blocks=blocks), (0, 0, 0, None))
        return over(jax.random.split(KEY, 200), labels, predicted, runs).p

    assert rejected(test(blocks)) <= 0.08
    assert rejected(test(None)) > 0.15


def test_blocks_exchange_labels_within_runs():
    runs = np.array([0, 1, 0, 1, 0, 0, 1])
    blocks = np.array([5, 5, 5, 9, 6, 6, 5])  # ids restart; block 5 of run 1 is another block
    labels = np.array([0, 2, 0, 3, 1, 1, 2])

    def pack(labels, predicted):  # shows the permuted labels themselves, as a number
        return (labels * 4 ** jnp.arange(7)).sum()

    got = statistics.permutation_test(
        KEY, labels, labels, runs, blocks=blocks, statistic=pack, num_permutations=200
    )
    seen = {tuple(int(code) // 4**i % 4 for i in range(7)) for code in np.array(got.null)}
    run_0, run_1 = [(0, 0, 1, 1), (1, 1, 0, 0)], [(2, 3, 2), (3, 2, 3)]
    want = set()
    for x, y in itertools.product(run_0, run_1):
        want.add((x[0], y[0], x[1], y[1], x[2], x[3], y[2]))
    assert seen == want


def test_blocks_of_one_volume_are_volumes():
    labels, predicted = np.random.default_rng(0).integers(0, 2, (2, 24))
    runs = np.tile(RUNS, 3)
    one = permute(KEY, labels, predicted, runs)
    two = permute(KEY, labels, predicted, runs, blocks=np.arange(24))
    np.testing.assert_array_equal(one.null, two.null)


# paired_test


@pytest.mark.parametrize("folds", [2, 5, 11])
def test_exact_p_matches_scipy(folds, dtype):
    rng = np.random.default_rng(folds)
    a = rng.normal(0.1, 0.1, folds).astype(dtype)
    b = rng.normal(0.0, 0.1, folds).astype(dtype)
    got = statistics.paired_test(KEY, a, b)
    want = scipy.stats.permutation_test(
        (a.astype(float), b.astype(float)),
        lambda a, b, axis: (a - b).mean(axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert got.exact and got.p.dtype == got.difference.dtype == dtype
    np.testing.assert_allclose(got.difference, want.statistic, rtol=1e-5)
    np.testing.assert_allclose(got.p, want.pvalue, rtol=1e-6)


@laws
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=8, max_size=8))
def test_ties_of_rounded_accuracies_are_counted(pairs):
    a, b = np.array(pairs).T
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    want = (abs(signs @ (a - b)) >= abs((a - b).sum())).mean()
    single = [(x / 20).astype(np.float32) for x in (a, b)]
    got = statistics.paired_test(KEY, *single)
    assert got.p == np.float32(want)
    swapped = statistics.paired_test(KEY, *single[::-1])
    assert (swapped.p, swapped.difference) == (got.p, -got.difference)


def test_one_fold_equal_methods_and_the_largest_enumeration():
    one = np.array([0.5])
    assert statistics.paired_test(KEY, one, 0 * one) == (0.5, 1, True)
    assert statistics.paired_test(KEY, np.arange(9.0), np.arange(9.0)) == (0, 1, True)
    got = statistics.paired_test(KEY, np.linspace(1, 2, 16), np.zeros(16))
    assert (got.p, got.exact) == (2 / 2**16, True)


def test_monte_carlo_agrees_with_enumeration(dtype):
    a = np.random.default_rng(0).normal(0.3, 1.0, 17).astype(dtype)
    got = statistics.paired_test(KEY, a, np.zeros_like(a))
    signs = 1 - 2 * (np.arange(2**17)[:, None] >> np.arange(17) & 1)
    want = (abs(signs @ a.astype(float)) >= abs(a.astype(float).sum()) - 1e-9).mean()
    assert not got.exact and got.p.dtype == dtype
    np.testing.assert_allclose(got.p, want, atol=4 * (want * (1 - want) / 10_000) ** 0.5)


@pytest.mark.parametrize("folds", [7, 24], ids=["exact", "Monte Carlo"])
def test_paired_p_is_uniform_under_the_null(folds):
    a, b = np.random.default_rng(0).normal(size=(2, 1000, folds)).astype(np.float32)
    a[0], b[0] = 1, 0  # no other pattern is as extreme, except all signs flipped
    p = np.array(jax.vmap(paired)(jax.random.split(KEY, 1000), a, b).p)
    assert p[0] == (2 / 2**7 if folds == 7 else 1 / 128)
    for level in (4 / 128, 16 / 128, 64 / 128):
        error = 4 * (level * (1 - level) / 1000) ** 0.5
        assert abs(rejected(p, level) - level) < error


# holm


def holm_by_hand(p):
    """Applies Holm step by step: the smallest p against all tests, the next against one fewer."""
    out, worst = np.zeros(len(p)), 0.0
    for k, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        worst = max(worst, min(1.0, (len(p) - k) * p[i]))
        out[i] = worst
    return out


@laws
@given(st.lists(st.floats(0, 1), max_size=9))
def test_holm_by_hand(p):
    found = statistics.holm(np.array(p))
    np.testing.assert_allclose(found, holm_by_hand(p))
    assert found.dtype == np.float64 and (found >= p).all() and (found <= 1).all()
    assert (statistics.holm(np.array(p[::-1])) == found[::-1]).all()  # equal p, equal result


def test_holm_of_a_textbook_family():
    found = statistics.holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm(np.array([0.2])), [0.2])


def test_holm_keeps_the_error_of_the_family():
    p = np.random.default_rng(0).uniform(size=(2000, 5))
    p[:, 4] /= 1e6  # one effect is real
    wrong = [(statistics.holm(row)[:4] <= 0.05).any() for row in p]
    assert np.mean(wrong) < 0.065  # sd .005
    assert np.mean((p[:, :4] <= 0.05).any(1)) > 0.15  # without it


def test_holm_under_jit_and_vmap():
    p = np.random.default_rng(0).uniform(size=(6, 5)).astype(np.float32) / 3
    want = np.stack([statistics.holm(row) for row in p])
    np.testing.assert_allclose(jax.jit(jax.vmap(statistics.holm))(jnp.asarray(p)), want, rtol=1e-6)


def test_holm_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"want p in \[0, 1\]; got -0.1 to 0.5"):
        statistics.holm(np.array([0.5, -0.1]))
    with pytest.raises(ValueError, match=r"got nan to nan"):
        statistics.holm(np.array([0.5, np.nan]))
    with pytest.raises(ValueError, match=r"want p \[tests\]; got shape \(\)"):
        statistics.holm(np.array(0.5))


# keys, transforms, messages


def cases():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 2, (2, 2, 24))
    runs, keys = np.tile(np.arange(4), (2, 6)), jax.random.split(KEY)
    values = rng.normal(size=(2, 2, 24)).astype(np.float32)
    few = values[0].reshape(2, 8, 3, 1)
    yield "permute_within", statistics.permute_within, (keys, runs)
    yield "permutation_test", permute, (keys, labels, predicted, runs)
    yield "bootstrap_interval", bootstrap, (keys, few)
    yield "mean_interval", statistics.mean_interval, (jnp.asarray(few),)
    yield "exact", statistics.paired_test, (keys, *values[..., :5])
    yield "Monte Carlo", paired, (keys, *values)


@pytest.mark.parametrize(("f", "stacks"), [c[1:] for c in cases()], ids=[c[0] for c in cases()])
def test_jit_of_vmap_equals_a_loop(f, stacks):
    want = [f(*fold) for fold in zip(*stacks, strict=True)]
    want = jax.tree.map(lambda *x: np.stack(x), *want)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, jax.jit(jax.vmap(f))(*stacks), want)


@pytest.mark.parametrize(
    "case", [c for c in cases() if c[0] not in ("exact", "mean_interval")], ids=lambda c: c[0]
)
def test_another_key_draws_otherwise(case):
    _, f, stacks = case
    rest = [x[0] for x in stacks[1:]]
    one, two = (jax.tree.leaves(f(jax.random.key(seed), *rest)) for seed in (0, 1))
    assert not all(np.array_equal(x, y) for x, y in zip(one, two, strict=True))


def test_jit_over_the_key_alone():
    # Shapes and ids are then known while the caller is traced, and still checked.
    x = np.arange(24) % 2
    inside = jax.jit(lambda key: permute(key, x, x, 0 * x, blocks=np.arange(24)).p)
    assert inside(KEY) == permute(KEY, x, x, 0 * x, blocks=np.arange(24)).p
    with pytest.raises(ValueError, match="one label per block"):
        jax.jit(lambda key: permute(key, x, x, 0 * x, blocks=0 * x))(KEY)


@pytest.mark.parametrize(
    "f",
    [
        statistics.permute_within,
        lambda key, x: statistics.permutation_test(key, x, x, x),
        statistics.bootstrap_interval,
        lambda key, x: statistics.paired_test(key, x, x),
    ],
    ids=["permute_within", "permutation_test", "bootstrap_interval", "paired_test"],
)
def test_says_that_a_key_is_wanted(f):
    x = np.arange(4)
    with pytest.raises(ValueError, match=r"one typed key.*; got key<fry>\[2\]"):
        f(jax.random.split(KEY), x)
    with pytest.raises(ValueError, match=r"one typed key.*; got uint32\[2\]"):
        f(jax.random.key_data(KEY), x)
    with pytest.raises(ValueError, match=r"one typed key.*; got int\[\]"):
        f(0, x)


def test_says_what_is_wrong_with_permutations():
    x = np.array([0, 1, 0, 1])
    test = partial(statistics.permutation_test, KEY)
    with pytest.raises(ValueError, match=r"one length .*; got \(4,\), \(4,\), \(3,\)$"):
        test(x, x, x[1:])
    with pytest.raises(ValueError, match=r"one length .*; got \(4,\), \(4,\), \(4,\), \(3,\)$"):
        test(x, x, x, blocks=x[1:])
    with pytest.raises(ValueError, match=r"samples >= 1\]; got \(0,\)"):
        test(x[:0], x[:0], x[:0])
    with pytest.raises(ValueError, match="want integer labels; got dtype float64"):
        test(x / 2, x, x)
    with pytest.raises(ValueError, match="want integer runs; got dtype float64"):
        test(x, x, x / 2)
    with pytest.raises(ValueError, match="want integer blocks; got dtype float64"):
        test(x, x, x, blocks=x / 2)
    with pytest.raises(ValueError, match=r"finite predicted; got 4 NaN .* first at \(0,\)"):
        test(x, x * np.nan, x)
    with pytest.raises(ValueError, match="want num_permutations >= 1; got 0"):
        test(x, x, x, num_permutations=0)
    with pytest.raises(ValueError, match="one label per block; got several in block 9 of run 7"):
        test(x, x, np.full(4, 7), blocks=np.array([8, 9, 8, 9]) + (x > 5) + np.array([0, 0, 1, 0]))
    with pytest.raises(ValueError, match=r"statistic that is a scalar; got shape \(4,\)"):
        test(x, x, x, statistic=lambda labels, predicted: labels == predicted)
    with pytest.raises(ValueError, match=r"want runs \[samples >= 1\]; got shape \(2, 2\)"):
        statistics.permute_within(KEY, x.reshape(2, 2))
    with pytest.raises(ValueError, match="want integer runs; got dtype float64"):
        statistics.permute_within(KEY, x / 2)


def test_says_what_is_wrong_with_pairs():
    a = np.arange(4.0)
    with pytest.raises(ValueError, match=r"want a and b of one shape .* got \(4,\), \(3,\)"):
        statistics.paired_test(KEY, a, a[1:])
    with pytest.raises(ValueError, match=r"folds >= 1\]; got \(0,\), \(0,\)"):
        statistics.paired_test(KEY, a[:0], a[:0])
    with pytest.raises(ValueError, match="want num_permutations >= 1; got -1"):
        statistics.paired_test(KEY, a, a, num_permutations=-1)
    for name, pair in (("a", (a * np.nan, a)), ("b", (a, a * np.nan))):
        with pytest.raises(ValueError, match=f"want finite {name}; got 4 NaN"):
            statistics.paired_test(KEY, *pair)


# Last, since it drops the compiled programs that the other tests share.
@pytest.mark.parametrize("name", ["permutation_test", "bootstrap_interval"])
def test_the_key_decides_and_the_chunks_do_not(name, monkeypatch):
    f, stacks = {c[0]: c[1:] for c in cases()}[name]
    one = [x[0] for x in stacks]
    want = f(*one)
    jax.tree.map(np.testing.assert_array_equal, f(*one), want)
    jitted = {"permutation_test": "permutation_test", "bootstrap_interval": "bootstrap"}[name]
    jitted = getattr(draws, jitted)
    monkeypatch.setattr(draws, "_CHUNK", 1000)  # a few draws at a time, and a remainder
    jitted.clear_cache()
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), f(*one), want)
    jitted.clear_cache()
