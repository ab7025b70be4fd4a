"""The state of one fold's training, and the pure functions that begin and end its epochs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Float, Int, Key

from emojax.training import steps
from emojax.training.steps import TrainState

CURVES = ("train_loss", "train_accuracy", "loss", "accuracy", "rate")  # of every epoch


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
    """The state that one fold carries from epoch to epoch; stacked along axis 0, several folds."""

    state: TrainState
    best: Best
    epoch: Int[jax.Array, ""]  # epochs done
    key: Key[jax.Array, ""]  # folded with `epoch` for the order of the volumes


def begin(key: Key[jax.Array, ""], model, tx, plateau, example) -> Trial:
    """Returns a training before its first epoch; arguments as for `steps.init_state`."""
    state = steps.init_state(jax.random.fold_in(key, 0), model, tx, plateau, example)
    # Buffers of their own, since all are donated.
    epoch, best_epoch = (jnp.zeros((), jnp.int32) for _ in range(2))
    copy = jax.tree.map(jnp.copy, (state.params, state.batch_stats))
    # Dtypes that later epochs have, too: weak ones would compile every step twice.
    none = (jnp.full((), value, jnp.result_type(float)) for value in (-1.0, jnp.inf))
    best = Best(best_epoch, *none, *copy)
    return Trial(state, best, epoch, jax.random.fold_in(key, 1))


def shuffled(trial: Trial, n: int, batch_size: int) -> Int[jax.Array, "steps batch"]:
    """Draws the order of this epoch's n rows; the last batch is filled up from the first rows."""
    size = min(batch_size, n)
    rows = jax.random.permutation(jax.random.fold_in(trial.key, trial.epoch), n)
    return jnp.resize(rows, (-(-n // size), size))


def close_epoch(trial: Trial, found, train, plateau) -> tuple[Trial, dict[str, jax.Array]]:
    """Shows the epoch's scores to the plateau rule, and keeps the parameters if they are the best.

    Args:
      trial: the trial after the epoch's steps.
      found: "loss" and "accuracy" of the monitored volumes, [] each.
      train: the same of the training batches.
      plateau: the rule of `emojax.plateau`.

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
