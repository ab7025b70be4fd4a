"""Convolution and max pooling of volumes, in forms that XLA also runs fast on CPUs.

XLA's own 3D convolution and the gradient of its max pooling are slow on CPUs. There, a kernel of
one voxel becomes a matrix product, and maps of few voxels are gathered and multiplied. With few
channels, volumes become lines with their neighbours as channels, for a 1D convolution. Other cases
become 2D convolutions of planes, with the outputs for neighbouring planes (or, with strides, their
inputs) as channels. In programs of `onednn.jit`, oneDNN's 3D convolution replaces lines and planes.
Other platforms use XLA's 3D convolution (and the matrix product). jax differentiates all of them.

Measured on two shared cores of an AMD EPYC (Zen 4), float32, in ms, against XLA's own operation:
stem 7x7x7 at 64x64x44 6.7 / 77; 3x3x3 at 16x16x11x64 5.1 / 20 and at 4x4x3x256 1.9 / 3.4; max pool
at 32x32x22x64 0.7 / 3.2, with its gradient 3.0 / 41. Attempts: docs/optimisation.md.
"""

import functools
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import custom_derivatives, lax
from jaxtyping import Float

from emojax.models import onednn

SMALL = 64  # largest output map (voxels) whose patches are gathered (measured: 48 and 8)
FEW = 64  # largest number of channels, including neighbours along two axes, convolved as lines
LARGE = 1 << 17  # smallest output map (values) from which volumes are processed in turns
TURNS = 8  # maximum number of turns

Padding = Literal["SAME", "VALID"]


def conv3d(
    x: Float[jax.Array, "batch x y z c"],
    kernel: Float[jax.Array, "i j k c d"],
    strides: Sequence[int] = (1, 1, 1),
    padding: Padding = "SAME",
) -> Float[jax.Array, "batch p q r d"]:
    """Correlates volumes with a kernel: no flip, as in all deep-learning libraries.

    Args:
      x: [batch, x, y, z, c] float.
      kernel: [i, j, k, c, d], with the dtype of `x`.
      strides: voxels between outputs along the three axes.
      padding: "SAME": ceil(n / stride) outputs for n inputs, with the larger half of the padding at
        the end (Keras' rule); "VALID": none.

    Raises:
      ValueError: shapes that do not fit, or an unknown padding.
    """
    if x.ndim != 5 or kernel.ndim != 5 or x.shape[-1] != kernel.shape[-2]:
        raise ValueError(
            "want x [batch, x, y, z, c] and kernel [i, j, k, c, d]; "
            f"got {x.shape} and {kernel.shape}"
        )
    size, window, strides = x.shape[1:4], kernel.shape[:3], tuple(strides)
    if padding not in ("SAME", "VALID"):
        raise ValueError(f"want padding 'SAME' or 'VALID'; got {padding!r}")
    if padding == "VALID" and any(n < k for n, k in zip(size, window, strict=True)):
        raise ValueError(f"want a kernel no larger than the volume; got {window} and {size}")
    if window == (1, 1, 1):
        return _rows(x[(slice(None), *(slice(None, None, s) for s in strides))], kernel[0, 0, 0])
    pads = lax.padtype_to_pads(size, window, strides, padding)
    # The default backend at trace time does not decide: programs may be lowered for several.
    return lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(_on_cpu, strides=strides, pads=pads),
        default=functools.partial(_by_xla, strides=strides, pads=pads),
    )


def _rows(x, matrix):
    """Returns x @ matrix with x reshaped to two axes, as XLA's CPU gradient is slow with five."""
    return (x.reshape(-1, x.shape[-1]) @ matrix).reshape(*x.shape[:-1], -1)


def _by_xla(x, kernel, strides, pads):
    spatial = "xyz"[: x.ndim - 2]
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=layout)


def _on_cpu(x, kernel, strides, pads):
    """Convolves by patches times a matrix or along fewer axes, depending on the shape."""
    window, channels = kernel.shape[:3], kernel.shape[-1]
    out = [
        (n + sum(pad) - k) // s + 1
        for n, pad, k, s in zip(x.shape[1:4], pads, window, strides, strict=True)
    ]
    # XLA's CPU convolutions are fast only in single precision or less.
    if math.prod(out) <= SMALL or x.dtype == jnp.float64:
        x = _with_taps(x, (2, 1, 0), window, out, strides, pads)
        return _rows(x, kernel.reshape(-1, channels))
    if onednn.computes(x.dtype):

        def convolve(x):
            if max(strides) == 1:
                return _by_xla(x, kernel, strides, pads)
            return _strided(x, kernel, strides, pads, out)

        large = math.prod(out) * channels >= LARGE and len(x) > TURNS
        return _in_turns(convolve, x) if large else convolve(x)
    return _by_planes(x, kernel, strides, pads, out)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _strided(x, kernel, strides, pads, out):
    """Convolves with strides by oneDNN; the gradient with respect to x is that of planes.

    Its own gradient would be a dilated convolution, which oneDNN does not support: 194 ms instead
    of 2.7 (3x3x3, 64 to 128 channels, batch 4).
    """
    return _by_xla(x, kernel, strides, pads)


@functools.partial(_strided.defjvp, symbolic_zeros=True)
def _(strides, pads, out, primals, tangents):
    (x, kernel), (dx, dkernel) = primals, tangents
    zero = custom_derivatives.SymbolicZero
    y = _strided(x, kernel, strides, pads, out)
    parts = [] if type(dx) is zero else [_by_planes(dx, kernel, strides, pads, out)]
    parts += [] if type(dkernel) is zero else [_by_xla(x, dkernel, strides, pads)]
    return y, sum(parts[1:], parts[0]) if parts else zero(jax.typeof(y).to_tangent_aval())


def _by_planes(x, kernel, strides, pads, out):
    """Convolves along one or two axes, with the taps of the others among the channels."""
    window, channels = kernel.shape[:3], kernel.shape[-1]
    if math.prod(window[:2]) * x.shape[-1] <= FEW:  # lines along z, their neighbours as channels
        lines = jnp.moveaxis(kernel, 2, 0).reshape(window[2], -1, channels)

        def of_lines(x):
            x = _with_taps(x, (1, 0), window, out, strides, pads)
            y = _by_xla(x.reshape(-1, *x.shape[3:]), lines, strides[2:], pads[2:])
            return y.reshape(*x.shape[:3], *y.shape[1:])

        convolve = of_lines
    elif strides[0] > 1:  # planes, their neighbours as channels
        planes = jnp.moveaxis(kernel, 0, 2).reshape(*window[1:], -1, channels)

        def of_slabs(x):
            x = _with_taps(x, (0,), window, out, strides, pads)
            y = _by_xla(x.reshape(-1, *x.shape[2:]), planes, strides[1:], pads[1:])
            return y.reshape(-1, out[0], *y.shape[1:])

        convolve = of_slabs
    else:  # planes; the contributions to their neighbours as channels of the output
        planes = jnp.moveaxis(kernel, 0, 3).reshape(*window[1:], x.shape[-1], -1)

        def of_planes(x):
            y = _by_xla(x.reshape(-1, *x.shape[2:]), planes, strides[1:], pads[1:])
            y = y.reshape(*x.shape[:2], *y.shape[1:-1], window[0], channels)
            y = jnp.pad(y, [(0, 0), pads[0], *[(0, 0)] * 4])
            return sum(y[:, tap : tap + out[0], :, :, tap] for tap in range(window[0]))

        convolve = of_planes
    large = math.prod(out) * channels >= LARGE
    return _in_turns(convolve, x) if large else convolve(x)


def _in_turns(convolve, x):
    """Convolves a few volumes at a time, so that intermediate results stay in the cache."""
    size = -(-len(x) // TURNS)
    out = []
    for start in range(0, len(x), size):
        some = x[start : start + size]
        if out:  # without a barrier, XLA would run them in parallel, each in fresh memory
            some, out[-1] = lax.optimization_barrier((some, out[-1]))
        out.append(convolve(some))
    return jnp.concatenate(out)


def _with_taps(x, axes, window, out, strides, pads):
    """Moves taps along the axes to the channels, those of the last axis outermost."""
    for axis in axes:
        x = _pad(x, axis, pads[axis], 0)
        taps = (_tap(x, axis, at, out[axis], strides[axis]) for at in range(window[axis]))
        x = jnp.concatenate(list(taps), axis=-1)
    return x


def _pad(x, axis, widths, value):
    """Pads `x` with `value` along spatial `axis`, by `widths` (before, after)."""
    return jnp.pad(
        x, [widths if a == axis + 1 else (0, 0) for a in range(5)], constant_values=value
    )


def _tap(x, axis, start, count, stride):
    """Returns `count` entries along spatial `axis`, from `start` in steps of `stride`."""
    return lax.slice_in_dim(x, start, start + stride * (count - 1) + 1, stride, axis + 1)


def max_pool(
    x: Float[jax.Array, "batch x y z c"], window: int = 3, stride: int = 2
) -> Float[jax.Array, "batch p q r c"]:
    """Returns the maximum over cubes of `window` voxels, `stride` apart, with "SAME" padding.

    Axes are pooled one after another, as maxima of shifted slices. If several voxels share the
    maximum, they also share its gradient.

    Args:
      x: [batch, x, y, z, c] float.
      window: voxels along each axis of the cube.
      stride: voxels between cubes, along each axis.
    """
    pads = lax.padtype_to_pads(x.shape[1:4], (window,) * 3, (stride,) * 3, "SAME")
    for axis, pad in enumerate(pads):
        count = -(-x.shape[axis + 1] // stride)
        x = _pad(x, axis, pad, -jnp.inf)
        taps = [_tap(x, axis, start, count, stride) for start in range(window)]
        x = functools.reduce(jnp.maximum, taps)
    return x
