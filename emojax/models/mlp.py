"""Multilayer perceptrons as decoders: dense layers, the first including the steps before it.

They are fitted by scikit-learn (see `scoring.weights`), not trained like networks.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from emojax.errors import InputError
from emojax.models.folded import check_cnn1d
from emojax.models.network import Network, penalty_l2

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {  # as scikit-learn calls them
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "identity": lambda x: x,
}


def fold_mlp(
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    matrix: Float[np.ndarray, "v m"],
    offset: Float[np.ndarray, " m"],
    dtype: Any = np.float32,
) -> dict[str, Any]:
    """Folds a perceptron on x @ matrix + offset into one on x.

    Args:
      params: "layers", kernel and bias of each.
      batch_stats: not used.
      matrix: [v, m], matrix of the affine map before it.
      offset: [m], offset of the same map.
      dtype: type of the result; the folding itself is in float64.

    Returns:
      {"layers": [(kernel, bias), ...]}.

    Raises:
      ValueError: shapes do not fit.
    """
    layers = [tuple(np.asarray(part, np.float64) for part in pair) for pair in params["layers"]]
    kernel, bias = layers[0]
    layers[0] = matrix @ kernel, offset @ kernel + bias
    return {"layers": [(k.astype(dtype), b.astype(dtype)) for k, b in layers]}


def apply_mlp(
    weights: Mapping[str, Any], x: Float[jax.Array, "batch v"], activation: str
) -> Float[jax.Array, "batch k"]:
    """Returns logits; `activation` is a name in `ACTIVATIONS`."""
    *hidden, last = weights["layers"]
    for kernel, bias in hidden:
        x = ACTIVATIONS[activation](jnp.matmul(x, kernel, precision="highest") + bias)
    return jnp.matmul(x, last[0], precision="highest") + last[1]


def _make(config: Any, num_classes: int):
    expected = "a network (a perceptron of scikit-learn is fitted: --config.baselines=MLP)"
    raise InputError("model.name", "'mlp', which is not trained as networks are", expected)


NETWORKS = {
    f"mlp_{name}": Network(
        _make,
        penalty_l2,
        lambda config: "MLP",
        fold=fold_mlp,
        apply=functools.partial(apply_mlp, activation=name),
        check_folded=check_cnn1d,
    )
    for name in ACTIVATIONS
}
