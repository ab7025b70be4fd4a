"""Maps of the networks that a run has kept, in the voxels of training subjects.

Saliency is the contribution of a voxel to a network's output; a pattern is the response of a voxel
to that output. Both are slow, so they are limited: some training volumes of each class, few points
on each path and, for networks of whole volumes, one fold.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax import maps, models, procrustes
from emojax.decoder import build
from emojax.decoder.build import Decoder, Facts
from emojax.errors import InputError
from emojax.experiments import fits
from emojax.experiments.base import Experiment
from emojax.experiments.own_space import FoldMaps, columns_of, mask_of, ways_of
from emojax.features import across_subjects, common_space
from emojax.provenance import Ledger
from emojax.records import Arm, FoldData

KINDS = ("saliency", "pattern")
SEEDS = 2  # networks with random weights for comparison with each network
SHOWN = {"vector": 10, "volume": 8}  # volumes per class, from each training unit or the fold
REGRESSED = 128  # volumes per class behind a pattern, for networks of whole volumes
STEPS = {"vector": 16, "volume": 8}  # points on each path
BATCH = 8  # volumes that a network reads at a time
FOLDS = 1  # number of folds, for networks of whole volumes

Load = Callable[[str], Mapping[str, Any] | None]


def nothing(name: str) -> None:
    """Returns None: no network was kept."""


def of_folds(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any],
    load: Load,
) -> Iterator[dict[str, FoldMaps]]:
    """Yields the maps of each fold, by `KINDS`; see `patterns.analyse`.

    Raises:
      InputError: networks were not kept or cannot be folded, or columns have no common grid.
    """
    network = models.find(config.model.name)
    network.check_foldable(config.model)
    is_vector = network.input == "vector"
    if is_vector and (view.union is None or config.voxels.own):
        raise InputError("maps", "voxels that subjects do not share", "common voxels of one grid")
    for number, data in enumerate(made if is_vector else made[:FOLDS]):
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        found = []
        for name, part in fits.members_of(arm, number, data):
            kept = load(fits.model_name(arm, name, 0))
            if kept is None:
                raise InputError("maps", "no kept network", "a run with train.keep_models=True")
            draw = _vector if is_vector else _volume
            found.append(draw(config, view, part, kept, key))
        values, read = zip(*found, strict=True)
        count = np.maximum(np.sum(read, axis=0), 1)  # number of members that read a voxel
        real, *random = np.sum(values, axis=0) / count  # [networks, kinds, classes, v]
        yield {
            kind: FoldMaps(real[i], np.stack(random)[:, i], np.any(read, axis=0))
            for i, kind in enumerate(KINDS)
        }
        tick(1)


def _networks(kept: Mapping[str, Any], key) -> list[Mapping[str, Any]]:
    """Returns the kept parameters, then copies with their values in random order."""
    keys = jax.random.split(key, SEEDS)
    return [kept["params"], *(maps.randomised(kept["params"], one) for one in keys)]


def _vector(config, view, data: FoldData, kept, key):
    """Computes the maps of a network of vectors in each training unit.

    Returns:
      Maps [networks, kinds, classes, v], averaged over units, and the voxels that the network
      reads, [v] bool.
    """
    fitted, mask = data.notes["made"], mask_of(view)
    (mean, sd), columns = fitted.scaler, columns_of(fitted)
    voxels = np.arange(len(mean))  # indices of the aligned features
    own = {"voxels": voxels, "mean": mean, "sd": sd, "batch_stats": kept.get("batch_stats", {})}
    if (path := data.notes.get("linear path")) is not None:
        own["path"] = tuple(path)
    folded = []
    for params in _networks(kept, key):
        member = own | {"params": jax.tree.map(np.asarray, params)}
        folded.append(build.fold(config.model.name, [member], [None]))
        del folded[-1]["voxels"]
    ledger, ways = Ledger(view), ways_of(data)
    centred = ways[0] is None and across_subjects.centres(ledger, data.notes["settings"])
    team = common_space.team_of(ledger, data.fold)
    ways = ways if len(ways) == len(team.train) else list(ways) * len(team.train)
    out = np.zeros((1 + SEEDS, len(KINDS), len(view.cohort.classes), len(columns)))
    for unit, way in zip(team.train, ways, strict=True):
        every = team.rows[unit]
        values, rows = ledger.values("maps", every, columns), _some(every, data.labels)
        middle, chosen = values.mean(0), values[np.searchsorted(every, rows)]
        way = _Way(middle if centred else way, fitted.space and fitted.space.places)
        for i, weights in enumerate(folded):
            shares = _shares(config.model.name, weights, way, chosen, middle)
            for k in range(out.shape[2]):
                out[i, 0, k] += shares[data.labels[rows] == k, k].mean(0) / len(team.train)
            outputs = _outputs(config.model.name, weights, way, values)
            out[i, 1] += _pattern(outputs, values) / len(team.train)
    whole = np.zeros((*out.shape[:3], int(mask.sum())))
    whole[..., columns] = out
    return whole, np.isin(np.arange(whole.shape[-1]), columns)


class _Way(NamedTuple):
    """The path of a unit's voxels into the common space."""

    by: Any = None  # a mapping, the mean to subtract, or None
    places: Any = None  # dimensions selected after the mapping; None: all

    def apply(self, x):
        if self.by is not None:
            x = self.by.forward(x) if isinstance(self.by, procrustes.Mapping) else x - self.by
        return x if self.places is None else x[:, self.places]


@functools.partial(jax.jit, static_argnums=0)
def _outputs(network: str, weights, way, x) -> Float[jax.Array, "n k"]:
    return maps.centred_logits(network, weights, way.apply(x))


@functools.partial(jax.jit, static_argnums=0)
def _shares(network: str, weights, way, x, start) -> Float[jax.Array, "n k m"]:
    outputs = functools.partial(_outputs, network, weights, way)
    return maps.integrated_gradients(outputs, x, start, STEPS["vector"])


def _pattern(outputs, x) -> Float[np.ndarray, "k v"]:
    """Returns the patterns of outputs [n, k], each scaled to one sd of its output."""
    scaled = maps.output_patterns(outputs, x.reshape(len(x), -1)) * outputs.std(0)
    return np.asarray(scaled).T


def _volume(config, view, data: FoldData, kept, key):
    """Computes the maps of a network of whole volumes, without padding; returns as `_vector`."""
    network, scale, mask = models.find(config.model.name), data.notes["scale"], mask_of(view)
    train = np.unique(data.fold.train)
    rows = _some(train, data.labels, SHOWN["volume"])
    more = _some(train, data.labels, REGRESSED)
    volumes, regressed = (np.nan_to_num(data.notes["raw"](own)) for own in (rows, more))
    grid, out = volumes.shape[1:], []
    first = [(n - m) // 2 for n, m in zip(grid, mask.shape, strict=True)]
    inside = tuple(slice(i, i + m) for i, m in zip(first, mask.shape, strict=True))
    assert network.fold is not None  # `of_folds` has checked that it can be folded
    for params in _networks(kept, key):
        folded = dict(network.fold(params, kept.get("batch_stats", {})))
        folded |= {"mean": np.float32(scale.mean), "sd": np.float32(scale.sd)}
        decoder = _decoder(config, view.classes, np.ones(grid, bool), folded)
        shares = maps.saliency(
            decoder,
            volumes,
            data.labels[rows],
            baseline=regressed.mean(0),
            steps=STEPS["volume"],
        )
        parts = [regressed[i : i + BATCH] for i in range(0, len(regressed), BATCH)]
        each = [_outputs(decoder.network, decoder.weights, _Way(), part) for part in parts]
        pattern = _pattern(jnp.concatenate(each), regressed).reshape(-1, *grid)
        both = np.moveaxis(shares, -1, 0), pattern
        out.append([own[(slice(None), *inside)].reshape(len(own), -1) for own in both])
    return np.array(out), np.ones(mask.size, bool)


def _some(
    rows: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], count: int = SHOWN["vector"]
) -> Int[np.ndarray, " m"]:
    """Returns at most `count` rows of each class, spread evenly, in order."""
    out = []
    for k in np.unique(labels[rows]):
        own = rows[labels[rows] == k]
        out.append(own[np.unique(np.linspace(0, len(own) - 1, count).astype(int))])
    return np.sort(np.concatenate(out))


def _decoder(config, classes, mask, folded: Mapping[str, Any]) -> Decoder:
    facts = Facts(tuple(classes), mask.shape, 0.0, 1.0)
    return Decoder(folded, mask, None, None, config.model.name, facts)
