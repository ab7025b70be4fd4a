"""Linear discriminants of one labelling, from the scatter within classes of every fold.

Rows are centred by class before they are multiplied, so that float32 keeps its digits if classes
lie far apart. For many labellings, `downdates.lda_scores` shares one decomposition instead.
Everything is written for one set of voxels and one labelling; use `jax.vmap` for many.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from emojax._numerics.checks import Array
from emojax._numerics.downdates import SMALL, of_rows, solve_small


class Voxels(NamedTuple):
    """One set of voxels."""

    x: Float[jax.Array, "k n"]  # centred over the rows; 0 for padding voxels
    size: Float[jax.Array, ""]  # original number of voxels; k differs after a rotation or padding


def lda_scores(
    voxels: Voxels,
    member: Float[jax.Array, "n q"],
    out: Int[Array, "f r"],
    most: int,
    shrinkage: float,
    equal_priors: bool,
) -> Float[jax.Array, "f t q"]:
    """Returns linear discriminants of the first `most` rows that each fold leaves out.

    The rows that a fold leaves out are removed from the scatter of all rows around their class
    means, and so is the shift of these means that their removal causes.

    Args:
      voxels: the values.
      member: [n, q] 1 if a row belongs to a class.
      out: [f, r] int, rows to leave out; n is padding.
      most: number of tested rows.
      shrinkage: weight of the mean variance in the covariance.
      equal_priors: whether classes have equal priors, however many of their rows train.

    Returns:
      [f, t, q] discriminants, around the mean; for two classes their difference, [f, t, 1].
    """
    x, count = voxels.x, member.sum(0)
    centre = x @ member / count  # [k, q]
    rest = x - centre @ member.T
    left, own = of_rows(rest, out), member.at[out].get(mode="fill", fill_value=0)
    kept, lost = count - own.sum(1), left @ own  # [f, q], [f, k, q]
    gone = jnp.concatenate([left, lost / jnp.sqrt(kept)[:, None]], 2)
    within = rest @ rest.T - gone @ gone.mT  # [f, k, k]
    share = shrinkage * within.trace(axis1=1, axis2=2) / voxels.size
    share = jnp.maximum(share, jnp.finfo(share.dtype).tiny)[:, None, None]
    scatter = (1 - shrinkage) * within + share * jnp.eye(len(x), dtype=x.dtype)

    rows = kept.sum(1)[:, None, None]
    means = centre - lost / kept[:, None]
    grand = (kept[:, None] * means).sum(2, keepdims=True) / rows
    means -= grand
    prior = jnp.zeros_like(kept) if equal_priors else jnp.log(kept / rows[..., 0])
    if member.shape[1] == 2:
        apart, middle = means[..., 1:] - means[..., :1], means.mean(2, keepdims=True)
        weights = rows * solve(scatter, apart)
        offset = prior[:, 1:] - prior[:, :1] - (weights * middle).sum(1)
    else:
        weights = rows * solve(scatter, means)
        offset = prior - (weights * means).sum(1) / 2
    tested = of_rows(x, out[:, :most]) - grand
    return tested.mT @ weights + offset[:, None]


def solve(
    a: Float[jax.Array, "*b k k"], b: Float[jax.Array, "*b k m"]
) -> Float[jax.Array, "*b k m"]:
    """Solves a x = b, a symmetric positive definite, by recursive halving, with matrix products.

    This is for many small systems, as LAPACK would be called for each.
    """
    k = a.shape[-1]
    if k <= SMALL:
        return solve_small(a, b)
    h = k // 2
    across = a[..., :h, h:]
    both = solve(a[..., :h, :h], jnp.concatenate([across, b[..., :h, :]], -1))
    moved, first = both[..., : k - h], both[..., k - h :]
    last = solve(a[..., h:, h:] - across.mT @ moved, b[..., h:, :] - across.mT @ first)
    return jnp.concatenate([first - moved @ last, last], -2)
