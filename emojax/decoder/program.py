"""The function of a decoder as StableHLO, for machines without this package.

It returns NaN for a volume with values that are not finite, or whose mean or sd over the mask is
outside of the bounds in the manifest: nobody can read probabilities from anything else.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as exports
from jaxtyping import Bool, Float

import emojax
from emojax import files, fusion
from emojax.decoder.bounds import Bounds
from emojax.decoder.build import Decoder

PLATFORMS = ("cpu", "cuda")
RUNS_ON = ("0.8.3", "0.12.0")  # lowest and highest jax that a program is known to run with
NEEDS = ("jax", "numpy", "flatbuffers")


def export(
    decoder: Decoder, weights: Mapping[str, np.ndarray], bounds: Bounds
) -> tuple[bytes, dict[str, Any]]:
    """Returns a program of (list of weights in the file's order, volume), and what it is made with.

    Args:
      decoder: any.
      weights: its weights, flat, in the order of the file.
      bounds: see `bounds.of_program`.

    Returns:
      The program for `jax.export.deserialize`, and its facts for the manifest. jax promises that
      later versions read a program for six months, and earlier ones for three weeks.
    """
    mask, level = np.asarray(decoder.mask), np.float32(decoder.facts.level)

    def call(leaves, volume):
        tree = files.unflatten(dict(zip(weights, leaves, strict=True)))
        p = fusion.apply(decoder.network, tree, volume)
        good = _is_within(bounds, volume, mask, level) & jnp.isfinite(p).all()
        return jnp.where(good, p, jnp.nan)

    leaves = [jax.ShapeDtypeStruct(w.shape, w.dtype) for w in weights.values()]
    volume = jax.ShapeDtypeStruct(tuple(decoder.facts.grid), np.float32)
    with _without_places():
        made = exports.export(jax.jit(call), platforms=PLATFORMS)(leaves, volume)
    facts = {
        "emojax": emojax.__version__,
        "jax": jax.__version__,
        "runs_on": RUNS_ON,
        "needs": NEEDS,
        "platforms": PLATFORMS,
        "convolutions": "planes",  # others are slow without XLA's option for oneDNN
        "calling_convention": made.calling_convention_version,
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
        "x64": bool(jax.config.jax_enable_x64),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    return made.serialize(), facts


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Leaves file names of this machine, and who has called whom, out of what is lowered."""
    name = "jax_traceback_in_locations_limit"
    before = jax.config.values[name]
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _is_within(
    bounds: Bounds,
    volume: Float[jax.Array, "X Y Z"],
    mask: Bool[np.ndarray, "X Y Z"],
    level: np.float32,
) -> Bool[jax.Array, ""]:
    """Returns whether mean and sd over the mask are within bounds; NaN is not."""
    count = int(mask.sum())
    x = jnp.where(mask, volume - level, 0)  # float32 is exact enough for what is left
    offset = x.sum() / count
    sd = jnp.sqrt((jnp.where(mask, x - offset, 0) ** 2).sum() / count)
    found = {"mean": offset + level, "sd": sd}
    ends = [(found[name], *ends) for name, ends in bounds.items()]
    return jnp.stack([(least < value) & (value < most) for value, least, most in ends]).all()
