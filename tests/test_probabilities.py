"""Scores of probabilities and temperatures, against scikit-learn and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import optimize, special
from sklearn import metrics as sklearn_metrics

from emojax import metrics
from emojax.scoring import scores


def make(n=120, classes=3, sharpness=3.0, seed=0):
    """Returns labels and logits that are too sure by `sharpness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    odds = special.softmax(logits, axis=1)
    labels = (odds.cumsum(1) > rng.random((n, 1))).argmax(1)
    return labels, sharpness * logits


def best(labels, logits, weights=None):
    """Returns the temperature of the least NLL, found by scipy in float64."""

    def nll(b):
        losses = special.logsumexp(b * logits, axis=1) - b * logits[np.arange(len(labels)), labels]
        return np.average(losses, weights=weights)

    found = optimize.minimize_scalar(nll, (0.02, 1.0), (0.01, 20), method="bounded")
    return 1 / found.x


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_nll_is_the_log_loss_of_sklearn(classes, dtype):
    labels, logits = make(classes=classes)
    p = special.softmax(logits, axis=1)
    got = metrics.nll(labels, p.astype(dtype))
    want = sklearn_metrics.log_loss(labels, p, labels=range(classes))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert got.dtype == dtype
    want = sum(sklearn_metrics.brier_score_loss(labels == k, p[:, k]) for k in range(classes))
    np.testing.assert_allclose(metrics.brier(labels, p.astype(dtype)), want, rtol=1e-5)


def test_nll_of_a_certain_error_is_finite():
    got = metrics.nll(np.array([0, 1]), np.eye(2, dtype=np.float32)[::-1])
    assert got == pytest.approx(-np.log(np.finfo(np.float32).tiny), rel=1e-6)


def test_ece_and_reliability_bin_by_bin():
    labels, logits = make(500)
    p = special.softmax(logits, axis=1).astype(np.float32)
    confidence, right = p.max(1), p.argmax(1) == labels
    found, want = metrics.reliability(labels, p), 0.0
    assert len(found.count) == 15 and found.count.sum() == 500
    for b in range(15):
        here = (confidence > np.float32(b / 15)) & (confidence <= np.float32((b + 1) / 15))
        assert found.count[b] == here.sum()
        if not here.any():
            assert np.isnan(found.confidence[b]) and np.isnan(found.accuracy[b])
            continue
        assert found.confidence[b] == pytest.approx(confidence[here].mean(), rel=1e-5)
        assert found.accuracy[b] == pytest.approx(right[here].mean(), rel=1e-5)
        want += here.mean() * abs(right[here].mean() - confidence[here].mean())
    assert metrics.ece(labels, p) == pytest.approx(want, rel=1e-5)
    assert metrics.ece(labels, p) == metrics.expected_calibration_error(labels, p, 15)
    with pytest.raises(ValueError, match="want num_bins >= 1; got 0"):
        metrics.reliability(labels, p, 0)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 3.0, 12.0])
def test_temperature_is_that_of_scipy(sharpness, dtype):
    labels, logits = make(sharpness=sharpness)
    got = metrics.temperature_fit(logits.astype(dtype), labels)
    assert got == pytest.approx(best(labels, logits), rel=2e-4) and got.dtype == dtype
    logs = special.log_softmax(logits, axis=1).astype(dtype)
    assert metrics.temperature_fit(logs, labels) == pytest.approx(float(got), rel=1e-4)


def test_weights_are_repeats():
    labels, logits = make()
    counts = np.random.default_rng(1).integers(0, 4, len(labels))
    got = metrics.temperature_fit(logits, labels, counts)
    rows = np.repeat(np.arange(len(labels)), counts)
    assert got == pytest.approx(
        float(metrics.temperature_fit(logits[rows], labels[rows])), rel=1e-5
    )
    assert got == pytest.approx(best(labels, logits, counts), rel=2e-4)
    assert got == pytest.approx(float(metrics.temperature_fit(logits, labels, 7.0 * counts)))


def test_temperature_makes_what_is_too_sure_right():
    labels, logits = make(20_000, sharpness=3.0)
    found = metrics.temperature_fit(logits, labels)
    assert found == pytest.approx(3, rel=0.05)
    before, after = (metrics.apply_temperature(logits, t) for t in (1.0, found))
    assert metrics.ece(labels, after) < 0.02 < 0.1 < metrics.ece(labels, before)
    assert metrics.nll(labels, after) < metrics.nll(labels, before)
    np.testing.assert_array_equal(after.argmax(1), before.argmax(1))
    np.testing.assert_allclose(after, special.softmax(logits / float(found), axis=1), rtol=1e-4)


def test_temperature_at_the_ends():
    labels = np.arange(30) % 3
    sure = np.eye(3)[labels]
    assert metrics.temperature_fit(sure, labels) == pytest.approx(0.05)  # no minimum
    assert metrics.temperature_fit(-sure, labels) == pytest.approx(100)
    assert metrics.temperature_fit(np.ones((30, 3)), labels) == 1  # no temperature changes it


def test_transforms_of_the_pure_functions():
    made = [make(seed=seed) for seed in range(4)]
    labels, logits = (np.stack(parts) for parts in zip(*made, strict=True))
    p = special.softmax(logits, axis=2).astype(np.float32)
    weights = np.random.default_rng(0).random(labels.shape).astype(np.float32)
    for f, stacks in (
        (metrics.nll, (labels, p)),
        (metrics.ece, (labels, p)),
        (metrics.reliability, (labels, p)),
        (metrics.temperature_fit, (logits, labels)),
        (metrics.temperature_fit, (logits, labels, weights)),
        (metrics.apply_temperature, (logits, np.arange(1.0, 5))),
    ):
        want = [f(*fold) for fold in zip(*stacks, strict=True)]
        got = jax.jit(jax.vmap(f))(*stacks)
        want = jax.tree.map(lambda *x: np.stack(x), *want)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), got, want)


@pytest.mark.usefixtures("x64")
def test_gradients_are_those_of_finite_differences():
    labels, logits = make(12)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, 12)
    logits, weights = jnp.asarray(logits), jnp.asarray(weights)
    f = lambda logits, weights: metrics.temperature_fit(logits, labels, weights)  # noqa: E731
    check_grads(f, (logits, weights), order=1, modes=["rev"], atol=1e-4, rtol=1e-4)
    g = lambda logits: metrics.nll(labels, metrics.apply_temperature(logits, 2.0))  # noqa: E731
    check_grads(g, (logits,), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def test_says_what_is_wrong():
    labels, logits = make()
    with pytest.raises(ValueError, match=r"labels \[samples\] and logits .* got \(119,\)"):
        metrics.temperature_fit(logits, labels[1:])
    with pytest.raises(ValueError, match=r"want weights of the shape of labels, \(120,\); got \(3"):
        metrics.temperature_fit(logits, labels, np.ones(3))
    with pytest.raises(ValueError, match="want weights >= 0 with a sum > 0; got -1 to -1"):
        metrics.temperature_fit(logits, labels, -np.ones(120))
    with pytest.raises(ValueError, match="finite logits"):
        metrics.temperature_fit(np.where(logits > 1, -np.inf, logits), labels)
    with pytest.raises(ValueError, match="want a temperature > 0; got 0"):
        metrics.apply_temperature(logits, 0.0)
    with pytest.raises(ValueError, match="rows sum to 1"):
        metrics.nll(labels, logits)


def test_temperature_of_a_network_that_is_always_right_is_finite():
    labels = np.arange(60) % 3
    p = special.softmax(4 * np.eye(3)[labels], axis=1).astype(np.float32)
    found = scores.fit_temperature(labels, p)
    sure = scores.with_temperature(p, found)[np.arange(60), labels]
    assert 0.05 < found < 3 and sure == pytest.approx((60 + 1 / 3) / 61, abs=1e-3)
    labels, logits = make(20_000)
    found = scores.fit_temperature(labels, special.softmax(logits, axis=1))
    assert found == pytest.approx(float(metrics.temperature_fit(logits, labels)), rel=1e-3)


def test_scores_with_base_rates_blocks_and_temperature():
    labels, logits = make(60)
    labels = np.sort(labels)
    p = special.softmax(logits, axis=1)
    rates = np.array([0.5, 0.3, 0.2])
    blocks = np.where(np.arange(60) < 50, 10 * labels + np.arange(60) % 3, -1)
    got = scores.scores(labels, p, base_rates=rates, blocks=blocks)
    quoted = np.tile(rates, (60, 1))
    assert got["base_rate_nll"] == pytest.approx(sklearn_metrics.log_loss(labels, quoted))
    right = []
    for block in np.unique(blocks[:50]):
        here = blocks == block
        right.append(np.log(p[here]).sum(0).argmax() == labels[here][0])
    assert got["block_accuracy"] == pytest.approx(np.mean(right)) and len(right) > 6
    assert scores.scores(labels, p, blocks=np.full(60, -1))["block_accuracy"] is None
    assert not {"base_rate_nll", "block_accuracy"} & scores.scores(labels, p).keys()
    scaled = scores.of_probabilities(labels, scores.with_temperature(p, 2.5))
    soft = special.softmax(logits / 2.5, axis=1)
    assert scaled["nll"] == pytest.approx(sklearn_metrics.log_loss(labels, soft), rel=1e-5)
    assert scaled["ece"] == pytest.approx(float(metrics.ece(labels, soft)), abs=1e-5)


def test_summary_of_other_scores():
    rows = [dict.fromkeys(scores.UNCALIBRATED, 2.0 + i) for i in range(3)]
    got = scores.summary(rows, scores.UNCALIBRATED)
    assert tuple(got) == scores.UNCALIBRATED and got["temperature"]["mean"] == 3
