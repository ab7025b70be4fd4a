"""Integrated gradients: the contribution of every input to a network's outputs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax import fusion, models
from emojax._numerics.checks import Array, as_float

STEPS = 32  # points of a path from the baseline to a volume
CHUNK = 256  # points that a network of vectors reads at a time; for volumes, one path


def integrated_gradients(
    f: Callable[[jax.Array], jax.Array],
    x: Float[Array, "n *shape"],
    baseline: Float[Array, "*shape"],
    steps: int = STEPS,
) -> Float[jax.Array, "n k *shape"]:
    """Returns the share of every input in every output's change from the baseline to x.

    A share is (x - b) times the mean gradient at `steps` midpoints of equal parts of the line from
    b to x (midpoint rule). Shares sum to f(x) - f(b) up to the error of that rule: none for linear
    f, of order 1 / steps at the kinks of a network with ReLU.

    Args:
      f: pure function from rows [r, *shape] to outputs [r, k], row by row.
      x: [n, *shape] float.
      baseline: [*shape] float, one for all rows.
      steps: number of points, >= 1.

    Raises:
      ValueError: shapes that do not fit, or no step.

    References:
      Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, ICML 2017.
    """
    x, baseline = as_float(x), as_float(baseline)
    if steps < 1 or x.ndim < 1 or x.shape[1:] != baseline.shape:
        raise ValueError(
            f"want x [n, *shape], a baseline [*shape] and steps >= 1; got {x.shape}, "
            f"{baseline.shape}, {steps}"
        )
    change = x - baseline
    at = (jnp.arange(steps, dtype=x.dtype) + 0.5) / steps
    path = baseline + at.reshape(-1, *[1] * (x.ndim - 1)) * change[:, None]  # [n, steps, *shape]
    flat = path.reshape(-1, *baseline.shape)
    outputs, back = jax.vjp(f, flat)
    slopes = [  # one after another, as each takes as much memory as the path
        back(jnp.broadcast_to(row, outputs.shape))[0].reshape(path.shape).mean(1)
        for row in jnp.eye(outputs.shape[1], dtype=outputs.dtype)
    ]
    return change[:, None] * jnp.stack(slopes, 1)


def saliency(
    decoder: Any,
    volumes: Float[np.ndarray, "*t X Y Z"],
    labels: Int[np.ndarray, " t"] | None = None,
    *,
    baseline: Float[np.ndarray, "X Y Z"] | None = None,
    steps: int = STEPS,
    tick: Callable[[int], Any] = lambda done: None,
) -> Float[np.ndarray, "X Y Z k"]:
    """Returns the share of every voxel in a decoder's logits, by integrated gradients.

    The mean over classes, on which probabilities do not depend, is subtracted from logits. Logits
    of a bag are the logarithms of its probabilities.

    Args:
      decoder: a `decoder.Decoder`; its values are not checked, see `decoder.verify`.
      volumes: [X, Y, Z] or [t, X, Y, Z], in the units that it decodes.
      labels: [t] int, class of each volume, -1 for none; None: the decoded class.
      baseline: volume from which changes count; None: the decoder's reference (the mean of training
        runs) or, without one, the mean in its weights.
      steps: number of points on the line from baseline to volume; see `integrated_gradients`.
      tick: called with the number of volumes done.

    Returns:
      Shares for each class k; their sum over voxels is the change of its logit. For several
      volumes, the mean over the volumes of class k; 0 for a class without any.

    Raises:
      ValueError: shapes do not fit, a label out of range, or a network without folding.
    """
    volumes, one = np.asarray(volumes, np.float32), np.ndim(volumes) == 3
    stack, grid = volumes.reshape(-1, *volumes.shape[-3:]), tuple(decoder.facts.grid)
    if volumes.ndim not in (3, 4) or stack.shape[1:] != grid:
        raise ValueError(f"want volumes [t, {', '.join(map(str, grid))}]; got {volumes.shape}")
    k = len(decoder.facts.classes)
    found = _Reader(decoder, baseline, steps)
    if labels is not None and (np.shape(labels) != (len(stack),) or one or np.max(labels) >= k):
        raise ValueError(f"want {len(stack)} labels below {k} of several volumes; got others")
    total, count = np.zeros((k, found.baseline.size)), np.zeros(k)
    for start in range(0, len(stack), found.batch):
        part = found.inputs(stack[start : start + found.batch])
        shares = np.asarray(found.attribute(part), np.float64).reshape(len(part), k, -1)
        if one:
            member = np.ones((1, k))
        else:
            own = found.named(part) if labels is None else labels[start : start + found.batch]
            member = np.asarray(own)[:, None] == np.arange(k)
        total += np.einsum("tk,tkv->kv", member, shares)
        count += member.sum(0)
        tick(len(part))
    return found.on_grid(total / np.maximum(count, 1)[:, None])


class _Reader:
    """A decoder's centred logits as a function of its inputs, and the way back to the grid."""

    def __init__(self, decoder: Any, baseline, steps: int):
        network, weights = decoder.network, dict(decoder.weights)
        self.grid = tuple(decoder.facts.grid)
        self.is_vector = models.find(network).input == "vector"
        self.voxels = np.asarray(weights.pop("voxels", ()))  # for vectors
        if baseline is None:
            baseline = decoder.reference
        self.baseline = self._start(weights) if baseline is None else self._given(baseline)
        self.batch = max(CHUNK // steps, 1) if self.is_vector else 1
        self._weights = jax.tree.map(jnp.asarray, weights)
        self._steps = steps
        self._network = network

    def _start(self, weights):
        """Returns the mean in the weights, cropped to the grid if it is padded."""
        mean = np.asarray(weights.get("centre" if self.is_vector else "mean", 0), np.float32)
        if self.is_vector:
            return np.broadcast_to(mean, self.voxels.shape)
        if mean.ndim == 3 and mean.shape != self.grid:
            cut = [(n - g) // 2 for n, g in zip(mean.shape, self.grid, strict=True)]
            mean = mean[tuple(slice(c, c + g) for c, g in zip(cut, self.grid, strict=True))]
        return np.broadcast_to(mean, self.grid)

    def _given(self, baseline):
        if np.shape(baseline) != self.grid:
            raise ValueError(f"want a baseline of {self.grid}; got {np.shape(baseline)}")
        return self.inputs(np.asarray(baseline, np.float32)[None])[0]

    def inputs(self, volumes):
        return volumes.reshape(len(volumes), -1)[:, self.voxels] if self.is_vector else volumes

    def attribute(self, x):
        return _attribute(self._network, self._weights, x, self.baseline, self._steps)

    def named(self, x):
        return np.asarray(centred_logits(self._network, self._weights, x)).argmax(1)

    def on_grid(self, values):
        out = np.zeros((len(values), int(np.prod(self.grid))), np.float32)
        out[:, self.voxels if self.is_vector else slice(None)] = values
        return np.moveaxis(out.reshape(-1, *self.grid), 0, -1)


@partial(jax.jit, static_argnums=0)
def centred_logits(
    network: str, weights: Mapping[str, Any], x: Float[jax.Array, "n ..."]
) -> Float[jax.Array, "n k"]:
    """Returns logits minus their mean over classes, on which probabilities do not depend.

    Args: as for `fusion.logits`.
    """
    found = fusion.logits(network, weights, x)
    return found - found.mean(-1, keepdims=True)


@partial(jax.jit, static_argnums=(0, 4))
def _attribute(network, weights, x, baseline, steps):
    outputs = partial(centred_logits, network, weights)
    return integrated_gradients(outputs, x, baseline, steps)
