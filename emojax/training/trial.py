"""The state of one fold's training, and the pure functions that begin and end its epochs."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Float, Int, Key

from emojax.training import steps
from emojax.training.steps import TrainState

CURVES = ("train_loss", "train_accuracy", "loss", "accuracy", "rate")  # of every epoch
By = Literal["accuracy", "nll"]  # of the monitored volumes, what chooses the epoch
SHARE = 2**22  # of a class among the weights of draws; sums stay in int32 up to 511 classes


@struct.dataclass
class Best:
    """The epoch that scores best on the monitored volumes.

    By "accuracy" it has the highest, and ties go to the lower loss; by "nll" it has the least
    class-balanced cross-entropy, without the penalty.
    """

    epoch: Int[jax.Array, ""]  # from 1; 0 before the first
    accuracy: Float[jax.Array, ""]
    loss: Float[jax.Array, ""]  # or the class-balanced cross-entropy
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


def drawn(
    trial: Trial, labels: Int[jax.Array, " n"], batch_size: int
) -> Int[jax.Array, "steps batch"]:
    """Draws an epoch of places in n rows, with every class equally likely, in integers."""
    n = labels.shape[0]
    ordered = jnp.sort(labels)
    before, after = (jnp.searchsorted(ordered, labels, side=side) for side in ("left", "right"))
    ends = jnp.cumsum(SHARE // (after - before))
    key = jax.random.fold_in(trial.key, trial.epoch)
    shape = -(-n // batch_size), min(batch_size, n)
    return jnp.searchsorted(ends, jax.random.randint(key, shape, 0, ends[-1]), side="right")


def choose(trial: Trial, found, by: By = "accuracy") -> Best:
    """Returns the parameters of now if they are better than the best so far, else those.

    Args:
      trial: the trial; its number of epochs is that of the parameters.
      found: "loss" and "accuracy" of the monitored volumes, [] each; by "nll" that, too.
      by: static.
    """
    old, accuracy, loss = trial.best, found["accuracy"], found["nll" if by == "nll" else "loss"]
    better = loss < old.loss
    if by == "accuracy":
        better = (accuracy > old.accuracy) | ((accuracy == old.accuracy) & better)
    state = trial.state
    new = Best(trial.epoch, accuracy, loss, state.params, state.batch_stats)
    return jax.tree.map(lambda a, b: jnp.where(better, a, b).astype(b.dtype), new, old)


def close_epoch(
    trial: Trial, found, train, plateau, by: By = "accuracy"
) -> tuple[Trial, dict[str, jax.Array]]:
    """Shows the epoch's scores to the plateau rule, and keeps the parameters if they are the best.

    Args:
      trial: the trial after the epoch's steps.
      found: scores of the monitored volumes, see `choose`.
      train: "loss" and "accuracy" of the training batches.
      plateau: the rule of `emojax.plateau`.
      by: what chooses the epoch; static.

    Returns:
      The trial, and the epoch's metrics by the names of `CURVES`.
    """
    state = steps.end_epoch(trial.state, found["loss"], plateau)
    trial = trial.replace(state=state, epoch=trial.epoch + 1)
    metrics = {
        "train_loss": train["loss"],
        "train_accuracy": train["accuracy"],
        "loss": found["loss"],
        "accuracy": found["accuracy"],
        "rate": state.plateau.rate,
    }
    return trial.replace(best=choose(trial, found, by)), metrics
