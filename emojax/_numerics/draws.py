"""Permutations, resamples and sign flips from one key, in chunks that fit in memory."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from emojax._numerics.checks import Array, as_float, is_concrete

_CHUNK = 2**22  # numbers held at a time, per array, while resampling
_EXACT_FOLDS = 16  # up to 2**16 sign patterns are enumerated instead of sampled


def check_count(name: str, count: int) -> None:
    """Raises ValueError if `count` is below 1."""
    if count < 1:
        raise ValueError(f"want {name} >= 1; got {count}")


def small_ids(name: str, ids: Array) -> jax.Array:
    """Returns ids as a jax array; NumPy ids are renumbered, as int64 may not fit.

    Raises:
      ValueError: ids that are not integers.
    """
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"want integer {name}; got dtype {ids.dtype}")
    if isinstance(ids, np.ndarray):
        ids = np.unique(ids, return_inverse=True)[1].astype(np.int32)
    return jnp.asarray(ids)


def check_blocks(labels: Array, blocks: Array, runs: Array) -> None:
    """Raises ValueError if a block of a run has more than one label."""
    if is_concrete(labels, blocks, runs):
        labels, pairs = np.asarray(labels), np.stack([runs, blocks], axis=1)
        _, first, unit = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        mixed = np.flatnonzero(labels != labels[first[unit.ravel()]])
        if mixed.size:
            run, block = pairs[mixed[0]]
            raise ValueError(f"want one label per block; got several in block {block} of run {run}")


def _map(f: Callable, xs: jax.Array, size: int):
    """Returns f(x) for each x, in chunks of about `_CHUNK` numbers if one takes `size`."""
    at_once = max(1, _CHUNK // size)
    return jax.vmap(f)(xs) if at_once >= len(xs) else jax.lax.map(f, xs, batch_size=at_once)


@jax.jit
def permute_within(key: jax.Array, units: tuple[jax.Array, ...]) -> jax.Array:
    """Permutes samples within units: samples of one unit agree in all ids.

    Ties among 32 random bits are too rare to matter.
    """
    n = units[0].size
    shuffled = jnp.lexsort((jax.random.bits(key, (n,)), *units))
    places = jnp.lexsort(units)  # the same order of units, so each keeps its own positions
    return jnp.zeros(n, jnp.int32).at[places].set(shuffled.astype(jnp.int32), unique_indices=True)


@jax.jit
def _first_of_unit(units):
    """Returns [samples] the index of the first sample of each sample's unit."""
    order = jnp.lexsort(units)
    index = jnp.arange(order.size)
    new = jnp.stack([ids[order] != ids[jnp.roll(order, 1)] for ids in units]).any(0).at[0].set(True)
    start = jax.lax.cummax(jnp.where(new, index, 0))
    return jnp.zeros_like(order).at[order].set(order[start], unique_indices=True)


@partial(jax.jit, static_argnames=("count", "statistic"))
def permutation_test(
    key: jax.Array,
    labels: jax.Array,
    predicted: jax.Array,
    units: tuple[jax.Array, ...],
    *,
    count: int,
    statistic: Callable,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns statistic, null distribution and p; units are (runs,) or (blocks, runs)."""
    observed = as_float(statistic(labels, predicted))
    if observed.shape:
        raise ValueError(f"want a statistic that is a scalar; got shape {observed.shape}")
    first = jnp.arange(labels.size)
    if len(units) > 1:  # the first volume of each block represents it and moves within the run
        first = _first_of_unit(units)
        units = (first == jnp.arange(labels.size), units[-1])

    def permuted(key):
        return as_float(statistic(labels[permute_within(key, units)[first]], predicted))

    null = _map(permuted, jax.random.split(key, count), predicted.size)
    below = null < observed - 16 * jnp.finfo(null.dtype).eps * jnp.abs(observed)
    return observed, null, (1 + (~below).sum(dtype=float)) / (1 + count)


@partial(jax.jit, static_argnames=("count", "level", "statistic"))
def bootstrap(
    key: jax.Array, values: jax.Array, *, count: int, level: float, statistic: Callable | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the estimate and percentile limits over rows of `values` drawn with replacement."""
    keys, n = jax.random.split(key, count), values.shape[0]

    def limits(f, size):
        drawn = as_float(_map(f, keys, size))
        return jnp.quantile(drawn, jnp.array([1 - level, 1 + level], drawn.dtype) / 2, axis=0)

    def draw(key):  # the remainder favours some rows by a negligible n / 2**32
        return jax.random.bits(key, (n,)) % n

    if statistic is not None:
        estimate = as_float(statistic(values))
        low, high = limits(lambda key: statistic(values[draw(key)]), values.size)
        return estimate, low, high

    def limits_of_mean(column):
        def resampled(key):
            times_drawn = jnp.zeros(n, values.dtype).at[draw(key)].add(1)
            return jnp.dot(times_drawn, column, precision="highest") / n

        return limits(resampled, n)

    estimate = values.mean(0)
    columns = (values - estimate).reshape(n, -1).T  # centred: in float32 the mean keeps its digits
    low, high = _map(limits_of_mean, columns, count).T
    return estimate, estimate + low.reshape(estimate.shape), estimate + high.reshape(estimate.shape)


@partial(jax.jit, static_argnames="count")
def sign_flips(
    key: jax.Array, a: jax.Array, b: jax.Array, *, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the mean of a - b, its two-sided p, and whether all sign patterns were tried."""
    folds = a.size
    difference = a - b
    exact = folds <= _EXACT_FOLDS

    def size(flipped):
        return jnp.abs(jnp.where(flipped, -difference, difference).mean())

    if exact:
        patterns = jnp.arange(2**folds)[:, None] >> jnp.arange(folds) & 1
        sizes = jax.vmap(size)(patterns == 1)
    else:
        keys = jax.random.split(key, count)
        sizes = _map(lambda key: size(jax.random.bernoulli(key, shape=(folds,))), keys, folds)
    # Equal sums may differ by the rounding of their terms, relative to a and b.
    tolerance = folds * jnp.finfo(a.dtype).eps * (jnp.abs(a) + jnp.abs(b)).mean()
    extreme = (sizes >= jnp.abs(difference.mean()) - tolerance).sum(dtype=a.dtype)
    p = extreme / 2**folds if exact else (1 + extreme) / (1 + count)
    return difference.mean(), p, jnp.array(exact)
