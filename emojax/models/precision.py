"""The dtype in which a network of volumes computes, chosen by device or by measurement."""

import functools
import pathlib
import statistics
import time
from typing import Literal

import jax
import jax.numpy as jnp

from emojax.models import onednn
from emojax.models.convolution import conv3d

Dtype = Literal["float32", "bfloat16"]

GAIN = 0.9  # bfloat16 is chosen if it takes at most this fraction of float32's time
MAPS, BATCH = (16, 16, 11), 4  # maps of the first stage at the paper's size
ROUNDS = 7
FLAGS = ("avx512_bf16", "amx_bf16")  # CPU flags for multiplication in bfloat16


def settle(dtype: str, width: int = 64) -> Dtype:
    """Resolves a setting to the dtype that it means on this machine.

    Args:
      dtype: "float32", "bfloat16", "device" (bfloat16 on accelerators, float32 on CPUs), or "auto":
        like "device", but on CPUs with bfloat16 instructions the faster of the two, measured once
        per process.
      width: number of channels of the first stage.
    """
    if dtype not in ("device", "auto"):
        return "bfloat16" if dtype == "bfloat16" else "float32"
    if jax.default_backend() != "cpu":
        return "bfloat16"
    if dtype == "device" or not _has_instructions():
        return "float32"
    seconds = measure(width)
    return "bfloat16" if seconds["bfloat16"] <= GAIN * seconds["float32"] else "float32"


@functools.cache
def measure(width: int) -> dict[Dtype, float]:
    """Times two convolutions of the first stage with their gradients, alternating both dtypes.

    Args:
      width: number of channels of the first stage.

    Returns:
      Median seconds of each dtype.
    """

    def loss(x, kernel):
        y = conv3d(jax.nn.relu(conv3d(x, kernel)), kernel)
        return jnp.square(y.astype(jnp.float32)).mean()

    gradients = onednn.jit(jax.grad(loss, argnums=(0, 1)))
    shapes = (BATCH, *MAPS, width), (3, 3, 3, width, width)
    taken: dict[Dtype, list[float]] = {"float32": [], "bfloat16": []}
    made = {name: [jnp.full(s, 0.01, name) for s in shapes] for name in taken}
    for _ in range(1 + ROUNDS):
        for name, times in taken.items():
            start = time.perf_counter()
            jax.block_until_ready(gradients(*made[name]))
            times.append(time.perf_counter() - start)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def _has_instructions(path: str = "/proc/cpuinfo") -> bool:
    """Returns whether this processor multiplies in bfloat16; False if that is unknown."""
    try:
        words = set(pathlib.Path(path).read_text().split())
    except OSError:
        return False
    return not words.isdisjoint(FLAGS)
