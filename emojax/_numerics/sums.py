"""Sums over the rows of large arrays, and host memory that jax reads in place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from emojax._numerics.checks import Array

BLOCK_ROWS = 16
BLOCKS = 32  # blocks added up plainly; their sums are added with compensation


def allocate_aligned(shape: tuple[int, ...], dtype: np.dtype) -> Shaped[np.ndarray, "..."]:
    """Allocates an uninitialised array aligned to 64 bytes, so that jax can use it in place."""
    count = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count].view(dtype).reshape(shape)


def sum_rows(
    term: Callable[[Any, Any], Any],
    x: Float[Array, "n v"],
    member: Float[Array, "n k"],
    every: int = 1,
    columns: tuple[Any, int] | None = None,
) -> Any:
    """Adds up term(rows, members) over all rows of x.

    On a GPU, XLA reduces over rows in one fused kernel. On a CPU it sums down columns, 25 times
    slower than a loop that adds 16 rows at a time to the running sums: 1.2 s against 0.05 s for
    4000 x 50,000 float32 on 2 cores, where memory is the limit.

    Args:
      term: function of a sequence of rows [v] and a sequence of their members [k] that returns a
        sum over those rows, a pytree.
      x: [n, v] float.
      member: [n, k] float, data that go with each row, e.g. its class as one-hot.
      every: stride over blocks of rows: 8 takes one block in eight, for an estimate.
      columns: index of the first voxel and number of voxels (static); default: all.
    """
    first, width = columns or (0, x.shape[1])

    def looped(x, member):
        return _sum_by_blocks(term, x, member, every, first, width)

    def reduced(x, member):
        x = jax.lax.dynamic_slice_in_dim(x, first, width, 1)
        each = jax.vmap(lambda row, k: term([row], [k]))(x[::every], member[::every])
        return jax.tree.map(lambda leaf: leaf.sum(0), each)

    return jax.lax.platform_dependent(x, member, cpu=looped, default=reduced)


def _sum_by_blocks(term, x, member, every, first, width):
    """Adds up blocks of rows in a loop, carrying the rounding errors of every `BLOCKS` along."""
    n, size = len(x), BLOCK_ROWS

    def block(start, size):
        return term(
            jax.lax.dynamic_slice(x, (start, first), (size, width)),
            jax.lax.dynamic_slice_in_dim(member, start, size),
        )

    if n < size:
        return block(0, n)
    zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: block(0, 1)))

    def several(first, count):
        def add(i, carry):
            return jax.tree.map(jnp.add, carry, block(size * every * (first + i), size))

        return jax.lax.fori_loop(0, count, add, zero)

    whole, rest = divmod(-(-(n // size) // every), BLOCKS)
    carry = jax.lax.fori_loop(
        0,
        whole,
        lambda i, carry: _add_compensated(carry, several(i * BLOCKS, BLOCKS)),
        (zero, zero),
    )
    if rest:
        carry = _add_compensated(carry, several(whole * BLOCKS, rest))
    tail = n % size if every == 1 else 0
    return (_add_compensated(carry, block(n - tail, tail)) if tail else carry)[0]


def _add_compensated(carry, more):
    """Adds by Kahan's method, which keeps the part that rounding takes from the running sums."""
    total, lost = carry
    more = jax.tree.map(jnp.subtract, more, lost)
    new = jax.tree.map(jnp.add, total, more)
    return new, jax.tree.map(lambda n, t, m: (n - t) - m, new, total, more)
