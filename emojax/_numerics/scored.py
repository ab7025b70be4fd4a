"""Checks of labels, predicted classes and scores that belong to the same samples."""

import jax
import jax.numpy as jnp

from emojax._numerics.checks import (
    Array,
    as_float,
    as_labels,
    check_finite,
    check_integers,
    check_labels,
    known,
)
from emojax._numerics.ranking import MAX_SCORES

_ROUNDING = 1e-3  # tolerance of the sum of a row of probabilities

Pair = tuple[jax.Array, jax.Array]


def _widened(scores):
    scores = as_float(scores, "scores")
    return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))


def predictions(labels: Array, predicted: Array, num_classes: int | None = None) -> Pair:
    """Returns labels and predicted classes of one shape [samples >= 1], or raises ValueError."""
    labels, predicted = as_labels(labels), as_labels(predicted, "predicted")
    if labels.ndim != 1 or labels.shape != predicted.shape or not labels.size:
        raise ValueError(
            "want labels and predicted of one shape [samples >= 1]; "
            f"got {labels.shape}, {predicted.shape}"
        )
    for name, x in (("labels", labels), ("predicted", predicted)):
        if num_classes is not None:
            check_labels(name, x, num_classes)
        else:
            check_integers(name, x)
    return jnp.asarray(labels), jnp.asarray(predicted)


def binary(is_positive: Array, scores: Array) -> Pair:
    """Returns a bool truth and finite scores of one shape, or raises ValueError."""
    is_positive, scores = as_labels(is_positive, "is_positive"), _widened(scores)
    if scores.ndim != 1 or is_positive.shape != scores.shape or not scores.size:
        raise ValueError(
            "want is_positive and scores of one shape [samples >= 1]; "
            f"got {is_positive.shape}, {scores.shape}"
        )
    if is_positive.dtype != bool:
        raise ValueError(f"want bool is_positive; got dtype {is_positive.dtype}")
    check_finite("scores", scores)
    return jnp.asarray(is_positive), scores


def by_class(name: str, labels: Array, scores: Array) -> Pair:
    """Returns labels [samples] and finite scores [samples, classes], or raises ValueError."""
    labels, scores = as_labels(labels), _widened(scores)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or not labels.size:
        raise ValueError(
            f"want labels [samples] and {name} [samples, classes] with samples >= 1; "
            f"got {labels.shape}, {scores.shape}"
        )
    if scores.shape[1] < 2:
        raise ValueError(f"want {name} of at least 2 classes; got shape {scores.shape}")
    check_labels("labels", labels, scores.shape[1])
    check_finite(name, scores)
    return jnp.asarray(labels), scores


def probabilities(labels: Array, p: Array) -> Pair:
    """Returns labels [samples] and probabilities [samples, classes], or raises ValueError."""
    labels, p = by_class("probabilities", labels, p)
    if known(_are_probabilities, p) is False:
        sums = p.sum(1)
        raise ValueError(
            f"want probabilities in [0, 1] whose rows sum to 1; got values from {p.min():g} to "
            f"{p.max():g}, sums from {sums.min():g} to {sums.max():g}"
        )
    return labels, p


@jax.jit
def _are_probabilities(p):
    return ((p >= 0) & (p <= 1 + _ROUNDING)).all() & (jnp.abs(p.sum(1) - 1) <= _ROUNDING).all()


def weights(labels: jax.Array, w: Array, dtype: jnp.dtype) -> jax.Array:
    """Returns one weight >= 0 per label, not all 0, or raises ValueError."""
    w = jnp.asarray(w, dtype)
    if w.shape != labels.shape:
        raise ValueError(f"want weights of the shape of labels, {labels.shape}; got {w.shape}")
    check_finite("weights", w)
    if known(_are_weights, w) is False:
        raise ValueError(f"want weights >= 0 with a sum > 0; got {w.min():g} to {w.max():g}")
    return w


@jax.jit
def _are_weights(w):
    return (w >= 0).all() & (w.sum() > 0)


def check_size(scores: jax.Array) -> None:
    """Raises ValueError if there are too many scores for exact sums."""
    if scores.size > MAX_SCORES:
        raise ValueError(f"want at most {MAX_SCORES} scores; got shape {scores.shape}")
