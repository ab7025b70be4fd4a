"""Exact folding for inference: what is linear becomes one matrix, computed once in float64.

Experiment A: alignment, z-score, six convolutions and the first dense layer are affine maps one
after another, so they are one matrix [m, 1024]. Experiment B: a batch norm right behind a
convolution is folded into it; the first norm of a block and the final one read sums, and stay.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from emojax.models import cnn1d
from emojax.models.convolution import conv3d, max_pool

EPSILON = 1e-3  # of both networks' batch norms


def fuse(decoder) -> Callable[[Float[jax.Array, "*batch X Y Z"]], Float[jax.Array, "*batch k"]]:
    """The pure function volumes -> probabilities of a `decoder.Decoder`.

    Values are taken as they are; what may be decoded is `decoder.decode`'s to check.

    Returns:
      A function of [..., X, Y, Z] float, to be jitted by the caller; it maps over leading axes.
    """
    weights = jax.tree.map(jnp.asarray, decoder.weights)
    return functools.partial(apply, decoder.network, weights)


def apply(network: str, weights: Mapping[str, Any], volumes: Float[jax.Array, "*batch X Y Z"]):
    """Probabilities [..., classes] from folded weights; `network` is "cnn1d" or "resnet3d"."""
    batch, grid = volumes.shape[:-3], volumes.shape[-3:]
    flat = volumes.reshape(-1, *grid)
    if network == "cnn1d":
        x = flat.reshape(len(flat), -1)[:, weights["voxels"]]
        logits = apply_cnn1d(weights, x)
    else:
        x = (flat - weights["mean"]) / weights["sd"]  # sd is infinite where nothing varied
        logits = apply_resnet3d(weights, jnp.where(jnp.isfinite(x), x, 0))
    return jax.nn.softmax(logits).reshape(*batch, -1)


def fold_cnn1d(
    params: cnn1d.Params,
    matrix: Float[np.ndarray, "v m"],
    offset: Float[np.ndarray, " m"],
    dtype: Any = np.float32,
) -> dict[str, Any]:
    """The network on x @ matrix + offset, as dense layers on x.

    With K the composed kernel, features[t, c] = sum_s z[t + s] K[s, c] + b[c] = z C + b, and the
    first dense layer takes W: all of it is x (matrix C W) + (offset C W + b W + first bias).

    Args:
      params: of a `CNN1D` with neither activation nor batch norm between its convolutions.
      matrix, offset: the affine map of features, e.g. alignment and z-score.
      dtype: of the result; the folding is in float64.

    Returns:
      {"layers": [(kernel, bias), ...]}.

    Raises:
      ValueError: a network whose convolutions cannot be folded, or shapes that do not fit.
    """
    if any(name.endswith("_bn") for name in params):
        raise ValueError("want a network without batch norm between its layers; got one with")
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), dict(params))
        kernel, bias = (np.asarray(a) for a in cnn1d.composed(exact))
    taps, channels, m = len(kernel), kernel.shape[-1], matrix.shape[1]
    dense = [params[f"dense{i + 1}"] for i in range(sum(n.startswith("dense") for n in params))]
    dense = [(np.float64(layer["kernel"]), np.float64(layer["bias"])) for layer in dense]
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


def apply_cnn1d(
    weights: Mapping[str, Any], x: Float[jax.Array, "batch v"]
) -> Float[jax.Array, "batch k"]:
    """Logits: dense layers with ReLU between them."""
    *hidden, last = weights["layers"]
    for kernel, bias in hidden:
        x = jax.nn.relu(jnp.matmul(x, kernel, precision="highest") + bias)
    return jnp.matmul(x, last[0], precision="highest") + last[1]


def fold_resnet3d(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], dtype: Any = np.float32
) -> dict[str, Any]:
    """Weights for `apply_resnet3d`, named as in the network, without the norms behind convolutions.

    A norm computes a y + c with a = scale / sqrt(var + eps), c = bias - a mean; behind a
    convolution with kernel k and bias b it becomes kernel k a and bias b a + c.
    """

    def affine(scope, stats):
        a = np.float64(scope["scale"]) / np.sqrt(np.float64(stats["var"]) + EPSILON)
        return a, np.float64(scope["bias"]) - a * np.float64(stats["mean"])

    def conv(layer, norm=None, stats=None):
        kernel, bias = np.float64(layer["kernel"]), np.float64(layer["bias"])
        if norm is None:
            return kernel.astype(dtype), bias.astype(dtype)
        a, c = affine(norm, stats)
        return (kernel * a).astype(dtype), (bias * a + c).astype(dtype)

    def block(own, stats):
        convs = sorted(name for name in own if name.startswith("conv"))
        out = {}
        if "bn1" in own:
            out["before"] = tuple(x.astype(dtype) for x in affine(own["bn1"], stats["bn1"]))
        for name, norm in zip(convs, ("bn2", "bn3", None), strict=False):
            out[name] = conv(own[name], own.get(norm), stats.get(norm))
        if "shortcut" in own:
            out["shortcut"] = conv(own["shortcut"])
        return out

    stem, final = params["stem"], affine(params["final"]["bn"], batch_stats["final"]["bn"])
    return {
        "stem": conv(stem["conv"], stem["bn"], batch_stats["stem"]["bn"]),
        "stages": [
            [
                block(
                    params[f"stage{i + 1}"][f"block{j + 1}"],
                    batch_stats[f"stage{i + 1}"].get(f"block{j + 1}", {}),
                )
                for j in range(len(params[f"stage{i + 1}"]))
            ]
            for i in range(sum(name.startswith("stage") for name in params))
        ],
        "final": tuple(x.astype(dtype) for x in final),
        "head": [conv(layer) for _, layer in sorted(params["head"].items(), reverse=True)],
    }


def apply_resnet3d(
    weights: Mapping[str, Any], x: Float[jax.Array, "batch X Y Z"]
) -> Float[jax.Array, "batch k"]:
    """Logits of scaled volumes from folded weights, in inference mode and the weights' dtype."""
    for part, own in resnet3d_parts(weights):
        x = part(own, x)
    return x


def resnet3d_parts(weights: Mapping[str, Any]) -> list[tuple[Callable, Any]]:
    """The folded network as functions one after another, each with its weights."""
    stages = [
        functools.partial(_stage, stride=2 if i else 1) for i in range(len(weights["stages"]))
    ]
    own = (weights["stem"], *weights["stages"], (weights["final"], weights["head"]))
    return list(zip((_stem, *stages, _head), own, strict=True))


def _conv(x, layer, stride=1):
    kernel, bias = layer
    return conv3d(x, kernel, (stride,) * 3) + bias


def _stem(layer, x):
    return max_pool(jax.nn.relu(_conv(x[..., None].astype(layer[0].dtype), layer, 2)))


def _stage(blocks, x, stride):
    for j, own in enumerate(blocks):
        step = 1 if j else stride
        a, c = own.get("before", (None, None))
        y = x if a is None else jax.nn.relu(x * a + c)
        convs = sorted(name for name in own if name.startswith("conv"))
        for name in convs:
            y = _conv(y, own[name], step if name == "conv1" else 1)
            y = y if name == convs[-1] else jax.nn.relu(y)
        x = (_conv(x, own["shortcut"], step) if "shortcut" in own else x) + y
    return x


def _head(own, x):
    (a, c), (*hidden, last) = own
    x = jax.nn.relu(x * a + c).mean((1, 2, 3), dtype=jnp.promote_types(x.dtype, jnp.float32))
    for kernel, bias in hidden:
        x = jax.nn.relu(x @ kernel + bias)
    return x @ last[0] + last[1]
