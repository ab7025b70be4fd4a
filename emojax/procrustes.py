"""Orthogonal Procrustes: the rotation of one voxel space onto another, dense and low-rank.

Rows are samples that correspond between source and target; columns are voxels. The steps are those
of PyMVPA's Procrustean mapper, so that results can be compared number by number.
"""

from functools import partial
from typing import get_args

import jax
import jax.numpy as jnp
from jaxtyping import Float

from emojax._numerics import rows
from emojax._numerics.checks import Array, as_float, check_finite, known
from emojax._numerics.maps import LowRankProcrustes, Mapping, Procrustes
from emojax._numerics.order import after
from emojax._numerics.polar import Method, polar
from emojax._numerics.rows import Rows

__all__ = [
    "LowRankProcrustes",
    "Mapping",
    "Method",
    "Procrustes",
    "align_rows",
    "fit",
    "fit_lowrank",
    "inverse",
    "transform",
]


def fit(
    source: Float[Array, "n p"],
    target: Float[Array, "n q"],
    *,
    scaling: bool = True,
    reflection: bool = True,
    demean: bool = True,
    method: Method = "svd",
) -> Procrustes:
    """Fits the rotation (with scale and means) that brings `source` closest to `target`.

    Minimises ||scale (source - mean) R - (target - mean)||_F over orthogonal R: with the centred
    B'A = U diag(s) V', R = V U' and scale = sum(s) / ||A||^2. If p != q, the rotation has
    orthonormal rows (p < q) or columns (p > q): PyMVPA's padding with zero columns, cropped.

    Args:
      source: [n, p] float, rows that correspond to those of `target`.
      target: [n, q] float.
      scaling: False sets the scale to 1.
      reflection: False keeps det R = +1 (p == q), by flipping the direction that matters least.
      demean: False rotates about the origin; both means are then zero. If the target is centred but
        the source is not, and both have at least n voxels (more, without reflection), the data do
        not determine where the part of the source's mean outside the span of its centred rows
        goes: the rotation drops this one direction.
      method: "svd", or "polar": matrix products only, for GPUs. With fewer rows than voxels the
        rotation is not unique outside the span of the rows; the mapped rows are the same.

    Returns:
      The map. Its rotation is p x q; for whole brains, use `fit_lowrank`.

    Raises:
      ValueError: not two matrices with the same number (>= 2) of rows, values that are not finite,
        a source or target in which no voxel varies, or an unknown method.

    References:
      Schoenemann, A generalized solution of the orthogonal Procrustes problem, 1966. PyMVPA 2.6.
    """
    source, target = _check_pair(source, target, demean, method)
    return _fit(source, target, scaling, reflection, demean, method, lowrank=False)


def fit_lowrank(
    source: Float[Array, "n p"],
    target: Float[Array, "n q"],
    *,
    scaling: bool = True,
    reflection: bool = True,
    demean: bool = True,
    method: Method = "svd",
) -> LowRankProcrustes:
    """Fits the same map as `fit` for n << p: O(n^2 p) work and no p x p matrix.

    The mapped rows, the scale and the means are those of `fit`. New rows lose the part outside the
    span of the fitted ones, instead of having it rotated arbitrarily. `reflection=False` has no
    visible effect if n <= p and n <= q; if p == q < n, it works as in `fit`.

    Args and raises: as for `fit`.
    """
    source, target = _check_pair(source, target, demean, method)
    return _fit(source, target, scaling, reflection, demean, method, lowrank=True)


@partial(jax.jit, static_argnames=("scaling", "reflection", "demean", "method", "lowrank"))
@jax.default_matmul_precision("highest")
def _fit(source, target, scaling, reflection, demean, method, lowrank):
    narrow = min(source.shape[1], target.shape[1])
    square = reflection and not demean
    small = lowrank or narrow > source.shape[0] - square  # otherwise the narrow side limits rank
    centre = partial(rows.compress, square=square) if small else rows.as_rows
    a = centre(source, demean)
    b = centre(after(target, a.left), demean)
    core, scale = align_rows(a, b, scaling=scaling, reflection=reflection, method=method)
    if lowrank:
        return rows.lowrank_map(a, core, scale, b)
    return rows.dense_map(a, core, scale, b, reflection)


def align_rows(
    source: Rows, target: Rows, *, scaling: bool, reflection: bool, method: Method
) -> tuple[Float[Array, "r s"], Float[Array, ""]]:
    """Solves the Procrustes problem in the r and s coordinates of compressed rows.

    With B'A = U diag(s) V' (A, B the centred source and target), rotation = V U' and
    scale = sum(s) / ||A||^2, the least-squares optimum (Schoenemann 1966).

    Returns:
      The rotation of the coordinates, and the scale (1 without scaling).
    """
    # A flip of the smallest singular direction has no effect if there is a null direction anyway.
    reflection = reflection or source.basis is not None or target.basis is not None
    size = jnp.linalg.norm(source.left)
    size = jnp.where(size > 0, size, 1)
    cross, pinned = _pin(source.left.T @ (target.left / size), source, target)
    core, trace = polar(cross, reflection, method)
    trace = trace - pinned
    return core, trace / size if scaling else jnp.ones_like(trace)


def _pin(cross, source, target):
    """Returns the cross product in which columns that vary on neither side stay in place.

    Otherwise they would be a null space, which `polar` completes arbitrarily by mixing them with
    others. Thus columns of zeros never change the map of the rest. The second value is their
    contribution to the trace.
    """
    if source.basis is not None or target.basis is not None or cross.shape[0] != cross.shape[1]:
        return cross, 0
    still = ~(source.left.any(0) | target.left.any(0))
    size = 2 * jnp.linalg.norm(jax.lax.stop_gradient(cross))  # above all singular values
    size = jnp.where(size > 0, size, 1)
    return cross + jnp.diag(jnp.where(still, size, 0)), size * still.sum()


def transform(mapping: Mapping, x: Float[Array, "t p"]) -> Float[Array, "t q"]:
    """Computes scale * (x - source_mean) @ rotation + target_mean, for fitted or new rows x [t, p].

    For a stack of maps, use `jax.vmap(transform)`.

    Raises:
      ValueError: x does not have the p voxels that the map was fitted to.
    """
    x = as_float(x)
    _check_width(mapping, x, mapping.widths[0])
    return _forward(mapping, x)


def inverse(mapping: Mapping, y: Float[Array, "t q"]) -> Float[Array, "t p"]:
    """Computes (y - target_mean) @ rotation.T / scale + source_mean: y [t, q] in source space.

    Undoes `transform` exactly if p == q, and otherwise up to the dropped directions.

    Raises:
      ValueError: y does not have q voxels.
    """
    y = as_float(y, "y")
    _check_width(mapping, y, mapping.widths[1])
    return _reverse(mapping, y)


_forward = jax.jit(jax.default_matmul_precision("highest")(lambda mapping, x: mapping.forward(x)))
_reverse = jax.jit(jax.default_matmul_precision("highest")(lambda mapping, y: mapping.reverse(y)))


def _check_width(mapping, x, width):
    if mapping.stack:
        raise ValueError(f"want one map; got a stack of {len(mapping)}: use jax.vmap")
    if x.ndim < 1 or x.shape[-1] != width:
        raise ValueError(f"want rows of {width} voxels; got shape {x.shape}")


def _check_pair(source, target, demean, method):
    if method not in get_args(Method):
        raise ValueError(f"want method in {get_args(Method)}; got {method!r}")
    source, target = as_float(source, "source"), as_float(target, "target")
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target) or len(source) < 2:
        raise ValueError(
            "want source [n, p] and target [n, q] with the same n >= 2; "
            f"got {source.shape}, {target.shape}"
        )
    for name, x in (("source", source), ("target", target)):
        check_finite(name, x)
        if known(partial(rows.varies, demean=demean), x) is False:
            raise ValueError(f"want a {name} with voxels that vary over rows; all are constant")
    return source, target
