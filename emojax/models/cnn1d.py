"""The 1D CNN of Experiment A: from one vector of hyperaligned voxels to one logit per class."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from emojax import rules
from emojax.models.cnn1d_folded import (
    EPSILON,
    Params,
    apply_cnn1d,
    compose,
    composed,
    fold_cnn1d,
    layer_names,
)
from emojax.models.folded import check_cnn1d
from emojax.models.members import with_members
from emojax.models.network import Network, check_penalty
from emojax.rules import each, flag, number, one_of, tuple_of, whole

__all__ = ["ACTIVATIONS", "CNN1D", "NETWORK", "Params", "composed", "penalty"]

ACTIVATIONS = {"relu": nn.relu, "elu": nn.elu, "gelu": nn.gelu, "silu": nn.silu, "tanh": nn.tanh}
KINDS = ("l1", "l2")  # of penalties
NORM_LAYERS = ("all", "dense")  # layers followed by batch norm
RULES = {  # ranges of the fields that a config sets
    "filters": each(whole("[1, 65536]"), least=1),
    "window": whole("[1, 10000]"),
    "dense": each(whole("[1, 1e6]")),
    "dropout": tuple_of(number("[0, 1)"), number("[0, 1)")),
    "conv_activation": one_of("", *ACTIVATIONS),
    "batch_norm": flag,
    "norm_layers": one_of(*NORM_LAYERS),
    "norm_momentum": number("[0, 1)"),
}
_init = nn.initializers.glorot_uniform()


class _Conv(nn.Module):
    """The kernel [window, channels_in, channels_out] and bias of a convolution, not yet applied."""

    shape: tuple[int, int, int]
    param_dtype: Any

    @nn.compact
    def __call__(self):
        kernel = self.param("kernel", _init, self.shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, self.shape[-1:], self.param_dtype)
        return kernel, bias


class CNN1D(nn.Module):
    """A network of convolutions, dense layers with ReLU, and `num_classes` logits.

    Layers are named conv1, conv2, ... and dense1, dense2, ...; the last dense layer gives the
    logits. Initialisers are those of Keras. Without activation or batch norm between them, the
    convolutions are one linear map. They are then composed into a single convolution (`composed`),
    with the same parameters, the same outputs up to rounding and exact gradients for every layer,
    at a fraction of the work.

    The paper says that batch norm was "introduced" but not where, and the authors' code has none.
    Here `batch_norm=True` puts one after every convolution and every hidden dense layer, before its
    activation, named conv1_bn, ..., dense1_bn, ...; `norm_layers="dense"` omits it after the
    convolutions, which stay one linear map. Momentum and epsilon are Keras', 0.99 and 1e-3; the
    moving statistics are the collection "batch_stats".

    References:
      arXiv 2210.17015, section 2 (Experiment A); initialisers: Glorot and Bengio, 2010.
    """

    num_classes: int = 3
    filters: tuple[int, ...] = (128, 128, 128, 64, 64, 64)
    window: int = 10
    dense: tuple[int, ...] = (1024, 512, 256, 128, 64, 32, 16)
    dropout: tuple[float, float] = (0.25, 0.5)  # of the features, of the first dense layer
    conv_activation: str | None = None  # key of ACTIVATIONS
    batch_norm: bool = False
    compose: bool = True  # False runs the convolutions one by one
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32
    norm_layers: str = dataclasses.field(default="all", kw_only=True)  # or "dense"
    norm_momentum: float = dataclasses.field(default=0.99, kw_only=True)  # of moving statistics

    def setup(self) -> None:
        """Declares the layers under the names that importers and `composed` use."""
        fields = {name: getattr(self, name) for name in RULES}
        rules.check(RULES, fields | {"conv_activation": self.conv_activation or ""})
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        for i, width in enumerate(self.filters):
            shape = (self.window, ((1, *self.filters)[i]), width)
            setattr(self, f"conv{i + 1}", _Conv(shape, self.param_dtype))
        for i, width in enumerate((*self.dense, self.num_classes)):
            setattr(self, f"dense{i + 1}", nn.Dense(width, kernel_init=_init, **dtypes))
        for name in self.normed:
            norm = nn.BatchNorm(momentum=self.norm_momentum, epsilon=EPSILON, **dtypes)
            setattr(self, f"{name}_bn", norm)
        self.drop_features, self.drop_dense = map(nn.Dropout, self.dropout)

    @property
    def normed(self) -> tuple[str, ...]:
        """Names of the layers with batch norm, in order of application."""
        convs = self._names("conv", self.filters) if self.norm_layers == "all" else []
        return (*convs, *self._names("dense", self.dense)) if self.batch_norm else ()

    def __call__(
        self, x: Float[jax.Array, "batch voxels"], *, train: bool = False
    ) -> Float[jax.Array, "batch classes"]:
        """Returns logits; with `train`, dropout draws from the random stream "dropout".

        Raises:
          ValueError: x is not [batch, voxels] or has fewer than 1 + layers * (window - 1) voxels,
            or a field is out of range.
        """
        x = self.drop_features(self.features(x, train=train), deterministic=not train)
        for name in self._names("dense", self.dense):
            x = self._finish(name, getattr(self, name)(x), nn.relu, train)
            if name == "dense1":
                x = self.drop_dense(x, deterministic=not train)
        return getattr(self, f"dense{len(self.dense) + 1}")(x)

    def features(
        self, x: Float[jax.Array, "batch voxels"], *, train: bool = False
    ) -> Float[jax.Array, "batch features"]:
        """Returns the output of the convolutions: all channels of each position in turn."""
        least = _least(self.filters, self.window)
        if x.ndim != 2 or x.shape[1] < least:
            raise ValueError(f"want x [batch, voxels >= {least}]; got {x.shape}")
        x = x.astype(self.dtype)
        names = self._names("conv", self.filters)
        layers = [getattr(self, name)() for name in names]
        is_linear = self.conv_activation is None and names[0] not in self.normed
        if self.compose and is_linear:
            x = _convolve_vector(x, *(a.astype(self.dtype) for a in compose(layers)))
        else:
            x = x[..., None]
            activation = ACTIVATIONS.get(self.conv_activation or "")
            for name, (kernel, bias) in zip(names, layers, strict=True):
                x = _convolve(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)
                x = self._finish(name, x, activation, train)
        return x.reshape(x.shape[0], x.shape[1] * x.shape[2])

    def _finish(self, name, x, activation: Callable | None, train):
        if name in self.normed:
            x = getattr(self, f"{name}_bn")(x, use_running_average=not train)
        return x if activation is None else activation(x)

    def _names(self, kind, widths):
        return [f"{kind}{i + 1}" for i in range(len(widths))]


def _least(filters, window):
    """Returns the smallest number of voxels for which the convolutions leave one position."""
    return 1 + len(filters) * (window - 1)


def _convolve(x, kernel):
    """Convolves [batch, t, in] with [window, in, out] into [batch, t - window + 1, out]."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )


def _convolve_vector(x, kernel, bias):
    """Convolves [batch, voxels] with [taps, 1, out] into [batch, voxels - taps + 1, out].

    It multiplies patches by the kernel. Batch 64 on one CPU core, forward alone / with the gradient
    of the kernel: patches 1.4 / 3.2 ms, `lax.conv` 1.9 / 3.5 ms, the whole voxels x features matrix
    12 / 38 ms. With patches as rows of a matrix, XLA does not transpose the gradient first.
    """
    taps, _, channels = kernel.shape
    starts = np.arange(x.shape[1] - taps + 1)
    patches = x[:, starts[:, None] + np.arange(taps)].reshape(-1, taps)
    return (patches @ kernel[:, 0] + bias).reshape(x.shape[0], len(starts), channels)


def penalty(
    params: Params, kind: Literal["l1", "l2"], factor: float | jax.Array
) -> Float[jax.Array, ""]:
    """Returns the regularisation term of the loss as Keras adds it: no mean, no factor 1/2.

    "l2", as in the paper (factor 5e-2): factor * sum(w^2) over the kernels of all layers, including
    the last, but no biases; the paper names no layers, and its Experiment B does this.
    "l1", as in the authors' code (factor 5e-3): factor * sum(|w|) over kernels and biases of the
    hidden dense layers, but not of the convolutions and the last layer.

    Args:
      params: the collection "params" of a CNN1D.
      kind: "l1" or "l2".
      factor: weight of the penalty; may be traced.

    Raises:
      ValueError: an unknown kind, or a factor that is negative.
    """
    check_penalty(kind, factor, KINDS)
    dense = layer_names(params, "dense")
    if kind == "l1":
        terms = [jnp.abs(leaf).sum() for name in dense[:-1] for leaf in params[name].values()]
    else:
        layers = (*layer_names(params, "conv"), *dense)
        terms = [(params[name]["kernel"] ** 2).sum() for name in layers]
    total: Any = sum(terms)  # 0 without any
    return factor * total


def _options(config):
    """Returns the fields of CNN1D from a config; configs of 0.3.0 have no layer sizes."""

    def field(name):
        return getattr(config, name, getattr(CNN1D, name))

    return {
        "conv_activation": field("conv_activation") or None,
        "batch_norm": field("batch_norm"),
        "norm_layers": field("norm_layers"),
        "norm_momentum": field("norm_momentum"),
        "dropout": tuple(field("dropout")),
        "filters": tuple(field("filters")),
        "window": field("window"),
        "dense": tuple(field("dense")),
    }


def _make(config: Any, num_classes: int) -> CNN1D:
    return CNN1D(num_classes, **_options(config))


def _penalty(params, kind, factor, shortcut_factor=None):
    return penalty(params, kind, factor)  # there are no shortcuts


def _fold(params, batch_stats, matrix, offset):
    return fold_cnn1d(params, matrix, offset, batch_stats=batch_stats)


def _obstacle(config: Any) -> str:
    activation = _options(config)["conv_activation"]
    return f"model.conv_activation={activation!r}" if activation else ""


NETWORK = with_members(
    Network(
        make=_make,
        penalty=_penalty,
        label=lambda config: "CNN",
        input="vector",
        kinds=KINDS,
        least=lambda config: _least(_options(config)["filters"], _options(config)["window"]),
        rules=RULES,
        fold=_fold,
        apply=apply_cnn1d,
        obstacle=_obstacle,
        check_folded=check_cnn1d,
    )
)
