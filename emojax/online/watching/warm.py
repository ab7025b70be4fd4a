"""Warm-up: compiles everything before the first volume, so that it is not late."""

import contextlib
import gc

import numpy as np

from emojax import online
from emojax.errors import InputError

TIMES = 3


def up(state: online.State) -> None:
    """Decodes made-up volumes to compile all functions, then freezes the garbage collector.

    Args:
      state: result of `online.init`; it is not modified.
    """
    decoder = state.decoder
    like = decoder.reference
    if like is None:
        rng = np.random.default_rng(0)
        spread = decoder.facts.spread * rng.standard_normal(decoder.facts.grid)
        like = (decoder.facts.level + spread).astype(np.float32)
    like = np.asarray(like, np.float32)
    after = state
    for _ in range(TIMES):
        for volume in (like, _between(like)):
            # After the volumes that training left out. Refused volumes compile the checks.
            after = after._replace(count=max(after.count, decoder.facts.drop_first))
            with contextlib.suppress(InputError):
                after, _ = online.step(after, volume, decoder.affine, motion=np.zeros(6))
    gc.collect()
    gc.freeze()  # later collections skip the objects that exist now


def _between(volume: np.ndarray) -> np.ndarray:
    """Returns a volume shifted by half a voxel along the first axis."""
    return (volume + np.roll(volume, 1, axis=0)) / 2
