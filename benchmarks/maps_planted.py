"""Maps of decoders against the response that the simulated cohort has planted.

    python -m benchmarks.maps_planted        # about two minutes on 2 cores

The cohort is that of configs/expA.py:demo, where the responding voxels are known: their class means
differ by .5 % of the brain's mean or more (rms over classes). Each row has the ROC AUC of a map's
size for these voxels, among the voxels that the decoder reads, and the mean AUC of the same map
with random weights. Decoders are those of the first fold, aligned with `independent_runs`; their
maps are taken back to each training person, and AUCs are averaged over these people. A network's
map is the mean over people, as in reports, against their mean response. Two rows are decoders of
all voxels of the mask, without alignment.
"""

import tempfile
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.record import keep
from configs import expA
from emojax import maps, sources
from emojax.experiments import experiment_a, programs, saliencies
from emojax.experiments.own_space import ways_of
from emojax.provenance import Ledger
from emojax.scoring import baselines, weights
from emojax.sources import synthetic
from emojax.sources.synthetic_signals import TISSUE
from emojax.training import loop
from emojax.training.feeds import Resident

CLEAR = 0.005 * TISSUE  # scanner units, rms over classes
SEEDS = 8  # draws of random weights


def auc(values, truth) -> float:
    """Returns the ROC AUC of a map's size [v, classes] for voxels with a clear response."""
    clear = np.sqrt((truth**2).mean(1)) > CLEAR
    return float(roc_auc_score(clear, np.sqrt((np.asarray(values) ** 2).mean(1))))


def make_config(store: str, voxels: int) -> config_dict.ConfigDict:
    config = expA.get_config("demo")
    config.data.store, config.data.progress = store, False
    config.update({"headline": "network", "protocols": "nested", "baselines": "logistic"})
    config.voxels.keep, config.align.regimes = voxels, "independent_runs"
    return config


def linear(config, view, truth, data) -> list[dict[str, Any]]:
    """Returns the rows of a logistic regression on the features of a fold."""
    (job,) = experiment_a.jobs(config, data, ("logistic",))
    classical = weights.of(baselines.fit(job).model)
    assert classical is not None  # linear
    coef = np.asarray(classical.params[0]["coef"], np.float32)
    made, x = data.notes["made"], data.read(np.unique(data.fold.train))
    names = list(dict.fromkeys(view.units[data.fold.train].tolist()))

    def score(values, to_source):
        own = [to_source(values, way, made.scaler[1]) for way in ways_of(data)]
        pairs = zip(names, own, strict=True)
        return float(np.mean([auc(one, truth[name][made.voxels]) for name, one in pairs]))

    random = [
        score(maps.haufe(maps.randomised(coef, key), x), maps.patterns_to_source)
        for key in jax.random.split(jax.random.key(0), SEEDS)
    ]
    head = {"decoder": "logistic regression", "voxels": config.voxels.keep}
    pattern = score(maps.haufe(coef, x), maps.patterns_to_source)
    return [
        head | {"map": "pattern", "real": pattern, "random": float(np.mean(random))},
        head | {"map": "weights", "real": score(coef, maps.weights_to_source)},
    ]


def network(config, view, truth, data) -> list[dict[str, Any]]:
    """Returns the rows of the 1D CNN, trained for the demo's epochs."""
    program = programs.make_program(config, len(view.cohort.classes))
    rows = np.concatenate([data.train[0], data.monitor])

    def feed():
        return Resident(data.read, data.labels, rows, np.float32, program.mesh)

    task = loop.Task("maps", data.keys[0], feed, data.train[0], data.monitor)
    epochs, factor = config.train.epochs, config.train.penalty_factor
    options = {"epochs": epochs, "every": epochs, "strategy": loop.default_strategy()}
    ((_, trained),) = loop.fit(program, [task], factor=factor, **options)
    kept = {"params": trained.best.params, "batch_stats": trained.best.batch_stats}
    arm = experiment_a.arms(config, view.cohort)[0]
    where = experiment_a.EXPERIMENT, config, view, arm
    (found,) = saliencies.of_folds(*where, [data], lambda _: None, lambda _: kept)
    names = dict.fromkeys(view.units[data.fold.train].tolist())
    mean = np.mean([truth[name] for name in names], axis=0)
    head = {"decoder": "1D CNN", "voxels": config.voxels.keep, "epochs": epochs}
    return [
        head
        | {
            "map": kind,
            "real": auc(own.real.T[own.read], mean[own.read]),
            "random": float(np.mean([auc(one.T[own.read], mean[own.read]) for one in own.random])),
        }
        for kind, own in found.items()
    ]


def whole(view, truth, names) -> dict[str, Any]:
    """Returns the row of a logistic regression on all voxels of the mask, without alignment."""
    inside = np.all([view.inside[name] for name in names], axis=0)
    parts = [view.volumes[view.rows(name)][:, inside] for name in names]
    x = np.concatenate([part - part.mean(0) for part in parts])
    y = np.concatenate([view.labels[view.rows(name)] for name in names])
    sd, mean = x.std(0), np.mean([truth[name] for name in names], axis=0)[inside]
    model = LogisticRegression(C=1e-3, class_weight="balanced", max_iter=200).fit(x / sd, y)

    def pattern(coef):
        return np.asarray(maps.haufe(coef, x / sd))

    coef = np.asarray(model.coef_.T, np.float32)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    random = [pattern(maps.randomised(coef, key)) for key in keys]
    people = "all people" if len(names) > 1 else "one person"
    return {
        "decoder": f"logistic regression, {people}, no alignment",
        "voxels": int(inside.sum()),
        "map": "pattern",
        "real": auc(pattern(coef) * sd[:, None], mean),
        "random": float(np.mean([auc(one * sd[:, None], mean) for one in random])),
        "random_over_sd": float(np.mean([auc(one, mean) for one in random])),
    }


def measure(store: str) -> list[dict[str, Any]]:
    """Returns all rows."""
    rows, view, truth = [], None, {}
    for voxels in (300, 1000):
        config = make_config(store, voxels)
        if view is None:
            view = experiment_a.view(config, sources.load(config.data))
            truth = {n: synthetic.planted(config.data, n)[view.union] for n in view.names}
        arm = experiment_a.arms(config, view.cohort)[0]
        fold = experiment_a.folds(config, view, arm)[0]
        data = experiment_a.features(config, Ledger(view), fold, arm, 0)
        rows += linear(config, view, truth, data)
        if voxels == 300:
            rows += network(config, view, truth, data)
    return [*rows, whole(view, truth, view.names), whole(view, truth, view.names[:1])]


def main():
    with tempfile.TemporaryDirectory() as store:
        rows = measure(store)
    for row in rows:
        print({name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()})
    keep("maps_cpu", "planted", rows)


if __name__ == "__main__":
    main()
