"""The registry of networks, a user's module by its path, and refusals in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import strangers
from ml_collections import ConfigDict

from emojax import fusion, models
from emojax.errors import InputError
from emojax.models import cnn1d, resnet3d

A = ConfigDict({"conv_activation": "", "batch_norm": False, "dropout": (0.25, 0.5)})
B = ConfigDict(
    {
        "depth": 18,
        "width": 4,
        "head_features": 0,
        "dtype": "device",
        "remat": False,
        "norm_momentum": 0.9,
    }
)


def changed(config, **values):
    config = config.copy_and_resolve_references()
    config.update(values)
    return config


def test_every_network_of_the_registry_is_whole():
    for name, config in (("cnn1d", A), ("residual", changed(A, dense=(8,))), ("resnet3d", B)):
        network = models.find(name)
        module = network.make(config, 3)
        least = network.least(config) + 3 * network.linear
        shape = (least,) if network.input == "vector" else (least,) * 3
        models.check_module(name, module, shape, 3)
        network.check_foldable(config)
        assert network.apply is not None and "l2" in network.kinds
    assert [*models.NETWORKS] == ["cnn1d", "residual", "resnet3d"]


def test_cnn1d_from_a_config():
    network = models.find("cnn1d")
    assert network.make(A, 3) == cnn1d.CNN1D(3)  # bundles of 0.3.0 know no sizes of layers
    assert (network.label(A), network.input, network.least(A)) == ("CNN", "vector", 55)
    small = changed(A, filters=(8, 4), window=5, dense=(6,), dropout=(0.0, 0.1))
    assert network.make(small, 2) == cnn1d.CNN1D(2, (8, 4), 5, (6,), (0.0, 0.1))
    assert network.least(small) == 9
    other = network.make(changed(A, conv_activation="relu", batch_norm=True), 3)
    assert (other.conv_activation, other.batch_norm) == ("relu", True)


def test_resnet3d_from_a_config():
    network = models.find("resnet3d")
    want = resnet3d.resnet18(2, width=4, momentum=0.9)
    assert network.make(B, 2) == want  # on a CPU, "device" is float32
    assert (network.label(B), network.input, network.least(B)) == ("ResNet-18", "volume", 9)
    short = network.make(changed(B, dtype="bfloat16", head_features=5, remat=True), 2)
    assert (short.dtype, short.head_features, short.remat) == (jnp.bfloat16, 5, True)
    assert network.make(ConfigDict(), 2).blocks == resnet3d.resnet50(2).blocks


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        *(("cnn1d", "conv_activation", value) for value in ("sine", "\x00", None)),
        *(("cnn1d", "filters", value) for value in ((), (8, 0), (8.5,), "abc", 3)),
        *(("cnn1d", "window", value) for value in (0, -1, 2**31, 2.0)),
        *(("cnn1d", "dense", value) for value in ((8, -1), ("a",))),
        *(("cnn1d", "dropout", value) for value in ((0.5, 1.0), (0.5,), (float("nan"), 0.1), 0.5)),
        *(("resnet3d", "depth", value) for value in (20, -1, 10**20)),
        *(("resnet3d", "width", value) for value in (0, -1, 10**20)),
        *(("resnet3d", "head_features", value) for value in (-1, 10**20)),
        *(("resnet3d", "dtype", value) for value in ("float16", "")),
        *(("resnet3d", "norm_momentum", value) for value in (1.0, -1.0, float("nan"))),
    ],
)
def test_values_that_break_a_rule(name, key, value):
    assert not models.find(name).rules[key].holds(value)


def test_configs_keep_the_rules_of_their_network():
    for name, config in (("cnn1d", A), ("resnet3d", B)):
        rules = models.find(name).rules
        assert all(rules[key].holds(value) for key, value in config.items())
    assert models.find("strangers:MLP").rules == {}  # keys of the same name are its own affair


def test_a_module_class_by_its_path():
    network = models.find("strangers:MLP")
    assert network == models.find("strangers:MLP")  # programs are compared by it
    assert network.make(A, 5) == strangers.MLP(num_classes=5)
    assert (network.label(A), network.input, network.least(A)) == ("MLP", "vector", 1)
    models.check_module("strangers:MLP", network.make(A, 5), (12,), 5)
    volumes = models.find("strangers:Volumes")
    assert volumes.make(B, 5).classes == 5 and volumes.input == "volume"
    models.check_module("strangers:Volumes", volumes.make(B, 5), (4, 3, 2), 5)


def test_a_network_by_its_path():
    assert models.find("strangers:OWN") is strangers.OWN
    assert strangers.OWN.make(A, 2).hidden == 7


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mlp", "model.name: found 'mlp'; expected one of cnn1d, residual, resnet3d, or 'package"),
        ("nowhere.nets:MLP", "model.name: found 'nowhere.nets:MLP' .*no module 'nowhere'"),
        ("strangers:Nobody", "model.name: found 'strangers:Nobody'"),
        ("strangers:NOTHING", "an object of the class int; expected a Network, or a Flax"),
        ("ml_collections:ConfigDict", "the class ConfigDict; expected a Network"),
        ("strangers:Odd", "strangers:Odd.input: found 'surface'; expected one of"),
    ],
)
def test_what_is_no_network(name, said):
    with pytest.raises(InputError, match=said):
        models.find(name)


def test_modules_that_cannot_be_trained():
    bare = models.find("strangers:Bare")
    with pytest.raises(InputError, match=r"model.name: found 'strangers:Bare' .*expected a mo"):
        bare.make(A, 3)
    with pytest.raises(InputError, match=r"'strangers:Bare' \(.*train.*expected .*train=bool"):
        models.check_module("strangers:Bare", strangers.Bare(), (6,), 3)
    with pytest.raises(InputError, match=r"outputs \[2, 3\]; expected logits \[2, 5\] of x \[2, 6"):
        models.check_module("strangers:MLP", strangers.MLP(3), (6,), 5)
    with pytest.raises(InputError, match=r"found 'cnn1d' \(want x \[batch, voxels >= 55"):
        models.check_module("cnn1d", cnn1d.CNN1D(3), (54,), 3)


@pytest.mark.parametrize("name", ["cnn1d", "resnet3d", "strangers:MLP"])
def test_penalties_take_a_traced_factor(name):
    rng = np.random.default_rng(0)
    layers = {
        k: {"kernel": rng.normal(size=(3, 2)), "bias": np.ones(2)} for k in ("conv1", "dense1")
    }
    want = 0.3 * sum((layer["kernel"] ** 2).sum() for layer in layers.values())
    penalty = models.find(name).penalty
    np.testing.assert_allclose(penalty(layers, "l2", 0.3), want, rtol=1e-6)
    got = jax.jit(penalty, static_argnums=1)(layers, "l2", 0.3, None)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    got = jax.vmap(lambda factor: penalty(layers, "l2", factor))(jnp.array([0.3, 0.0]))
    np.testing.assert_allclose(got, [want, 0], rtol=1e-6)
    for factor in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"got 'l2', {factor}"):
            penalty(layers, "l2", factor)
    with pytest.raises(ValueError, match="got 'l3', 1"):
        penalty(layers, "l3", 1.0)


def test_shortcuts_have_a_factor_of_their_own():
    params = {"shortcut": {"kernel": jnp.array([3.0])}, "conv": {"kernel": jnp.array([2.0])}}
    assert models.find("resnet3d").penalty(params, "l2", 0.1, 0.5) == pytest.approx(0.4 + 4.5)
    with pytest.raises(ValueError, match="got 'l1'"):
        models.find("resnet3d").penalty(params, "l1", 0.1)


def test_a_penalty_that_would_be_nothing_is_refused():
    params = strangers.Flat(2).init(jax.random.key(0), jnp.ones((1, 3)), train=False)["params"]
    penalty = models.find("strangers:Flat").penalty
    assert penalty(params, "l2", 0.0) == 0
    for call in (penalty, jax.jit(penalty, static_argnums=1)):
        with pytest.raises(ValueError, match="want parameters called 'kernel'"):
            call(params, "l2", 0.1)


def test_what_cannot_be_folded_ends_in_one_line():
    network = models.find("cnn1d")
    with pytest.raises(
        InputError, match=r"model: found model.conv_activation='relu'; expected a n"
    ):
        network.check_foldable(changed(A, conv_activation="relu"))
    network.check_foldable(changed(A, batch_norm=True))
    with pytest.raises(InputError, match="model: found MLP, a network without folding"):
        models.find("strangers:MLP").check_foldable(A)
    with pytest.raises(ValueError, match="got 'strangers:MLP'"):
        fusion.apply("strangers:MLP", {"voxels": jnp.arange(2)}, jnp.ones((2, 2, 2)))
