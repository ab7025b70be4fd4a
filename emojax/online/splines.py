"""Cubic B-splines on regular grids: coefficients, values between voxels, slopes at voxels.

Volumes are mirrored at the centres of their outermost voxels, as by mode="mirror" of scipy.ndimage,
with which values inside the grid agree. An axis of one voxel is constant.
"""

from collections.abc import Callable, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

VALUE = (1 / 6, 2 / 3, 1 / 6)  # the B-spline at -1, 0, 1
SLOPE = (1 / 2, 0.0, -1 / 2)  # its derivative at these points


def mirrored(n: int, kernel: Sequence[float]) -> Float[np.ndarray, "n n"]:
    """Returns the convolution with a kernel of odd length as a matrix, mirrored at the ends."""
    reach, period = len(kernel) // 2, max(2 * n - 2, 1)
    out = np.zeros((n, n))
    for offset, weight in zip(range(reach, -reach - 1, -1), kernel, strict=True):
        at = (np.arange(n) + offset) % period
        np.add.at(out, (np.arange(n), np.minimum(at, period - at)), weight)
    return out


def prefilter(n: int) -> Float[np.ndarray, "n n"]:
    """Returns the matrix from values to spline coefficients along an axis."""
    return np.linalg.inv(mirrored(n, VALUE))


def slope(n: int) -> Float[np.ndarray, "n n"]:
    """Returns the matrix from spline coefficients to slopes (per voxel) along an axis."""
    return mirrored(n, SLOPE)


def gaussian(n: int, fwhm: float) -> Float[np.ndarray, "n n"]:
    """Returns the matrix that smooths along an axis, with a width in voxels."""
    sd = fwhm / np.sqrt(8 * np.log(2))
    at = np.arange(-np.ceil(4 * sd), np.ceil(4 * sd) + 1)
    kernel = np.exp(-((at / max(sd, 1e-9)) ** 2) / 2)
    return mirrored(n, kernel / kernel.sum())


@overload
def along_axes(matrices: Sequence[np.ndarray], volume: np.ndarray) -> np.ndarray: ...
@overload
def along_axes(matrices: Sequence[jax.Array], volume: jax.Array) -> jax.Array: ...
def along_axes(matrices: Sequence[Any], volume: Any) -> Any:
    """Applies one matrix along each axis of a volume, in NumPy or jax."""
    x, y, z = matrices
    volume = (x @ volume.reshape(len(x), -1)).reshape(volume.shape)
    return y @ volume @ z.T


def sample(
    coefficients: Float[jax.Array, "X Y Z"], places: Float[jax.Array, "3 n"]
) -> Float[jax.Array, " n"]:
    """Returns the spline's values at places in voxels; outside the grid, those at its edge."""
    last = jnp.asarray(coefficients.shape, places.dtype)[:, None] - 1
    places = places.clip(0, last)
    first = jnp.floor(places)
    wx, wy, wz = _weights(places - first)
    padded = jnp.pad(coefficients, (1, 2), mode="reflect")
    _, rows, columns = padded.shape
    x, y, z = first.astype(jnp.int32)
    corner, flat = (x * rows + y) * columns + z, padded.reshape(-1)

    def read(i: int, j: int, k: int) -> jax.Array:
        at = corner + ((i * rows + j) * columns + k)
        return flat.at[at].get(mode="promise_in_bounds")

    # Written out, so that XLA makes one loop over places, which stores none of the 64 values.
    return _mix(wx, lambda i: _mix(wy, lambda j: _mix(wz, lambda k: read(i, j, k))))


def _mix(weights: Sequence[jax.Array], value: Callable[[int], jax.Array]) -> jax.Array:
    """Returns the weighted sum of value(0) to value(3)."""
    a, b, c, d = weights
    return a * value(0) + b * value(1) + c * value(2) + d * value(3)


def _weights(f: Float[jax.Array, "3 n"]) -> list[list[jax.Array]]:
    """Returns the four weights along each axis, [axis][4] of [n], at fractions f of a voxel."""
    g = 1 - f
    parts = (g**3 / 6, 2 / 3 - f**2 * (2 - f) / 2, 2 / 3 - g**2 * (2 - g) / 2, f**3 / 6)
    return [[part[axis] for part in parts] for axis in range(3)]
