"""adam() against optax, and against Keras' formula in NumPy; see test_cnn1d for recorded steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emojax.training.optimizer import adam

STEPS = 5


def gradients(dtype):
    """Returns [steps, 40]: from 1 down to 1e-10, where epsilon decides; the last is always zero."""
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(STEPS, 40)) * np.logspace(0, -10, 40)
    grads[:, -1] = 0
    return grads.astype(dtype)


def run(tx, grads):
    """Returns [steps, 40] updates."""

    def step(state, grad):
        updates, state = tx.update({"w": grad}, state)
        return state, updates["w"]

    return jax.jit(lambda g: jax.lax.scan(step, tx.init({"w": g[0]}), g)[1])(jnp.asarray(grads))


def keras_updates(grads, rate, b1, b2, eps):
    m, v, out = 0.0, 0.0, []
    for t, g in enumerate(grads.astype(np.float64), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        out.append(-rate * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps))
    return np.array(out)


def test_keras_form(dtype):
    grads = gradients(dtype)
    got = run(adam(1e-3, 0.8, 0.99, 1e-7), grads)
    assert got.dtype == dtype
    want = keras_updates(grads, 1e-3, 0.8, 0.99, 1e-7)
    np.testing.assert_allclose(got, want, rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_optax_form_in_double_precision(x64):
    grads = gradients(np.float64)
    got = run(adam(1e-3, eps=1e-8, form="optax"), grads)
    np.testing.assert_allclose(got, run(optax.adam(1e-3), grads), rtol=1e-11)


def test_bias_correction_keeps_its_digits_in_single_precision():
    tx = adam(1.0, b2=0.9999, eps=0.0)  # the first step is then exactly the sign of the gradient
    got = run(tx, np.float32([[3.0, -0.2]]))
    np.testing.assert_allclose(got[0], [-1, 1], rtol=3e-7)
    assert abs(run(optax.adam(1.0, b2=0.9999, eps=0.0), np.float32([[3.0]]))[0, 0] + 1) < 1e-3


def test_the_forms_differ_where_gradients_are_small():
    grads = np.array([[1e-6]])
    keras, usual = (run(adam(1.0, form=form), grads)[0, 0] for form in ("keras", "optax"))
    np.testing.assert_allclose(keras, -1 / (1 + 0.1 / np.sqrt(1e-3)), rtol=1e-5)
    np.testing.assert_allclose(usual, -1 / (1 + 0.1), rtol=1e-5)


def test_no_decay_is_the_sign_of_the_gradient():
    got = run(adam(0.5, b1=0.0, b2=0.0, eps=0.0), np.float32([[2.0, -3.0], [-1.0, 4.0]]))
    np.testing.assert_allclose(got, [[-0.5, 0.5], [0.5, -0.5]], rtol=1e-6)


def test_folds_under_vmap_equal_a_loop():
    tx = adam(1e-3)
    grads = np.stack([gradients(np.float32), -2 * gradients(np.float32)])
    got = jax.vmap(lambda g: run(tx, g))(grads)
    np.testing.assert_allclose(got, np.stack([run(tx, g) for g in grads]), rtol=1e-6)


def test_updates_keep_each_dtype():
    grads = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2)}
    tx = adam(1e-3)
    updates, state = tx.update(grads, tx.init(grads))
    for tree in (updates, state.mu, state.nu):
        assert jax.tree.map(lambda x: x.dtype, tree) == jax.tree.map(lambda x: x.dtype, grads)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learning_rate": 0.0}, "want 0 < learning_rate < inf; got 0.0"),
        ({"b1": 1.0}, "want 0 <= b1 < 1; got 1.0"),
        ({"b2": -0.1}, "want 0 <= b2 < 1; got -0.1"),
        ({"eps": -1e-8}, "want 0 <= eps < inf; got -1e-08"),
        ({"form": "torch"}, "want form 'keras' or 'optax'; got 'torch'"),
    ],
)
def test_says_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        adam(**{"learning_rate": 1e-3, **wrong})
