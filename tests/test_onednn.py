"""Compilation with oneDNN's convolutions: the same numbers as without, and never half of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from emojax.models import onednn, resnet3d
from emojax.models.convolution import conv3d

HAS = onednn.path() == "onednn"
# Volume, channels in and out, window, stride: maps of more than 64 voxels, which oneDNN gets, and
# those of fewer, which stay products.
LARGE = [
    ((16, 14, 11), 1, 8, 7, 2),
    ((9, 8, 7), 8, 16, 3, 1),
    ((9, 8, 10), 8, 16, 3, 2),
    ((9, 8, 7), 16, 8, 2, 1),
]
SMALL = [((2, 2, 2), 16, 16, 3, 1), ((4, 4, 3), 8, 16, 3, 2), ((9, 8, 7), 8, 16, 1, 2)]


def make(size, inside, outside, window, batch=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *size, inside))
    kernel = rng.normal(size=(window,) * 3 + (inside, outside)) / np.sqrt(window**3 * inside)
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def value_and_gradients(stride, x, kernel):
    y, pull = jax.vjp(functools.partial(conv3d, strides=(stride,) * 3), x, kernel)
    g = jnp.arange(y.size) * 7 % 13 - 6  # whole numbers, which every dtype holds exactly
    return y, *pull(g.astype(y.dtype).reshape(y.shape))


def calls(jitted, *args):
    return jitted.lower(*args).compile().as_text().count(f'custom_call_target="{onednn.CALL}"')


def lowered(jitted, *args):
    return jitted.lower(*args).as_text()


def test_names_the_path():
    assert onednn.path() in ("onednn", "planes")
    if jax.__version_info__ < (0, 11):
        assert onednn.path() == "planes"


@pytest.mark.parametrize("case", LARGE + SMALL, ids=str)
def test_values_and_gradients_are_those_of_the_other_lowering(case):
    *shape, stride = case
    x, kernel = make(*shape)
    one = functools.partial(value_and_gradients, stride)
    plain, jitted = jax.jit(one), onednn.jit(one)
    for got, want in zip(jitted(x, kernel), plain(x, kernel), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
    assert calls(plain, x, kernel) == 0
    assert (calls(jitted, x, kernel) > 0) == (HAS and case in LARGE)


@pytest.mark.parametrize("stride", [1, 2])
def test_large_maps_of_large_batches_go_in_turns(stride):
    x, kernel = make((16 * stride, 16 * stride, 16), 2, 32 * stride, 3, batch=9)
    one = functools.partial(value_and_gradients, stride)
    for got, want in zip(onednn.jit(one)(x, kernel), jax.jit(one)(x, kernel), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
    forward = onednn.jit(functools.partial(conv3d, strides=(stride,) * 3))
    if HAS:
        assert calls(forward, x, kernel) == 5  # two volumes each, the last of one
        assert calls(forward, x[:8], kernel) == 1


def test_a_network_and_its_gradient_are_those_of_the_other_lowering():
    """Inner functions that jax caches separately, such as `remat`, use the right lowering, too."""
    for remat in (False, True):  # stem, and maps of 5 x 5 x 5
        network = resnet3d.ResNet3D(2, (1,), bottleneck=False, width=4, remat=remat)
        x = jax.random.normal(jax.random.key(0), (2, 18, 17, 18))
        variables = jax.jit(network.init)(jax.random.key(1), x)

        def loss(params, stats, x, network=network):
            # By moving statistics: those of two volumes multiply every difference of rounding.
            out = network.apply({"params": params, "batch_stats": stats}, x)
            return (out * jnp.arange(2)).sum()

        args = variables["params"], variables["batch_stats"], x
        kinds = [make(jax.value_and_grad(loss)) for make in (jax.jit, onednn.jit, jax.jit)]
        made = [kind.lower(*args).compile() for kind in kinds]
        assert [onednn.CALL in one.as_text() for one in made] == [False, HAS, False]
        first, other, again = (one(*args) for one in made)
        jax.tree.map(np.testing.assert_array_equal, first, again)
        scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(first))
        for got, want in zip(*map(jax.tree.leaves, (other, first)), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("case", LARGE + SMALL, ids=str)
def test_bfloat16_is_close_to_float32(case):
    *shape, stride = case
    x, kernel = (a.astype(jnp.bfloat16) for a in make(*shape))
    one = functools.partial(value_and_gradients, stride)
    got = onednn.jit(one)(x, kernel)
    want = jax.jit(one)(*(a.astype(jnp.float32) for a in (x, kernel)))
    for mine, other in zip(got, want, strict=True):
        assert mine.dtype == jnp.bfloat16
        atol = 0.02 * np.abs(other).max()
        np.testing.assert_allclose(mine.astype(jnp.float32), other, rtol=0, atol=atol)


def test_inner_functions_do_not_mix():
    inner = jax.jit(lambda x, kernel: conv3d(x, kernel))
    x, kernel = make(*LARGE[1][:-1])

    def outer(x, kernel):
        return jax.checkpoint(inner)(x, kernel)

    for _ in range(2):
        assert calls(jax.jit(outer), x, kernel) == 0
        assert (calls(onednn.jit(outer), x, kernel) == 1) == HAS


def test_inside_another_trace_it_is_plain_or_as_outside():
    x, kernel = make(*LARGE[1][:-1])
    jitted = onednn.jit(conv3d)
    want = conv3d(x, kernel)
    around = lambda x, kernel: jitted(x, kernel)  # noqa: E731
    for outer in (jax.jit(around), onednn.jit(around)):
        got = outer(x, kernel)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    got = jax.vmap(around, in_axes=(0, None))(x[:, None], kernel)
    np.testing.assert_allclose(got[:, 0], want, rtol=0, atol=1e-5)
    closed = lambda x: jitted(x, kernel)  # noqa: E731  a kernel that is no argument
    for outer in (jax.jit(closed), jax.checkpoint(closed), jax.jit(lambda _: jitted(x, kernel))):
        np.testing.assert_allclose(outer(x), want, rtol=0, atol=1e-5)
    assert (calls(onednn.jit(around), x, kernel) == 1) == HAS
    assert calls(jax.jit(around), x, kernel) == 0
    grad = jax.grad(lambda kernel: (jitted(x, kernel) ** 2).sum())(kernel)
    want = jax.grad(lambda kernel: (conv3d(x, kernel) ** 2).sum())(kernel)
    np.testing.assert_allclose(grad, want, rtol=0, atol=1e-4 * np.abs(want).max())


def test_vectors_are_compiled_as_by_jax():
    dense = nn.Dense(64)
    x = jnp.ones((8, 64))
    variables = dense.init(jax.random.key(0), x)
    assert lowered(onednn.jit(dense.apply), variables, x) == lowered(
        jax.jit(dense.apply), variables, x
    )
    assert not onednn._asks((variables, x), {})


def test_takes_the_options_of_jit():
    @functools.partial(onednn.jit, static_argnums=0, donate_argnames="x")
    def scaled(factor, x, kernel):
        """Returns a scaled convolution."""
        return factor * conv3d(x, kernel)

    x, kernel = make((9, 8, 7), 8, 8, 3)
    want = 3 * conv3d(x, kernel)
    np.testing.assert_allclose(scaled(3, x, kernel), want, rtol=0, atol=1e-5)
    assert x.is_deleted()
    assert (scaled.__name__, scaled.__doc__) == ("scaled", "Returns a scaled convolution.")


def test_where_it_is_absent_all_is_as_before(monkeypatch):
    monkeypatch.setattr(onednn, "_is_available", lambda dtype: False)
    x, kernel = make((9, 8, 7), 8, 8, 5)
    assert onednn.path() == "planes"
    assert calls(onednn.jit(conv3d), x, kernel) == 0


def test_a_dtype_that_it_lacks_stays_on_the_other_lowering(monkeypatch):
    monkeypatch.setattr(onednn, "_is_available", lambda dtype: HAS and dtype == "float32")
    x, kernel = (a.astype(jnp.bfloat16) for a in make((9, 8, 7), 8, 8, 4))
    assert lowered(onednn.jit(conv3d), x, kernel) == lowered(jax.jit(conv3d), x, kernel)
    assert onednn.jit(conv3d)(x, kernel).dtype == jnp.bfloat16
