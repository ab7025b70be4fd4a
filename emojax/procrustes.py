"""Orthogonal Procrustes: the rotation of one voxel space onto another, dense and low-rank.

Rows are samples that correspond between source and target, columns are voxels. The steps are those
of PyMVPA's Procrustean mapper, so that results can be compared number by number.
"""

import dataclasses
from functools import partial
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from emojax._numerics.checks import Array, as_float, check_finite, known
from emojax._numerics.polar import Method, polar


class Mapping:
    """What all maps between voxel spaces share; `mapping[i]` is map i of a stack."""

    @property
    def widths(self) -> tuple[int, int]:
        """Voxels in, dimensions out."""
        return self.source_mean.shape[-1], self.target_mean.shape[-1]

    @property
    def projection(self) -> Float[Array, "*stack p q"]:
        """[p, q]: scale * rotation, the matrix that centred rows are multiplied by."""
        return self.scale[..., None, None] * self.rotation

    def forward(self, x: Float[Array, "t p"]) -> Float[Array, "t q"]:
        """See `transform`."""
        return self._rotate(x - self.source_mean) * self.scale + self.target_mean

    def reverse(self, y: Float[Array, "t q"]) -> Float[Array, "t p"]:
        """See `inverse`."""
        return self._rotate_back((y - self.target_mean) / self.scale) + self.source_mean

    def __getitem__(self, index):
        return jax.tree.map(lambda leaf: leaf[index], self)

    def __len__(self) -> int:
        """Number of maps in a stack."""
        if self.scale.ndim == 0:
            raise TypeError("a single map has no length; a stack of maps has")
        return self.scale.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Procrustes(Mapping):
    """A fitted map x -> scale * (x - source_mean) @ rotation + target_mean.

    Stacked along a leading axis (as `jax.vmap` makes it), it is a set of maps.
    """

    rotation: Float[Array, "*stack p q"]  # orthonormal rows or columns; orthogonal where p == q
    scale: Float[Array, "*stack"]  # 1 if fitted with scaling=False
    source_mean: Float[Array, "*stack p"]  # zeros if fitted with demean=False
    target_mean: Float[Array, "*stack q"]

    def _rotate(self, x):
        return x @ self.rotation

    def _rotate_back(self, y):
        return y @ self.rotation.T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRankProcrustes(Mapping):
    """`Procrustes` whose rotation, left @ right.T, is kept as two thin factors.

    The rotation has the rank r of the fitted rows: it maps the span of the source's rows onto that
    of the target's and drops what lies outside, where the data say nothing. (A dense fit rotates
    what lies outside to an arbitrary place; so do both within the span of rounding noise where rows
    have a lower rank than n - 1, as after centring within runs. Fitted rows are not affected.)
    `rotation` and `projection` form the p x q matrix.
    """

    left: Float[Array, "*stack p r"]
    right: Float[Array, "*stack q r"]
    scale: Float[Array, "*stack"]
    source_mean: Float[Array, "*stack p"]
    target_mean: Float[Array, "*stack q"]

    @property
    def rotation(self) -> Float[Array, "*stack p q"]:
        """[p, q], formed anew at each call: large for whole brains."""
        return self.left @ jnp.swapaxes(self.right, -1, -2)

    def _rotate(self, x):
        return (x @ self.left) @ self.right.T

    def _rotate_back(self, y):
        return (y @ self.right) @ self.left.T


class Rows(NamedTuple):
    """Centred rows A = left @ basis.T of one subject, compressed if it has more voxels than rows.

    Only the small `left` enters a Procrustes fit, whose cost then depends on voxels only through
    the one QR decomposition that made it.
    """

    left: Float[Array, "n r"]
    basis: Float[Array, "p r"] | None  # orthonormal columns; None stands for the identity, r = p
    mean: Float[Array, " p"]


def column_mean(x: Float[Array, "n p"]) -> Float[Array, " p"]:
    """x.mean(0) as a product, because XLA's CPU sums down columns 25 times slower."""
    return jnp.full(x.shape[0], 1 / x.shape[0], x.dtype) @ x


def centre(x: Float[Array, "n p"]) -> tuple[Float[Array, "n p"], Float[Array, " p"]]:
    """`x` without its column means, and the means; in float32 the first mean is off by rounding."""
    mean = column_mean(x)
    rest = x - mean
    left_over = column_mean(rest)
    return rest - left_over, mean + left_over


def _centre_if(x, demean):
    return centre(x) if demean else (x, jnp.zeros(x.shape[1], x.dtype))


def restore(rows: Rows) -> Float[Array, "n p"]:
    """The matrix that `compress` was given."""
    return (rows.left if rows.basis is None else rows.left @ rows.basis.T) + rows.mean


def compress(x: Float[Array, "n p"], demean: bool = True) -> Rows:
    """Centres x and, where p > n, factors it by a QR decomposition of its transpose.

    Centred rows have rank n - 1. A Householder reflection that takes the vector of ones to the
    first axis leaves n - 1 rows of full rank, so that r = n - 1 and derivatives exist.
    """
    n, p = x.shape
    x, mean = _centre_if(x, demean)
    if p <= n:
        return Rows(x, None, mean)
    if not demean:
        q, r = jnp.linalg.qr(x.T)
        return Rows(r.T, q, mean)
    q, r = jnp.linalg.qr(_reflect_ones(x)[1:].T)
    left = _reflect_ones(jnp.concatenate([jnp.zeros((1, n - 1), x.dtype), r.T]))
    return Rows(left, q, mean)


def _reflect_ones(x):
    """H x with H = I - 2 u u' / u'u symmetric, u = 1/sqrt(n) + e_1, so that H 1 = -sqrt(n) e_1."""
    n = x.shape[0]
    u = jnp.full(n, n**-0.5, x.dtype).at[0].add(1)
    return x - jnp.outer(u, u @ x) / (1 + n**-0.5)


def align_rows(
    source: Rows, target: Rows, *, scaling: bool, reflection: bool, method: Method
) -> tuple[Float[Array, "r s"], Float[Array, ""]]:
    """The small rotation from the source's r to the target's s coordinates, and the scale.

    With B'A = U diag(s) V' (A, B the centred source and target), rotation = V U' and
    scale = sum(s) / ||A||^2, the least-squares optimum (Schoenemann 1966).
    """
    # A flip of the smallest singular direction is invisible where there is a null direction anyway.
    reflection = reflection or source.basis is not None or target.basis is not None
    size = jnp.linalg.norm(source.left)
    size = jnp.where(size > 0, size, 1)
    core, trace = polar(source.left.T @ (target.left / size), reflection, method)
    return core, trace / size if scaling else jnp.ones_like(trace)


def moved_rows(
    source: Rows, core: jax.Array, scale: jax.Array, target: Rows
) -> Float[Array, "n q"]:
    """The source's fitted rows in the target's space."""
    rows = scale * (source.left @ core)
    return (rows if target.basis is None else rows @ target.basis.T) + target.mean


def dense_map(
    source: Rows, core: jax.Array, scale: jax.Array, target: Rows, reflection: bool
) -> Procrustes:
    """The fitted map with its rotation as one matrix, orthogonal also outside the rows' span."""
    rotation = core if source.basis is None else source.basis @ core
    if target.basis is not None:
        rotation = rotation @ target.basis.T
    if source.basis is not None and target.basis is not None:
        p, q = rotation.shape
        extra = min(p, q) - min(core.shape)
        outside = _complement(source.basis)[:, :extra]
        rotation += outside @ _complement(target.basis)[:, :extra].T
        if p == q and not reflection:  # flip a direction in which nothing can be seen of it
            flip = jnp.where(jnp.linalg.det(rotation) < 0, 2, 0).astype(rotation.dtype)
            rotation -= flip * outside[:, :1] @ (outside[:, :1].T @ rotation)
    return Procrustes(rotation, scale, source.mean, target.mean)


def _complement(basis):
    """[p, p - r] orthonormal columns orthogonal to those of basis [p, r], of arbitrary choice."""
    q, _ = jnp.linalg.qr(jax.lax.stop_gradient(basis), mode="complete")
    return q[:, basis.shape[1] :]


def lowrank_map(source: Rows, core: jax.Array, scale: jax.Array, target: Rows) -> LowRankProcrustes:
    """The fitted map with its rotation as two factors."""
    left = core if source.basis is None else source.basis @ core
    right = jnp.eye(core.shape[1], dtype=core.dtype) if target.basis is None else target.basis
    return LowRankProcrustes(left, right, scale, source.mean, target.mean)


def fit(
    source: Float[Array, "n p"],
    target: Float[Array, "n q"],
    *,
    scaling: bool = True,
    reflection: bool = True,
    demean: bool = True,
    method: Method = "svd",
) -> Procrustes:
    """Fits the rotation (with scale and means) that takes `source` nearest to `target`.

    min ||scale (source - mean) R - (target - mean)||_F over orthogonal R: with the centred
    B'A = U diag(s) V', R = V U' and scale = sum(s) / ||A||^2. Where p != q the rotation has
    orthonormal rows (p < q) or columns (p > q): PyMVPA's padding with zero columns, cropped.

    Args:
      source: [n, p] float, rows that correspond to those of `target`.
      target: [n, q] float.
      scaling: False sets the scale to 1.
      reflection: False keeps det R = +1 (p == q), by flipping the direction that matters least.
      demean: False rotates about the origin; both means are then zero.
      method: "svd", or "polar": matrix products only, for GPUs. With fewer rows than voxels the
        rotation is not unique outside the span of the rows; the mapped rows are the same.

    Returns:
      The map; its rotation is p x q, so see `fit_lowrank` for whole brains.

    Raises:
      ValueError: not two matrices with the same number (>= 2) of rows, values that are not finite,
        a source or target in which no voxel varies, or an unknown method.

    References:
      Schoenemann, A generalized solution of the orthogonal Procrustes problem, 1966. PyMVPA 2.6.
    """
    source, target = _checked(source, target, demean, method)
    options = {"scaling": scaling, "reflection": reflection, "demean": demean, "method": method}
    return _fit(source, target, lowrank=False, **options)


def fit_lowrank(
    source: Float[Array, "n p"],
    target: Float[Array, "n q"],
    *,
    scaling: bool = True,
    reflection: bool = True,
    demean: bool = True,
    method: Method = "svd",
) -> LowRankProcrustes:
    """`fit` for n << p: O(n^2 p) work, and no p x p matrix.

    The mapped rows, the scale and the means are those of `fit`; new rows lose what lies outside the
    span of the fitted ones instead of having it rotated arbitrarily. `reflection=False` changes
    nothing that could be seen where n <= p and n <= q, and where p == q < n it is heeded.

    Args, raises: as `fit`.
    """
    source, target = _checked(source, target, demean, method)
    options = {"scaling": scaling, "reflection": reflection, "demean": demean, "method": method}
    return _fit(source, target, lowrank=True, **options)


def transform(mapping: Mapping, x: Float[Array, "t p"]) -> Float[Array, "t q"]:
    """scale * (x - source_mean) @ rotation + target_mean, for fitted or new rows x [t, p].

    For a stack of maps use `jax.vmap(transform)`.

    Raises:
      ValueError: x does not have the p voxels that the map was fitted to.
    """
    _check_width(mapping, x, mapping.widths[0])
    return _forward(mapping, as_float(x))


def inverse(mapping: Mapping, y: Float[Array, "t q"]) -> Float[Array, "t p"]:
    """(y - target_mean) @ rotation.T / scale + source_mean: rows y [t, q] in the source's space.

    Undoes `transform` exactly where p == q; otherwise up to the dropped directions.

    Raises:
      ValueError: y does not have q voxels.
    """
    _check_width(mapping, y, mapping.widths[1])
    return _reverse(mapping, as_float(y))


def _check_width(mapping, x, width):
    if mapping.scale.ndim:
        raise ValueError(f"want one map; got a stack of {len(mapping)}: use jax.vmap")
    if x.ndim < 1 or x.shape[-1] != width:
        raise ValueError(f"want rows of {width} voxels; got shape {x.shape}")


_forward = jax.jit(jax.default_matmul_precision("highest")(lambda mapping, x: mapping.forward(x)))
_reverse = jax.jit(jax.default_matmul_precision("highest")(lambda mapping, y: mapping.reverse(y)))


def _checked(source, target, demean, method):
    if method not in get_args(Method):
        raise ValueError(f"want method in {get_args(Method)}; got {method!r}")
    source, target = as_float(source), as_float(target)
    if source.ndim != 2 or target.ndim != 2 or len(source) != len(target) or len(source) < 2:
        raise ValueError(
            "want source [n, p] and target [n, q] with the same n >= 2; "
            f"got {source.shape}, {target.shape}"
        )
    for name, x in (("source", source), ("target", target)):
        check_finite(name, x)
        if known(partial(varies, demean=demean), x) is False:
            raise ValueError(f"want a {name} with voxels that vary over rows; all are constant")
    return source, target


@partial(jax.jit, static_argnames="demean")
@jax.default_matmul_precision("highest")
def varies(x: Float[Array, "n p"], demean: bool = True) -> Bool[Array, ""]:
    """False if every column is constant up to rounding (or zero, if not centred)."""
    rows, mean = _centre_if(x, demean)
    tolerance = (x.shape[0] * jnp.finfo(x.dtype).eps * mean) ** 2
    return (column_mean(rows**2) * x.shape[0] > tolerance).any()


@partial(jax.jit, static_argnames=("scaling", "reflection", "demean", "method", "lowrank"))
@jax.default_matmul_precision("highest")
def _fit(source, target, *, scaling, reflection, demean, method, lowrank):
    n, wide = source.shape[0], min(source.shape[1], target.shape[1])
    if lowrank or wide > n:
        a, b = compress(source, demean), compress(target, demean)
    else:  # the narrow side bounds the rank: one thin SVD of the p x q cross-product
        pairs = (_centre_if(x, demean) for x in (source, target))
        a, b = (Rows(rows, None, mean) for rows, mean in pairs)
    core, scale = align_rows(a, b, scaling=scaling, reflection=reflection, method=method)
    if lowrank:
        return lowrank_map(a, core, scale, b)
    return dense_map(a, core, scale, b, reflection)
