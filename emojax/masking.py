"""Brain masks from mean EPI volumes, and conversion between volumes and vectors of voxels.

Masks are made once per subject on the host (NumPy and scipy.ndimage). `apply_mask` and `unmask` are
jax functions for use inside larger ones. Voxels of a mask are always in C order.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Num
from scipy import ndimage

from emojax._numerics.checks import Array, as_array, as_float, is_concrete


class VoxelCounts(NamedTuple):
    """Counts of voxels left out of a mask, by reason; each voxel counts once, in this order."""

    not_finite: int  # NaN or infinite in at least one volume
    zero: int  # 0 in every volume: outside the scanner's field of view
    constant: int  # the same other value in every volume
    kept: int

    def __str__(self) -> str:
        return (
            f"{self.kept} voxels kept; left out: {self.not_finite} NaN or infinite, "
            f"{self.zero} zero, {self.constant} constant"
        )


def brain_mask(
    mean_volume: Num[Array, "x y z"],
    *,
    lower: float = 0.2,
    upper: float = 0.85,
    opening: int = 2,
    largest: bool = True,
) -> Bool[np.ndarray, "x y z"]:
    """Finds the whole-brain mask of a mean EPI volume.

    The threshold is the middle of the widest gap between neighbouring sorted intensities with ranks
    between the quantiles `lower` and `upper`: air is dark and noisy, brain is bright, and few
    voxels lie between. With `opening`, the volume is first smoothed by one voxel, an erosion cuts
    thin bridges, and the largest connected component is grown back and its outline closed (dilation
    by twice, erosion by once `opening`).

    Args:
      mean_volume: [x, y, z], any real dtype, scanner units; not demeaned. NaN and infinite voxels
        count as 0.
      lower: quantile below which no threshold is sought; 0 <= lower < upper <= 1.
      upper: quantile above which no threshold is sought.
      opening: number of erosions; use 0 for a single slice, which an erosion would leave empty.
      largest: whether only the largest component (6-connected) is kept.

    Returns:
      [x, y, z] bool.

    Raises:
      ValueError: not three axes, quantiles out of order, a constant volume, or a mask that is empty
        after the erosion.

    References:
      The rule, its defaults and the order of the morphological steps are those of nilearn's
      `compute_epi_mask`.
    """
    volume = np.asarray(as_array(mean_volume, "a mean volume [x, y, z]"))
    if volume.ndim != 3 or volume.size < 2:
        raise ValueError(f"want a mean volume [x, y, z]; got shape {volume.shape}")
    if not 0 <= lower < upper <= 1:
        raise ValueError(f"want 0 <= lower < upper <= 1; got {lower}, {upper}")
    if not 0 <= opening <= max(volume.shape):  # more erosions than voxels leave nothing
        raise ValueError(f"want opening >= 0, at most {max(volume.shape)}; got {opening}")
    volume = np.nan_to_num(volume.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if opening:  # a Gaussian of one voxel FWHM
        volume = ndimage.gaussian_filter(volume, 1 / np.sqrt(8 * np.log(2)))
    above = volume >= _widest_gap(volume, lower, upper)
    if above.all():
        raise ValueError(
            f"want a volume with dark and bright voxels; got none darker than {volume.min():g} "
            "within the quantiles"
        )
    mask = ndimage.binary_erosion(above, iterations=opening) if opening else above
    if not mask.any():
        raise ValueError(
            f"opening={opening} leaves none of {above.sum()} voxels above the threshold in a "
            f"volume of shape {volume.shape}; want a smaller one (0 for single slices)"
        )
    if largest:
        mask = _largest_component(mask)
    if opening:
        mask = ndimage.binary_dilation(mask, iterations=2 * opening)
        mask = ndimage.binary_erosion(mask, iterations=opening)
    return mask


def _widest_gap(volume, lower, upper):
    """Returns the middle of the widest gap of the sorted intensities between two quantiles."""
    ranked = np.sort(volume, axis=None)
    first, last = int(lower * ranked.size), min(int(upper * ranked.size), ranked.size - 1)
    if last <= first:
        raise ValueError(
            f"want quantiles apart by at least one of {ranked.size} voxels; got {lower}, {upper}"
        )
    widest = first + np.diff(ranked[first : last + 1]).argmax()
    return (ranked[widest] + ranked[widest + 1]) / 2


def _largest_component(mask):
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the background
    return labels == sizes.argmax()


def usable_voxels(
    volumes: Num[Array, "t x y z"], mask: Bool[Array, "x y z"] | None = None
) -> tuple[Bool[np.ndarray, "x y z"], VoxelCounts]:
    """Removes voxels without signal from a mask, and counts them by reason.

    Args:
      volumes: [t, x, y, z], any real dtype; memory-mapped arrays are read volume by volume.
      mask: [x, y, z] bool, voxels to check; default: all.

    Returns:
      The mask without NaN, infinite, zero and constant voxels, and their counts inside `mask`.

    Raises:
      ValueError: shapes disagree, or no usable voxel is left.
    """
    if not hasattr(volumes, "ndim") or hasattr(volumes, "dataobj"):  # arrays may stay on disk
        volumes = as_array(volumes, "volumes [t, x, y, z]")
    if volumes.ndim != 4 or len(volumes) < 1:
        raise ValueError(f"want volumes [t >= 1, x, y, z]; got shape {volumes.shape}")
    inside = np.ones(volumes.shape[1:], bool) if mask is None else _as_mask(mask)
    if inside.shape != volumes.shape[1:]:
        raise ValueError(f"want a mask of shape {volumes.shape[1:]}; got {inside.shape}")
    first = np.asarray(volumes[0])
    finite, same = np.isfinite(first), np.ones(first.shape, bool)
    for volume in volumes[1:]:
        volume = np.asarray(volume)
        finite &= np.isfinite(volume)
        same &= volume == first
    still = inside & finite & same
    kept = inside & finite & ~same
    counts = VoxelCounts(
        not_finite=int((inside & ~finite).sum()),
        zero=int((still & (first == 0)).sum()),
        constant=int((still & (first != 0)).sum()),
        kept=int(kept.sum()),
    )
    if not counts.kept:
        raise ValueError(f"want voxels that vary over volumes; got {counts}")
    return kept, counts


def intersect(
    masks: Sequence[Bool[Array, "x y z"]], threshold: float = 1.0
) -> Bool[np.ndarray, "x y z"]:
    """Finds the voxels that lie in at least a fraction `threshold` of the subjects' masks.

    Args:
      masks: one or more [x, y, z] bool, all of the same shape and space.
      threshold: fraction in (0, 1]; 1 gives the intersection, a value near 0 the union.

    Raises:
      ValueError: no masks, different shapes, threshold out of range, or an empty result.
    """
    masks = [_as_mask(mask) for mask in masks]
    shapes = {mask.shape for mask in masks}
    if len(shapes) != 1:
        raise ValueError(f"want masks of one shape; got {sorted(shapes)}")
    if not 0 < threshold <= 1:
        raise ValueError(f"want threshold in (0, 1]; got {threshold}")
    # The margin guards against rounding of the mean, e.g. of 3 of 3 masks at threshold 1.
    both = np.mean(masks, axis=0) >= threshold - 1e-9
    if not both.any():
        raise ValueError(f"no voxel lies in {threshold:.0%} of the {len(masks)} masks")
    return both


def apply_mask(
    volumes: Num[Array, "*batch x y z"], mask: Bool[Array, "x y z"]
) -> Num[jax.Array, "*batch v"]:
    """Takes the masked voxels of every volume.

    Args:
      volumes: [..., x, y, z], any real dtype, which is kept.
      mask: [x, y, z] bool with v voxels set; its values must be known (not traced), because they
        determine the shape.

    Returns:
      [..., v], voxels in C order of the mask.

    Raises:
      ValueError: the last axes of `volumes` are not the mask's shape, or the mask is empty.
    """
    mask = as_array(mask, "a mask [x, y, z]")
    index, volumes = _voxels(mask), as_array(volumes, "volumes [..., x, y, z]")
    if volumes.ndim < 3 or volumes.shape[-3:] != mask.shape:
        raise ValueError(f"want volumes [..., {_shape(mask)}]; got shape {volumes.shape}")
    flat = volumes.reshape(*volumes.shape[:-3], -1)
    return jnp.take(jnp.asarray(flat), index, axis=-1, mode="clip")


def unmask(
    features: Float[Array, "*batch v"], mask: Bool[Array, "x y z"], fill: float = 0.0
) -> Float[jax.Array, "*batch x y z"]:
    """Puts vectors of masked voxels back into volumes; `apply_mask` inverts this.

    Args:
      features: [..., v] float, voxels in C order of the mask.
      mask: [x, y, z] bool with v voxels set, known (not traced).
      fill: value outside the mask.

    Raises:
      ValueError: the last axis is not the number of voxels in the mask, or the mask is empty.
    """
    mask = as_array(mask, "a mask [x, y, z]")
    index, features = _voxels(mask), as_float(features, "features [..., v]")
    if features.ndim < 1 or features.shape[-1] != index.size:
        raise ValueError(f"want features [..., {index.size}]; got shape {features.shape}")
    flat = jnp.full((*features.shape[:-1], mask.size), fill, features.dtype)
    return flat.at[..., index].set(features).reshape(*features.shape[:-1], *mask.shape)


def _as_mask(mask):
    mask = np.asarray(as_array(mask, "a mask [x, y, z]"))
    if mask.ndim != 3 or mask.dtype != bool:
        raise ValueError(f"want a bool mask [x, y, z]; got {mask.dtype} of shape {mask.shape}")
    return mask


def _voxels(mask):
    if not is_concrete(mask):
        raise ValueError("want a mask whose values are known; got a traced one: close over it")
    index = np.flatnonzero(_as_mask(mask))
    if not index.size:
        raise ValueError("want a mask with at least one voxel; got an empty one")
    return index


def _shape(mask):
    return ", ".join(str(n) for n in mask.shape)
