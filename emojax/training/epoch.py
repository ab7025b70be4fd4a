"""Epochs of one network, as a host loop of the jitted step or as part of one program."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from emojax import stops
from emojax.models import onednn
from emojax.training import steps, trial
from emojax.training.feeds import Feed, Resident, take
from emojax.training.trial import CURVES, Trial


class Program(NamedTuple):
    """The static parts of a training run. Equal programs share compiled functions."""

    model: nn.Module
    tx: optax.GradientTransformation
    plateau: optax.GradientTransformationExtraArgs
    penalty: Callable  # (params, factor) -> [] term of the loss
    batch_size: int
    mesh: jax.sharding.Mesh
    best_by: trial.By = "accuracy"
    # "rows": an epoch has every row once; "classes": as many draws, with equally likely classes.
    draws: Literal["rows", "classes"] = "rows"
    warmup: int = 0  # epochs, see `steps.make_train_step`
    epoch_zero: bool = False  # whether the network before its first step may be the best


def begin(program: Program, key: jax.Array, example: Float[np.ndarray, "1 ..."]) -> Trial:
    """Returns the state of a training run before its first epoch, on every device of the mesh."""
    everywhere = NamedSharding(program.mesh, P())
    return jax.jit(_begin, static_argnums=0, out_shardings=everywhere)(program, key, example)


def rate_start(
    program: Program, state: Trial, feed: Feed, monitor: Int[np.ndarray, " m"], factor: jax.Array
) -> Trial:
    """Rates a network before its first step as the best so far; arguments as for `run_looped`."""
    sums = _monitored(program, state, feed, monitor)
    return _rate_start(program, state, sums, len(monitor), factor)


class Paused(Exception):
    """The interruption of an epoch by a signal, between two of its steps."""

    def __init__(self, state: Trial, taken: list):
        """Args: the state, and the metrics of the steps done."""
        super().__init__(f"paused after {len(taken)} steps")
        self.state, self.taken = state, taken


def run_looped(
    program: Program,
    state: Trial,
    feed: Feed,
    train: Int[np.ndarray, " n"],
    monitor: Int[np.ndarray, " m"],
    factor: jax.Array,
    taken: Sequence[dict[str, Any]] = (),
) -> tuple[Trial, dict[str, np.ndarray]]:
    """Runs one epoch, or the rest of one, step by step from the host.

    Args:
      program: see `Program`.
      state: state of the training run; donated.
      feed: source of batches.
      train, monitor: [n], [m] rows of the feed.
      factor: [] weight of the penalty.
      taken: metrics of the steps of this epoch that are already done.

    Returns:
      The state, and `CURVES`, [1, 1] each.

    Raises:
      Paused: a signal has asked this process to end.
    """
    labels = feed.labels(train) if program.draws == "classes" else None
    order = np.asarray(_order(program, state, len(train), labels))
    taken, steps = list(taken), steps_of(program, len(train))
    alone = jax.process_count() == 1  # several processes agree to stop only between epochs
    for x, y in feed.batches(train[order[len(taken) :]]):
        if alone and stops.asked():
            raise Paused(state, taken)
        state, metrics = step(program, state, x, y, factor, steps)
        taken.append(metrics)
    sums = _monitored(program, state, feed, monitor)
    state, metrics = _close(program, state, stack_host(taken), sums, len(monitor), factor)
    return state, {name: np.array([[metrics[name]]]) for name in CURVES}


def _monitored(program: Program, state: Trial, feed: Feed, monitor) -> dict[str, np.ndarray]:
    """Returns the sums over each batch of the monitored rows, see `_sums`."""
    lines, weights = fill_batches(monitor, program.batch_size)
    params, batch_stats = state.state.params, state.state.batch_stats
    return stack_host(
        [
            _measure(program, params, batch_stats, x, y, weight)
            for (x, y), weight in zip(feed.batches(lines), weights, strict=True)
        ]
    )


def steps_of(program: Program, rows: int) -> int:
    """Returns the number of steps of an epoch over `rows` training rows."""
    return -(-rows // program.batch_size)


def stack_host(items: Sequence[Any]) -> Any:
    """Stacks pytrees of one shape along a new axis 0, as NumPy arrays."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *items)


def scan_inputs(
    program: Program,
    feed: Resident,
    train: Int[np.ndarray, " n"],
    monitor: Int[np.ndarray, " m"],
) -> tuple:
    """Returns the inputs of one fold for `run_scanned`.

    They are x and y of the feed, positions [n] of the training rows in it, and positions and
    weights [batches, batch] of the monitored rows.
    """
    lines, weights = fill_batches(monitor, program.batch_size)
    return feed.x, feed.y, feed.places(train), feed.places(lines), weights


@functools.partial(
    onednn.jit, static_argnames=("program", "count", "folds"), donate_argnames="state"
)
def run_scanned(
    program: Program,
    state: Trial,
    inputs: tuple,
    factor: jax.Array,
    *,
    count: int,
    folds: bool,
) -> tuple[Trial, dict[str, jax.Array]]:
    """Runs epochs of one fold or of stacked folds as one program.

    Args:
      program: see `Program`; static.
      state: state of the training run; donated.
      inputs: see `scan_inputs`.
      factor: [] weight of the penalty.
      count: number of epochs; static.
      folds: whether state and inputs are stacked along axis 0; static.

    Returns:
      The state, and `CURVES`, [folds, count] or [count] each.
    """

    def fold(state, inputs):
        one = lambda state, _: _whole_epoch(program, state, inputs, factor)  # noqa: E731
        return jax.lax.scan(one, state, length=count)

    return jax.vmap(fold)(state, inputs) if folds else fold(state, inputs)


def predict(
    program: Program, feed: Feed, rows: np.ndarray, params: Any, batch_stats: Any
) -> Float[np.ndarray, "n classes"]:
    """Predicts the class probabilities of rows in inference mode, batch by batch."""
    lines, _ = fill_batches(rows, program.batch_size)
    found = [_predict(program, params, batch_stats, x) for x, _ in feed.batches(lines)]
    return np.concatenate([np.asarray(p) for p in found])[: len(rows)]


def fill_batches(rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and weights as full batches; padding rows in the last have weight 0."""
    count = -(-len(rows) // size)
    weights = np.zeros(count * size, np.float32)
    weights[: len(rows)] = 1
    return np.resize(rows, (count, size)), weights.reshape(count, size)


def _begin(program: Program, key, example) -> Trial:
    return trial.begin(key, program.model, program.tx, program.plateau, example)


def _one_step(program: Program, state: Trial, x, y, factor, per_epoch=1):
    one = steps.make_train_step(
        program.model,
        program.tx,
        lambda params: program.penalty(params, factor),
        program.warmup * per_epoch if program.warmup else None,
    )
    new, metrics = one(state.state, {"x": x, "y": y})
    return dataclasses.replace(state, state=new), metrics


def _logits(program: Program, params, batch_stats, x) -> jax.Array:
    logits = program.model.apply(steps.variables(params, batch_stats), x, train=False)
    return cast(jax.Array, logits)


def _sums(program: Program, params, batch_stats, x, y, weight):
    """Returns the weighted sums of cross-entropy and correct predictions over a batch.

    If the best epoch is chosen by "nll", also cross-entropy and weights by class.
    """
    logits = _logits(program, params, batch_stats, x)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    found = {"loss": (weight * nll).sum(), "accuracy": (weight * (logits.argmax(-1) == y)).sum()}
    if program.best_by == "nll":
        classes = weight[:, None] * jax.nn.one_hot(y, logits.shape[-1])
        found |= {"class_nll": nll @ classes, "class_count": classes.sum(0)}
    return found


def _found(program: Program, state: Trial, sums, count, factor):
    """Returns the scores of the monitored rows, see `trial.choose`."""
    sums = jax.tree.map(lambda s: s.sum(0), sums)
    found = {name: sums[name] / count for name in ("loss", "accuracy")}
    found["loss"] += program.penalty(state.state.params, factor)
    if program.best_by == "nll":
        there = sums["class_count"] > 0
        each = sums["class_nll"] / jnp.where(there, sums["class_count"], 1)
        found["nll"] = each.sum() / there.sum()
    return found


def _started(program: Program, state: Trial, sums, count, factor):
    found = _found(program, state, sums, count, factor)
    return dataclasses.replace(state, best=trial.choose(state, found, program.best_by))


def _closed(program: Program, state: Trial, taken, sums, count, factor):
    train = jax.tree.map(lambda m: m.mean(0), taken)
    found = _found(program, state, sums, count, factor)
    return trial.close_epoch(state, found, train, program.plateau, program.best_by)


def _drawn(program: Program, state: Trial, n: int, labels):
    """Returns positions [steps, batch] in n training rows of these classes for one epoch."""
    if program.draws == "classes":
        return trial.drawn(state, labels, program.batch_size)
    return trial.shuffled(state, n, program.batch_size)


def _whole_epoch(program: Program, state: Trial, inputs, factor):
    x, y, train, monitor, weights = inputs

    def one(state, rows):
        own_x, own_y = take(x, y, rows, mesh=program.mesh)
        return _one_step(program, state, own_x, own_y, factor, steps_of(program, len(train)))

    def measure(_, line):
        rows, weight = line
        now, (own_x, own_y) = state.state, take(x, y, rows, mesh=program.mesh)
        return None, _sums(program, now.params, now.batch_stats, own_x, own_y, weight)

    order = train[_drawn(program, state, len(train), y[train])]
    state, taken = jax.lax.scan(one, state, order)
    _, sums = jax.lax.scan(measure, None, (monitor, weights))
    return _closed(program, state, taken, sums, weights.sum(), factor)


step = onednn.jit(_one_step, static_argnums=0, donate_argnums=1)
_measure = onednn.jit(_sums, static_argnums=0)
_close = jax.jit(_closed, static_argnums=0, donate_argnums=1)
_rate_start = jax.jit(_started, static_argnums=0, donate_argnums=1)
_order = jax.jit(_drawn, static_argnums=(0, 2))


@functools.partial(onednn.jit, static_argnums=0)
def _predict(program: Program, params, batch_stats, x):
    out = jax.nn.softmax(_logits(program, params, batch_stats, x))
    return jax.lax.with_sharding_constraint(out, NamedSharding(program.mesh, P()))
