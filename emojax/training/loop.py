"""The training loop: vectors or volumes, one fold at a time or several side by side.

    for task, trained in fit(program, tasks, epochs=1250, every=50):
        probabilities = predict(program, feed, rows, trained.best.params, trained.best.batch_stats)

With "loop", an epoch is a host loop of the jitted step (on CPUs, XLA runs the bodies of its loops
on one thread). With "scan", epochs are one program, and folds of one shape run side by side. Both
draw the same batches and noise, and each fold is stored separately, so that a training run begun
with one can continue with the other. Measured: `benchmarks/results/folds_*.json`.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int

from emojax import stops
from emojax.errors import InputError
from emojax.training.epoch import (
    Paused,
    Program,
    begin,
    predict,
    rate_start,
    run_looped,
    run_scanned,
    scan_inputs,
    stack_host,
    steps_of,
)
from emojax.training.feeds import Feed, Resident
from emojax.training.steps import TrainState
from emojax.training.trial import CURVES, Best, Trial

__all__ = ["Best", "Program", "Store", "Strategy", "Task", "Trained", "fit", "predict"]

Strategy = Literal["loop", "scan"]


class Task(NamedTuple):
    """The training of one network."""

    name: str  # for files and messages
    key: jax.Array  # [] typed key
    feed: Callable[[], Feed]  # called once training begins
    train: Int[np.ndarray, " n"]  # rows of the feed; a row may occur several times
    monitor: Int[np.ndarray, " m"]  # rows whose scores choose the epoch and the rate


class Trained(NamedTuple):
    """A network at the end of its training."""

    best: Best
    last: TrainState
    done: int  # epochs
    curves: dict[str, Float[np.ndarray, " epochs"]]  # NaN after an early stop


class Store:
    """A store of unfinished training runs; this one keeps nothing."""

    def load(self, name: str, like: Any) -> Any:
        """Returns the pytree saved last, with the shapes of `like`, or None."""

    def save(self, name: str, steps: int, tree: Any) -> None:
        """Writes or copies the state of a training run; its arrays may be donated afterwards."""

    def drop(self, name: str) -> None:
        """Removes a training run."""


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
    """Trains networks to the end, from the start or from their last checkpoint.

    A signal that asks the process to end is handled before each step of "loop" and after each
    dispatch of "scan". The state is then stored, between or within epochs.

    Args:
      program: see `Program`.
      tasks: networks to train.
      epochs: maximum number of epochs.
      every: number of epochs between checkpoints, and per dispatch of "scan".
      factor: weight of the penalty; changing it does not recompile.
      strategy: see the module; "scan" needs resident feeds.
      stop: (rate, epochs): ends a training run whose rate has fallen to `rate` once the monitored
        loss has had no new minimum for `epochs` epochs; None: never.
      store: store of checkpoints; None: no checkpoints.
      log: called after each epoch with the task's name, the epoch from 1, and `CURVES`; without
        curves for epochs that were restored from a checkpoint or skipped by an early stop.

    Yields:
      Each task with its trained network, as soon as it is done.

    Raises:
      ValueError: a batch size that the devices cannot share evenly, an unknown strategy, or "scan"
        with a streamed feed.
      InputError: a loss that is not finite; nothing is kept of this training run.
      stops.Stopped: a signal has asked this process to end.
    """
    devices = program.mesh.size
    if program.batch_size % devices:
        raise ValueError(
            f"want a batch size that {devices} devices divide; got {program.batch_size}"
        )
    if strategy not in get_args(Strategy):
        raise ValueError(f"want strategy 'loop' or 'scan'; got {strategy!r}")
    kept = {"epochs": epochs, "factor": factor, "store": store or Store(), "log": log}
    make = functools.partial(_open, program, strategy, **kept)
    run = functools.partial(_train, program, strategy, every=every, stop=stop, **kept)
    if strategy == "loop" or devices > 1 or stop is not None:
        for task in tasks:
            yield from run([make(task)])
        return
    opened = [make(task) for task in tasks]
    for _, group in itertools.groupby(sorted(opened, key=_likeness), _likeness):
        yield from run(list(group))


class _Opened(NamedTuple):
    """A task with its open feed, at the step of its checkpoint."""

    task: Task
    feed: Feed
    trial: Trial
    curves: dict[str, np.ndarray]
    done: int  # epochs
    taken: list[dict[str, Any]]  # metrics of the steps done of an interrupted epoch


def _open(program, strategy: Strategy, task: Task, *, epochs: int, factor, store, log) -> _Opened:
    feed = task.feed()
    if strategy == "scan" and not isinstance(feed, Resident):
        raise ValueError("want a resident feed for 'scan'; got a streamed one")
    state = begin(program, task.key, feed.example)
    curves = {name: np.full(epochs, np.nan, np.float32) for name in CURVES}
    steps = steps_of(program, len(task.train))
    if (tree := store.load(task.name, _tree(state, curves, [], steps))) is None:
        if program.epoch_zero:
            state = rate_start(program, state, feed, task.monitor, jnp.float32(factor))
        return _Opened(task, feed, state, curves, 0, [])
    state, done = tree["trial"], int(tree["trial"].epoch)
    log(task.name, done, {})
    curves = {name: np.array(line) for name, line in tree["curves"].items()}
    count = int(state.state.step) - done * steps
    taken = [{name: m[i] for name, m in tree["taken"].items()} for i in range(count)]
    return _Opened(task, feed, state, curves, done, taken)


def _tree(state: Trial, curves, taken, steps: int) -> dict[str, Any]:
    """Returns the tree that is stored for a training run; metrics of later steps are NaN."""
    none = dict.fromkeys(("loss", "accuracy"), np.float32(np.nan))
    filled = stack_host([*taken, *[none] * (steps - len(taken))])
    return {"trial": state, "curves": curves, "taken": filled}


def _likeness(opened: _Opened) -> tuple:
    """Returns the shapes, type and progress that tasks must share to run side by side."""
    assert isinstance(opened.feed, Resident)  # "loop" has no groups
    task, x = opened.task, opened.feed.x
    place = opened.done, len(opened.taken)
    return *place, x.shape, str(x.dtype), len(task.train), len(task.monitor)


def _train(program, strategy: Strategy, group, *, epochs, every, factor, stop, store, log):
    """Trains one fold, or several of one shape side by side."""
    done, single, taken = group[0].done, len(group) == 1, group[0].taken
    advance = (_scanned if strategy == "scan" else _looped)(program, group, jnp.float32(factor))
    rest = _looped(program, group, jnp.float32(factor)) if taken else advance
    pace = every if strategy == "scan" and stop is None else 1
    state = group[0].trial if single else stack([opened.trial for opened in group])

    def save(taken):
        for i, opened in enumerate(group):
            one = state if single else _pick(state, i)
            steps = steps_of(program, len(opened.task.train))
            tree = _tree(one, opened.curves, taken, steps)
            store.save(opened.task.name, int(one.state.step), tree)

    while done < epochs and not _is_stalled(state, stop):
        # Dispatches end where checkpoints are due, even if training resumed in between.
        count = 1 if taken else min(pace, epochs - done, every - done % every)
        try:
            state, metrics = (rest if taken else advance)(state, count, taken)  # [folds, count]
        except Paused as paused:
            state = paused.state
            save(paused.taken)
            raise stops.Stopped(stops.asked()) from None
        taken = []
        for i, opened in enumerate(group):
            for name in CURVES:
                opened.curves[name][done : done + count] = metrics[name][i]
            for j in range(count):
                now = {name: float(metrics[name][i, j]) for name in CURVES}
                _check_finite(store, opened.task.name, done + j + 1, now)
                log(opened.task.name, done + j + 1, now)
        done += count
        stopped = _is_asked()
        if done < epochs and (stopped or done % every == 0):
            save([])
        if done < epochs and stopped:
            raise stops.Stopped(stopped)
    for i, opened in enumerate(group):
        if done < epochs:
            log(opened.task.name, epochs, {})
        one = state if single else _pick(state, i)
        yield opened.task, Trained(one.best, one.state, done, opened.curves)


def _is_asked() -> str:
    """Returns the signal that asks this or another process of the run to end, or ""."""
    own = stops.asked()
    if jax.process_count() == 1:
        return own
    anybody = multihost_utils.process_allgather(np.array(bool(own))).any()
    return own or ("SIGTERM" if anybody else "")


def _check_finite(store, name: str, epoch: int, metrics: dict[str, float]) -> None:
    """Ends a training run whose loss is no longer finite, as all later losses would not be either.

    Raises:
      InputError: the loss is not finite; the message names fold, epoch and rate.
    """
    if np.isfinite(metrics["train_loss"]) and np.isfinite(metrics["loss"]):
        return
    store.drop(name)
    found = f"a loss of {metrics['train_loss']:g} (monitored: {metrics['loss']:g}) in epoch {epoch}"
    found += f" at rate {metrics['rate']:g}"
    expected = "finite losses (a lower train.lr or penalty; nothing of this training was kept)"
    raise InputError(f"training {name}", found, expected)


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


def _looped(program: Program, group: Sequence[_Opened], factor):
    """Returns advance(state, 1, taken), which runs an epoch of a single fold from the host."""
    (opened,) = group
    task = opened.task

    def advance(state, count, taken):
        return run_looped(program, state, opened.feed, task.train, task.monitor, factor, taken)

    return advance


def _scanned(program: Program, group: Sequence[_Opened], factor):
    """Returns advance(state, count, []), which runs epochs of all folds as one program."""
    parts = []
    for opened in group:
        assert isinstance(opened.feed, Resident)  # `_open` has refused others
        parts.append(scan_inputs(program, opened.feed, opened.task.train, opened.task.monitor))
    single = len(group) == 1
    inputs = parts[0] if single else stack(parts)

    def advance(state, count, taken):
        state, metrics = run_scanned(program, state, inputs, factor, count=count, folds=not single)
        metrics = jax.tree.map(np.asarray, metrics)
        return state, {n: m[None] if single else m for n, m in metrics.items()}

    return advance
