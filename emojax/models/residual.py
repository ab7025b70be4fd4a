"""A fixed linear path plus a small network that starts at zero.

The linear path is fitted beforehand (`scoring.linear_path`). Its logits are the last columns of the
input, and the network adds to them, so that its output is the whole difference from a linear
decoder.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from emojax import rules
from emojax.models.cnn1d_folded import layer_names
from emojax.models.folded import check_residual
from emojax.models.members import with_members
from emojax.models.network import Network, penalty_l2
from emojax.rules import each, number, tuple_of, whole

RULES = {  # ranges of the fields that a config sets
    "dense": each(whole("[1, 1e6]"), least=1),
    "dropout": tuple_of(number("[0, 1)"), number("[0, 1)")),
}


class Path(NamedTuple):
    """The linear path: logits x @ kernel + bias of features x."""

    kernel: Float[np.ndarray, "m classes"]
    bias: Float[np.ndarray, " classes"]

    def beside(self, read: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], Any]:
        """Returns a reader that appends logits to the rows of `read`."""

        def both(rows: np.ndarray) -> Float[np.ndarray, "k m+classes"]:
            x = read(rows)
            # In float64, so that the logits of a row do not depend on the other rows.
            logits = np.einsum("km,mc->kc", x, self.kernel, dtype=np.float64) + self.bias
            return np.concatenate([x, logits], axis=1, dtype=np.float32)

        return both

    def compose(
        self, matrix: Float[np.ndarray, "v m"], offset: Float[np.ndarray, " m"]
    ) -> tuple[Float[np.ndarray, "v m+classes"], Float[np.ndarray, " m+classes"]]:
        """Extends an affine map to features into one to features and logits."""
        logits = matrix @ self.kernel, offset @ self.kernel + self.bias
        return np.concatenate([matrix, logits[0]], axis=1), np.concatenate([offset, logits[1]])


class Residual(nn.Module):
    """A network of dense layers with GELU whose output is added to the given logits.

    The input ends with the `num_classes` logits of the linear path. Layers are named dense1,
    dense2, ...; the last one starts at zero. Dropout comes before the first layer and after every
    hidden one.
    """

    num_classes: int
    dense: tuple[int, ...] = (256,)
    dropout: tuple[float, float] = (0.2, 0.5)  # of the features, of hidden layers

    @nn.compact
    def __call__(
        self, x: Float[jax.Array, "batch voxels"], *, train: bool = False
    ) -> Float[jax.Array, "batch classes"]:
        """Returns logits; with `train`, dropout draws from the random stream "dropout".

        Raises:
          ValueError: x is not [batch, voxels] or has no feature before the logits, or a field is
            out of range.
        """
        rules.check(RULES, {name: getattr(self, name) for name in RULES})
        if x.ndim != 2 or x.shape[1] <= self.num_classes:
            raise ValueError(f"want x [batch, voxels > {self.num_classes}]; got {x.shape}")
        x, linear = x[:, : -self.num_classes], x[:, -self.num_classes :]
        x = nn.Dropout(self.dropout[0])(x, deterministic=not train)
        for i, width in enumerate(self.dense):
            x = nn.gelu(nn.Dense(width, kernel_init=_init, name=f"dense{i + 1}")(x))
            x = nn.Dropout(self.dropout[1])(x, deterministic=not train)
        zeros = nn.initializers.zeros
        last = nn.Dense(self.num_classes, kernel_init=zeros, name=f"dense{len(self.dense) + 1}")
        return linear + last(x)


_init = nn.initializers.glorot_normal()


def fold_residual(
    params: Mapping[str, Mapping[str, Any]],
    batch_stats: Mapping[str, Any],
    matrix: Float[np.ndarray, "v m+classes"],
    offset: Float[np.ndarray, " m+classes"],
    dtype: Any = np.float32,
) -> dict[str, Any]:
    """Folds the network on x @ matrix + offset into a linear path and dense layers on x.

    Args:
      params: parameters of a Residual.
      batch_stats: not used.
      matrix: [v, m + classes], matrix of the affine map to features and logits, see `Path.compose`.
      offset: [m + classes], offset of the same map.
      dtype: type of the result; the folding itself is in float64.

    Returns:
      {"linear": (kernel, bias), "layers": [(kernel, bias), ...]}.

    Raises:
      ValueError: shapes that do not fit.
    """
    layers = [params[name] for name in layer_names(params, "dense")]
    dense = [
        tuple(np.asarray(layer[k], np.float64) for k in ("kernel", "bias")) for layer in layers
    ]
    (first, bias), classes = dense[0], dense[-1][1].size
    if matrix.shape[1:] != (len(first) + classes,) or offset.shape != matrix.shape[1:]:
        found = f"{matrix.shape}, {offset.shape}"
        raise ValueError(f"want a map to {len(first)} + {classes} values; got {found}")
    dense[0] = matrix[:, :-classes] @ first, offset[:-classes] @ first + bias
    linear = matrix[:, -classes:], offset[-classes:]
    cast = [(kernel.astype(dtype), b.astype(dtype)) for kernel, b in (linear, *dense)]
    return {"linear": cast[0], "layers": cast[1:]}


def apply_residual(
    weights: Mapping[str, Any], x: Float[jax.Array, "batch v"]
) -> Float[jax.Array, "batch k"]:
    """Returns logits of folded weights, see `fold_residual`."""

    def dense(x, layer):
        return jnp.matmul(x, layer[0], precision="highest") + layer[1]

    hidden = x
    for layer in weights["layers"][:-1]:
        hidden = jax.nn.gelu(dense(hidden, layer))
    return dense(x, weights["linear"]) + dense(hidden, weights["layers"][-1])


def _make(config: Any, num_classes: int) -> Residual:
    return Residual(num_classes, tuple(config.dense), tuple(config.dropout))


NETWORK = with_members(
    Network(
        make=_make,
        penalty=penalty_l2,
        label=lambda config: "linear + MLP",
        linear=True,
        rules=RULES,
        fold=fold_residual,
        apply=apply_residual,
        check_folded=check_residual,
    )
)
