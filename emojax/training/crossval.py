"""Training of many folds; the only file that knows a fold axis.

A fold's epochs are either a host loop of the jitted step (CPU: XLA runs the bodies of its loops
without its threads), or one program with the epochs scanned and the folds side by side (GPU). Both
draw the same batches and noise. Measured figures: `benchmarks/results/folds_*.json`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import Float, Int, Key

from emojax.training import steps
from emojax.training.steps import Penalty, TrainState

Strategy = Literal["loop", "scan"]
CURVES = ("train_loss", "train_accuracy", "loss", "accuracy", "rate")  # of every epoch


class Task(NamedTuple):
    """What one fold learns from, and the volumes whose scores choose its epoch and its rate."""

    x: Float[jax.Array, "n *volume"]
    y: Int[jax.Array, " n"]
    monitor_x: Float[jax.Array, "m *volume"]
    monitor_y: Int[jax.Array, " m"]


@struct.dataclass
class Best:
    """The epoch with the highest accuracy on the monitored volumes; ties go to the lower loss."""

    epoch: Int[jax.Array, ""]  # from 1; 0 before the first
    accuracy: Float[jax.Array, ""]
    loss: Float[jax.Array, ""]
    params: Any
    batch_stats: Any


@struct.dataclass
class Trial:
    """All that one fold carries from epoch to epoch."""

    state: TrainState
    best: Best
    epoch: Int[jax.Array, ""]  # epochs done
    key: Key[jax.Array, ""]  # folded with `epoch` for the order of the volumes


class Program(NamedTuple):
    """The pure functions of one training, for one fold."""

    init: Callable[[jax.Array, Task], Trial]
    order: Callable[[Trial, Task], jax.Array]  # -> [steps, batch] rows of this epoch
    step: Callable  # (trial, task, rows [batch]) -> (trial, metrics)
    finish: Callable  # (trial, task, train loss, train accuracy) -> (trial, metrics of the epoch)
    predict: Callable  # (params, batch_stats, x) -> logits


def begin(key: Key[jax.Array, ""], model, tx, plateau, example) -> Trial:
    """A training before its first epoch; arguments as of `steps.init_state`."""
    state = steps.init_state(jax.random.fold_in(key, 0), model, tx, plateau, example)
    zero = jnp.zeros((), jnp.int32)
    # Buffers of their own: the state's are donated.
    copy = jax.tree.map(jnp.copy, (state.params, state.batch_stats))
    # Dtypes that later epochs have, too: weak ones would compile every step twice.
    none = (jnp.full((), value, jnp.result_type(float)) for value in (-1.0, jnp.inf))
    best = Best(zero, *none, *copy)
    return Trial(state, best, zero, jax.random.fold_in(key, 1))


def shuffled(trial: Trial, n: int, batch_size: int) -> Int[jax.Array, "steps batch"]:
    """The rows of this epoch in random order; the last batch is filled up from the first rows."""
    size = min(batch_size, n)
    rows = jax.random.permutation(jax.random.fold_in(trial.key, trial.epoch), n)
    return jnp.resize(rows, (-(-n // size), size))


def close_epoch(trial: Trial, found, train, plateau) -> tuple[Trial, dict[str, jax.Array]]:
    """Shows the epoch's scores to the plateau rule, and keeps the parameters if they are the best.

    Args:
      trial: after the epoch's steps.
      found: "loss" and "accuracy" of the monitored volumes, [] each.
      train: the same of the training batches.
      plateau: the rule.

    Returns:
      The trial, and the epoch's metrics by the names of `CURVES`.
    """
    state = steps.end_epoch(trial.state, found["loss"], plateau)
    epoch, old = trial.epoch + 1, trial.best
    accuracy, loss = found["accuracy"], found["loss"]
    better = (accuracy > old.accuracy) | ((accuracy == old.accuracy) & (loss < old.loss))
    new = Best(epoch, accuracy, loss, state.params, state.batch_stats)
    best = jax.tree.map(lambda a, b: jnp.where(better, a, b).astype(b.dtype), new, old)
    metrics = {
        "train_loss": train["loss"],
        "train_accuracy": train["accuracy"],
        "loss": loss,
        "accuracy": accuracy,
        "rate": state.plateau.rate,
    }
    return trial.replace(state=state, best=best, epoch=epoch), metrics


def make_program(
    model: nn.Module,
    tx: optax.GradientTransformation,
    plateau: optax.GradientTransformationExtraArgs,
    *,
    batch_size: int,
    penalty: Penalty | None = None,
) -> Program:
    """Binds what is static.

    An epoch visits every row once, in a random order; the last batch is filled up from the start
    of that order, so that all batches have one size. With fewer rows than a batch, a batch is all.
    """
    train_step = steps.make_train_step(model, tx, penalty)
    eval_step = steps.make_eval_step(model, penalty)

    def init(key, task):
        return begin(key, model, tx, plateau, task.x)

    def order(trial, task):
        return shuffled(trial, len(task.y), batch_size)

    def step(trial, task, rows):
        state, metrics = train_step(trial.state, {"x": task.x[rows], "y": task.y[rows]})
        return trial.replace(state=state), metrics

    def finish(trial, task, train):
        found = eval_step(trial.state, {"x": task.monitor_x, "y": task.monitor_y})
        return close_epoch(trial, found, train, plateau)

    def predict(params, batch_stats, x):
        return model.apply(steps.variables(params, batch_stats), x, train=False)

    return Program(init, order, step, finish, predict)


def default_strategy() -> Strategy:
    """A host loop on CPUs, one program on accelerators."""
    return "loop" if jax.default_backend() == "cpu" else "scan"


@cache
def compile_program(program: Program, strategy: Strategy) -> Program:
    """The same functions jitted: for one fold ("loop"), or for stacked folds ("scan").

    Trials are donated to `step` and `finish`.
    """
    each = (lambda f: f) if strategy == "loop" else jax.vmap
    return Program(
        init=jax.jit(each(program.init)),
        order=jax.jit(each(program.order)),
        step=jax.jit(each(program.step), donate_argnums=0),
        finish=jax.jit(each(program.finish), donate_argnums=0),
        predict=jax.jit(each(program.predict)),
    )


def looped_epoch(compiled: Program, trial: Trial, task: Task) -> tuple[Trial, dict[str, jax.Array]]:
    """One epoch of one fold, step after step from the host; `trial` is donated."""
    done = []
    for rows in compiled.order(trial, task):
        trial, metrics = compiled.step(trial, task, rows)
        done.append(metrics)
    return compiled.finish(trial, task, _mean(jax.tree.map(lambda *m: jnp.stack(m), *done)))


@partial(jax.jit, static_argnames=("program", "epochs"), donate_argnames="trials")
def scanned_epochs(
    program: Program, trials: Trial, tasks: Task, *, epochs: int
) -> tuple[Trial, dict[str, jax.Array]]:
    """Epochs of stacked folds as one program.

    Args:
      program: not compiled; static.
      trials, tasks: stacked along axis 0; `trials` is donated.
      epochs: static.

    Returns:
      The trials, and metrics [folds, epochs].
    """

    def fold(trial, task):
        def epoch(trial, _):
            def step(trial, rows):
                return program.step(trial, task, rows)

            trial, metrics = jax.lax.scan(step, trial, program.order(trial, task))
            return program.finish(trial, task, _mean(metrics))

        return jax.lax.scan(epoch, trial, length=epochs)

    return jax.vmap(fold)(trials, tasks)


def _mean(metrics):
    return jax.tree.map(lambda m: m.mean(0), metrics)


def stack(items):
    """Pytrees of one shape, stacked along a new axis 0."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *items)


def fit(
    program: Program,
    keys: list[jax.Array],
    tasks: list[Task],
    tests: list[Float[jax.Array, "t *volume"]],
    *,
    epochs: int,
    every: int,
    strategy: Strategy,
    load: Callable = lambda like: None,
    save: Callable = lambda epoch, tree: None,
    tick: Callable[[int], None] = lambda epochs: None,
    keep: Callable[[int, Best], None] = lambda fold, best: None,
) -> dict[str, np.ndarray]:
    """Trains folds from the start, or from where a checkpoint left them, to the end.

    Args:
      program: not compiled.
      keys, tasks, tests: per fold; with "loop" a single fold.
      epochs: in all.
      every: epochs between calls of `save`, and per dispatch of "scan".
      strategy: see the module.
      load: (pytree of the right shapes) -> (epochs done, pytree) or None.
      save: called with epochs done and the pytree.
      tick: called with the number of fold epochs done since the last call.
      keep: called at the end with the number of each fold and its best epoch.

    Returns:
      Stacked over folds: "last", "best" [folds, t, classes] probabilities of `tests`, "epoch"
      [folds], and curves [folds, epochs].

    Raises:
      ValueError: several folds with "loop", or tests that cannot be stacked.
    """
    if strategy == "loop" and len(tasks) != 1:
        raise ValueError(f"want one fold at a time with 'loop'; got {len(tasks)}")
    compiled = compile_program(program, strategy)
    single = strategy == "loop"
    key, task, test = (x[0] if single else stack(x) for x in (keys, tasks, tests))
    trial = compiled.init(key, task)
    lead = () if single else (len(tasks),)
    curves = {name: jnp.full((*lead, epochs), jnp.nan) for name in CURVES}
    start = 0
    if (found := load({"trial": trial, "curves": curves})) is not None:
        start, (trial, curves) = found[0], (found[1]["trial"], found[1]["curves"])
        tick(start * len(tasks))
    for epoch in range(start, epochs, every):
        count = min(every, epochs - epoch)
        if single:
            done = []
            for _ in range(count):
                trial, metrics = looped_epoch(compiled, trial, task)
                done.append(metrics)
                tick(1)
            new = stack(done)
        else:
            trial, new = scanned_epochs(program, trial, task, epochs=count)
            jax.block_until_ready(new)
            tick(count * len(tasks))
        for name in CURVES:
            curves[name] = curves[name].at[..., epoch : epoch + count].set(new[name])
        if epoch + count < epochs:
            save(epoch + count, {"trial": trial, "curves": curves})
    state, best = trial.state, trial.best
    for i in range(len(tasks)):
        keep(i, best if single else jax.tree.map(lambda leaf, i=i: leaf[i], best))
    out = {
        "last": jax.nn.softmax(compiled.predict(state.params, state.batch_stats, test)),
        "best": jax.nn.softmax(compiled.predict(best.params, best.batch_stats, test)),
        "epoch": best.epoch,
        **curves,
    }
    return {name: np.asarray(x)[None] if single else np.asarray(x) for name, x in out.items()}
