"""The state of one fold's training, and the pure functions that begin and end its epochs."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import Float, Int, Key

from emojax.training import steps
from emojax.training.steps import TrainState

CURVES = ("train_loss", "train_accuracy", "loss", "accuracy", "rate")  # metrics of every epoch
By = Literal["accuracy", "nll"]  # score of the monitored volumes that chooses the epoch
SHARE = 2**22  # weight of a class in draws; sums stay in int32 up to 511 classes


@struct.dataclass
class Best:
    """The epoch that scores best on the monitored volumes.

    By "accuracy", it has the highest accuracy, and ties go to the lower loss. By "nll", it has the
    lowest class-balanced cross-entropy, without the penalty.
    """

    epoch: Int[jax.Array, ""]  # from 1; 0 before the first
    accuracy: Float[jax.Array, ""]
    loss: Float[jax.Array, ""]  # or the class-balanced cross-entropy
    params: Any
    batch_stats: Any


@struct.dataclass
class Trial:
    """The state that one fold carries from epoch to epoch. Stacked along axis 0, several folds."""

    state: TrainState
    best: Best
    epoch: Int[jax.Array, ""]  # epochs done
    key: Key[jax.Array, ""]  # folded with `epoch` for the order of the volumes


def begin(
    key: Key[jax.Array, ""],
    model: nn.Module,
    tx: optax.GradientTransformation,
    plateau: optax.GradientTransformationExtraArgs,
    example: Float[jax.Array, "batch ..."],
) -> Trial:
    """Returns the state before the first epoch; arguments as for `steps.init_state`."""
    state = steps.init_state(jax.random.fold_in(key, 0), model, tx, plateau, example)
    # Separate buffers, since all are donated.
    epoch, best_epoch = (jnp.zeros((), jnp.int32) for _ in range(2))
    copy = jax.tree.map(jnp.copy, (state.params, state.batch_stats))
    # The dtypes of later epochs: weak types would compile every step twice.
    none = (jnp.full((), value, jnp.result_type(float)) for value in (-1.0, jnp.inf))
    best = Best(best_epoch, *none, *copy)
    return Trial(state, best, epoch, jax.random.fold_in(key, 1))


def shuffled(trial: Trial, n: int, batch_size: int) -> Int[jax.Array, "steps batch"]:
    """Draws the order of this epoch's n rows; the first rows fill up the last batch."""
    size = min(batch_size, n)
    rows = jax.random.permutation(jax.random.fold_in(trial.key, trial.epoch), n)
    return jnp.resize(rows, (-(-n // size), size))


def drawn(
    trial: Trial, labels: Int[jax.Array, " n"], batch_size: int
) -> Int[jax.Array, "steps batch"]:
    """Draws positions in n rows for one epoch, with every class equally likely.

    The draw uses integers only, so that it is exact.

    Args:
      trial: the trial.
      labels: [n] class of each row.
      batch_size: number of rows in a batch.
    """
    n = labels.shape[0]
    ordered = jnp.sort(labels)
    before, after = (jnp.searchsorted(ordered, labels, side=side) for side in ("left", "right"))
    ends = jnp.cumsum(SHARE // (after - before))
    key = jax.random.fold_in(trial.key, trial.epoch)
    shape = -(-n // batch_size), min(batch_size, n)
    return jnp.searchsorted(ends, jax.random.randint(key, shape, 0, ends[-1]), side="right")


def choose(trial: Trial, found: Mapping[str, jax.Array], by: By = "accuracy") -> Best:
    """Returns the current parameters if they are better than the best so far, else the latter.

    Args:
      trial: the trial; its number of epochs is that of the parameters.
      found: "loss" and "accuracy" of the monitored volumes, [] each; also "nll" with by="nll".
      by: score that chooses the epoch; static.
    """
    old, accuracy, loss = trial.best, found["accuracy"], found["nll" if by == "nll" else "loss"]
    better = loss < old.loss
    if by == "accuracy":
        better = (accuracy > old.accuracy) | ((accuracy == old.accuracy) & better)
    state = trial.state
    new = Best(trial.epoch, accuracy, loss, state.params, state.batch_stats)
    return jax.tree.map(lambda a, b: jnp.where(better, a, b).astype(b.dtype), new, old)


def close_epoch(
    trial: Trial,
    found: Mapping[str, jax.Array],
    train: Mapping[str, jax.Array],
    plateau: optax.GradientTransformationExtraArgs,
    by: By = "accuracy",
) -> tuple[Trial, dict[str, jax.Array]]:
    """Updates the plateau rule with the epoch's scores, and keeps the parameters if best.

    Args:
      trial: the trial after the epoch's steps.
      found: scores of the monitored volumes, see `choose`.
      train: "loss" and "accuracy" of the training batches.
      plateau: the rule of `emojax.plateau`.
      by: score that chooses the epoch; static.

    Returns:
      The trial, and the epoch's metrics by the names of `CURVES`.
    """
    state = steps.end_epoch(trial.state, found["loss"], plateau)
    trial = dataclasses.replace(trial, state=state, epoch=trial.epoch + 1)
    metrics = {
        "train_loss": train["loss"],
        "train_accuracy": train["accuracy"],
        "loss": found["loss"],
        "accuracy": found["accuracy"],
        "rate": state.plateau.rate,
    }
    return dataclasses.replace(trial, best=choose(trial, found, by)), metrics
