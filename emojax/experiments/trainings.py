"""The trainings of a run, with its bars and its store: networks, then classical classifiers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emojax import stops
from emojax.experiments import fits
from emojax.experiments.base import Experiment
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
    arms: Sequence[Arm],
    made: Mapping[str, Sequence[FoldData]],
) -> dict[str, dict[int, Sequence[Mapping[str, np.ndarray]]]]:
    """Trains the networks of every arm: arm -> fold -> outcome of each instance."""
    if plan is None:
        return {}
    arms = [arm for arm in arms if not arm.decoder]
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
            kept = arm is arms[0] and config.train.keep_models and experiment.pack

            def keep(number, instance, best, arm=arm, kept=kept):
                if kept and (arm.members or instance == 0):
                    tree = {"params": best.params, "batch_stats": best.batch_stats}
                    work.save_model(fits.model_name(arm, number, instance), tree)

            def is_kept(number, instance, arm=arm, kept=kept):
                needed = kept and (arm.members or instance == 0)
                return not needed or work.has_model(fits.model_name(arm, number, instance))

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
    console: Any,
    arms: Sequence[Arm],
    made: Mapping[str, Sequence[FoldData]],
) -> dict[tuple[str, int], dict[str, Fitted]]:
    """Fits the classical classifiers: (arm, fold) -> name -> predictions."""
    folds = [(arm, i, data) for arm in arms for i, data in enumerate(made[arm.name])]
    folds = [fold for fold in folds if fold[0].baselines]
    total = sum(len(arm.baselines) for arm, _, _ in folds)
    with consoles.bar(console, "baselines", total, config.data.progress) as tick:
        return fits.fit_classifiers(experiment, config, folds, tick)
