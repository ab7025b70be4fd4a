"""The 3D ResNets against recorded outputs of the published Keras code, and their own laws."""

import functools
import importlib.util
import json

import goldens
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


STATISTICS = {"mean": "moving_mean", "var": "moving_variance"}


@functools.cache
def load_recipe(path):
    spec = importlib.util.spec_from_file_location("recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.weights = functools.lru_cache(2)(module.weights)
    return module


@pytest.fixture
def recipe(shared):
    """Returns the module that makes the weights and inputs of the goldens."""
    return load_recipe(shared("golden/keras/recipe.py"))


def flat(tree, separator="/"):
    """Returns {"stem/conv/kernel": array, ...}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {separator.join(key.key for key in path): leaf for path, leaf in leaves}


def tree(weights, dtype):
    """Returns variables from {"stem/bn/gamma": array, ...}."""
    variables = {"params": {}, "batch_stats": {}}
    for path, value in weights.items():
        *parents, leaf = path.split("/")
        node = variables["batch_stats" if leaf.startswith("moving") else "params"]
        for name in parents:
            node = node.setdefault(name, {})
        node[LEAVES.get(leaf, leaf)] = jnp.asarray(value, dtype)
    return variables


def tiny(**options):
    """Returns two narrow stages of bottlenecks, their variables and a batch."""
    model = ResNet3D(2, blocks=(1, 1), bottleneck=True, width=16, **options)
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 12))
    return model, jax.jit(model.init)(jax.random.key(1), x), x


def check_inference(recipe, golden, name, model, dtype, atol):
    variables = tree(recipe.weights(name), dtype)
    x = jnp.asarray(recipe.resnet_inputs(recipe.RESNET_SPEC[name][2]), dtype)
    logits, features = jax.jit(functools.partial(model.apply, features=True))(variables, x)
    assert logits.dtype == features.dtype == dtype
    np.testing.assert_allclose(features, golden[f"{name}/features_f64"], rtol=0, atol=atol)
    np.testing.assert_allclose(logits, golden[f"{name}/logits_f64"], rtol=0, atol=atol)


NARROW = goldens.load("resnet3d")
NETWORKS = {name: run for name, run in goldens.index(NARROW).items() if "block" in run}


def narrow(name, dtype):
    """Returns a network of tests/data, its variables, and what Keras recorded of it."""
    run, z = NETWORKS[name], goldens.below(NARROW, name)
    options = {"width": run["width"], "dtype": dtype, "param_dtype": dtype}
    model = ResNet3D(2, tuple(run["blocks"]), run["block"] == "bottleneck", **options)
    return model, tree(goldens.below(z, "weights"), dtype), z


@pytest.mark.parametrize("name", NETWORKS)
def test_narrow_networks_match_keras(name, dtype):
    model, variables, z = narrow(name, dtype)
    apply = jax.jit(functools.partial(model.apply, features=True))
    logits, features = apply(variables, jnp.asarray(z["x"], dtype))
    assert logits.dtype == features.dtype == dtype
    atol = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(features, z["features"].reshape(features.shape), rtol=0, atol=atol)
    np.testing.assert_allclose(logits, z["logits"], rtol=0, atol=atol)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_step_of_narrow_networks_matches_keras(name, dtype):
    model, variables, z = narrow(name, dtype)
    rtol = 1e-10 if dtype == np.float64 else 1e-3
    x, y = jnp.asarray(z["train/x"], dtype), jnp.eye(2, dtype=dtype)[z["train/labels"]]
    step = jax.jit(functools.partial(train_step, model))
    (loss, (logits, statistics, penalty)), grads = step(variables, x, y)
    np.testing.assert_allclose(logits, z["train/logits"], rtol=0, atol=rtol)
    np.testing.assert_allclose(penalty, z["train/penalty"], rtol=min(rtol, 1e-6))
    np.testing.assert_allclose(loss - penalty, z["train/nll"], rtol=rtol)
    after = tree(goldens.below(z, "after"), dtype)["batch_stats"]
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=max(rtol / 10, 1e-8)),
        statistics,
        after,
    )
    want = flat(tree(goldens.below(z, "grad"), dtype)["params"])
    grads = flat(grads)
    assert set(want) == set(grads)
    for path, array in want.items():
        if np.linalg.norm(array) > 1e-9:  # the batch norm behind it takes a bias away
            error = np.linalg.norm(grads[path] - array) / np.linalg.norm(array)
            assert error < rtol, (path, error)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_the_published_sizes_are_those_of_keras(name):
    shapes = goldens.index(NARROW)[name]
    x = jnp.zeros((1, 64, 64, 44))
    variables = jax.eval_shape(getattr(resnet3d, name)(2).init, jax.random.key(0), x)
    got = {path.split("/", 1)[1]: leaf.shape for path, leaf in flat(variables).items()}
    want = {}
    for path, shape in shapes.items():
        layer, kind = path.rsplit("/", 1)
        want[f"{layer}/{LEAVES.get(kind, kind)}"] = tuple(shape)
    assert got == want


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
    count = {group: sum(leaf.size for leaf in jax.tree.leaves(shapes[group])) for group in shapes}
    assert count["params"] == manifest["models"][name]["trainable_params"]
    assert count["batch_stats"] == manifest["models"][name]["non_trainable_params"]


def train_step(model, variables, x, y):
    """Returns ((loss, (logits, moving statistics, penalty)), gradients)."""

    def loss_fn(params):
        logits, updated = model.apply(
            {**variables, "params": params}, x, train=True, mutable="batch_stats"
        )
        penalty = resnet3d.l2(params, 2e-4, 1e-4)
        nll = optax.softmax_cross_entropy(logits, y).mean()
        return nll + penalty, (logits, updated["batch_stats"], penalty)

    return jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])


@pytest.mark.parametrize(
    "name", ["small_bottleneck", pytest.param("resnet18", marks=pytest.mark.slow)]
)
def test_training_step_matches_keras(name, recipe, shared, dtype):
    if name == "resnet18" and dtype == np.float64:
        pytest.skip("the full shape is checked in single precision")
    # Keras' own float32 gradients of resnet18 are up to 9e-3 from its float64 ones.
    rtol = 2e-11 if dtype == np.float64 else {"small_bottleneck": 1e-4, "resnet18": 2e-2}[name]
    golden = np.load(shared("golden/keras/train_step_golden.npz"))
    report = json.loads(shared("golden/keras/train_step_manifest.json").read_text())[name]["f64"]
    blocks = recipe.RESNET_SPEC[name][1]
    model = ResNet3D(2, tuple(blocks), name != "resnet18", dtype=dtype, param_dtype=dtype)
    x, y = (a.astype(dtype) for a in recipe.resnet_train_batch(recipe.RESNET_SPEC[name][2]))
    step = jax.jit(functools.partial(train_step, model))
    (loss, (logits, statistics, penalty)), grads = step(tree(recipe.weights(name), dtype), x, y)

    want = report["train_mode_before"]
    np.testing.assert_allclose(logits, want["logits"], rtol=0, atol=min(rtol, 1e-4))
    rounding = max(min(rtol, 1e-5), 2e-7)  # Keras rounded its loss to float32
    np.testing.assert_allclose([loss, penalty], [want["total"], want["reg"]], rtol=rounding)
    for key, got in flat(statistics, ".").items():
        path, leaf = key.rsplit(".", 1)
        want = golden[f"{name}/f64/{path}.{STATISTICS[leaf]}"]
        # Keras' float64 statistics are off by 1e-9, as a momentum rounded to float32 makes them.
        np.testing.assert_allclose(got, want, rtol=0, atol=min(max(rtol, 1e-8), 1e-5))
    check_gradients(flat(grads), report["tensors"], rtol)


def check_gradients(grads, tensors, rtol):
    checked = set()
    for tensor in tensors:
        path, kind = tensor["path"].rsplit("/", 1)
        got = grads.get(key := f"{path}/{LEAVES.get(kind, kind)}")
        if got is None or tensor["grad_norm"] < 1e-9:
            continue  # a statistic, or the bias of a convolution: a batch norm takes it away
        atol = rtol * tensor["grad_norm"]
        np.testing.assert_allclose(np.linalg.norm(got), tensor["grad_norm"], rtol=rtol)
        first = np.ravel(got)[:8]
        np.testing.assert_allclose(first, tensor["grad_first8"][: len(first)], rtol=0, atol=atol)
        checked.add(key)
    biases = {key for key in grads if key.endswith(("/bias",)) and "/bn" not in key}
    assert set(grads) - checked == biases - {"head/dense/bias"}


@pytest.mark.slow
def test_initial_parameters(x64):
    _, variables, _ = tiny(param_dtype=np.float64)
    for key, leaf in flat(variables).items():
        if key.endswith("kernel"):
            unit = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            assert np.abs(leaf).max() / unit <= 2.2737  # two sigma of the untruncated normal
            if leaf.size > 5000:
                np.testing.assert_allclose(np.std(leaf) / unit, 1, rtol=0.03)
        else:
            assert (leaf == (1 if key.endswith(("scale", "var")) else 0)).all()


@pytest.mark.slow
def test_volumes_do_not_meet_in_inference():
    model, variables, x = tiny()
    apply = jax.jit(functools.partial(model.apply, features=True))
    logits, features = apply(variables, x)
    assert logits.shape == (2, 2) and features.shape == (2, 4 * 2 * 16)
    for i in range(len(x)):
        one = apply(variables, x[i : i + 1, ..., None])  # the channel axis may be given
        np.testing.assert_allclose(one[0][0], logits[i], atol=1e-4)
        np.testing.assert_allclose(one[1][0], features[i], atol=1e-4)


@pytest.mark.slow
def test_remat_and_vmap_change_nothing():
    model, variables, x = tiny()
    y = jnp.eye(2)
    plain, again = (
        jax.jit(functools.partial(train_step, m))(variables, x, y)
        for m in (model, model.copy(remat=True))
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-3), plain, again)

    @jax.jit
    def loss(variables, x):
        return train_step(model, variables, x, y)[0][0]

    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), variables)
    got = jax.vmap(loss)(two, jnp.stack([x, x[::-1]]))
    want = [plain[0][0], loss(variables, x[::-1])]
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.slow
def test_bfloat16_computes_short_and_keeps_long():
    model, variables, x = tiny(head_features=8)
    short = model.copy(dtype=jnp.bfloat16)
    want, (logits, features) = (
        jax.jit(functools.partial(m.apply, features=True))(variables, x) for m in (model, short)
    )
    assert logits.dtype == features.dtype == jnp.float32
    for got, other in zip((logits, features), want, strict=True):
        np.testing.assert_allclose(got, other, atol=0.03 * np.abs(other).max())
    step = functools.partial(train_step, short)
    (_, (_, statistics, _)), grads = jax.eval_shape(step, variables, x, jnp.eye(2))
    assert {leaf.dtype for leaf in jax.tree.leaves((statistics, grads))} == {np.dtype("float32")}


def test_head_features_add_a_layer():
    shapes = jax.eval_shape(
        resnet3d.resnet50(3, head_features=1000).init, jax.random.key(0), jnp.zeros((1, 64, 64, 44))
    )
    head = {key: leaf.shape for key, leaf in flat(shapes["params"]["head"]).items()}
    assert head == {
        "features/kernel": (2048, 1000),
        "features/bias": (1000,),
        "dense/kernel": (1000, 3),
        "dense/bias": (3,),
    }


def test_penalty_by_hand():
    params = {
        "stem": {"conv": {"kernel": jnp.array([1.0, 2]), "bias": jnp.array([9.0])}},
        "stage1": {"block1": {"shortcut": {"kernel": jnp.array([3.0]), "bias": jnp.array([9.0])}}},
        "final": {"bn": {"scale": jnp.array([9.0]), "bias": jnp.array([9.0])}},
        "head": {"dense": {"kernel": jnp.array([-4.0]), "bias": jnp.array([9.0])}},
    }
    np.testing.assert_allclose(resnet3d.l2(params, 0.1), 0.1 * (1 + 4 + 9 + 16))
    np.testing.assert_allclose(jax.jit(resnet3d.l2)(params, 0.1, 0.5), 0.1 * 21 + 0.5 * 9)
    grad = jax.grad(resnet3d.l2)(params, 0.1, 0.0)
    assert grad["head"]["dense"] == {"kernel": -0.8, "bias": 0}
    assert grad["stage1"]["block1"]["shortcut"]["kernel"] == 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((64, 64, 44), r"want volumes \[batch, x, y, z\] .* got \(64, 64, 44\)"),
        ((1, 64, 64, 44, 2), r"got \(1, 64, 64, 44, 2\)"),
        ((1, 64, 64, 8), r"at least 9 voxels along each axis.* got volumes of \(64, 64, 8\)"),
    ],
)
def test_says_what_is_wrong_with_volumes(shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(resnet3d.resnet18(2).init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize(
    "field", [{"width": -1}, {"head_features": -3}, {"momentum": float("nan")}, {"width": 2.5}]
)
def test_says_which_field_is_out_of_range(field):
    ((name, value),) = field.items()
    model, x = resnet3d.resnet18(2, **field), jnp.zeros((1, 9, 9, 9))
    with pytest.raises(ValueError, match=f"want {name}: .*; got {value}"):
        jax.eval_shape(model.init, jax.random.key(0), x)


@pytest.mark.slow
def test_the_smallest_volume():
    model = SMALL["small_basic"](num_classes=2, width=4)
    x = jnp.zeros((1, 9, 9, 9))
    assert jnp.isfinite(jax.jit(model.init_with_output)(jax.random.key(0), x)[0]).all()
