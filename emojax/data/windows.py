"""Acquisition windows of the volumes of a run, in the time of its events."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Windows(NamedTuple):
    """Start and end of the acquisition of each volume, s from the start of the first volume."""

    start: Float[np.ndarray, " t"]
    stop: Float[np.ndarray, " t"]


def regular(
    num_volumes: int, tr: float, duration: float | None = None, shift: float = 0.0
) -> Windows:
    """Returns the windows of volumes that follow each other every TR.

    Args:
      num_volumes: number of volumes, t.
      tr: TR, s.
      duration: acquisition time of a volume, s, followed by a pause in sparse sequences; None for
        the whole TR.
      shift: s added to every time, if slice timing has moved the volumes to another moment.
    """
    start = np.arange(num_volumes) * tr + shift
    if duration is None:
        return Windows(start, np.arange(1, num_volumes + 1) * tr + shift)
    return Windows(start, start + duration)
