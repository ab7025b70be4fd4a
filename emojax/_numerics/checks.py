"""Checks of a caller's arguments, made on the host before anything is traced.

Shapes are static and always checked. Values are checked only if they are known: inside the caller's
`jax.jit`, `jax.vmap` or `jax.grad` they are not, and these checks pass silently. Arrays are used
without a copy; lists and data frames become arrays.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Array = jax.Array | np.ndarray


def is_concrete(*arrays: object) -> bool:
    """Returns True if the values of all arrays are known, i.e. none is being traced."""
    return not any(isinstance(a, Tracer) for a in arrays)


def as_array(x: Any, name: str = "x") -> Array:
    """Returns an array unchanged, and a list or data frame as a NumPy array.

    Raises:
      ValueError: an image, values that are not numbers, or lists of different lengths.
    """
    if isinstance(x, jax.Array):
        return x
    if hasattr(x, "get_fdata") or hasattr(x, "dataobj"):
        raise ValueError(
            f"want {name} as an array; got the image {type(x).__name__}: pass image.get_fdata(), "
            "with time first: numpy.moveaxis(image.get_fdata(), -1, 0)"
        )
    if isinstance(x, list | tuple) and any(isinstance(own, jax.Array) for own in x):
        return jnp.asarray(x)
    try:
        x = np.asarray(x)
        if x.dtype != object:
            return x
        return x.astype(np.int64 if _are_whole(x) else np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"want {name} as an array of numbers; got {_shown(x)}") from None


def _are_whole(x: np.ndarray) -> bool:
    return all(isinstance(own, int | np.integer) for own in x.flat)


def _shown(x: Any) -> str:
    """Describes an object that is not an array of numbers: its type, or its first bad value."""
    flat = np.ravel(x) if isinstance(x, np.ndarray) else []
    other = [own for own in flat if not isinstance(own, int | float | np.number)]
    if other:
        return f"{type(other[0]).__name__} {other[0]!r}"
    return f"a {type(x).__name__} that is none"


def as_float(x: Any, name: str = "x") -> jax.Array:
    """Converts `x` to a jax array of at least float32; integers become the default float.

    Half precision has too few digits for a sum of squares. NumPy's float64 becomes float32, as
    everywhere in jax, unless `jax_enable_x64` is set. Raises: as for `as_array`.
    """
    x = as_array(x, name)
    if x.dtype.kind in "USM":
        raise ValueError(f"want {name} as an array of numbers; got dtype {x.dtype}")
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x.astype(jnp.result_type(float))
    return x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)


def as_labels(labels: Any, name: str = "labels") -> Array:
    """Returns labels or ids (also pandas or a list) as an array; `check_labels` checks them.

    Raises:
      ValueError: lists of different lengths.
    """
    if isinstance(labels, jax.Array):
        return labels
    try:
        labels = np.asarray(labels)
    except ValueError:
        raise ValueError(f"want {name} [n]; got lists of several lengths") from None
    if labels.dtype != object or not labels.size:
        return labels
    if _are_whole(labels):
        return labels.astype(np.int64)
    return labels.astype(str) if all(isinstance(own, str) for own in labels.flat) else labels


def count_classes(num_classes: Any, *labels: Array) -> int:
    """Returns the number of classes; for None, one more than the largest label.

    Raises:
      ValueError: it is traced, None with traced labels, or not a whole number.
    """
    traced = isinstance(num_classes, Tracer)
    if traced or (num_classes is None and not is_concrete(*labels)):
        raise ValueError(
            "want num_classes as a static number under jit and vmap; got "
            f"{'a traced value' if traced else None}: "
            'jax.jit(function, static_argnames="num_classes"), or close over it'
        )
    if num_classes is None:
        for own in labels:
            check_integers("labels", own)
        return 1 + max((int(np.asarray(own).max()) for own in labels if own.size), default=0)
    try:
        return operator.index(num_classes)
    except TypeError:
        raise ValueError(f"want num_classes: a whole number; got {num_classes!r}") from None


def known(predicate: Callable[..., Array], *arrays: Array) -> bool | None:
    """Returns the truth of predicate(*arrays), or None if an array is being traced.

    Inside a caller's `jit`, a jax predicate would trace even arrays that the caller closes over.
    """
    if not is_concrete(*arrays):
        return None
    with jax.ensure_compile_time_eval():
        return bool(predicate(*arrays))


_all_finite = jax.jit(lambda x: jnp.isfinite(x).all())


def check_finite(name: str, x: Array) -> None:
    """Raises ValueError, with their number and first index, if `x` has NaN or infinite entries."""
    if known(_all_finite, x) is False:
        bad = np.argwhere(~np.isfinite(np.asarray(x)))
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"want finite {name}; got {len(bad)} NaN or infinite values, first at {where}"
        )


def check_labels(name: str, labels: Array, num_classes: int) -> None:
    """Raises ValueError if a label lies outside [0, num_classes) or is not an integer."""
    check_integers(name, labels)
    if is_concrete(labels) and labels.size:
        low, high = int(np.asarray(labels).min()), int(np.asarray(labels).max())
        if low < 0 or high >= num_classes:
            raise ValueError(f"want {name} in [0, {num_classes}); got values from {low} to {high}")


def check_integers(name: str, labels: Array) -> None:
    """Raises ValueError if labels or ids are not integers."""
    if not np.issubdtype(labels.dtype, np.integer):
        text = labels.dtype.kind in "USO"
        hint = f": np.unique({name}, return_inverse=True)[1] numbers them" if text else ""
        raise ValueError(f"want integer {name}; got dtype {labels.dtype}{hint}")


def check_key(key: Array) -> None:
    """Raises ValueError if `key` is not a single typed key."""
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key) or key.shape:
        got = f"{getattr(key, 'dtype', type(key).__name__)}{list(getattr(key, 'shape', ()))}"
        raise ValueError(f"want one typed key, as jax.random.key(0) makes; got {got}")
