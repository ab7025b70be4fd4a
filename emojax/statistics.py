"""Permutation tests and confidence intervals.

Functions that draw at random take an explicit key: equal keys give equal results, independent of
how the work is chunked. `mean_interval` and `clustered_interval` draw nothing and take no key.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer, Key, Shaped

from emojax._numerics import draws
from emojax._numerics.checks import (
    Array,
    as_array,
    as_float,
    as_labels,
    check_finite,
    check_integers,
    check_key,
    check_labels,
    is_concrete,
)
from emojax._numerics.intervals import check_level, half_width, jackknife
from emojax.metrics import accuracy

Statistic = Callable[[jax.Array, jax.Array], jax.Array]


class PermutationTest(NamedTuple):
    """A one-sided test; large statistics are evidence against the null hypothesis."""

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
    exact: Bool[Array, "*stack"]  # True: all sign patterns were enumerated, no Monte Carlo error


def permute_within(
    key: Key[jax.Array, ""], runs: Integer[Array, " samples"]
) -> Int32[Array, " samples"]:
    """Draws a random permutation of samples within their runs; all are equally likely.

    Args:
      key: [] typed key.
      runs: [samples] int, any ids in any order.

    Returns:
      [samples] int32 indices: `x[permute_within(key, runs)]` is x with its runs shuffled.

    Raises:
      ValueError: not a typed key, or runs that are not an integer vector of at least one sample.
    """
    check_key(key)
    runs = as_labels(runs, "runs")
    if runs.ndim != 1 or not runs.size:
        raise ValueError(f"want runs [samples >= 1]; got shape {runs.shape}")
    return draws.permute_within(key, (draws.small_ids("runs", runs),))


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
    """Tests whether predictions carry information about the labels beyond the run of each sample.

    Labels are permuted within runs, predictions stay: p = (1 + #{null >= observed}) / (1 +
    permutations), never 0 and valid for any number of permutations (Phipson & Smyth 2010). Values
    within 16 eps of the observed one count as ties, and a statistic of NaN counts against it.

    The null is right if predictions were made without the scored labels, and these could equally
    well have occurred in any other order within the run. It does not hold

    * for volumes within a block: neighbours in time share label and noise, so that permuting single
      volumes gives p values that are far too small. Pass `blocks`: whole blocks then exchange their
      labels. Two blocks per run allow few orders, and p cannot fall below about 1 / their number.
    * if all subjects saw the blocks in the same order: a decoder that learned time in the run is
      then right without any signal, and no permutation after prediction can reveal it.
    * for variation over training sets: the decoder is taken as given. Permuting before training
      tests the procedure (Ojala & Garriga 2010), at the cost of refitting.

    Args:
      key: [] typed key.
      labels: [samples] int, the truth.
      predicted: [samples, ...] predicted classes, or whatever else `statistic` reads.
      runs: [samples] int, any ids in any order; combine subject and run if runs restart at 0.
      num_permutations: number of permutations >= 1; static under jit.
      statistic: jittable (labels, predicted) -> scalar, static; it is compiled once per function
        object, so define it once. Default: the accuracy.
      blocks: [samples] int ids of blocks, which may restart in each run; one label per block.

    Returns:
      Statistic, its null distribution [num_permutations], and p.

    Raises:
      ValueError: not a typed key, shapes disagree, ids or labels that are not integers, predictions
        not finite, num_permutations < 1, a block with two labels, or a statistic that is not a
        scalar.

    References:
      Phipson & Smyth, Permutation p-values should never be zero, 2010. Winkler et al., Permutation
      inference for the general linear model, 2014 (exchangeability blocks).
    """
    check_key(key)
    labels, predicted = as_labels(labels), as_array(predicted, "predicted")
    runs, blocks = as_labels(runs, "runs"), None if blocks is None else as_labels(blocks, "blocks")
    _check_lengths(labels, predicted, runs=runs, blocks=blocks)
    check_integers("labels", labels)
    if jnp.issubdtype(predicted.dtype, jnp.floating):
        check_finite("predicted", predicted)
    draws.check_count("num_permutations", num_permutations)
    units = (draws.small_ids("runs", runs),)
    if blocks is not None:
        draws.check_blocks(labels, blocks, runs)
        units = (draws.small_ids("blocks", blocks), *units)
    labels, predicted = jnp.asarray(labels), jnp.asarray(predicted)
    found = draws.permutation_test(
        key, labels, predicted, units, count=num_permutations, statistic=statistic
    )
    return PermutationTest(*found)


def mean_interval(values: Float[Array, "folds *rest"], level: float = 0.95) -> Interval:
    """Returns Student's t interval of the mean over folds: mean +- t sd / sqrt(folds).

    sd divides by folds - 1, and t is the (1 + level) / 2 quantile of Student's distribution with
    folds - 1 degrees of freedom. For independent normal values, however few, the interval covers
    their expectation in a fraction `level` of cases. Folds that share training data are correlated,
    so that it covers less often; it does not describe new training sets.

    Args:
      values: [folds, ...] float, finite; one score of each fold.
      level: coverage in (0, 1), static.

    Returns:
      Estimate and limits of shape [...]; for a single fold the limits are undefined (NaN). NumPy
      input is processed in float64, jax input in its own dtype.

    Raises:
      ValueError: no folds, values not finite, or a level outside (0, 1).
    """
    xp = jnp if isinstance(values, jax.Array) else np
    values = as_float(values) if xp is jnp else np.asarray(values, np.float64)
    if values.ndim < 1 or not len(values):
        raise ValueError(f"want values of at least 1 fold; got shape {values.shape}")
    check_finite("values", values)
    check_level(level)
    estimate, half = values.mean(0), half_width(values, level)
    return Interval(*(xp.asarray(x) for x in (estimate, estimate - half, estimate + half)))


def clustered_interval(
    labels: Integer[Array, " samples"],
    predicted: Integer[Array, " samples"],
    groups: Shaped[Array, " samples"],
    num_classes: int,
    level: float = 0.95,
) -> Interval:
    """Returns an interval of balanced accuracy on samples of new groups (runs, subjects).

    Samples of a group are not independent, so the number of groups counts: the jackknife leaves
    each out once, and Student's t has one degree of freedom less than there are groups. Resampling
    groups instead (a bootstrap) gives intervals that are far too narrow if groups are few.

    Args:
      labels: [samples] int in [0, num_classes), the truth; known values, not traced ones.
      predicted: [samples] int in [0, num_classes).
      groups: [samples] the group of each sample, of any sortable dtype.
      num_classes: number of classes; those that do not occur are ignored.
      level: coverage in (0, 1).

    Returns:
      Balanced accuracy of all samples and its limits, float64, clipped to [0, 1]; for a single
      group 0 and 1, as nothing is known about other groups.

    Raises:
      ValueError: shapes disagree, no samples, labels out of range or not integers, or a level
        outside (0, 1).

    References:
      MacKinnon, Nielsen and Webb, Cluster-robust inference, J. Econometrics 232, 2023 (CV3).
    """
    labels, predicted, groups = (np.asarray(as_labels(x)) for x in (labels, predicted, groups))
    _check_lengths(labels, predicted, groups=groups)
    check_labels("labels", labels, num_classes)
    check_labels("predicted", predicted, num_classes)
    check_level(level)
    estimate, half = jackknife(labels, predicted, groups, num_classes, level)
    limits = max(0.0, estimate - half), min(1.0, estimate + half)
    return Interval(*(np.asarray(x) for x in (estimate, *limits)))


def bootstrap_interval(
    key: Key[jax.Array, ""],
    values: Float[Array, "subjects *rest"],
    *,
    num_samples: int = 10_000,
    level: float = 0.95,
    statistic: Callable[[jax.Array], jax.Array] | None = None,
) -> Interval:
    """Returns the percentile bootstrap interval over subjects, drawn with replacement.

    The limits are the (1 - level) / 2 and (1 + level) / 2 quantiles, linearly interpolated, of the
    statistic of `num_samples` resamples; all entries of a subject are drawn together. With few
    subjects it is too narrow: for a mean over 6 or 11, a nominal 95 % interval covers 87 or 90 %.
    Use `mean_interval` instead.

    Args:
      key: [] typed key.
      values: [subjects, ...] float, finite; at least 2 subjects.
      num_samples: number of resamples >= 1; static under jit.
      level: coverage in (0, 1), static.
      statistic: jittable [subjects, ...] -> array, static. None: the mean over subjects, which
        needs no memory beyond its result; others hold [num_samples, *result].

    Returns:
      Estimate and limits, each of the shape of the statistic.

    Raises:
      ValueError: not a typed key, fewer than 2 subjects, values not finite, num_samples < 1, or a
        level outside (0, 1).

    References:
      Efron & Tibshirani, An introduction to the bootstrap, 1993, chapter 13.
    """
    check_key(key)
    values = as_float(values)
    if values.ndim < 1 or values.shape[0] < 2:
        raise ValueError(f"want values of at least 2 subjects; got shape {values.shape}")
    check_finite("values", values)
    draws.check_count("num_samples", num_samples)
    check_level(level)
    found = draws.bootstrap(key, values, count=num_samples, level=float(level), statistic=statistic)
    return Interval(*found)


def paired_test(
    key: Key[jax.Array, ""],
    a: Float[Array, " folds"],
    b: Float[Array, " folds"],
    *,
    num_permutations: int = 10_000,
) -> PairedTest:
    """Tests the mean difference of two methods scored on the same folds by flipping its signs.

    Under the null hypothesis the methods could be exchanged in any fold: p is the fraction of sign
    patterns s with |mean(s (a - b))| >= |mean(a - b)|. Up to 16 folds, all 2^folds patterns are
    enumerated, and p is at least 2 / 2^folds. With more folds, `num_permutations` random patterns
    give p = (1 + count) / (1 + num_permutations). Ties are counted up to the rounding of a and b.

    Folds that leave one subject out share most of their training data. Their differences are then
    correlated, the variance of the mean is underestimated (Dietterich 1998; Nadeau & Bengio 2003),
    and p is approximate and generally too small: it describes these folds, not new training sets.

    Args:
      key: [] typed key; not used up to 16 folds.
      a: [folds] float, scores of one method.
      b: [folds] float, scores of the other method, in the same order.
      num_permutations: number of random patterns >= 1 for more than 16 folds; static under jit.

    Returns:
      Mean difference a - b, its p value, and whether p is exact.

    Raises:
      ValueError: not a typed key, shapes disagree, no folds, scores not finite, or
        num_permutations < 1.

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
    draws.check_count("num_permutations", num_permutations)
    return PairedTest(*draws.sign_flips(key, a, b, count=num_permutations))


def holm(p: Float[Array, " tests"]) -> Float[Array, " tests"]:
    """Corrects the p values of one family of tests by Holm's method.

    The k-th smallest of m, from k = 0, becomes the largest of (m - i) p_i over i <= k, at most 1.
    Rejecting where this is below a level keeps the chance of any false rejection below that level,
    whatever the dependence between the tests.

    Args:
      p: [tests] float in [0, 1]; may be empty.

    Returns:
      Corrected values in the order of p, none smaller than its p. NumPy input is processed in
      float64, jax input in its own dtype.

    Raises:
      ValueError: not a vector, or values outside [0, 1].

    References:
      Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6, 1979.
    """
    xp = jnp if isinstance(p, jax.Array) else np
    p = as_float(p) if xp is jnp else np.asarray(p, np.float64)
    if p.ndim != 1:
        raise ValueError(f"want p [tests]; got shape {p.shape}")
    if not p.size:
        return p
    if is_concrete(p) and not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"want p in [0, 1]; got {p.min()} to {p.max()}")
    order = xp.argsort(p)
    steps = xp.minimum(p[order] * xp.arange(p.size, 0, -1), 1)
    return xp.maximum.accumulate(steps)[xp.argsort(order)]


def _check_lengths(labels, predicted, **ids):
    shapes = [labels.shape, predicted.shape[:1]] + [x.shape for x in ids.values() if x is not None]
    if labels.ndim != 1 or len(set(shapes)) > 1 or not labels.size:
        names, shown = " and ".join(ids), ", ".join(str(s) for s in shapes)
        raise ValueError(
            f"want labels, predicted, {names} of one length [samples >= 1]; got {shown}"
        )
