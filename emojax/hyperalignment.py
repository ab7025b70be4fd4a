"""Hyperalignment: one common space for the voxel patterns of many subjects.

Levels 1 to 3 are those of PyMVPA (Haxby et al. 2011; Guntupalli et al. 2016), for rows that
correspond between subjects. `compress` reduces the rows of a subject to a small factor, so that a
fit with far more voxels than rows needs products of n x n and n x voxels matrices, but never of
voxels x voxels.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from emojax import procrustes, shown
from emojax._numerics import levels
from emojax._numerics.checks import Array, as_float, check_finite
from emojax._numerics.order import after
from emojax._numerics.rows import compress, dense_map, lowrank_map, move_rows
from emojax._numerics.subjects import Options, check_settings, choose_rows, compress_subjects
from emojax._numerics.transforms import (
    Components,
    ComposedMapping,
    Mappings,
    principal_components,
    zscore,
)
from emojax.procrustes import Method, align_rows

__all__ = [
    "DEFAULTS",
    "Components",
    "ComposedMapping",
    "Hyperalignment",
    "Mappings",
    "Method",
    "Options",
    "align",
    "fit",
    "from_template",
    "inverse",
    "transform",
]

DEFAULTS = Options()


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

    def __repr__(self) -> str:
        return shown.text(*self._facts())

    def _repr_html_(self) -> str:
        return shown.page(*self._facts())

    def _facts(self) -> tuple[str, shown.Facts]:
        """Returns a title and facts, which depend on shapes alone."""
        changed = [
            f"{name}={value!r}"
            for name, value in self.options._asdict().items()
            if value != getattr(DEFAULTS, name)
        ]
        dims = () if self.components is None else (("ends in", "principal components"),)
        facts = [
            ("template", f"{shown.size(self.template.shape)}: rows, voxels"),
            (
                "maps",
                f"{len(self.mappings)} of {_kinds(self.mappings)}" if len(self.mappings) else 0,
            ),
            ("reference", self.reference),
            *dims,
            ("options", ", ".join(changed) or "defaults"),
        ]
        return f"Hyperalignment of {len(self.mappings)} subjects", facts


def _kinds(mappings) -> str:
    maps = [mappings] if not isinstance(mappings, list) else mappings
    return ", ".join(sorted({type(own).__name__ for own in maps}))


def fit(
    data: Float[Array, "s n v"] | Sequence[Float[Array, "n _"]],
    *,
    reference: int | None = None,
    level2_iters: int = 1,
    zscore_common: bool = DEFAULTS.zscore_common,
    zscore_all: bool = DEFAULTS.zscore_all,
    alpha: float = DEFAULTS.alpha,
    scaling: bool = DEFAULTS.scaling,
    reflection: bool = DEFAULTS.reflection,
    weight: float = 0.5,
    level1_equal_weight: bool = False,
    output_dim: int | None = None,
    demean: bool = DEFAULTS.demean,
    method: Method = DEFAULTS.method,
    lowrank: bool | None = DEFAULTS.lowrank,
) -> Hyperalignment:
    """Fits a common space to the subjects and maps each of them into it.

    Level 1: common = reference; for every other subject in turn, y = its rows mapped onto common by
    Procrustes, common <- weight * y + (1 - weight) * common. Level 2, `level2_iters` times: every
    subject is mapped onto the mean of the others; template = mean of all. Level 3: every subject is
    mapped onto the template.

    Args:
      data: [s, n, v] float: subjects, corresponding rows, voxels; or a list of [n, v_i].
      reference: index of the subject that level 1 starts from; default: the first of those with
        most voxels.
      level2_iters: number of passes of level 2; 0 skips it.
      zscore_common: whether columns of every common space and, in levels 1 and 2, of every mapped
        subject are z-scored (over rows, ddof 0). Columns whose standard deviation is rounding noise
        become 0.
      zscore_all: whether every subject's columns are z-scored first; new rows use the fitted means.
      alpha: 1 is plain hyperalignment; below 1, rows are whitened first with weights
        1 / sqrt((1 - alpha) s^2 + alpha) for their singular values s (0: canonical correlation).
      scaling: False fixes all scales to 1.
      reflection: False asks for rotations with determinant +1.
      weight: weight of each new subject in level 1: 0.5 is PyMVPA's, 0 keeps the reference.
      level1_equal_weight: PyMVPA's option of that name: subject k of level 1 enters with weight
        k / (k + 1), which favours *late* subjects, contrary to its name. Overrides `weight`.
      output_dim: number of principal components of the mean aligned data that maps lead to;
        default: maps lead to the template's voxels.
      demean: False rotates about the origin. With z-scored common spaces and at least as many
        voxels as rows, a rotation drops the one direction that they do not determine, as in
        `procrustes.fit`.
      method: "svd", or "polar": matrix products only, for GPUs.
      lowrank: whether rotations are kept as thin factors; default: if voxels >= 2 n.

    Returns:
      Template, mappings and residuals. Each mapping is a `Procrustes` (with lowrank a
      `LowRankProcrustes`; with zscore_all, alpha < 1 or output_dim a `ComposedMapping` around one).

    Raises:
      ValueError: data are not subjects of equal row count (>= 2), contain values that are not
        finite or a subject without a varying voxel, or an option lies outside its range.

    References:
      Haxby et al., A common, high-dimensional model of the representational space in human ventral
      temporal cortex, Neuron 2011. Xu et al., Regularized hyperalignment of multi-set fMRI data,
      IEEE SSP 2012 (alpha). PyMVPA 2.6.5, whose outputs the tests compare with.
    """
    options = Options(
        scaling=scaling,
        reflection=reflection,
        demean=demean,
        zscore_common=zscore_common,
        zscore_all=zscore_all,
        alpha=float(alpha),
        method=method,
        lowrank=lowrank,
    )
    subjects = compress_subjects(data, options)
    check_settings(len(subjects), reference, level2_iters, weight, output_dim, options)
    if reference is None:
        reference = subjects.widths.index(max(subjects.widths))
    share = None if level1_equal_weight else float(weight)
    template, training = _find_template(subjects, reference, level2_iters, share, options)
    fitted, aligned, residuals = _map_onto_template(subjects, template, options)
    components = None
    if output_dim is not None:
        components = principal_components(aligned / len(subjects), template, output_dim)
    return Hyperalignment(
        template=template,
        mappings=levels.compose_maps(subjects, fitted, components),
        components=components,
        training_residuals=training,
        residuals=residuals,
        reference=reference,
        options=options,
    )


def _find_template(subjects, reference, level2_iters, share, options):
    """Runs levels 1 and 2: the template [n, q], and residuals [1 + level2_iters, s]."""
    start = subjects.restore(reference)
    common = start if options.zscore_all else levels.run_compiled(_standardise, start, options)
    count = len(subjects)
    if count == 1:  # a single subject is its own common space
        return common, jnp.zeros((1 + level2_iters, 1), common.dtype)

    # Level 1: every other subject in turn, onto a running common space.
    others = [i for i in range(count) if i != reference]
    steps = levels.scan_subjects(_level1, common, subjects, others, (share, options))
    # The reference enters level 2 unchanged, neither mapped nor z-scored.
    steps.insert(reference, (start, jnp.zeros((), start.dtype)))
    mapped, common, residuals = levels.pool(steps, jnp.stack)
    history = [residuals]
    del steps

    # Level 2: every subject onto the mean of all others as mapped before.
    for _ in range(level2_iters):
        blocks, _ = levels.map_subjects(_level2, subjects, mapped, common, (count, options))
        mapped, common, residuals = levels.pool(blocks, jnp.concatenate)
        history.append(residuals)
    return levels.run_compiled(_standardise, common, options), jnp.stack(history)


def _map_onto_template(subjects, template, options):
    """Runs level 3: maps by blocks, the sum of all mapped rows [n, q], and residuals [s]."""
    blocks, total = levels.map_subjects(_level3, subjects, None, template, options)
    return [fitted for fitted, _ in blocks], total, levels.join([miss for _, miss in blocks])


def _level1(common, source, count, settings):
    """Maps subject number `count` onto the common space and mixes it in."""
    share, options = settings
    y = _move_onto(common, source, options)
    w = jnp.asarray(count / (count + 1) if share is None else share, y.dtype)
    mixed = w * y + (1 - w) * common
    return _standardise(mixed, options), (y, jnp.linalg.norm(y - common))


def _level2(source, previous, common, settings):
    """Maps one subject onto the mean of the others, without its own previous version."""
    count, options = settings
    others = (count * common - previous) / (count - 1)
    y = _move_onto(_standardise(others, options), source, options)
    return (y, jnp.linalg.norm(y - common)), None


def _level3(source, _, template, options):
    """Maps one subject onto the template and keeps its map."""
    solution = _solve(source, template, options)
    y = move_rows(source, *solution)
    n, q = template.shape
    lowrank = options.lowrank
    if lowrank is None:
        lowrank = min(len(source.mean), q) >= 2 * n
    if lowrank:
        fitted = lowrank_map(source, *solution)
    else:
        fitted = dense_map(source, *solution, options.reflection)
    return (fitted, jnp.linalg.norm(y - template)), y


def _move_onto(target, source, options):
    """Maps one subject's rows onto a target [n, q], and z-scores them if requested."""
    return _standardise(move_rows(source, *_solve(source, target, options)), options)


def _solve(source, target, options):
    """Returns the small rotation onto a target [n, q], the scale, and the compressed target."""
    target = compress(after(target, source.left), options.demean, options.reflection)
    core, scale = align_rows(source, target, **options.of_rotation)
    return core, scale, target


def _standardise(x, options):
    return zscore(x)[0] if options.zscore_common else x


def from_template(template: Float[Array, "n q"], options: Options = DEFAULTS) -> Hyperalignment:
    """Builds a common space without its subjects, into which `align` maps new ones.

    Args:
      template: [n, q] float, `Hyperalignment.template` of a fit without output_dim.
      options: `Hyperalignment.options` of that fit; default: those of `fit`.

    Raises:
      ValueError: not a matrix of at least 2 rows, or values that are not finite.
    """
    template = as_float(template, "a template")
    if template.ndim != 2 or len(template) < 2 or not template.shape[1]:
        raise ValueError(f"want a template [n >= 2, q >= 1]; got shape {template.shape}")
    check_finite("template", template)
    return Hyperalignment(
        template=template,
        mappings=[],
        components=None,
        training_residuals=jnp.zeros((0, 0), template.dtype),
        residuals=jnp.zeros(0, template.dtype),
        reference=0,
        options=options,
    )


def align(
    model: Hyperalignment,
    data: Float[Array, "s r v"] | Sequence[Float[Array, "r _"]],
    rows: Int[Array, " r"] | None = None,
) -> Mappings | list[Mappings]:
    """Maps subjects, known or new, onto the frozen template: level 3.

    Args:
      model: a fit; not changed.
      data: [s, r, v] float, or a list of [r, v_i]: rows that correspond to the template's `rows`.
      rows: [r] int, the template rows to use, in the order of the data's; default: all. For a new
        subject scanned in some runs only, or whose other rows are to be scored, give the rows of
        those runs.

    Returns:
      One map per subject, stacked; a list if widths differ.

    Raises:
      ValueError: row counts or `rows` do not fit the template, or bad data, as for `fit`.
    """
    subjects = compress_subjects(data, model.options)
    template = choose_rows(model.template, rows, subjects.num_rows)
    fitted, _, _ = _map_onto_template(subjects, template, model.options)
    return levels.compose_maps(subjects, fitted, model.components)


def transform(
    mappings: Mappings | Sequence[Mappings],
    data: Float[Array, "s t v"] | Sequence[Float[Array, "_ _"]],
) -> Float[Array, "s t q"] | list[Float[Array, "_ _"]]:
    """Maps every subject's rows, fitted or new, into the common space.

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
    """Maps rows of the common space back to every subject's voxels.

    See `ComposedMapping.reverse` for what is undone.

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
