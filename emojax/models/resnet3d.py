"""The 3D residual networks of Experiment B: one volume in, one logit per class out.

Residual blocks are pre-activated (batch norm, ReLU, convolution). Parameters are named by
structure: stem/conv, stem/bn, stage1/block1/conv1, .../bn2, .../shortcut, final/bn, head/dense.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from emojax.models.convolution import conv3d, max_pool

MINIMUM = 9  # voxels along an axis: of 8, stage 2 would see but one
_init = nn.initializers.he_normal()  # truncated at two sigma, as Keras'


def _init_kernel(key, shape, dtype):
    """`_init` of a matrix: XLA's CPU compiles a draw of five axes ten times as long."""
    return _init(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)


class _Layer(nn.Module):
    """What all parts of the network need to know."""

    dtype: Any
    param_dtype: Any
    momentum: float

    def conv(self, x, name: str, features: int, window: int, stride: int = 1) -> jax.Array:
        """A convolution with bias, "SAME" padding."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return _Conv(features, window, stride, **dtypes, name=name)(x)

    def norm_relu(self, x, name: str, train: bool) -> jax.Array:
        """Batch norm with Keras' epsilon, then ReLU."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = nn.BatchNorm(not train, momentum=self.momentum, epsilon=1e-3, **dtypes, name=name)
        return nn.relu(norm(x))


class _Conv(nn.Module):
    features: int
    window: int
    stride: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x):
        shape = (*(self.window,) * 3, x.shape[-1], self.features)
        kernel = self.param("kernel", _init_kernel, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
        return conv3d(x, kernel, (self.stride,) * 3) + bias


class _Stem(_Layer):
    width: int

    @nn.compact
    def __call__(self, x, train):
        x = self.conv(x, "conv", self.width, 7, 2)
        return max_pool(self.norm_relu(x, "bn", train))


class _Block(_Layer):
    """shortcut(x) + residual(x); both branches of the first block read the stem's output raw."""

    width: int
    stride: int
    bottleneck: bool
    first: bool  # of the network

    @nn.compact
    def __call__(self, x, train):
        y = x if self.first else self.norm_relu(x, "bn1", train)
        if self.bottleneck:
            features = 4 * self.width
            y = self.conv(y, "conv1", self.width, 1, self.stride)
            y = self.conv(self.norm_relu(y, "bn2", train), "conv2", self.width, 3)
            y = self.conv(self.norm_relu(y, "bn3", train), "conv3", features, 1)
        else:
            features = self.width
            y = self.conv(y, "conv1", self.width, 3, self.stride)
            y = self.conv(self.norm_relu(y, "bn2", train), "conv2", self.width, 3)
        if x.shape[-1] != features or self.stride > 1:
            x = self.conv(x, "shortcut", features, 1, self.stride)
        return x + y


class _Stage(_Layer):
    blocks: int
    width: int
    bottleneck: bool
    first: bool
    remat: bool

    @nn.compact
    def __call__(self, x, train):
        block = nn.remat(_Block, static_argnums=(2,)) if self.remat else _Block
        for i in range(self.blocks):
            x = block(
                width=self.width,
                stride=1 if self.first or i else 2,
                bottleneck=self.bottleneck,
                first=self.first and i == 0,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                momentum=self.momentum,
                name=f"block{i + 1}",
            )(x, train)
        return x


class _Final(_Layer):
    @nn.compact
    def __call__(self, x, train):
        x = self.norm_relu(x, "bn", train)
        return x.mean((1, 2, 3), dtype=jnp.promote_types(x.dtype, jnp.float32))


class _Head(_Layer):
    num_classes: int
    features: int | None

    @nn.compact
    def __call__(self, x):
        dense = functools.partial(nn.Dense, kernel_init=_init, param_dtype=self.param_dtype)
        if self.features is not None:
            x = nn.relu(dense(self.features, dtype=self.dtype, name="features")(x))
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        return dense(self.num_classes, dtype=dtype, name="dense")(x)


class ResNet3D(nn.Module):
    """A residual network for volumes; `resnet18` to `resnet152` are its published sizes.

    With the default width its parameters are, name by name, those of the authors' Keras model.

    References:
      He et al., Identity mappings in deep residual networks, 2016. arXiv 2210.17015 (Experiment B).
    """

    num_classes: int
    blocks: tuple[int, ...]  # of each stage, of which the published networks have four
    bottleneck: bool
    width: int = 64
    head_features: int | None = None
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False
    momentum: float = 0.99

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "batch *volume"], *, train: bool = False, features: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Logits of volumes; with `train`, updates the collection "batch_stats".

        Args:
          x: [batch, x, y, z] or [batch, x, y, z, 1] float, at least 9 voxels along each axis.
          train: normalise by the statistics of this batch, not by the moving ones.
          features: also return the pooled features that the head reads.

        Returns:
          [batch, num_classes] logits, or the pair of them and the features [batch, channels], 512
          channels for 18 and 34 layers and 2048 for more; float32 where `dtype` is shorter.

        Raises:
          ValueError: not such volumes.
        """
        x = _volumes(x)
        layer = {"dtype": self.dtype, "param_dtype": self.param_dtype, "momentum": self.momentum}
        x = _Stem(width=self.width, **layer, name="stem")(x, train)
        for i, blocks in enumerate(self.blocks):
            x = _Stage(
                blocks=blocks,
                width=self.width * 2**i,
                bottleneck=self.bottleneck,
                first=i == 0,
                remat=self.remat,
                **layer,
                name=f"stage{i + 1}",
            )(x, train)
        pooled = _Final(**layer, name="final")(x, train)
        logits = _Head(
            num_classes=self.num_classes, features=self.head_features, **layer, name="head"
        )(pooled)
        return (logits, pooled) if features else logits


def _volumes(x):
    """`x` with its channel axis."""
    if x.ndim not in (4, 5) or (x.ndim == 5 and x.shape[4] != 1):
        raise ValueError(f"want volumes [batch, x, y, z] or [batch, x, y, z, 1]; got {x.shape}")
    if min(x.shape[1:4]) < MINIMUM:
        raise ValueError(
            f"want at least {MINIMUM} voxels along each axis, so that stages 1 and 2 see more than "
            f"one; got volumes of {x.shape[1:4]}"
        )
    return x[..., None] if x.ndim == 4 else x


def resnet18(num_classes: int, **options) -> ResNet3D:
    """18 layers, 33.2 M parameters; `options` are the fields of `ResNet3D` from `width` on.

    width: channels of the stem and of stage 1, doubled at every later stage.
    head_features: None, or the size of a dense layer with ReLU before the output. The paper tells
      of 1000 features, the authors' code has no such layer; that it ends in a ReLU is our choice,
      because two linear layers in a row would be one.
    dtype: of the computation, e.g. bfloat16; parameters, statistics and logits stay in float32.
    param_dtype: of the parameters.
    remat: compute each block again in the backward pass instead of keeping what it computed.
    momentum: of the moving statistics, 0.99 as Keras': they need some hundred steps to arrive.
    """
    return ResNet3D(num_classes, (2, 2, 2, 2), bottleneck=False, **options)


def resnet34(num_classes: int, **options) -> ResNet3D:
    """34 layers, 63.5 M parameters; options as `resnet18`."""
    return ResNet3D(num_classes, (3, 4, 6, 3), bottleneck=False, **options)


def resnet50(num_classes: int, **options) -> ResNet3D:
    """50 layers in bottleneck blocks, 46.2 M parameters; options as `resnet18`."""
    return ResNet3D(num_classes, (3, 4, 6, 3), bottleneck=True, **options)


def resnet101(num_classes: int, **options) -> ResNet3D:
    """101 layers in bottleneck blocks, 85.3 M parameters; options as `resnet18`."""
    return ResNet3D(num_classes, (3, 4, 23, 3), bottleneck=True, **options)


def resnet152(num_classes: int, **options) -> ResNet3D:
    """152 layers in bottleneck blocks, 117.6 M parameters; options as `resnet18`."""
    return ResNet3D(num_classes, (3, 8, 36, 3), bottleneck=True, **options)


def l2(
    params: Mapping[str, Any], factor: float, shortcut_factor: float | None = None
) -> Float[jax.Array, ""]:
    """The penalty factor * sum(w^2) over the kernels of convolutions and dense layers.

    Biases and batch norms are free. There is no factor 1/2 (Keras' convention).

    Args:
      params: the collection "params" of a network of this module.
      factor: of all kernels.
      shortcut_factor: of the shortcuts' kernels instead; None: `factor`. The authors' code fixes
        1e-4 there, whatever the other factor.
    """
    factors = {True: factor if shortcut_factor is None else shortcut_factor, False: factor}
    total = jnp.zeros(())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [key.key for key in path]
        if names[-1] == "kernel":
            total += factors["shortcut" in names] * jnp.sum(leaf**2)
    return total
