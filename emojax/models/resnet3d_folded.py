"""The 3D residual networks folded for inference, computed once in float64.

A batch norm right after a convolution becomes part of it. The first norm of a block and the final
one read sums, and remain.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from emojax.models.convolution import conv3d, max_pool

EPSILON = 1e-3  # of all batch norms, as in Keras


def fold_resnet3d(
    params: Mapping[str, Any], batch_stats: Mapping[str, Any], dtype: Any = np.float32
) -> dict[str, Any]:
    """Folds a network into weights for `apply_resnet3d`, named as in the network.

    Norms after convolutions are merged. A norm computes a y + c with a = scale / sqrt(var + eps)
    and c = bias - a mean; after a convolution with kernel k and bias b, the result has kernel k a
    and bias b a + c.

    Args:
      params: the collection "params" of a ResNet3D.
      batch_stats: its collection "batch_stats".
      dtype: type of the result; the folding itself is in float64.
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
    """Returns the logits of scaled volumes, computed in the dtype of the weights."""
    for part, own in resnet3d_parts(weights):
        x = part(own, x)
    return x


def resnet3d_parts(weights: Mapping[str, Any]) -> list[tuple[Callable, Any]]:
    """Returns the folded network as a sequence of functions, each with its weights."""
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
