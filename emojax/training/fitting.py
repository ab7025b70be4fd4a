"""Training of one network on many volumes: batches by row, on all devices, resident or streamed.

    feed = Resident(read, labels, rows, scale, mesh)    # or Streamed(...)
    fitted = fit(program, key, feed, split, epochs=1250)

The volumes are either kept on the devices, and an epoch there is one program; or they are read,
scaled and sent batch by batch while the device computes. On CPUs the steps are a host loop in both
cases (XLA runs the bodies of its loops without its threads). Batches are divided among the devices
of a mesh with one axis, "data"; parameters are on all of them, and batch norm sees the whole batch.
"""

import functools
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from emojax.features.scaling import Scale, apply_scale, chunks
from emojax.training import crossval, steps
from emojax.training.crossval import CURVES, Trial

Read = Callable[[np.ndarray], Float[np.ndarray, "k X Y Z"]]  # rows -> values as scanned, float32
AHEAD = 2  # batches that are read while the device computes


class Split(NamedTuple):
    """Rows of the cohort; a row may occur several times among those that train (bootstrap)."""

    train: Int[np.ndarray, " n"]
    monitor: Int[np.ndarray, " m"]
    test: Int[np.ndarray, " t"]


class Program(NamedTuple):
    """What is static in a training; equal programs share their compiled functions."""

    model: nn.Module
    tx: optax.GradientTransformation
    plateau: optax.GradientTransformationExtraArgs
    penalty: Callable  # (params, factor) -> [] term of the loss
    batch_size: int
    mesh: jax.sharding.Mesh


def data_mesh(devices=None) -> jax.sharding.Mesh:
    """All devices (of all processes), or those given, along one axis "data"."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), ("data",), devices=devices, axis_types=(AxisType.Auto,))


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Host arrays, equal in all processes, onto every device of the mesh."""
    return _placed(tree, NamedSharding(mesh, P()))


def _placed(tree, sharding):
    def place(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = place(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(place, tree)


class Resident:
    """All volumes on every device, scaled."""

    def __init__(self, read: Read, labels: np.ndarray, scale: Scale, dtype: Any, mesh):
        """Reads, scales and sends every row of `labels` once; `dtype` as kept on the device."""
        host = None
        for rows in chunks(np.arange(len(labels))):
            part = apply_scale(scale, read(rows))
            if host is None:
                host = np.empty((len(labels), *part.shape[1:]), dtype)
            host[rows] = part
        self.x = replicate(host, mesh)
        self.y = replicate(labels.astype(np.int32), mesh)
        self._mesh = mesh

    @property
    def example(self) -> Float[np.ndarray, "1 X Y Z"]:
        """Of one batch: its shape, for the initial parameters."""
        return np.zeros((1, *self.x.shape[1:]), np.float32)

    def batches(self, rows: Int[np.ndarray, "steps batch"]) -> Iterator[tuple]:
        """Yields (x, y) on the devices for each line of rows."""
        for line in rows:
            yield _take(self.x, self.y, line, mesh=self._mesh)


@functools.partial(jax.jit, static_argnames="mesh")
def _take(x, y, rows, *, mesh):
    sharding = NamedSharding(mesh, P("data"))
    return tuple(jax.lax.with_sharding_constraint(a[rows], sharding) for a in (x, y))


class Streamed:
    """Volumes that stay on disk; each process reads only what its own devices need."""

    def __init__(self, read: Read, labels: np.ndarray, scale: Scale, dtype: Any, mesh):
        """Args: as of `Resident`; `dtype` as sent to the device."""
        self._read, self._labels, self._scale = read, labels.astype(np.int32), scale
        self._dtype, self._sharding = dtype, NamedSharding(mesh, P("data"))
        self.example = np.zeros_like(read(np.zeros(1, int)))

    def batches(self, rows: Int[np.ndarray, "steps batch"]) -> Iterator[tuple]:
        """Yields (x, y) on the devices for each line of rows, reading ahead in a thread."""
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
            return apply_scale(self._scale, self._read(rows[index[0]])).astype(self._dtype)

        shape = (len(rows), *self.example.shape[1:])
        x = jax.make_array_from_callback(shape, self._sharding, values)
        y = jax.make_array_from_callback(
            (len(rows),), self._sharding, lambda index: self._labels[rows[index[0]]]
        )
        return x, y


def fit(
    program: Program,
    key: jax.Array,
    feed: Resident | Streamed,
    split: Split,
    *,
    epochs: int,
    every: int,
    scored: Resident | Streamed | None = None,
    factor: float = 0.0,
    scan: bool = False,
    stop: tuple[float, int] | None = None,
    load: Callable = lambda like: None,
    save: Callable = lambda epoch, tree: None,
    tick: Callable[[int], None] = lambda epochs: None,
) -> tuple[dict[str, np.ndarray], crossval.Best]:
    """Trains from the start, or from where a checkpoint left it, to the end.

    Args:
      program: see `Program`.
      key: [] typed.
      feed: where batches come from.
      split: who trains, is monitored, is tested.
      epochs: at most so many.
      every: epochs between calls of `save`.
      scored: where volumes of the test come from, e.g. in full precision; None: `feed`.
      factor: of the penalty; no recompilation for another one.
      scan: an epoch is one program; `feed` is resident then. Otherwise a loop of steps.
      stop: (rate, epochs): stop once the rate is that low, with no new lowest monitored loss in so
        many epochs; None: never.
      load: (pytree of the right shapes) -> (epochs done, pytree) or None.
      save: called with epochs done and the pytree.
      tick: called with the number of epochs done, or left out, since the last call.

    Returns:
      "last", "best": [t, classes] probabilities of the test rows; "epoch": [] of the best; "done":
      [] epochs; the names of `CURVES`: [epochs], NaN after the stop. And the best parameters.

    Raises:
      ValueError: a batch that the devices cannot share evenly.
    """
    devices = program.mesh.devices.size
    if program.batch_size % devices:
        raise ValueError(
            f"want a batch size that {devices} devices divide; got {program.batch_size}"
        )
    begin = jax.jit(_begin, static_argnums=0, out_shardings=NamedSharding(program.mesh, P()))
    trial = begin(program, key, feed.example)
    curves = {name: np.full(epochs, np.nan, np.float32) for name in CURVES}
    start = 0
    if (found := load({"trial": trial, "curves": curves})) is not None:
        start, trial = found[0], found[1]["trial"]
        curves = {name: np.array(line) for name, line in found[1]["curves"].items()}
        tick(start)
    factor = jnp.float32(factor)
    one = functools.partial(_scanned if scan else _looped, program, feed, split, factor)
    done = start
    while done < epochs and not _stalled(trial, stop):
        trial, metrics = one(trial)
        for name in CURVES:
            curves[name][done] = metrics[name]
        done += 1
        tick(1)
        if done % every == 0 and done < epochs:
            save(done, {"trial": trial, "curves": curves})
    tick(epochs - done)
    kept = {"last": trial.state, "best": trial.best}
    out = {
        name: predict(program, scored or feed, split.test, s.params, s.batch_stats)
        for name, s in kept.items()
    }
    return out | {
        "epoch": np.asarray(trial.best.epoch),
        "done": np.int32(done),
    } | curves, trial.best


def predict(
    program: Program, feed: Resident | Streamed, rows: np.ndarray, params: Any, batch_stats: Any
) -> Float[np.ndarray, "n classes"]:
    """Probabilities of rows in inference mode, batch by batch."""
    lines, _ = _lines(rows, program.batch_size)
    found = [_predict(program, params, batch_stats, x) for x, _ in feed.batches(lines)]
    return np.concatenate([np.asarray(p) for p in found])[: len(rows)]


def _lines(rows, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as full batches, the last filled up with rows that weigh nothing: (rows, weights)."""
    steps = -(-len(rows) // size)
    weights = np.zeros(steps * size, np.float32)
    weights[: len(rows)] = 1
    return np.resize(rows, (steps, size)), weights.reshape(steps, size)


def _stalled(trial: Trial, stop) -> bool:
    if stop is None:
        return False
    rate, patience = stop
    rule = trial.state.plateau
    return float(rule.rate) <= rate * (1 + 1e-6) and int(rule.wait) >= patience


def _looped(program, feed, split: Split, factor, trial: Trial):
    order = np.asarray(_order(program, trial, len(split.train)))
    taken = []
    for x, y in feed.batches(split.train[order]):
        trial, metrics = _step(program, trial, x, y, factor)
        taken.append(metrics)
    lines, weights = _lines(split.monitor, program.batch_size)
    state, sums = trial.state, []
    for (x, y), weight in zip(feed.batches(lines), weights, strict=True):
        sums.append(_measure(program, state.params, state.batch_stats, x, y, weight))
    taken, sums = (jax.tree.map(lambda *m: np.stack(m), *ms) for ms in (taken, sums))
    return _close(program, trial, taken, sums, len(split.monitor), factor)


def _scanned(program, feed: Resident, split: Split, factor, trial: Trial):
    monitor = _lines(split.monitor, program.batch_size)
    rows = (split.train.astype(np.int32), *monitor)
    return _epoch(program, trial, feed.x, feed.y, *rows, factor)


def _begin(program: Program, key, example) -> Trial:
    return crossval.begin(key, program.model, program.tx, program.plateau, example)


def _one_step(program: Program, trial: Trial, x, y, factor):
    step = steps.make_train_step(
        program.model, program.tx, lambda params: program.penalty(params, factor)
    )
    state, metrics = step(trial.state, {"x": x, "y": y})
    return trial.replace(state=state), metrics


def _logits(program: Program, params, batch_stats, x):
    return program.model.apply(steps.variables(params, batch_stats), x, train=False)


def _sums(program: Program, params, batch_stats, x, y, weight):
    """Weighted sums over a batch: cross-entropy, and right answers."""
    logits = _logits(program, params, batch_stats, x)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return {"loss": (weight * nll).sum(), "accuracy": (weight * (logits.argmax(-1) == y)).sum()}


def _closed(program: Program, trial: Trial, taken, sums, count, factor):
    train = jax.tree.map(lambda m: m.mean(0), taken)
    found = jax.tree.map(lambda s: s.sum(0) / count, sums)
    found["loss"] += program.penalty(trial.state.params, factor)
    return crossval.close_epoch(trial, found, train, program.plateau)


def _whole_epoch(program: Program, trial: Trial, x, y, train, monitor, weights, factor):
    def step(trial, rows):
        return _one_step(program, trial, *_take(x, y, rows, mesh=program.mesh), factor)

    def measure(_, line):
        rows, weight = line
        state, batch = trial.state, _take(x, y, rows, mesh=program.mesh)
        return None, _sums(program, state.params, state.batch_stats, *batch, weight)

    order = train[crossval.shuffled(trial, len(train), program.batch_size)]
    trial, taken = jax.lax.scan(step, trial, order)
    _, sums = jax.lax.scan(measure, None, (monitor, weights))
    return _closed(program, trial, taken, sums, weights.sum(), factor)


_step = jax.jit(_one_step, static_argnums=0, donate_argnums=1)
_measure = jax.jit(_sums, static_argnums=0)
_close = jax.jit(_closed, static_argnums=0, donate_argnums=1)
_epoch = jax.jit(_whole_epoch, static_argnums=0, donate_argnums=1)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _order(program: Program, trial: Trial, n: int):
    return crossval.shuffled(trial, n, program.batch_size)


@functools.partial(jax.jit, static_argnums=0)
def _predict(program: Program, params, batch_stats, x):
    out = jax.nn.softmax(_logits(program, params, batch_stats, x))
    return jax.lax.with_sharding_constraint(out, NamedSharding(program.mesh, P()))


class Measured(NamedTuple):
    """A training step on this machine."""

    seconds: float
    bytes: int  # on each device: state, batch and what the step keeps in between
    flops: float  # of the whole batch, as compiled


def measure_step(program: Program, grid: tuple[int, int, int]) -> Measured:
    """Compiles a training step for a grid and takes its time; least of three."""
    sharded = NamedSharding(program.mesh, P("data"))
    x, y = np.zeros((program.batch_size, *grid), np.float32), np.zeros(program.batch_size, np.int32)
    batch = _placed((x, y), sharded)
    begin = jax.jit(_begin, static_argnums=0, out_shardings=NamedSharding(program.mesh, P()))
    trial = begin(program, jax.random.key(0), x[:1])
    compiled = _step.lower(program, trial, *batch, jnp.float32(0)).compile()
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        trial, metrics = compiled(trial, *batch, jnp.float32(0))
        jax.block_until_ready(metrics)
        taken.append(time.perf_counter() - start)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    size = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    return Measured(min(taken[1:]), int(size), float(cost.get("flops", float("nan"))))


def memory_limit() -> int:
    """Bytes of one device; on CPUs of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
