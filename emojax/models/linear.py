"""Linear classifiers as decoders: all members of a bag and the steps before them as one matrix.

They are fitted by `scoring.baselines` or `scoring.bag`, not trained like networks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax.errors import InputError
from emojax.models.network import Network, penalty_l2


def fold_linear(
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    matrix: Float[np.ndarray, "v m"],
    offset: Float[np.ndarray, " m"],
) -> dict[str, np.ndarray]:
    """Folds softmax((z coef + intercept) / temperature) on z = x @ matrix + offset.

    Args:
      params: "coef" [m, k], "intercept" [k], "temperature" [].
      batch_stats: not used.
      matrix: [v, m], matrix of the affine map before the classifier.
      offset: [m], offset of the same map.

    Returns:
      "kernel" [v, k] and "bias" [k], float64, for `join`.

    Raises:
      ValueError: shapes do not fit.
    """
    coef, intercept, temperature = (
        np.float64(params[name]) for name in ("coef", "intercept", "temperature")
    )
    return {
        "kernel": matrix @ coef / temperature,
        "bias": (offset @ coef + intercept) / temperature,
    }


def join(parts: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Stacks the members of a bag over the union of their voxels.

    Args:
      parts: for each member, the result of `fold_linear` for x - centre, with "voxels" [v], their
        positions, and "centre" [v].

    Returns:
      "kernel" [voxels, members, k], 0 where a member lacks a voxel, and "bias" [members, k], with
      "voxels" and "centre" [voxels].
    """
    voxels, centre, places = union(parts)
    kernel = np.zeros((len(voxels), len(parts), parts[0]["kernel"].shape[1]))
    bias = np.stack([part["bias"] for part in parts])
    for j, (part, at) in enumerate(zip(parts, places, strict=True)):
        kernel[at, j] = part["kernel"]
        bias[j] += (np.float64(centre[at]) - part["centre"]) @ part["kernel"]
    folded = {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}
    return folded | {"voxels": voxels, "centre": centre}


def union(
    parts: Sequence[Mapping[str, Any]],
) -> tuple[Int[np.ndarray, " v"], Float[np.ndarray, " v"], list[Int[np.ndarray, " _"]]]:
    """Returns the union of all members' voxels, its mean centre, and each member's positions in it.

    Args:
      parts: for each member, its "voxels" (positions in the volume) and "centre".
    """
    voxels, at = np.unique(np.concatenate([part["voxels"] for part in parts]), return_inverse=True)
    sums = np.bincount(at, np.concatenate([part["centre"] for part in parts]))
    centre = (sums / np.bincount(at)).astype(np.float32)
    places = [np.searchsorted(voxels, part["voxels"]) for part in parts]
    return voxels.astype(np.int32), centre, places


def apply_linear(
    weights: Mapping[str, Any], x: Float[jax.Array, "batch v"]
) -> Float[jax.Array, "batch k"]:
    """Returns the logarithm of the members' mean probabilities."""
    kernel = weights["kernel"]
    each = jnp.matmul(x, kernel.reshape(len(kernel), -1), precision="highest")
    each = each.reshape(-1, *kernel.shape[1:]) + weights["bias"]
    return jax.nn.logsumexp(jax.nn.log_softmax(each), axis=1, b=1 / kernel.shape[1])


def check_linear(weights: Mapping[str, Any], voxels: int, num_classes: int) -> None:
    """Checks weights for `apply_linear`.

    Raises:
      ValueError: other names, or shapes that do not fit together.
    """
    if weights.keys() != {"kernel", "bias"}:
        raise ValueError(f"want kernel and bias; got {', '.join(sorted(weights)) or 'none'}")
    kernel, bias = (np.shape(weights[name]) for name in ("kernel", "bias"))
    members = bias[0] if len(bias) == 2 else 0
    if not members or (kernel, bias) != ((voxels, members, num_classes), (members, num_classes)):
        wanted = f"kernel [{voxels}, members, {num_classes}] and bias [members, {num_classes}]"
        raise ValueError(f"want {wanted}; got {kernel}, {bias}")


def _make(config: Any, num_classes: int):
    expected = "a network (linear classifiers are fitted: --config.headline=bag)"
    raise InputError("model.name", "'linear', which is not trained as networks are", expected)


NETWORK = Network(
    _make,
    penalty_l2,
    lambda config: "linear",
    fold=fold_linear,
    join=join,
    apply=apply_linear,
    check_folded=check_linear,
)
