"""The order of decompositions: one after another, lest they wait for each other.

On a CPU jaxlib divides the matrices of a batch among the threads of a pool, and the thread that
asked for them waits. Two batches at once, in one program or in two, can leave no thread to work:
on two cores a program with two independent QR decompositions was seen to stand still for ever.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from emojax._numerics.checks import Array, is_concrete


def after(x: Float[Array, "*m"], first: Float[Array, "*k"]) -> Float[Array, "*m"]:
    """Returns x, which a program then cannot have before it has `first`.

    Args:
      x: what the later decomposition is made of.
      first: a result of the earlier one.
    """
    if not first.size:
        return x
    head = first[(0,) * len(first.shape)]
    return x + jnp.where(head > 0, 0.0, -0.0).astype(x.dtype)  # a 0 that XLA cannot know


def waited(tree: Any) -> Any:
    """Returns arrays once they are computed, so that the next program finds all threads free."""
    return jax.block_until_ready(tree) if is_concrete(*jax.tree.leaves(tree)) else tree
