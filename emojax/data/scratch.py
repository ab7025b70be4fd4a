"""Temporary arrays on the disk of a store."""

import contextlib
import math
import uuid
from collections.abc import Callable

import numpy as np

from emojax.data import kept, unfinished


class Scratch:
    """A store of temporary arrays, whose space is freed with the array or when the process ends."""

    def __init__(self, folder: kept.Folder):
        """Args: the folder on whose disk the arrays are."""
        self._kept = folder

    def scratch(self) -> "Scratch":
        """Returns itself."""
        return self

    def derived(
        self,
        key: str,
        shape: tuple[int, ...],
        dtype: np.dtype | type | str,
        fill: Callable[[np.ndarray], None],
    ) -> np.ndarray:
        """Returns an array, mapped read-only; as `Store.derived`, but computed at every call.

        Args:
          key: not used.
          shape: shape of the array.
          dtype: dtype of the array.
          fill: function that writes the values into the array.

        Raises:
          InputError: the disk is too small, or the store cannot be written.
        """
        self._kept.open()
        dtype, shape = np.dtype(dtype), tuple(int(n) for n in shape)
        file = self._kept.path / f"{uuid.uuid4().hex}.npy"
        self._kept.reserve(math.prod(shape) * dtype.itemsize, file)
        partial = unfinished.beside(file)
        try:
            with self._kept.writing(file):
                out = np.lib.format.open_memmap(partial, "w+", dtype, shape)
                kept.allocate(partial)
        finally:
            with contextlib.suppress(OSError):  # on Windows, the next store removes it
                partial.unlink(missing_ok=True)
        fill(out)
        out.flags.writeable = False
        return out
