"""The trainings of a run, with its bars and its store: networks, then classical classifiers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emojax import stops
from emojax.experiments import audits, fits
from emojax.experiments.base import Experiment
from emojax.experiments.choice import AUTO
from emojax.records import Arm, FoldData
from emojax.report import console as consoles
from emojax.scoring.baselines import Fitted
from emojax.training import checkpoint
from emojax.training.checkpoint import Workdir


def train(
    experiment: Experiment,
    config: Any,
    work: Workdir,
    console: Any,
    plan: fits.Plan | None,
    views: audits.Sources,
    arms: Sequence[Arm],
    made: Mapping[str, Sequence[FoldData]],
) -> dict[str, dict[int, Sequence[Mapping[str, np.ndarray]]]]:
    """Trains the networks of every arm: arm -> fold -> outcome of each instance."""
    if plan is None:
        return {}
    kept_arms = {arms[0].name}
    arms = [arm for arm in arms if not arm.decoder]
    if config.get("headline") == AUTO:
        kept_arms.add(arms[0].name)
    names = {
        f"{arm.name} {i} {j}": (arm.name, data.fold.name + (f" ({j + 1})" if j else ""))
        for arm in arms
        for i, data in fits.trainings(arm, made[arm.name])
        for j in range(len(data.train))
    }
    out = {}
    with (
        stops.deferred(),
        consoles.TrainingLog(
            work.folder / "metrics.jsonl",
            console,
            "fold epochs",
            plan.epochs * len(names),
            config.data.progress,
            quiet=not checkpoint.is_first(),
        ) as training,
    ):
        log = _logger(training, names)
        for arm in arms:
            kept = arm.name in kept_arms and not arm.members
            kept = kept and config.train.keep_models and experiment.pack

            def keep(number, instance, best, arm=arm, kept=kept):
                if kept and instance == 0:
                    tree = {"params": best.params, "batch_stats": best.batch_stats}
                    data = made[arm.name][number]
                    tree["fitted"] = experiment.pack(config, views[arm.source][1], data)
                    work.save_model(f"{arm.name} {number}", tree)

            def is_kept(number, instance, arm=arm, kept=kept):
                return not kept or instance > 0 or work.has_model(f"{arm.name} {number}")

            numbered = fits.trainings(arm, made[arm.name])
            done = fits.fit_networks(
                plan, arm, numbered, store=work, log=log, keep=keep, is_kept=is_kept
            )
            out[arm.name] = fits.joined(arm, made[arm.name], done, config.temperature)
            stops.check()
    return out


def _logger(training, names: Mapping[str, tuple[str, str]]) -> Callable:
    """Returns log(name, epoch, metrics); epochs done before or left out only move the bar."""
    last = dict.fromkeys(names, 0)

    def log(name, epoch, metrics):
        done = epoch - last[name] - bool(metrics)
        if done > 0:
            training.advance(done)
        if metrics:
            training.epoch(*names[name], epoch, metrics)
        last[name] = epoch

    return log


def classify(
    experiment: Experiment,
    config: Any,
    work: Workdir,
    console: Any,
    views: audits.Sources,
    arms: Sequence[Arm],
    made: Mapping[str, Sequence[FoldData]],
) -> dict[tuple[str, int], dict[str, Fitted]]:
    """Fits the classical classifiers: (arm, fold) -> name -> predictions; keeps those to export."""
    folds = [(arm, i, data) for arm in arms for i, data in enumerate(made[arm.name])]
    folds = [fold for fold in folds if fold[0].baselines]
    total = sum(len(arm.baselines) for arm, _, _ in folds)
    with consoles.bar(console, "baselines", total, config.data.progress) as tick:
        found = fits.fit_classifiers(experiment, config, folds, tick)
    if config.train.keep_models and experiment.pack and checkpoint.is_first():
        for arm, i, data in folds:
            if arm.decoder:
                weights = found[arm.name, i][arm.decoder].weights
                packed = experiment.pack(config, views[arm.source][1], data, weights)
                work.save_model(f"{arm.name} {i}", {"fitted": packed})
    return found
