"""Compiling everything before the first volume, so that this one is not late."""

import contextlib
import gc

import numpy as np

from emojax import online
from emojax.errors import InputError

TIMES = 3


def up(state: online.State) -> None:
    """Decodes made-up volumes with a state, which stays as it is; then settles the memory.

    Args:
      state: as from `online.init`.
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
            # Behind the volumes that a training leaves out. Refused ones compile the checks.
            after = after._replace(count=max(after.count, decoder.facts.drop_first))
            with contextlib.suppress(InputError):
                after, _ = online.step(after, volume, decoder.affine, motion=np.zeros(6))
    gc.collect()
    gc.freeze()  # what is there now stays; later collections need not look at it


def _between(volume):
    """Returns a volume that lies half a voxel further along the first axis."""
    return (volume + np.roll(volume, 1, axis=0)) / 2
