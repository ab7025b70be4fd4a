"""Searchlight analysis: accuracy in the sphere around every voxel, with p values for the map.

It uses every voxel of the grid, without voxel selection or alignment.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from emojax import clusters, masking, searchlight
from emojax.experiments import analyses, exchange, permutation, searchlight_rows
from emojax.experiments.base import Experiment
from emojax.experiments.searchlight_rows import Part
from emojax.provenance import PROTOCOLS
from emojax.records import Arm, FoldData
from emojax.report.searchlights import ACCURACY, LEFT_OUT, SURE, P, T

STEP = "searchlight"
KEY = 16  # for `jax.random.fold_in`; no other step of a run uses this number


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any] | None:
    """Decodes the classes in a sphere around every voxel that all subjects share.

    Folds of kind "subject", and folds of a column (training rows share neither subject nor level),
    are decoded once for all subjects. If every subject has several runs, the mean of the subject's
    other runs is subtracted from each row, as in regime "none" (calibrated; with `voxels.centre`
    False, strict). Folds of kind "run" are decoded subject by subject, and the map is the mean over
    subjects.

    Args:
      experiment: see `base.Experiment`.
      config: config with `searchlight` (`radius_mm` 0 turns this off), `voxels.centre` and `seed`.
      view: the data that ledgers read.
      arm: the headline.
      made: folds of the headline; not used.
      tick: called with 1 for every percent.

    Returns:
      "folds", "classifier", "radius_mm" ("unit": "mm", or "voxels" without an affine), "spheres",
      "voxels" (in the median sphere), "left_out" (number of spheres with fewer voxels than
      "least"), "protocol", "subjects", "chance", "mean" and "largest" balanced accuracy over the
      map, "test": None or "scheme", "draws", "correction", "least_p", "p" (smallest),
      "significant" (number of voxels) and "clusters" (see `clusters.Cluster`); "volumes": file name
      -> [X, Y, Z]. Without a map, only "left out": the reason. None if turned off.

    Raises:
      LeakageError: a sphere saw more than its protocol claims.
    """
    settings = config.searchlight
    if not settings.radius_mm or arm.factor is not None:
        return None
    if getattr(view, "union", None) is None:
        return {LEFT_OUT: "the voxels of the subjects have no common grid"}
    try:
        parts, kind = searchlight_rows.parts(config, view)
        spheres = _spheres(settings, view)
    except ValueError as error:
        return {LEFT_OUT: str(error)}
    return _map(config, view, arm, parts, kind, spheres, tick)


def _map(config, view, arm: Arm, parts: list[Part], kind: str, spheres, tick) -> dict[str, Any]:
    """Decodes all parts, tests the mean of their maps, and describes it."""
    settings, chance = config.searchlight, 1 / len(view.cohort.classes)
    labels, scheme = _labels(config, view, arm, parts)
    draws = len(labels) - 1
    if len(parts) > 1:
        draws = min(settings.permutations, 2 ** len(parts) - 1)
    percent = _Percent(len(parts) * len(spheres) + draws, tick)
    found = [_decode(settings, view, part, labels, spheres, percent) for part in parts]
    maps = [own for own, _ in found]
    observed = np.mean([own[0] for own in maps], axis=0)
    out: dict[str, Any] = {
        "folds": kind,
        "classifier": settings.classifier,
        "radius_mm": float(settings.radius_mm),
        "unit": "voxels" if view.cohort.common_affine is None else "mm",
        "spheres": len(spheres),
        "voxels": int(np.median(spheres.counts)),
        "least": int(settings.least),
        "left_out": spheres.left_out,
        "protocol": max((own for _, own in found), key=PROTOCOLS.index),
        "subjects": len(view.cohort.subjects),
        "chance": chance,
        "mean": float(observed.mean()),
        "largest": float(observed.max()),
        "test": None,
    }
    volumes = {ACCURACY: _volume(view, spheres, observed)}
    value, null = observed - chance, maps[0][1:] - chance
    if len(parts) > 1:
        for part, own in zip(parts, maps, strict=True):
            name = re.sub(r"[^0-9A-Za-z-]", "_", part.name)
            volumes[f"{ACCURACY}_{name}"] = _volume(view, spheres, own[0])
        each, null = np.stack([own[0] for own in maps]) - chance, np.zeros((0, len(spheres)))
        if settings.permutations:
            value, null = clusters.sign_flips(each, settings.permutations, config.seed)
            volumes[T] = _volume(view, spheres, value)
    if len(null):
        out["test"], p = _test(settings, view, spheres, value, null, observed, percent)
        out["test"]["scheme"] = scheme
        volumes[P] = _volume(view, spheres, p, outside=1.0)
    return out | {"volumes": volumes}


def _spheres(settings: Any, view: Any) -> searchlight.Spheres:
    """Returns spheres around the voxels inside every subject's mask.

    Spheres may reach voxels outside the mask that were measured in all subjects.
    """
    affine = view.cohort.common_affine
    everywhere = np.all(list(view.inside.values()), axis=0).astype(np.float32)
    return searchlight.spheres(
        view.union,
        np.eye(4) if affine is None else affine,
        settings.radius_mm,
        least=settings.least,
        centres=np.asarray(masking.unmask(everywhere, view.union)) > 0,
    )


def _labels(config, view, arm: Arm, parts: list[Part]) -> tuple[Int[np.ndarray, "p n"], str]:
    """Returns the true labels, followed by arrangements if the test uses them; and the scheme."""
    true, count = np.asarray(view.labels), config.searchlight.permutations
    if len(parts) > 1:
        return true[None], "signs of subjects' differences from chance"
    found: exchange.Exchange = permutation.design(config, view, arm)
    count = min(count, found.arrangements - 1)
    if not count:
        return true[None], found.scheme
    key = jax.random.fold_in(jax.random.key(config.seed), KEY)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    classes = np.arange(len(view.cohort.classes))

    def trains(labels):
        return all(np.isin(classes, labels[fold.train]).all() for fold in parts[0].folds)

    return np.stack([true, *found.different(rng, true, count, trains)]), found.scheme


def _decode(settings, view, part: Part, labels, spheres, tick) -> tuple[np.ndarray, str]:
    """Returns balanced accuracy [p, c] of each labelling and sphere, and the protocol class."""
    rows = np.unique(np.concatenate([rows for fold in part.folds for rows in fold[1:]]))
    values, protocol = searchlight_rows.read(view, part, rows, STEP)
    folds = [(np.searchsorted(rows, f.train), np.searchsorted(rows, f.test)) for f in part.folds]
    found = searchlight.decode(
        values,
        labels[:, rows],
        folds,
        spheres,
        classifier=settings.classifier,
        equal_priors=True,
        num_classes=len(view.cohort.classes),
        per_fold=False,
        tick=tick,
    )
    return found.balanced, protocol


def _test(
    settings, view, spheres, value, null, observed, tick
) -> tuple[dict[str, Any], np.ndarray]:
    """Corrects a map over all spheres; returns a description and the p value of each sphere."""
    found = clusters.correct(
        spheres.fill(value),
        spheres.fill(null),
        view.union,
        correction=settings.correction,
        tick=tick,
    )
    places = clusters.table(
        spheres.fill(observed), found.p, view.union, view.cohort.common_affine, level=SURE
    )
    p = found.p[spheres.centres]
    return {
        "correction": settings.correction,
        "draws": found.draws,
        "least_p": 1 / (1 + found.draws),
        "p": float(p.min()),
        "significant": int((p <= SURE).sum()),
        "clusters": [place._asdict() | {"peak": list(place.peak)} for place in places],
    }, p


def _volume(view, spheres, values, outside: float = 0.0) -> Float[np.ndarray, "X Y Z"]:
    """Returns a map on the grid, with the value `outside` at voxels that are no sphere's centre."""
    volume = np.full(view.union.shape, outside, np.float32)
    inside = spheres.fill(np.asarray(values, np.float32))
    volume[view.union] = np.where(np.isfinite(inside), inside, outside)
    return volume


class _Percent:
    """A progress bar's tick, called once for each percent."""

    def __init__(self, total: int, tick: Callable[[int], Any]):
        self._total, self._done, self._tick = total, 0, tick

    def __call__(self, count: int) -> None:
        before, self._done = self._done, self._done + count
        new = (
            analyses.PERCENT * self._done // self._total - analyses.PERCENT * before // self._total
        )
        if new:
            self._tick(new)
