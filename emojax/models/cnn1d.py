"""The 1D CNN of Experiment A: one vector of hyperaligned voxels in, one logit per class out."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

ACTIVATIONS = {"relu": nn.relu, "elu": nn.elu, "gelu": nn.gelu, "silu": nn.silu, "tanh": nn.tanh}
Params = Mapping[str, Mapping[str, jax.Array]]
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
    """Convolutions, then dense layers with ReLU, then `num_classes` logits; Keras initialisers.

    Layers are named conv1, conv2, ... and dense1, dense2, ...; the last dense layer gives the
    logits. Without activation or batch norm between them the convolutions are one linear map: they
    are then composed into a single convolution (`composed`), with the same parameters, the same
    outputs up to rounding and exact gradients for every layer, at a fraction of the work.

    The paper says that batch norm was "introduced" but not where, and the authors' code has none.
    Here `batch_norm=True` puts one (Keras' momentum 0.99 and epsilon 1e-3) behind every convolution
    and every hidden dense layer, before its activation, named conv1_bn, ..., dense1_bn, ...; it
    needs the collection "batch_stats".

    References:
      arXiv 2210.17015, section 2 (Experiment A); what its code adds: Glorot and Bengio, 2010.
    """

    num_classes: int = 3
    filters: tuple[int, ...] = (128, 128, 128, 64, 64, 64)
    window: int = 10
    dense: tuple[int, ...] = (1024, 512, 256, 128, 64, 32, 16)
    dropout: tuple[float, float] = (0.25, 0.5)  # of the features, of the first dense layer
    conv_activation: str | None = None  # a key of ACTIVATIONS
    batch_norm: bool = False
    compose: bool = True  # False runs the convolutions one by one
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32

    def setup(self):
        """Declares the layers, under the names that importers and `composed` use."""
        if self.conv_activation not in (None, *ACTIVATIONS):
            raise ValueError(
                f"want conv_activation None or one of {sorted(ACTIVATIONS)}; "
                f"got {self.conv_activation!r}"
            )
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        for i, width in enumerate(self.filters):
            shape = (self.window, ((1, *self.filters)[i]), width)
            setattr(self, f"conv{i + 1}", _Conv(shape, self.param_dtype))
        for i, width in enumerate((*self.dense, self.num_classes)):
            setattr(self, f"dense{i + 1}", nn.Dense(width, kernel_init=_init, **dtypes))
        if self.batch_norm:
            for name in (*self._names("conv", self.filters), *self._names("dense", self.dense)):
                setattr(self, f"{name}_bn", nn.BatchNorm(momentum=0.99, epsilon=1e-3, **dtypes))
        self.drop_features, self.drop_dense = map(nn.Dropout, self.dropout)

    def __call__(
        self, x: Float[jax.Array, "batch voxels"], *, train: bool = False
    ) -> Float[jax.Array, "batch classes"]:
        """Logits; with `train`, dropout draws from the random stream "dropout".

        Raises:
          ValueError: x is not [batch, voxels], has fewer than 1 + layers * (window - 1) voxels, or
            the activation is unknown.
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
        """What the convolutions find: channels of the first position, of the second, and so on."""
        least = 1 + len(self.filters) * (self.window - 1)
        if x.ndim != 2 or x.shape[1] < least:
            raise ValueError(f"want x [batch, voxels >= {least}]; got {x.shape}")
        x = x.astype(self.dtype)
        names = self._names("conv", self.filters)
        layers = [getattr(self, name)() for name in names]
        if self.compose and self.conv_activation is None and not self.batch_norm:
            x = _convolve_vector(x, *(a.astype(self.dtype) for a in _compose(layers)))
        else:
            x = x[..., None]
            activation = ACTIVATIONS.get(self.conv_activation)
            for name, (kernel, bias) in zip(names, layers, strict=True):
                x = _convolve(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)
                x = self._finish(name, x, activation, train)
        return x.reshape(x.shape[0], x.shape[1] * x.shape[2])

    def _finish(self, name, x, activation: Callable | None, train):
        if self.batch_norm:
            x = getattr(self, f"{name}_bn")(x, use_running_average=not train)
        return x if activation is None else activation(x)

    def _names(self, kind, widths):
        return [f"{kind}{i + 1}" for i in range(len(widths))]


def _convolve(x, kernel):
    """[batch, t, in] with [window, in, out] -> [batch, t - window + 1, out]."""
    return jax.lax.conv_general_dilated(
        x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
    )


def _convolve_vector(x, kernel, bias):
    """[batch, voxels] with [taps, 1, out] -> [batch, voxels - taps + 1, out].

    As patches times the kernel. Batch 64 on one CPU core, forward alone / with the gradient of the
    kernel: patches 1.4 / 3.2 ms, `lax.conv` 1.9 / 3.5 ms, the whole voxels x features matrix
    12 / 38 ms.
    """
    taps = kernel.shape[0]
    starts = np.arange(x.shape[1] - taps + 1)
    return x[:, starts[:, None] + np.arange(taps)] @ kernel[:, 0] + bias


def composed(params: Params) -> tuple[Float[jax.Array, "taps 1 out"], Float[jax.Array, " out"]]:
    """Kernel and bias of the one convolution that equals conv1, conv2, ... without activation.

    Args:
      params: of a CNN1D with neither activation nor batch norm between its convolutions.

    Returns:
      [1 + layers * (window - 1), 1, filters[-1]] and [filters[-1]], in the dtype of the parameters.

    Raises:
      ValueError: the parameters are those of a network with batch norm.
    """
    if "conv1_bn" in params:
        raise ValueError("want convolutions without batch norm between them; got conv1_bn")
    layers = [params[name] for name in _in_order(params, "conv")]
    return _compose([(layer["kernel"], layer["bias"]) for layer in layers])


def _in_order(params, kind):
    names = (name for name in params if name.startswith(kind) and name[len(kind) :].isdecimal())
    return sorted(names, key=lambda name: int(name[len(kind) :]))


@jax.default_matmul_precision("highest")
def _compose(layers):
    """Kernel K and bias b of `layers` applied one after another.

    y[t] = sum_k x[t + k] K[k] + b followed by z[t] = sum_l y[t + l] L[l] + c is a convolution with
    kernel (sum of K[k] L[l] over k + l = s) at tap s and with bias b (sum_l L[l]) + c.
    """
    kernel, bias = layers[0]
    for after, after_bias in layers[1:]:
        bias = bias @ after.sum(0) + after_bias
        product = jnp.einsum("kic,lcd->klid", kernel, after)
        k, rest = product.shape[0], product.shape[2:]
        taps = k + product.shape[1] - 1
        # Rows of length taps + 1, read again as rows one shorter: row k is then shifted by k.
        rows = jnp.pad(product, ((0, 0), (0, k), (0, 0), (0, 0))).reshape(-1, *rest)
        kernel = rows[:-k].reshape(k, taps, *rest).sum(0)
    return kernel, bias


def penalty(params: Params, kind: Literal["l1", "l2"], factor: float) -> Float[jax.Array, ""]:
    """The regularisation term of the loss, as Keras adds it: no mean, no factor 1/2.

    "l2", the paper's (factor 5e-2): factor * sum(w^2) over the kernels of all layers, the last one
    included, and no bias; the paper names no layers, this is what its Experiment B does.
    "l1", the authors' code (factor 5e-3): factor * sum(|w|) over kernels and biases of the hidden
    dense layers; neither the convolutions nor the last layer.

    Raises:
      ValueError: an unknown kind, or a factor that is negative.
    """
    if kind not in ("l1", "l2") or not factor >= 0:
        raise ValueError(f"want kind 'l1' or 'l2' and factor >= 0; got {kind!r}, {factor}")
    dense = _in_order(params, "dense")
    if kind == "l1":
        terms = [jnp.abs(leaf).sum() for name in dense[:-1] for leaf in params[name].values()]
    else:
        layers = (*_in_order(params, "conv"), *dense)
        terms = [(params[name]["kernel"] ** 2).sum() for name in layers]
    return factor * sum(terms)
