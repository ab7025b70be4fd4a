"""Searchlight hyperalignment: the maps of all spheres, summed to one sparse map per subject.

It follows PyMVPA's SearchlightHyperalignment (Guntupalli et al. 2016), for z-scored rows: the maps
of all spheres, scale times rotation, are summed; overlapping spheres are not averaged.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax import procrustes
from emojax._numerics import batches, sparse_maps
from emojax._numerics.checks import Array, check_finite
from emojax._numerics.piece_fits import Settings, align_batch, fit_batch
from emojax._numerics.pieces import Layout
from emojax._numerics.sparse_maps import SparseMaps
from emojax._numerics.spheres import Spheres
from emojax._numerics.subjects import Options, check_settings, choose_rows
from emojax._numerics.transforms import zscore

CHUNK_BYTES = 2**28  # size of the maps of some spheres before they are summed


@dataclasses.dataclass(frozen=True, eq=False)
class SphereAlignment:
    """A common space of the grid's voxels, and every subject's sparse map into it."""

    template: Float[np.ndarray, "n v"]  # mean of all mapped rows, z-scored with zscore_common
    mappings: SparseMaps
    spheres: Spheres
    without_signal: int  # number of spheres without maps, as no voxel of some subject varies there
    centres_only: bool
    settings: Settings


def fit(
    data: Float[Array, "s n v"] | Sequence[Float[Array, "n v"]],
    spheres: Spheres,
    *,
    combine: bool = True,
    reference: int = 0,
    level2_iters: int = 1,
    zscore_common: bool = True,
    scaling: bool = True,
    reflection: bool = True,
    weight: float = 0.5,
    level1_equal_weight: bool = False,
    solver: procrustes.Method = "svd",
    tick: Callable[[int], Any] = lambda done: None,
) -> SphereAlignment:
    """Hyperaligns the subjects in every sphere and sums all maps.

    Args:
      data: [s, n, v] float: subjects (2 or more), corresponding rows, voxels of the mask; or a
        list of [n, v]. Columns should be z-scored, as PyMVPA requires, since maps have no offsets.
        Means of the fitted rows are subtracted from all mapped rows.
      spheres: result of `searchlight.spheres`, possibly with `centres` at some voxels only, which
        is enough if spheres overlap (PyMVPA's sparse_radius).
      combine: whether each sphere maps onto all of its voxels (PyMVPA's combine_neighbormappers),
        or only onto the voxel at its centre.
      solver: `method` of `hyperalignment.fit`: "svd" or "polar".
      reference, level2_iters, zscore_common, scaling, reflection, weight, level1_equal_weight:
        as for `hyperalignment.fit`, in each sphere.
      tick: called with the number of spheres just done.

    Returns:
      Template and maps. If a sphere has more voxels than rows, its rotation maps only the span of
      the fitted rows. Voxels in no sphere map to 0.

    Raises:
      ValueError: shapes do not fit, fewer than 2 subjects or rows, values that are not finite, or
        an option lies outside its range.

    References:
      Guntupalli et al., A model of representational spaces in human cortex, Cerebral Cortex 2016.
    """
    subjects = _check(data, spheres)
    if len(subjects) < 2:
        raise ValueError(f"want at least 2 subjects; got {len(subjects)}")
    options = Options(scaling, reflection, True, zscore_common, method=solver)
    check_settings(len(subjects), reference, level2_iters, weight, None, options)
    levels = {
        "reference": reference,
        "level2_iters": level2_iters,
        "weight": weight,
        "level1_equal_weight": level1_equal_weight,
    }
    settings = Settings("procrustes", 1.0, options, tuple(levels.items()))
    maps, dead = _add_up(fit_batch, subjects, len(subjects), spheres, not combine, settings, tick)
    total = sum(maps.forward(i, x) for i, x in enumerate(subjects))
    template = np.asarray(total / len(subjects))
    if zscore_common:
        template = np.asarray(zscore(jnp.asarray(template))[0])
    return SphereAlignment(template, maps, spheres, dead, not combine, settings)


def align(
    model: SphereAlignment,
    data: Float[Array, "s r v"] | Sequence[Float[Array, "r v"]],
    rows: Int[Array, " r"] | None = None,
    tick: Callable[[int], Any] = lambda done: None,
) -> SparseMaps:
    """Maps subjects, known or new, onto the frozen template, sphere by sphere.

    PyMVPA has no counterpart, as it keeps no common space. Here it is the mean of all mapped rows.

    Args:
      model: result of `fit`; not changed.
      data: [s, r, v] float or a list of [r, v]: rows that correspond to the template's `rows`.
      rows: [r] int, the template rows to use; default: all.
      tick: as for `fit`.

    Raises:
      ValueError: row counts, voxels or `rows` do not fit the template, or bad data, as for `fit`.
    """
    subjects = _check(data, model.spheres)
    template = np.asarray(choose_rows(model.template, rows, len(subjects[0])))
    sources = [*subjects, template]
    place = model.spheres, model.centres_only, model.settings
    return _add_up(align_batch, sources, len(subjects), *place, tick)[0]


def transform(
    maps: SparseMaps, data: Float[Array, "s t v"] | Sequence[Float[Array, "_ v"]]
) -> list[Float[np.ndarray, "_ v"]]:
    """Maps rows, fitted or new, into the common space.

    Raises:
      ValueError: counts of subjects or voxels disagree.
    """
    return _apply(maps, data, maps.forward)


def inverse(
    maps: SparseMaps, aligned: Float[Array, "s t v"] | Sequence[Float[Array, "_ v"]]
) -> list[Float[np.ndarray, "_ v"]]:
    """Maps rows of the common space back to the subjects by transposed maps, like PyMVPA's reverse.

    This does not undo `transform`, as a sum of rotations is not a rotation.

    Raises:
      ValueError: counts of subjects or voxels disagree.
    """
    return _apply(maps, aligned, maps.reverse)


def _apply(maps: SparseMaps, data, way: Callable) -> list[np.ndarray]:
    if len(maps) != len(data):
        raise ValueError(f"want as many subjects as maps ({len(maps)}); got {len(data)}")
    width = maps.mean.shape[1]
    if wrong := [np.shape(x) for x in data if np.shape(x)[1:] != (width,)]:
        raise ValueError(f"want rows [t, {width}]; got shape {wrong[0]}")
    return [way(i, np.asarray(x)) for i, x in enumerate(data)]


def _add_up(program, sources, count: int, spheres, centres_only, settings, tick):
    """Returns the sum of the maps of all spheres, and the number of spheres without maps."""
    pattern = sparse_maps.pattern(spheres, centres_only)
    values = np.zeros((count, len(pattern.keys) + 1), sources[0].dtype)  # the last is padding
    dead = 0
    for part in _parts(spheres, len(sources[0]), count * values.itemsize):
        (found,) = batches.run(program, _layout(part, len(sources[0])), sources, settings)
        alive = np.all(found.alive, axis=0)
        maps = np.where(alive[:, None, None], np.asarray(found.maps.projection), 0)  # [s, k, p, p]
        if centres_only:
            at = (part.indices == part.centres[:, None]).argmax(1)
            maps = np.take_along_axis(maps, at[None, :, None, None], 3)
        place = pattern.places(*sparse_maps.pairs(part, centres_only))
        for own, new in zip(values, maps, strict=True):
            np.add.at(own, place, new)
        dead += int((~alive).sum())
        tick(len(part))
    mean = np.stack([x.mean(0) for x in sources[:count]])
    return SparseMaps(values[:, :-1], mean, pattern), dead


def _parts(spheres: Spheres, rows: int, item: int) -> Iterator[Spheres]:
    """Yields spheres in parts by size, each with either more or no more voxels than rows."""
    for own in (spheres.counts <= rows, spheres.counts > rows):
        places = np.flatnonzero(own)
        width = int(spheres.counts[places].max(initial=1))
        size = max(1, CHUNK_BYTES // (item * width**2))
        for first in range(0, len(places), size):
            yield spheres.take(places[first : first + size], width)


def _layout(spheres: Spheres, rows: int) -> Layout:
    """Returns spheres as one bucket of parcels, which may overlap."""
    v, own = spheres.num_voxels, spheres.indices
    return Layout(np.zeros(v, int), rows, np.arange(len(own)), (own,), np.zeros(v, bool))


def _check(data, spheres: Spheres) -> list[np.ndarray]:
    """Returns the rows [n, v] of each subject."""
    subjects = [np.asarray(x) for x in data]
    if not subjects or any(x.ndim != 2 or x.shape != subjects[0].shape for x in subjects):
        shapes = [x.shape for x in subjects]
        raise ValueError(f"want data [subjects, rows, voxels] or a list of [n, v]; got {shapes}")
    n, v = subjects[0].shape
    if n < 2 or v != spheres.num_voxels:
        raise ValueError(f"want rows [n >= 2, {spheres.num_voxels}], as the mask; got {(n, v)}")
    for i, x in enumerate(subjects):
        check_finite(f"data[{i}]", jnp.asarray(x))
    floating = [x if np.issubdtype(x.dtype, np.floating) else x.astype(float) for x in subjects]
    return floating
