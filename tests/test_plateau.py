"""reduce_on_plateau() against recorded epochs of Keras, and as a part of an optax chain."""

import json

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import shared_path

from emojax.plateau import reduce_on_plateau

GOLDEN = "golden/keras/reduce_lr_on_plateau.json"
FIELDS = {"rate": "lr_after", "wait": "wait", "cooldown": "cooldown_counter", "best": "best"}


def run(plateau, *histories):
    """Returns states after each epoch of each history; a None skips the epoch, as in Keras."""

    def epoch(state, value):
        shown = plateau.update({}, state, value=value[0])[1]
        state = jax.tree.map(lambda new, old: jnp.where(value[1], new, old), shown, state)
        return state, state

    def scan(values, seen):
        return jax.lax.scan(epoch, plateau.init({}), (values, seen))[1]

    longest = max(map(len, histories))
    padded = [[*values, *[None] * (longest - len(values))] for values in histories]
    seen = np.array([[value is not None for value in values] for values in padded])
    numbers = np.array([[value or 0.0 for value in values] for values in padded])
    states = jax.jit(jax.vmap(scan))(numbers, seen)
    return [
        jax.tree.map(lambda x, i=i, values=values: np.asarray(x)[i, : len(values)], states)
        for i, values in enumerate(histories)
    ]


def options(config):
    return {"base_lr" if name == "lr0" else name: value for name, value in config.items()}


def recorded(path):
    runs = json.loads(path.read_text())["runs"]
    return [r for r in runs if "val_loss" in r], [r for r in runs if "val_loss" not in r]


def replayed(runs):
    """Yields pairs of a recorded run and ours; runs of the same options are compiled once."""
    for config in {json.dumps(r["config"]) for r in runs}:
        same = [r for r in runs if json.dumps(r["config"]) == config]
        plateau = reduce_on_plateau(**options(json.loads(config)))
        yield from zip(same, run(plateau, *(r["val_loss"] for r in same)), strict=True)


@pytest.fixture(params=["own", "shared"])
def runs(request):
    """Returns runs of Keras' callback: those of tests/data, and those beside the checkout."""
    if request.param == "own":
        found = goldens.index(goldens.load("plateau"))
    else:
        found, _ = recorded(shared_path(GOLDEN))
    assert len(found) == {"own": 57, "shared": 70}[request.param]
    return found


def test_every_recorded_epoch_to_the_last_digit(runs, x64):
    for r, got in replayed(runs):
        for ours, theirs in FIELDS.items():
            where = f"{r['sequence']} {r['config']} {ours}"
            np.testing.assert_array_equal(getattr(got, ours), r[theirs], err_msg=where)


def test_recorded_rates_in_single_precision(runs):
    for r, got in replayed(runs):
        np.testing.assert_array_equal(got.rate.astype(float), r["lr_after"])
        # Losses that fall by exactly min_delta are on the border of rounding.
        if r["sequence"] not in ("half_min_delta_steps_cumulative", "steps_of_min_delta"):
            np.testing.assert_array_equal(got.wait, r["wait"])


def test_the_schedules_of_both_experiments(shared):
    for r in recorded(shared(GOLDEN))[1]:
        epochs = int(r["val_loss_recipe"].split("*")[1])
        (got,) = run(reduce_on_plateau(**options(r["config"])), [1.0] * epochs)
        rate = got.rate.astype(float)
        changed = np.append(0, 1 + np.flatnonzero(np.diff(rate)))
        assert [(c["epoch_index0"], c["lr_after"]) for c in r["lr_changes"]] == list(
            zip(changed, rate[changed], strict=True)
        )
        assert got.wait[-1] == r["final_wait"]


def test_scale_times_base_is_the_rate():
    (got,) = run(reduce_on_plateau(0.2, 2, min_lr=1e-5, base_lr=4.5e-3), [1.0] * 12)
    assert got.scale.dtype == jnp.float32 and got.scale[0] == 1
    np.testing.assert_allclose(4.5e-3 * got.scale, got.rate, rtol=2e-7)
    np.testing.assert_array_equal(got.reductions, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4])


def test_a_minimum_that_float32_rounds_up_is_reached_and_kept():
    lowest = 3e-7
    assert float(np.float32(lowest)) > lowest  # Keras 2 then "lowers" the rate to itself for ever
    (got,) = run(reduce_on_plateau(0.1, 1, min_lr=lowest, base_lr=1e-5), [1.0] * 6)
    np.testing.assert_array_equal(got.rate[-3:], np.float32([lowest] * 3))
    np.testing.assert_array_equal(got.wait, np.zeros(6))


def test_the_rate_falls_to_zero_and_stays():
    (got,) = run(reduce_on_plateau(1e-20, 1, base_lr=1e-3), [1.0] * 6)
    np.testing.assert_array_equal(got.rate[-2:], [0, 0])
    np.testing.assert_array_equal(got.scale[-2:], [0, 0])


def test_a_rate_below_the_minimum_is_left_alone():
    (got,) = run(reduce_on_plateau(0.5, 1, min_lr=1e-2, base_lr=1e-3), [1.0] * 4)
    np.testing.assert_array_equal(got.rate, np.float32([1e-3] * 4))


def test_folds_under_jit_and_vmap_equal_a_loop():
    plateau = reduce_on_plateau(0.3, 2, cooldown=1, base_lr=1e-3)
    folds = np.random.default_rng(0).uniform(0.5, 1, (4, 20)).astype(np.float32)
    got = run(plateau, *folds)
    assert len({int(states.reductions[-1]) for states in got}) > 1
    for states, losses in zip(got, folds, strict=True):
        state = plateau.init({})
        for loss in losses:
            _, state = plateau.update({}, state, value=loss)
        jax.tree.map(np.testing.assert_array_equal, state, jax.tree.map(lambda x: x[-1], states))


def test_init_is_mapped_over_folds():
    plateau = reduce_on_plateau()
    states = jax.vmap(plateau.init, axis_size=3)({"w": jnp.zeros((3, 2))})
    states = jax.vmap(lambda s, v: plateau.update({}, s, value=v)[1])(states, jnp.arange(3.0))
    np.testing.assert_array_equal(states.best, [0, 1, 2])


def test_in_a_chain_it_scales_updates_of_any_dtype():
    tx = optax.chain(optax.sgd(1.0), reduce_on_plateau(0.5, 1))
    params = {"a": jnp.ones(2), "b": jnp.ones(3, jnp.bfloat16)}
    state = tx.init(params)
    for want in (-1.0, -0.5):
        updates, state = tx.update(params, state, params, value=7.0)
        np.testing.assert_array_equal(updates["a"], [want] * 2)
        np.testing.assert_array_equal(updates["b"], [want] * 3)
    assert optax.apply_updates(params, updates)["b"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"factor": 1.0}, r"want factor: a number in \(0, 1\); got 1.0"),
        ({"factor": float("nan")}, "got nan"),
        ({"patience": -1}, r"want patience: a whole number in \[0, 2147483647\]; got -1"),
        ({"patience": 1.5}, "want patience: .*; got 1.5"),
        ({"patience": 10**20}, "want patience: .*; got 1000"),
        ({"min_delta": -1e-4}, r"want min_delta: a number in \[0, inf\); got -0.0001"),
        ({"min_delta": float("inf")}, "want min_delta: .*; got inf"),
        ({"cooldown": -2}, "want cooldown: a whole number .*; got -2"),
        ({"min_lr": -1.0}, "want min_lr: a number .*; got -1.0"),
        ({"min_lr": float("inf")}, "want min_lr: .*; got inf"),
        ({"base_lr": 0.0}, r"want base_lr: a number in \(0, 1e30\]; got 0.0"),
        ({"factor": 0.99999}, "from 1.0 to 0.0 in 100000 reductions; got 0.99999"),
    ],
)
def test_says_what_is_wrong(wrong, message):
    with pytest.raises(ValueError, match=message):
        reduce_on_plateau(**wrong)


def test_says_when_values_are_stacked():
    plateau = reduce_on_plateau()
    with pytest.raises(ValueError, match=r"want one value per epoch; got shape \(3,\)"):
        plateau.update({}, plateau.init({}), value=np.ones(3))
