"""Programs that run in parallel, on one Python thread per core."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax


def cores() -> int:
    """Returns the number of cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def side_by_side(function: Callable[[Any], Any], jobs: Iterable[Any]) -> list[Any]:
    """Computes function(job) for every job and waits for the results.

    Do not use it for programs that decompose batches of matrices: on a CPU two of them deadlock.
    """
    config: Any = jax.config  # whose values are not declared
    double, device = config.jax_enable_x64, config.jax_default_device

    def one(job):
        with jax.enable_x64(double), jax.default_device(device):  # threads do not inherit these
            return jax.block_until_ready(function(job))

    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(one, jobs))
