"""Hyperalignment: one common space for the voxel patterns of many subjects.

Levels 1 to 3 as PyMVPA computes them (Haxby et al. 2011; Guntupalli et al. 2016), for rows that
correspond between subjects. The rows of a subject enter as the small factor that
`procrustes.compress` makes of them, so that a fit with far more voxels than rows costs products of
n x n and n x voxels matrices, never voxels x voxels.
"""

import dataclasses
from collections.abc import Sequence
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax import procrustes
from emojax._numerics import levels
from emojax._numerics.checks import Array, as_float, is_concrete
from emojax._numerics.levels import Options
from emojax._numerics.polar import Method
from emojax._numerics.transforms import Chain, Components
from emojax.procrustes import LowRankProcrustes, Procrustes

Mappings = Procrustes | LowRankProcrustes | Chain  # stacked over subjects


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Hyperalignment:
    """A common space and every subject's map into it."""

    template: Float[Array, "n q"]  # common space: one row per sample, in the reference's voxels
    mappings: Mappings | list[Mappings]  # stacked over subjects; a list where widths differ
    components: Components | None  # of the template, if output_dim was given
    training_residuals: Float[Array, "passes s"]  # ||mapped - common||: level 1, then level 2
    residuals: Float[Array, " s"]  # ||mapped - template|| of level 3
    reference: int = dataclasses.field(metadata={"static": True})
    options: Options = dataclasses.field(metadata={"static": True})


def fit(
    data: Float[Array, "s n v"] | Sequence[Float[Array, "n _"]],
    *,
    reference: int | None = None,
    level2_iters: int = 1,
    zscore_common: bool = True,
    zscore_all: bool = False,
    alpha: float = 1.0,
    scaling: bool = True,
    reflection: bool = True,
    weight: float = 0.5,
    level1_equal_weight: bool = False,
    output_dim: int | None = None,
    demean: bool = True,
    method: Method = "svd",
    lowrank: bool | None = None,
) -> Hyperalignment:
    """Fits a common space to the subjects and maps each of them into it.

    Level 1: common = reference; for every other subject in turn, y = its rows mapped onto common by
    Procrustes, common <- weight * y + (1 - weight) * common. Level 2, `level2_iters` times: every
    subject is mapped onto the mean of the others; template = mean of all. Level 3: every subject is
    mapped onto the template.

    Args:
      data: [s, n, v] float: subjects, rows that correspond, voxels; or a list of [n, v_i].
      reference: index of the subject that level 1 starts from; default the first of the widest.
      level2_iters: passes of level 2; 0 leaves it out.
      zscore_common: z-scores columns (over rows, ddof 0) of every common space and, in levels 1 and
        2, of every mapped subject. Columns whose standard deviation is rounding noise become 0.
      zscore_all: z-scores every subject's columns first; new rows with the fitted means.
      alpha: 1 is plain hyperalignment; below, rows are whitened first with weights
        1 / sqrt((1 - alpha) s^2 + alpha) of their singular values s (0: canonical correlation).
      scaling: False fixes all scales to 1.
      reflection: False asks for rotations with determinant +1.
      weight: w of level 1: 0.5 is PyMVPA's, 0 keeps the reference.
      level1_equal_weight: PyMVPA's option of that name: subject k of level 1 enters with weight
        k / (k + 1), which favours *late* subjects, contrary to its name. Overrules `weight`.
      output_dim: maps end in the first so many principal components of the mean aligned data.
      demean: False rotates about the origin.
      method: "svd", or "polar": matrix products only, for GPUs.
      lowrank: keep rotations as thin factors; default: where voxels >= 2 n.

    Returns:
      Template, mappings and residuals. Each mapping is a `Procrustes` (with lowrank a
      `LowRankProcrustes`; with zscore_all, alpha < 1 or output_dim a `Chain` around one).

    Raises:
      ValueError: data are not subjects of equal row count (>= 2), hold values that are not finite
        or a subject without a varying voxel, or an option lies outside its range.

    References:
      Haxby et al., A common, high-dimensional model of the representational space in human ventral
      temporal cortex, Neuron 2011. Xu et al., Regularized hyperalignment of multi-set fMRI data,
      IEEE SSP 2012 (alpha). PyMVPA 2.6.5, whose outputs the tests compare with.
    """
    blocks, stacked = levels.blocks(data)
    widths = [b.shape[2] for b in blocks for _ in range(len(b))]
    _check_options(len(widths), reference, level2_iters, alpha, weight, output_dim, method)
    if reference is None:
        reference = widths.index(max(widths))
    options = Options(
        scaling, reflection, demean, zscore_common, zscore_all, float(alpha), method, lowrank
    )
    share = None if level1_equal_weight else float(weight)
    rows, links = levels.prepared(blocks, options)
    del blocks
    template, training = levels.train(rows, reference, level2_iters, share, options)
    fitted, moved, residuals = levels.level3(rows, template, options)
    components = None
    if output_dim is not None:
        components = levels.reduce_to(moved / len(widths), template, output_dim)
    return Hyperalignment(
        template=template,
        mappings=levels.collected(fitted, links, components, stacked),
        components=components,
        training_residuals=training,
        residuals=residuals,
        reference=reference,
        options=options,
    )


def align(
    model: Hyperalignment,
    data: Float[Array, "s r v"] | Sequence[Float[Array, "r _"]],
    rows: Int[Array, " r"] | None = None,
) -> Mappings | list[Mappings]:
    """Level 3: maps subjects, known or new, onto the frozen template.

    Args:
      model: a fit; not changed.
      data: [s, r, v] float, or a list of [r, v_i]: rows that correspond to the template's `rows`.
      rows: [r] int, the template rows to use, in the order of the data's; default all. A new
        subject that was scanned in some runs only, or whose other rows are to be scored, gives
        those runs' rows.

    Returns:
      One map per subject, stacked; a list where widths differ.

    Raises:
      ValueError: row counts or `rows` do not fit the template, or bad data, as in `fit`.
    """
    blocks, stacked = levels.blocks(data)
    n = model.template.shape[0]
    count = n if rows is None else len(rows)
    if blocks[0].shape[1] != count:
        raise ValueError(f"want data with {count} rows, as the template; got {blocks[0].shape[1]}")
    if rows is not None and is_concrete(rows):
        low, high = np.asarray(rows).min(), np.asarray(rows).max()
        if low < 0 or high >= n:
            raise ValueError(f"want rows in [0, {n}); got {low} to {high}")
    template = model.template if rows is None else model.template[jnp.asarray(rows)]
    row_blocks, links = levels.prepared(blocks, model.options)
    fitted, _, _ = levels.level3(row_blocks, template, model.options)
    return levels.collected(fitted, links, model.components, stacked)


def transform(
    mappings: Mappings | Sequence[Mappings],
    data: Float[Array, "s t v"] | Sequence[Float[Array, "_ _"]],
) -> Float[Array, "s t q"] | list[Float[Array, "_ _"]]:
    """Moves every subject's rows, fitted or new, into the common space.

    Args:
      mappings: stacked maps and data [s, t, v], or lists of both (t may then differ).
      data: any rows of the subjects that the maps belong to.

    Raises:
      ValueError: counts of subjects or voxels disagree.
    """
    return _apply(procrustes.transform, mappings, data)


def inverse(
    mappings: Mappings | Sequence[Mappings],
    aligned: Float[Array, "s t q"] | Sequence[Float[Array, "_ _"]],
) -> Float[Array, "s t v"] | list[Float[Array, "_ _"]]:
    """Brings rows of the common space into every subject's voxels; see `Chain` for what is undone.

    Raises:
      ValueError: counts of subjects or voxels disagree.
    """
    return _apply(procrustes.inverse, mappings, aligned)


def _apply(function, mappings, data):
    if len(mappings) != len(data):
        raise ValueError(f"want as many subjects as maps ({len(mappings)}); got {len(data)}")
    if isinstance(mappings, Sequence) or isinstance(data, Sequence):
        return [function(mapping, x) for mapping, x in zip(list(mappings), data, strict=True)]
    return jax.vmap(function)(mappings, as_float(data))


def _check_options(subjects, reference, level2_iters, alpha, weight, output_dim, method):
    if reference is not None and not 0 <= reference < subjects:
        raise ValueError(f"want reference in [0, {subjects}); got {reference}")
    if level2_iters < 0:
        raise ValueError(f"want level2_iters >= 0; got {level2_iters}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"want alpha in [0, 1]; got {alpha}")
    if not 0 <= weight <= 1:
        raise ValueError(f"want weight in [0, 1]; got {weight}")
    if output_dim is not None and output_dim < 1:
        raise ValueError(f"want output_dim >= 1; got {output_dim}")
    if method not in get_args(Method):
        raise ValueError(f"want method in {get_args(Method)}; got {method!r}")
