"""Recursive least squares on polynomials in time and motion, one volume at a time."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from emojax.data.causal_settings import Regression

MOTION = 6  # realignment parameters
PACE = 100.0  # volumes, the unit of time of the polynomials
DEPENDENT = 1e-5  # part of a regressor's norm; a smaller new part counts as rounding


class Factors(NamedTuple):
    """The memory: a QR decomposition of the design so far, without its Q."""

    first: Float[Array, "*volume"]  # the first volume, which is subtracted from all
    position: Float[Array, " p"]  # motion parameters of the first volume; p is 6 or 0
    root: Float[Array, "r r"]  # R
    right: Float[Array, "r *volume"]  # Q' (x - first)


def init(own: Regression, shape: tuple[int, ...]) -> Factors:
    """Returns the memory before the first volume, for volumes of a shape."""
    moved = MOTION if own.motion else 0
    count = 1 + own.degree + moved
    empty = functools.partial(jnp.zeros, dtype=jnp.float32)
    return Factors(empty(shape), empty(moved), empty((count, count)), empty((count, *shape)))


def update(
    own: Regression,
    before: Factors,
    count: Int[Array, ""],
    x: Float[Array, "*volume"],
    motion: Float[Array, " 6"] | None = None,
) -> tuple[Factors, Float[Array, "*volume"]]:
    """Adds a volume to the fit, and returns its residual from the fit to all volumes so far.

    With the design Z of the volumes before and its decomposition R = Q'Z, D = Q'Y, a rotation G
    turns the new row z into R: G [R; z] = [R'; 0] and G [D; y] = [D'; e]. The residual y - z b of
    the new fit is g e, where g, the last entry of G's diagonal, is the product of its cosines.
    Nothing is squared or inverted, so float32 is precise enough.

    Args:
      own: the settings.
      before: the memory.
      count: number of volumes, including this one.
      x: the volume.
      motion: [6] its realignment parameters, if they are regressors.

    References:
      Haykin, Adaptive filter theory, 1996, chapter 14.
    """
    first = jnp.where(count == 1, x, before.first)
    time = (count.astype(jnp.float32) - 1) / PACE
    row = jnp.stack([time**power for power in range(1 + own.degree)])
    position = before.position
    if own.motion:
        motion = jnp.asarray(motion, jnp.float32)
        position = jnp.where(count == 1, motion, position)
        row = jnp.concatenate([row, motion - position])
    root, turn = _rotate(before.root, row)
    y = x - first
    multiply = functools.partial(jnp.tensordot, axes=1, precision="highest")
    right = multiply(turn[:-1, :-1], before.right) + multiply(turn[:-1, -1:], y[None])
    rest = multiply(turn[-1, :-1], before.right) + turn[-1, -1] * y
    return Factors(first, position, root, right), turn[-1, -1] * rest


def _rotate(
    root: Float[Array, "r r"], row: Float[Array, " r"]
) -> tuple[Float[Array, "r r"], Float[Array, "q q"]]:
    """Returns R with one more row in it, and the rotation [r + 1, r + 1] that achieves this.

    A regressor whose new part is only rounding is skipped, as the others explain it.
    """
    size = len(row)
    both = jnp.concatenate([root, row[None]])
    turn = jnp.eye(size + 1, dtype=jnp.float32)
    norms = jnp.sqrt((both**2).sum(0))

    def turn_in(i: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        both, turn = pair
        a, b = both[i, i], both[-1, i]
        length = jnp.hypot(a, b)
        new = length > DEPENDENT * norms[i]
        safe = jnp.where(new, length, 1)
        cosine, sine = jnp.where(new, a / safe, 1), jnp.where(new, b / safe, 0)
        rotation, ends = jnp.array([[cosine, sine], [-sine, cosine]]), jnp.array([i, size])
        both, turn = (
            x.at[ends].set(jnp.matmul(rotation, x[ends], precision="highest")) for x in pair
        )
        return both.at[-1, i].set(0), turn

    both, turn = jax.lax.fori_loop(0, size, turn_in, (both, turn))
    return both[:-1], turn
