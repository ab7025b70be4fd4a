"""conv3d and max_pool against XLA's own convolution and window reduction, and Keras' padding."""

import functools
import json

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from emojax.models import convolution
from emojax.models.convolution import conv3d, max_pool

# Volume, channels in and out, window, stride: the stem, both sides of SMALL and FEW, subsampling.
CASES = [
    ((16, 14, 11), 1, 8, 7, 2),
    ((9, 8, 7), 5, 6, 3, 1),
    ((9, 8, 7), 5, 6, 3, 2),
    ((4, 4, 3), 6, 5, 3, 1),
    ((5, 3, 4), 6, 5, 3, 2),
    ((1, 1, 1), 6, 5, 3, 2),
    ((9, 8, 7), 3, 4, 2, 2),
    ((9, 8, 7), 9, 6, 3, 1),
    ((9, 8, 7), 9, 6, 3, 2),
    ((7, 6, 5), 4, 3, 1, 1),
    ((7, 6, 5), 4, 3, 1, 2),
]


def reference(x, kernel, strides, padding="SAME"):
    layout = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=layout, precision="highest"
    )


def make_data(size, inside, outside, window, dtype, batch=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *size, inside))
    kernel = rng.normal(size=(window,) * 3 + (inside, outside)) / np.sqrt(window**3 * inside)
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def close(got, want, dtype):
    assert got.dtype == dtype
    atol = (2e-6 if dtype == np.float32 else 1e-14) * max(1, np.abs(want).max())
    np.testing.assert_allclose(got, want, rtol=0, atol=atol)


def value_and_gradients(convolve, x, kernel):
    y, pull = jax.vjp(convolve, x, kernel)
    return y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


def check(case, padding, dtype, batch=2):
    *shape, window, stride = case
    x, kernel = make_data(*shape, window, dtype, batch)
    options = {"strides": (stride,) * 3, "padding": padding}
    got, want = (
        jax.jit(functools.partial(value_and_gradients, functools.partial(f, **options)))(x, kernel)
        for f in (conv3d, reference)
    )
    for one, other in zip(got, want, strict=True):
        close(one, other, dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_xla(case, dtype):
    check(case, "SAME", dtype)


@pytest.mark.parametrize("case", CASES[1:4], ids=str)
def test_without_padding(case):
    check(case, "VALID", np.dtype("float32"))


@pytest.mark.parametrize("case", [CASES[0], CASES[1], *CASES[7:9]], ids=str)
def test_volumes_in_turns(case, monkeypatch):
    """Nine volumes computed two at a time, the last one alone, as for large maps."""
    monkeypatch.setattr(convolution, "LARGE", 1)
    monkeypatch.setattr(convolution, "TURNS", 5)
    check(case, "SAME", np.dtype("float32"), batch=9)


def test_strides_and_windows_may_differ_between_axes():
    x, _ = make_data((9, 8, 7), 3, 4, 3, "float32")
    kernel = jax.random.normal(jax.random.key(0), (1, 2, 3, 3, 4)) / 4
    want = reference(x, kernel, (2, 1, 3))
    close(jax.jit(functools.partial(conv3d, strides=(2, 1, 3)))(x, kernel), want, np.float32)


@pytest.mark.parametrize("size", [(8, 7, 6), (4, 4, 3)])
def test_jit_of_vmap_equals_a_loop(size):
    x, kernel = make_data(size, 3, 4, 3, "float32", batch=6)
    x, kernels = x.reshape(3, 2, *size, 3), jnp.stack([kernel, 2 * kernel, kernel[::-1]])
    want = np.stack([conv3d(*pair) for pair in zip(x, kernels, strict=True)])
    close(jax.jit(jax.vmap(conv3d))(x, kernels), want, np.float32)
    want = np.stack([max_pool(one) for one in x])
    np.testing.assert_array_equal(jax.jit(jax.vmap(max_pool))(x), want)


def test_can_be_lowered_for_other_platforms():
    shapes = [jax.ShapeDtypeStruct(s, "float32") for s in ((1, 8, 8, 8, 3), (3, 3, 3, 3, 4))]
    program = jax.jit(conv3d).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("stablehlo.convolution") == 1
    assert "tensor<3x3x3x3x4xf32>) -> tensor<1x8x8x8x4xf32>" in program  # a 3D convolution


def test_bfloat16_stays_bfloat16():
    x, kernel = make_data((8, 8, 8), 3, 4, 3, "float32")
    got = jax.jit(conv3d)(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    assert got.dtype == max_pool(got).dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype("float32"), conv3d(x, kernel), rtol=0, atol=0.05)


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("size", [(8, 7, 6), (1, 2, 3)])
def test_max_pool_and_its_gradient_are_those_of_xla(size, window, stride, dtype):
    x, _ = make_data(size, 3, 4, 3, dtype)

    def by_xla(x):
        window_, strides = (1, *(window,) * 3, 1), (1, *(stride,) * 3, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, window_, strides, "SAME")

    got, pull = jax.vjp(functools.partial(max_pool, window=window, stride=stride), x)
    want, pull_xla = jax.vjp(by_xla, x)
    np.testing.assert_array_equal(got, want)
    weights = jnp.cos(jnp.arange(want.size, dtype=dtype)).reshape(want.shape)
    close(pull(weights)[0], pull_xla(weights)[0], dtype)


def test_equal_maxima_share_their_gradient():
    grad = jax.grad(lambda x: max_pool(x).sum())(jnp.zeros((1, 3, 4, 2, 1)))
    np.testing.assert_allclose(grad.sum(), 2 * 2 * 1)
    assert (grad >= 0).all()


KERAS = goldens.load("convolution")


@pytest.mark.parametrize(
    "run", [r for r in goldens.index(KERAS) if "stride" in r], ids=lambda run: run["key"]
)
def test_values_and_gradients_are_those_of_keras(run, dtype):
    z = {name: array.astype(dtype) for name, array in goldens.below(KERAS, run["key"]).items()}
    convolve = functools.partial(conv3d, strides=(run["stride"],) * 3, padding=run["padding"])
    got = jax.jit(functools.partial(value_and_gradients, convolve))(z["x"], z["kernel"])
    for name, one in zip(("y", "d_x", "d_kernel"), got, strict=True):
        close(one, z[name], dtype)


@pytest.mark.parametrize("key", [r["key"] for r in goldens.index(KERAS) if "stride" not in r])
def test_max_pool_and_its_gradient_are_those_of_keras(key):
    z = goldens.below(KERAS, key)
    got, pull = jax.vjp(max_pool, jnp.asarray(z["x"]))
    np.testing.assert_array_equal(got, z["y"])
    weights = jnp.cos(jnp.arange(got.size, dtype=got.dtype)).reshape(got.shape)
    close(pull(weights)[0], z["d_x"], np.dtype("float32"))


def test_pads_as_keras(shared):
    for stage in json.loads(shared("golden/keras/padding.json").read_text())["stages"]:
        if stage["model"] != "resnet50" or stage["op"] != "Conv3D":
            continue
        rng = np.random.default_rng(0)
        x = jnp.asarray(rng.normal(size=(1, *stage["in_dims"], 1)), "float32")
        kernel = jnp.asarray(rng.normal(size=(*stage["kernel"], 1, 1)), "float32")
        pads = list(zip(stage["pad_before"], stage["pad_after"], strict=True))
        got = conv3d(x, kernel, stage["strides"], stage["keras_padding"].upper())
        assert list(got.shape[1:4]) == stage["out_dims"], stage["path"]
        np.testing.assert_allclose(got, reference(x, kernel, stage["strides"], pads), atol=1e-4)


def test_says_what_is_wrong():
    x, kernel = make_data((4, 4, 4), 3, 4, 5, "float32")
    with pytest.raises(ValueError, match=r"got \(2, 4, 4, 4, 2\) and \(5, 5, 5, 3, 4\)"):
        conv3d(x[..., :2], kernel)
    with pytest.raises(ValueError, match=r"got \(4, 4, 4, 3\) and"):
        conv3d(x[0], kernel)
    with pytest.raises(ValueError, match="want padding 'SAME' or 'VALID'; got 'same'"):
        conv3d(x, kernel, padding="same")
    with pytest.raises(ValueError, match=r"no larger than the volume; got \(5, 5, 5\) and \(4, 4"):
        conv3d(x, kernel, padding="VALID")
