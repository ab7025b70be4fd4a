"""Comparison of image grids, and lossless turns (axis flips and swaps) from one to another.

All affines are compared here. Flips and swaps of axes are undone, as they lose nothing; other
differences would need interpolation, which is left to the user.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Affine = Float[np.ndarray, "4 4"]

TOLERANCE = 0.01  # voxels; rounding of affines in files is a hundred times smaller


class Turn(NamedTuple):
    """A permutation of the axes of an image, followed by flips."""

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]  # after the permutation

    @property
    def is_identity(self) -> bool:
        """True if the turn changes nothing."""
        return self.axes == (0, 1, 2) and not any(self.flipped)

    def apply(self, values: np.ndarray, first: int = 0) -> np.ndarray:
        """Returns a turned view of values, whose axes first, first + 1, first + 2 are x, y, z."""
        before, after = range(first), range(first + 3, values.ndim)
        turned = values.transpose(*before, *(first + axis for axis in self.axes), *after)
        step = tuple(slice(None, None, -1 if flip else None) for flip in self.flipped)
        return turned[(slice(None),) * first + step]


def offset(
    affine: Float[np.ndarray, "4 4"],
    other: Float[np.ndarray, "4 4"],
    shape: tuple[int, ...],
) -> float:
    """Returns the largest distance between corners of two grids, in voxels of the other."""
    return _offset(_key(affine), _key(other), tuple(shape))


def _key(affine: Float[np.ndarray, "4 4"]) -> bytes:
    """Returns an affine as a key of caches, since a scanner's affine is compared at each volume."""
    return np.asarray(affine, np.float64).tobytes()


def _affine(key: bytes) -> Float[np.ndarray, "4 4"]:
    return np.frombuffer(key).reshape(4, 4)


@functools.lru_cache(64)
def _offset(affine: bytes, other: bytes, shape: tuple[int, ...]) -> float:
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    corners = np.c_[corners, np.ones(len(corners))]
    with np.errstate(all="ignore"):
        try:
            apart = np.linalg.solve(_affine(other), _affine(affine) @ corners.T)[:3]
        except np.linalg.LinAlgError:
            return float("inf")
        off = np.abs(apart - corners[:, :3].T).max()
    return float(off) if np.isfinite(off) else float("inf")


def same(affine: Affine | None, other: Affine | None, shape: tuple[int, ...]) -> bool:
    """Returns whether two images of one shape have their voxels at the same places in mm.

    Args:
      affine: voxel -> mm of the first image. Images without an affine are the same only if neither
        has one.
      other: voxel -> mm of the second image.
      shape: (X, Y, Z) of both.
    """
    if affine is None or other is None:
        return affine is None and other is None
    return offset(affine, other, shape) <= TOLERANCE


def describe(affine: Float[np.ndarray, "4 4"] | None, shape: tuple[int, ...]) -> str:
    """Returns a description of a grid, for messages."""
    rows = "no affine" if affine is None else f"affine {np.round(affine[:3], 3).tolist()}"
    return f"shape {tuple(shape)}, {rows}"


def turn(
    affine: Affine | None,
    shape: tuple[int, ...],
    other: Affine | None,
    other_shape: tuple[int, ...],
) -> Turn | None:
    """Returns the turn that brings an image onto another's grid.

    Args:
      affine: voxel -> mm of the image, or None.
      shape: (X, Y, Z) of the image.
      other: voxel -> mm of the wanted grid, or None.
      other_shape: (X, Y, Z) of the wanted grid.

    Returns:
      The turn; None if the grids differ by more than a turn.
    """
    identity = Turn((0, 1, 2), (False, False, False))
    if affine is None or other is None:
        both = affine is None and other is None and tuple(shape) == tuple(other_shape)
        return identity if both else None
    return _turn(_key(affine), tuple(shape), _key(other), tuple(other_shape))


@functools.lru_cache(64)
def _turn(
    affine: bytes, shape: tuple[int, ...], other: bytes, other_shape: tuple[int, ...]
) -> Turn | None:
    with np.errstate(all="ignore"):
        try:
            linear = np.linalg.solve(_affine(other), _affine(affine))[:3, :3]
        except np.linalg.LinAlgError:
            return None
    if not np.isfinite(linear).all():
        return None
    x, y, z = np.abs(linear).argmax(1).tolist()  # axes of the image in the wanted order
    if {x, y, z} != {0, 1, 2} or (shape[x], shape[y], shape[z]) != other_shape:
        return None
    i, j, k = (linear[[0, 1, 2], [x, y, z]] < 0).tolist()
    found = Turn((x, y, z), (i, j, k))
    placed = turned(_affine(affine), shape, found)
    return found if same(placed, _affine(other), other_shape) else None


def turned(
    affine: Float[np.ndarray, "4 4"], shape: tuple[int, ...], by: Turn
) -> Float[np.ndarray, "4 4"]:
    """Returns the affine of an image after a turn.

    Args:
      affine: voxel -> mm before the turn.
      shape: (X, Y, Z) before the turn.
      by: the turn.
    """
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for i, (axis, flip) in enumerate(zip(by.axes, by.flipped, strict=True)):
        step[axis, i] = -1 if flip else 1
        step[axis, 3] = shape[axis] - 1 if flip else 0
    return np.asarray(affine, float) @ step
