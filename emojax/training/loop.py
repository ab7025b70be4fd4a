"""The one training loop: vectors or volumes, one fold at a time or several side by side.

    for task, trained in fit(program, tasks, epochs=1250, every=50):
        probabilities = predict(program, feed, rows, trained.best.params, trained.best.batch_stats)

With "loop" an epoch is a host loop of the jitted step (CPU: XLA runs the bodies of its loops
without its threads). With "scan" epochs are one program, and folds of one shape go through it side
by side. Both draw the same batches and noise, and what is stored belongs to a single fold, so that
a training begun with one goes on with the other. Measured: `benchmarks/results/folds_*.json`.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float

from emojax.training import steps, trial
from emojax.training.feeds import Feed, Resident, take
from emojax.training.trial import CURVES, Best, Trial

Strategy = Literal["loop", "scan"]


class Program(NamedTuple):
    """The static parts of a training run. Equal programs share compiled functions."""

    model: nn.Module
    tx: optax.GradientTransformation
    plateau: optax.GradientTransformationExtraArgs
    penalty: Callable  # (params, factor) -> [] term of the loss
    batch_size: int
    mesh: jax.sharding.Mesh


class Task(NamedTuple):
    """The training of one network."""

    name: str  # of its files and messages
    key: jax.Array  # [] typed
    feed: Callable[[], Feed]  # called once training begins
    train: np.ndarray  # [n] rows of the feed; a row may occur several times
    monitor: np.ndarray  # [m] rows whose scores choose the epoch and the rate


class Trained(NamedTuple):
    """A network at the end of its training."""

    best: Best
    last: steps.TrainState
    done: int  # epochs
    curves: dict[str, Float[np.ndarray, " epochs"]]  # NaN after an early stop


class Store:
    """A keeper of unfinished trainings; this one keeps nothing."""

    def load(self, name: str, like: Any) -> tuple[int, Any] | None:
        """Returns (epochs done, pytree with the shapes of `like`) of a training, or None."""

    def save(self, name: str, epoch: int, tree: Any) -> None:
        """Keeps the state of a training after some epochs."""


def default_strategy() -> Strategy:
    """Returns "loop" on CPUs, "scan" on accelerators."""
    return "loop" if jax.default_backend() == "cpu" else "scan"


def fit(
    program: Program,
    tasks: Sequence[Task],
    *,
    epochs: int,
    every: int,
    factor: float = 0.0,
    strategy: Strategy = "loop",
    stop: tuple[float, int] | None = None,
    store: Store | None = None,
    log: Callable[[str, int, dict[str, float]], None] = lambda name, epoch, metrics: None,
) -> Iterator[tuple[Task, Trained]]:
    """Trains networks from the start, or from where a checkpoint left them, to the end.

    Args:
      program: see `Program`.
      tasks: networks to train.
      epochs: maximum number of epochs.
      every: number of epochs between checkpoints, and per dispatch of "scan".
      factor: weight of the penalty; another one does not recompile.
      strategy: see the module; "scan" needs resident feeds.
      stop: (rate, epochs): ends a training whose rate is that low once the monitored loss has had
        no new minimum for that many epochs; None: never.
      store: keeper of checkpoints; None: no checkpoints.
      log: called after each epoch with the task's name, the epoch from 1, and `CURVES`.

    Yields:
      Each task with its trained network, as soon as it is done.

    Raises:
      ValueError: a batch size that the devices cannot share evenly.
    """
    devices = program.mesh.size
    if program.batch_size % devices:
        raise ValueError(
            f"want a batch size that {devices} devices divide; got {program.batch_size}"
        )
    store = store or Store()
    run = functools.partial(
        _train, program, epochs=epochs, every=every, factor=factor, stop=stop, store=store, log=log
    )
    if strategy == "loop" or devices > 1 or stop is not None:
        for task in tasks:
            yield from run([_open(program, task, epochs, store)], strategy=strategy)
        return
    # One group in memory at a time: folds of one shape and epoch side by side.
    opened = [_open(program, task, epochs, store) for task in tasks]
    for _, group in itertools.groupby(sorted(opened, key=_shape), _shape):
        yield from run(list(group), strategy=strategy)


class _Opened(NamedTuple):
    """A task whose feed is there, at the epoch of its checkpoint."""

    task: Task
    feed: Feed
    trial: Trial
    curves: dict[str, np.ndarray]
    done: int


def _open(program: Program, task: Task, epochs: int, store: Store) -> _Opened:
    feed = task.feed()
    begin = jax.jit(_begin, static_argnums=0, out_shardings=NamedSharding(program.mesh, P()))
    state = begin(program, task.key, feed.example)
    curves = {name: np.full(epochs, np.nan, np.float32) for name in CURVES}
    if (found := store.load(task.name, {"trial": state, "curves": curves})) is None:
        return _Opened(task, feed, state, curves, 0)
    curves = {name: np.array(line) for name, line in found[1]["curves"].items()}
    return _Opened(task, feed, found[1]["trial"], curves, found[0])


def _shape(opened: _Opened):
    task, feed = opened.task, opened.feed
    return opened.done, feed.x.shape, len(task.train), len(task.monitor)


def _train(program, group, *, strategy, epochs, every, factor, stop, store, log):
    """Trains one fold, or several of one shape side by side."""
    tasks, done = [opened.task for opened in group], group[0].done
    if strategy == "scan":
        advance = _scanned(program, group, jnp.float32(factor))
        state = group[0].trial if len(group) == 1 else stack([o.trial for o in group])
        pace = every if stop is None else 1
    else:
        advance = functools.partial(_looped, program, group[0], jnp.float32(factor))
        state, pace = group[0].trial, 1
    while done < epochs and not _is_stalled(state, stop):
        # Dispatches end where checkpoints are due, wherever the training was taken up again.
        count = min(pace, epochs - done, every - done % every)
        state, metrics = advance(state, count)  # [folds, count]
        for i, opened in enumerate(group):
            for name in CURVES:
                opened.curves[name][done : done + count] = metrics[name][i]
            for j in range(count):
                log(opened.task.name, done + j + 1, {n: float(metrics[n][i, j]) for n in CURVES})
        done += count
        if done % every == 0 and done < epochs:
            for i, opened in enumerate(group):
                one = state if len(group) == 1 else _pick(state, i)
                store.save(opened.task.name, done, {"trial": one, "curves": opened.curves})
    for i, task in enumerate(tasks):
        one = state if len(group) == 1 else _pick(state, i)
        yield task, Trained(one.best, one.state, done, group[i].curves)


def stack(items: Sequence[Any]) -> Any:
    """Stacks pytrees of one shape along a new axis 0."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *items)


def _pick(tree, i: int):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def _is_stalled(state: Trial, stop) -> bool:
    if stop is None:
        return False
    rate, patience = stop
    rule = state.state.plateau
    return float(rule.rate) <= rate * (1 + 1e-6) and int(rule.wait) >= patience


def predict(
    program: Program, feed: Feed, rows: np.ndarray, params: Any, batch_stats: Any
) -> Float[np.ndarray, "n classes"]:
    """Returns the probabilities of rows in inference mode, batch by batch."""
    lines, _ = fill_batches(rows, program.batch_size)
    found = [_predict(program, params, batch_stats, x) for x, _ in feed.batches(lines)]
    return np.concatenate([np.asarray(p) for p in found])[: len(rows)]


def fill_batches(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows as full batches, the last filled up with rows that weigh nothing: (rows, w)."""
    count = -(-len(rows) // size)
    weights = np.zeros(count * size, np.float32)
    weights[: len(rows)] = 1
    return np.resize(rows, (count, size)), weights.reshape(count, size)


def _looped(program, opened: _Opened, factor, state: Trial, count: int):
    """Runs epochs step by step from the host; metrics [1, count]."""
    feed, task, epochs = opened.feed, opened.task, []
    lines, weights = fill_batches(task.monitor, program.batch_size)
    for _ in range(count):
        order = np.asarray(_order(program, state, len(task.train)))
        taken, sums = [], []
        for x, y in feed.batches(task.train[order]):
            state, metrics = step(program, state, x, y, factor)
            taken.append(metrics)
        now = state.state
        for (x, y), weight in zip(feed.batches(lines), weights, strict=True):
            sums.append(_measure(program, now.params, now.batch_stats, x, y, weight))
        taken, sums = (jax.tree.map(lambda *m: np.stack(m), *ms) for ms in (taken, sums))
        state, metrics = _close(program, state, taken, sums, len(task.monitor), factor)
        epochs.append(metrics)
    return state, {name: np.array([[m[name] for m in epochs]]) for name in CURVES}


def _scanned(program, group: Sequence[_Opened], factor):
    """Returns advance(state, count): epochs of all folds of the group as one program."""
    parts = []
    for opened in group:
        feed, task = opened.feed, opened.task
        if not isinstance(feed, Resident):
            raise ValueError("want a resident feed for 'scan'; got a streamed one")
        lines, weights = fill_batches(task.monitor, program.batch_size)
        parts.append((feed.x, feed.y, feed.places(task.train), feed.places(lines), weights))
    single = len(group) == 1
    inputs = parts[0] if single else stack(parts)

    def advance(state, count):
        state, metrics = _epochs(program, state, inputs, factor, count=count, folds=not single)
        metrics = jax.tree.map(np.asarray, metrics)
        return state, {n: m[None] if single else m for n, m in metrics.items()}

    return advance


def _begin(program: Program, key, example) -> Trial:
    return trial.begin(key, program.model, program.tx, program.plateau, example)


def _one_step(program: Program, state: Trial, x, y, factor):
    one = steps.make_train_step(
        program.model, program.tx, lambda params: program.penalty(params, factor)
    )
    new, metrics = one(state.state, {"x": x, "y": y})
    return state.replace(state=new), metrics


def _logits(program: Program, params, batch_stats, x):
    return program.model.apply(steps.variables(params, batch_stats), x, train=False)


def _sums(program: Program, params, batch_stats, x, y, weight):
    """Returns weighted sums over a batch: cross-entropy, and right answers."""
    logits = _logits(program, params, batch_stats, x)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return {"loss": (weight * nll).sum(), "accuracy": (weight * (logits.argmax(-1) == y)).sum()}


def _closed(program: Program, state: Trial, taken, sums, count, factor):
    train = jax.tree.map(lambda m: m.mean(0), taken)
    found = jax.tree.map(lambda s: s.sum(0) / count, sums)
    found["loss"] += program.penalty(state.state.params, factor)
    return trial.close_epoch(state, found, train, program.plateau)


def _whole_epoch(program: Program, state: Trial, inputs, factor):
    x, y, train, monitor, weights = inputs

    def one(state, rows):
        return _one_step(program, state, *take(x, y, rows, mesh=program.mesh), factor)

    def measure(_, line):
        rows, weight = line
        now, batch = state.state, take(x, y, rows, mesh=program.mesh)
        return None, _sums(program, now.params, now.batch_stats, *batch, weight)

    order = train[trial.shuffled(state, len(train), program.batch_size)]
    state, taken = jax.lax.scan(one, state, order)
    _, sums = jax.lax.scan(measure, None, (monitor, weights))
    return _closed(program, state, taken, sums, weights.sum(), factor)


@functools.partial(jax.jit, static_argnames=("program", "count", "folds"), donate_argnames="state")
def _epochs(program: Program, state: Trial, inputs, factor, *, count: int, folds: bool):
    """Scans `count` epochs of one fold, or of stacked ones; metrics [folds, count] or [count]."""

    def fold(state, inputs):
        one = lambda state, _: _whole_epoch(program, state, inputs, factor)  # noqa: E731
        return jax.lax.scan(one, state, length=count)

    return jax.vmap(fold)(state, inputs) if folds else fold(state, inputs)


step = jax.jit(_one_step, static_argnums=0, donate_argnums=1)
_measure = jax.jit(_sums, static_argnums=0)
_close = jax.jit(_closed, static_argnums=0, donate_argnums=1)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _order(program: Program, state: Trial, n: int):
    return trial.shuffled(state, n, program.batch_size)


@functools.partial(jax.jit, static_argnums=0)
def _predict(program: Program, params, batch_stats, x):
    out = jax.nn.softmax(_logits(program, params, batch_stats, x))
    return jax.lax.with_sharding_constraint(out, NamedSharding(program.mesh, P()))
