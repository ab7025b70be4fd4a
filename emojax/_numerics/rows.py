"""Centred rows of one subject, compressed to the small factor that Procrustes problems need."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from emojax._numerics.checks import Array
from emojax._numerics.maps import LowRankProcrustes, Procrustes
from emojax._numerics.order import after


class Rows(NamedTuple):
    """Centred rows A = left @ basis.T of one subject, compressed if it has more voxels than rows.

    Only the small `left` enters a Procrustes fit, so that the cost depends on the number of voxels
    only through one QR decomposition.
    """

    left: Float[Array, "n r"]
    basis: Float[Array, "p r"] | None  # orthonormal columns; None stands for the identity, r = p
    mean: Float[Array, " p"]


def column_mean(x: Float[Array, "n p"]) -> Float[Array, " p"]:
    """Returns x.mean(0) as a product, as XLA on CPUs sums down columns 25 times slower."""
    return jnp.full(x.shape[0], 1 / x.shape[0], x.dtype) @ x


def centre(x: Float[Array, "n p"]) -> tuple[Float[Array, "n p"], Float[Array, " p"]]:
    """Subtracts column means and returns both; done twice, as float32 rounds the first mean."""
    mean = column_mean(x)
    rest = x - mean
    left_over = column_mean(rest)
    return rest - left_over, mean + left_over


@partial(jax.jit, static_argnames="demean")
@jax.default_matmul_precision("highest")
def varies(x: Float[Array, "n p"], demean: bool = True) -> Bool[Array, ""]:
    """Returns False if every column is constant up to rounding (or zero, without centring)."""
    rows, mean = _centre_if(x, demean)
    tolerance = (x.shape[0] * jnp.finfo(x.dtype).eps * mean) ** 2
    return jnp.any(column_mean(rows**2) * x.shape[0] > tolerance)


def as_rows(x: Float[Array, "n p"], demean: bool = True) -> Rows:
    """Centres x, if requested, without compressing it."""
    rest, mean = _centre_if(x, demean)
    return Rows(rest, None, mean)


def compress(x: Float[Array, "n p"], demean: bool = True, square: bool = False) -> Rows:
    """Centres x and, if p > n, factors it by a QR decomposition of its transpose.

    Centred rows have rank n - 1. A Householder reflection that takes the vector of ones to the
    first axis leaves n - 1 rows of full rank, so that r = n - 1 and derivatives exist.

    Without centring r = n, and the last column of `basis` is the part of the mean that lies outside
    the span of the centred rows. If the rows are already centred, like those of a z-scored
    template, that part is rounding noise and the column is zero: nothing determines where the mean
    of another subject belongs in such a space, so a rotation drops this one direction. With
    `square`, the same holds for p = n voxels.
    """
    n, p = x.shape
    if p < n or (p == n and (demean or not square)):
        return as_rows(x, demean)
    rest, mean = _centre_if(x, demean)
    turned = _reflect_ones(rest)
    if demean:
        q, r = _qr(turned[1:].T)
        left = _reflect_ones(jnp.concatenate([jnp.zeros((1, n - 1), x.dtype), r.T]))
        return Rows(left, q, mean)
    q, r = _qr(jnp.roll(turned, -1, 0).T)
    noise = 10 * jnp.finfo(x.dtype).eps * jnp.linalg.norm(x)
    here = jnp.ones(n, x.dtype).at[-1].set(jnp.abs(r[-1, -1]) > noise)
    return Rows(_reflect_ones(jnp.roll(r.T * here, 1, 0)), q * here, mean)


def restore(rows: Rows) -> Float[Array, "n p"]:
    """Returns the matrix that `compress` was given."""
    return (rows.left if rows.basis is None else rows.left @ rows.basis.T) + rows.mean


def move_rows(
    source: Rows, core: Float[Array, "r s"], scale: Float[Array, ""], target: Rows
) -> Float[Array, "n q"]:
    """Moves the source's fitted rows into the target's space."""
    rows = scale * (source.left @ core)
    return (rows if target.basis is None else rows @ target.basis.T) + target.mean


def dense_map(
    source: Rows,
    core: Float[Array, "r s"],
    scale: Float[Array, ""],
    target: Rows,
    reflection: bool,
) -> Procrustes:
    """Builds the map with its rotation as one matrix, orthogonal even outside the rows' span."""
    rotation = core if source.basis is None else source.basis @ core
    if target.basis is not None:
        rotation = rotation @ target.basis.T
    if source.basis is not None and target.basis is not None:
        p, q = rotation.shape
        extra = min(p, q) - min(core.shape)
        outside = _complement(after(source.basis, core))[:, :extra]
        rotation += outside @ _complement(after(target.basis, outside))[:, :extra].T
        if p == q and not reflection:  # flip a direction outside the data, where it has no effect
            flip = jnp.where(jnp.linalg.det(rotation) < 0, 2, 0).astype(rotation.dtype)
            rotation -= flip * outside[:, :1] @ (outside[:, :1].T @ rotation)
    return Procrustes(rotation, scale, source.mean, target.mean)


def lowrank_map(
    source: Rows, core: Float[Array, "r s"], scale: Float[Array, ""], target: Rows
) -> LowRankProcrustes:
    """Builds the map with its rotation as two thin factors."""
    left = core if source.basis is None else source.basis @ core
    right = jnp.eye(core.shape[1], dtype=core.dtype) if target.basis is None else target.basis
    return LowRankProcrustes(left, right, scale, source.mean, target.mean)


def _centre_if(x, demean):
    return centre(x) if demean else (x, jnp.zeros(x.shape[1], x.dtype))


def _reflect_ones(x):
    """Returns H x, H = I - 2 u u' / u'u symmetric, u = 1/sqrt(n) + e_1: H 1 = -sqrt(n) e_1."""
    n = x.shape[0]
    u = jnp.full(n, n**-0.5, x.dtype).at[0].add(1)
    return x - jnp.outer(u, u @ x) / (1 + n**-0.5)


def _qr(x):
    q, r = jnp.linalg.qr(x)
    return q, after(r, q)  # LAPACK computes q from r, each in a batch


def _complement(basis):
    """Returns arbitrary orthonormal columns [p, p - r] orthogonal to basis [p, r]."""
    q, _ = jnp.linalg.qr(jax.lax.stop_gradient(basis), mode="complete")
    return q[:, basis.shape[1] :]
