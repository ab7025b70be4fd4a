"""The classifier of a decoder: loaded from the run, fitted again as in the run, or fitted anew."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from emojax import models
from emojax.errors import InputError
from emojax.experiments import fits, programs
from emojax.experiments.base import Experiment
from emojax.experiments.exports.parts import Made, Trained
from emojax.records import FoldData
from emojax.report import outcomes
from emojax.scoring import baselines, weights
from emojax.scoring.baselines import BAG
from emojax.training.checkpoint import Workdir

FOLDED = "linear ones and multilayer perceptrons"


def classical(experiment: Experiment, made: Made, name: str) -> Trained:
    """Fits a classical classifier as in the run.

    Raises:
      InputError: it cannot be exported as a decoder.
    """
    found = job = None
    if baselines.find(name).needs not in ("nuisance", "raw"):
        job = next(iter(experiment.baselines(made.config, made.data, (name,))))
        found = weights.of(baselines.fit(job).model)
    if found is None:
        expected = f"one that folds into a decoder: {FOLDED} (--classifier=logistic)"
        raise InputError("classifier", repr(name), expected)
    if name != BAG:
        return Trained(found.network, found.params, name, job=job)
    units = made.view.units
    who = (str(units[member.fold.monitor[0]]) for member in made.data.members)
    chosen = [
        (float(own["temperature"]), float(C)) for own, C in zip(found.params, found.C, strict=True)
    ]
    members = tuple((name, *own) for name, own in zip(who, chosen, strict=True))
    kind = f"bag of {len(members)} logistic decoders"
    return Trained(found.network, found.params, kind, True, members=members, job=job)


def kept(work: Workdir, made: Made, number: int, scores: Mapping[str, Any]) -> Trained:
    """Returns the networks of a fold, or of its members, as the run has kept them.

    Args:
      work: workdir of the run.
      made: the fold.
      number: number of the fold.
      scores: scores of its network, as in metrics.json.

    Raises:
      InputError: the run has kept no networks, or they cannot be folded.
    """
    config, arm = made.config, made.arm
    models.find(config.model.name).check_foldable(config.model)

    def load(name: fits.Number, instance: int) -> dict[str, Any]:
        tree = work.load_model(fits.model_name(arm, name, instance))
        if tree is None:
            expected = "a run with train.keep_models=True"
            raise InputError(f"models/{arm.name}", "no kept networks", expected)
        return {"params": tree["params"], "batch_stats": tree.get("batch_stats", {})}

    if not arm.members:
        temperature = (scores.get("uncalibrated") or {}).get("temperature", 1.0)
        return _one(made, load(number, 0), temperature)
    pairs = fits.members_of(arm, number, made.data)
    nets, found = [], {}
    for i, (name, member) in enumerate(pairs):
        count = range(len(member.train))
        nets.append([load(name, j) for j in count])
        done = [work.load_finished(f"{arm.name} {name} {j}") for j in count]
        if any(one is None for one in done):
            expected = "intact files (remove metrics.json and run again)"
            raise InputError(f"done/{arm.name}", "damaged results of training", expected)
        found[f"0.{i}"] = done
    return _several(made, nets, fits.joined(arm, [made.data], found, config.temperature)[0][0])


def _one(made: Made, net: Mapping[str, Any], temperature: float) -> Trained:
    model = made.config.model
    return Trained(
        model.name,
        (net["params"],),
        models.find(model.name).label(model),
        batch_stats=net["batch_stats"],
        temperature=temperature,
    )


def _several(made: Made, nets, outcome: Mapping[str, np.ndarray]) -> Trained:
    model = made.config.model
    temperatures = outcome.get("temperatures", np.ones(len(nets)))
    params = tuple(
        {"instances": own, "temperature": np.float64(t)}
        for own, t in zip(nets, temperatures, strict=True)
    )
    kind = f"mean of {sum(map(len, nets))} {models.find(model.name).label(model)} networks"
    return Trained(model.name, params, kind, True)


def trained(experiment: Experiment, made: Made) -> Trained:
    """Trains the networks on all subjects; the monitored rows choose the epoch.

    Raises:
      InputError: the network cannot be folded, or training fails.
    """
    assert experiment.program is not None
    config, data, arm = made.config, made.data, dataclasses.replace(made.arm, instances=1)
    network = models.find(config.model.name)
    network.check_foldable(config.model)
    members = tuple(_scored_as_monitored(own) for own in data.members)
    data = dataclasses.replace(_scored_as_monitored(data), members=members)
    parts, nets = fits.members_of(made.arm, 0, data), {}

    def keep(name, instance, best):
        nets[name, instance] = {"params": best.params, "batch_stats": best.batch_stats}

    streamed = config.train.feed == "stream"
    sizes = [len(rows) for _, own in parts for rows in own.train]
    plan = fits.Plan(
        experiment.program(config, int(data.labels.max()) + 1),
        config.train,
        streamed,
        network.input == "vector",
        max(programs.epochs_of(config.train, size) for size in sizes),
        config.train.checkpoint_epochs,
        programs.strategy_of(config, streamed),
    )
    done = fits.fit_networks(
        plan, arm, parts, store=fits.NoStore(), log=lambda *epoch: None, keep=keep
    )
    if made.arm.members:
        found = fits.joined(made.arm, [data], done, config.temperature)[0][0]
        each = [[nets[name, j] for j in range(len(own.train))] for name, own in parts]
        return _several(made, each, found)
    temperature = None
    if config.temperature:
        temperature = outcomes.temperature(made.cohort, arm, done[0][0])
    return _one(made, nets[0, 0], 1.0 if temperature is None else temperature)


def _scored_as_monitored(data: FoldData) -> FoldData:
    """Returns the data with the monitored rows as test rows, of which a refit has none."""
    fold = data.fold._replace(test=np.unique(data.fold.monitor))
    return dataclasses.replace(data, fold=fold, read_test=data.read)
