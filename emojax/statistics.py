"""Is it chance, and how sure: permutation tests and bootstrap intervals, from an explicit key.

Equal keys give equal results, whatever the chunks that the work is cut into.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer, Key, Shaped

from emojax._numerics.checks import Array, as_float, check_finite, check_key, is_concrete
from emojax.metrics import accuracy

_CHUNK = 2**22  # numbers held at a time, per array, while resampling
_EXACT_FOLDS = 16  # 2**16 sign patterns are cheaper than their Monte Carlo sample is imprecise

Statistic = Callable[[jax.Array, jax.Array], jax.Array]


class PermutationTest(NamedTuple):
    """A one-sided test; a larger statistic speaks against the null hypothesis."""

    observed: Float[Array, "*stack"]
    null: Float[Array, "*stack permutations"]  # the statistic of permuted labels
    p: Float[Array, "*stack"]  # in [1 / (1 + permutations), 1]


class Interval(NamedTuple):
    """An estimate between its confidence limits."""

    estimate: Float[Array, "*shape"]
    low: Float[Array, "*shape"]
    high: Float[Array, "*shape"]


class PairedTest(NamedTuple):
    """A two-sided test of a mean difference."""

    difference: Float[Array, "*stack"]  # mean of a - b
    p: Float[Array, "*stack"]
    exact: Bool[Array, "*stack"]  # all sign patterns were enumerated, p has no Monte Carlo error


def permute_within(
    key: Key[jax.Array, ""], runs: Integer[Array, " samples"]
) -> Int32[Array, " samples"]:
    """A random permutation that moves every sample within its run, all such equally likely.

    Args:
      key: [] typed key.
      runs: [samples] int, any ids in any order.

    Returns:
      [samples] int32 indices: `x[permute_within(key, runs)]` is x with its runs shuffled.

    Raises:
      ValueError: no typed key, or runs that are no integer vector of at least one sample.
    """
    check_key(key)
    if runs.ndim != 1 or not runs.size:
        raise ValueError(f"want runs [samples >= 1]; got shape {runs.shape}")
    return _permute_within(key, (_ids("runs", runs),))


def permutation_test(
    key: Key[jax.Array, ""],
    labels: Integer[Array, " samples"],
    predicted: Shaped[Array, "samples *rest"],
    runs: Integer[Array, " samples"],
    *,
    num_permutations: int = 1000,
    statistic: Statistic = accuracy,
    blocks: Integer[Array, " samples"] | None = None,
) -> PermutationTest:
    """Tests whether predictions know more of the labels than which run a sample is in.

    Labels are permuted within runs, predictions stay: p = (1 + #{null >= observed}) / (1 +
    permutations), never 0 and valid at any number of permutations (Phipson & Smyth 2010). Values
    within 16 eps of the observed one count as ties, and a statistic of NaN counts against it.

    The null is right for predictions that were made without the scored labels, where these could as
    well have come in any other order within the run. It does not hold

    * for volumes within a block: neighbours in time share label and noise, so that permuting single
      volumes gives p values that are far too small. Pass `blocks`: whole blocks then exchange their
      labels. Two blocks to a run leave few orders, and p cannot fall below about 1 / their number.
    * where all subjects saw the blocks in one order: a decoder that learned time in the run is
      then right without any signal, and no permutation after prediction can tell.
    * for variation over training sets: the decoder is taken as given. Permuting before training
      tests the procedure (Ojala & Garriga 2010), at the price of refitting.

    Args:
      key: [] typed key.
      labels: [samples] int, the truth.
      predicted: [samples, ...] predicted classes, or whatever else `statistic` reads.
      runs: [samples] int, any ids in any order; give subject and run if runs restart at 0.
      num_permutations: static under jit, >= 1.
      statistic: jittable (labels, predicted) -> scalar, static; it is compiled once per function
        object, so define it once. Default: the accuracy.
      blocks: [samples] int ids of trials, which may restart in each run; one label per block.

    Returns:
      Statistic, its null distribution [num_permutations], and p.

    Raises:
      ValueError: no typed key, shapes disagree, ids or labels that are no integers, predictions not
        finite, num_permutations < 1, a block with two labels, or a statistic that is no scalar.

    References:
      Phipson & Smyth, Permutation p-values should never be zero, 2010. Winkler et al., Permutation
      inference for the general linear model, 2014 (exchangeability blocks).
    """
    check_key(key)
    shapes = [labels.shape, predicted.shape[:1], runs.shape]
    shapes += [] if blocks is None else [blocks.shape]
    if labels.ndim != 1 or len(set(shapes)) > 1 or not labels.size:
        raise ValueError(
            "want labels, predicted, runs and blocks of one length [samples >= 1]; "
            f"got {', '.join(str(s) for s in shapes)}"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"want integer labels; got dtype {labels.dtype}")
    if jnp.issubdtype(predicted.dtype, jnp.floating):
        check_finite("predicted", predicted)
    _check_count("num_permutations", num_permutations)
    units = (_ids("runs", runs),)
    if blocks is not None:
        _check_blocks(labels, blocks, runs)
        units = (_ids("blocks", blocks), *units)
    labels, predicted = jnp.asarray(labels), jnp.asarray(predicted)
    return _permutation_test(
        key, labels, predicted, units, count=num_permutations, statistic=statistic
    )


def bootstrap_interval(
    key: Key[jax.Array, ""],
    values: Float[Array, "subjects *rest"],
    *,
    num_samples: int = 10_000,
    level: float = 0.95,
    statistic: Callable[[jax.Array], jax.Array] | None = None,
) -> Interval:
    """Percentile bootstrap interval over subjects, drawn with replacement.

    The limits are the (1 - level) / 2 and (1 + level) / 2 quantiles, linearly interpolated, of the
    statistic of `num_samples` resamples; all entries of a subject are drawn together. With few
    subjects it is too narrow, for a mean about by sqrt((subjects - 1) / subjects), and then some.

    Args:
      key: [] typed key.
      values: [subjects, ...] float, finite; at least 2 subjects.
      num_samples: static under jit, >= 1.
      level: static, in (0, 1).
      statistic: jittable [subjects, ...] -> array, static. None: the mean over subjects, which
        needs no memory beyond its result; others hold [num_samples, *result].

    Returns:
      Estimate and limits, each of the shape of the statistic.

    Raises:
      ValueError: no typed key, fewer than 2 subjects, values not finite, num_samples < 1, or a
        level outside (0, 1).

    References:
      Efron & Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
    """
    check_key(key)
    values = as_float(values)
    if values.ndim < 1 or values.shape[0] < 2:
        raise ValueError(f"want values of at least 2 subjects; got shape {values.shape}")
    check_finite("values", values)
    _check_count("num_samples", num_samples)
    if not 0 < level < 1:
        raise ValueError(f"want 0 < level < 1; got {level}")
    return _bootstrap(key, values, count=num_samples, level=float(level), statistic=statistic)


def paired_test(
    key: Key[jax.Array, ""],
    a: Float[Array, " folds"],
    b: Float[Array, " folds"],
    *,
    num_permutations: int = 10_000,
) -> PairedTest:
    """Two-sided sign-flip test of the mean difference of two methods scored on the same folds.

    Under the null hypothesis the methods could be exchanged in any fold: p is the fraction of sign
    patterns s with |mean(s (a - b))| >= |mean(a - b)|. Up to 16 folds all 2^folds patterns are
    enumerated, and p is at least 2 / 2^folds; beyond, `num_permutations` random ones, with
    p = (1 + count) / (1 + num_permutations). Ties are counted up to the rounding of a and b.

    Folds that leave one subject out share most of their training data. Their differences are then
    correlated, the variance of the mean is underestimated (Dietterich 1998; Nadeau & Bengio 2003),
    and p is approximate, in general too small: it speaks of these folds, not of new training sets.

    Args:
      key: [] typed key; not used up to 16 folds.
      a: [folds] float, scores of one method.
      b: [folds] float, of the other, in the same order.
      num_permutations: static under jit, >= 1; for more than 16 folds.

    Returns:
      Mean difference a - b, its p value, and whether that is exact.

    Raises:
      ValueError: no typed key, shapes disagree, no folds, scores not finite, num_permutations < 1.

    References:
      Fisher, The design of experiments, 1935, section 21. Dietterich, Approximate statistical tests
      for comparing supervised classification learning algorithms, 1998. Nadeau & Bengio, Inference
      for the generalization error, 2003.
    """
    check_key(key)
    a, b = as_float(a), as_float(b)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise ValueError(f"want a and b of one shape [folds >= 1]; got {a.shape}, {b.shape}")
    check_finite("a", a)
    check_finite("b", b)
    _check_count("num_permutations", num_permutations)
    return _paired_test(key, a, b, count=num_permutations)


def _check_count(name, count):
    if count < 1:
        raise ValueError(f"want {name} >= 1; got {count}")


def _ids(name, ids):
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"want integer {name}; got dtype {ids.dtype}")
    if isinstance(ids, np.ndarray):  # int64 ids may exceed jax's int32
        ids = np.unique(ids, return_inverse=True)[1].astype(np.int32)
    return jnp.asarray(ids)


def _check_blocks(labels, blocks, runs):
    if is_concrete(labels, blocks, runs):
        labels, pairs = np.asarray(labels), np.stack([runs, blocks], axis=1)
        _, first, unit = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
        mixed = np.flatnonzero(labels != labels[first[unit.ravel()]])
        if mixed.size:
            run, block = pairs[mixed[0]]
            raise ValueError(f"want one label per block; got several in block {block} of run {run}")


def _map(f, xs, size):
    """f(x) for each x, as many at a time as hold `_CHUNK` numbers if one holds `size`."""
    at_once = max(1, _CHUNK // size)
    return jax.vmap(f)(xs) if at_once >= len(xs) else jax.lax.map(f, xs, batch_size=at_once)


@jax.jit
def _permute_within(key, units):
    """Samples of one unit agree in all ids. Ties among 32 random bits are too rare to matter."""
    n = units[0].size
    shuffled = jnp.lexsort((jax.random.bits(key, (n,)), *units))
    places = jnp.lexsort(units)  # unit by unit as in `shuffled`, so each keeps its own places
    return jnp.zeros(n, jnp.int32).at[places].set(shuffled.astype(jnp.int32), unique_indices=True)


@jax.jit
def _first_of_unit(units):
    """[samples] index of the first sample of each sample's unit."""
    order = jnp.lexsort(units)
    index = jnp.arange(order.size)
    new = jnp.stack([ids[order] != ids[jnp.roll(order, 1)] for ids in units]).any(0).at[0].set(True)
    start = jax.lax.cummax(jnp.where(new, index, 0))
    return jnp.zeros_like(order).at[order].set(order[start], unique_indices=True)


@partial(jax.jit, static_argnames=("count", "statistic"))
def _permutation_test(key, labels, predicted, units, *, count, statistic):
    observed = as_float(statistic(labels, predicted))
    if observed.shape:
        raise ValueError(f"want a statistic that is a scalar; got shape {observed.shape}")
    first = jnp.arange(labels.size)
    if len(units) > 1:  # each block is represented by its first volume, which moves within the run
        first = _first_of_unit(units)
        units = (first == jnp.arange(labels.size), units[-1])

    def permuted(key):
        return as_float(statistic(labels[_permute_within(key, units)[first]], predicted))

    null = _map(permuted, jax.random.split(key, count), predicted.size)
    below = null < observed - 16 * jnp.finfo(null.dtype).eps * jnp.abs(observed)
    return PermutationTest(observed, null, (1 + (~below).sum(dtype=float)) / (1 + count))


@partial(jax.jit, static_argnames=("count", "level", "statistic"))
def _bootstrap(key, values, *, count, level, statistic):
    keys, n = jax.random.split(key, count), values.shape[0]

    def limits(f, size):
        drawn = as_float(_map(f, keys, size))
        return jnp.quantile(drawn, jnp.array([1 - level, 1 + level], drawn.dtype) / 2, axis=0)

    def draw(key):  # the remainder favours some subjects by n / 2**32: nothing
        return jax.random.bits(key, (n,)) % n

    if statistic is not None:
        estimate = as_float(statistic(values))
        low, high = limits(lambda key: statistic(values[draw(key)]), values.size)
        return Interval(estimate, low, high)

    def limits_of_mean(column):
        def resampled(key):
            times_drawn = jnp.zeros(n, values.dtype).at[draw(key)].add(1)
            return jnp.dot(times_drawn, column, precision="highest") / n

        return limits(resampled, n)

    estimate = values.mean(0)
    columns = (values - estimate).reshape(n, -1).T  # centred: in float32 the mean keeps its digits
    low, high = _map(limits_of_mean, columns, count).T
    return Interval(estimate, *(estimate + x.reshape(estimate.shape) for x in (low, high)))


@partial(jax.jit, static_argnames="count")
def _paired_test(key, a, b, *, count):
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
    # Equal sums differ by the rounding of their terms, which is relative to a and b.
    tolerance = folds * jnp.finfo(a.dtype).eps * (jnp.abs(a) + jnp.abs(b)).mean()
    extreme = (sizes >= jnp.abs(difference.mean()) - tolerance).sum(dtype=a.dtype)
    p = extreme / 2**folds if exact else (1 + extreme) / (1 + count)
    return PairedTest(difference.mean(), p, jnp.array(exact))
