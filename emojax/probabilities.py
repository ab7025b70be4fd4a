"""Scores of probabilities, reliability curves, and temperature scaling; see `metrics`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32, Integer

from emojax._numerics import calibration, scored
from emojax._numerics.checks import Array, as_float, known

ECE_BINS = 15  # of equal width, from 0 to 1


class Reliability(NamedTuple):
    """Samples by their top probability, in bins of equal width from 0 to 1."""

    count: Int32[Array, "*stack bins"]  # pyright: ignore[reportIncompatibleMethodOverride]
    confidence: Float[Array, "*stack bins"]  # mean top probability; NaN in an empty bin
    accuracy: Float[Array, "*stack bins"]  # fraction predicted right; NaN in an empty bin


def brier(
    labels: Integer[Array, " samples"], probabilities: Float[Array, "samples classes"]
) -> Float[jax.Array, ""]:
    """Returns the Brier score: the mean over samples of sum_k (p_k - [k is the label])^2.

    0 is best, 2 is worst. With two classes it is twice the binary Brier score.

    Args:
      labels: [samples] int in [0, classes), the truth.
      probabilities: [samples, classes] float in [0, 1], classes >= 2; rows sum to 1.

    Returns:
      [] in the dtype of `probabilities` (at least float32).

    Raises:
      ValueError: shapes disagree, no samples, labels out of range or not integers, or rows that are
        not probabilities.

    References:
      Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    return calibration.brier(*scored.probabilities(labels, probabilities))


def expected_calibration_error(
    labels: Integer[Array, " samples"],
    probabilities: Float[Array, "samples classes"],
    num_bins: int = 10,
) -> Float[jax.Array, ""]:
    """Returns the mean difference between confidence and accuracy over bins of confidence.

    ECE = sum_b n_b / n |accuracy_b - mean confidence_b|, where a sample's confidence is its highest
    probability and bin b of B contains confidences in ((b - 1) / B, b / B].

    Args:
      labels: [samples] int in [0, classes), the truth.
      probabilities: [samples, classes] float in [0, 1], classes >= 2; rows sum to 1. The first of
        equally probable classes is predicted.
      num_bins: B, number of bins >= 1; static under jit.

    Returns:
      [] in the dtype of `probabilities` (at least float32), in [0, 1]; 0 means calibrated.

    Raises:
      ValueError: as for `brier`, or num_bins < 1.

    References:
      Guo et al., On calibration of modern neural networks, 2017.
    """
    if num_bins < 1:
        raise ValueError(f"want num_bins >= 1; got {num_bins}")
    return calibration.gap(*scored.probabilities(labels, probabilities), num_bins)


def nll(
    labels: Integer[Array, " samples"], probabilities: Float[Array, "samples classes"]
) -> Float[jax.Array, ""]:
    """Returns the negative log-likelihood: the mean over samples of -log p of the label, in nats.

    A probability below 1e-38 counts as 1e-38, so that a certain but wrong prediction costs 87 nats.
    Args, returns and raises: as for `brier`.
    """
    return calibration.nll(*scored.probabilities(labels, probabilities))


def ece(
    labels: Integer[Array, " samples"], probabilities: Float[Array, "samples classes"]
) -> Float[jax.Array, ""]:
    """Returns the `expected_calibration_error` in 15 bins, as reports show it.

    Args, returns and raises: as for `expected_calibration_error`.
    """
    return expected_calibration_error(labels, probabilities, ECE_BINS)


def reliability(
    labels: Integer[Array, " samples"],
    probabilities: Float[Array, "samples classes"],
    num_bins: int = ECE_BINS,
) -> Reliability:
    """Returns the points of a reliability curve: accuracy by confidence.

    The bins are those of `expected_calibration_error`, which is the mean over samples of
    |accuracy - confidence| of their bin. Args and raises: as for that function.
    """
    if num_bins < 1:
        raise ValueError(f"want num_bins >= 1; got {num_bins}")
    found = calibration.bins(*scored.probabilities(labels, probabilities), num_bins)
    return Reliability(*found)


def temperature_fit(
    logits: Float[Array, "samples classes"],
    labels: Integer[Array, " samples"],
    weights: Float[Array, " samples"] | None = None,
) -> Float[jax.Array, ""]:
    """Fits the temperature T of softmax(logits / T) to labels by minimising the weighted NLL.

    The NLL is convex in 1 / T. T is kept in [0.05, 100], as the NLL has no minimum if every sample
    is right (low end) or the logits carry no information (high end). Fit it to samples that were
    not used in training; labels of scored samples must not enter.

    Args:
      logits: [samples, classes] float, finite, classes >= 2; log-probabilities also work.
      labels: [samples] int in [0, classes), the truth.
      weights: [samples] float >= 0, with a sum > 0; None: 1 each.

    Returns:
      [] in the dtype of `logits` (at least float32); 1 if all logits of each sample are equal. It
      can be differentiated with respect to logits and weights.

    Raises:
      ValueError: shapes disagree, no samples, labels out of range or not integers, logits not
        finite, or weights that are negative or all 0.

    References:
      Guo et al., On calibration of modern neural networks, 2017.
    """
    labels, logits = scored.by_class("logits", labels, logits)
    weights = jnp.ones(len(labels), logits.dtype) if weights is None else weights
    return calibration.temperature(labels, logits, scored.weights(labels, weights, logits.dtype))


def apply_temperature(
    logits: Float[Array, "samples classes"], temperature: Float[Array, ""] | float
) -> Float[jax.Array, "samples classes"]:
    """Returns the probabilities softmax(logits / temperature); the ranking of classes is kept.

    Args:
      logits: [samples, classes] float, or log-probabilities.
      temperature: [] > 0, as from `temperature_fit`; values above 1 reduce confidence.

    Raises:
      ValueError: a temperature that is not positive.
    """
    if known(lambda t: t > 0, temperature := jnp.asarray(temperature)) is False:
        raise ValueError(f"want a temperature > 0; got {temperature:g}")
    return jax.nn.softmax(as_float(logits) / temperature)
