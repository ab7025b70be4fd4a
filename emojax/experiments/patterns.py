"""Brain maps of the headline's decoder, compared with maps of random weights.

Linear decoders have patterns (Haufe et al. 2014), networks integrated gradients. Both are computed
from training rows only, in every fold, and mapped back to the training subjects' own voxels.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from emojax import clusters, maps
from emojax.errors import InputError
from emojax.experiments import saliencies
from emojax.experiments.base import Experiment
from emojax.experiments.exports import span
from emojax.experiments.exports.parts import Made, Trained
from emojax.experiments.own_space import FoldMaps, columns_of, mask_of, to_source
from emojax.records import Arm, FoldData
from emojax.report.patterns import LEFT_OUT, RANDOM, file_name
from emojax.scoring import baselines, weights
from emojax.scoring.baselines import BAG

SEEDS = 8  # draws of random weights for a linear decoder; for networks see `saliencies.SEEDS`
SMALLEST, LISTED = 2, 10  # voxels of the smallest cluster; clusters listed per class and sign


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
    load: saliencies.Load = saliencies.nothing,
) -> dict[str, Any] | None:
    """Computes brain maps of the headline's decoder.

    A pattern is scaled to one sd of its class's output, so that members and folds with different
    penalties have equal weight. A fold's map is the mean over its training subjects and the members
    that read the voxel. The map is the mean over the folds that read a voxel, shown where at least
    half of the folds read it and 0 elsewhere, so no voxel stands out because it was chosen often.

    Args:
      experiment: see `base.Experiment`.
      config: config with `maps` (False turns this off) and `seed`.
      view: the data that ledgers read.
      arm: the headline.
      made: folds of the headline.
      tick: called with 1 for every fold.
      load: name of a kept network -> its "params" and "batch_stats", or None if it was not kept.

    Returns:
      "folds", "units" ("mm", or None without an affine), and "kinds": "pattern", for networks also
      "saliency" -> "seeds" of random weights, "voxels" shown, and "classes": name -> "stability"
      (mean correlation over pairs of folds; None with one fold), "random" (mean absolute
      correlation of the map with maps of random weights in single folds, which would cancel in a
      mean over folds), "random_size" (mean correlation of the absolute values), "always" (number of
      voxels that are in the strongest tenth in every fold), "clusters" of the strongest tenth (see
      `_clusters`). "volumes": see `_files`. Without a map, only "left out": the reason. None if
      turned off.
    """
    if not config.maps or arm.factor is not None or config.null or experiment.pack is None:
        return None  # without a decoder, the way back to voxels is unknown
    cohort = getattr(view, "cohort", view)
    try:
        found = _of_folds(experiment, config, view, arm, made, tick, load)
    except InputError as reason:
        return {LEFT_OUT: str(reason)}
    mask, affine = mask_of(view), cohort.common_affine
    out: dict[str, Any] = {
        "folds": len(found),
        "units": None if affine is None else "mm",
        "kinds": {kind: {} for kind in found[0]},
        "volumes": {},
    }
    for kind in found[0]:
        folds, random, read, reads = _together([fold[kind] for fold in found])
        own = out["kinds"][kind]
        own |= {"seeds": len(random), "voxels": int(read.sum()), "classes": {}}
        for k, name in enumerate(cohort.classes):
            pair = folds[:, k], random[:, :, k]
            own["classes"][name] = _describe(*pair, read, reads, mask, affine)
            for suffix, values in _files(*pair, read, reads).items():
                volume = maps.onto_grid(values.astype(np.float32)[:, None], mask)[..., 0]
                out["volumes"][file_name(kind, name, suffix)] = volume
    return out


def _files(own, random, read, reads) -> dict[str, Float[np.ndarray, " v"]]:
    """Returns the map, a map of random weights in the first fold, and a ratio map.

    The ratio divides the map by the rms of random maps over seeds and the folds that read a voxel.
    """
    mean, rare = own.mean(0), np.sqrt(len(reads) / np.maximum(reads.sum(0), 1))
    draws = (rare * random).reshape(-1, len(mean)) * read
    ratio = maps.against_random(mean.astype(np.float32), draws.astype(np.float32))
    return {"": mean, RANDOM: random[0, 0] * read, f"{RANDOM}_ratio": np.asarray(ratio)}


def _together(found: Sequence[FoldMaps]):
    """Returns maps [folds, classes, v], random maps, the voxels shown, and those read by fold."""
    reads = np.stack([fold.read for fold in found])
    count = reads.sum(0)
    read = 2 * count >= len(found)
    share = np.where(read, len(found) / np.maximum(count, 1), 0)  # of means over all folds
    folds = share * np.stack([fold.real for fold in found])  # [folds, classes, v]
    random = np.stack([fold.random for fold in found], axis=1)  # [seeds, folds, classes, v]
    return folds, random, read, reads


def _describe(
    own: Float[np.ndarray, "folds v"],
    draws: Float[np.ndarray, "seeds folds v"],
    read: Bool[np.ndarray, " v"],
    reads: Bool[np.ndarray, "folds v"],
    mask: Bool[np.ndarray, "X Y Z"],
    affine: Any,
) -> dict[str, Any]:
    """Returns the statistics of one class; see `analyse`."""
    agreement, mean = maps.stability(own[:, read]), own.mean(0)
    pairs = [
        (mean[read & there], one[read & there])
        for seed in draws
        for one, there in zip(seed, reads, strict=True)
    ]
    signed, size = (
        [maps.stability([f(real), f(one)]).correlation for real, one in pairs]
        for f in (np.asarray, np.abs)
    )
    return {
        "stability": None if len(own) < 2 else agreement.correlation,
        "random": float(np.mean(np.abs(signed))),
        "random_size": float(np.mean(size)),
        "always": int((agreement.top == len(own)).sum()),
        "clusters": _clusters(mean, read, mask, affine),
    }


def _clusters(mean, read, mask, affine) -> list[dict[str, Any]]:
    """Returns the clusters in the strongest tenth of the voxels read, by sign.

    Returns:
      "peak" (mm, or array indices), "side" ("L", "R", "midline", or ""), "voxels", "mm3" (None
      without an affine), "value" at the peak; the largest absolute value first.
    """
    strongest = np.zeros(len(mean), bool)
    strongest[read] = maps.stability([mean[read]]).top > 0
    volume = None if affine is None else abs(float(np.linalg.det(np.asarray(affine)[:3, :3])))
    out = []
    for sign in (1, -1):
        p = np.where(strongest & (sign * mean > 0), 0.0, 1.0)
        found = clusters.table(sign * mean, p, mask, affine)
        found = [own for own in found if own.voxels >= SMALLEST]
        out += [
            {
                "peak": list(own.peak),
                "side": own.side,
                "voxels": own.voxels,
                "mm3": None if volume is None else round(own.voxels * volume, 3),
                "value": sign * own.value,
            }
            for own in found[:LISTED]
        ]
    return sorted(out, key=lambda row: -abs(row["value"]))


def _of_folds(experiment, config, view, arm, made, tick, load) -> list[dict[str, FoldMaps]]:
    """Returns kind -> maps, for every fold; for networks of whole volumes, for the first fold only.

    Raises:
      InputError: such features have no map, or the network was not kept.
    """
    if not arm.decoder:
        return list(saliencies.of_folds(experiment, config, view, arm, made, tick, load))
    if view.union is None:
        expected = "volumes of one grid"
        raise InputError("maps", "columns without a grid that all subjects share", expected)
    if config.voxels.own:
        raise InputError("maps", "voxels.own=True", "voxels that all subjects share")
    out = []
    for data in made:
        key = jax.random.key(config.seed)
        out.append({"pattern": _linear(experiment, config, view, arm, data, key)})
        tick(1)
    return out


class _Part(NamedTuple):
    """A linear classifier: its weights, its training rows, and the map back to voxels."""

    coef: Float[np.ndarray, "m classes"]
    x: Float[np.ndarray, "n m"]
    voxels: Int[np.ndarray, " m"]  # the view's columns that the weights belong to
    columns: Int[np.ndarray, " p"]  # the view's columns that `back` maps to
    back: Callable[[Float[np.ndarray, "m c"]], Float[np.ndarray, "p c"]]


def _linear(experiment, config, view, arm: Arm, data: FoldData, key) -> FoldMaps:
    """Returns the patterns of a fold's linear classifier, or the mean over members of a bag."""
    parts = list(_parts(experiment, config, view, arm, data))
    v, k = int(view.union.sum()), parts[0].coef.shape[1]
    total, count = np.zeros(((1 + SEEDS) * k, v)), np.zeros(v)
    keys = jax.random.split(key, SEEDS)
    for part in parts:
        coefs = [part.coef, *(_in_random_order(part, one, v) for one in keys)]
        patterns = np.concatenate([_pattern(coef, part.x) for coef in coefs], axis=1)
        total[:, part.columns] += part.back(patterns).T
        count[part.columns] += 1
    real, *random = (total / np.maximum(count, 1)).reshape(1 + SEEDS, k, v)
    return FoldMaps(real, np.stack(random), count > 0)


def _in_random_order(part: _Part, key, v: int) -> Float[np.ndarray, "m classes"]:
    """Returns each class's weights, permuted across voxels in the same way for all members.

    Independent permutations would cancel in the mean over members, whereas real weights agree.
    """
    place = np.asarray(jax.random.uniform(key, (v, part.coef.shape[1])))[part.voxels]
    return np.take_along_axis(np.sort(part.coef, 0), place.argsort(0).argsort(0), 0)


def _pattern(coef, x) -> Float[np.ndarray, "m classes"]:
    coef = jnp.asarray(coef, x.dtype)
    return np.asarray(maps.haufe(coef, x) * (x @ coef).std(0))


def _parts(experiment, config, view, arm: Arm, data: FoldData) -> Iterator[_Part]:
    """Yields the classifiers of a fold, fitted again as in the run.

    Raises:
      InputError: a classifier is not linear.
    """
    job = next(iter(experiment.baselines(config, data, (arm.decoder,))))
    found = weights.of(baselines.fit(job).model)
    if found is None or found.network != "linear":
        raise InputError("maps", f"{arm.decoder}, which has no linear weights", "a linear decoder")
    if arm.decoder != BAG and "every voxel" in data.notes:
        trained = Trained(found.network, found.params, arm.decoder, job=job)
        yield _of_every_voxel(Made(config, view, arm, data), trained)
        return
    parts = data.members if arm.decoder == BAG else (data,)
    for part, params in zip(parts, found.params, strict=True):
        x, coef = part.read(np.unique(part.fold.train)), np.asarray(params["coef"], np.float32)
        made = part.notes["made"]
        yield _Part(coef, x, made.voxels, columns_of(made), functools.partial(to_source, part))


def _of_every_voxel(made: Made, trained: Trained) -> _Part:
    every, mask = made.data.notes["every voxel"], made.view.union
    folded = span.every_voxel(made, trained, mask, None)
    sd = every.scale[1][:, None]
    columns = np.flatnonzero(made.data.notes["made"].mask)
    x = every.read(np.unique(made.data.fold.train))
    coef = (folded["kernel"][:, 0] * sd).astype(np.float32)
    return _Part(coef, x, columns, columns, lambda patterns: patterns * sd)
