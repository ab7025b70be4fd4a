"""Cost of a training run: memory and time of a step, measured on this machine."""

import contextlib
import os
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from emojax.errors import InputError
from emojax.training.epoch import Program, begin, step
from emojax.training.feeds import place


class Measured(NamedTuple):
    """A training step on this machine."""

    seconds: float
    bytes: int  # on each device: state, batch and what the step keeps in between
    flops: float  # of the whole batch, as compiled
    parameters: int


def measure_step(program: Program, shape: tuple[int, ...], repeats: int = 3) -> Measured:
    """Compiles a training step for inputs of a shape and times it; the least of some repeats."""
    sharded = NamedSharding(program.mesh, P("data"))
    x = np.zeros((program.batch_size, *shape), np.float32)
    batch = place((x, np.zeros(program.batch_size, np.int32)), sharded)
    trial = begin(program, jax.random.key(0), x[:1])
    size = sum(leaf.size for leaf in jax.tree.leaves(trial.state.params))
    compiled = step.lower(program, trial, *batch, jnp.float32(0)).compile()
    taken = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        trial, metrics = compiled(trial, *batch, jnp.float32(0))
        jax.block_until_ready(metrics)
        taken.append(time.perf_counter() - start)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    bytes_ = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    return Measured(min(taken[1:]), int(bytes_), float(cost.get("flops", float("nan"))), size)


def memory_limit() -> int:
    """Returns the bytes of one device; on CPUs those that this process may use."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or host_memory()


def host_memory(root: str | os.PathLike = "/") -> int:
    """Returns the bytes of memory that this process may use.

    The machine's, or less where a container or a batch system limits the process (cgroup v2 or v1).

    Args:
      root: folder that holds proc/ and sys/; another one in tests.
    """
    limits = [psutil.virtual_memory().total]
    root = pathlib.Path(root)
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    base = root / "sys/fs/cgroup"
    for line in (line for line in lines if line.count(":") >= 2):
        _, controllers, path = line.split(":", 2)
        folder, name = base, "memory.max"
        if "memory" in controllers.split(","):
            folder, name = base / "memory", "memory.limit_in_bytes"
        elif controllers:
            continue
        inner = folder / path.lstrip("/")
        for place_ in (inner, *inner.parents):  # every level above limits, too
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                limits.append(int((place_ / name).read_text()))
            if place_ == folder:
                break
    return min(limits)


def require_memory(size: float, what: str) -> None:
    """Refuses what would take more than half of the memory.

    Args:
      size: bytes.
      what: what needs them, and what to do about it, for the message.

    Raises:
      InputError: twice that many bytes are more than this process may use.
    """
    if 2 * size > (limit := host_memory()):
        expected = f"{2 * size / 1e9:.1f} GB for {what}"
        raise InputError("memory of this machine", f"{limit / 1e9:.1f} GB", expected)
