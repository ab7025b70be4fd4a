"""Compilation of volume networks with oneDNN's 3D convolutions, if XLA's CPU backend has them.

XLA calls oneDNN only if the outermost `jax.jit` asks for it, and only for 3D convolutions that
appear as such in the program. Compiled without the option, these are ten times as slow as the
planes of `convolution`. So `jit` below does both or neither: it sets the option, and traces the
function in a context in which `conv3d` stays a 3D convolution. The context is part of jax's cache
keys, so that programs of both kinds can coexist in one process.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.core import Tracer

OPTIONS = {"xla_cpu_experimental_onednn_custom_call": True}
CALL = "__onednn$convolution"  # in the text of a compiled program
KERNEL = 5  # axes of a kernel for volumes; arguments with as many make `jit` ask for oneDNN

Path = Literal["onednn", "planes", "cudnn", "xla"]

_native = jax.make_user_context(default_value=False)


def computes(dtype: jnp.dtype) -> bool:
    """Returns whether the function being traced will use oneDNN's convolutions in this dtype."""
    return _native.value and _is_available(jnp.dtype(dtype).name)


def path() -> Path:
    """Returns the implementation of 3D convolutions in programs of `jit` on the default device.

    It is "onednn", "planes" (products and 2D convolutions, see `convolution`), "cudnn", or "xla" on
    other accelerators.
    """
    backend = jax.default_backend()
    if backend == "cpu":
        return "onednn" if _is_available("float32") else "planes"
    return "cudnn" if backend in ("gpu", "cuda") else "xla"


@functools.cache
def _is_available(dtype: str) -> bool:
    """Compiles a small convolution and looks for oneDNN, as older versions ignore the option."""
    layout = ("NDHWC", "DHWIO", "NDHWC")
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1, 1),
        padding="SAME",
        dimension_numbers=layout,
    )
    x, kernel = (jax.ShapeDtypeStruct(s, dtype) for s in ((1, 4, 4, 4, 16), (3, 3, 3, 16, 16)))
    try:
        made = jax.jit(convolve, compiler_options=OPTIONS).lower(x, kernel).compile()
    except jax.errors.JaxRuntimeError:  # a version without the option
        return False
    return CALL in (made.as_text() or "")


class _Jitted:
    """A function with `jax.jit`'s call and `lower`, see `jit`."""

    def __init__(self, fun: Callable, options: dict[str, Any]):
        functools.update_wrapper(self, fun)
        self._plain = jax.jit(fun, **options)
        self._native = jax.jit(fun, compiler_options=OPTIONS, **options)

    def __call__(self, *args, **kwargs):
        if not _asks(args, kwargs):
            return self._plain(*args, **kwargs)
        with _native(True):
            return self._native(*args, **kwargs)

    def _cache_size(self) -> int:
        """Returns the number of compiled programs, like `jax.jit`; a test counts compilations."""
        jitted: tuple[Any, Any] = (self._plain, self._native)  # jax does not declare the method
        return sum(one._cache_size() for one in jitted)

    def lower(self, *args, **kwargs) -> jax.stages.Lowered:
        """Lowers the function like `jax.jit(fun).lower`; its `compile` needs no options."""
        if not _asks(args, kwargs):
            return self._plain.lower(*args, **kwargs)
        with _native(True):
            return self._native.lower(*args, **kwargs)


def jit(fun: Callable, **options: Any) -> _Jitted:
    """Returns `jax.jit(fun, **options)`, with oneDNN for networks of volumes on CPUs that have it.

    Networks of volumes are recognised by an argument of five or more axes, like their kernels.
    Inside another traced function, or for other arguments and devices, this is `jax.jit`, and the
    decision of the outermost `jit` of this module applies.

    Args:
      fun: any function that `jax.jit` takes; weights must be arguments, not closed over.
      options: options of `jax.jit` other than `compiler_options`.
    """
    return _Jitted(fun, options)


def _asks(args, kwargs) -> bool:
    leaves = jax.tree.leaves((args, kwargs))
    if not any(getattr(leaf, "ndim", 0) >= KERNEL for leaf in leaves) or path() != "onednn":
        return False
    return not isinstance(jnp.zeros(()), Tracer)  # a Tracer if anything is being traced
