"""Guards: comparison of a volume with the calibration runs of a decoder.

A decoder holds the mean image of the calibration runs, and how much single volumes differed from
it. A volume that differs more (moved, flipped, half written, another person's), a slice without
content, a repeated volume and a signal level far off are marked; no volume is discarded here.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from emojax.decoder import bounds
from emojax.decoder.build import Decoder

GAIN = (0.8, 1.25)  # relative to the signal level of the calibration runs
FARTHER = {True: 6.0, False: 2.0}  # times the distance of calibration volumes: one run, several
REPEATED = "the same as the volume before"
LEAST = 8  # voxels of a slice inside the mask; fewer may be equal by chance


class Marks(NamedTuple):
    """Oddities of a volume, and the least-squares line gain * reference + offset through it."""

    reasons: tuple[str, ...]  # descriptions; () for an inconspicuous volume
    gain: float = float("nan")  # NaN without a reference
    offset: float = float("nan")  # in units of the scanner
    correlation: float = float("nan")  # with the reference inside the mask


class Guard(NamedTuple):
    """The standard that volumes are compared with; see `prepare`."""

    voxels: Int[np.ndarray, " v"]  # indices of the mask's voxels, grouped by slice (last axis)
    starts: Int[np.ndarray, " s"]  # index into `voxels` at which each slice begins
    slices: Int[np.ndarray, " s"]  # number of each slice; -1 if it is not checked
    reference: Float[np.ndarray, " v"] | None  # of mean 0 and norm 1
    level: float  # mean of the reference inside the mask
    length: float  # norm of the centred reference
    bounds: dict[str, tuple[float, float]]  # of mean and sd, see `bounds.usual`
    limits: dict[str, tuple[float, float]]  # `Facts.limits`


def measured(
    groups: Sequence[Iterable[Float[np.ndarray, "X Y Z"]]], mask: Bool[np.ndarray, "X Y Z"]
) -> tuple[Float[np.ndarray, "X Y Z"], tuple[tuple[str, float, float], ...]]:
    """Measures the reference image of calibration volumes, and the limits that follow from them.

    Every volume is compared with the mean of the other groups, so that the limits include changes
    between runs. With a single group, it is compared with the mean of the other volumes.

    Args:
      groups: volumes of each run, or of each subject if the reference is that of many, as scanned;
        read twice, one volume at a time.
      mask: voxels that are compared.

    Returns:
      The mean image (float32), and `Facts.limits`. With several groups, 1 - correlation may reach
      twice the largest value, but not more than ten times the median, so that a few bad volumes do
      not widen the limit. With one group, which shows no changes between runs, the factors are six
      and thirty (measured on simulated and real runs). Gain and level may leave their range by the
      factors `GAIN`; they have no limit if there is no signal level, as in contrast maps.

    Raises:
      ValueError: there are fewer than two volumes.
    """
    sums, counts = [], []
    for group in groups:
        total, count = np.zeros(mask.shape), 0
        for volume in group:
            total += np.nan_to_num(volume)  # values outside the mask need not be finite
            count += 1
        sums.append(total)
        counts.append(count)
    if sum(counts) < 2:
        raise ValueError(f"want two volumes or more as a reference; got {sum(counts)}")
    whole = np.sum(sums, axis=0)
    inside, found = whole[mask] / sum(counts), []
    for group, total, count in zip(groups, sums, counts, strict=True):
        rest = (whole - total)[mask] if count < sum(counts) else None
        for volume in group:
            others = whole[mask] - volume[mask] if rest is None else rest
            found.append((*_line(volume[mask], inside), 1 - _line(volume[mask], others)[2]))
    gains, levels, _, distances = np.transpose(found)
    most = min(max(distances), 5 * np.median(distances)) * FARTHER[len(groups) == 1]
    limits = [("correlation", float(1 - most), 1.0)]
    if abs(inside.mean()) > inside.std() / 2:  # contrast maps have no signal level
        for name, values in (("gain", gains), ("level", levels)):
            least, most = GAIN[0] * min(1, values.min()), GAIN[1] * max(1, values.max())
            limits.append((name, float(least), float(most)))
    return (whole / sum(counts)).astype(np.float32), tuple(limits)


def _line(x: Float[np.ndarray, " v"], y: Float[np.ndarray, " v"]) -> tuple[float, float, float]:
    """Returns slope of x on y, ratio of their means, and correlation; 0 if one does not vary."""
    level = np.mean(x, dtype=np.float64) / (np.mean(y) or 1)
    x, y = x - x.mean(dtype=np.float64), y - y.mean(dtype=np.float64)
    xx, xy, yy = float(x @ x), float(x @ y), float(y @ y)
    return xy / yy if yy else 0.0, float(level), xy / np.sqrt(xx * yy) if xx * yy else 0.0


@functools.lru_cache(maxsize=2)
def _prepare(of: "_Same") -> Guard:
    decoder = of.decoder
    found = np.nonzero(decoder.mask)
    order = np.argsort(found[-1], kind="stable")
    voxels = np.ravel_multi_index(found, decoder.mask.shape)[order]
    slices, starts, count = np.unique(found[-1][order], return_index=True, return_counts=True)
    facts, reference, level, length = decoder.facts, None, decoder.facts.level, float("nan")
    usable = count >= LEAST
    if decoder.reference is not None:
        values = np.asarray(decoder.reference).reshape(-1)[voxels]
        usable &= np.maximum.reduceat(values, starts) > np.minimum.reduceat(values, starts)
        reference, level, length = unit(values)
    limits = {name: (least, most) for name, least, most in facts.limits}
    slices = np.where(usable, slices, -1)
    if facts.online and reference is not None:  # those of training are after a correction
        spread = length / np.sqrt(len(voxels))
        facts = facts._replace(level=level, spread=spread)
    usual = bounds.usual(facts)
    return Guard(voxels, starts, slices, reference, level, length, usual, limits)


def unit(
    values: Float[np.ndarray, " v"],
) -> tuple[Float[np.ndarray, " v"], float, float]:
    """Returns values scaled to mean 0 and norm 1, their mean, and their centred norm."""
    level = float(values.mean(dtype=np.float64))
    centred = values - np.float32(level)
    length = max(float(np.sqrt(centred @ centred)), 1e-30)
    return centred / length, level, length


class _Same(NamedTuple):
    """A decoder as a key that compares by identity."""

    decoder: Decoder

    def __hash__(self) -> int:
        return id(self.decoder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.decoder is other.decoder


def prepare(decoder: Decoder) -> Guard:
    """Returns the guard of a decoder, prepared once."""
    return _prepare(_Same(decoder))


class Inside(NamedTuple):
    """The values of a volume at the guard's voxels."""

    values: Float[np.ndarray, " v"]  # as scanned, float32
    mean: float
    centred: Float[np.ndarray, " v"]  # values less their mean
    length: float  # norm of the centred values

    @property
    def sd(self) -> float:
        """The standard deviation of the values."""
        return self.length / np.sqrt(len(self.values))


def look(guard: Guard, volume: Float[np.ndarray, "X Y Z"]) -> Inside:
    """Reads a volume at the voxels of a guard."""
    return inside(np.asarray(volume).reshape(-1).take(guard.voxels))


def inside(values: Float[np.ndarray, " v"]) -> Inside:
    """Returns values with their mean and centred norm, which are not finite if a value is not."""
    values = values.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):  # the caller refuses such values
        mean = float(values.mean())  # pairwise: exact to 1e-6
        centred = values - np.float32(mean)
        return Inside(values, mean, centred, float(np.sqrt(centred @ centred)))


class Line(NamedTuple):
    """The least-squares line gain * reference + offset through a volume."""

    gain: float
    offset: float
    correlation: float


def line(found: Inside, reference: Float[np.ndarray, " v"], level: float, length: float) -> Line:
    """Returns the line of a volume's values.

    Args:
      found: values of the volume.
      reference: [v] reference at the same voxels, scaled to mean 0 and norm 1.
      level: mean of the reference before scaling.
      length: norm of the centred reference before scaling.
    """
    along = float(found.centred @ reference)
    gain = along / length
    return Line(gain, found.mean - gain * level, along / max(found.length, 1e-30))


def marks(guard: Guard, found: Inside, repeated: bool = False) -> Marks:
    """Finds the oddities of a volume.

    Args:
      guard: guard of the decoder, see `prepare`.
      found: values of the volume, all finite.
      repeated: whether the volume equals the one before.
    """
    reasons = [REPEATED] if repeated else []
    ends = (part.reduceat(found.values, guard.starts) for part in (np.maximum, np.minimum))
    if (empty := guard.slices[np.equal(*ends) & (guard.slices >= 0)]).size:
        count = f"{len(empty)} slices" if len(empty) > 1 else "a slice"
        reasons.append(f"{count} without content (the first is {empty[0]})")
    if guard.reference is None:
        return Marks(tuple(reasons))
    gain, offset, correlation = line(found, guard.reference, guard.level, guard.length)
    level = found.mean / (guard.level or 1)
    for name, value in (("correlation", correlation), ("gain", gain), ("level", level)):
        least, most = guard.limits.get(name, (-np.inf, np.inf))
        if not least <= value <= most:
            limit = f"less than {least:.4g}" if value < least else f"more than {most:.4g}"
            reasons.append(f"{name} {value:.4g}, {limit}")
    return Marks(tuple(reasons), gain, offset, correlation)
