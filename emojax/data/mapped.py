"""Memory of arrays that are mapped from disk."""

import mmap

import numpy as np


def let_go(array: np.ndarray) -> None:
    """Releases the memory pages of a mapped array, which are read again when needed.

    Otherwise the pages of all runs would stay in memory until the machine runs short of it.
    """
    base = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:  # changes may not be on disk yet
            return
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):  # not on Windows
        base.madvise(mmap.MADV_DONTNEED)
