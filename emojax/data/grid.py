"""Voxels in space: whether two images have the same grid, and how one is turned into the other's.

The one place where affines are compared. Flips and swaps of axes lose nothing and are undone;
anything else would need interpolation, which is not ours to choose.
"""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

TOLERANCE = 0.01  # of a voxel; what files round an affine to is a hundred times smaller


class Turn(NamedTuple):
    """The axes of an image in the order of another's, and which of them run the other way."""

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]  # after the swap

    @property
    def is_identity(self) -> bool:
        """Whether nothing is to be done."""
        return self.axes == (0, 1, 2) and not any(self.flipped)

    def apply(self, values: np.ndarray, first: int = 0) -> np.ndarray:
        """Returns a view of values whose axes first, first + 1, first + 2 are x, y and z."""
        before, after = range(first), range(first + 3, values.ndim)
        turned = values.transpose(*before, *(first + axis for axis in self.axes), *after)
        step = tuple(slice(None, None, -1 if flip else None) for flip in self.flipped)
        return turned[(slice(None),) * first + step]


def offset(
    affine: Float[np.ndarray, "4 4"],
    other: Float[np.ndarray, "4 4"],
    shape: tuple[int, ...],
) -> float:
    """Returns how far a corner of the grid is from the other's, at most, in voxels of the other."""
    return _offset(_key(affine), _key(other), tuple(shape))


def _key(affine: Float[np.ndarray, "4 4"]) -> bytes:
    """Returns an affine as something to remember an answer by: a scanner asks for each volume."""
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


def same(affine, other, shape: tuple[int, ...]) -> bool:
    """Returns whether two images of one shape have their voxels at the same places in mm.

    Images without an affine say nothing of places: None is the same as None only.
    """
    if affine is None or other is None:
        return affine is None and other is None
    return offset(affine, other, shape) <= TOLERANCE


def describe(affine: Float[np.ndarray, "4 4"] | None, shape: tuple[int, ...]) -> str:
    """Returns a grid in words, for messages."""
    rows = "no affine" if affine is None else f"affine {np.round(affine[:3], 3).tolist()}"
    return f"shape {tuple(shape)}, {rows}"


def turn(affine, shape: tuple[int, ...], other, other_shape: tuple[int, ...]) -> Turn | None:
    """Returns the turn that brings an image onto another's grid.

    Args:
      affine, shape: of the image: voxel -> mm [4, 4] or None, and (X, Y, Z).
      other, other_shape: of the grid that is wanted.

    Returns:
      The turn; None where there is none without interpolation.
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
    axes = tuple(int(axis) for axis in np.abs(linear).argmax(1))  # of the image, for each wanted
    if sorted(axes) != [0, 1, 2] or tuple(shape[axis] for axis in axes) != other_shape:
        return None
    found = Turn(axes, tuple(bool(linear[i, axis] < 0) for i, axis in enumerate(axes)))
    placed = turned(_affine(affine), shape, found)
    return found if same(placed, _affine(other), other_shape) else None


def turned(
    affine: Float[np.ndarray, "4 4"], shape: tuple[int, ...], by: Turn
) -> Float[np.ndarray, "4 4"]:
    """Returns the affine of an image that has been turned."""
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for i, (axis, flip) in enumerate(zip(by.axes, by.flipped, strict=True)):
        step[axis, i] = -1 if flip else 1
        step[axis, 3] = shape[axis] - 1 if flip else 0
    return np.asarray(affine, float) @ step
