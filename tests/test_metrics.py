"""metrics against scikit-learn, and the laws that scores of a classifier obey."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from emojax import metrics

laws = settings(max_examples=30, deadline=None, derandomize=True)
WITH_CLASSES = [
    metrics.balanced_accuracy,
    metrics.confusion_matrix,
    metrics.precision_recall_f1,
]


def make_labels(samples=200, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels, guess = rng.integers(0, classes, (2, samples))
    return labels, np.where(rng.random(samples) < 0.3, labels, guess)


def make_scores(dtype, samples=200, classes=3, decimals=1, seed=0):
    """Returns probabilities with many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    scores = np.round(rng.random((samples, classes)), decimals) + 0.1
    scores[np.arange(samples), labels] += 0.2
    return labels, (scores / scores.sum(1, keepdims=True)).astype(dtype)


def close(got, want, dtype):
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("classes", [2, 5])
def test_counts_match_sklearn(classes, dtype):
    labels, predicted = make_labels(classes=classes)
    close(
        metrics.accuracy(labels, predicted),
        sklearn_metrics.accuracy_score(labels, predicted),
        dtype,
    )
    close(
        metrics.balanced_accuracy(labels, predicted, classes),
        sklearn_metrics.balanced_accuracy_score(labels, predicted),
        dtype,
    )
    got = metrics.confusion_matrix(labels, predicted, classes)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, sklearn_metrics.confusion_matrix(labels, predicted))
    scores = metrics.precision_recall_f1(labels, predicted, classes)
    want = sklearn_metrics.precision_recall_fscore_support(labels, predicted, zero_division=0)
    for got, reference in zip(scores[:3], want[:3], strict=True):
        close(got, reference, dtype)
    assert scores.support.dtype == jnp.int32
    np.testing.assert_array_equal(scores.support, want[3])


def test_classes_that_are_absent_or_never_predicted(dtype):
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 3, 0, 0, 3])
    got = metrics.precision_recall_f1(labels, predicted, 5)
    want = sklearn_metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(5), zero_division=0
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)
    close(metrics.balanced_accuracy(labels, predicted, 5), (1 / 2 + 0) / 2, dtype)


def test_one_sample():
    one = np.array([1])
    assert metrics.accuracy(one, one) == 1
    assert metrics.balanced_accuracy(one, 0 * one, 2) == 0
    np.testing.assert_array_equal(metrics.confusion_matrix(one, 0 * one, 2), [[0, 0], [1, 0]])
    assert np.isnan(metrics.auc(one == 1, np.array([0.5])))
    curve = metrics.roc_curve(one == 1, np.array([0.5]))
    np.testing.assert_array_equal(curve.true_positive_rate, [0, 1])
    assert np.isnan(curve.false_positive_rate).all()


@pytest.mark.parametrize("samples", [41, 49])
def test_all_right_is_exactly_one(samples, dtype):
    ones = np.ones((2, samples), int)  # x * (1 / x) < 1 for 41 in float32, for 49 in float64
    assert (jax.jit(jax.vmap(metrics.accuracy))(ones, ones) == 1).all()


def test_a_label_out_of_range_inside_jit_is_counted_nowhere():
    labels, predicted = np.array([0, 1, -1, 5, 1]), np.array([0, 7, 0, 0, 1])
    got = jax.jit(partial(metrics.confusion_matrix, num_classes=2))(labels, predicted)
    np.testing.assert_array_equal(got, [[1, 0], [0, 1]])


@pytest.mark.parametrize("decimals", [1, 7], ids=["ties", "few ties"])
def test_roc_curve_matches_sklearn(decimals, dtype):
    labels, scores = make_scores(dtype, decimals=decimals)
    curve = metrics.roc_curve(labels == 1, scores[:, 1])
    assert [x.shape for x in curve] == [(len(labels) + 1,)] * 3
    want = np.array(
        sklearn_metrics.roc_curve(labels == 1, scores[:, 1], drop_intermediate=False), dtype
    )
    # Repeats follow one another, so dropping them leaves the points in order.
    points = np.array(curve)
    new = np.append(True, (points[:, 1:] != points[:, :-1]).any(0))
    close(points[:, new], want, dtype)
    area = sklearn_metrics.auc(*points[:2].astype(float))
    close(metrics.auc(labels == 1, scores[:, 1]), area, dtype)


def test_roc_auc_matches_sklearn(dtype):
    labels, scores = make_scores(dtype)
    got = metrics.roc_auc(labels, scores)
    for value, average in zip(got, (None, "micro", "macro"), strict=True):
        want = sklearn_metrics.roc_auc_score(labels, scores, multi_class="ovr", average=average)
        close(value, want, dtype)


def test_roc_auc_of_two_classes():
    dtype = np.float32
    labels, scores = make_scores(dtype, classes=2, decimals=7)
    got = metrics.roc_auc(labels, scores)
    want = sklearn_metrics.roc_auc_score(labels, scores[:, 1])
    close(got.per_class, [want, want], dtype)
    close(got.macro, want, dtype)
    pooled = sklearn_metrics.roc_auc_score(np.eye(2)[labels].ravel(), scores.ravel())
    close(got.micro, pooled, dtype)


def test_auc_loses_no_digits_on_many_samples():
    rng = np.random.default_rng(0)
    is_positive = rng.random(100_000) < 0.3
    scores = np.round(rng.normal(size=100_000) + is_positive, 3).astype(np.float32)
    got = metrics.auc(is_positive, scores)
    np.testing.assert_allclose(got, sklearn_metrics.roc_auc_score(is_positive, scores), rtol=3e-7)


def test_auc_at_the_largest_size_does_not_overflow():
    is_positive = np.arange(2_000_000) < 1_000_000
    scores = is_positive.astype(np.float32)
    assert metrics.auc(is_positive, scores) == 1


def test_a_missing_class_has_no_area(dtype):
    labels, scores = make_scores(dtype)
    labels = labels % 2
    got = metrics.roc_auc(labels, scores)
    np.testing.assert_array_equal(np.isnan(got.per_class), [False, False, True])
    assert np.isnan(got.macro)
    close(
        got.micro, sklearn_metrics.roc_auc_score(np.eye(3)[labels].ravel(), scores.ravel()), dtype
    )
    for everything in (True, False):
        assert np.isnan(metrics.auc(np.full(4, everything), np.arange(4.0)))


def test_brier_matches_sklearn(dtype):
    labels, p = make_scores(dtype)
    close(metrics.brier(labels, p), np.square(p - np.eye(3)[labels]).sum(1).mean(), dtype)
    labels, p = make_scores(dtype, classes=2)
    close(metrics.brier(labels, p), 2 * sklearn_metrics.brier_score_loss(labels, p[:, 1]), dtype)


def calibration_error(labels, p, bins):
    """Computes the definition, bin by bin, in float64."""
    confidence, right, error = p.max(1).astype(float), p.argmax(1) == labels, 0.0
    for b in range(bins):
        # Edges as the scores' dtype has them: 0.3 belongs to the bin that ends at 0.3.
        low, high = p.dtype.type(b / bins), p.dtype.type((b + 1) / bins)
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += abs(right[inside].mean() - confidence[inside].mean()) * inside.mean()
    return error


@pytest.mark.parametrize("bins", [1, 3, 10])
def test_calibration_error_matches_its_definition(bins, dtype):
    labels, p = make_scores(dtype, decimals=7)
    got = metrics.expected_calibration_error(labels, p, bins)
    close(got, calibration_error(labels, p, bins), dtype)
    rounded = np.array([[0.3, 0.7], [0.5, 0.5], [0.4, 0.6], [0.9, 0.1], [0.0, 1.0]], dtype)
    labels = np.array([0, 1, 1, 0, 1])
    got = metrics.expected_calibration_error(labels, rounded, bins)
    close(got, calibration_error(labels, rounded, bins), dtype)


def test_calibration_error_of_what_is_known():
    labels = np.arange(1000) % 4 // 3  # class 0 in three of four samples
    for p, want in ((0.75, 0), (0.95, 0.2), (0.55, 0.2), (1, 0.25)):
        given = np.tile([p, 1 - p], (1000, 1)).astype(np.float32)
        got = metrics.expected_calibration_error(labels, given)
        np.testing.assert_allclose(got, want, atol=1e-5)
    # Too sure in one bin and not sure enough in another: errors do not cancel.
    given = np.repeat([[0.95, 0.05], [0.55, 0.45]], 500, axis=0)
    np.testing.assert_allclose(
        metrics.expected_calibration_error(labels, given), (0.2 + 0.2) / 2, atol=1e-5
    )
    np.testing.assert_allclose(
        metrics.expected_calibration_error(labels, given, num_bins=1), 0, atol=1e-5
    )


@laws
@given(st.lists(st.integers(0, 2), min_size=12, max_size=12))
def test_certainty_has_the_scores_of_its_errors(predicted):
    labels, predicted = np.arange(12) % 3, np.array(predicted)
    certain = np.eye(3, dtype=np.float32)[predicted]
    wrong = (labels != predicted).mean()
    np.testing.assert_allclose(metrics.brier(labels, certain), 2 * wrong, rtol=1e-6)
    got = metrics.expected_calibration_error(labels, certain)
    np.testing.assert_allclose(got, wrong, rtol=1e-6)


TWO_CLASSES = st.lists(
    st.tuples(st.booleans(), st.integers(-3, 3)), min_size=12, max_size=12
).filter(lambda pairs: 0 < sum(p for p, _ in pairs) < 12)


@laws
@given(TWO_CLASSES)
def test_auc_is_the_chance_that_a_positive_outscores_a_negative(pairs):
    is_positive, scores = (np.array(x) for x in zip(*pairs, strict=True))
    wins = np.subtract.outer(scores[is_positive], scores[~is_positive])
    got = metrics.auc(is_positive, scores)
    np.testing.assert_allclose(got, ((wins > 0) + (wins == 0) / 2).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics.auc(~is_positive, scores), 1 - got, atol=1e-6)
    assert metrics.auc(is_positive, np.exp(scores / 2)) == got
    assert metrics.auc(is_positive, 0 * scores) == 0.5
    assert metrics.auc(is_positive[::-1], scores[::-1]) == got


@laws
@given(TWO_CLASSES)
def test_roc_curve_ascends_and_its_thresholds_reproduce_it(pairs):
    is_positive, scores = (np.array(x) for x in zip(*pairs, strict=True))
    curve = metrics.roc_curve(is_positive, scores)
    for rates, of in zip(curve[:2], (~is_positive, is_positive), strict=True):
        assert rates[0] == 0 and rates[-1] == 1 and (np.diff(rates) >= 0).all()
        want = (scores[of] >= np.array(curve.thresholds)[:, None]).mean(1)
        np.testing.assert_allclose(rates, want, rtol=1e-6)


@laws
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=15, max_size=15))
def test_counts_agree_with_each_other(pairs):
    labels, predicted = np.array(pairs).T
    counts = np.array(metrics.confusion_matrix(labels, predicted, 4))
    assert counts.sum() == 15
    np.testing.assert_array_equal(metrics.confusion_matrix(predicted, labels, 4), counts.T)
    np.testing.assert_allclose(
        metrics.accuracy(labels, predicted), np.trace(counts) / 15, rtol=1e-6
    )
    scores = metrics.precision_recall_f1(labels, predicted, 4)
    np.testing.assert_array_equal(scores.support, np.bincount(labels, minlength=4))
    swapped = metrics.precision_recall_f1(predicted, labels, 4)
    np.testing.assert_array_equal(scores.precision, swapped.recall)
    np.testing.assert_array_equal(scores.f1, swapped.f1)


def cases():
    labels, predicted = (x.reshape(4, 50) for x in make_labels())
    yield "accuracy", metrics.accuracy, (labels, predicted)
    for f in WITH_CLASSES:
        yield f.__name__, partial(f, num_classes=3), (labels, predicted)
    labels, scores = make_scores(np.float32)
    labels, scores = labels.reshape(4, 50), scores.reshape(4, 50, 3)
    yield "roc_auc", metrics.roc_auc, (labels, scores)
    yield "brier", metrics.brier, (labels, scores)
    yield "calibration", metrics.expected_calibration_error, (labels, scores)
    yield "auc", metrics.auc, (labels == 1, scores[..., 1])
    yield "roc_curve", metrics.roc_curve, (labels == 1, scores[..., 1])


@pytest.mark.parametrize(("f", "stacks"), [c[1:] for c in cases()], ids=[c[0] for c in cases()])
def test_jit_of_vmap_equals_a_loop(f, stacks):
    want = [f(*fold) for fold in zip(*stacks, strict=True)]
    want = jax.tree.map(lambda *x: np.stack(x), *want)
    got = jax.jit(jax.vmap(f))(*stacks)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), got, want)


def test_half_precision_scores_are_widened():
    labels, scores = make_scores(np.float16)
    want = metrics.roc_auc(labels, scores.astype(np.float32))
    jax.tree.map(np.testing.assert_array_equal, metrics.roc_auc(labels, scores), want)
    assert metrics.auc(labels == 1, jnp.asarray(scores[:, 1], jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("f", WITH_CLASSES)
def test_says_what_is_wrong_with_labels(f):
    labels, predicted = make_labels()
    with pytest.raises(ValueError, match=r"want labels and predicted .* got \(200,\), \(199,\)"):
        f(labels, predicted[1:], 3)
    with pytest.raises(ValueError, match=r"want labels in \[0, 2\); got values from 0 to 2"):
        f(labels, predicted, 2)
    with pytest.raises(ValueError, match=r"want predicted in \[0, 3\); got values from -1 to 1"):
        f(labels, predicted - 1, 3)
    with pytest.raises(ValueError, match="want integer predicted; got dtype float64"):
        f(labels, predicted.astype(float), 3)


def test_says_what_is_wrong_with_accuracy():
    labels, predicted = make_labels()
    with pytest.raises(ValueError, match=r"samples >= 1\]; got \(0,\), \(0,\)"):
        metrics.accuracy(labels[:0], predicted[:0])
    with pytest.raises(ValueError, match=r"got \(200, 1\), \(200, 1\)"):
        metrics.accuracy(labels[:, None], predicted[:, None])
    with pytest.raises(ValueError, match="want integer labels; got dtype bool"):
        metrics.accuracy(labels == 1, predicted)


@pytest.mark.parametrize("f", [metrics.auc, metrics.roc_curve])
def test_says_what_is_wrong_with_binary_scores(f):
    labels, scores = make_scores(np.float32)
    is_positive, scores = labels == 1, scores[:, 1].copy()
    with pytest.raises(ValueError, match=r"want is_positive and scores .* got \(200,\), \(199,\)"):
        f(is_positive, scores[1:])
    with pytest.raises(ValueError, match=r"samples >= 1\]; got \(0,\), \(0,\)"):
        f(is_positive[:0], scores[:0])
    with pytest.raises(ValueError, match="want bool is_positive; got dtype int64"):
        f(labels, scores)
    scores[[3, 8]] = np.nan
    with pytest.raises(ValueError, match=r"finite scores; got 2 NaN .* first at \(3,\)"):
        f(is_positive, scores)


def test_says_what_is_wrong_with_roc_auc():
    labels, scores = make_scores(np.float32)
    with pytest.raises(ValueError, match=r"want labels \[samples\] .* got \(199,\), \(200, 3\)"):
        metrics.roc_auc(labels[1:], scores)
    with pytest.raises(ValueError, match=r"samples >= 1; got \(0,\), \(0, 3\)"):
        metrics.roc_auc(labels[:0], scores[:0])
    with pytest.raises(ValueError, match=r"at least 2 classes; got shape \(200, 1\)"):
        metrics.roc_auc(labels, scores[:, :1])
    with pytest.raises(ValueError, match=r"want labels in \[0, 2\); got values from 0 to 2"):
        metrics.roc_auc(labels, scores[:, :2])
    scores[3, 2] = np.inf
    with pytest.raises(ValueError, match=r"finite scores; got 1 NaN .* first at \(3, 2\)"):
        metrics.roc_auc(labels, scores)


@pytest.mark.parametrize("f", [metrics.brier, metrics.expected_calibration_error])
def test_says_what_is_wrong_with_probabilities(f):
    labels, p = make_scores(np.float32)
    with pytest.raises(ValueError, match=r"labels \[samples\] and prob.* got \(199,\), \(200, 3\)"):
        f(labels[1:], p)
    with pytest.raises(
        ValueError, match=r"probabilities of at least 2 classes; got shape \(200, 1"
    ):
        f(labels, p[:, :1])
    with pytest.raises(ValueError, match=r"want labels in \[0, 2\); got values from 0 to 2"):
        f(labels, p[:, :2])
    with pytest.raises(ValueError, match=r"in \[0, 1\] whose rows sum to 1; .* sums from 2 to 2"):
        f(labels, 2 * p)
    with pytest.raises(ValueError, match=r"rows sum to 1; got values from -1 to 1, sums from 1"):
        f(np.array([0]), np.array([[-1.0, 1.0, 1.0]]))
    p[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"finite probabilities; got 1 NaN .* first at \(3, 2\)"):
        f(labels, p)


def test_says_that_a_bin_is_wanted():
    labels, p = make_scores(np.float32)
    with pytest.raises(ValueError, match="want num_bins >= 1; got 0"):
        metrics.expected_calibration_error(labels, p, 0)


def test_says_when_there_are_too_many_scores():
    many = np.zeros(2_000_001, np.float32)
    with pytest.raises(ValueError, match=r"at most 2000000 scores; got shape \(2000001,\)"):
        metrics.auc(many > 0, many)
    with pytest.raises(ValueError, match=r"at most 2000000 scores; got shape \(1000000, 3\)"):
        metrics.roc_auc(np.zeros(1_000_000, int), np.zeros((1_000_000, 3), np.float32))
