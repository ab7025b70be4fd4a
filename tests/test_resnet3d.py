"""The 3D ResNets against goldens of the published Keras code, and what holds for any of them."""

import functools
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emojax.models import resnet3d
from emojax.models.resnet3d import ResNet3D

NAMES = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
SMALL = {
    "small_basic": functools.partial(ResNet3D, blocks=(1, 1, 1, 1), bottleneck=False),
    "small_bottleneck": functools.partial(ResNet3D, blocks=(1, 1, 1, 1), bottleneck=True),
}
LEAVES = {"gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var"}
TINY = (2, 16, 16, 12)


@pytest.fixture
def recipe(shared):
    """The module that makes the weights and inputs of the goldens."""
    spec = importlib.util.spec_from_file_location("recipe", shared("golden/keras/recipe.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flat(tree, separator="/"):
    """{"stem/conv/kernel": array, ...}"""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {separator.join(key.key for key in path): leaf for path, leaf in leaves}


def tree(weights, dtype):
    """Variables from {"stem/bn/gamma": array, ...}."""
    variables = {"params": {}, "batch_stats": {}}
    for path, value in weights.items():
        *parents, leaf = path.split("/")
        node = variables["batch_stats" if leaf.startswith("moving") else "params"]
        for name in parents:
            node = node.setdefault(name, {})
        node[LEAVES.get(leaf, leaf)] = jnp.asarray(value, dtype)
    return variables


def tiny(seed=0, **options):
    """The small bottleneck network, a quarter as wide; its variables and a batch."""
    model = SMALL["small_bottleneck"](num_classes=2, **{"width": 16, **options})
    x = jax.random.normal(jax.random.key(seed), TINY)
    return model, jax.jit(model.init)(jax.random.key(1), x), x


def check_inference(recipe, golden, name, model, dtype, atol):
    variables = tree(recipe.weights(name), dtype)
    x = jnp.asarray(recipe.resnet_inputs(recipe.RESNET_SPEC[name][2]), dtype)
    logits, features = jax.jit(functools.partial(model.apply, features=True))(variables, x)
    assert logits.dtype == features.dtype == dtype
    np.testing.assert_allclose(features, golden[f"{name}/features_f64"], rtol=0, atol=atol)
    np.testing.assert_allclose(logits, golden[f"{name}/logits_f64"], rtol=0, atol=atol)


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_match_keras(name, recipe, shared, dtype):
    golden = np.load(shared("golden/keras/resnet3d_golden.npz"))
    atol = 1e-5 if dtype == np.float32 else 1e-12
    model = SMALL[name](num_classes=2, dtype=dtype, param_dtype=dtype)
    check_inference(recipe, golden, name, model, dtype, atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[:3])
def test_published_networks_match_keras(name, recipe, shared):
    golden = np.load(shared("golden/keras/resnet3d_golden.npz"))
    model = getattr(resnet3d, name)(2)
    check_inference(recipe, golden, name, model, np.dtype("float32"), 2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_those_of_keras(name, recipe, shared):
    manifest = json.loads(shared("golden/keras/resnet3d_manifest.json").read_text())
    model = getattr(resnet3d, name)(2)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 44)))
    want = {}
    for path, kind, shape in recipe.tensors(name):
        group = "batch_stats" if kind.startswith("moving") else "params"
        want[f"{group}/{path}/{LEAVES.get(kind, kind)}"] = shape
    assert {path: leaf.shape for path, leaf in flat(shapes).items()} == want
    count = {
        group: sum(leaf.size for leaf in jax.tree.leaves(shapes[group])) for group in shapes
    }
    assert count["params"] == manifest["models"][name]["trainable_params"]
    assert count["batch_stats"] == manifest["models"][name]["non_trainable_params"]


def train_step(model, variables, x, y):
    """((loss, (logits, moving statistics, penalty)), gradients) with the authors' penalty."""

    def loss_fn(params):
        logits, updated = model.apply(
            {**variables, "params": params}, x, train=True, mutable="batch_stats"
        )
        penalty = resnet3d.l2(params, 2e-4, 1e-4)
        nll = optax.softmax_cross_entropy(logits, y).mean()
        return nll + penalty, (logits, updated["batch_stats"], penalty)

    return jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])


def check_training(recipe, shared, name, model, dtype, rtol):
    golden = np.load(shared("golden/keras/train_step_golden.npz"))
    report = json.loads(shared("golden/keras/train_step_manifest.json").read_text())[name]["f64"]
    x, y = recipe.resnet_train_batch(recipe.RESNET_SPEC[name][2])
    variables = tree(recipe.weights(name), dtype)
    step = jax.jit(functools.partial(train_step, model))
    (loss, (logits, statistics, penalty)), grads = step(variables, x.astype(dtype), y.astype(dtype))
    want = report["train_mode_before"]
    np.testing.assert_allclose(logits, want["logits"], rtol=0, atol=rtol)
    rounding = max(rtol, 2e-7)  # Keras rounded its loss to float32
    np.testing.assert_allclose([loss, penalty], [want["total"], want["reg"]], rtol=rounding)
    statistics, grads = flat(statistics, "."), flat(grads)
    for key, got in statistics.items():
        path, leaf = key.rsplit(".", 1)
        expected = golden[f"{name}/f64/{path}.{ {'mean': 'moving_mean', 'var': 'moving_variance'}[leaf] }"]
        np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * np.abs(expected).max())
    checked = 0
    for tensor in report["tensors"]:
        path, kind = tensor["path"].rsplit("/", 1)
        if not tensor["trainable"] or (kind == "bias" and path != "head/dense"):
            continue  # a convolution's bias has no gradient: a batch norm follows
        got = np.asarray(grads[f"{path}/{LEAVES.get(kind, kind)}"])
        norm = tensor["grad_norm"]
        np.testing.assert_allclose(np.linalg.norm(got), norm, rtol=rtol)
        np.testing.assert_allclose(
            got.ravel()[:8], tensor["grad_first8"][: got.size], rtol=0, atol=rtol * norm
        )
        checked += 1
    assert checked == len(grads) - sum(path.endswith("bias") for path in grads) + sum(
        "bn" in path and path.endswith("bias") for path in grads
    ) + 1


def test_training_step_matches_keras(recipe, shared, dtype):
    rtol = 1e-4 if dtype == np.float32 else 2e-11
    model = SMALL["small_bottleneck"](num_classes=2, dtype=dtype, param_dtype=dtype)
    check_training(recipe, shared, "small_bottleneck", model, dtype, rtol)
