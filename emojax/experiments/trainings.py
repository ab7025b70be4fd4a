"""Training of a run's networks, then of its classical classifiers, with progress bars and store."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emojax import stops, tracking
from emojax.cluster import pieces
from emojax.experiments import fits, programs, sweeps
from emojax.experiments.base import Experiment
from emojax.records import Arm, FoldData
from emojax.report import console as consoles
from emojax.scoring.baselines import Fitted
from emojax.training import checkpoint
from emojax.training.checkpoint import Workdir
from emojax.training.trial import CURVES


def train(
    experiment: Experiment,
    config: Any,
    work: Workdir,
    console: Any,
    plan: fits.Plan | None,
    arms: Sequence[Arm],
    made: Mapping[str, Sequence[FoldData]],
) -> dict[str, Mapping[int, Sequence[Mapping[str, np.ndarray]]]]:
    """Trains the networks of every arm: arm -> fold -> outcome of each instance.

    Where several processes share the work, each claims free training runs. The process that writes
    the report then waits for the others, which return what is finished.
    """
    if plan is None:
        return {}
    arms = [arm for arm in arms if not arm.decoder]
    names = {
        f"{arm.name} {i} {j}": (arm.name, data.fold.name + (f" ({j + 1})" if j else ""))
        for arm in arms
        for i, data in fits.trainings(arm, made[arm.name])
        for j in range(len(data.train))
    }
    each = {arm.name: _plan_of(experiment, config, plan, arm, made[arm.name]) for arm in arms}
    epochs = {name: each[arm].epochs for name, (arm, _) in names.items()}
    out: dict[str, Mapping[int, Sequence[Mapping[str, np.ndarray]]]] = {}
    quiet = work.serves or not checkpoint.is_first()
    with (
        stops.deferred(),
        consoles.TrainingLog(
            work.folder / "metrics.jsonl",
            console,
            "fold epochs",
            sum(epochs.values()),
            config.data.progress,
            quiet=quiet,
        ) as training,
        tracking.opened(_loggers(config, quiet), work.folder, work.plain_config) as track,
    ):
        log = _with_others(_logger(training, names, track), work, epochs)
        rounds = (True,) if work.members == 1 else (False,) if work.serves else (False, True)
        for wait in rounds:
            for arm in (arm for arm in arms if arm.name not in out):
                numbered = fits.trainings(arm, made[arm.name])
                keep, is_kept = _keeping(experiment, config, work, arm, kept=arm is arms[0])
                done = fits.fit_networks(
                    each[arm.name],
                    arm,
                    numbered,
                    store=work,
                    log=log,
                    keep=keep,
                    is_kept=is_kept,
                    wait=wait,
                )
                if len(done) == len(numbered):
                    out[arm.name] = fits.joined(arm, made[arm.name], done, config.temperature)
                stops.check()
    return out


def _keeping(experiment: Experiment, config: Any, work: Workdir, arm: Arm, kept: bool):
    """Returns the callbacks `keep` and `is_kept` of `fits.fit_networks`; `kept` turns them on."""
    kept = kept and config.train.keep_models and experiment.pack is not None

    def keep(number, instance, best):
        if kept and (arm.members or instance == 0):
            tree = {"params": best.params, "batch_stats": best.batch_stats}
            work.save_model(fits.model_name(arm, number, instance), tree)

    def is_kept(number, instance):
        needed = kept and (arm.members or instance == 0)
        return not needed or work.has_model(fits.model_name(arm, number, instance))

    return keep, is_kept


def _plan_of(
    experiment: Experiment, config: Any, plan: fits.Plan, arm: Arm, made: Sequence[FoldData]
) -> fits.Plan:
    """Returns the plan of an arm; a sweep candidate has its own program."""
    if not arm.setting:
        return plan
    assert experiment.program is not None
    config = sweeps.config_of(config, arm)
    program = experiment.program(config, int(made[0].labels.max()) + 1)
    sizes = [len(rows) for _, data in fits.trainings(arm, made) for rows in data.train]
    return dataclasses.replace(
        plan,
        program=program,
        train=config.train,
        epochs=max(programs.epochs_of(config.train, size) for size in sizes),
        lanes=tuple(program._replace(mesh=lane.mesh) for lane in plan.lanes),
    )


def _with_others(log: Callable, work: Workdir, epochs: Mapping[str, int]) -> Callable:
    """Returns a log that also reports the epochs trained by other processes."""
    if work.members == 1:
        return log
    known = {name for name in epochs if work.load_finished(name) is not None}

    def heard(name, epoch, metrics):
        elsewhere = not metrics and epoch == epochs[name] and name not in known
        if elsewhere and (done := work.load_finished(name)) is not None:
            for i in range(int(done["done"])):
                log(name, i + 1, {curve: float(done[curve][i]) for curve in CURVES})
        if metrics or elsewhere:
            known.add(name)
        log(name, epoch, metrics)

    return heard


def _loggers(config: Any, quiet: bool) -> str:
    """Returns the loggers of a run; none in processes that write nothing."""
    return "" if quiet else config.train.get("loggers", "")


def _logger(training, names: Mapping[str, tuple[str, str]], track: tracking.Track) -> Callable:
    """Returns log(name, epoch, metrics); resumed or skipped epochs only advance the bar."""
    last = dict.fromkeys(names, 0)

    def log(name, epoch, metrics):
        done = epoch - last[name] - bool(metrics)
        if done > 0:
            training.advance(done)
        if metrics:
            training.epoch(*names[name], epoch, metrics)
            track(*names[name], epoch, metrics)
        last[name] = epoch

    return log


def classify(
    experiment: Experiment,
    config: Any,
    work: Workdir,
    console: Any,
    arms: Sequence[Arm],
    made: Mapping[str, Sequence[FoldData]],
) -> dict[tuple[str, int], dict[str, Fitted]]:
    """Fits the classical classifiers: (arm, fold) -> name -> predictions.

    Several processes share the folds; a helper returns what is finished.
    """
    folds = {
        f"{arm.name} {i}": (arm, i, data) for arm in arms for i, data in enumerate(made[arm.name])
    }
    folds = {f"classifiers {name}": fold for name, fold in folds.items() if fold[0].baselines}
    total = sum(len(arm.baselines) for arm, _, _ in folds.values())
    with consoles.bar(console, "baselines", total, config.data.progress) as tick:

        def compute(names):
            mine = [folds[name] for name in names]
            done = fits.fit_classifiers(experiment, config, mine, tick)
            return ((name, _packed(done[folds[name][0].name, folds[name][1]])) for name in names)

        most = max(len(folds) // (4 * work.members), 1)
        found = pieces.each(work, list(folds), compute, most=most, wait=not work.serves)
    return {(folds[name][0].name, folds[name][1]): _unpacked(own) for name, own in found.items()}


def _packed(fitted: Mapping[str, Fitted]) -> dict[str, np.ndarray]:
    """Returns the classifiers of a fold as flat arrays, without fields that are None."""
    out = {}
    for i, (name, own) in enumerate(fitted.items()):
        parts = own._asdict() | {"name": name, "weights": None}
        parts |= {f"weights {key}": value for key, value in (own.weights or {}).items()}
        out |= {f"{i} {key}": np.asarray(v) for key, v in parts.items() if v is not None}
    return out


def _unpacked(arrays: Mapping[str, np.ndarray]) -> dict[str, Fitted]:
    """Inverts `_packed`."""
    each: dict[int, dict[str, np.ndarray]] = {}
    for key, value in arrays.items():
        number, _, part = key.partition(" ")
        each.setdefault(int(number), {})[part] = value
    out = {}
    for _, parts in sorted(each.items()):
        weights = {k.partition(" ")[2]: v for k, v in parts.items() if k.startswith("weights ")}
        peak = int(parts["peak_bytes"]) if "peak_bytes" in parts else None
        out[str(parts["name"])] = Fitted(
            parts["predicted"],
            parts["probabilities"],
            bool(parts["converged"]),
            peak,
            weights or None,
        )
    return out
