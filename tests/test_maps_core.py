"""Patterns, ways back, random weights and stability, against NumPy in float64 and laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from emojax import hyperalignment, maps, procrustes

CLOSE = {np.dtype("float32"): 2e-4, np.dtype("float64"): 1e-9}


def draw(seed, n=40, v=7, c=3):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(v, v))
    return 3000 + rng.normal(size=(n, v)) @ mixing, rng.normal(size=(v, c))


def haufe(weights, x):
    """Computes equation 6 of Haufe et al. with a pseudo-inverse."""
    s = x @ weights
    size = weights.shape[1]
    inner = np.cov(s.T).reshape(size, size)
    return np.cov(x.T) @ weights @ np.linalg.pinv(inner, rcond=1e-10)


def test_patterns_are_those_of_the_published_equation(dtype):
    x, weights = draw(0)
    x, weights = x.astype(dtype), weights.astype(dtype)
    want = haufe(weights.astype(float), x.astype(float))
    got = maps.haufe(weights, x)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, atol=5 * CLOSE[dtype] * np.abs(want).max())
    one = maps.haufe(weights[:, 0], x)
    np.testing.assert_allclose(one, maps.haufe(weights[:, :1], x)[:, 0], rtol=1e-5)


def test_outputs_that_sum_to_0_have_the_patterns_of_the_pseudo_inverse(dtype):
    x, weights = draw(1)
    weights -= weights.mean(1, keepdims=True)
    x, weights = x.astype(dtype), weights.astype(dtype)
    want = haufe(weights.astype(float), x.astype(float))
    got = maps.haufe(weights, x)
    np.testing.assert_allclose(got, want, atol=5 * CLOSE[dtype] * np.abs(want).max())
    np.testing.assert_allclose(np.asarray(got).sum(1), 0, atol=CLOSE[dtype] * np.abs(want).max())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(5, 60), st.integers(1, 30), st.integers(1, 4))
def test_a_pattern_predicts_the_outputs_and_knows_no_offset(seed, n, v, c):
    x, weights = draw(seed, n, v, c)
    with jax.enable_x64(True):
        pattern = np.asarray(maps.haufe(weights, x))
        moved = np.asarray(maps.haufe(weights, x + 7))
    np.testing.assert_allclose(pattern, moved, atol=1e-6 * max(np.abs(pattern).max(), 1))
    if c < min(v, n - 1):  # outputs do not depend on each other: W'A = 1
        np.testing.assert_allclose(weights.T @ pattern, np.eye(c), atol=1e-6)


def test_a_suppressor_has_a_weight_and_no_pattern():
    rng = np.random.default_rng(2)
    signal, noise = rng.normal(size=(2, 5000))
    x = np.stack([signal + noise, noise], 1)
    weights = np.array([1.0, -1.0])  # reads the signal alone
    np.testing.assert_allclose(maps.haufe(weights, x), [1, 0], atol=0.05)


def test_jit_vmap_and_grad(x64):
    x, weights = draw(3)
    want = maps.haufe(weights, x)
    np.testing.assert_allclose(jax.jit(maps.haufe)(weights, x), want, atol=1e-9)
    stack = np.stack([weights, 2 * weights])
    each = jax.vmap(maps.haufe, (0, None))(stack, x)
    np.testing.assert_allclose(each, [want, want / 2], atol=1e-9)
    slope = jax.grad(lambda w: (maps.haufe(w, x) ** 2).sum())(weights)
    step = np.zeros_like(weights)
    step[2, 1] = 1e-6
    high, low = (float((maps.haufe(weights + d, x) ** 2).sum()) for d in (step, -step))
    np.testing.assert_allclose(slope[2, 1], (high - low) / 2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "x", "said"),
    [
        (np.ones((3, 1)), np.ones((5, 4)), r"got \(3, 1\), \(5, 4\)"),
        (np.ones(4), np.ones((1, 4)), "n >= 2"),
        (np.ones(2), np.array([[1.0, np.nan], [0, 1]]), "finite x"),
    ],
)
def test_says_what_is_wrong(weights, x, said):
    with pytest.raises(ValueError, match=said):
        maps.haufe(weights, x)


def mappings(x, seed=0):
    """Maps of every kind into spaces of as many dimensions; x [n, v] has n > v."""
    rng = np.random.default_rng(seed)
    target = x @ np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0] * 2 + 5
    model = hyperalignment.fit(np.stack([x, target]), zscore_all=True)
    return {
        "dense": procrustes.fit(x, target),
        "lowrank": procrustes.fit_lowrank(x, target),
        "composed": model.mappings[0],
        "none": None,
    }


@pytest.mark.parametrize("kind", ["dense", "lowrank", "composed", "none"])
def test_both_ways_back_give_the_pattern_of_the_own_voxels(kind, x64):
    x, weights = draw(4)
    mapping = mappings(x)[kind]
    y = x if mapping is None else np.asarray(procrustes.transform(mapping, x))
    sd = y.std(0)
    scaled = (y - y.mean(0)) / sd
    own = maps.weights_to_source(weights, mapping, sd)
    np.testing.assert_allclose(
        (x - x.mean(0)) @ own, scaled @ weights - (scaled @ weights).mean(0), atol=1e-7
    )
    back = maps.patterns_to_source(maps.haufe(weights, scaled), mapping, sd)
    np.testing.assert_allclose(back, maps.haufe(own, x), atol=1e-7 * np.abs(back).max())


def test_ways_back_are_rotations_of_the_brief(x64):
    x, weights = draw(5)
    mapping = mappings(x)["dense"]
    s, rotation = float(mapping.scale), np.asarray(mapping.rotation)
    np.testing.assert_allclose(maps.weights_to_source(weights, mapping), s * rotation @ weights)
    np.testing.assert_allclose(maps.patterns_to_source(weights, mapping), rotation @ weights / s)


def test_ways_back_in_float32_have_no_rounding_of_the_scanners_level():
    x, weights = draw(6)
    x = np.float32(x + 12_000)
    mapping = mappings(x)["dense"]
    back = np.asarray(maps.patterns_to_source(weights, mapping))
    want = np.asarray(mapping.rotation, float) @ weights / float(mapping.scale)
    np.testing.assert_allclose(back, want, atol=1e-5 * np.abs(want).max())


def test_more_voxels_than_rows(x64):
    rng = np.random.default_rng(7)
    x, target = rng.normal(size=(2, 12, 500))
    mapping = procrustes.fit_lowrank(x, target)
    y = np.asarray(procrustes.transform(mapping, x))
    weights = rng.normal(size=(500, 2))
    own = maps.haufe(maps.weights_to_source(weights, mapping), x)
    back = maps.patterns_to_source(maps.haufe(weights, y), mapping)
    np.testing.assert_allclose(back, own, atol=1e-8)


def test_shapes_of_the_ways_back_are_checked():
    x, weights = draw(8)
    with pytest.raises(ValueError, match=r"want patterns \[7, c\]"):
        maps.patterns_to_source(weights[:5], mappings(x)["dense"])
    with pytest.raises(ValueError, match=r"sd \[7\]"):
        maps.weights_to_source(weights, mappings(x)["dense"], np.ones(3))


def test_values_stand_at_their_voxels():
    mask = np.zeros((3, 4, 2), bool)
    mask[1:, 1:3] = True
    values = np.arange(6.0).reshape(3, 2)
    got = maps.onto_grid(values, mask, np.array([7, 0, 3]))
    assert got.shape == (3, 4, 2, 2)
    np.testing.assert_array_equal(got[mask][[7, 0, 3]], values)
    assert np.count_nonzero(got) == 5
    np.testing.assert_array_equal(maps.onto_grid(np.ones((8, 1)), mask)[..., 0], mask)
    with pytest.raises(ValueError, match=r"positions in \[0, 8\)"):
        maps.onto_grid(values, mask, np.array([8, 0, 3]))


def test_random_weights_are_the_same_numbers_in_another_order():
    rng = np.random.default_rng(9)
    tree = {"kernel": rng.normal(size=(4, 3, 50)), "bias": rng.normal(size=50), "one": np.ones(())}
    got = maps.randomised(tree, jax.random.key(0))
    assert jax.tree.map(np.shape, got) == jax.tree.map(np.shape, tree)
    flat, want = np.asarray(got["kernel"]).reshape(12, 50), tree["kernel"].reshape(12, 50)
    np.testing.assert_allclose(np.sort(flat, 0), np.sort(want, 0), rtol=1e-6)
    assert (np.abs(flat - want) > 1e-6).mean() > 0.8
    np.testing.assert_allclose(np.sort(got["bias"]), np.sort(tree["bias"]), rtol=1e-6)
    again = maps.randomised(tree, jax.random.key(0))
    np.testing.assert_array_equal(again["kernel"], got["kernel"])
    other = maps.randomised(tree, jax.random.key(1))
    assert not np.array_equal(other["kernel"], got["kernel"])


def test_a_map_in_units_of_random_ones():
    random = np.array([[1.0, 2, 0], [-1, -2, 0]])
    np.testing.assert_allclose(maps.against_random([3.0, 2, 5], random), [3, 1, 0])
    with pytest.raises(ValueError, match=r"got \(2, 3\)"):
        maps.against_random(np.ones(4), random)


def test_stability_of_folds():
    rng = np.random.default_rng(10)
    truth = rng.normal(size=(10, 10))
    same = maps.stability([truth, 2 * truth + 1])
    assert same.correlation == pytest.approx(1) and same.top.shape == (10, 10)
    strongest = np.argsort(-np.abs(truth), axis=None)[:10]
    assert same.top.sum() == 20 and (maps.stability([truth]).top.ravel()[strongest] == 1).all()
    folds = np.stack([truth + 0.5 * rng.normal(size=(10, 10)) for _ in range(4)])
    want = np.corrcoef(folds.reshape(4, -1))[np.triu_indices(4, 1)].mean()
    assert maps.stability(folds).correlation == pytest.approx(want)
    assert np.isnan(maps.stability([truth]).correlation)
    assert maps.stability([truth, np.ones((10, 10))]).correlation == 0
    with pytest.raises(ValueError, match="finite maps"):
        maps.stability([truth, truth * np.nan])


def planted(seed, n=600, v=300, count=60):
    """Returns rows of two classes with a signal in some voxels, and noise shared in pairs."""
    rng = np.random.default_rng(seed)
    voxels = rng.permutation(v)[:count]
    y = rng.integers(0, 2, n)
    noise = rng.normal(size=(n, v))
    noise = noise + 0.7 * np.roll(noise, 1, axis=1) + 0.3 * rng.normal(size=(n, 1))
    x = noise
    x[:, voxels] += np.outer(2 * y - 1, rng.choice([-0.3, 0.3], count))
    truth = np.zeros(v, bool)
    truth[voxels] = True
    return np.float32(x), y, truth


def test_patterns_find_planted_voxels_and_random_weights_do_not():
    x, y, truth = planted(11)
    target = np.stack([y == 0, y == 1], 1) - 0.5
    centred = np.float64(x - x.mean(0))
    ridge = centred.T @ np.linalg.solve(centred @ centred.T + 300 * np.eye(len(x)), target)
    pattern = np.abs(maps.haufe(np.float32(ridge), x)).sum(1)
    assert roc_auc_score(truth, pattern) > 0.95
    keys = jax.random.split(jax.random.key(0), 20)
    random = [maps.haufe(maps.randomised(np.float32(ridge), key), x) for key in keys]
    scores = [roc_auc_score(truth, np.abs(one).sum(1)) for one in random]
    assert abs(np.mean(scores) - 0.5) < 0.1
    ratio = np.abs(maps.against_random(np.asarray(random[0]), jnp.stack(random[1:]))).sum(1)
    assert abs(roc_auc_score(truth, ratio) - 0.5) < 0.1
    alone = maps.against_random(maps.haufe(np.float32(ridge), x), jnp.stack(random))
    assert roc_auc_score(truth, np.abs(alone).sum(1)) > 0.95
