"""Family-wise error correction of maps by the largest statistic under permutation or sign flips.

Everything runs on the host, with scipy.ndimage. Maps are vectors of a mask's voxels, in C order.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from nibabel.affines import apply_affine
from scipy import ndimage

Correction = Literal["tfce", "cluster", "max"]
STEPS = 50  # heights of TFCE up to the median of all maps' maxima
HEIGHTS = 20 * STEPS  # maximum number of heights
ROUNDING = 1e-6  # relative difference of values that differ only by the order of summation
LEAST_ERROR = 0.05  # smallest standard error of a t, relative to the one without an effect
EXTENT, HEIGHT = 0.5, 2.0  # exponents of TFCE for volumes
MIDLINE_MM = 0.5  # peaks closer than this to x = 0 are on neither side


class Corrected(NamedTuple):
    """Statistics of every voxel and their p values, one-sided: large values are evidence."""

    statistic: Float[np.ndarray, " v"]  # TFCE, size of the voxel's cluster, or the value itself
    p: Float[np.ndarray, " v"]  # corrected over the map
    p_voxel: Float[np.ndarray, " v"]  # uncorrected, for the value itself
    draws: int  # number of null maps


class Cluster(NamedTuple):
    """One cluster of a map. Without an affine, positions are array indices and `side` is ""."""

    peak: tuple[float, float, float]  # mm, or array indices
    side: str  # "L", "R", "midline", or ""
    voxels: int
    value: float  # at the peak
    p: float  # smallest in the cluster


def tfce(
    values: Float[np.ndarray, " v"],
    mask: Bool[np.ndarray, "x y z"],
    step: float,
    *,
    extent: float = EXTENT,
    height: float = HEIGHT,
    connectivity: int = 1,
) -> Float[np.ndarray, " v"]:
    """Enhances a map by the extent of its clusters at all heights (TFCE), without a threshold.

    Returns the sum over heights h = step, 2 step, ... of size(h)^extent h^height step, where
    size(h) is the number of voxels in the voxel's cluster at or above h. Negative values get 0.

    Args:
      values: [v] float; NaN is in no cluster.
      mask: [x, y, z] bool with v voxels.
      step: distance between heights, > 0; maps to be compared need the same one.
      extent: exponent of the cluster size.
      height: exponent of the height.
      connectivity: 1: voxels that share a face are neighbours; 2: an edge; 3: a corner.

    References:
      Smith and Nichols, Threshold-free cluster enhancement, NeuroImage 2009.
    """
    return _enhance(values, _Box(mask, connectivity), step, extent, height)


def cluster_sizes(
    values: Float[np.ndarray, " v"],
    mask: Bool[np.ndarray, "x y z"],
    threshold: float,
    *,
    connectivity: int = 1,
) -> Float[np.ndarray, " v"]:
    """Returns the size in voxels of every voxel's cluster at or above a threshold; 0 below.

    Args: as for `tfce`.
    """
    return _Box(mask, connectivity).sizes(np.nan_to_num(values, nan=-np.inf) >= threshold)


def correct(
    observed: Float[np.ndarray, " v"],
    null: Float[np.ndarray, "p v"],
    mask: Bool[np.ndarray, "x y z"],
    *,
    correction: Correction = "tfce",
    threshold: float | None = None,
    connectivity: int = 1,
    tick: Callable[[int], Any] = lambda done: None,
) -> Corrected:
    """Corrects a map for multiple voxels by the largest statistic of each null map.

    p = (1 + number of null maps whose largest statistic reaches the voxel's) / (1 + p): the chance
    of one or more false voxels anywhere is at most p, if the null maps are exchangeable with the
    observed one.

    Args:
      observed: [v] float, 0 where there is no effect, e.g. accuracy minus chance, or t.
      null: [p, v] float, maps under permuted labels or flipped signs.
      mask: [x, y, z] bool with v voxels. Voxels that are NaN in `observed` are ignored.
      correction: "tfce", "cluster" (size of clusters above `threshold`) or "max" (the value).
      threshold: cluster-forming threshold; default: the 99.9th percentile of all values of all
        maps, including the observed one.
      connectivity: as for `tfce`.
      tick: called with 1 after every null map.

    Raises:
      ValueError: shapes disagree, no null map, no finite value, or an unknown correction.
    """
    observed, null, mask = np.asarray(observed, float), np.asarray(null), np.asarray(mask, bool)
    if mask.ndim != 3:
        raise ValueError(f"want a mask [x, y, z]; got shape {mask.shape}")
    if null.ndim != 2 or observed.shape != null.shape[1:] or len(observed) != mask.sum():
        raise ValueError(
            f"want maps [v] and [p, v] of the mask's {mask.sum()} voxels; got {observed.shape}, "
            f"{null.shape}"
        )
    if not len(null) or correction not in get_args(Correction):
        raise ValueError(
            f"want a null map and correction in {get_args(Correction)}; got {len(null)}, "
            f"{correction!r}"
        )
    real = np.isfinite(observed)
    if not real.any() or not np.isfinite(null[:, real]).all():
        raise ValueError("want an observed map with finite values, and null maps finite there")
    inside = mask.copy()
    inside[mask] = real
    own, null = observed[real], null[:, real]
    box = _Box(inside, connectivity)
    if correction == "cluster" and threshold is None:
        threshold = float(np.quantile(np.concatenate([own[None], null]), 0.999))
    highest = np.array([own.max(), *null.max(1, initial=0)]).clip(0)
    step = max(np.median(highest) / STEPS, highest.max() / HEIGHTS)

    def statistic(values):
        if correction == "tfce":
            return _enhance(values, box, step)
        return values if correction == "max" else box.sizes(values >= threshold)

    most, reached = np.zeros(len(null)), np.ones(len(own))
    for i, values in enumerate(null.astype(float)):
        most[i] = statistic(values).max()
        reached += values >= own - ROUNDING * np.abs(own)
        tick(1)
    found = statistic(own)
    # In sorted maxima, one search counts those that reach a value.
    p = 1 + len(null) - np.searchsorted(np.sort(most), found - ROUNDING * np.abs(found))
    p = p / (1 + len(null))
    fill = (_fill(own, real) for own in (found, p, reached / (1 + len(null))))
    return Corrected(*fill, draws=len(null))


def sign_flips(
    values: Float[np.ndarray, "s v"], draws: int, seed: int
) -> tuple[Float[np.ndarray, " v"], Float[np.ndarray, "p v"]]:
    """Returns t over subjects against 0, and t of the same values with signs flipped at random.

    A subject keeps one sign over the whole map. If there are no more than `draws` sign patterns,
    each is used once. The standard error is at least `LEAST_ERROR` times the map's median error
    without an effect, sqrt(mean square / (s - 1)), which sign flips do not change: otherwise
    identical subjects would have no error. t is 0 where all values are 0.

    Args:
      values: [s, v] float, 0 where a subject shows no effect, e.g. accuracy minus chance.
      draws: number of sign patterns in addition to the observed one.
      seed: seed of the patterns.

    Raises:
      ValueError: fewer than 2 subjects, no draw, or values that are not finite.
    """
    values = np.asarray(values)
    values = values if np.issubdtype(values.dtype, np.floating) else values.astype(float)
    count = len(values)
    if not np.isfinite(values).all():
        raise ValueError("want finite values; got NaN or infinite ones")
    if count < 2 or draws < 1:
        raise ValueError(f"want at least 2 subjects and 1 draw; got {count}, {draws}")
    if 2**count - 1 <= draws:
        patterns = (np.arange(1, 2**count)[:, None] >> np.arange(count)) & 1
    else:
        patterns = np.random.default_rng(seed).integers(0, 2, (draws, count))
    signs = np.concatenate([np.ones((1, count)), 1 - 2 * patterns]).astype(values.dtype)
    mean, square = signs @ values / count, (values**2).mean(0)
    error = np.sqrt(np.maximum(square - mean**2, 0) / (count - 1))
    shown = square > 0
    least = LEAST_ERROR * np.sqrt(np.median(square[shown]) / (count - 1)) if shown.any() else 1
    t = np.where(shown, mean / np.maximum(error, least), 0).astype(values.dtype)
    return t[0], t[1:]


def table(
    values: Float[np.ndarray, " v"],
    p: Float[np.ndarray, " v"],
    mask: Bool[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"] | None,
    *,
    level: float = 0.05,
    connectivity: int = 1,
) -> list[Cluster]:
    """Lists the clusters of voxels with p <= level, largest peak value first.

    Args:
      values: [v] float; the largest value in a cluster is its peak.
      p: [v] float; NaN is in no cluster.
      mask: [x, y, z] bool with v voxels.
      affine: [4, 4] voxel -> mm (RAS+: x grows to the right), or None.
      level: threshold of p.
      connectivity: as for `tfce`.
    """
    places, found = np.argwhere(mask), []
    number = _Box(mask, connectivity).label(np.nan_to_num(p, nan=np.inf) <= level)
    for own in (np.flatnonzero(number == i) for i in range(1, number.max(initial=0) + 1)):
        peak = own[np.nanargmax(values[own])]
        place = places[peak].astype(float)
        place = place if affine is None else apply_affine(affine, place)
        x, y, z = (float(mm) for mm in place)
        side = ""
        if affine is not None:
            side = "midline" if abs(x) < MIDLINE_MM else "LR"[x > 0]
        found.append(Cluster((x, y, z), side, len(own), float(values[peak]), float(p[own].min())))
    return sorted(found, key=lambda cluster: -cluster.value)


class _Box:
    """A cropped mask in which clusters are labelled."""

    def __init__(self, mask, connectivity: int):
        box = ndimage.find_objects(np.asarray(mask, np.int8))[0]
        self._inside = np.asarray(mask[box], bool)
        self._structure = ndimage.generate_binary_structure(3, connectivity)

    def label(self, above: Bool[np.ndarray, " v"]) -> Int[np.ndarray, " v"]:
        """Returns the index of every voxel's cluster, from 1; 0 outside."""
        volume, number = np.zeros(self._inside.shape, bool), np.zeros(self._inside.shape, np.int32)
        volume[self._inside] = above
        ndimage.label(volume, self._structure, output=number)
        return number[self._inside]

    def sizes(self, above: Bool[np.ndarray, " v"]) -> Int[np.ndarray, " v"]:
        """Returns the size in voxels of every voxel's cluster; 0 outside."""
        number = self.label(above)
        size = np.bincount(number)
        size[0] = 0
        return size[number]


def _enhance(values, box: _Box, step: float, extent: float = EXTENT, height: float = HEIGHT):
    out, values = np.zeros(len(values)), np.nan_to_num(values, nan=-np.inf)
    if not step > 0:  # no map has a value above 0
        return out
    above, sizes = np.zeros(len(values), bool), out
    for h in step * np.arange(1, int(np.floor(values.max(initial=0) / step + 1e-9)) + 1):
        new = values >= h * (1 - 1e-9)
        if not np.array_equal(new, above):  # unchanged if no value lies between two heights
            above, sizes = new, box.sizes(new) ** extent
        out += sizes * (h**height * step)
    return out


def _fill(values, real):
    out = np.full(len(real), np.nan)
    out[real] = values
    return out
