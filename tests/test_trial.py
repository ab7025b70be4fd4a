"""The state of a fold's training: its order of rows, and the epoch that it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_training as tiny

from emojax.training import trial
from emojax.training.trial import CURVES

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def fresh():
    program = tiny.program(model=tiny.Dropped())
    example = np.zeros((1, 12), np.float32)
    return trial.begin(jax.random.key(0), program.model, program.tx, program.plateau, example)


def test_an_epoch_visits_every_row_and_orders_differ(fresh):
    first = np.asarray(trial.shuffled(fresh, 50, 16))
    assert first.shape == (4, 16)  # 50 rows, and 14 again
    assert set(first.ravel()) == set(range(50))
    np.testing.assert_array_equal(first.ravel()[50:], first.ravel()[:14])
    later = np.asarray(trial.shuffled(fresh.replace(epoch=fresh.epoch + 1), 50, 16))
    assert (first != later).any()
    np.testing.assert_array_equal(trial.shuffled(fresh, 50, 16), first)
    assert trial.shuffled(fresh, 5, 16).shape == (1, 5)
    assert sorted(np.ravel(trial.shuffled(fresh, 48, 16))) == list(range(48))


def test_draws_make_classes_equally_likely(fresh):
    labels = jnp.array([2] * 5 + [0] * 60 + [7] * 15)
    pick = jax.jit(trial.drawn, static_argnums=2)
    found = np.asarray(pick(fresh, labels, 16))
    assert found.shape == (5, 16) and found.min() >= 0 and found.max() < 80
    np.testing.assert_array_equal(trial.drawn(fresh, labels, 16), found)
    states = [fresh.replace(epoch=jnp.int32(i)) for i in range(100)]
    places = np.stack([pick(state, labels, 16) for state in states])  # 8000 draws
    assert (places[0] != places[1]).any()
    share = np.array([(np.asarray(labels)[places] == k).mean() for k in (0, 2, 7)])
    np.testing.assert_allclose(share, 1 / 3, atol=0.02)
    rows = np.bincount(places.ravel(), minlength=80)
    assert rows[:5].min() > 400 and rows[5:65].max() < 80  # 533 and 44 are expected
    assert trial.drawn(fresh, jnp.array([1, 0, 1]), 16).shape == (1, 3)


def close(state, scores):
    """Closes one epoch after another, each with weights that name it."""
    rows = []
    for number, (accuracy, loss) in enumerate(scores, start=1):
        weights = jax.tree.map(lambda w, n=number: jnp.full_like(w, n), state.state.params)
        state = state.replace(state=state.state.replace(params=weights))
        found = {"accuracy": jnp.float32(accuracy), "loss": jnp.float32(loss)}
        train = {"accuracy": jnp.float32(0.9), "loss": jnp.float32(0.1)}
        state, metrics = trial.close_epoch(state, found, train, tiny.program().plateau)
        rows.append(metrics)
    return state, rows


@pytest.mark.parametrize(
    ("scores", "epoch"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 2),  # accuracy decides
        ([(0.7, 2.0), (0.7, 1.0), (0.7, 1.5)], 2),  # then the lower loss
        ([(0.7, 1.0), (0.7, 1.0)], 1),  # then the earlier epoch
        ([(0.0, 5.0)], 1),  # any epoch is better than none
        ([(0.5, 1.0), (0.5, np.nan)], 1),  # no number is not lower
    ],
)
def test_best_epoch_is_the_highest_accuracy_then_the_lowest_loss(fresh, scores, epoch):
    assert int(fresh.best.epoch) == 0
    state, _ = close(fresh, scores)
    assert int(state.best.epoch) == epoch and int(state.epoch) == len(scores)
    assert (float(state.best.accuracy), float(state.best.loss)) == pytest.approx(scores[epoch - 1])
    assert all((leaf == epoch).all() for leaf in jax.tree.leaves(state.best.params))
    types = jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), fresh.best)
    assert jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), state.best) == types


@pytest.mark.parametrize(
    ("nll", "epoch"), [((0.9, 0.5, 0.6), 2), ((0.9, 1.0), 1), ((1.2, 1.1), 0), ((np.nan, 1.5), 0)]
)
def test_best_epoch_by_nll_may_be_the_one_before_the_first(fresh, nll, epoch):
    scores = {"accuracy": jnp.float32(0.5), "loss": jnp.float32(9.0), "nll": jnp.float32(1.0)}
    state = fresh.replace(best=trial.choose(fresh, scores, "nll"))
    assert (int(state.best.epoch), float(state.best.loss)) == (0, 1.0)
    for value in nll:
        found = scores | {"nll": jnp.float32(value)}
        state, _ = trial.close_epoch(state, found, scores, tiny.program().plateau, "nll")
    assert int(state.best.epoch) == epoch
    assert float(state.best.loss) == np.float32(nll[epoch - 1] if epoch else 1.0)


def test_an_epoch_tells_its_curves_and_shows_its_loss_to_the_rule(fresh):
    state, (metrics,) = close(fresh, [(0.5, 1.5)])
    assert tuple(metrics) == CURVES
    got = [float(metrics[name]) for name in CURVES]
    assert got == pytest.approx([0.1, 0.9, 1.5, 0.5, 0.01])
    assert float(state.state.plateau.best) == 1.5


def test_a_fresh_trial_can_be_donated(fresh):
    step = jax.jit(lambda t: t.replace(epoch=t.epoch + 1), donate_argnums=0)
    assert int(step(jax.tree.map(lambda leaf: leaf.copy(), fresh)).epoch) == 1
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(plain(fresh))]
    assert len(set(pointers)) == len(pointers)


def plain(tree):
    """Returns a tree with keys as their data."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)
