"""The order of decompositions: one after another, to avoid deadlock.

On a CPU, jaxlib divides the matrices of a batch among the threads of a pool, and the thread that
requested them waits. Two batches at once, in one program or in two, can leave no thread to work:
on two cores, a program with two independent QR decompositions was seen to hang forever.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from emojax._numerics.checks import Array, is_concrete


def after(x: Float[Array, "*m"], first: Float[Array, "*k"]) -> Float[Array, "*m"]:
    """Returns x, made to depend on `first`, so that a program computes `first` before.

    Args:
      x: input of the later decomposition.
      first: result of the earlier one.
    """
    if not first.size:
        return x
    head = first[(0,) * len(first.shape)]
    return x + jnp.where(head > 0, 0.0, -0.0).astype(x.dtype)  # a 0 that XLA cannot predict


def waited(tree: Any) -> Any:
    """Waits until arrays are computed, so that the next program finds all threads free."""
    return jax.block_until_ready(tree) if is_concrete(*jax.tree.leaves(tree)) else tree
