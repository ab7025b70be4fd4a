"""Scaling of volumes before a network, fitted to training volumes only in one pass."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float, Int

Kind = Literal["voxel", "global", "none"]
KINDS = get_args(Kind)


class Scale(NamedTuple):
    """A map value -> (value - mean) / sd; voxels that are constant or not finite become 0."""

    mean: Float[np.ndarray, "*volume"] | np.float32  # [] or [X, Y, Z] float32
    sd: Float[np.ndarray, "*volume"] | np.float32  # infinite where the result is 0
    within: float  # sd over training volumes, rms over voxels, in units of the result
    size: float  # rms of the result

    @property
    def rounding(self) -> float:
        """Rounding error of bfloat16 (spacing 2^-7 at 1, its sd / sqrt 12) in units of `within`."""
        return 2**-7 / 12**0.5 / 2**0.5 * self.size / self.within if self.within else 0.0


def chunks(rows: Int[np.ndarray, " n"], size: int = 64) -> Iterator[np.ndarray]:
    """Yields rows in order, at most `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def fit_scale(
    read: Callable[[np.ndarray], Float[np.ndarray, "k X Y Z"]],
    rows: Int[np.ndarray, " n"],
    kind: Kind,
) -> Scale:
    """Fits mean and sd to training volumes.

    Args:
      read: function from rows to values.
      rows: rows of training volumes.
      kind: "voxel": mean and sd of each voxel; "global": one mean and sd of all voxels; "none".

    Raises:
      ValueError: an unknown kind, or no rows.
    """
    if kind not in KINDS or not len(rows):
        raise ValueError(f"want kind in {KINDS} and at least one row; got {kind!r}, {len(rows)}")
    total, squares, centre = 0.0, 0.0, None
    for part in chunks(np.unique(rows)):
        values = read(part).astype(np.float64)
        centre = values.mean(0) if centre is None else centre  # keeps the digits of squares
        total = total + (values - centre).sum(0)
        squares = squares + ((values - centre) ** 2).sum(0)
    assert centre is not None  # there is at least one row
    n = len(np.unique(rows))
    shift = total / n
    mean, sd = centre + shift, np.sqrt(np.maximum(squares / n - shift**2, 0))
    usable = np.isfinite(sd) & (sd > 1e-6 * np.abs(mean))
    within = float(np.sqrt((sd[usable] ** 2).mean())) if usable.any() else 0.0
    if kind == "voxel":
        sd = np.where(usable, sd, np.inf)
        return Scale(np.where(usable, mean, 0).astype(np.float32), sd.astype(np.float32), 1.0, 1.0)
    finite = np.isfinite(mean) & np.isfinite(sd)
    middle = mean[finite].mean() if kind == "global" else 0.0
    size = float(np.sqrt((sd[finite] ** 2 + (mean[finite] - middle) ** 2).mean()))
    if kind == "none":
        return Scale(np.float32(0), np.float32(1), within, size)
    spread = size if size > 0 else np.inf
    return Scale(np.float32(middle), np.float32(spread), within / spread, 1.0)


def apply_scale(scale: Scale, values: Float[np.ndarray, "k X Y Z"]) -> Float[np.ndarray, "k X Y Z"]:
    """Returns scaled float32 volumes; values that are not finite become 0."""
    out = (values - scale.mean) / scale.sd
    return np.nan_to_num(out, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
