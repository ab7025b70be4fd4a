"""The 1D CNN folded for inference: its linear part becomes one matrix, computed in float64.

Alignment, z-score, six convolutions and the first dense layer are affine maps in sequence, so they
are one matrix [voxels, 1024]. Batch norm is affine at inference and becomes part of the preceding
layer. Convolutions without batch norm are composed into one during training as well.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

Params = Mapping[str, Mapping[str, jax.Array]]
EPSILON = 1e-3  # of batch norm, Keras'


def composed(params: Params) -> tuple[Float[jax.Array, "taps 1 out"], Float[jax.Array, " out"]]:
    """Returns kernel and bias of the single convolution that equals conv1, conv2, ... in sequence.

    Args:
      params: parameters of a CNN1D with neither activation nor batch norm between its convolutions.

    Returns:
      [1 + layers * (window - 1), 1, filters[-1]] and [filters[-1]], in the dtype of the parameters.

    Raises:
      ValueError: the parameters are those of a network with batch norm.
    """
    if "conv1_bn" in params:
        raise ValueError("want convolutions without batch norm between them; got conv1_bn")
    layers = [params[name] for name in layer_names(params, "conv")]
    return compose([(layer["kernel"], layer["bias"]) for layer in layers])


def layer_names(params: Params, kind: str) -> list[str]:
    """Returns the layer names made of `kind` and a number, in order of that number."""
    names = (name for name in params if name.startswith(kind) and name[len(kind) :].isdecimal())
    return sorted(names, key=lambda name: int(name[len(kind) :]))


@jax.default_matmul_precision("highest")
def compose(
    layers: Sequence[tuple[Float[jax.Array, "window _ _"], Float[jax.Array, " _"]]],
) -> tuple[Float[jax.Array, "taps _ out"], Float[jax.Array, " out"]]:
    """Composes convolutions applied in sequence into one with kernel K and bias b.

    y[t] = sum_k x[t + k] K[k] + b followed by z[t] = sum_l y[t + l] L[l] + c is a convolution with
    kernel (sum of K[k] L[l] over k + l = s) at tap s and with bias b (sum_l L[l]) + c.

    Args:
      layers: kernel and bias of each convolution.
    """
    kernel, bias = layers[0]
    for after, after_bias in layers[1:]:
        bias = bias @ after.sum(0) + after_bias
        product = jnp.einsum("kic,lcd->klid", kernel, after)
        k, rest = product.shape[0], product.shape[2:]
        taps = k + product.shape[1] - 1
        # Rows of length taps + 1, reshaped to rows one shorter, so that row k is shifted by k.
        rows = jnp.pad(product, ((0, 0), (0, k), (0, 0), (0, 0))).reshape(-1, *rest)
        kernel = rows[:-k].reshape(k, taps, *rest).sum(0)
    return kernel, bias


def fold_cnn1d(
    params: Params,
    matrix: Float[np.ndarray, "v m"],
    offset: Float[np.ndarray, " m"],
    dtype: Any = np.float32,
    batch_stats: Params | None = None,
) -> dict[str, Any]:
    """Folds the network on x @ matrix + offset into dense layers on x.

    With K the composed kernel, features[t, c] = sum_s z[t + s] K[s, c] + b[c] = z C + b. With W the
    kernel of the first dense layer, everything is x (matrix C W) + (offset C W + b W + first bias).

    Args:
      params: parameters of a CNN1D without activation between its convolutions.
      matrix: [v, m], matrix of the affine map before the network, e.g. alignment and z-score.
      offset: [m], offset of the same map.
      dtype: type of the result; the folding itself is in float64.
      batch_stats: moving statistics of its batch norms, if it has any.

    Returns:
      {"layers": [(kernel, bias), ...]}.

    Raises:
      ValueError: batch norms without statistics, or shapes that do not fit.
    """
    convs, dense = _without_norms(params, batch_stats or {})
    with jax.enable_x64(True):
        kernel, bias = (np.asarray(a) for a in compose(convs))
    taps, channels, m = len(kernel), kernel.shape[-1], matrix.shape[1]
    first, first_bias = dense[0]
    places = m - taps + 1
    if first.shape[0] != places * channels:
        raise ValueError(
            f"want {first.shape[0]} features of the convolutions; got {places * channels} of {m}"
        )
    by_place = first.reshape(places, channels, -1)
    toeplitz = np.zeros((m, first.shape[1]))
    for tap in range(taps):
        toeplitz[tap : tap + places] += np.einsum("c,pcd->pd", kernel[tap, 0], by_place)
    bias = first_bias + np.einsum("c,pcd->d", bias, by_place) + offset @ toeplitz
    layers = [(matrix @ toeplitz, bias), *dense[1:]]
    return {"layers": [(k.astype(dtype), b.astype(dtype)) for k, b in layers]}


def _without_norms(params: Params, batch_stats: Params) -> tuple[list, list]:
    """Returns kernel and bias of all layers in float64, with batch norms merged into them.

    (y - mean) / sqrt(var + epsilon) * scale + shift with y = x K + b is x (K g) + (b - mean) g +
    shift, where g = scale / sqrt(var + epsilon), one factor for each output.
    """
    norms = {name for name in params if name.endswith("_bn")}
    if lost := sorted(norms - batch_stats.keys()):
        raise ValueError(f"want batch_stats of every batch norm; got none of {', '.join(lost)}")

    def layer(name):
        kernel, bias = (np.float64(params[name][part]) for part in ("kernel", "bias"))
        if (norm := f"{name}_bn") in norms:
            scale, shift = (np.float64(params[norm][part]) for part in ("scale", "bias"))
            mean, var = (np.float64(batch_stats[norm][part]) for part in ("mean", "var"))
            factor = scale / np.sqrt(var + EPSILON)
            kernel, bias = kernel * factor, (bias - mean) * factor + shift
        return kernel, bias

    convs, dense = ([layer(name) for name in layer_names(params, k)] for k in ("conv", "dense"))
    return convs, dense


def apply_cnn1d(
    weights: Mapping[str, Any], x: Float[jax.Array, "batch v"]
) -> Float[jax.Array, "batch k"]:
    """Returns logits: dense layers with ReLU between them."""
    *hidden, last = weights["layers"]
    for kernel, bias in hidden:
        x = jax.nn.relu(jnp.matmul(x, kernel, precision="highest") + bias)
    return jnp.matmul(x, last[0], precision="highest") + last[1]
