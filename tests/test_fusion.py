"""Folded networks give what the networks give: float64 to 1e-9, float32 to 1e-4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emojax import decoder, fusion, models
from emojax.models import cnn1d, resnet3d

pytestmark = pytest.mark.usefixtures("quick_compile")
SMALL = {"filters": (8, 8, 6), "window": 5, "dense": (32, 16)}


def random_like(tree, dtype, seed=0):
    """Draws weights, biases and moving statistics that are all large enough to matter.

    Moving statistics, float32 by default, become `dtype`: Flax takes their root as they are.
    """
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        x = rng.normal(0, 0.3, leaf.shape)
        return jnp.asarray(np.exp(x) if path[-1].key in ("var", "scale") else x, dtype)

    return jax.tree_util.tree_map_with_path(draw, tree)


def network(m, dtype, **options):
    model = cnn1d.CNN1D(3, dtype=dtype, param_dtype=dtype, **options)
    made = model.init(jax.random.key(0), jnp.zeros((1, m), dtype))["params"]
    return model, jax.tree.map(lambda a: a + jnp.asarray(0.01, dtype), made)


def test_cnn_is_a_matrix_and_dense_layers(dtype):
    rng = np.random.default_rng(0)
    model, params = network(60, dtype, **SMALL)
    matrix, offset = rng.normal(size=(80, 60)) / 9, rng.normal(size=60)
    weights = fusion.fold_cnn1d(params, matrix, offset, dtype)
    x = rng.normal(size=(10_000, 80)).astype(dtype)
    want = model.apply({"params": params}, (x.astype(np.float64) @ matrix + offset).astype(dtype))
    got = jax.jit(fusion.apply_cnn1d)(weights, x)
    tolerance = 1e-9 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())
    clear = np.diff(np.sort(np.asarray(want), axis=1))[:, -1] > 1e-4  # no ties up to rounding
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(got.argmax(1)[clear], want.argmax(1)[clear])


@pytest.mark.parametrize("layers", ["all", "dense"])
def test_cnn_without_its_norms(dtype, layers):
    """Batch norm is affine at inference, whatever its statistics; one scale here is 0."""
    rng = np.random.default_rng(0)
    model = cnn1d.CNN1D(
        3, **SMALL, batch_norm=True, norm_layers=layers, dtype=dtype, param_dtype=dtype
    )
    made = random_like(model.init(jax.random.key(0), jnp.zeros((1, 40), dtype)), dtype)
    made["params"]["dense1_bn"]["scale"] = made["params"]["dense1_bn"]["scale"].at[0].set(0)
    assert len(made["batch_stats"]) == {"all": 5, "dense": 2}[layers]
    matrix, offset = rng.normal(size=(50, 40)) / 7, rng.normal(size=40)
    weights = models.find("cnn1d").fold(made["params"], made["batch_stats"], matrix, offset)
    assert [kernel.shape for kernel, _ in weights["layers"]] == [(50, 32), (32, 16), (16, 3)]
    weights = fusion.fold_cnn1d(
        made["params"], matrix, offset, dtype, batch_stats=made["batch_stats"]
    )
    x = rng.normal(size=(500, 50)).astype(dtype)
    want = model.apply(made, (x.astype(np.float64) @ matrix + offset).astype(dtype))
    got = jax.jit(fusion.apply_cnn1d)(weights, x)
    tolerance = 1e-10 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())


@pytest.mark.slow
def test_published_cnn():
    rng = np.random.default_rng(0)
    model, params = network(300, np.float32)
    weights = fusion.fold_cnn1d(params, np.eye(300), np.zeros(300))
    assert weights["layers"][0][0].shape == (300, 1024)
    x = rng.normal(size=(200, 300)).astype(np.float32)
    want = model.apply({"params": params}, x)
    np.testing.assert_allclose(
        fusion.apply_cnn1d(weights, x), want, rtol=1e-4, atol=1e-4 * np.abs(want).max()
    )


def test_vmap_and_grad_go_through():
    model, params = network(40, np.float32, **SMALL)
    weights = fusion.fold_cnn1d(params, np.eye(40), np.zeros(40))
    x = jax.random.normal(jax.random.key(1), (3, 2, 40))
    got = jax.vmap(lambda x: fusion.apply_cnn1d(weights, x))(x)
    for i in range(3):
        np.testing.assert_allclose(got[i], fusion.apply_cnn1d(weights, x[i]), rtol=1e-5)
    slope = jax.grad(lambda x: fusion.apply_cnn1d(weights, x)[0, 0])(x[0])
    want = jax.grad(lambda x: model.apply({"params": params}, x)[0, 0])(x[0])
    np.testing.assert_allclose(slope, want, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck", [True, False])
@pytest.mark.parametrize("features", [None, 7])
def test_resnet_without_its_norms(dtype, bottleneck, features):
    model = resnet3d.ResNet3D(
        2, (2, 1), bottleneck, width=4, head_features=features, dtype=dtype, param_dtype=dtype
    )
    x = np.random.default_rng(0).normal(size=(3, 12, 10, 9)).astype(dtype)
    made = random_like(model.init(jax.random.key(0), x), dtype)
    weights = fusion.fold_resnet3d(made["params"], made["batch_stats"], dtype)
    want = model.apply(made, x)
    got = jax.jit(fusion.apply_resnet3d)(weights, x)
    tolerance = 1e-9 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())
    norms = {p[-2].key for p, _ in jax.tree_util.tree_leaves_with_path(made["batch_stats"])}
    left = sum("before" in b for stage in weights["stages"] for b in stage)
    assert norms >= {"bn1", "bn2", "bn"} and left == 2  # the first of three blocks has none


def test_a_decoder_with_batch_norm_keeps_its_statistics(tmp_path):
    """Saved, loaded and calibrated, it computes what the network computes in inference mode."""
    rng, grid = np.random.default_rng(0), (6, 5, 3)
    model = cnn1d.CNN1D(3, **SMALL, batch_norm=True, norm_layers="dense")
    made = random_like(model.init(jax.random.key(0), jnp.zeros((1, 40))), np.float32)
    made["params"]["dense3"]["kernel"] *= 0.1  # probabilities far from 0 and 1
    voxels, mean, sd = np.arange(5, 45), rng.normal(500, 1, 40), rng.uniform(5, 9, 40)
    facts = decoder.Facts(("a", "b", "c"), grid, 500.0, 9.0, 2.0, "s1", (), runs=("1",))
    template = rng.normal(500, 7, (50, 40)).astype(np.float32)
    bundle = decoder.from_cnn1d(
        facts,
        made["params"],
        mask=np.ones(grid, bool),
        voxels=voxels,
        mean=mean,
        sd=sd,
        template=template,
        run=np.zeros(50, int),
        frame=np.arange(50),
        batch_stats=made["batch_stats"],
    )
    decoder.save(bundle, tmp_path / "bundle")
    loaded = decoder.load(tmp_path / "bundle")
    volumes = rng.normal(500, 6, (50, *grid)).astype(np.float32)
    volumes.reshape(50, -1)[:, voxels] += template - 500  # the run of the template
    x = (volumes.reshape(50, -1)[:, voxels] - mean) / sd
    want = jax.nn.softmax(model.apply(made, x.astype(np.float32)))
    got = np.stack([decoder.decode(loaded, volume) for volume in volumes[:5]])
    np.testing.assert_allclose(got, want[:5], atol=1e-5)
    again = [decoder.calibrate(one, volumes, "s2", "1") for one in (bundle, loaded)]
    pair = [np.stack([decoder.decode(one, v) for v in volumes[:5]]) for one in again]
    np.testing.assert_allclose(*pair, atol=1e-6)
    assert np.abs(pair[0] - got).max() > 0.05


def test_what_cannot_be_folded_is_refused():
    model = cnn1d.CNN1D(3, batch_norm=True, **SMALL)
    params = model.init(jax.random.key(0), jnp.zeros((1, 40)))["params"]
    with pytest.raises(ValueError, match="want batch_stats of every batch norm; got none of conv1"):
        fusion.fold_cnn1d(params, np.eye(40), np.zeros(40))
    _, params = network(40, np.float32, **SMALL)
    with pytest.raises(ValueError, match="want 168 features of the convolutions; got 174 of 41"):
        fusion.fold_cnn1d(params, np.eye(41), np.zeros(41))
