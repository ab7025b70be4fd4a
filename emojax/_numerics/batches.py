"""Batches of parcels through one program, gathered on the host.

jaxlib decomposes the matrices of a batch in parallel, on all cores but the one that waits for it.
Two such programs at once wait for each other's threads, for ever. Programs that decompose one
matrix at a time may run side by side, and use all cores: on a CPU, parcels go through these where
they can. Threads of BLAS only wait for each other (200 x 200 matrices on two busy cores: 184
instead of 8 ms each) and are limited to one. Matrix products alone (solver "polar") take three
times the work: they are for GPUs.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl

from emojax._numerics.checks import as_float, is_concrete
from emojax._numerics.pieces import Layout, rounded

MANY = 4  # parcels of a batch on a CPU, where larger batches gain nothing
BYTES = 2**29  # of a batch's values elsewhere; a program needs several times as much


def run(
    function: Callable, layout: Layout, sources: Sequence[Any], settings: Any, serial: Any = None
) -> list[Any]:
    """Computes function(x, settings) -> a pytree of [_, k, ...] for batches of all parcels.

    Args:
      function: compiled; its x is [k, len(sources), n, p], 0 in the padding.
      layout: of the parcels.
      sources: [n, v] each.
      settings: handed on.
      serial: settings with which programs for parcels of at most n voxels decompose one matrix at a
        time; None: there are none.

    Returns:
      The results of each bucket, joined along their axis 1; on a CPU as NumPy arrays.
    """
    known, cpu = is_concrete(*sources), jax.default_backend() == "cpu"
    beside = known and cpu and serial is not None
    narrow = [own.shape[1] <= layout.num_rows for own in layout.buckets]
    sizes = [
        1 if beside and fits else _size(own, sources, cpu)
        for own, fits in zip(layout.buckets, narrow, strict=True)
    ]
    jobs = list(_jobs(layout, sizes))
    if known:
        sources = [np.asarray(x) for x in sources]
        with _one_thread_of_blas():
            first = [job for job in jobs if beside and narrow[job[0]]]
            found = _side_by_side(lambda x: function(x, serial), sources, first)
            for _, own, _ in jobs[len(first) :]:
                made = function(_take(sources, own, np), settings)
                found.append(jax.block_until_ready(made))
    else:
        found = [function(_take(sources, own, jnp), settings) for _, own, _ in jobs]
    parts: list[list] = [[] for _ in layout.buckets]
    for (bucket, _, real), made in zip(jobs, found, strict=True):
        made = jax.tree.map(np.asarray, made) if known and cpu else made
        parts[bucket].append(jax.tree.map(lambda leaf, real=real: leaf[:, :real], made))
    xp = np if known and cpu else jnp  # NumPy joins any number of parts without compiling for it
    return [jax.tree.map(lambda *own: xp.concatenate(own, 1), *made) for made in parts]


def _size(columns, sources, cpu: bool) -> int:
    """Returns the number of parcels of a batch. Few sizes are few programs to compile."""
    if cpu:
        return MANY
    each = 4 * len(sources) * sources[0].shape[0] * columns.shape[1]
    return rounded(min(len(columns), max(1, BYTES // each)))


def _jobs(layout: Layout, sizes: Sequence[int]) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yields a bucket, the voxels [k, p] of a batch of it, and how many of its parcels are new.

    Buckets come by width. Batches of a bucket have one size, filled up with its last parcel.
    """
    for bucket, (columns, size) in enumerate(zip(layout.buckets, sizes, strict=True)):
        for first in range(0, len(columns), size):
            real = min(size, len(columns) - first)
            yield bucket, columns[first + np.minimum(np.arange(size), real - 1)], real


def _side_by_side(function: Callable, sources, jobs) -> list[Any]:
    """Computes function of every job's values, with a thread for each core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    double, device = jax.config.jax_enable_x64, jax.config.jax_default_device

    def one(job):
        with jax.enable_x64(double), jax.default_device(device):  # a thread does not inherit them
            return jax.block_until_ready(function(_take(sources, job[1], np)))

    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(one, jobs))


def _take(sources, columns, xp):
    """Returns [k, s, n, p] float: the sources' voxels `columns` [k, p], 0 where they fill up."""
    size = sources[0].shape[1]
    flat = np.minimum(columns, size - 1).reshape(-1)
    taken = xp.stack([xp.take(x, flat, axis=1) for x in sources])  # [s, n, k p]
    taken = taken.reshape(*taken.shape[:2], *columns.shape)
    return as_float(xp.moveaxis(xp.where(columns < size, taken, 0), 2, 0))


def _one_thread_of_blas():
    import scipy.linalg  # noqa: F401  the LAPACK of jaxlib: loaded, its threads can be limited

    return threadpoolctl.threadpool_limits(1)
