"""The 3D residual networks of Experiment B: from one volume to one logit per class.

Residual blocks are pre-activated (batch norm, ReLU, convolution). Parameters are named by
structure: stem/conv, stem/bn, stage1/block1/conv1, .../bn2, .../shortcut, final/bn, head/dense.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from emojax import rules
from emojax.models import precision
from emojax.models.convolution import conv3d, max_pool
from emojax.models.folded import check_resnet3d
from emojax.models.network import Network, l2, penalty_l2
from emojax.models.resnet3d_folded import EPSILON, apply_resnet3d, fold_resnet3d
from emojax.rules import each, flag, number, one_of, whole

__all__ = [
    "MINIMUM",
    "NETWORK",
    "ResNet3D",
    "l2",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
]

MINIMUM = 9  # voxels along an axis; with 8, a single one would be left for stage 2
_init = nn.initializers.he_normal()  # truncated at two sigma, like Keras


def _init_kernel(key, shape, dtype):
    """Draws `_init` as a matrix, as XLA on CPUs takes ten times as long to compile five axes."""
    return _init(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)


class _Layer(nn.Module):
    """A part of the network, with the settings and layers shared by all parts."""

    dtype: Any
    param_dtype: Any
    momentum: float

    def conv(self, x, name: str, features: int, window: int, stride: int = 1) -> jax.Array:
        """Returns a convolution of x, with bias and "SAME" padding."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return _Conv(features, window, stride, **dtypes, name=name)(x)

    def norm_relu(self, x, name: str, train: bool) -> jax.Array:
        """Returns ReLU of the batch norm of x."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = nn.BatchNorm(not train, momentum=self.momentum, epsilon=EPSILON, **dtypes, name=name)
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
    """A residual block: shortcut(x) + residual(x); the network's first has no norm before it."""

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

    With the default width, its parameters correspond one by one to the authors' Keras model.

    References:
      He et al., Identity mappings in deep residual networks, 2016. arXiv 2210.17015 (Experiment B).
    """

    num_classes: int
    blocks: tuple[int, ...]  # number in each stage; the published networks have four stages
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
        """Returns logits of volumes; with `train`, updates the collection "batch_stats".

        Args:
          x: [batch, x, y, z] or [batch, x, y, z, 1] float, at least 9 voxels along each axis.
          train: whether to normalise by the statistics of this batch instead of the moving ones.
          features: whether to also return the pooled features that the head reads.

        Returns:
          [batch, num_classes] logits, or a pair of logits and features [batch, channels], 512
          channels for 18 and 34 layers and 2048 for more; float32 if `dtype` is shorter.

        Raises:
          ValueError: other shapes, or a field that is out of range.
        """
        fields = {name: getattr(self, name) for name in FIELDS}
        rules.check(FIELDS, fields | {"head_features": self.head_features or 0})
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
    """Checks volumes and adds their channel axis."""
    if x.ndim not in (4, 5) or (x.ndim == 5 and x.shape[4] != 1):
        raise ValueError(f"want volumes [batch, x, y, z] or [batch, x, y, z, 1]; got {x.shape}")
    if min(x.shape[1:4]) < MINIMUM:
        raise ValueError(
            f"want at least {MINIMUM} voxels along each axis, so that stages 1 and 2 see more than "
            f"one; got volumes of {x.shape[1:4]}"
        )
    return x[..., None] if x.ndim == 4 else x


def resnet18(num_classes: int, **options) -> ResNet3D:
    """Returns the network of 18 layers, with 33.2 M parameters.

    Args:
      num_classes: number of logits.
      options: fields of `ResNet3D` from `width` on.
        width: channels of the stem and of stage 1, doubled at every later stage.
        head_features: size of a dense layer with ReLU before the output; default None: no such
          layer. The paper mentions 1000 features, but the authors' code has no such layer. The ReLU
          is our choice: without it, two linear layers in a row would be one.
        dtype: type of the computation, e.g. bfloat16; parameters, statistics and logits stay in
          float32.
        param_dtype: type of the parameters.
        remat: whether the backward pass recomputes each block to save memory.
        momentum: momentum of the moving statistics, 0.99 as in Keras: they need some hundred steps
          to converge.
    """
    return ResNet3D(num_classes, (2, 2, 2, 2), bottleneck=False, **options)


def resnet34(num_classes: int, **options) -> ResNet3D:
    """Returns the network of 34 layers, with 63.5 M parameters; options as for `resnet18`."""
    return ResNet3D(num_classes, (3, 4, 6, 3), bottleneck=False, **options)


def resnet50(num_classes: int, **options) -> ResNet3D:
    """Returns 50 layers in bottleneck blocks, 46.2 M parameters; options as for `resnet18`."""
    return ResNet3D(num_classes, (3, 4, 6, 3), bottleneck=True, **options)


def resnet101(num_classes: int, **options) -> ResNet3D:
    """Returns 101 layers in bottleneck blocks, 85.3 M parameters; options as for `resnet18`."""
    return ResNet3D(num_classes, (3, 4, 23, 3), bottleneck=True, **options)


def resnet152(num_classes: int, **options) -> ResNet3D:
    """Returns 152 layers in bottleneck blocks, 117.6 M parameters; options as for `resnet18`."""
    return ResNet3D(num_classes, (3, 8, 36, 3), bottleneck=True, **options)


DEPTHS = {18: resnet18, 34: resnet34, 50: resnet50, 101: resnet101, 152: resnet152}

DEFAULTS = {
    "depth": 50,
    "width": 64,
    "head_features": 0,
    "dtype": "device",
    "remat": False,
    "norm_momentum": 0.99,
}
RULES = {
    "depth": one_of(*DEPTHS),
    "width": whole("[1, 4096]"),
    "head_features": whole("[0, 1e6]"),  # 0: no such layer
    "dtype": one_of("device", "auto", "bfloat16", "float32"),
    "remat": flag,
    "norm_momentum": number("[0, 1)"),
}
FIELDS = {
    "blocks": each(whole("[1, 1000]"), least=1),
    "width": RULES["width"],
    "head_features": RULES["head_features"],
    "momentum": RULES["norm_momentum"],
}


def _make(config: Any, num_classes: int) -> ResNet3D:
    values = [getattr(config, name, default) for name, default in DEFAULTS.items()]
    depth, width, head, dtype, remat, momentum = values
    return DEPTHS[depth](
        num_classes,
        width=width,
        head_features=head or None,
        dtype=getattr(jnp, precision.settle(dtype, width)),
        remat=remat,
        momentum=momentum,
    )


NETWORK = Network(
    make=_make,
    penalty=penalty_l2,
    label=lambda config: f"ResNet-{getattr(config, 'depth', DEFAULTS['depth'])}",
    input="volume",
    least=lambda config: MINIMUM,
    rules=RULES,
    fold=fold_resnet3d,
    apply=apply_resnet3d,
    check_folded=check_resnet3d,
)
