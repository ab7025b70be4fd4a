"""The function of a decoder as StableHLO, for machines without this package.

It returns NaN for a volume that cannot be decoded: values inside the mask are not finite, or their
mean or sd is outside the bounds in the manifest.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
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
RUNS_ON = ("0.8.3", "0.12.0")  # oldest and newest jax that a program is known to run with
NEEDS = ("jax", "numpy", "flatbuffers")


def export(
    decoder: Decoder, weights: Mapping[str, np.ndarray], bounds: Bounds
) -> tuple[bytes | bytearray, dict[str, Any]]:
    """Exports the program of a decoder, a function of (list of weights, volume).

    Args:
      decoder: any decoder.
      weights: its flattened weights, in the order of the file.
      bounds: see `bounds.of_program`.

    Returns:
      The program for `jax.export.deserialize`, and its facts for the manifest. jax promises that
      later versions can load a program for six months, and earlier ones for three weeks.
    """
    mask, level = np.asarray(decoder.mask), np.float32(decoder.facts.level)

    def call(leaves: Sequence[jax.Array], volume: jax.Array) -> jax.Array:
        tree = files.unflatten(dict(zip(weights, leaves, strict=True)))
        p = fusion.apply(decoder.network, tree, volume)
        good = _is_within(bounds, volume, mask, level) & jnp.isfinite(p).all()
        return jnp.where(good, p, jnp.nan)

    leaves = [jax.ShapeDtypeStruct(w.shape, w.dtype) for w in weights.values()]
    volume = jax.ShapeDtypeStruct(tuple(decoder.facts.grid), np.float32)
    with _without_places():
        made = exports.export(jax.jit(call), platforms=PLATFORMS)(leaves, volume)
    config: Any = jax.config  # whose attributes are made at run time
    facts = {
        "emojax": emojax.__version__,
        "jax": jax.__version__,
        "runs_on": RUNS_ON,
        "needs": NEEDS,
        "platforms": PLATFORMS,
        "convolutions": "planes",  # fast without oneDNN
        "calling_convention": made.calling_convention_version,
        "matmul_precision": config.jax_default_matmul_precision or "default",
        "x64": bool(config.jax_enable_x64),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    return made.serialize(), facts


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Keeps this machine's file names and call stacks out of the lowered program."""
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
    """Returns whether mean and sd over the mask are within bounds, which NaN never is."""
    count = int(mask.sum())
    x = jnp.where(mask, volume - level, 0)  # small numbers, for which float32 is precise enough
    offset = x.sum() / count
    sd = jnp.sqrt((jnp.where(mask, x - offset, 0) ** 2).sum() / count)
    found = {"mean": offset + level, "sd": sd}
    ends = [(found[name], *ends) for name, ends in bounds.items()]
    return jnp.stack([(least < value) & (value < most) for value, least, most in ends]).all()
