"""Several trained networks as one decoder: the mean of one member per monitored subject.

A member is the mean probability of networks that differ in their initial weights, with one
temperature. The decoder is the mean of the members.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from emojax.models.linear import union
from emojax.models.network import Network


def with_members(network: Network) -> Network:
    """Returns the record of a network of vectors, extended to several networks as one decoder.

    Its `fold` then also accepts the parameters of a member: "instances", a list of "params" and
    "batch_stats", and "temperature". Joined weights are "members", each with "instances" and
    "temperature". The folded network must be {"layers": [(kernel, bias), ...]}, with or without
    "linear": (kernel, bias).
    """
    one, apply, check = network.fold, network.apply, network.check_folded
    assert one is not None and apply is not None and check is not None

    def fold(params, batch_stats, matrix, offset):
        if "instances" not in params:
            return one(params, batch_stats, matrix, offset)
        each = [
            one(own["params"], own.get("batch_stats", {}), matrix, offset)
            for own in params["instances"]
        ]
        return {"instances": each, "temperature": np.float32(params["temperature"])}

    def apply_all(weights, x):
        if "members" not in weights:
            return apply(weights, x)
        return _mean([_member(apply, own, x) for own in weights["members"]])

    def check_all(weights, voxels, num_classes):
        if "members" not in weights:
            check(weights, voxels, num_classes)
            return
        if weights.keys() != {"members"} or not isinstance(weights["members"], list | tuple):
            raise ValueError(f"want a list of members; got {', '.join(sorted(weights))}")
        for own in weights["members"]:
            _check_member(own)
            for net in own["instances"]:
                check(net, voxels, num_classes)

    return replace(network, fold=fold, join=join, apply=apply_all, check_folded=check_all)


def join(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins the members over the union of their voxels; a single network is left as it is.

    Args:
      parts: for each member, the result of `fold` with its "voxels" and "centre".

    Raises:
      ValueError: several networks that are not members.
    """
    if len(parts) == 1 and "instances" not in parts[0]:
        return dict(parts[0])
    if any("instances" not in part for part in parts):
        raise ValueError(f"want one network, or members with instances; got {len(parts)}")
    voxels, centre, places = union(parts)
    members = []
    for part, at in zip(parts, places, strict=True):
        shift = np.float64(centre[at]) - part["centre"]
        nets = [_widened(net, at, shift, len(voxels)) for net in part["instances"]]
        members.append({"instances": nets, "temperature": part["temperature"]})
    return {"members": members, "voxels": voxels, "centre": centre}


def _widened(net: Mapping[str, Any], at, shift, count: int) -> dict[str, Any]:
    """Returns a folded network that reads more voxels, with another centre subtracted."""

    def wide(layer):
        kernel, bias = layer
        out = np.zeros((count, kernel.shape[1]), kernel.dtype)
        out[at] = kernel
        return out, (bias + shift @ kernel).astype(bias.dtype)

    first, *rest = net["layers"]
    linear = {"linear": wide(net["linear"])} if "linear" in net else {}
    return linear | {"layers": [wide(first), *rest]}


def _member(apply: Callable, own: Mapping[str, Any], x) -> Float[jax.Array, "batch k"]:
    each = _mean([jax.nn.log_softmax(apply(net, x)) for net in own["instances"]])
    return jax.nn.log_softmax(each / own["temperature"])


def _mean(each: Sequence[jax.Array]) -> Float[jax.Array, "batch k"]:
    """Returns the logarithm of mean probabilities from log-probabilities."""
    return jax.nn.logsumexp(jnp.stack(each), axis=0, b=1 / len(each))


def _check_member(own: Any) -> None:
    names = own.keys() if isinstance(own, Mapping) else set()
    if names != {"instances", "temperature"} or not isinstance(own["instances"], list | tuple):
        raise ValueError(f"want members with instances and temperature; got {sorted(names)}")
    if np.shape(own["temperature"]) or not own["temperature"] > 0 or not own["instances"]:
        raise ValueError("want a temperature > 0 and one instance or more of each member")
