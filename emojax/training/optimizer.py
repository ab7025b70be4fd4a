"""Adam in the forms of Keras and optax, which differ in where epsilon is added."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import optax


def adam(
    learning_rate: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-7,
    form: Literal["keras", "optax"] = "keras",
) -> optax.GradientTransformation:
    """Returns Adam with epsilon added to the uncorrected ("keras") or corrected root ("optax").

    m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  c1 = 1 - b1^t;  c2 = 1 - b2^t
    keras: w <- w - rate sqrt(c2) / c1 m / (sqrt(v) + eps)
    optax: w <- w - rate (m / c1) / (sqrt(v / c2) + eps)

    In the first steps, eps weighs 1 / sqrt(c2) more in Keras' form (32 times at t = 1), which
    matters for gradients below about 1e-4. The bias corrections are exact in float32, where 1 -
    0.999 computed directly is off by 1e-5.

    Args:
      learning_rate: learning rate > 0; a plateau rule or schedule multiplies the updates.
      b1, b2: decay of the two moments, in [0, 1).
      eps: term added to the root, >= 0.
      form: "keras" or "optax".

    Returns:
      An optax transformation with the state of the first part of `optax.adam`.

    Raises:
      ValueError: an option outside its range.

    References:
      Kingma and Ba, Adam, 2015: algorithm 1 ("optax"), and the end of its section 2 ("keras").
    """
    for rule, got, holds in (
        ("0 < learning_rate < inf", learning_rate, 0 < learning_rate < math.inf),
        ("0 <= b1 < 1", b1, 0 <= b1 < 1),
        ("0 <= b2 < 1", b2, 0 <= b2 < 1),
        ("0 <= eps < inf", eps, 0 <= eps < math.inf),
        ("form 'keras' or 'optax'", repr(form), form in ("keras", "optax")),
    ):
        if not holds:
            raise ValueError(f"want {rule}; got {got}")

    def init(params):
        # Two sets of buffers, as a donated state may not contain a buffer twice.
        mu, nu = (optax.tree.zeros_like(params) for _ in range(2))
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), mu, nu)

    def update(updates, state, params=None):
        grads = updates
        del params
        count = optax.safe_increment(state.count)
        root = jnp.sqrt(_one_minus_power(b2, count))
        step = -learning_rate * root / _one_minus_power(b1, count)
        floor = eps if form == "keras" else eps * root
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g, grads, state.mu)
        nu = jax.tree.map(lambda g, v: b2 * v + (1 - b2) * g * g, grads, state.nu)
        updates = jax.tree.map(
            lambda m, v: (step * m / (jnp.sqrt(v) + floor)).astype(m.dtype), mu, nu
        )
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _one_minus_power(b, count):
    """Returns 1 - b^count to full precision."""
    return -jnp.expm1(count * math.log(b)) if b else jnp.ones(())
