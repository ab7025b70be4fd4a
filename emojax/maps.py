"""Brain maps of decoders: patterns of linear ones, saliency of networks, and their controls.

Weights tell how a decoder reads voxels, not what the voxels contain: a voxel without any signal
gets a large weight if it cancels the noise of others. A pattern is the part of each voxel's signal
that goes with the decoder's output. This module maps both back to a subject's own voxels, next to
the same map of random weights, which shows how much of a map comes from the data alone.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Key

from emojax import masking
from emojax._numerics.attribution import centred_logits, integrated_gradients, saliency
from emojax._numerics.checks import Array, as_float, check_finite, check_key
from emojax._numerics.maps import Mapping

__all__ = [
    "Stability",
    "against_random",
    "centred_logits",
    "haufe",
    "integrated_gradients",
    "onto_grid",
    "output_patterns",
    "patterns_to_source",
    "randomised",
    "randomised_decoder",
    "saliency",
    "stability",
    "weights_to_source",
]

TOP = 0.1  # share of voxels that count as a map's strongest


class Stability(NamedTuple):
    """Agreement of the maps of several folds."""

    correlation: float  # mean over pairs of folds; NaN for one fold
    top: Int[np.ndarray, "*voxels"]  # number of folds in which a voxel is among the strongest


def haufe(weights: Float[Array, "v c"] | Float[Array, " v"], x: Float[Array, "n v"]) -> jax.Array:
    """Returns the patterns that belong to the weights of linear decoders.

    A = Cov(x) W Cov(s)^-1 with s = x W: the change of each voxel that goes with a change of one
    output by 1 while the others stay constant. See `output_patterns` for the cost, and for outputs
    that depend on each other, such as logits of a softmax that sum to 0.

    Args:
      weights: [v, c] float, one column for each output; or [v] for a single output.
      x: [n, v] float, n >= 2: the rows that the decoder was fitted to, in the units that it reads.

    Returns:
      [v, c], or [v]; units of x per unit of output. 0 where no output varies.

    Raises:
      ValueError: shapes do not fit, or x or weights are not finite.

    References:
      Haufe et al., On the interpretation of weight vectors of linear models in multivariate
      neuroimaging, NeuroImage 87, 2014, equation 6.
    """
    weights, x = as_float(weights), as_float(x)
    if x.ndim != 2 or weights.ndim not in (1, 2) or len(weights) != x.shape[1] or len(x) < 2:
        raise ValueError(
            f"want weights [v, c] or [v], and x [n, v] with n >= 2; got {weights.shape}, {x.shape}"
        )
    check_finite("weights", weights)
    check_finite("x", x)
    columns = weights.reshape(x.shape[1], -1)
    outputs = jnp.matmul(_centred(x), columns, precision="highest")
    return output_patterns(outputs, x).reshape(weights.shape)


@jax.default_matmul_precision("highest")
def output_patterns(outputs: Float[Array, "n c"], x: Float[Array, "n v"]) -> jax.Array:
    """Returns the patterns of any outputs s of rows, including those of a network.

    A = Cov(x, s) Cov(s)^-1, the regression of every voxel on the outputs. It is computed as
    x' (s^+)' with the pseudo-inverse of the centred outputs, in O(n v c); no v x v matrix is
    formed, and n < v is allowed. If outputs depend on each other, the pseudo-inverse takes the
    smallest of all solutions. Combinations of outputs whose singular value is below max(n, c) eps
    of the largest count as constant.

    Args:
      outputs: [n, c] float, the outputs of each row.
      x: [n, v] float, n >= 2.

    Returns:
      [v, c]; units of x per unit of output. 0 where no output varies.

    Raises:
      ValueError: shapes do not fit.

    References:
      Haufe et al. 2014, section 2: the forward model of given components.
    """
    outputs, x = as_float(outputs), as_float(x)
    if x.ndim != 2 or outputs.ndim != 2 or len(x) != len(outputs) or len(x) < 2:
        raise ValueError(
            f"want outputs [n, c] and x [n, v] with n >= 2; got {outputs.shape}, {x.shape}"
        )
    s, rest = _centred(outputs), _centred(x)
    eps = max(s.shape) * jnp.finfo(s.dtype).eps
    return rest.T @ jnp.linalg.pinv(s, rtol=eps).T


def _centred(x):
    x = x - x.mean(0)
    return x - x.mean(0)  # float32 rounds the first mean


def patterns_to_source(
    patterns: Float[Array, "m c"], mapping: Mapping | None, sd: Float[Array, " m"] | None = None
) -> Float[jax.Array, "p c"]:
    """Maps patterns of a common space back to the voxels of one subject.

    Features are y = ((x - mean) R s) / sd: the result of an alignment and then a scaler. A pattern
    is an activity, so that pattern_x = R (sd pattern_y) / s. Directions that the map drops stay 0.

    Args:
      patterns: [m, c] float, patterns of scaled features.
      mapping: the subject's single map into the common space; None: nothing was aligned.
      sd: [m], standard deviations of the scaler applied after it; None: nothing was scaled.

    Raises:
      ValueError: shapes do not fit.
    """
    patterns = _columns("patterns", patterns, mapping, sd)
    values = patterns if sd is None else patterns * jnp.asarray(sd)[:, None]
    if mapping is None:
        return values
    return _linear_reverse(mapping, values.T).T


def weights_to_source(
    weights: Float[Array, "m c"], mapping: Mapping | None, sd: Float[Array, " m"] | None = None
) -> Float[jax.Array, "p c"]:
    """Maps weights of a common space back to the voxels of one subject: w_x = s R (w_y / sd).

    With these weights, a decoder of the subject's own voxels x gives the same outputs. Args and
    raises: as for `patterns_to_source`.
    """
    weights = _columns("weights", weights, mapping, sd)
    values = weights if sd is None else weights / jnp.asarray(sd)[:, None]
    if mapping is None:
        return values
    return _linear_transpose(mapping, values.T).T


def _columns(name, values, mapping, sd):
    values, width = as_float(values), None if mapping is None else mapping.widths[1]
    good = values.ndim == 2 and width in (None, len(values))
    if not good or (sd is not None and np.shape(sd) != values.shape[:1]):
        wanted = "m" if width is None else width
        raise ValueError(
            f"want {name} [{wanted}, c] and sd [{wanted}]; got {values.shape}, "
            f"{None if sd is None else np.shape(sd)}"
        )
    return values


# Derivatives, because differences of rows lose their digits beside means of thousands.
@jax.jit
@jax.default_matmul_precision("highest")
def _linear_reverse(mapping, rows):
    return jax.jvp(mapping.reverse, (jnp.zeros_like(rows),), (rows,))[1]


@jax.jit
@jax.default_matmul_precision("highest")
def _linear_transpose(mapping, rows):
    zeros = jnp.zeros((len(rows), mapping.widths[0]), rows.dtype)
    return jax.vjp(mapping.forward, zeros)[1](rows)[0]


def onto_grid(
    values: Float[Array, "m c"],
    mask: Bool[Array, "X Y Z"],
    columns: Int[Array, " m"] | None = None,
) -> Float[np.ndarray, "X Y Z c"]:
    """Puts maps of some voxels of a mask into volumes; other voxels are 0.

    Args:
      values: [m, c] float.
      mask: [X, Y, Z] bool with v voxels set.
      columns: [m] positions of the values among the mask's voxels, in C order; None: all v.

    Raises:
      ValueError: shapes do not fit, or a position lies outside [0, v).
    """
    values, count = np.asarray(values), int(np.sum(mask))
    at = np.arange(count) if columns is None else np.asarray(columns)
    inside = at.size == 0 or (at.min() >= 0 and at.max() < count)
    if values.ndim != 2 or at.shape != values.shape[:1] or not inside:
        raise ValueError(
            f"want values [m, c] at m positions in [0, {count}); got {values.shape}, {at.shape}"
        )
    whole = np.zeros((values.shape[1], count), values.dtype)
    whole[:, at] = values.T
    return np.moveaxis(np.asarray(masking.unmask(whole, mask)), 0, -1)


def randomised(weights: Any, key: Key[Array, ""]) -> Any:
    """Returns weights in random order: the same numbers, but nothing that was learned.

    In arrays [..., outputs], every output's weights are permuted over its inputs; vectors are
    permuted over their entries (Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018).

    Args:
      weights: pytree of float arrays of all layers, without those that scale the input.
      key: one typed key.
    """
    check_key(key)
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(key, max(len(leaves), 1))
    return structure.unflatten([_permuted(k, leaf) for k, leaf in zip(keys, leaves, strict=False)])


def _permuted(key, leaf):
    rows = jnp.asarray(leaf).reshape(-1, np.shape(leaf)[-1] if np.ndim(leaf) > 1 else 1)
    return jax.random.permutation(key, rows, independent=True).reshape(np.shape(leaf))


def randomised_decoder(decoder: Any, key: Key[Array, ""]) -> Any:
    """Returns a decoder with `randomised` weights, but its own scaling and voxels.

    Args:
      decoder: a `decoder.Decoder`.
      key: one typed key.
    """
    scale = ("voxels", "centre", "mean", "sd", "temperature")
    own = {name: part for name, part in decoder.weights.items() if name not in scale}
    return decoder.replace(weights={**decoder.weights, **randomised(own, key)}, id="")


def against_random(
    real: Float[Array, "*shape"], random: Float[Array, "seeds *shape"]
) -> Float[jax.Array, "*shape"]:
    """Returns a map in units of the maps of random weights: real / rms over seeds.

    Voxels that vary a lot, or together with many others, are prominent in maps of any weights; this
    removes their advantage. 0 where random maps are 0.

    Args:
      real: map of the decoder.
      random: the same map of random weights for each of at least one seed.

    Raises:
      ValueError: shapes do not fit.
    """
    real, random = as_float(real), as_float(random)
    if random.shape[1:] != real.shape or not len(random):
        raise ValueError(f"want random maps [seeds, {real.shape}]; got {random.shape}")
    size = jnp.sqrt((random**2).mean(0))
    return jnp.where(size > 0, real / jnp.where(size > 0, size, 1), 0)


def stability(
    folds: Float[Array, "folds *voxels"] | Sequence[Float[Array, "*voxels"]], share: float = TOP
) -> Stability:
    """Measures how well the maps of several folds agree.

    Args:
      folds: one map of the same voxels for each fold.
      share: fraction of voxels, in (0, 1], that count as a map's strongest by absolute value.

    Returns:
      The mean Pearson correlation of maps over pairs of folds; and for each voxel the number of
      folds in which it is among the strongest. A constant map correlates 0 with all others.

    Raises:
      ValueError: no maps, maps that are not finite, or a share out of range.
    """
    maps = np.asarray(folds, np.float64)
    if maps.ndim < 2 or not maps.size or not np.isfinite(maps).all() or not 0 < share <= 1:
        raise ValueError(
            f"want finite maps [folds, *voxels] and a share in (0, 1]; got {maps.shape}, {share}"
        )
    flat = maps.reshape(len(maps), -1)
    rest = flat - flat.mean(1, keepdims=True)
    length = np.linalg.norm(rest, axis=1, keepdims=True)
    unit = rest / np.where(length > 0, length, 1)
    pairs = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
    count = max(round(share * flat.shape[1]), 1)
    order = np.argsort(-np.abs(flat), axis=1, kind="stable")[:, :count]
    top = np.zeros(flat.shape, int)
    np.put_along_axis(top, order, 1, axis=1)
    mean = float(pairs.mean()) if len(pairs) else float("nan")
    return Stability(mean, top.sum(0).reshape(maps.shape[1:]))
