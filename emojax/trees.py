"""Pytrees of dicts and lists as flat dicts of arrays, the way .npz files hold them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util


def flat(tree: Any) -> dict[str, np.ndarray]:
    """Nested dicts and lists as {"a/0/b": array}."""

    def as_dicts(node):
        if isinstance(node, (list, tuple)):
            node = {str(i): child for i, child in enumerate(node)}
        if isinstance(node, Mapping):
            return {name: as_dicts(child) for name, child in node.items()}
        return np.asarray(node)

    return traverse_util.flatten_dict(as_dicts(tree), sep="/")


def nested(arrays: Mapping[str, Any]) -> Any:
    """The inverse of `flat`, with lists for tuples."""

    def as_lists(node):
        if not isinstance(node, dict):
            return node
        node = {name: as_lists(child) for name, child in node.items()}
        return list(node.values()) if all(name.isdecimal() for name in node) else node

    return as_lists(traverse_util.unflatten_dict(dict(arrays), sep="/"))
