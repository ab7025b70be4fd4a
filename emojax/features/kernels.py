"""Volumes for classical classifiers: with n << p, a training set spans n dimensions, not p.

Coordinates in that span, from the n x n matrix of inner products, have the same distances and
angles as the volumes. Classifiers that depend only on these (linear and RBF machines, LDA that
shrinks towards the identity, nearest neighbours) give the same predictions on n coordinates as on
180,224 voxels. So LDA, which did not fit on the paper's machines, runs in seconds.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax.features.scaling import chunks

SQUARED_NORM = 300.0  # mean over training rows: that of 300 standardised voxels, as in Experiment A


class Isometry(NamedTuple):
    """Coordinates of training and test volumes; the last is the distance from the span."""

    train: Float[np.ndarray, "n r"]
    test: Float[np.ndarray, "t r"]


def isometry(
    gram: Float[np.ndarray, "n n"],
    cross: Float[np.ndarray, "t n"],
    norms: Float[np.ndarray, " t"],
    squared_norm: float | None = SQUARED_NORM,
) -> Isometry:
    """Returns coordinates from inner products, centred on the mean of the training rows.

    With K = J G J = U L U' (J centres) the training rows are U sqrt(L), and a test row with centred
    inner products k is k U / sqrt(L). The rest of its norm is its distance from the span of the
    training rows. It becomes one more coordinate, which is 0 for training rows: linear classifiers
    ignore it, and it completes distances.

    Args:
      gram: inner products of training rows.
      cross: inner products of test rows with training rows.
      norms: squared norms of test rows.
      squared_norm: mean squared norm of training rows that all coordinates are scaled to; None
        keeps the units of the volumes.
    """
    gram, cross = np.asarray(gram, np.float64), np.asarray(cross, np.float64)
    means, grand = gram.mean(0), gram.mean()
    vectors, roots = _components(gram)
    k = cross - cross.mean(1, keepdims=True) - means + grand
    test = k @ vectors / roots
    left = np.asarray(norms, np.float64) - 2 * cross.mean(1) + grand - (test**2).sum(1)
    test = np.column_stack([test, np.sqrt(np.maximum(left, 0))])
    train = np.column_stack([vectors * roots, np.zeros(len(gram))])
    unit = _unit(vectors * roots, squared_norm)
    return Isometry((unit * train).astype(np.float32), (unit * test).astype(np.float32))


def axes(
    x: Float[np.ndarray, "n p"], squared_norm: float | None = SQUARED_NORM
) -> tuple[Float[np.ndarray, "n r"], Float[np.ndarray, " r"]]:
    """Returns all but the last of `span`'s coordinates as an affine map y @ (x.T @ axes) + offset.

    Args:
      x: the training rows.
      squared_norm: see `isometry`.
    """
    gram = products(x, x)
    vectors, roots = _components(gram)
    found = _unit(vectors * roots, squared_norm) * vectors / roots
    return found - found.mean(0), (gram.mean() - gram.mean(0)) @ found


def _components(gram: Float[np.ndarray, "n n"]):
    """Returns eigenvectors of the centred inner products and square roots of their eigenvalues."""
    means = gram.mean(0)
    values, vectors = np.linalg.eigh(gram - means - means[:, None] + gram.mean())
    keep = values > 1e-7 * values[-1]
    return vectors[:, keep], np.sqrt(values[keep])


def _unit(train: Float[np.ndarray, "n r"], squared_norm: float | None) -> float:
    """Returns the factor that coordinates are multiplied by."""
    return 1.0 if squared_norm is None else np.sqrt(squared_norm / (train**2).sum(1).mean())


def span(
    x: Float[np.ndarray, "n v"],
    x_test: Float[np.ndarray, "t v"],
    squared_norm: float | None = SQUARED_NORM,
) -> Isometry:
    """Returns coordinates of training and test rows in the span of the training rows.

    Args:
      x, x_test: training and test rows.
      squared_norm: see `isometry`.
    """
    norms = np.einsum("ij,ij->i", x_test, x_test, dtype=np.float64)
    return isometry(products(x, x), products(x_test, x), norms, squared_norm)


def rows_of(
    read: Callable[[np.ndarray], Float[np.ndarray, "k X Y Z"]], rows: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n p"]:
    """Reads volumes chunk by chunk and returns them as rows, float32."""
    out = np.empty((len(rows), math.prod(read(rows[:1]).shape[1:])), np.float32)
    for start, part in zip(range(0, len(rows), 64), chunks(rows), strict=True):
        out[start : start + len(part)] = read(part).reshape(len(part), -1)
    return out


def products(
    a: Float[np.ndarray, "n p"], b: Float[np.ndarray, "t p"], size: int = 16384
) -> Float[np.ndarray, "n t"]:
    """Returns inner products: float64 sums over blocks of `size` voxels of float32 products."""
    total = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], size):
        block = slice(start, start + size)
        total += np.asarray(jnp.matmul(a[:, block], b[:, block].T, precision="highest"))
    return total
