"""Keras' ReduceLROnPlateau: a lower learning rate once the loss stops falling."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Float32, Int32

from emojax import rules
from emojax.rules import number, whole

RULES = {
    "factor": number("(0, 1)"),
    "patience": whole("[0, 2147483647]"),  # epochs are counted in int32
    "min_delta": number("[0, inf)"),
    "cooldown": whole("[0, 2147483647]"),
    "min_lr": number("[0, 1e30]"),
    "base_lr": number("(0, 1e30]"),
}
_MAX_REDUCTIONS = 100_000


class PlateauState(NamedTuple):
    """The state of the rule from epoch to epoch."""

    scale: Float32[jax.Array, "*stack"]  # rate / base_lr, to multiply updates with
    rate: Float32[jax.Array, "*stack"]  # the learning rate that Keras would use now
    best: Float[jax.Array, "*stack"]  # lowest value so far, from inf
    wait: Int32[jax.Array, "*stack"]  # epochs without a new best
    cooldown: Int32[jax.Array, "*stack"]  # epochs for which `wait` is held at 0
    reductions: Int32[jax.Array, "*stack"]  # times that the rate was lowered


def reduce_on_plateau(
    factor: float = 0.1,
    patience: int = 10,
    min_delta: float = 1e-4,
    cooldown: int = 0,
    min_lr: float = 0.0,
    base_lr: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by a scale that drops by `factor` after `patience` epochs without a best.

    Call `update(updates, state, value=loss)` once per epoch. Pass `{}` as updates if you only need
    the new state, and multiply the optimiser's steps, made with rate `base_lr`, by its `.scale`.
    `optax.contrib.reduce_on_plateau` counts cooldown differently, has no patience 0 and rounds
    differently; this function follows Keras to the last digit of the rate. Values are compared in
    the default float dtype, so differences of exactly `min_delta` may count differently in float32.

    Args:
      factor: factor of each reduction, in (0, 1).
      patience: epochs >= 0; 0 and 1 both lower the rate after each epoch without a new best.
      min_delta: a value is a new best if value < best - min_delta. NaN never is. To maximise a
        metric, pass its negative.
      cooldown: number of epochs >= 0 after a reduction that do not count as waiting.
      min_lr: lower limit of the rate, >= 0.
      base_lr: initial rate, at which `scale` is 1. With base_lr = 1, rates and scales are equal.

    Returns:
      An optax transformation; its `update` requires `value`, [] float.

    Raises:
      ValueError: an option outside its range, or a factor so close to 1 that the rate would need
        more than 100 000 reductions to reach its minimum.

    References:
      keras.callbacks.ReduceLROnPlateau, Keras 2.3.1 and tf.keras 1.15, mode "min".
    """
    values = (factor, patience, min_delta, cooldown, min_lr, base_lr)
    rules.check(RULES, dict(zip(RULES, values, strict=True)))
    rates = _rate_table(factor, min_lr, base_lr)
    scales = (rates / float(rates[0])).astype(np.float32)
    above = rates > min_lr
    rates = rates.astype(np.float32)

    def init(params: Any) -> PlateauState:
        del params
        wait, cooldown, reductions = (jnp.zeros((), jnp.int32) for _ in range(3))  # own buffers
        return PlateauState(
            scale=jnp.asarray(scales[0]),
            rate=jnp.asarray(rates[0]),
            best=jnp.asarray(jnp.inf, jnp.result_type(float)),
            wait=wait,
            cooldown=cooldown,
            reductions=reductions,
        )

    def update(updates, state, params=None, *, value, **extra):
        del params, extra
        if jnp.shape(value) != ():
            raise ValueError(f"want one value per epoch; got shape {jnp.shape(value)}")
        value = jnp.asarray(value, state.best.dtype)
        resting = jnp.maximum(state.cooldown - 1, 0)
        wait = jnp.where(state.cooldown > 0, 0, state.wait)
        improved = value < state.best - min_delta
        wait = jnp.where(improved, 0, jnp.where(resting > 0, wait, wait + 1))
        due = ~improved & (resting == 0) & (wait >= patience)
        lower = due & jnp.asarray(above)[state.reductions]
        reductions = jnp.minimum(state.reductions + lower, len(rates) - 1)
        state = PlateauState(
            scale=jnp.asarray(scales)[reductions],
            rate=jnp.asarray(rates)[reductions],
            best=jnp.where(improved, value, state.best),
            wait=jnp.where(lower, 0, wait),
            cooldown=jnp.where(lower, cooldown, resting),
            reductions=reductions,
        )
        return optax.tree.scale(state.scale, updates), state

    return optax.GradientTransformationExtraArgs(
        init,
        update,  # pyright: ignore[reportArgumentType]  # the protocol lacks required keywords
    )


def _rate_table(factor, min_lr, base_lr):
    """Returns [1 + reductions] the rate after each number of reductions; the last one stays.

    Keras keeps the rate in float32, multiplies in float64 and rounds again; float32 alone would be
    off in the last digit. The rates depend only on the number of reductions, so they are computed
    once, here.
    """
    rates = [float(np.float32(base_lr))]
    while rates[-1] > min_lr:
        lowered = float(np.float32(max(rates[-1] * factor, min_lr)))
        if lowered == rates[-1]:  # rounding holds it above min_lr
            break
        rates.append(lowered)
        if len(rates) > _MAX_REDUCTIONS:
            raise ValueError(
                f"want a factor that leads from {base_lr} to {min_lr} in {_MAX_REDUCTIONS} "
                f"reductions; got {factor}"
            )
    return np.array(rates)
