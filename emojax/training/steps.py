"""The training state and the pure functions that create and update it, written for one fold."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import Float, Int, Key

Batch = Mapping[str, jax.Array]  # "x": [batch, ...] float, "y": [batch] int
Penalty = Callable[[Any], jax.Array]  # parameters -> term of the loss []


@struct.dataclass
class TrainState:
    """Everything that training carries from step to step. Stacked along axis 0, a set of folds."""

    step: Int[jax.Array, ""]
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    plateau: Any  # PlateauState; its scale multiplies the updates, and changes once an epoch
    key: Key[jax.Array, ""]  # never split, but folded with `step` on use

    @property
    def variables(self) -> dict[str, Any]:
        """Variables for `model.apply`."""
        return variables(self.params, self.batch_stats)


def variables(params: Any, batch_stats: Any) -> dict[str, Any]:
    """Returns the collections of a network; batch statistics may be empty."""
    return {"params": params, "batch_stats": batch_stats}


def init_state(
    key: Key[jax.Array, ""],
    model: nn.Module,
    tx: optax.GradientTransformation,
    plateau: optax.GradientTransformationExtraArgs,
    example: Float[jax.Array, "batch ..."],
) -> TrainState:
    """Returns a new state.

    Args:
      key: [] typed key; its children initialise the parameters and draw the dropout.
      model: module that takes (x, train=).
      tx: the optimiser.
      plateau: the rule of `emojax.plateau`.
      example: any input of the right shape; its values do not matter.
    """
    key_params, key_noise = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
    made = model.init({"params": key_params}, example[:1], train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=made["params"],
        batch_stats=made.get("batch_stats", {}),
        opt_state=tx.init(made["params"]),
        plateau=plateau.init(jnp.zeros(())),
        key=key_noise,
    )


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    penalty: Penalty | None = None,
    warmup: Int[jax.Array, ""] | int | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Returns step(state, batch) -> (state, metrics). Donate `state` in jit.

    The loss is the mean softmax cross-entropy plus the penalty, as Keras reports it. Metrics are
    "loss" and "accuracy" of the batch, [] float, before the step and with dropout.

    Args:
      model: module that takes (x, train=).
      tx: the optimiser.
      penalty: penalty term of the loss.
      warmup: number of steps over which the rate rises linearly to its value; None: none.
    """

    def step(state: TrainState, batch: Batch):
        key_dropout = jax.random.fold_in(state.key, state.step)

        def loss_fn(params):
            logits, updated = model.apply(
                variables(params, state.batch_stats),
                batch["x"],
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key_dropout},
            )
            nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()
            extra = 0.0 if penalty is None else penalty(params)
            return nll + extra, (logits, updated.get("batch_stats", {}))

        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (logits, batch_stats)), grads = grad_fn(state.params)
        # After the barrier the old parameters are not used again, so the update needs no copy.
        grads, loss = jax.lax.optimization_barrier((grads, loss))
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        scale = state.plateau.scale
        if warmup is not None:
            scale *= jnp.minimum(1.0, (state.step + 1) / warmup)
        updates = optax.tree.scale(scale, updates)
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return new_state, {"loss": loss, "accuracy": (logits.argmax(-1) == batch["y"]).mean()}

    return step


def make_eval_step(
    model: nn.Module, penalty: Penalty | None = None
) -> Callable[[TrainState, Batch], dict[str, jax.Array]]:
    """Returns step(state, batch) -> metrics: "loss" with penalty, "accuracy", and "logits".

    Args:
      model: module that takes (x, train=).
      penalty: penalty term of the loss.
    """

    def step(state: TrainState, batch: Batch):
        logits = cast(jax.Array, model.apply(state.variables, batch["x"], train=False))
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()
        return {
            "loss": nll if penalty is None else nll + penalty(state.params),
            "accuracy": (logits.argmax(-1) == batch["y"]).mean(),
            "logits": logits,
        }

    return step


def end_epoch(
    state: TrainState,
    loss: Float[jax.Array, ""],
    plateau: optax.GradientTransformationExtraArgs,
) -> TrainState:
    """Updates the plateau rule with one loss of the monitored volumes; it may lower the rate."""
    return dataclasses.replace(state, plateau=plateau.update({}, state.plateau, value=loss)[1])
