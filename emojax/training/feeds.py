"""Feeds: batches of volumes or vectors on the devices, resident there or streamed from disk.

A feed refers to rows of the cohort. Batches are divided among the devices of a mesh with one axis,
"data"; parameters are on all of them.
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

Read = Callable[[np.ndarray], Float[np.ndarray, "k ..."]]  # rows -> features, float32
AHEAD = 2  # batches read while the device computes
CHUNK = 64  # rows read at a time


class Feed(Protocol):
    """A source of batches."""

    @property
    def example(self) -> Float[np.ndarray, "1 ..."]:
        """A zero input with batch size 1, for initialising parameters."""
        ...

    def labels(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the classes of rows."""
        ...

    def batches(self, rows: Int[np.ndarray, "steps batch"]) -> Iterator[tuple]:
        """Yields (x, y) on the devices for each batch of rows."""
        ...


def data_mesh(
    # jax declares `Device` as a variable.
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
) -> jax.sharding.Mesh:
    """Returns a mesh with one axis, "data", of the given devices.

    Args:
      devices: the devices; None: all devices of all processes.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), devices=devices, axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Copies host arrays, equal in all processes, onto every device of the mesh."""
    return place(tree, NamedSharding(mesh, P()))


def place(tree: Any, sharding: NamedSharding) -> Any:
    """Puts host arrays, equal in all processes, onto the devices by a sharding."""

    def put(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree)


class Resident:
    """A feed of features of some rows, kept on every device."""

    def __init__(
        self,
        read: Read,
        labels: np.ndarray,
        rows: np.ndarray,
        dtype: Any,
        mesh: jax.sharding.Mesh,
    ):
        """Reads and sends the distinct rows once.

        Args:
          read: function from rows of the cohort to features.
          labels: [n] class of every row of the cohort; only those of `rows` are read.
          rows: rows that batches will request, e.g. those for training and monitoring.
          dtype: type on the device.
          mesh: the devices.
        """
        self.rows = np.unique(rows)
        host: np.ndarray | None = None
        for start in range(0, len(self.rows), CHUNK):
            part = read(self.rows[start : start + CHUNK])
            if host is None:
                host = np.empty((len(self.rows), *part.shape[1:]), dtype)
            host[start : start + len(part)] = part
        self.x = replicate(host, mesh)
        self._labels = labels[self.rows].astype(np.int32)
        self.y = replicate(self._labels, mesh)
        self._mesh = mesh

    @property
    def example(self) -> Float[np.ndarray, "1 ..."]:
        """A zero input with batch size 1, for initialising parameters."""
        return np.zeros((1, *self.x.shape[1:]), np.float32)

    def places(self, rows: np.ndarray) -> Int[np.ndarray, "..."]:
        """Returns the positions of rows of the cohort in `x` and `y`.

        Raises:
          ValueError: a row that the feed was not given.
        """
        _check_rows(rows, self.rows)
        return np.searchsorted(self.rows, rows).astype(np.int32)

    def labels(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the classes of rows; raises as for `places`."""
        return self._labels[self.places(rows)]

    def batches(self, rows: Int[np.ndarray, "steps batch"]) -> Iterator[tuple]:
        """Yields (x, y) on the devices for each batch of rows; raises as for `places`."""
        for line in self.places(rows):
            yield take(self.x, self.y, line, mesh=self._mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def take(
    x: jax.Array, y: jax.Array, rows: jax.Array | np.ndarray, *, mesh: jax.sharding.Mesh
) -> tuple[jax.Array, jax.Array]:
    """Returns rows of both x and y, divided among the devices of the mesh."""
    if mesh.size == 1:
        return x[rows], y[rows]
    sharding = NamedSharding(mesh, P("data"))
    x, y = (jax.lax.with_sharding_constraint(a[rows], sharding) for a in (x, y))
    return x, y


class Streamed:
    """A feed of features that stay on disk; each process reads only what its devices need."""

    def __init__(
        self,
        read: Read,
        labels: np.ndarray,
        rows: np.ndarray,
        dtype: Any,
        mesh: jax.sharding.Mesh,
    ):
        """Takes the same arguments as `Resident`; `dtype` is the type sent to the device."""
        self._read, self._labels, self._dtype = read, labels.astype(np.int32), dtype
        self._sharding = NamedSharding(mesh, P("data"))
        self.rows = np.unique(rows)

    @property
    def example(self) -> Float[np.ndarray, "1 ..."]:
        """A zero input with batch size 1, for initialising parameters."""
        return self._example

    @functools.cached_property
    def _example(self) -> Float[np.ndarray, "1 ..."]:
        return np.zeros_like(self._read(self.rows[:1]))

    def labels(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the classes of rows; raises as for `batches`."""
        _check_rows(rows, self.rows)
        return self._labels[rows]

    def batches(self, rows: Int[np.ndarray, "steps batch"]) -> Iterator[tuple]:
        """Yields (x, y) on the devices for each batch of rows, reading ahead in a thread.

        Raises:
          ValueError: a row that the feed was not given.
        """
        _check_rows(rows, self.rows)
        lines = iter(np.asarray(rows))
        with ThreadPoolExecutor(1) as reader:
            ahead = deque(
                reader.submit(self._batch, line) for line in itertools.islice(lines, AHEAD)
            )
            while ahead:
                batch = ahead.popleft().result()
                ahead.extend(
                    reader.submit(self._batch, line) for line in itertools.islice(lines, 1)
                )
                yield batch

    def _batch(self, rows):
        def values(index):
            return self._read(rows[index[0]]).astype(self._dtype)

        def labels(index):
            return self._labels[rows[index[0]]]

        shape = (len(rows), *self.example.shape[1:])
        x = jax.make_array_from_callback(shape, self._sharding, values)
        y = jax.make_array_from_callback((len(rows),), self._sharding, labels)
        return x, y


def _check_rows(rows, known: np.ndarray) -> None:
    """Refuses rows that a feed was not given, so that batches never contain rows not granted."""
    foreign = np.setdiff1d(rows, known)
    if len(foreign):
        raise ValueError(f"want rows that the feed was given; got {foreign[:5].tolist()} too")
