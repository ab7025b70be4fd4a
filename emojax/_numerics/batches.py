"""Batches of parcels that go through one program, gathered on the host.

jaxlib decomposes the matrices of a batch in parallel, on all cores except the one that waits for
it. Two such programs at once deadlock, waiting for each other's threads (see `order`). Programs
that decompose one matrix at a time may run side by side and use all cores: on a CPU, parcels go
through these if possible. BLAS threads only wait for each other (200 x 200 matrices on two busy
cores: 184 instead of 8 ms each) and are limited to one. Matrix products alone (solver "polar") take
three times the work: they are for GPUs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl

from emojax._numerics.checks import as_float, is_concrete
from emojax._numerics.pieces import Layout, rounded
from emojax._numerics.threads import side_by_side

MANY = 4  # parcels in a batch on a CPU, where larger batches gain nothing
BYTES = 2**29  # size of a batch on other devices; a program needs several times as much


def run(
    function: Callable, layout: Layout, sources: Sequence[Any], settings: Any, serial: Any = None
) -> list[Any]:
    """Computes function(x, settings) -> a pytree of [_, k, ...] for batches of all parcels.

    Args:
      function: compiled function; its x is [k, len(sources), n, p], 0 in the padding.
      layout: layout of the parcels.
      sources: arrays [n, v].
      settings: passed to `function`.
      serial: settings with which programs for parcels of fewer than n voxels decompose one matrix
        at a time; None: not available.

    Returns:
      The results of each bucket, joined along axis 1; on a CPU as NumPy arrays.
    """
    known, cpu = is_concrete(*sources), jax.default_backend() == "cpu"
    beside = known and cpu and serial is not None
    narrow = [own.shape[1] < layout.num_rows for own in layout.buckets]
    sizes = [
        1 if beside and fits else _size(own, sources, cpu)
        for own, fits in zip(layout.buckets, narrow, strict=True)
    ]
    jobs = list(_jobs(layout, sizes))
    if known:
        sources = [np.asarray(x) for x in sources]
        with _one_thread_of_blas():
            first = [job for job in jobs if beside and narrow[job[0]]]
            found = side_by_side(lambda job: function(_take(sources, job[1], np), serial), first)
            for _, own, _ in jobs[len(first) :]:
                made = function(_take(sources, own, np), settings)
                found.append(jax.block_until_ready(made))
    else:
        found = [function(_take(sources, own, jnp), settings) for _, own, _ in jobs]
    parts: list[list] = [[] for _ in layout.buckets]
    for (bucket, _, real), made in zip(jobs, found, strict=True):
        made = jax.tree.map(np.asarray, made) if known and cpu else made
        parts[bucket].append(jax.tree.map(lambda leaf, real=real: leaf[:, :real], made))
    xp = np if known and cpu else jnp  # NumPy joins any number of parts without compiling
    return [jax.tree.map(lambda *own: xp.concatenate(own, 1), *made) for made in parts]


def _size(columns, sources, cpu: bool) -> int:
    """Returns the number of parcels in a batch; few sizes mean few programs to compile."""
    if cpu:
        return MANY
    each = 4 * len(sources) * sources[0].shape[0] * columns.shape[1]
    return rounded(min(len(columns), max(1, BYTES // each)))


def _jobs(layout: Layout, sizes: Sequence[int]) -> Iterator[tuple[int, np.ndarray, int]]:
    """Yields the bucket, the voxels [k, p] and the number of new parcels of each batch.

    Buckets are in order of width. Batches of a bucket have one size; the last repeats a parcel.
    """
    for bucket, (columns, size) in enumerate(zip(layout.buckets, sizes, strict=True)):
        for first in range(0, len(columns), size):
            real = min(size, len(columns) - first)
            yield bucket, columns[first + np.minimum(np.arange(size), real - 1)], real


def _take(sources, columns, xp):
    """Returns [k, s, n, p] float: the sources' voxels `columns` [k, p], 0 in the padding."""
    size = sources[0].shape[1]
    flat = np.minimum(columns, size - 1).reshape(-1)
    taken = xp.stack([xp.take(x, flat, axis=1) for x in sources])  # [s, n, k p]
    taken = taken.reshape(*taken.shape[:2], *columns.shape)
    return as_float(xp.moveaxis(xp.where(columns < size, taken, 0), 2, 0))


def _one_thread_of_blas():
    import scipy.linalg  # noqa: F401  loads jaxlib's LAPACK, so that its threads can be limited

    return threadpoolctl.threadpool_limits(1)
