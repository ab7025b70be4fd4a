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
    """The measured cost of a training step on this machine."""

    seconds: float
    bytes: int  # on each device: state, batch and intermediate results
    flops: float  # of the whole batch, as compiled
    parameters: int


def measure_step(program: Program, shape: tuple[int, ...], repeats: int = 3) -> Measured:
    """Compiles and times a training step.

    Args:
      program: the static parts of the training run.
      shape: shape of one input.
      repeats: number of timed steps, of which the fastest counts.
    """
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
    assert memory is not None  # every backend of jax reports it
    bytes_ = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    return Measured(min(taken[1:]), int(bytes_), float(cost.get("flops", float("nan"))), size)


def memory_limit() -> int:
    """Returns the bytes of memory of one device; on CPUs, those that this process may use."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or host_memory()


def host_memory(root: str | os.PathLike = "/") -> int:
    """Returns the bytes of memory that this process may use.

    This is the machine's memory, or less if a container or batch system limits the process (cgroup
    v2 or v1).

    Args:
      root: folder that contains proc/ and sys/; tests use another one.
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
        for place_ in (inner, *inner.parents):  # limits of every level apply
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                limits.append(int((place_ / name).read_text()))
            if place_ == folder:
                break
    return min(limits)


def require_memory(size: float, what: str) -> None:
    """Refuses an allocation that would take more than half of the memory.

    Args:
      size: bytes needed.
      what: what needs them and how to avoid it, for the message.

    Raises:
      InputError: twice that many bytes are more than this process may use.
    """
    if 2 * size > (limit := host_memory()):
        expected = f"{2 * size / 1e9:.1f} GB for {what}"
        raise InputError("memory of this machine", f"{limit / 1e9:.1f} GB", expected)
