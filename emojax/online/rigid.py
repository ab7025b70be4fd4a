"""Rigid motion of volumes relative to a reference: estimation, correction and displacement.

A `Pose` maps points of the reference to a volume: x -> R x + shift in mm along the axes of the
affine, about the middle of the volume. The estimate minimises, over the voxels of the mask with the
steepest intensities,

    || volume(R x + shift) - reference(x) (gain + slope . x) - offset ||^2 .

Gain, its slope over the volume and the offset are free parameters, so that neither the scanner's
signal level nor the sensitivity of its coils, which do not move, is mistaken for motion.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from emojax._numerics.checks import Array
from emojax.online import splines

RADIUS = 50.0  # mm, radius of the sphere on which rotations are measured
LONGEST, SHORTEST = 10.0, 0.003  # mm, limits of one step
TINY = 1e-6  # added to the diagonal, so that a step is finite even without voxels
SEEN = 1e-2  # part of the largest eigenvalue; motions below it are held at zero


class Pose(NamedTuple):
    """The pose of a head relative to the reference, and the gain of the volume."""

    shift: Float[Array, "3"]  # mm
    turn: Float[Array, "3"]  # rad, rotation axis times angle
    gain: Float[Array, ""]  # of the volume relative to the reference

    @staticmethod
    def still() -> "Pose":
        """Returns the pose of the reference itself."""
        return Pose(jnp.zeros(3), jnp.zeros(3), jnp.ones(()))


class Model(NamedTuple):
    """A model of the reference: `n` voxels, and the effect of each motion on their values."""

    places: Float[jax.Array, "3 n"]  # mm from the middle of the volume
    design: Float[jax.Array, "n p"]  # orthonormal columns: six motions, then intensities
    back: Float[jax.Array, "7 p"]  # coefficients of the design -> shift, turn, gain; 0 if held
    filters: tuple[Float[jax.Array, "X X"], Float[jax.Array, "Y Y"], Float[jax.Array, "Z Z"]]
    to_voxel: Float[jax.Array, "3 3"]  # mm -> voxels


def init(
    reference: Float[np.ndarray, "X Y Z"],
    mask: Bool[np.ndarray, "X Y Z"],
    affine: Float[np.ndarray, "4 4"] | Float[np.ndarray, "3"],
    *,
    points: int = 16384,
    fwhm: float = 6.0,
) -> Model:
    """Prepares the estimation of motion relative to a reference, once, on the host.

    Motions that the reference cannot show are held at zero: through a single slice, or about the
    middle of a ball.

    Args:
      reference: [X, Y, Z] scanner units, such as the mean of a calibration run.
      mask: [X, Y, Z] voxels to choose from.
      affine: voxel -> mm [4, 4], or the voxel's three sizes in mm.
      points: largest number of voxels to compare, those with the steepest intensities.
      fwhm: width of the Gaussian that images are smoothed with before the comparison, mm.

    Raises:
      ValueError: shapes disagree, the affine has no inverse, the mask has no voxels, or the
        reference is constant.
    """
    reference, mask = np.nan_to_num(np.asarray(reference, np.float64)), np.asarray(mask, bool)
    if reference.ndim != 3 or mask.shape != reference.shape:
        got = f"{reference.shape}, {mask.shape}"
        raise ValueError(f"want a reference [X, Y, Z] and a mask of its shape; got {got}")
    mask = mask & _off_border(mask.shape)
    if not mask.any() or np.ptp(reference) == 0:
        got = f"{mask.sum()} voxels, values from {reference.min():g} to {reference.max():g}"
        raise ValueError(f"want a reference that varies, and a mask with voxels; got {got}")
    to_mm = _linear(affine)
    shape, sizes = reference.shape, np.linalg.norm(to_mm, axis=0)
    smooth = [splines.gaussian(n, fwhm / size) for n, size in zip(shape, sizes, strict=True)]
    filters = [splines.prefilter(n) @ own for n, own in zip(shape, smooth, strict=True)]
    slopes = []
    for axis, n in enumerate(shape):
        own = [*smooth[:axis], splines.slope(n) @ filters[axis], *smooth[axis + 1 :]]
        slopes.append(splines.along_axes(own, reference))
    slopes = np.stack(slopes, -1) @ np.linalg.inv(to_mm)  # per mm
    chosen = _steepest(np.linalg.norm(slopes, axis=-1), mask, points)
    values = splines.along_axes(smooth, reference)[chosen]
    places = (np.stack(chosen, -1) - (np.array(shape) - 1) / 2) @ to_mm.T
    design, back = _design(places, values, slopes[chosen])
    own = partial(jnp.asarray, dtype=jnp.result_type(float))
    x, y, z = map(own, filters)
    return Model(own(places.T), own(design), own(back), (x, y, z), own(np.linalg.inv(to_mm)))


@partial(jax.jit, static_argnames="most")
@jax.default_matmul_precision("highest")
def estimate(
    model: Model, volume: Float[Array, "X Y Z"], start: Pose | None = None, *, most: int = 16
) -> Pose:
    """Estimates the pose of a volume by Gauss-Newton steps on the side of the reference.

    The design is that of the reference, so that a step is one interpolation of the volume and one
    product. Voxels outside the field of view are ignored.

    Args:
      model: result of `init`.
      volume: [X, Y, Z] as scanned; values that are not finite count as 0.
      start: pose of the volume before, or None; its gain is not used.
      most: maximum number of steps; they also end after a step shorter than 0.003 mm.

    Raises:
      ValueError: the volume has another shape than the reference.
    """
    scanned = _checked(model, volume)
    coefficients, middle = splines.along_axes(model.filters, scanned), _middle(scanned)
    start = Pose.still() if start is None else start
    held = jnp.where((model.back == 0).all(0), 1, TINY)

    def step(state: tuple) -> tuple:
        count, rotation, shift, _, _ = state
        at = model.to_voxel @ (rotation @ model.places + shift[:, None]) + middle
        inside = (abs(at - middle) <= middle + 0.5).all(0)
        design = model.design * inside[:, None]
        normal = design.T @ design + jnp.diag(held.astype(design.dtype))
        found = design.T @ splines.sample(coefficients, at)
        *motion, gain = model.back @ jnp.linalg.solve(normal, found)
        motion = jnp.where(gain > 0, jnp.stack(motion) / gain, 0)
        length = _length(motion[:3], motion[3:])
        motion = motion * jnp.minimum(1, LONGEST / jnp.maximum(length, LONGEST))
        rotation = rotation @ _rotation(-motion[3:])
        return count + 1, rotation, shift - rotation @ motion[:3], gain, length

    def goes_on(state: tuple) -> jax.Array:
        return (state[0] < most) & (state[-1] > SHORTEST)

    one = jnp.ones((), model.places.dtype)
    state = 0, _rotation(start.turn * one), start.shift * one, one, one * jnp.inf
    _, rotation, shift, gain, _ = jax.lax.while_loop(goes_on, step, state)
    return Pose(shift, _turn(rotation), gain)


@jax.jit
@jax.default_matmul_precision("highest")
def resample(
    model: Model,
    volume: Float[Array, "X Y Z"],
    pose: Pose,
    voxels: Int[Array, " m"] | None = None,
) -> Float[jax.Array, " m"] | Float[jax.Array, "X Y Z"]:
    """Resamples a volume to undo its motion, by cubic splines.

    Args:
      model: result of `init`.
      volume: [X, Y, Z] as scanned; values that are not finite count as 0.
      pose: result of `estimate`; its gain is left in the values.
      voxels: [m] flat indices (C order) of the wanted voxels; None for all.

    Returns:
      [m], or [X, Y, Z]. Voxels outside the field of view get the values at its edge.

    Raises:
      ValueError: the volume has another shape than the reference.
    """
    scanned = _checked(model, volume)
    filters = [jnp.asarray(splines.prefilter(n), scanned.dtype) for n in scanned.shape]
    chosen = jnp.arange(scanned.size) if voxels is None else jnp.asarray(voxels)
    at = jnp.stack(jnp.unravel_index(chosen, scanned.shape)) + away(model, pose, chosen)
    values = splines.sample(splines.along_axes(filters, scanned), at)
    return values.reshape(scanned.shape) if voxels is None else values


@jax.jit
@jax.default_matmul_precision("highest")
def away(model: Model, pose: Pose, voxels: Int[Array, " m"]) -> Float[jax.Array, "3 m"]:
    """Returns the displacement of voxels [m] by a pose, in voxels along each axis."""
    shape = [len(own) for own in model.filters]
    middle = (jnp.asarray(shape, model.places.dtype)[:, None] - 1) / 2
    index = jnp.stack(jnp.unravel_index(jnp.asarray(voxels), shape)) - middle
    turned = model.to_voxel @ _rotation(pose.turn) @ jnp.linalg.inv(model.to_voxel)
    return (turned - jnp.eye(3)) @ index + (model.to_voxel @ pose.shift)[:, None]


def displacement(pose: Pose, before: Pose | None = None) -> Float[jax.Array, ""]:
    """Returns the framewise displacement between two poses in mm; None is the reference's pose.

    It is the sum of the six changes, with rotations as arcs on a sphere of 50 mm (Power et al.,
    NeuroImage 59, 2012). Poses may be stacked along leading axes.
    """
    before = Pose.still() if before is None else before
    return _length(pose.shift - before.shift, pose.turn - before.turn)


def _linear(affine: np.ndarray) -> np.ndarray:
    affine = np.asarray(affine, np.float64)
    if affine.shape not in ((4, 4), (3,)):
        raise ValueError(f"want an affine [4, 4] or three sizes in mm; got shape {affine.shape}")
    linear = affine[:3, :3] if affine.ndim == 2 else np.diag(affine)
    if not np.isfinite(linear).all() or abs(np.linalg.det(linear)) < 1e-9:
        raise ValueError(f"want an affine that has an inverse; got {linear.tolist()}")
    return linear


def _checked(model: Model, volume: Array) -> jax.Array:
    """Returns a volume of the model's shape and dtype, with 0 for values that are not finite."""
    shape = tuple(len(own) for own in model.filters)
    if volume.shape != shape:
        raise ValueError(f"want a volume of the reference's shape {shape}; got {volume.shape}")
    scanned = jnp.asarray(volume, model.places.dtype)
    return jnp.where(jnp.isfinite(scanned), scanned, 0)


def _middle(volume: jax.Array) -> jax.Array:
    return (jnp.asarray(volume.shape, volume.dtype)[:, None] - 1) / 2


def _length(shift: Array, turn: Array) -> jax.Array:
    return jnp.abs(shift).sum(-1) + RADIUS * jnp.abs(turn).sum(-1)


def _rotation(turn: Array) -> jax.Array:
    """Returns the matrix [3, 3] of a rotation by |turn| rad about `turn` (Rodrigues)."""
    x, y, z = turn
    zero = jnp.zeros_like(x)
    cross = jnp.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]])
    square = turn @ turn
    small = square < 1e-8
    angle = jnp.sqrt(jnp.where(small, 1, square))
    first = jnp.where(small, 1 - square / 6, jnp.sin(angle) / angle)
    second = jnp.where(small, 0.5, (1 - jnp.cos(angle)) / angle**2)
    return jnp.eye(3, dtype=turn.dtype) + first * cross + second * cross @ cross


def _turn(rotation: jax.Array) -> jax.Array:
    """Returns the axis times the angle (below pi) of a rotation: the inverse of `_rotation`."""
    skew = (rotation - rotation.T) / 2
    turn = jnp.array([skew[2, 1], skew[0, 2], skew[1, 0]])
    sine = jnp.sqrt(turn @ turn)
    angle = jnp.arctan2(sine, (jnp.trace(rotation) - 1) / 2)
    return turn * jnp.where(sine > 1e-4, angle / jnp.maximum(sine, 1e-4), 1)


def _off_border(shape: tuple[int, ...]) -> np.ndarray:
    """Returns a mask of voxels with neighbours on both sides; short axes are not restricted."""
    inside = np.zeros(shape, bool)
    inside[tuple(slice(1, -1) if n > 6 else slice(None) for n in shape)] = True
    return inside


def _steepest(steepness: np.ndarray, mask: np.ndarray, points: int) -> tuple[np.ndarray, ...]:
    """Returns indices (x, y, z) of the voxels of a mask with the largest steepness, in C order."""
    where = np.flatnonzero(mask)
    order = np.argsort(-steepness.reshape(-1)[where], kind="stable")[:points]
    return np.unravel_index(np.sort(where[order]), mask.shape)


def _design(
    places: np.ndarray, values: np.ndarray, slopes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `Model.design` and `Model.back`: an orthonormal basis, and the map back from it."""
    motions = np.hstack([slopes, np.cross(places, slopes) / RADIUS])
    levels = values[:, None] * np.c_[np.ones(len(values)), places / RADIUS]
    levels = np.c_[levels, np.full(len(values), np.abs(values).mean())]  # and the offset
    basis, size, turned = np.linalg.svd(levels, full_matrices=False)
    kept = size > 1e-6 * size[0]
    to_levels = (turned.T / np.where(kept, size, np.inf))[0]  # to the gain
    basis = basis * kept
    alone = motions - basis @ (basis.T @ motions)
    seen, axes = np.linalg.eigh(alone.T @ alone)
    axes = np.where(seen > SEEN * seen[-1], axes / np.sqrt(np.maximum(seen, 1e-300)), 0)
    back = np.zeros((7, 6 + len(size)))
    back[:6, :6] = axes
    back[6, :6] = -to_levels @ (basis.T @ motions @ axes)
    back[6, 6:] = to_levels
    back[3:6] /= RADIUS
    return np.hstack([alone @ axes, basis]), back
