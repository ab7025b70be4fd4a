"""Links around the rotation of a hyperalignment map: z-score, whitening, components."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from emojax._numerics.checks import Array
from emojax._numerics.maps import LowRankProcrustes, Mapping, Procrustes
from emojax._numerics.rows import centre, column_mean


class ZScore(NamedTuple):
    """A link x -> (x - mean) / sd: columns to mean 0 and standard deviation 1."""

    mean: Float[Array, "*stack v"]
    sd: Float[Array, "*stack v"]  # 1 where the column is constant


class Whitening(NamedTuple):
    """A link x -> (x - mean) @ basis @ diag(gain) @ basis.T of rank at most min(rows, voxels)."""

    mean: Float[Array, "*stack v"]
    basis: Float[Array, "*stack v r"]
    gain: Float[Array, "*stack r"]


class Components(NamedTuple):
    """A link y -> (y - mean) @ basis: principal components of the aligned data."""

    mean: Float[Array, "*stack q"]
    basis: Float[Array, "*stack q d"]


def zscore(x: Float[Array, "n v"]) -> tuple[Float[Array, "n v"], ZScore]:
    """Standardises the columns of x (z-score, ddof 0); one constant up to rounding becomes 0.

    After a rotation, a voxel without signal in any subject is rounding noise, about eps times its
    neighbours. PyMVPA tests for a standard deviation of exactly 0, and scales such noise to
    variance 1. Here `constant` is relative to the column's mean, for raw scanner units, and to the
    mean variance of all columns.
    """
    n, v = x.shape
    rest, mean = centre(x)
    variance = column_mean(rest**2)
    typical = jnp.sqrt(variance.mean())
    tolerance = jnp.finfo(x.dtype).eps * (4 * jnp.abs(mean) + 10 * max(n, v) ** 0.5 * typical)
    constant = variance <= tolerance**2
    sd = jnp.sqrt(jnp.where(constant, 1, variance))
    return jnp.where(constant, 0, rest / sd), ZScore(mean, sd)


def whiten(x: Float[Array, "n v"], alpha: float) -> tuple[Float[Array, "n v"], Whitening]:
    """Weights the singular directions of the *uncentred* x by 1 / sqrt((1 - alpha) s^2 + alpha).

    Directions beyond the rank min(n, v) get weight 0. The mean is subtracted on application.
    """
    _, s, vt = jnp.linalg.svd(x, full_matrices=False)
    link = Whitening(column_mean(x), vt.T, 1 / jnp.sqrt((1 - alpha) * s**2 + alpha))
    return _apply_whitening(link, x), link


def _apply_whitening(link, x):
    return ((x - link.mean) @ link.basis * link.gain) @ link.basis.T


def prepare(
    x: Float[Array, "n v"], zscore_all: bool, alpha: float
) -> tuple[Float[Array, "n v"], tuple[ZScore | None, Whitening | None]]:
    """Standardises and whitens one subject's rows, if requested; also returns the links."""
    standard = whitening = None
    if zscore_all:
        x, standard = zscore(x)
    if alpha < 1:
        x, whitening = whiten(x, alpha)
    return x, (standard, whitening)


@partial(jax.jit, static_argnames="count")
@jax.default_matmul_precision("highest")
def principal_components(
    mean_aligned: Float[Array, "n q"], template: Float[Array, "n q"], count: int
) -> Components:
    """Returns the first `count` right singular vectors of the mean aligned data, at most min(n, q).

    PyMVPA leaves the sign to LAPACK and the offset to the data mapped first. Here the largest entry
    of a component is positive and the offset is the template's mean.
    """
    vt = jnp.linalg.svd(centre(mean_aligned)[0], full_matrices=False)[2][:count]
    largest = jnp.take_along_axis(vt, jnp.abs(vt).argmax(1, keepdims=True), axis=1)
    return Components(template.mean(0), (vt * jnp.where(largest < 0, -1, 1)).T)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ComposedMapping(Mapping):
    """A map that z-scores, whitens, rotates and reduces, as far as the fit requested it.

    `rotation`, `scale`, `source_mean`, `target_mean` and `projection` are those of `procrustes`.
    """

    zscore: ZScore | None
    whitening: Whitening | None
    procrustes: Procrustes | LowRankProcrustes
    components: Components | None

    rotation = property(lambda self: self.procrustes.rotation)
    scale = property(lambda self: self.procrustes.scale)
    source_mean = property(lambda self: self.procrustes.source_mean)
    target_mean = property(lambda self: self.procrustes.target_mean)
    projection = property(lambda self: self.procrustes.projection)

    @property
    def stack(self) -> tuple[int, ...]:
        """Shape of the stack; () for a single map."""
        return self.procrustes.stack

    @property
    def widths(self) -> tuple[int, int]:
        """Numbers of input voxels and output dimensions."""
        wide, narrow = self.procrustes.widths
        return wide, narrow if self.components is None else self.components.basis.shape[-1]

    def forward(self, x: Float[Array, "t v"]) -> Float[Array, "t d"]:
        """Applies all links in turn."""
        if self.zscore is not None:
            x = (x - self.zscore.mean) / self.zscore.sd
        if self.whitening is not None:
            x = _apply_whitening(self.whitening, x)
        y = self.procrustes.forward(x)
        if self.components is not None:
            y = (y - self.components.mean) @ self.components.basis
        return y

    def reverse(self, y: Float[Array, "t d"]) -> Float[Array, "t v"]:
        """Undoes the links in reverse order, by pseudo-inverses if they lose information.

        Unlike PyMVPA, it also undoes `zscore_all`.
        """
        if self.components is not None:
            y = y @ self.components.basis.T + self.components.mean
        x = self.procrustes.reverse(y)
        if self.whitening is not None:
            basis, gain = self.whitening.basis, self.whitening.gain
            x = (x @ basis / gain) @ basis.T + self.whitening.mean
        if self.zscore is not None:
            x = x * self.zscore.sd + self.zscore.mean
        return x


Mappings = Procrustes | LowRankProcrustes | ComposedMapping  # single, or stacked over subjects
