"""Checks of a caller's arguments, made on the host before anything is traced.

Shapes are static and always checked. Values are checked where they are known: inside `jax.jit`,
`jax.vmap` or `jax.grad` of the caller they are not, and these checks pass silently.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Array = jax.Array | np.ndarray


def is_concrete(*arrays: Array) -> bool:
    """Returns True if the values of all arrays are known now, i.e. none is being traced."""
    return not any(isinstance(a, Tracer) for a in arrays)


def as_float(x: Array) -> jax.Array:
    """Converts `x` to a jax array, keeping float dtypes; others become the default float."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def known(predicate: Callable[..., Array], *arrays: Array) -> bool | None:
    """Returns the truth of predicate(*arrays), or None if an array is being traced.

    Inside a caller's `jit` even arrays that it closed over would be traced by a jax predicate.
    """
    if not is_concrete(*arrays):
        return None
    with jax.ensure_compile_time_eval():
        return bool(predicate(*arrays))


_all_finite = jax.jit(lambda x: jnp.isfinite(x).all())


def check_finite(name: str, x: Array) -> None:
    """Raises ValueError, with their number and first place, if `x` has NaN or infinite entries."""
    if known(_all_finite, x) is False:
        bad = np.argwhere(~np.isfinite(np.asarray(x)))
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"want finite {name}; got {len(bad)} NaN or infinite values, first at {where}"
        )


def check_labels(name: str, labels: Array, num_classes: int) -> None:
    """Raises ValueError if a label lies outside [0, num_classes) or is no integer."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"want integer {name}; got dtype {labels.dtype}")
    if is_concrete(labels) and labels.size:
        low, high = int(np.asarray(labels).min()), int(np.asarray(labels).max())
        if low < 0 or high >= num_classes:
            raise ValueError(f"want {name} in [0, {num_classes}); got values from {low} to {high}")


def check_key(key: Array) -> None:
    """Raises ValueError if `key` is not a single typed key."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.shape:
        got = f"{getattr(key, 'dtype', type(key).__name__)}{list(getattr(key, 'shape', ()))}"
        raise ValueError(f"want one typed key, as jax.random.key(0) makes; got {got}")
