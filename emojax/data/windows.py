"""Windows of time in which the volumes of a run were acquired, on the clock of its events."""

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
      num_volumes: t.
      tr: s.
      duration: s that a volume takes; None: the whole TR. Sparse sequences pause behind it.
      shift: s, added to every time: where slice timing moved the volumes to another moment.
    """
    start = np.arange(num_volumes) * tr + shift
    if duration is None:
        return Windows(start, np.arange(1, num_volumes + 1) * tr + shift)
    return Windows(start, start + duration)
