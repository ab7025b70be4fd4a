"""Folds in a loop and as one program; batches, the chosen epoch, learning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emojax import plateau
from emojax.models.cnn1d import CNN1D, penalty
from emojax.training import crossval, optimizer, steps
from emojax.training.crossval import Task

MODEL = CNN1D(filters=(4, 3), window=3, dense=(8,), dropout=(0.1, 0.2))
RULE = plateau.reduce_on_plateau(0.5, 2, base_lr=0.01)


def make_task(seed, n=70):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = rng.normal(size=(n, 12)) + 2 * np.eye(3, 12)[y]
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32)
    return Task(x[:50], y[:50], x[50:], y[50:])


def make_program(batch_size=16):
    tx = optimizer.adam(0.01)
    return crossval.make_program(
        MODEL, tx, RULE, batch_size=batch_size, penalty=lambda p: penalty(p, "l2", 1e-4)
    )


COMPILED = crossval.compile_program(make_program(), "loop")


def run_loop(seed, epochs):
    compiled, task = COMPILED, make_task(seed)
    trial, rows = compiled.init(jax.random.key(seed), task), []
    for _ in range(epochs):
        trial, metrics = crossval.looped_epoch(compiled, trial, task)
        rows.append(metrics)
    return trial, crossval.stack(rows)


def plain(tree):
    """Keys as their data, so that trees can be compared."""
    is_key = lambda a: jnp.issubdtype(a.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda a: jax.random.key_data(a) if is_key(a) else a, tree)


def test_stacked_folds_equal_the_loop():
    program = make_program()
    tasks = crossval.stack([make_task(s) for s in (0, 1)])
    keys = jnp.stack([jax.random.key(s) for s in (0, 1)])
    trials = crossval.compile_program(program, "scan").init(keys, tasks)
    trials, metrics = crossval.scanned_epochs(program, trials, tasks, epochs=5)
    for s in (0, 1):
        want_trial, want = run_loop(s, 5)
        for name in want:
            np.testing.assert_allclose(metrics[name][s], want[name], rtol=2e-3, atol=1e-4)
        for a, b in zip(
            jax.tree.leaves(plain(trials)), jax.tree.leaves(plain(want_trial)), strict=True
        ):
            np.testing.assert_allclose(a[s], b, rtol=2e-2, atol=1e-3)


def test_a_run_repeats_to_the_last_bit():
    (a, _), (b, _) = run_loop(3, 4), run_loop(3, 4)
    jax.tree.map(np.testing.assert_array_equal, plain(a), plain(b))


def test_an_epoch_visits_every_row_and_orders_differ():
    program, task = make_program(), make_task(0)
    trial = program.init(jax.random.key(0), task)
    first = np.asarray(program.order(trial, task))
    assert first.shape == (4, 16)  # 50 rows, and 14 again
    assert set(first.ravel()) == set(range(50))
    later = np.asarray(program.order(trial.replace(epoch=trial.epoch + 1), task))
    assert (first != later).any()
    assert program.order(trial, make_task(0)._replace(y=task.y[:5])).shape == (1, 5)


def test_best_epoch_is_the_highest_accuracy_then_the_lowest_loss():
    trial, metrics = run_loop(1, 12)
    accuracy, loss = np.asarray(metrics["accuracy"]), np.asarray(metrics["loss"])
    best = np.lexsort((np.arange(12), loss, -accuracy))[0]
    assert int(trial.best.epoch) == best + 1
    assert float(trial.best.accuracy) == accuracy[best]
    logits = make_program().predict(
        trial.best.params, trial.best.batch_stats, make_task(1).monitor_x
    )
    hits = (logits.argmax(-1) == make_task(1).monitor_y).mean()
    assert float(hits) == pytest.approx(accuracy[best])


def test_learns_and_lowers_its_rate():
    _, metrics = run_loop(0, 25)
    assert metrics["train_loss"][-1] < 0.5 * metrics["train_loss"][0]
    assert metrics["accuracy"].max() > 0.7
    assert metrics["rate"][-1] < metrics["rate"][0] == np.float32(0.01)


def test_noise_depends_on_the_step_and_evaluation_has_none():
    task = make_task(0)
    tx = optimizer.adam(0.01)
    state = steps.init_state(jax.random.key(0), MODEL, tx, RULE, task.x)
    batch = {"x": task.x, "y": task.y}
    step = jax.jit(steps.make_train_step(MODEL, tx))
    losses = [step(state.replace(step=jnp.int32(s)), batch)[1]["loss"] for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    evaluate = jax.jit(steps.make_eval_step(MODEL))
    a, b = (evaluate(state.replace(step=jnp.int32(s)), batch) for s in (0, 1))
    np.testing.assert_array_equal(a["logits"], b["logits"])
    assert a["logits"].shape == (50, 3)


def test_penalty_is_part_of_both_losses():
    task, tx = make_task(0), optimizer.adam(0.01)
    batch = {"x": task.x, "y": task.y}
    state = steps.init_state(jax.random.key(0), MODEL, tx, RULE, task.x)
    term = lambda p: penalty(p, "l2", 0.5)  # noqa: E731
    for make in (
        lambda p: steps.make_train_step(MODEL, tx, p)(state, batch)[1],
        lambda p: steps.make_eval_step(MODEL, p)(state, batch),
    ):
        difference = make(term)["loss"] - make(None)["loss"]
        assert float(difference) == pytest.approx(float(term(state.params)), rel=1e-5)


def test_a_fresh_state_can_be_donated():
    task, tx = make_task(0), optimizer.adam(0.01)
    state = steps.init_state(jax.random.key(0), MODEL, tx, RULE, task.x)
    step = jax.jit(steps.make_train_step(MODEL, tx), donate_argnums=0)
    state, _ = step(state, {"x": task.x, "y": task.y})
    assert int(state.step) == 1
