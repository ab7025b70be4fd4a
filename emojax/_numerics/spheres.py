"""Spheres of voxels around every voxel of a mask, as padded indices."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from emojax._numerics.checks import Array

MOST = 2**29  # maximum number of voxels of all spheres: 2 GiB of indices
EDGE = 1e-6  # relative tolerance that keeps voxels at exactly the radius inside


@dataclasses.dataclass(frozen=True, eq=False)
class Spheres:
    """The voxels of each sphere, as indices into the mask's voxels (C order)."""

    indices: Int[np.ndarray, "c k"]  # in ascending order, padded with `num_voxels`
    counts: Int[np.ndarray, " c"]  # number of voxels of each
    centres: Int[np.ndarray, " c"]  # voxel at the centre of each
    num_voxels: int  # of the mask
    radius_mm: float
    left_out: int  # number of spheres left out for having too few voxels

    def __len__(self) -> int:
        """Returns the number of spheres."""
        return len(self.centres)

    def take(self, places: Int[np.ndarray, " b"], width: int) -> "Spheres":
        """Returns some of the spheres, with room for `width` voxels each."""
        indices = self.indices[places, :width]
        return dataclasses.replace(
            self, indices=indices, counts=self.counts[places], centres=self.centres[places]
        )

    def fill(self, values: Float[np.ndarray, "*p c"]) -> Float[np.ndarray, "*p v"]:
        """Returns one value per voxel of the mask; NaN if no sphere is centred there."""
        out = np.full((*values.shape[:-1], self.num_voxels), np.nan, values.dtype)
        out[..., self.centres] = values
        return out


def spheres(
    mask: Bool[Array, "x y z"],
    affine: Float[Array, "4 4"],
    radius_mm: float,
    *,
    least: int = 2,
    centres: Bool[Array, "x y z"] | None = None,
) -> Spheres:
    """Finds the sphere around every voxel of a mask.

    A voxel belongs to a sphere if its centre is at most `radius_mm` away. A sphere that extends
    beyond the mask keeps the voxels inside; with fewer than `least` it is left out and counted.

    Args:
      mask: [x, y, z] bool.
      affine: [4, 4] float, voxel indices -> mm, possibly oblique. The identity counts in voxels.
      radius_mm: radius in mm, > 0.
      least: minimum number of voxels of a sphere, >= 1.
      centres: [x, y, z] bool, voxels to put spheres around; default: all of the mask.

    Raises:
      ValueError: shapes disagree, the affine is singular, the radius is not positive, or no
        sphere is left.
    """
    mask = np.asarray(mask, bool)
    affine = np.asarray(affine, float)
    if mask.ndim != 3:
        raise ValueError(f"want a mask [x, y, z]; got shape {mask.shape}")
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"want a finite affine [4, 4]; got shape {affine.shape}")
    if not 0 < radius_mm < np.inf or least < 1:
        raise ValueError(f"want radius_mm in (0, inf) and least >= 1; got {radius_mm}, {least}")
    if centres is not None and np.shape(centres) != mask.shape:
        raise ValueError(f"want centres {mask.shape}, as the mask; got {np.shape(centres)}")
    wanted = mask if centres is None else mask & np.asarray(centres, bool)
    steps = _steps(affine[:3, :3], float(radius_mm), mask.shape)
    num_voxels = int(mask.sum())
    margin = np.abs(steps).max(0)
    number = np.full(np.array(mask.shape) + 2 * margin, num_voxels, np.int32)
    inner = tuple(slice(m, m + size) for m, size in zip(margin, mask.shape, strict=True))
    number[inner][mask] = np.arange(num_voxels)
    place = np.argwhere(wanted) + margin
    strides = np.cumprod([1, *number.shape[:0:-1]])[::-1]
    if len(place) * len(steps) > MOST:
        raise ValueError(
            f"{len(place)} spheres of up to {len(steps)} voxels; want a smaller radius than "
            f"{radius_mm:g}, or fewer centres"
        )
    found = number.ravel()[(place @ strides)[:, None] + steps @ strides]
    counts = (found < num_voxels).sum(1)
    large = counts >= least
    if not large.any():
        raise ValueError(
            f"no sphere of {radius_mm:g} mm has {least} voxels (the largest: "
            f"{counts.max(initial=0)}); want a larger radius"
        )
    found = np.sort(found[large], 1)[:, : counts.max()]
    middle = number.ravel()[place @ strides][large]
    return Spheres(found, counts[large], middle, num_voxels, float(radius_mm), int((~large).sum()))


def _steps(axes: Float[np.ndarray, "3 3"], radius: float, shape) -> Int[np.ndarray, "k 3"]:
    """Returns the steps from a voxel to all voxels within a radius."""
    least = np.linalg.svd(axes, compute_uv=False)[-1]
    if not least > 0:
        raise ValueError("want an affine with three axes; got a singular one")
    reach = [min(int(radius * (1 + EDGE) / least), size - 1) for size in shape]
    grid = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach), indexing="ij"), -1)
    steps = grid.reshape(-1, 3)
    return steps[np.linalg.norm(steps @ axes.T, axis=1) <= radius * (1 + EDGE)]
