"""Scores of held-out rows of many folds, for one small set of voxels.

One decomposition per set serves all folds and all labellings: rows that a fold does not train on
are removed by a downdate, and labels enter as right-hand sides. Everything is written for one set
of voxels; use `jax.vmap` for many.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from emojax._numerics.checks import Array

FEW = 5  # labellings up to which one solution each (`within`) costs less than axes for all
SMALL = 9  # largest size of matrices that are inverted row by row


class Folds(NamedTuple):
    """Folds of the rows that take part in any of them. Row n is a padding row of zeros."""

    rows: Int[np.ndarray, " n"]  # rows that train or are tested in some fold
    out: Int[np.ndarray, "f r"]  # rows that a fold does not train on, tested ones first
    test: Int[np.ndarray, "f t"]  # tested rows of a fold: the first columns of `out`
    train: Bool[np.ndarray, "f n"]  # whether a row trains in a fold


class Ridge(NamedTuple):
    """One decomposed set of voxels. The first "voxel" is the intercept: a row of ones."""

    x: Float[jax.Array, "k n"]
    inverse: Float[jax.Array, "k k"]  # inverse of x x' + penalty
    # Inverses of I - H over the rows left out, H = x' inverse x; or, if there are more of these
    # than voxels, of x x' + penalty over the rows that train.
    folds: Float[jax.Array, "f s s"]


class Scatter(NamedTuple):
    """The scatter of one set of voxels around the mean of every fold's training rows."""

    total: Float[jax.Array, "f k"]  # in its principal axes
    axes: Float[jax.Array, "f k k"]
    mean: Float[jax.Array, "f k"]
    x: Float[jax.Array, "k n"]
    size: Float[jax.Array, ""]  # number of voxels


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


def compress(x: Float[jax.Array, "k n"]) -> Float[jax.Array, "_ n"]:
    """Rotates voxels so that there are no more of them than rows; inner products are kept."""
    return jnp.linalg.qr(x, mode="r") if x.shape[0] > x.shape[1] else x


def ridge(x: Float[jax.Array, "k n"], out: Int[Array, "f r"], alpha: float) -> Ridge:
    """Decomposes centred voxels for ridge regression with an unpenalised intercept.

    Args:
      x: [k, n] voxels x rows, centred over the rows; 0 for padding voxels.
      out: [f, r] int, rows to leave out; n is padding.
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
    made: Ridge, target: Float[jax.Array, "n m"], out: Int[Array, "f r"], most: int
) -> Float[jax.Array, "f t m"]:
    """Predicts m targets for the first `most` rows that each fold leaves out.

    Predictions are y - (I - H)^-1 e over the rows left out, with the residuals e of the fit to all
    rows; if there are more of these rows than voxels, they come from the weights of each fold.

    Args:
      made: from `ridge`.
      target: [n, m] float.
      out: [f, r] int, the rows left out that `made` was made with.
      most: number of tested rows.
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


def scatter(
    x: Float[jax.Array, "k n"], size: Int[jax.Array, ""], out: Int[Array, "f r"]
) -> Scatter:
    """Returns the scatter of every fold's training rows around their mean, in principal axes.

    Args:
      x: [k, n] voxels x rows, centred over the rows; 0 for padding voxels.
      size: original number of voxels; k differs after a rotation or padding.
      out: [f, r] int, rows to leave out; n is padding.
    """
    left = of_rows(x, out)
    kept = (x.shape[1] - (out < x.shape[1]).sum(1)).astype(x.dtype)[:, None]
    mean = -left.sum(2) / kept  # [f, k]
    total = x @ x.T - left @ left.mT - kept[..., None] * mean[:, :, None] * mean[:, None]
    total, axes = jnp.linalg.eigh(total)
    return Scatter(jnp.maximum(total, 0), axes, mean, x, size.astype(x.dtype))


def lda_scores(
    made: Scatter,
    member: Float[jax.Array, "n p q"],
    out: Int[Array, "f r"],
    most: int,
    shrinkage: float,
    equal_priors: bool,
) -> Float[jax.Array, "f t p q"]:
    """Returns linear discriminants of the first `most` rows that each fold leaves out.

    Within-class scatter is total scatter minus that of the class means, m'C m with the means m of
    all classes except the first, around the overall mean. Woodbury's identity removes it, so that
    in the axes of the total scatter no labelling needs a decomposition.

    Args:
      made: from `scatter`.
      member: [n, p, q] 1 if a row belongs to a class, for p labellings.
      out: [f, r] int, the rows left out that `made` was made with.
      most: number of tested rows.
      shrinkage: weight of the mean variance in the covariance.
      equal_priors: whether classes have equal priors, however many of their rows train.

    Returns:
      [f, t, p, q] discriminants, around the mean; for two classes their difference, [f, t, p, 1].
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
    # The number of rows turns scatter into covariance.
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
    """Returns class means of every fold's training rows, centred, in the fold's axes."""
    (n, *sizes), (f, r) = member.shape, own.shape[:2]
    sums = made.x @ member.reshape(n, -1) - left @ own.reshape(f, r, -1)  # [f, k, p * q]
    sums -= made.mean[..., None] * count.reshape(f, 1, -1)
    return (sums.mT @ made.axes).reshape(f, *sizes, -1) / count[..., None]


def inverse(a: Float[jax.Array, "*b k k"]) -> Float[jax.Array, "*b k k"]:
    """Inverts symmetric positive definite matrices by recursive halving, with matrix products.

    This is for many small matrices: LAPACK is called for each, and its threads wait for each other.
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


def of_rows(x: Float[jax.Array, "k n"], out: Int[Array, "f r"]) -> Float[jax.Array, "f k r"]:
    """Returns the values of rows `out`; zeros for padding row n."""
    return jnp.moveaxis(x.at[:, out].get(mode="fill", fill_value=0), 1, 0)


def _few(x, out):
    return out.shape[1] <= x.shape[0]


def solve_small(
    a: Float[jax.Array, "*b q q"], b: Float[jax.Array, "*b q m"]
) -> Float[jax.Array, "*b q m"]:
    """Solves a x = b for many small positive definite a, without a call for each."""
    for i in range(a.shape[-1]):
        pivot = 1 / a[..., i : i + 1, i : i + 1]
        row, values = a[..., i : i + 1, :] * pivot, b[..., i : i + 1, :] * pivot
        # The pivot row is set, not subtracted, which would leave only rounding errors.
        factor = a[..., :, i : i + 1].at[..., i, :].set(0)
        a = (a - factor * row).at[..., i : i + 1, :].set(row)
        b = (b - factor * values).at[..., i : i + 1, :].set(values)
    return b
