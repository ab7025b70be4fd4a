"""Calibration of probabilities: scores, bins of confidence, and temperature scaling."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32

LIMITS = (0.05, 100.0)  # range of temperatures
HALVINGS = 30  # bisections of this range, on a log scale; a Newton step follows


@jax.jit
def brier(
    labels: Int[Array, " samples"], probabilities: Float[Array, "samples classes"]
) -> Float[Array, ""]:
    """Returns the Brier score, see `metrics.brier`."""
    truth = labels[:, None] == jnp.arange(probabilities.shape[1])
    return jnp.square(probabilities - truth).sum(1).mean()


@jax.jit
def nll(
    labels: Int[Array, " samples"], probabilities: Float[Array, "samples classes"]
) -> Float[Array, ""]:
    """Returns the mean negative log-likelihood, see `metrics.nll`."""
    chosen = jnp.take_along_axis(probabilities, labels[:, None], 1)
    return -jnp.log(jnp.maximum(chosen, jnp.finfo(jnp.float32).tiny)).mean()


@partial(jax.jit, static_argnames="num_bins")
def gap(
    labels: Int[Array, " samples"], probabilities: Float[Array, "samples classes"], num_bins: int
) -> Float[Array, ""]:
    """Returns the expected calibration error, see `metrics.expected_calibration_error`."""
    confidence, right, bins = _binned(labels, probabilities, num_bins)
    sums = jnp.zeros(num_bins, confidence.dtype).at[bins].add(right - confidence)
    return jnp.abs(sums).sum() / labels.size


@partial(jax.jit, static_argnames="num_bins")
def bins(
    labels: Int[Array, " samples"], probabilities: Float[Array, "samples classes"], num_bins: int
) -> tuple[Int32[Array, " bins"], Float[Array, " bins"], Float[Array, " bins"]]:
    """Returns count, mean confidence and accuracy of each bin, see `metrics.reliability`."""
    confidence, right, where = _binned(labels, probabilities, num_bins)
    none = jnp.zeros(num_bins, confidence.dtype)
    count = jnp.zeros(num_bins, jnp.int32).at[where].add(1)
    return count, none.at[where].add(confidence) / count, none.at[where].add(right) / count


def _binned(labels, probabilities, num_bins):
    """Returns the confidence, correctness and bin of each sample."""
    confidence = probabilities.max(1)
    right = (probabilities.argmax(1) == labels).astype(confidence.dtype)
    edges = jnp.asarray(np.arange(num_bins) / num_bins, confidence.dtype)
    return confidence, right, jnp.maximum(jnp.searchsorted(edges, confidence, side="left") - 1, 0)


@jax.jit
def temperature(
    labels: Int[Array, " samples"],
    logits: Float[Array, "samples classes"],
    weights: Float[Array, " samples"],
) -> Float[Array, ""]:
    """Returns the temperature that minimises the weighted NLL, see `metrics.temperature_fit`.

    The NLL is convex in the inverse temperature b: its slope is the mean of
    E_b[logit] - logit of the label, its curvature the mean variance of the logits under softmax(b
    logits). The sign of the slope drives a bisection. The Newton step at the end also carries the
    derivative of the minimum with respect to logits and weights.
    """
    weights = weights / weights.sum()
    chosen = jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]

    def slopes(b, logits, chosen, weights):
        p = jax.nn.softmax(b * logits)
        mean = (p * logits).sum(1)
        spread = (p * jnp.square(logits - mean[:, None])).sum(1)
        return (weights * (mean - chosen)).sum(), (weights * spread).sum()

    fixed = jax.lax.stop_gradient((logits, chosen, weights))

    def halve(_, limits):
        low, high = limits
        middle = jnp.sqrt(low * high)
        rises = slopes(middle, *fixed)[0] > 0
        return jnp.where(rises, low, middle), jnp.where(rises, middle, high)

    ends = tuple(jnp.asarray(1 / limit, logits.dtype) for limit in LIMITS[::-1])
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, ends)
    b = jnp.sqrt(low * high)
    slope, _ = slopes(b, logits, chosen, weights)
    curvature = jnp.maximum(slopes(b, *fixed)[1], jnp.finfo(logits.dtype).tiny)
    found = 1 / jnp.clip(b - slope / curvature, *ends)
    flat = jnp.ptp(logits, axis=1).max() == 0  # no temperature changes equal probabilities
    return jnp.where(flat, 1, found)
