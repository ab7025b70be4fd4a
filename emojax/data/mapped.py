"""Arrays mapped from disk, and the memory that they take."""

import mmap

import numpy as np


def let_go(array: np.ndarray) -> None:
    """Gives back the memory of what was read of a mapped array; it is read again when asked for.

    Without it, the pages of run after run stay with the process until the machine runs short.
    """
    base = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:  # its changes may not be on disk
            return
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):  # not on Windows
        base.madvise(mmap.MADV_DONTNEED)
