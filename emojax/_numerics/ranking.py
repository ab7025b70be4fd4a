"""Samples ranked by score: ROC curves and the areas under them, from exact counts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int32

MAX_SCORES = 2_000_000  # up to this size, the integer sums of `auc` stay below 2**31


def ratio(count: jax.Array, total: jax.Array | int, dtype: DTypeLike = float) -> jax.Array:
    """Returns count / total, exactly 1 if they are equal; 0 / 0 is NaN.

    jax divides two int32 in float32 even under x64, and XLA may multiply by the rounded reciprocal
    of a common total, which takes 49 / 49 below 1.
    """
    dtype = jnp.result_type(dtype)
    quotient = jnp.asarray(count, dtype) / jnp.asarray(total, dtype)
    return jnp.where((count == total) & (total > 0), 1, quotient)


class _Ranking(NamedTuple):
    """Samples by descending score; sample i is tied with those in [first[i], end[i])."""

    scores: Float[Array, " n"]
    is_positive: Bool[Array, " n"]
    positives: Int32[Array, " n+1"]  # number of positives among the first i samples
    negatives: Int32[Array, " n+1"]
    first: Int32[Array, " n"]
    end: Int32[Array, " n"]


def _rank(is_positive, scores):
    order = jnp.argsort(scores, descending=True)
    scores, is_positive = scores[order], is_positive[order]
    ascending = -scores
    first, end = (jnp.searchsorted(ascending, ascending, side=x) for x in ("left", "right"))
    positives = jnp.pad(jnp.cumsum(is_positive, dtype=jnp.int32), (1, 0))
    negatives = jnp.arange(scores.size + 1, dtype=jnp.int32) - positives
    return _Ranking(scores, is_positive, positives, negatives, first, end)


@jax.jit
def roc_points(is_positive: jax.Array, scores: jax.Array) -> tuple[jax.Array, ...]:
    """Returns false and true positive rates and thresholds, see `metrics.roc_curve`."""
    ranking = _rank(is_positive, scores)
    end = jnp.pad(ranking.end, (1, 0))
    counts = (ranking.negatives, ranking.positives)
    rates = [ratio(count[end], count[-1], scores.dtype) for count in counts]
    return (*rates, jnp.pad(ranking.scores, (1, 0), constant_values=jnp.inf))


@jax.jit
def auc(is_positive: jax.Array, scores: jax.Array) -> jax.Array:
    """Returns the area under the ROC curve, see `metrics.auc`."""
    ranking = _rank(is_positive, scores)
    positives, negatives = ranking.positives[-1], ranking.negatives
    # Twice the negatives below plus those tied. Their sum, up to n^2 / 2, exceeds int32 and the
    # digits of float32; the sums of low ten and high bits stay exact up to `MAX_SCORES`.
    wins = 2 * negatives[-1] - negatives[ranking.first] - negatives[ranking.end]
    wins = jnp.where(ranking.is_positive, wins, 0)
    low, high = (x.sum(dtype=jnp.int32).astype(scores.dtype) for x in (wins & 1023, wins >> 10))
    pairs = positives.astype(scores.dtype) * negatives[-1].astype(scores.dtype)
    return jnp.minimum((1024 * high + low) / (2 * pairs), 1)  # 0 / 0 stays NaN


@jax.jit
def class_areas(labels: jax.Array, scores: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the areas per class, over all pairs pooled, and their mean, see `metrics.roc_auc`."""
    is_class = labels[:, None] == jnp.arange(scores.shape[1])
    per_class = jax.vmap(auc, in_axes=1)(is_class, scores)
    return per_class, auc(is_class.ravel(), scores.ravel()), per_class.mean()
