"""Pure functions for the responses of `synthetic`, from pictures to time courses.

Pictures evoke vectors in a latent space, which each subject mixes and maps to its own voxels.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats
from jaxtyping import Array, Float, Int, Key

TR = 2.0  # s
FINE = 0.5  # s, resolution of stimuli
BLOCK, PICTURE = 20.0, 4.0  # s
DIMENSIONS = 35  # of the shared response space (Haxby et al. 2011)

# Lengths of latent vectors; length 1 is a signal change of `synthetic_signals.CHANGE` in the most
# active regions.
COMMON, CLASS, BLOCKS, PICTURES, OPPOSED = 1.1, 0.85, 0.5, 0.9, 2.0


class Stimuli(NamedTuple):
    """The picture on the screen in each step of FINE s; -1 for the fixation cross."""

    kind: Int[np.ndarray, " m"]  # 0 neutral, 1 negative
    block: Int[np.ndarray, " m"]  # index of the block among those of its kind
    picture: Int[np.ndarray, " m"]  # index of the picture in its block


def hrf(t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the canonical haemodynamic response to an impulse at 0 s, with area 1.

    It is the difference of gamma densities with shapes 6 and 16 and ratio 6, the defaults of SPM
    (Friston et al. 1998).

    Args:
      t: time in s.
    """
    return (stats.gamma.pdf(t, 6.0) - stats.gamma.pdf(t, 16.0) / 6) / (1 - 1 / 6)


def _draw(key: Key[Array, ""], length: float, *numbers) -> Float[Array, " k"]:
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return length * jax.random.normal(key, (DIMENSIONS,)) / jnp.sqrt(DIMENSIONS)


def directions(key: Key[Array, ""]) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Returns the mean response to pictures, and half the difference negative minus neutral.

    Args:
      key: random key of the response space.
    """
    key_common, key_class = jax.random.split(key)
    return _draw(key_common, COMMON), _draw(key_class, CLASS)


@partial(jax.jit, static_argnames="nonlinear")
def responses(
    key: Key[Array, ""], key_run: Key[Array, ""], stimuli: Stimuli, nonlinear: float = 0.0
) -> Float[Array, "m k"]:
    """Returns the latent activity in each step of FINE s, before the haemodynamics; 0 at rest.

    A class has a mean response, to which each block and each picture add their own. These belong to
    the pictures, so they move with them if the order of blocks changes.

    Args:
      key: random key of the response space, the same for all runs and subjects.
      key_run: random key of the pictures of a run.
      stimuli: stimuli of the run.
      nonlinear: fraction of the mean response, from 0 to 1, that alternates between two opposed
        patterns over the blocks of a class, as fear and disgust might. Their mean is the same for
        both classes, so no linear decoder can use it.
    """
    key_class = jax.random.split(key)[1]
    key_block, key_picture = jax.random.split(key_run)
    common, apart = directions(key)

    def step(kind, block, picture):
        own = _draw(key_block, BLOCKS, kind, block)
        own += _draw(key_picture, PICTURES, kind, block, picture)
        if not nonlinear:
            return common + (2 * kind - 1) * apart + own
        first = jax.random.bernoulli(jax.random.fold_in(key_run, kind)).astype(int)
        opposed = (1 - 2 * ((block + first) % 2)) * _draw(key_class, OPPOSED, 1 + kind)
        return common + (1 - nonlinear) * (2 * kind - 1) * apart + nonlinear * opposed + own

    shown = jax.vmap(step)(*(jnp.maximum(x, 0) for x in stimuli))
    return jnp.where(jnp.asarray(stimuli.kind)[:, None] >= 0, shown, 0)


def contrast(stimuli: Stimuli) -> Float[np.ndarray, "m 1"]:
    """Returns 1/2 for negative pictures, -1/2 for neutral ones, and 0 at rest."""
    return np.where(stimuli.kind < 0, 0.0, stimuli.kind - 0.5)[:, None].astype(np.float32)


@partial(jax.jit, static_argnames="num_volumes")
def haemodynamic(activity: Float[Array, "m k"], num_volumes: int) -> Float[Array, "t k"]:
    """Convolves activity with `hrf`, and samples it at the middle of each volume.

    Args:
      activity: activity in steps of FINE s.
      num_volumes: number of volumes.
    """
    volume = (jnp.arange(num_volumes) + 0.5) * TR
    step = (jnp.arange(len(activity)) + 0.5) * FINE
    return (hrf(volume[:, None] - step) * FINE) @ activity
