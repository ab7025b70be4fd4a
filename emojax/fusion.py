"""Decoders as pure functions of volumes; the folding of each network is in `models`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from emojax import models
from emojax._numerics.checks import Array, as_array
from emojax.models.cnn1d_folded import apply_cnn1d, fold_cnn1d
from emojax.models.resnet3d_folded import apply_resnet3d, fold_resnet3d, resnet3d_parts

__all__ = [
    "apply",
    "apply_cnn1d",
    "apply_resnet3d",
    "apply_to_inputs",
    "fold_cnn1d",
    "fold_resnet3d",
    "fuse",
    "logits",
    "resnet3d_parts",
]


def fuse(
    decoder: Any,
) -> Callable[[Float[Array, "*batch X Y Z"]], Float[jax.Array, "*batch k"]]:
    """Returns a decoder's pure function from volumes to probabilities.

    Values are not checked: `decoder.decode` refuses volumes that cannot be decoded.

    Args:
      decoder: a `decoder.Decoder`.

    Returns:
      A function of [..., X, Y, Z] float, to be jitted by the caller; it maps over leading axes.
    """
    weights = jax.tree.map(jnp.asarray, decoder.weights)
    return functools.partial(apply, decoder.network, weights)


def apply(
    network: str, weights: Mapping[str, Any], volumes: Float[Array, "*batch X Y Z"]
) -> Float[jax.Array, "*batch k"]:
    """Returns the class probabilities of volumes.

    Args:
      network: name in `models.NETWORKS`, or dotted path; see `models.find`.
      weights: folded weights of a decoder.
      volumes: [..., X, Y, Z] float, as scanned.

    Raises:
      ValueError: an unknown network, or one without folding.
    """
    volumes = as_array(volumes, "volumes [..., X, Y, Z]")
    batch, grid = volumes.shape[:-3], volumes.shape[-3:]
    x = volumes.reshape(-1, *grid)
    if models.find(network).input == "vector":
        x = x.reshape(len(x), -1)[:, weights["voxels"]]
    return apply_to_inputs(network, weights, x).reshape(*batch, -1)


def apply_to_inputs(
    network: str, weights: Mapping[str, Any], x: Float[Array, "batch ..."]
) -> Float[jax.Array, "batch k"]:
    """Returns probabilities of [batch, voxels] (the decoder's own voxels) or [batch, X, Y, Z].

    Args:
      network: name in `models.NETWORKS`, or dotted path; see `models.find`.
      weights: folded weights of a decoder.
      x: values as scanned.

    Raises:
      ValueError: an unknown network, or one without folding.
    """
    return jax.nn.softmax(logits(network, weights, x))


def logits(
    network: str, weights: Mapping[str, Any], x: Float[Array, "batch ..."]
) -> Float[jax.Array, "batch k"]:
    """Returns the logits of the inputs; those of a bag are log-probabilities.

    Args and raises: as for `apply_to_inputs`.
    """
    found = models.find(network)
    if found.apply is None:
        raise ValueError(f"want a network that can be folded for inference; got {network!r}")
    if found.input == "vector":
        x = x - weights.get("centre", 0)
    else:
        x = _padded(x, jnp.shape(weights["mean"]))
        x = (x - weights["mean"]) / weights["sd"]  # sd is infinite where the training data are flat
        x = jnp.where(jnp.isfinite(x), x, 0)
    return found.apply(weights, jnp.asarray(x)) / weights.get("temperature", 1)


def _padded(x: Float[Array, "batch X Y Z"], shape: tuple[int, ...]) -> Array:
    """Pads smaller volumes with NaN, which scaling maps to 0."""
    widths = [(n - own) for n, own in zip(shape, x.shape[1:], strict=bool(shape))]
    if not any(widths):
        return x
    pads = [(0, 0), *((n // 2, n - n // 2) for n in widths)]
    return jnp.pad(x, pads, constant_values=jnp.nan)
