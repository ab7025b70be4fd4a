"""Confidence intervals against SciPy, their laws, and their coverage."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from emojax import metrics, statistics

KEY = jax.random.key(0)
bootstrap = partial(statistics.bootstrap_interval, num_samples=400)  # [8, 3, 1]: one compilation


def median(values):
    return jnp.median(values, axis=0)


# mean_interval

DRAWS = 5000
FOLDS = [4, 6, 7, 11]


def normal_folds(folds):
    """Draws scores of independent, equal folds, 5000 times; their expectation is 0.7."""
    return np.random.default_rng(folds).normal(0.7, 0.08, (folds, DRAWS))


def coverage(interval, truth=0.7):
    return float(((interval.low <= truth) & (truth <= interval.high)).mean())


@pytest.mark.parametrize("folds", FOLDS)
def test_mean_interval_covers_as_often_as_it_says(folds):
    values = normal_folds(folds)
    assert 0.93 <= coverage(statistics.mean_interval(values)) <= 0.97
    assert 0.88 <= coverage(statistics.mean_interval(values, level=0.9)) <= 0.92


@pytest.mark.parametrize("folds", [6, 11])
def test_the_bootstrap_would_not_have_passed(folds):
    draw = partial(statistics.bootstrap_interval, KEY, num_samples=1000)
    assert coverage(draw(normal_folds(folds).astype(np.float32))) < 0.92


@pytest.mark.parametrize("shape", [(6,), (2,), (5, 3, 2)])
def test_mean_interval_matches_scipy(shape):
    values = np.random.default_rng(0).gamma(2.0, size=shape)
    for level in (0.95, 0.5):
        got = statistics.mean_interval(values, level)
        want = scipy.stats.ttest_1samp(values, 0).confidence_interval(level)
        np.testing.assert_allclose([got.low, got.high], want, rtol=1e-12)
        np.testing.assert_allclose(got.estimate, values.mean(0), rtol=1e-15)
        assert {(x.shape, x.dtype) for x in got} == {(shape[1:], np.dtype("float64"))}


def test_mean_interval_of_jax_values_keeps_their_dtype(dtype):
    values = np.random.default_rng(0).normal(size=(6, 3))
    got = statistics.mean_interval(jnp.asarray(values, dtype))
    assert {x.dtype for x in got} == {dtype}
    np.testing.assert_allclose(got, statistics.mean_interval(values), rtol=1e-5, atol=1e-6)


def test_one_fold_has_an_estimate_and_no_limits():
    got = statistics.mean_interval(np.array([0.5]))
    assert got.estimate == 0.5 and np.isnan(got.low) and np.isnan(got.high)
    got = jax.jit(statistics.mean_interval)(jnp.ones((1, 2)))
    np.testing.assert_array_equal(got, [[1, 1], [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_array_equal(statistics.mean_interval(np.full(3, 0.25)), [0.25] * 3)


# clustered_interval


def groups_of(count, per_class=10, seed=0):
    """Draws volumes of equal groups that share how well they are decoded, 5000 times."""
    rng = np.random.default_rng([seed, count])
    labels = np.tile(np.arange(3), (count, per_class))
    for _ in range(DRAWS):
        skill = np.clip(rng.normal(0.7, 0.1, count), 0, 1)
        right = rng.random(labels.shape) < skill[:, None]
        yield labels.ravel(), np.where(right, labels, (labels + 1) % 3).ravel()


@pytest.mark.parametrize("count", FOLDS)
def test_clustered_interval_covers_as_often_as_it_says(count):
    groups, hits, alone = np.repeat(np.arange(count), 30), 0, 0
    for labels, predicted in groups_of(count):
        got = statistics.clustered_interval(labels, predicted, groups, 3)
        hits += got.low <= 0.7 <= got.high
        half = 1.96 * np.sqrt(got.estimate * (1 - got.estimate) / len(labels))
        alone += abs(got.estimate - 0.7) <= half
    assert 0.93 <= hits / DRAWS <= 0.97
    assert alone / DRAWS < 0.85  # as if volumes were independent


def test_clustered_interval_of_equal_groups_is_the_mean_interval():
    labels, predicted = next(groups_of(6))
    by_group = [
        metrics.balanced_accuracy(*pair, 3)
        for pair in zip(labels.reshape(6, 30), predicted.reshape(6, 30), strict=True)
    ]
    for level in (0.95, 0.8):
        want = statistics.mean_interval(np.array(by_group), level)
        got = statistics.clustered_interval(
            labels, predicted, np.repeat(list("cadbfe"), 30), 3, level
        )
        np.testing.assert_allclose(got, want, rtol=1e-6)
    assert {(x.shape, x.dtype) for x in got} == {((), np.dtype("float64"))}


def test_clustered_interval_is_the_jackknife_of_unequal_groups():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, (2, 60))
    groups = np.repeat([7, -1, 3, 8], [30, 15, 10, 5])
    whole = sklearn.metrics.balanced_accuracy_score(labels, predicted)
    without = [
        sklearn.metrics.balanced_accuracy_score(labels[groups != g], predicted[groups != g])
        for g in np.unique(groups)
    ]
    error = np.sqrt(3 / 4 * ((np.array(without) - whole) ** 2).sum())
    half = scipy.stats.t.ppf(0.975, 3) * error
    got = statistics.clustered_interval(labels, predicted, groups, 3)
    np.testing.assert_allclose(got, [whole, whole - half, whole + half], rtol=1e-12)


def test_clustered_interval_stays_between_0_and_1():
    labels, one = np.arange(4) % 2, np.ones(4)
    assert statistics.clustered_interval(labels, 0 * labels, one, 2) == (0.5, 0, 1)
    groups = np.repeat([0, 1, 2], 4)
    labels, predicted = np.tile(labels, 3), np.tile(labels, 3)
    assert statistics.clustered_interval(labels, predicted, groups, 2) == (1, 1, 1)
    predicted[0] = 1
    got = statistics.clustered_interval(labels, predicted, groups, 2)
    assert 0 < got.low < got.estimate < got.high == 1
    assert statistics.clustered_interval(labels, predicted, groups, 5) == got  # absent classes


# bootstrap_interval


def test_interval_matches_scipy(dtype):
    values = np.random.default_rng(0).gamma(2.0, size=20).astype(dtype)
    got = statistics.bootstrap_interval(KEY, values)
    want = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=0
    ).confidence_interval
    assert {x.dtype for x in got} == {dtype}
    np.testing.assert_allclose(got.estimate, values.mean(), rtol=1e-6)
    # A 2.5 % quantile of 10 000 draws has standard error 0.027; of two such, 4 are 0.15.
    atol = 0.15 * values.std() / 20**0.5
    np.testing.assert_allclose([got.low, got.high], want, atol=atol)


def test_other_statistics_match_scipy():
    values = np.random.default_rng(0).normal(size=(24, 2))
    got = statistics.bootstrap_interval(KEY, values, level=0.8, statistic=median)
    want = scipy.stats.bootstrap(
        (values,), np.median, n_resamples=10_000, method="percentile", confidence_level=0.8, rng=0
    ).confidence_interval
    np.testing.assert_allclose(got.estimate, np.median(values, 0), rtol=1e-6)
    # A resampled median jumps between order statistics: by 0.1 here.
    np.testing.assert_allclose([got.low, got.high], want, atol=0.11)


def test_mean_by_counts_equals_mean_of_resampled_rows():
    values = np.random.default_rng(0).normal(size=(8, 3, 1)).astype(np.float32)
    got, want = bootstrap(KEY, values), bootstrap(KEY, values, statistic=lambda x: x.mean(0))
    assert {x.shape for x in got} == {(3, 1)}
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), got, want)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    values = np.random.default_rng(0).normal(5.0, 1.0, (24, 1000)).astype(np.float32)
    got = bootstrap(KEY, values, level=0.9)
    covered = float(((got.low <= 5) & (got.high >= 5)).mean())
    # Normal quantiles and a standard deviation with ddof 0, where Student's would be right.
    z = scipy.stats.norm.ppf(0.95) * (23 / 24) ** 0.5
    assert abs(covered - (2 * scipy.stats.t.cdf(z, 23) - 1)) < 0.03


def test_interval_follows_units_and_orders_its_limits():
    values = np.random.default_rng(0).normal(size=(8, 3, 1)).astype(np.float32)
    draw = partial(bootstrap, KEY)
    got, moved = draw(values), draw(8 * values + 1e4)
    assert (got.low < got.estimate).all() and (got.estimate < got.high).all()
    # At 1e4, float32 has steps of 1e-3.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(8 * x + 1e4, y, atol=4e-3), got, moved)
    jax.tree.map(lambda x: np.testing.assert_array_equal(x, 3), draw(np.full((8, 3, 1), 3.0)))


def test_says_what_is_wrong_with_intervals():
    values = np.arange(6.0).reshape(3, 2)
    draw = partial(statistics.bootstrap_interval, KEY)
    with pytest.raises(ValueError, match=r"at least 2 subjects; got shape \(1, 2\)"):
        draw(values[:1])
    with pytest.raises(ValueError, match=r"at least 2 subjects; got shape \(\)"):
        draw(np.float32(1))
    with pytest.raises(ValueError, match="want num_samples >= 1; got 0"):
        draw(values, num_samples=0)
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match=f"want 0 < level < 1; got {level}"):
            draw(values, level=level)
    values[1, 1] = np.inf
    with pytest.raises(ValueError, match=r"finite values; got 1 NaN .* first at \(1, 1\)"):
        draw(values)


def test_says_what_is_wrong_with_folds_and_groups():
    with pytest.raises(ValueError, match=r"at least 1 fold; got shape \(0, 2\)"):
        statistics.mean_interval(np.ones((0, 2)))
    with pytest.raises(ValueError, match=r"at least 1 fold; got shape \(\)"):
        statistics.mean_interval(np.float64(1))
    with pytest.raises(ValueError, match=r"finite values; got 1 NaN .* first at \(1,\)"):
        statistics.mean_interval(np.array([0.0, np.nan]))
    x = np.array([0, 1, 0, 1])
    for level in (0, 1, 95):
        for interval in (
            partial(statistics.mean_interval, x),
            partial(statistics.clustered_interval, x, x, x, 2),
        ):
            with pytest.raises(ValueError, match=f"want 0 < level < 1; got {level}"):
                interval(level=level)
    with pytest.raises(ValueError, match=r"one length .*; got \(4,\), \(4,\), \(3,\)$"):
        statistics.clustered_interval(x, x, x[1:], 2)
    with pytest.raises(ValueError, match=r"samples >= 1\]; got \(0,\), \(0,\), \(0,\)"):
        statistics.clustered_interval(x[:0], x[:0], x[:0], 2)
    with pytest.raises(ValueError, match=r"want labels in \[0, 1\); got values from 0 to 1"):
        statistics.clustered_interval(x, x, x, 1)
    with pytest.raises(ValueError, match="want integer predicted; got dtype float64"):
        statistics.clustered_interval(x, x / 2, x, 2)
