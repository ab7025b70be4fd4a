"""Integrated gradients against NumPy, and their completeness for every kind of decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_decoder

from emojax import decoder, fusion, maps
from emojax.models import cnn1d, resnet3d

GRID = (12, 10, 9)
CLASSES = ("a", "b", "c")
pytestmark = pytest.mark.usefixtures("quick_compile")


def by_hand(x, baseline, first, second, steps):
    """Computes the midpoint rule for a network of one hidden ReLU layer, in NumPy: [n, k, v]."""
    out = np.zeros((len(x), second.shape[1], x.shape[1]))
    for i, row in enumerate(x):
        for step in range(steps):
            at = baseline + (step + 0.5) / steps * (row - baseline)
            open_ = (at @ first > 0).astype(float)
            out[i] += ((first * open_) @ second).T
    return (x - baseline)[:, None] * out / steps


def test_is_the_midpoint_rule_along_a_line(dtype):
    rng = np.random.default_rng(0)
    x, baseline = rng.normal(size=(5, 6)), rng.normal(size=6)
    first, second = rng.normal(size=(6, 8)), rng.normal(size=(8, 3))

    def f(rows):
        return jax.nn.relu(rows @ first.astype(dtype)) @ second.astype(dtype)

    got = maps.integrated_gradients(f, x.astype(dtype), baseline.astype(dtype), 7)
    assert got.shape == (5, 3, 6) and got.dtype == dtype
    want = by_hand(x, baseline, first, second, 7)
    np.testing.assert_allclose(got, want, atol=1e-10 if dtype == np.float64 else 1e-4)


def test_shares_sum_to_the_change_and_more_steps_are_nearer(x64):
    rng = np.random.default_rng(1)
    x, baseline = rng.normal(size=(20, 6)), rng.normal(size=6)
    first, second = rng.normal(size=(6, 30)), rng.normal(size=(30, 2))

    def f(rows):
        return jax.nn.relu(rows @ first) @ second

    change = np.asarray(f(x) - f(baseline[None]))
    off = [
        np.abs(maps.integrated_gradients(f, x, baseline, steps).sum(2) - change).max()
        for steps in (4, 400)
    ]
    assert off[1] < 0.02 * np.abs(change).max() and off[1] < off[0] / 10


def test_linear_functions_need_one_step_and_unread_inputs_have_no_share(x64):
    rng = np.random.default_rng(2)
    x, weights = rng.normal(size=(4, 3, 2)), rng.normal(size=(3, 2, 2))
    weights[1, 0] = 0

    def f(rows):
        return jnp.einsum("nij,ijk->nk", rows, weights)

    got = np.asarray(maps.integrated_gradients(f, x, np.ones((3, 2)), 1))
    np.testing.assert_allclose(got, np.moveaxis((x - 1)[..., None] * weights, -1, 1))
    assert not got[:, :, 1, 0].any()


def test_jit_vmap_and_grad(x64):
    rng = np.random.default_rng(3)
    x, weights = rng.normal(size=(4, 3)), rng.normal(size=(3, 2))

    def shares(x, weights):
        return maps.integrated_gradients(lambda rows: jnp.tanh(rows @ weights), x, jnp.zeros(3), 9)

    want = shares(x, weights)
    np.testing.assert_allclose(jax.jit(shares)(x, weights), want)
    each = jax.vmap(lambda row: shares(row[None], weights)[0])(x)
    np.testing.assert_allclose(each, want)
    slope = jax.grad(lambda w: (shares(x, w) ** 2).sum())(weights)
    step = np.zeros_like(weights)
    step[1, 0] = 1e-6
    high, low = (float((shares(x, weights + d) ** 2).sum()) for d in (step, -step))
    np.testing.assert_allclose(slope[1, 0], (high - low) / 2e-6, rtol=1e-5)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"baseline \[\*shape\] and steps >= 1; got \(2, 3\)"):
        maps.integrated_gradients(jnp.sin, np.ones((2, 3)), np.ones(2))


def vectors():
    """Returns a 1D CNN decoder on some voxels of a mask, and volumes as scanned."""
    rng = np.random.default_rng(4)
    mask = np.zeros(GRID, bool)
    mask[2:-2, 2:-2, 2:-2] = True
    voxels = np.sort(rng.permutation(mask.sum())[:40])
    net = cnn1d.CNN1D(3, filters=(4,), window=5, dense=(16, 8))
    params = net.init(jax.random.key(0), np.zeros((1, 40)))["params"]
    facts = decoder.Facts(CLASSES, GRID, 900.0, 30.0)
    mean, sd = rng.normal(900, 30, 40), rng.uniform(10, 20, 40)
    made = decoder.from_cnn1d(facts, params, mask=mask, voxels=voxels, mean=mean, sd=sd)
    return made, rng.normal(900, 30, (7, *GRID)).astype(np.float32)


def whole():
    """Returns a decoder of a small 3D ResNet on whole volumes."""
    rng = np.random.default_rng(5)
    net = resnet3d.ResNet3D(3, (1, 1), False, width=4)
    made = net.init(jax.random.key(0), np.zeros((1, *GRID)), train=False)
    facts = decoder.Facts(CLASSES, GRID, 900.0, 30.0)
    bundle = decoder.from_resnet3d(
        facts, made["params"], made["batch_stats"], mean=np.float32(900), sd=np.float32(30)
    )
    return bundle, rng.normal(900, 30, (2, *GRID)).astype(np.float32)


def bag():
    made, later, _ = tiny_decoder.made()
    return made, later[:6]


def centred(made, volumes):
    found = np.log(np.asarray(fusion.fuse(made)(volumes), np.float64))
    return found - found.mean(-1, keepdims=True)


@pytest.mark.parametrize("make", [vectors, bag])
def test_completeness_of_decoders(make):
    made, volumes = make()
    baseline = volumes[1:].mean(0)
    got = maps.saliency(made, volumes[0], baseline=baseline, steps=64)
    assert got.shape == (*volumes.shape[1:], len(made.facts.classes))
    change = centred(made, volumes[0]) - centred(made, baseline)
    np.testing.assert_allclose(got.sum((0, 1, 2)), change, atol=0.02 * np.abs(change).max())
    other = np.ones(volumes[0].size, bool)
    other[np.asarray(made.weights["voxels"])] = False
    assert not got.reshape(-1, got.shape[-1])[other].any()


@pytest.mark.slow
def test_completeness_of_whole_volumes():
    """Without biases a network's slope is constant along the line: two steps suffice."""
    made, volumes = whole()
    flat = np.full(GRID, 900, np.float32)
    got = maps.saliency(made, volumes[0], baseline=flat, steps=2)
    change = centred(made, volumes[0]) - centred(made, flat)
    np.testing.assert_allclose(got.sum((0, 1, 2)), change, atol=1e-4 * np.abs(change).max())
    np.testing.assert_allclose(maps.saliency(made, volumes[0], steps=2), got, atol=1e-6)


def test_several_volumes_have_the_mean_of_their_class():
    made, volumes = vectors()
    labels = np.array([0, 1, 1, -1, 0, 1, 0])
    got = maps.saliency(made, volumes, labels)
    each = np.stack([maps.saliency(made, one) for one in volumes])
    for k in range(2):
        np.testing.assert_allclose(got[..., k], each[labels == k, ..., k].mean(0), atol=1e-5)
    assert not got[..., 2].any()
    named = np.asarray(fusion.fuse(made)(volumes)).argmax(1)
    np.testing.assert_allclose(
        maps.saliency(made, volumes), maps.saliency(made, volumes, named), atol=1e-6
    )


def test_the_baseline_is_the_reference_or_what_weights_hold():
    made, volumes = vectors()
    start = np.zeros(made.mask.size, np.float32)
    start[made.weights["voxels"]] = made.weights["centre"]
    start = start.reshape(GRID)
    np.testing.assert_allclose(
        maps.saliency(made, volumes[0]), maps.saliency(made, volumes[0], baseline=start), atol=1e-6
    )
    known = made.replace(reference=volumes[1])
    np.testing.assert_allclose(
        maps.saliency(known, volumes[0]), maps.saliency(made, volumes[0], baseline=volumes[1])
    )


@pytest.mark.parametrize("make", [vectors, bag, pytest.param(whole, marks=pytest.mark.slow)])
def test_random_weights_make_another_decoder_of_the_same_voxels(make):
    made, volumes = make()
    other = maps.randomised_decoder(made, jax.random.key(0))
    assert jax.tree.map(np.shape, other.weights) == jax.tree.map(np.shape, dict(made.weights))
    for name in ("voxels", "centre", "mean", "sd", "temperature"):
        if name in made.weights:
            np.testing.assert_array_equal(other.weights[name], made.weights[name])
    real, random = (maps.saliency(d, volumes[0], steps=2) for d in (made, other))
    assert np.isfinite(random).all() and not np.allclose(real, random)


def test_refuses_other_grids_and_labels():
    made, volumes = vectors()
    with pytest.raises(ValueError, match=r"volumes \[t, 12, 10, 9\]; got"):
        maps.saliency(made, volumes[:, :5])
    with pytest.raises(ValueError, match="7 labels below 3"):
        maps.saliency(made, volumes, np.full(7, 3))
    with pytest.raises(ValueError, match="a baseline of"):
        maps.saliency(made, volumes, baseline=np.zeros(3))
