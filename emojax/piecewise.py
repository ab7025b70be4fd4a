"""Piecewise alignment: every parcel of the brain has a common space of its own.

Parcels are padded with columns of zeros to a few widths, so that they go through few programs, in
batches. The padding changes no result: each parcel is aligned as `hyperalignment` would align it
alone.

    model = piecewise.fit(train, labels)                # [s, n, v], [v]
    aligned = piecewise.transform(model.mappings, train)
    maps = piecewise.align(model, other_runs, rows)     # a new subject, by some of the rows
    new = piecewise.transform(maps, scored_run)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from emojax import procrustes, shown
from emojax._numerics import batches
from emojax._numerics.checks import Array, as_array, as_float, check_finite, is_concrete
from emojax._numerics.piece_fits import Settings, Way, align_batch, fit_batch, serial
from emojax._numerics.pieces import Layout, PiecewiseMapping, lay_out
from emojax._numerics.subjects import Options, check_settings, choose_rows

__all__ = [
    "Layout",
    "Piecewise",
    "PiecewiseMapping",
    "Way",
    "align",
    "fit",
    "from_template",
    "inverse",
    "transform",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Piecewise:
    """A common space for each parcel, and every subject's maps into them."""

    template: Float[Array, "n v"]  # outside parcels: the mean over subjects
    mappings: PiecewiseMapping | None  # stacked over subjects; None: `from_template`
    residuals: Float[Array, "s k"]  # ||mapped - template|| of each parcel of `layout.names`
    moves: Bool[Array, " v"]  # False: the voxel is left as it is
    layout: Layout = dataclasses.field(metadata={"static": True})
    background: int | None = dataclasses.field(metadata={"static": True})
    settings: Settings = dataclasses.field(metadata={"static": True})

    def __repr__(self) -> str:
        return shown.text(*self._facts())

    def _repr_html_(self) -> str:
        return shown.page(*self._facts())

    def _facts(self) -> tuple[str, shown.Facts]:
        """Returns a title and facts, without reading values that could be traced."""
        subjects = 0 if self.mappings is None else len(self.mappings)
        inside = int((~self.layout.is_outside).sum())
        facts = [
            ("template", f"{shown.size(self.template.shape)}: rows, voxels"),
            ("parcels", f"{len(self.layout.names)}, of {inside} voxels"),
            ("method", self.settings.method),
        ]
        return f"Piecewise alignment of {subjects} subjects", facts

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of parcels, of parcels of one voxel, and of voxels, moved or not.

        "background" voxels are in no parcel; those "without signal" are in a parcel in which no
        voxel varies in some subject. Both are left as they are.
        """
        outside, moves = self.layout.is_outside, np.asarray(self.moves)
        return {
            "parcels": len(self.layout.names),
            "parcels of one voxel": int((self.layout.sizes == 1).sum()),
            "voxels": len(moves),
            "background": int(outside.sum()),
            "without signal": int((~moves & ~outside).sum()),
        }


def fit(
    data: Float[Array, "s n v"] | Sequence[Float[Array, "n v"]],
    labels: Int[np.ndarray, " v"],
    *,
    method: Way = "procrustes",
    penalty: float = 1.0,
    background: int | None = 0,
    reference: int | None = None,
    level2_iters: int = 1,
    zscore_common: bool = True,
    zscore_all: bool = False,
    alpha: float = 1.0,
    scaling: bool = True,
    reflection: bool = True,
    weight: float = 0.5,
    level1_equal_weight: bool = False,
    demean: bool = True,
    solver: procrustes.Method = "svd",
) -> Piecewise:
    """Fits a common space to each parcel and maps every subject into it.

    Args:
      data: [s, n, v] float: subjects, corresponding rows, voxels; or a list of [n, v].
      labels: [v] int, the parcel of each voxel. Voxels with a negative label or the `background`
        label are in no parcel and are left as they are. scikit-learn's clusterings count from 0:
        add 1, or pass background=None.
      method: how subjects are mapped onto the template. "procrustes": as in `hyperalignment`.
        "ridge": the same template, but maps by ridge regression, (x - mean) @ W + mean with
        W = (X'X + lambda I)^-1 X'Y of the centred rows X of the subject and Y of the template.
        "identity": nothing is moved, and the template is the mean.
      penalty: penalty of "ridge", > 0: lambda in units of the summed variance of the parcel's
        voxels, ||X||^2 / n, so that it suits data of any scale.
      background: see labels; None: only negative labels are in no parcel.
      solver: `method` of `hyperalignment.fit`: "svd" or "polar".
      reference, level2_iters, zscore_common, zscore_all, weight, level1_equal_weight, scaling,
        reflection, demean: as for `hyperalignment.fit`.
      alpha: the same, but above 0.

    Returns:
      Template, maps and residuals. If a parcel has more voxels than rows, its rotations are kept as
      thin factors (`lowrank`), so that new rows lose the part outside the span of the fitted ones.
      The map of a parcel of one voxel is a sign and a scale. A parcel in which no voxel varies in
      some subject is left as it is in all of them.

    Raises:
      ValueError: shapes or labels do not fit, fewer than 2 rows, values that are not finite, or
        an option lies outside its range.

    References:
      Bazeille et al., An empirical evaluation of functional alignment using inter-subject decoding,
      NeuroImage 2021.
    """
    options = Options(scaling, reflection, demean, zscore_common, zscore_all, float(alpha), solver)
    levels = {
        "reference": reference,
        "level2_iters": level2_iters,
        "weight": weight,
        "level1_equal_weight": level1_equal_weight,
    }
    settings = Settings(method, float(penalty), options, tuple(levels.items()))
    subjects = _check_data(data)
    check_settings(len(subjects), reference, level2_iters, weight, None, options)
    _check_method(settings)
    layout = _lay_out(labels, subjects[0].shape, background)
    if method == "identity":
        return _unmoved(subjects, layout, background, settings)
    found = batches.run(fit_batch, layout, subjects, settings, serial(settings))
    alive = [own.alive for own in found]
    xp = np if isinstance(alive[0], np.ndarray) else jnp
    moves = layout.spread(xp.all(xp.concatenate(alive, 1), axis=0))
    maps = tuple(own.maps for own in found)
    return Piecewise(
        _assemble(layout, [own.template for own in found], subjects),
        PiecewiseMapping(maps, xp.tile(moves, (len(subjects), 1)), layout),
        xp.concatenate([own.residuals for own in found], 1),
        moves,
        layout,
        background,
        settings,
    )


def _unmoved(subjects, layout, background, settings) -> Piecewise:
    """Returns the model of method "identity"."""
    template, count = as_float(_mean(subjects, slice(None))), len(subjects)
    moves = jnp.zeros(template.shape[1], bool)
    return Piecewise(
        template,
        PiecewiseMapping((), jnp.tile(moves, (count, 1)), layout),
        jnp.zeros((count, len(layout.names)), template.dtype),
        moves,
        layout,
        background,
        settings,
    )


def _assemble(layout: Layout, templates, subjects) -> Float[jax.Array, "n v"]:
    """Joins the templates [n, k, p] of all buckets; outside parcels, the template is the mean."""
    outside = np.flatnonzero(layout.is_outside)
    rest, size = _mean(subjects, outside), (layout.num_rows, len(layout.labels) + 1)
    if isinstance(templates[0], np.ndarray):
        whole = np.zeros(size, templates[0].dtype)
        for own, part in zip(layout.buckets, templates, strict=True):
            whole[:, own] = part
        whole[:, outside] = rest
        return jnp.asarray(whole[:, :-1])
    whole = jnp.zeros(size, templates[0].dtype)
    for own, part in zip(layout.buckets, templates, strict=True):
        whole = whole.at[:, own].set(part)
    return whole.at[:, outside].set(rest)[:, :-1]


def _mean(subjects, columns) -> Float[Array, "n c"]:
    known = is_concrete(*subjects)
    parts = [(np.asarray(x) if known else x)[:, columns] for x in subjects]
    return sum(parts[1:], parts[0]) / len(parts)


def from_template(
    template: Float[Array, "n v"],
    labels: Int[np.ndarray, " v"],
    *,
    method: Way = "procrustes",
    penalty: float = 1.0,
    background: int | None = 0,
    scaling: bool = True,
    reflection: bool = True,
    demean: bool = True,
    solver: procrustes.Method = "svd",
) -> Piecewise:
    """Builds common spaces from a template without subjects, e.g. from another subject's rows.

    `align` maps subjects into it. To align two subjects pairwise, use
    `align(from_template(one, labels), two[None])`; with demean=False that is fmralign's piecewise
    Procrustes.

    Args:
      template: [n, v] float.
      labels, method, penalty, background, scaling, reflection, demean, solver: as for `fit`.

    Raises:
      ValueError: as for `fit`.
    """
    settings = Settings(method, float(penalty), Options(scaling, reflection, demean, method=solver))
    (template,) = _check_data([template])
    check_settings(1, None, 0, 0.5, None, settings.options)
    _check_method(settings)
    layout = _lay_out(labels, template.shape, background)
    return Piecewise(
        as_float(template),
        None,
        jnp.zeros((0, len(layout.names))),
        jnp.asarray(~layout.is_outside),
        layout,
        background,
        settings,
    )


def align(
    model: Piecewise,
    data: Float[Array, "s r v"] | Sequence[Float[Array, "r v"]],
    rows: Int[Array, " r"] | None = None,
) -> PiecewiseMapping:
    """Maps subjects, known or new, onto the frozen template, parcel by parcel.

    Args:
      model: result of `fit` or `from_template`; not changed.
      data: [s, r, v] float or a list of [r, v]: rows that correspond to the template's `rows`.
      rows: [r] int, the template rows to use; default: all.

    Returns:
      One map per subject, stacked. A parcel in which no voxel of a subject varies is left as it is.

    Raises:
      ValueError: row counts, voxels or `rows` do not fit the template, or bad data, as for `fit`.
    """
    subjects = _check_data(data)
    if subjects[0].shape[1] != model.template.shape[1]:
        raise ValueError(
            f"want {model.template.shape[1]} voxels, as the template; got {subjects[0].shape[1]}"
        )
    template = choose_rows(model.template, rows, len(subjects[0]))
    layout = _lay_out(model.layout.labels, template.shape, model.background)
    count = len(subjects)
    if model.settings.method == "identity":
        return PiecewiseMapping((), jnp.tile(model.moves, (count, 1)), layout)
    sources, settings = [*subjects, template], model.settings
    found = batches.run(align_batch, layout, sources, settings, serial(settings))
    alive = [own.alive for own in found]
    xp = np if isinstance(alive[0], np.ndarray) else jnp
    moves = layout.spread(xp.concatenate(alive, 1)) & xp.asarray(model.moves)
    return PiecewiseMapping(tuple(own.maps for own in found), moves, layout)


def transform(
    maps: PiecewiseMapping, data: Float[Array, "*s t v"] | Sequence[Float[Array, "_ v"]]
) -> Float[Array, "*s t v"] | list[Float[Array, "_ v"]]:
    """Maps rows, fitted or new, into the common spaces.

    Args:
      maps: one map, or a stack over subjects.
      data: rows [t, v] for one map; for a stack [s, t, v] or a list of [t, v].

    Raises:
      ValueError: counts of subjects or voxels disagree.
    """
    return _apply(maps, data, "forward")


def inverse(
    maps: PiecewiseMapping, aligned: Float[Array, "*s t v"] | Sequence[Float[Array, "_ v"]]
) -> Float[Array, "*s t v"] | list[Float[Array, "_ v"]]:
    """Maps rows of the common spaces back to the subjects' voxels; ridge maps have no inverse.

    Raises:
      ValueError: counts of subjects or voxels disagree, or ridge maps.
    """
    return _apply(maps, aligned, "reverse")


@jax.default_matmul_precision("highest")
def _apply(maps: PiecewiseMapping, data: Any, way: str) -> Array | list[Array]:
    if not maps.stack:
        return _apply_one(maps, data, way)
    if len(maps) != len(data):
        raise ValueError(f"want as many subjects as maps ({len(maps)}); got {len(data)}")
    moved = [_apply_one(one, x, way) for one, x in zip(maps, data, strict=True)]
    return moved if isinstance(data, Sequence) else jnp.stack(moved)


def _apply_one(mapping: PiecewiseMapping, rows: Any, way: str) -> Array:
    rows = as_array(rows, "data")
    if rows.ndim != 2 or rows.shape[1] != mapping.widths[0]:
        raise ValueError(f"want rows [t, {mapping.widths[0]}]; got shape {rows.shape}")
    return getattr(mapping, way)(as_float(rows))


def _check_data(data) -> list[Array]:
    """Returns the rows [n, v] of each subject."""
    if not isinstance(data, list | tuple):
        data = as_array(data, "data")
    subjects = [as_array(x, f"data[{i}]") for i, x in enumerate(data)]
    if not subjects or any(x.ndim != 2 or x.shape != subjects[0].shape for x in subjects):
        shapes = getattr(data, "shape", [getattr(x, "shape", None) for x in subjects])
        raise ValueError(f"want data [subjects, rows, voxels] or a list of [n, v]; got {shapes}")
    if len(subjects[0]) < 2 or not subjects[0].shape[1]:
        raise ValueError(f"want at least 2 rows and 1 voxel; got {subjects[0].shape}")
    for i, x in enumerate(subjects):
        check_finite(f"data[{i}]", as_float(x))
    return subjects


def _lay_out(labels, shape, background) -> Layout:
    if np.shape(labels) != shape[1:]:
        raise ValueError(f"want a label for each of {shape[1]} voxels; got {np.shape(labels)}")
    return lay_out(labels, shape[0], background)


def _check_method(settings: Settings) -> None:
    if settings.method not in get_args(Way):
        raise ValueError(f"want method in {get_args(Way)}; got {settings.method!r}")
    if not settings.penalty > 0:
        raise ValueError(f"want penalty > 0; got {settings.penalty}")
    if not settings.options.alpha > 0:
        raise ValueError(f"want alpha in (0, 1]; got {settings.options.alpha}")
