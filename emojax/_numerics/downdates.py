"""Scores of held-out rows of many folds, for one small set of voxels.

One decomposition per set serves all folds and all labellings: the rows that a fold does not train
on are taken out of it again, and labels enter as right-hand sides. Everything is written for one
set of voxels; `jax.vmap` makes it many.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from emojax._numerics.checks import Array

FEW = 5  # labellings, for each of which a solution (`within`) costs less than axes for all
SMALL = 9  # matrices up to this size are inverted row by row


class Folds(NamedTuple):
    """Folds of the rows that take part in any. Row n is a row of zeros that fills up."""

    rows: Int[np.ndarray, " n"]  # rows that train or are tested in some fold
    out: Int[np.ndarray, "f r"]  # rows that a fold does not train on, tested ones first
    test: Int[np.ndarray, "f t"]  # its tested rows: the first columns of `out`
    train: Bool[np.ndarray, "f n"]


class Ridge(NamedTuple):
    """One set of voxels, decomposed. The first voxel is the intercept's: a row of ones."""

    x: Float[Array, "k n"]
    inverse: Float[Array, "k k"]  # of x x' + penalty
    # Of I - H over the rows left out, H = x' inverse x; or, where these are more than voxels, of
    # x x' + penalty over the rows that train.
    folds: Float[Array, "f s s"]


class Scatter(NamedTuple):
    """Scatter of one set of voxels over the training rows of every fold, around their mean."""

    total: Float[Array, "f k"]  # in its principal axes
    axes: Float[Array, "f k k"]
    mean: Float[Array, "f k"]
    x: Float[Array, "k n"]
    size: Float[Array, ""]  # number of voxels


def plan(folds: Sequence[tuple[Array, Array]], num_rows: int) -> Folds:
    """Lays folds out for `ridge` and `scatter`.

    Raises:
      ValueError: no fold, a row that does not exist, or one that trains and is tested.
    """
    if not folds:
        raise ValueError("want at least one fold (train, test); got none")
    train, test = np.zeros((2, len(folds), num_rows), bool)
    for number, pair in enumerate(folds):
        for own, rows in zip((train, test), map(np.asarray, pair), strict=True):
            if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer) or not len(rows):
                raise ValueError(f"want rows of fold {number} as [k >= 1] int; got {rows.shape}")
            if rows.min() < 0 or rows.max() >= num_rows:
                raise ValueError(f"want rows of fold {number} in [0, {num_rows}); got {rows.max()}")
            own[number, rows] = True
        if (both := train[number] & test[number]).any():
            raise ValueError(f"row {both.argmax()} trains fold {number} and is tested in it")
    rows = np.flatnonzero((train | test).any(0))
    train, test = train[:, rows], test[:, rows]
    parts = [
        np.r_[np.flatnonzero(t), np.flatnonzero(~own & ~t)]
        for own, t in zip(train, test, strict=True)
    ]
    out = np.full((len(folds), max(map(len, parts))), len(rows))
    for own, part in zip(out, parts, strict=True):
        own[: len(part)] = part
    most = test.sum(1).max()
    tested = np.where(np.arange(most) < test.sum(1)[:, None], out[:, :most], len(rows))
    return Folds(rows, out, tested, train)


def compress(x: Float[Array, "k n"]) -> Float[Array, "_ n"]:
    """Rotates voxels so that no more are left than there are rows; inner products stay."""
    return jnp.linalg.qr(x, mode="r") if x.shape[0] > x.shape[1] else x


def ridge(x: Float[Array, "k n"], out: Int[Array, "f r"], alpha: float) -> Ridge:
    """Decomposes centred voxels for ridge regression with a free intercept.

    Args:
      x: [k, n] voxels x rows, centred over the rows; 0 where a voxel only fills up.
      out: [f, r] int, rows to leave out, n where there are none.
      alpha: penalty of the squared weights, > 0.
    """
    k, n = x.shape
    x = jnp.concatenate([jnp.ones((1, n), x.dtype), x])
    gram = x @ x.T + jnp.diag(jnp.full(k + 1, alpha, x.dtype).at[0].set(0))
    whole = inverse(gram)
    left = of_rows(x, out)  # [f, k, r]
    if _few(x, out):
        return Ridge(
            x, whole, inverse(jnp.eye(out.shape[1], dtype=x.dtype) - left.mT @ whole @ left)
        )
    return Ridge(x, whole, inverse(gram - left @ left.mT))


def ridge_scores(
    made: Ridge, target: Float[Array, "n m"], out: Int[Array, "f r"], most: int
) -> Float[Array, "f t m"]:
    """Predicts the first `most` rows that each fold leaves out, of m targets.

    With the residuals e of the fit to all rows: y - (I - H)^-1 e over the rows left out; where
    these are more than voxels, from the weights of each fold.
    """
    moments = made.x @ target  # [k, m]
    own = target.at[out].get(mode="fill", fill_value=0)  # [f, r, m]
    if _few(made.x, out):
        fitted = made.x.T @ (made.inverse @ moments)
        fitted = fitted.at[out].get(mode="fill", fill_value=0)
        return (own - made.folds @ (own - fitted))[:, :most]
    left = of_rows(made.x, out)
    weights = made.folds @ (moments - left @ own)  # [f, k, m]
    return left[:, :, :most].mT @ weights


def scatter(x: Float[Array, "k n"], size: Int[Array, ""], out: Int[Array, "f r"]) -> Scatter:
    """Returns the scatter of every fold's training rows around their mean, in principal axes.

    Args:
      x: [k, n] voxels x rows, centred over the rows; 0 where a voxel only fills up.
      size: number of voxels, of which k may be a rotation or a filling up.
      out: [f, r] int, rows to leave out, n where there are none.
    """
    left = of_rows(x, out)
    kept = (x.shape[1] - (out < x.shape[1]).sum(1)).astype(x.dtype)[:, None]
    mean = -left.sum(2) / kept  # [f, k]
    total = x @ x.T - left @ left.mT - kept[..., None] * mean[:, :, None] * mean[:, None]
    total, axes = jnp.linalg.eigh(total)
    return Scatter(jnp.maximum(total, 0), axes, mean, x, size.astype(x.dtype))


def lda_scores(
    made: Scatter,
    member: Float[Array, "n p q"],
    out: Int[Array, "f r"],
    most: int,
    shrinkage: float,
    equal_priors: bool,
) -> Float[Array, "f t p q"]:
    """Returns linear discriminants of the first `most` rows that each fold leaves out.

    Within-class scatter is total scatter minus that of the class means, m'C m with the means m of
    all classes but the first, around the mean of all. Woodbury's identity takes it out, so that in
    the axes of the total no labelling needs a decomposition.

    Args:
      made: of `scatter`.
      member: [n, p, q] 1 where a row belongs to a class, of p labellings.
      out: [f, r] int, as `made` was made with.
      most: number of tested rows.
      shrinkage: share of the mean variance in the covariance.
      equal_priors: whether classes count alike, however many rows of them train.

    Returns:
      [f, t, p, q] discriminants, around the mean; of two classes their difference, [f, t, p, 1].
    """
    left, own = of_rows(made.x, out), member.at[out].get(mode="fill", fill_value=0)
    count = member.sum(0) - own.sum(1)  # [f, p, q]
    rows, c = count.sum(2), count[..., 1:]
    means = _means(made, left, member[..., 1:], own[..., 1:], c)  # [f, p, q - 1, k]
    mixed = jnp.eye(c.shape[-1], dtype=c.dtype) / c[..., None] - 1 / rows[..., None, None]  # C^-1
    first = -(c[..., None] * means).sum(2, keepdims=True) / count[..., :1, None]
    spread = (c * (means**2).sum(3)).sum(2) + count[..., 0] * (first**2).sum((2, 3))
    share = shrinkage * (made.total.sum(1)[:, None] - spread) / made.size  # [f, p]
    share = jnp.maximum(share, jnp.finfo(share.dtype).tiny)
    outer = means / ((1 - shrinkage) * made.total[:, None] + share[..., None])[:, :, None]
    gram = jnp.einsum("fpqk,fpsk->fpqs", means, outer)
    # Of the covariance, not of the scatter: hence the number of rows.
    weights = mixed @ solve_small(mixed - (1 - shrinkage) * gram, outer) * rows[..., None, None]
    zeroth = -(c[..., None] * weights).sum(2, keepdims=True) / count[..., :1, None]
    weights, means = (jnp.concatenate(pair, 2) for pair in ((zeroth, weights), (first, means)))
    prior = jnp.zeros_like(count) if equal_priors else jnp.log(count / rows[..., None])
    offset = prior - (weights * means).sum(3) / 2
    if member.shape[2] == 2:
        weights, offset = weights[:, :, 1:] - weights[:, :, :1], offset[..., 1:] - offset[..., :1]
    tested = (left[:, :, :most] - made.mean[..., None]).mT @ made.axes
    return jnp.einsum("ftj,fpqj->ftpq", tested, weights) + offset[:, None]


def _means(made: Scatter, left, member, own, count):
    """Returns class means of every fold's training rows in its axes, around their mean."""
    (n, *sizes), (f, r) = member.shape, own.shape[:2]
    sums = made.x @ member.reshape(n, -1) - left @ own.reshape(f, r, -1)  # [f, k, p * q]
    sums -= made.mean[..., None] * count.reshape(f, 1, -1)
    return (sums.mT @ made.axes).reshape(f, *sizes, -1) / count[..., None]


def inverse(a: Float[Array, "*b k k"]) -> Float[Array, "*b k k"]:
    """Inverts symmetric positive definite matrices by halves, with matrix products.

    For many small ones at a time: LAPACK is called for each, and its threads wait for each other.
    """
    k = a.shape[-1]
    if k <= SMALL:
        return solve_small(a, jnp.broadcast_to(jnp.eye(k, dtype=a.dtype), a.shape))
    h = k // 2
    first, across = inverse(a[..., :h, :h]), a[..., :h, h:]
    moved = first @ across
    last = inverse(a[..., h:, h:] - across.mT @ moved)
    beside = -moved @ last
    upper = jnp.concatenate([first - beside @ moved.mT, beside], -1)
    return jnp.concatenate([upper, jnp.concatenate([beside.mT, last], -1)], -2)


def of_rows(x: Float[Array, "k n"], out: Int[Array, "f r"]) -> Float[Array, "f k r"]:
    """Returns the values of some rows; zeros for row n."""
    return jnp.moveaxis(x.at[:, out].get(mode="fill", fill_value=0), 1, 0)


def _few(x, out):
    return out.shape[1] <= x.shape[0]


def solve_small(a: Float[Array, "*b q q"], b: Float[Array, "*b q m"]) -> Float[Array, "*b q m"]:
    """Solves a x = b for many small positive definite a, without a call for each."""
    for i in range(a.shape[-1]):
        pivot = 1 / a[..., i : i + 1, i : i + 1]
        row, values = a[..., i : i + 1, :] * pivot, b[..., i : i + 1, :] * pivot
        # The row of the pivot is put in its place: as a difference it would cancel to rounding.
        factor = a[..., :, i : i + 1].at[..., i, :].set(0)
        a = (a - factor * row).at[..., i : i + 1, :].set(row)
        b = (b - factor * values).at[..., i : i + 1, :].set(values)
    return b
