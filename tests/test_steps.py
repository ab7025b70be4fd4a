"""One training step: noise by the step's number, penalties in both losses, donated states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny

from emojax.models.cnn1d import CNN1D, penalty
from emojax.training import make_eval_step, make_train_step, steps

pytestmark = pytest.mark.usefixtures("quick_compile")
MODEL = CNN1D(2, filters=(4, 3), window=3, dense=(8,), dropout=(0.1, 0.2))
TX, RULE = tiny.program().tx, tiny.program().plateau


@pytest.fixture(scope="module")
def batch():
    x, y = tiny.data("vectors")
    return {"x": jnp.asarray(x), "y": jnp.asarray(y, jnp.int32)}


@pytest.fixture
def state(batch):
    return steps.init_state(jax.random.key(0), MODEL, TX, RULE, batch["x"])


def test_noise_depends_on_the_step_and_evaluation_has_none(state, batch):
    step = jax.jit(make_train_step(MODEL, TX))
    losses = [step(state.replace(step=jnp.int32(s)), batch)[1]["loss"] for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    evaluate = jax.jit(make_eval_step(MODEL))
    a, b = (evaluate(state.replace(step=jnp.int32(s)), batch) for s in (0, 1))
    np.testing.assert_array_equal(a["logits"], b["logits"])
    assert a["logits"].shape == (64, 2)


def test_a_rising_rate(state, batch):
    """The first of four steps is a quarter as long, and the fifth has full length."""
    whole, rising = (jax.jit(make_train_step(MODEL, TX, None, n)) for n in (None, 4))
    for number, share in ((0, 0.25), (2, 0.75), (3, 1), (4, 1), (9, 1)):
        now = state.replace(step=jnp.int32(number))
        moved = [
            jax.tree.map(lambda a, b: a - b, step(now, batch)[0].params, state.params)
            for step in (rising, whole)
        ]
        close = lambda a, b, s=share: np.testing.assert_allclose(a, s * b, rtol=1e-2, atol=1e-6)  # noqa: E731
        jax.tree.map(close, *moved)


def test_penalty_is_part_of_both_losses(state, batch):
    term = lambda params: penalty(params, "l2", 0.5)  # noqa: E731
    for make in (
        lambda p: jax.jit(make_train_step(MODEL, TX, p))(state, batch)[1],
        lambda p: jax.jit(make_eval_step(MODEL, p))(state, batch),
    ):
        difference = make(term)["loss"] - make(None)["loss"]
        assert float(difference) == pytest.approx(float(term(state.params)), rel=1e-5)


def test_a_fresh_state_can_be_donated(state, batch):
    state, _ = jax.jit(make_train_step(MODEL, TX), donate_argnums=0)(state, batch)
    assert int(state.step) == 1
