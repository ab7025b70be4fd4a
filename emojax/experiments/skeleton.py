"""The skeleton that runs every experiment, from a config to its report.

`run` reads top to bottom. An experiment file (`experiment_a.py`, `experiment_b.py`, or anybody's)
says which arms there are, who trains and is tested, and how features are made; all else is here.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

from emojax import decoder, sources, stops
from emojax.data import identity, noise
from emojax.data.belonging import check_classes
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.experiments import analyses, audits, fits, plans, settings
from emojax.experiments.base import Experiment, check_arms
from emojax.files import split_list
from emojax.provenance import PROTOCOLS, LeakageError, Ledger, classify
from emojax.records import Arm, ArmResult, FoldData, FoldResult
from emojax.report import console as consoles
from emojax.report import results
from emojax.report.schema import Result
from emojax.scoring import baselines
from emojax.splits import Fold
from emojax.training import checkpoint
from emojax.training.checkpoint import Workdir

Until = Literal["data", "plan", "report"]


def run(
    experiment: Experiment,
    config: Any,
    workdir: str | os.PathLike,
    *,
    cohort: Any = None,
    command: str = "",
    until: Until = "report",
    restart: bool = False,
) -> Result | None:
    """Runs an experiment and writes its report into the workdir.

    A workdir belongs to a config and to the data that its first training has read: a run that was
    stopped goes on where it was, one that has ended prints its table.

    Args:
      experiment: see `base.Experiment`.
      config: a ConfigDict with the keys of `configs/common.py`; it is not changed.
      workdir: folder of the results; made, or continued.
      cohort: the data; None: read as `config.data` says.
      command: the command line, for the report.
      until: "data" reads and counts, "plan" also fits features, audits them and prints the cost of
        the training, "report" runs everything.
      restart: removes what an earlier run has left in the workdir.

    Returns:
      The result; None before the report.

    Raises:
      InputError: data or settings cannot be used, or the workdir belongs to others, or to another
        process that is at work in it.
      LeakageError: an arm saw more of what it is scored on than its class of protocol allows.
    """
    first = checkpoint.is_first()
    console = consoles.make(quiet=not first)
    settings.check(config)
    experiment.check(config)
    if until != "data" and experiment.program:
        experiment.program(config, 2)  # the devices are asked before data is read
    config = _own_copy(config, workdir)
    with _open(config, workdir, first, restart) as work:
        if work.is_finished and until == "report":
            return _again(work, cohort, console)
        return _run(experiment, config, work, console, cohort, command, until)


def _run(experiment, config, work: Workdir, console, cohort, command, until) -> Result | None:
    """Runs an experiment in an open workdir; see `run`."""
    first = checkpoint.is_first()
    seconds: dict[str, float] = {}
    with _stage(seconds, "reading"):
        cohort = sources.load(config.data) if cohort is None else cohort
    work.bind(identity.describe(cohort))
    if first:
        consoles.show_counts(console, cohort)
        if not work.is_finished:
            consoles.write_counts(work.folder, cohort)
    check_classes(cohort)
    analyses.check_columns(config, cohort)
    if until == "data":
        return None

    arms = check_arms(experiment.arms(config, cohort))
    for name in split_list(config.get("baselines", "")):
        if not baselines.available(name):
            console.print(f"{name}: left out, its package is not installed", markup=False)
    trained = [arm for arm in arms if not arm.shares]
    with _stage(seconds, "masks"):
        views = _views(experiment, config, cohort, trained)
    notes = [*cohort.notes, *experiment.notes(config, views[False][1])]
    for note in notes[len(cohort.notes) :]:  # the others were printed beside the counts
        console.print(note, markup=False)
    with _stage(seconds, "features"):
        made = {arm.name: _features(experiment, config, views, arm) for arm in trained}
        records = {arm.name: _records(arm, made[arm.name], cohort) for arm in trained}
    with _stage(seconds, "plan"):
        plan = plans.make_plan(console, experiment, config, cohort, trained, made)
    audit = {"measured": False, "arms": {}}
    with _stage(seconds, "audit"):
        if config.audit:
            with consoles.bar(console, "audit", 2 * len(trained), config.data.progress) as tick:
                audit = audits.audit_arms(experiment, config, views, trained, made, plan, tick)
    if until == "plan":
        return None

    headline = arms[0]
    ask = (experiment, config, views[False][1], headline, made[headline.name])
    analyses.check(*ask)
    with _stage(seconds, "training"):
        outcomes = _train(experiment, config, work, console, plan, views, trained, made)
    with _stage(seconds, "baselines"):
        classical = _classify(experiment, config, console, trained, made)
    with _stage(seconds, "analyses"):
        answers = analyses.run(*ask, lambda name, total: _bar(console, name, total, config))
    work.check_inputs()
    found = _results(cohort, arms, made, records, outcomes, classical)
    metrics = results.summarise(
        config.experiment,
        work.plain_config,
        views[False][0],
        found,
        audit=audit,
        network=experiment.label(config),
        command=command,
        seconds=seconds,
    )
    metrics |= answers
    metrics["notes"] = notes
    metrics["streamed"] = bool(plan and plan.streamed)
    names = dict.fromkeys(name for arm in arms for name in arm.baselines)
    metrics["baseline_settings"] = {name: baselines.settings(name) for name in names}
    metrics["decoder_factor"] = decoder.FACTOR
    result = results.build(metrics, views[False][0], found, extras=_extras(views[False][1]))
    if first:
        result.save(work.folder)
        consoles.print_table(result, console)
        console.print(f"report: {work.folder / 'report.html'}", markup=False)
    return result


@contextlib.contextmanager
def _stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Times a stage; a signal that came in it, and was not heard, ends the run behind it."""
    with consoles.timed(seconds, name):
        yield
    stops.check()


def _bar(console, title: str, total: int, config: Any):
    """Returns the progress bar of a stage."""
    return consoles.bar(console, title, total, config.data.progress)


def _own_copy(config: Any, workdir: str | os.PathLike) -> Any:
    """Returns a locked copy with a store; the caller's config stays as it is."""
    config = config.copy_and_resolve_references()
    if not config.data.store:
        config.data.store = str(pathlib.Path(workdir).absolute().parent / "store")
    return config.lock()


def _open(config: Any, workdir: str | os.PathLike, first: bool, restart: bool) -> Workdir:
    """Opens the workdir in the first process; the others wait, and only read."""
    plain = checkpoint.plain_config(config.to_dict())
    work = Workdir(pathlib.Path(workdir).absolute(), plain)
    if first:
        work = checkpoint.open_workdir(workdir, config.to_dict(), restart=restart)
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices("workdir")
    return work


def _again(work: Workdir, cohort, console) -> Result:
    """Prints the table of a finished workdir; nothing is fitted, no file changes."""
    work.check_inputs()
    if cohort is not None:
        identity.check_same(checkpoint.read_run(work.folder)["inputs"], identity.describe(cohort))
    result = Result.load(work.folder)
    consoles.print_table(result, console)
    console.print(f"finished before; report: {work.folder / 'report.html'}", markup=False)
    return result


def _views(experiment, config, cohort, arms: Sequence[Arm]) -> dict[bool, tuple[Any, Any]]:
    """Returns on noise or not -> (cohort, what ledgers read of it)."""
    floor = None
    if config.null or any(arm.on_noise for arm in arms):
        key, store = jax.random.key(config.seed), Store(config.data.store)
        floor = noise.noise_like(key, cohort, store, phi=config.noise.phi, width=config.noise.width)
    used = {False: floor if config.null else cohort}
    if any(arm.on_noise for arm in arms):
        used[True] = floor
    return {on_noise: (data, experiment.view(config, data)) for on_noise, data in used.items()}


def _features(experiment, config, views, arm: Arm) -> list[FoldData]:
    """Makes the features of every fold of an arm."""
    view = views[arm.on_noise][1]
    folds = experiment.folds(config, view, arm)
    if not folds:
        raise InputError(f"arm {arm.name!r}", "no fold", "one fold or more")
    unit = experiment.units(config, view, arm)
    for fold in folds:
        _check_fold(arm, fold, unit)
    return [
        replace(experiment.features(config, Ledger(view), fold, arm, i), unit=unit)
        for i, fold in enumerate(folds)
    ]


def _check_fold(arm: Arm, fold: Fold, unit: np.ndarray) -> None:
    """Refuses a fold that trains on the units that it scores, before anything is fitted to it.

    Raises:
      LeakageError: the arm is not leaky by name.
    """
    both = np.isin(unit[fold.train], unit[fold.test]).sum()
    if both and arm.protocol != "leaky":
        raise LeakageError(
            f"{arm.name} claims to be {arm.protocol}, but in fold {fold.name} step 'network' saw "
            f"labels of {both} volumes of what is scored"
        )


def _records(arm: Arm, made: Sequence[FoldData], cohort) -> list[tuple[str, dict[str, int]]]:
    """Returns class of protocol and leaks of each fold, refused if worse than the arm claims."""
    return [
        classify(
            data.ledger.seen(data.fold.test, prior=False),
            subject=cohort.subject,
            unit=data.unit,
            claimed=arm.protocol,
            name=arm.name,
            prior=data.ledger.prior,
        )
        for data in made
    ]


def _train(experiment, config, work: Workdir, console, plan, views, arms, made):
    """Trains the networks of every arm: arm -> fold -> outcome of each instance."""
    if plan is None:
        return {}
    names = {
        f"{arm.name} {i} {j}": (arm.name, data.fold.name + (f" ({j + 1})" if j else ""))
        for arm in arms
        for i, data in enumerate(made[arm.name])
        for j in range(len(data.train))
    }
    out, headline = {}, arms[0].name
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
            kept = config.train.keep_models and arm.name == headline and experiment.pack

            def keep(number, instance, best, arm=arm, kept=kept):
                if kept and instance == 0:
                    tree = {"params": best.params, "batch_stats": best.batch_stats}
                    data = made[arm.name][number]
                    tree["fitted"] = experiment.pack(config, views[arm.on_noise][1], data)
                    work.save_model(f"{arm.name} {number}", tree)

            def is_kept(number, instance, arm=arm, kept=kept):
                return not kept or instance > 0 or work.has_model(f"{arm.name} {number}")

            numbered = list(enumerate(made[arm.name]))
            out[arm.name] = fits.fit_networks(
                plan, arm, numbered, store=work, log=log, keep=keep, is_kept=is_kept
            )
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


def _classify(experiment, config, console, arms: Sequence[Arm], made):
    """Fits the classical classifiers: (arm, fold) -> name -> predictions."""
    folds = [(arm, i, data) for arm in arms for i, data in enumerate(made[arm.name])]
    folds = [fold for fold in folds if fold[0].baselines]
    total = sum(len(arm.baselines) for arm, _, _ in folds)
    with consoles.bar(console, "baselines", total, config.data.progress) as tick:
        return fits.fit_classifiers(experiment, config, folds, tick)


def _results(cohort, arms, made, records, outcomes, classical) -> list[ArmResult]:
    """Returns every row of the result table; arms that share a training have its outcomes."""
    out = []
    for arm in arms:
        source = arm.shares or arm.name
        folds = []
        for i, data in enumerate(made[source]):
            notes = dict(data.notes)
            if arm.oversampled:  # labels of test rows are read here, where scores begin
                notes["oversampled"] = notes["oversample"](cohort.labels[data.fold.test])
            folds.append(
                FoldResult(
                    data.fold,
                    outcomes.get(source, {}).get(i, ()),
                    {} if arm.shares else classical.get((source, i), {}),
                    data.ledger.seen(data.fold.test),
                    records[source][i][1],
                    notes,
                )
            )
        worst = max((protocol for protocol, _ in records[source]), key=PROTOCOLS.index)
        out.append(ArmResult(arm, worst, tuple(folds)))
    return out


def _extras(view: Any) -> dict[str, Any]:
    """Returns what the map of chosen voxels is drawn on: mean volume and affine."""
    mean = getattr(view, "mean", None)
    return {} if mean is None else {"mean": mean, "affine": view.cohort.common_affine}
