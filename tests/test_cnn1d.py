"""CNN1D against recorded outputs of the authors' Keras network, and composed against plain."""

import importlib.util
import json
import re
from functools import cache, partial

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_training as tiny
from conftest import shared_path

from emojax.models.cnn1d import CNN1D, composed, penalty
from emojax.training import loop
from emojax.training.optimizer import adam

SMALL = {"filters": (5, 4, 3), "window": 4, "dense": (8, 6), "num_classes": 3}
VOXELS = 20  # the small network then has 11 positions and 33 features


@cache
def golden():
    """Returns the recipe module, our parameters in float32 and the two manifests."""
    spec = importlib.util.spec_from_file_location("recipe", shared_path("golden/keras/recipe.py"))
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    params = {}
    for path, value in recipe.weights("cnn1d").items():
        layer, kind = path.split("/")
        params.setdefault(layer, {})[kind] = value
    manifests = [
        json.loads(shared_path(f"golden/keras/{name}_manifest.json").read_text())
        for name in ("cnn1d", "train_step")
    ]
    return recipe, params, *manifests


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)


def small(seed=0, **options):
    """Returns a small network, its variables with nonzero biases, and a batch of 5."""
    model = CNN1D(**SMALL, **options)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, VOXELS)).astype(np.float32)

    def draw(keys, leaf):
        name = keys[-1].key
        if "_bn" in keys[-2].key:  # its initial value
            return jnp.full(leaf.shape, float(name in ("scale", "var")))
        sd = leaf.shape[-2] ** -0.5 / 2 if name == "kernel" else 0.1
        return jnp.asarray(rng.normal(0, sd, leaf.shape), jnp.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return model, jax.tree.map_with_path(draw, shapes), x


@cache
def small_golden():
    """Returns what Keras recorded of the network `SMALL` (tests/data), and its parameters."""
    z = goldens.load("cnn1d")
    return z, nested(goldens.below(z, "params"))


def nested(flat):
    """Returns {layer: {kind: array}} from {"layer/kind": array}."""
    layers = {}
    for path, array in flat.items():
        layer, kind = path.split("/")
        layers.setdefault(layer, {})[kind] = array
    return layers


@pytest.mark.parametrize("compose", [True, False], ids=["composed", "plain"])
def test_small_network_matches_keras(dtype, compose):
    z, params = small_golden()
    model = CNN1D(**SMALL, dtype=dtype, param_dtype=dtype, compose=compose)
    variables, x = {"params": cast(params, dtype)}, jnp.asarray(z["x"], dtype)
    features = model.apply(variables, x, method="features")
    logits = model.apply(variables, x)
    assert logits.dtype == features.dtype == dtype
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(features, z["features"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(logits, z["logits"], rtol=0, atol=tolerance)
    probabilities = jax.nn.softmax(logits)
    np.testing.assert_allclose(probabilities, z["probabilities"], rtol=0, atol=tolerance)


def test_composed_kernel_of_the_small_network_is_its_response_to_impulses(dtype):
    z, params = small_golden()
    kernel, bias = composed(cast(params, dtype))
    assert kernel.shape == (10, 1, 3) and kernel.dtype == dtype
    tolerance = 1e-13 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(kernel[:, 0], z["composed/kernel"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(bias, z["composed/bias"], rtol=0, atol=tolerance)


def test_one_training_step_of_the_small_network_matches_keras(dtype):
    z, params = small_golden()
    rtol = 1e-11 if dtype == np.float64 else 1e-4
    model = CNN1D(**SMALL, dtype=dtype, param_dtype=dtype)
    factor = float(np.float32(5e-3))  # as Keras rounds it
    loss = loss_of(model, jnp.asarray(z["train/x"], dtype), z["train/labels"], "l1", factor)
    tx = adam(*z["train/adam"].tolist())
    params = cast(params, dtype)
    (total, nll), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params))
    np.testing.assert_allclose([total, nll], [z["train/total"], z["train/nll"]], rtol=rtol)
    check_layers(grads, nested(goldens.below(z, "grad")), rtol)
    want = jax.tree.map(np.subtract, nested(goldens.below(z, "after")), params)
    check_layers(updates, want, max(rtol, 2e-5))  # Keras rounds powers of its betas to float32


def check_layers(got, want, rtol):
    """Compares {layer: {kind: array}}, each array by the norm of the difference."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for layer, kinds in want.items():
        for kind, array in kinds.items():
            error = np.linalg.norm(got[layer][kind] - array) / np.linalg.norm(array)
            assert error < rtol, (layer, kind, error)


def test_parameters_are_those_of_keras(shared):
    _, params, manifest, _ = golden()
    x = jax.ShapeDtypeStruct((1, 300), jnp.float32)
    got = jax.eval_shape(CNN1D().init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(np.shape, params)
    assert sum(leaf.size for leaf in jax.tree.leaves(got)) == manifest["total_params"]


def test_initialisers_are_those_of_keras():
    x = np.zeros((1, 300), np.float32)
    params = jax.jit(CNN1D(dense=(64,)).init)(jax.random.key(0), x)["params"]
    assert not any(layer["bias"].any() for layer in params.values())
    for name, fans in {"conv1": 10 * 129, "conv3": 10 * 256, "dense1": 246 * 64 + 64}.items():
        kernel, limit = params[name]["kernel"], (6 / fans) ** 0.5  # uniform(-limit, limit)
        assert 0.98 * limit < np.abs(kernel).max() <= limit
        np.testing.assert_allclose(kernel.std(), limit / 3**0.5, rtol=0.03)


@pytest.mark.parametrize("compose", [True, False], ids=["composed", "plain"])
def test_outputs_match_keras(shared, dtype, compose):
    recipe, params, _, _ = golden()
    want = np.load(shared("golden/keras/cnn1d_golden.npz"))
    model = CNN1D(dtype=dtype, param_dtype=dtype, compose=compose)
    variables = {"params": cast(params, dtype)}
    x = jnp.asarray(recipe.cnn1d_inputs()[..., 0], dtype)
    features = model.apply(variables, x, method="features")
    logits = model.apply(variables, x)
    assert logits.dtype == features.dtype == dtype
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(features, want["features_f64"], rtol=0, atol=4 * tolerance)
    np.testing.assert_allclose(logits, want["logits_f64"], rtol=0, atol=tolerance)


def test_composed_kernel_matches_the_recorded_one(shared, dtype):
    want = np.load(shared("golden/keras/cnn1d_golden.npz"))
    kernel, bias = composed(cast(golden()[1], dtype))
    assert kernel.shape == (55, 1, 64) and bias.shape == (64,) and kernel.dtype == dtype
    tolerance = 1e-13 if dtype == np.float64 else 1e-6
    np.testing.assert_allclose(kernel, want["composed_kernel_f64"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(bias, want["composed_bias_f64"], rtol=0, atol=tolerance)


def loss_of(model, x, y, kind, factor):
    def loss(params):
        logits = model.apply({"params": params}, x)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return nll + penalty(params, kind, factor), nll

    return loss


def test_one_training_step_matches_keras(shared, dtype):
    recipe, params, _, manifest = golden()
    name, rtol = ("f64", 1e-11) if dtype == np.float64 else ("f32", 1e-5)
    record, arrays = manifest["cnn1d"][name], np.load(shared("golden/keras/train_step_golden.npz"))
    x, one_hot = recipe.cnn1d_train_batch()
    model = CNN1D(dtype=dtype, param_dtype=dtype)
    loss = loss_of(model, jnp.asarray(x[..., 0], dtype), jnp.argmax(one_hot, 1), "l1", 5e-3)
    keras = record["optimizer_config"]  # the rate and betas as rounded to float32
    tx = adam(*(keras[key] for key in ("learning_rate", "beta_1", "beta_2", "epsilon")))

    @jax.jit
    def step(params):
        (total, nll), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, _ = tx.update(grads, tx.init(params))
        return total, nll, grads, optax.apply_updates(params, updates)

    total, nll, grads, after = step(cast(params, dtype))
    # The recorded losses were rounded to float32 in both precisions.
    before = record["train_mode_before"]
    np.testing.assert_allclose([total, nll], [before["total"], before["ce"]], rtol=5e-7)
    np.testing.assert_allclose(step(after)[0], record["train_mode_after"]["total"], rtol=5e-7)
    for key in arrays.files:
        if key.startswith(f"cnn1d/{name}/"):
            _, _, which, path = key.split("/")
            layer, leaf = path.split(".")
            got = np.asarray((grads if which == "grad" else after)[layer][leaf], float)
            error = np.linalg.norm(got - arrays[key]) / np.linalg.norm(arrays[key])
            assert error < rtol, (key, error)
    for tensor in record["tensors"]:
        layer, leaf = tensor["path"].split("/")
        norm = np.linalg.norm(np.asarray(after[layer][leaf], float))
        np.testing.assert_allclose(norm, tensor["norm_after"], rtol=rtol, err_msg=tensor["path"])


def test_composed_and_plain_have_the_same_outputs_and_gradients():
    model, variables, x = small()
    weights = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)

    @partial(jax.jit, static_argnames="model")
    @partial(jax.value_and_grad, argnums=(0, 1))
    def run(params, x, model):
        return (weights * model.apply({"params": params}, x)).sum()

    got = run(variables["params"], x, model)
    want = run(variables["params"], x, model.clone(compose=False))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(got[1]), jax.tree.leaves(want[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_an_activation_or_batch_norm_is_not_composed_away():
    model, variables, x = small(conv_activation="relu")
    want = np.asarray(x)[..., None]
    for name in ("conv1", "conv2", "conv3"):
        layer = variables["params"][name]
        windows = np.lib.stride_tricks.sliding_window_view(
            want, 4, axis=1
        )  # [batch, t, in, window]
        want = np.einsum("btik,kio->bto", windows, layer["kernel"]) + layer["bias"]
        want = np.maximum(want, 0)
    got = model.apply(variables, x, method="features")
    np.testing.assert_allclose(got, want.reshape(5, -1), rtol=1e-4, atol=1e-6)
    linear = model.clone(conv_activation=None).apply(variables, x, method="features")
    assert np.abs(got - linear).max() > 0.1


def test_batch_norm_normalises_in_training_and_learns_its_statistics():
    model, variables, x = small(batch_norm=True)
    x = 3 + 2 * x
    features, updated = model.apply(
        variables, x, train=True, method="features", mutable=["batch_stats"]
    )
    channels = features.reshape(-1, 3)
    np.testing.assert_allclose(channels.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(channels.var(0), 1, rtol=0.02)
    first = variables["params"]["conv1"]
    windows = np.lib.stride_tricks.sliding_window_view(x, 4, axis=1)
    out = windows @ np.asarray(first["kernel"])[:, 0] + first["bias"]
    stats = updated["batch_stats"]["conv1_bn"]
    np.testing.assert_allclose(stats["mean"], 0.01 * out.mean((0, 1)), rtol=1e-4)
    np.testing.assert_allclose(stats["var"], 0.99 + 0.01 * out.var((0, 1)), rtol=1e-4)
    layers = ("conv1", "conv2", "conv3", "dense1", "dense2")
    assert set(variables["batch_stats"]) == {f"{layer}_bn" for layer in layers}
    with pytest.raises(ValueError, match="got conv1_bn"):
        composed(variables["params"])


def test_batch_norm_of_dense_layers_leaves_the_convolutions_linear():
    model, variables, x = small(batch_norm=True, norm_layers="dense", norm_momentum=0.8)
    assert model.normed == ("dense1", "dense2") and set(variables["batch_stats"]) == {
        "dense1_bn",
        "dense2_bn",
    }
    params = variables["params"]
    plain = {name: layer for name, layer in params.items() if not name.endswith("_bn")}
    features = model.apply(variables, x, train=True, method="features")
    np.testing.assert_array_equal(
        features, CNN1D(**SMALL).apply({"params": plain}, x, method="features")
    )
    assert composed(params)[0].shape == (10, 1, 3)
    _, updated = model.clone(dropout=(0.0, 0.0)).apply(
        variables, x, train=True, mutable=["batch_stats"]
    )
    y = np.asarray(features) @ params["dense1"]["kernel"] + params["dense1"]["bias"]
    stats = updated["batch_stats"]["dense1_bn"]
    np.testing.assert_allclose(stats["mean"], 0.2 * y.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.8 + 0.2 * y.var(0), rtol=1e-4)


@pytest.mark.slow
def test_folds_with_batch_norm_train_side_by_side_and_resume(quick_compile):
    """Moving statistics belong to a fold's state: in a loop, side by side, and resumed."""
    sizes = {"filters": (3, 2), "window": 3, "dense": (6, 5), "dropout": (0.1, 0.1)}
    norm = {"batch_norm": True, "norm_layers": "dense", "norm_momentum": 0.9}
    program = tiny.program(model=CNN1D(2, **sizes, **norm), lr=2e-3)
    tasks = [tiny.task(program, f"fold {i}", seed=i, of="vectors") for i in range(3)]

    def run(strategy, **options):
        options |= {"epochs": 4, "every": 2, "factor": 1e-3, "strategy": strategy}
        found = loop.fit(program, tasks, **options)
        return {task.name: tiny.outcome(program, task, trained) for task, trained in found}

    want = run("loop")
    names = {*want["fold 0"]} - {"epoch", "done"}
    assert {f"weights/{which}/batch_stats/dense1_bn/mean" for which in ("best", "last")} <= names
    assert np.abs(want["fold 0"]["weights/last/batch_stats/dense1_bn/mean"]).max() > 0.01
    interrupted = {}
    for first, second in (("loop", "scan"), ("scan", "loop")):
        store = tiny.Memory()
        with pytest.raises(KeyboardInterrupt):
            run(first, store=store, log=tiny.stop_at("fold 0", 3))
        interrupted[first] = run(second, store=store)
        assert store.saved[0] == ("fold 0", 2 * tiny.STEPS)
    for got in (run("scan"), *interrupted.values()):
        for name in want:
            tiny.same(got[name], want[name], rtol=1e-3, atol=1e-4, names=names)


def test_dropout_is_inverted_and_given_by_its_key():
    model, variables, x = small(dropout=(0.5, 0.0))
    features = model.apply(variables, x, method="features")
    # Identity layers behind the dropout show the remaining features.
    model = model.clone(dense=(33,), num_classes=33)
    eye = {"kernel": jnp.eye(33), "bias": jnp.full(33, 100.0)}
    params = {**variables["params"], "dense1": eye, "dense2": {**eye, "bias": jnp.full(33, -100.0)}}
    params.pop("dense3")

    def run(seed, train=True):
        return model.apply(
            {"params": params}, x, train=train, rngs={"dropout": jax.random.key(seed)}
        )

    got = run(0)
    kept = np.abs(got) > 1e-4
    np.testing.assert_allclose(got[kept], 2 * features[kept], rtol=1e-3, atol=1e-4)
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_array_equal(got, run(0))
    assert (np.asarray(run(1) != got)).any()
    np.testing.assert_allclose(run(0, train=False), features, atol=1e-4)


def test_both_dropouts_act_in_training_only():
    for rates in [(0.9, 0.0), (0.0, 0.9)]:
        model, variables, x = small(dropout=rates)
        plain = model.clone(dropout=(0.0, 0.0)).apply(variables, x)
        noisy = model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)})
        assert (np.asarray(plain != noisy)).any()
        np.testing.assert_array_equal(plain, model.apply(variables, x))


def test_folds_under_jit_and_vmap_equal_a_loop():
    model, _, x = small()
    folds = [small(seed)[1]["params"] for seed in range(3)]
    keys = jax.random.split(jax.random.key(0), 3)

    def loss(params, key):
        logits = model.apply({"params": params}, x, train=True, rngs={"dropout": key})
        return (logits**2).sum() + penalty(params, "l2", 0.1)

    grad = jax.jit(jax.value_and_grad(loss))
    got = jax.jit(jax.vmap(grad))(jax.tree.map(lambda *p: jnp.stack(p), *folds), keys)
    want = [grad(params, key) for params, key in zip(folds, keys, strict=True)]
    want = jax.tree.map(lambda *p: np.stack(p), *want)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), got, want)


def test_half_precision_computes_with_parameters_kept_in_single():
    model, variables, x = small()
    half = model.clone(dtype=jnp.bfloat16)
    got = half.apply(variables, x)
    assert got.dtype == jnp.bfloat16
    want = model.apply(variables, x)
    np.testing.assert_allclose(got.astype(np.float32), want, atol=0.05 * np.abs(want).max())


def test_penalties_by_hand():
    _, variables, _ = small()
    params = jax.tree.map(np.asarray, variables["params"])
    kernels = sum((layer["kernel"] ** 2).sum() for layer in params.values())
    np.testing.assert_allclose(penalty(params, "l2", 5e-2), 0.05 * kernels, rtol=1e-6)
    hidden = sum(np.abs(leaf).sum() for d in ("dense1", "dense2") for leaf in params[d].values())
    np.testing.assert_allclose(penalty(params, "l1", 5e-3), 0.005 * hidden, rtol=1e-6)


def test_penalties_take_a_traced_factor():
    _, variables, _ = small()
    params = variables["params"]
    for kind in ("l1", "l2"):
        want = penalty(params, kind, 0.3)
        got = jax.jit(penalty, static_argnames="kind")(params, kind, 0.3)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        slope = jax.grad(penalty, argnums=2)(params, kind, 0.3)
        np.testing.assert_allclose(slope, want / 0.3, rtol=1e-6)


def test_penalty_ignores_batch_norm():
    _, variables, _ = small(batch_norm=True)
    params = variables["params"]
    without = {name: layer for name, layer in params.items() if not name.endswith("_bn")}
    for kind in ("l1", "l2"):
        np.testing.assert_array_equal(penalty(params, kind, 1.0), penalty(without, kind, 1.0))


def test_the_narrowest_vector():
    model, variables, _ = small()
    x = np.ones((2, 10), np.float32)
    params = {**variables["params"], "dense1": {"kernel": jnp.ones((3, 8)), "bias": jnp.ones(8)}}
    assert model.apply({"params": params}, x, method="features").shape == (2, 3)
    assert model.apply({"params": params}, x[:0]).shape == (0, 3)


def test_says_what_is_wrong():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"want x \[batch, voxels >= 55\]; got \(4, 54\)"):
        CNN1D().init(key, np.zeros((4, 54)))
    with pytest.raises(ValueError, match=r"got \(4, 300, 1\)"):
        CNN1D().init(key, np.zeros((4, 300, 1)))
    with pytest.raises(ValueError, match=r"want conv_activation: one of '', .*; got 'swish'"):
        CNN1D(conv_activation="swish").init(key, np.zeros((4, 300)))
    wrong = {"filters": (), "window": -1, "dense": (8, 0), "dropout": (0.1,)}
    for field, value in (wrong | {"norm_layers": "conv", "norm_momentum": 1.0}).items():
        with pytest.raises(ValueError, match=f"want {field}: .*; got {re.escape(repr(value))}"):
            CNN1D(**{field: value}).init(key, np.zeros((4, 300)))
    with pytest.raises(ValueError, match=r"want kind 'l1' or 'l2' and factor >= 0; got 'l3', 1\.0"):
        penalty({}, "l3", 1.0)
    with pytest.raises(ValueError, match=r"got 'l2', -1\.0"):
        penalty({}, "l2", -1.0)
