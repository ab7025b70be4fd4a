"""The skeleton that runs every experiment, from a config to its report.

`run` reads top to bottom. An experiment file (`experiment_a.py`, `experiment_b.py`, or your own)
defines the arms, the folds and the features; everything else is here.
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental import multihost_utils

from emojax import decoder, sources, stops
from emojax.cluster import team
from emojax.data import identity
from emojax.data.belonging import check_classes
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.experiments import (
    analyses,
    audits,
    choice,
    dtypes,
    noise,
    plans,
    settings,
    sweeps,
    trainings,
)
from emojax.experiments.base import Experiment, check_arms
from emojax.files import split_list
from emojax.provenance import PROTOCOLS, LeakageError, Ledger, classify
from emojax.records import Arm, ArmResult, FoldData, FoldResult
from emojax.report import console as consoles
from emojax.report import results
from emojax.report.schema import Result
from emojax.scoring import baselines, gains
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
    members: int = 1,
) -> Result | None:
    """Runs an experiment and writes its report into the workdir.

    A workdir is bound to one config and to the data that its first training run has read. An
    interrupted run resumes; a finished one prints its table again.

    Args:
      experiment: see `base.Experiment`.
      config: a ConfigDict with the keys of `configs/common.py`; it is not changed.
      workdir: folder of the results; created if missing, otherwise resumed.
      cohort: the data; default: loaded as `config.data` specifies.
      command: the command line, for the report.
      until: "data" reads and counts, "plan" also fits features, audits them and prints the cost of
        training, "report" runs everything.
      restart: whether to delete the results of an earlier run in the workdir first.
      members: number of identical processes on one workdir. They share the work, and one of them
        writes the report; see `cluster.team`.

    Returns:
      The result; None if `until` stops before the report, or if another process writes it.

    Raises:
      InputError: data or settings are unusable, the workdir belongs to other data or settings, or
        another process is using it.
      LeakageError: an arm saw more of its test volumes than its protocol class allows.
    """
    settings.check(config)
    config = dtypes.settle(config, workdir)
    experiment.check(config)
    if until != "data" and experiment.program:
        experiment.program(config, 2)  # fails here if the devices are unsuitable, before any data
    config = _own_copy(config, workdir)
    while True:
        with _open(config, workdir, restart, members) as work:
            console = consoles.make(quiet=work.serves or not checkpoint.is_first())
            if work.is_finished and until == "report" and not work.serves:
                return _again(experiment, config, work, console, cohort)
            result = _run(experiment, config, work, console, cohort, command, until)
            if not work.serves or work.is_finished or team.has_leader(work):
                return result


def _run(experiment, config, work: Workdir, console, cohort, command, until) -> Result | None:
    """Runs an experiment in an open workdir; see `run`."""
    first = checkpoint.is_first() and not work.serves
    seconds: dict[str, float] = {}
    with _stage(seconds, "reading"):
        cohort = sources.load(config.data) if cohort is None else cohort
    work.bind(identity.describe(cohort, experiment.files(config)))
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
    notes = [*cohort.notes, *experiment.notes(config, views[None][1])]
    for note in notes[len(cohort.notes) :]:  # the others were printed beside the counts
        console.print(note, markup=False)
    with _stage(seconds, "features"):
        made = {arm.name: _features(experiment, config, views, arm) for arm in trained}
        records = {arm.name: _records(arm, made[arm.name], cohort) for arm in trained}
    with _stage(seconds, "plan"):
        about = console, experiment, config, cohort, trained, made
        plan = plans.make_plan(*about, work.members)
    audit = {"measured": False, "arms": {}}
    with _stage(seconds, "audit"):
        if config.audit and not work.serves:
            with consoles.bar(console, "audit", 2 * len(trained), config.data.progress) as tick:
                audit = audits.audit_arms(experiment, config, views, trained, made, plan, tick)
    headline = next(arm for arm in arms if arm.name == (arms[0].shares or arms[0].name))
    ask = (experiment, config, views[None][1], headline, made[headline.name])
    if arms[0].decoder == choice.AUTO:
        choice.check(views[None][1])
    if line := analyses.check(*ask, seconds["features"] / len(trained)):
        console.print(line, markup=False)
    if until == "plan":
        return None

    with _stage(seconds, "training"):
        outcomes = trainings.train(experiment, config, work, console, plan, trained, made)
    with _stage(seconds, "baselines"):
        classical = trainings.classify(experiment, config, work, console, trained, made)
    if arms[0].decoder == choice.AUTO:
        with _stage(seconds, "choice"), _bar(console, config, "choice", len(ask[-1])) as tick:
            network = next(arm for arm in trained if not arm.decoder)
            assert plan is not None  # the network's
            found = choice.choose(*ask[:3], plan, headline, network, ask[-1], work, tick)
            if not work.serves:
                done = outcomes, classical, config.temperature
                choice.enter(found, headline, network, made, *done)
    with _stage(seconds, "analyses"):
        answers, volumes = analyses.run(
            *ask, functools.partial(_bar, console, config), work.load_model, work
        )
    if work.serves:
        done = [f"{count} {kind}" for kind, count in work.finished.items()]
        print(f"served {work.folder}: {', '.join(done) or 'nothing was left to do'}", flush=True)
        return None
    work.check_inputs()
    about = cohort, arms, made, records
    found = _results(*about, outcomes, classical, config.train.get("best_by", ""))
    metrics = results.summarise(
        config.experiment,
        work.plain_config,
        views[None][0],
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
    extras = _extras(views[None][1]) | {"volumes": volumes}
    result = results.build(metrics, views[None][0], found, extras=extras)
    if first:
        result.save(work.folder)
        work.tidy()
        consoles.print_table(result, console)
        console.print(f"report: {work.folder / 'report.html'}", markup=False)
    return result


@contextlib.contextmanager
def _stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Times a stage, then ends the run if a signal arrived meanwhile and was deferred."""
    with consoles.timed(seconds, name):
        yield
    stops.check()


def _bar(console, config: Any, title: str, total: int):
    """Returns the progress bar of a stage."""
    return consoles.bar(console, title, total, config.data.progress)


def _own_copy(config: Any, workdir: str | os.PathLike) -> Any:
    """Returns a locked copy of the config that names a store."""
    config = config.copy_and_resolve_references()
    if not config.data.store:
        config.data.store = str(pathlib.Path(workdir).absolute().parent / "store")
    return config.lock()


def _open(config: Any, workdir: str | os.PathLike, restart: bool, members: int) -> Workdir:
    """Opens the workdir, as leader or as helper.

    Where several processes train one network together, the first opens it and the others only read.
    """
    if members > 1:
        return team.enter(workdir, config.to_dict(), members)
    plain = checkpoint.plain_config(config.to_dict())
    work = Workdir(pathlib.Path(workdir).absolute(), plain)
    if checkpoint.is_first():
        work = checkpoint.open_workdir(workdir, config.to_dict(), restart=restart)
    if jax.distributed.is_initialized():
        multihost_utils.sync_global_devices("workdir")
    return work


def _again(experiment, config, work: Workdir, console, cohort) -> Result:
    """Prints the table of a finished workdir; fits nothing and changes no file."""
    work.check_inputs()
    if cohort is not None:
        now = identity.describe(cohort, experiment.files(config))
        identity.check_same(checkpoint.read_run(work.folder)["inputs"], now)
    result = Result.load(work.folder)
    consoles.print_table(result, console)
    console.print(f"finished before; report: {work.folder / 'report.html'}", markup=False)
    return result


def _views(experiment, config, cohort, arms: Sequence[Arm]) -> audits.Sources:
    """Returns noise draw (None: measured values) -> (cohort, the view that ledgers read)."""
    key, store = jax.random.key(config.seed), Store(config.data.store)

    def view_of(draw: int | None):
        measured = draw is None and not config.null
        data = cohort if measured else noise.noise_like(key, cohort, store, draw or 0)
        return data, experiment.view(config, data)

    return {draw: view_of(draw) for draw in dict.fromkeys([None, *(arm.source for arm in arms)])}


def _features(experiment, config, views, arm: Arm) -> list[FoldData]:
    """Makes the features of every fold of an arm."""
    view = views[arm.source][1]
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
    """Rejects a fold that trains on units it scores, before anything is fitted to it.

    Raises:
      LeakageError: the arm does so without declaring itself leaky.
    """
    both = np.isin(unit[fold.train], unit[fold.test]).sum()
    if both and arm.protocol != "leaky":
        raise LeakageError(
            f"{arm.name} claims to be {arm.protocol}, but in fold {fold.name} step 'network' saw "
            f"labels of {both} scored volumes"
        )


def _records(arm: Arm, made: Sequence[FoldData], cohort) -> list[tuple[str, dict[str, int]]]:
    """Returns (protocol class, leaks) of each fold; raises if worse than the arm claims."""
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


def _results(cohort, arms, made, records, outcomes, classical, by: str) -> list[ArmResult]:
    """Returns every row of the result table; arms that share a training share its outcomes.

    Candidates of a sweep have no row: only the one chosen in each fold is scored.
    """
    out = []
    for arm in (arm for arm in arms if not arm.setting):
        folds, worst = [], []
        for i, data in enumerate(made[arm.shares or arm.name]):
            source, chosen = arm.shares or arm.name, {}
            if arm.among:
                source, inner = sweeps.choose(arm, i, made, outcomes, by)
                data, chosen = made[source][i], {"chosen": {"chosen": source, "inner": inner}}
            worst.append(records[source][i][0])
            notes, fitted = {**data.notes, **chosen}, classical.get((source, i), {})
            if arm.decoder:
                fitted = {arm.decoder: fitted[arm.decoder]}
            elif arm.shares:
                fitted = {}
            if any("linear path" in own.notes for own in (data, *data.members)):
                notes["linear"] = gains.linear_path(data, len(cohort.classes))
            if arm.oversampled:  # reads test labels, which only scoring may do
                notes["oversampled"] = notes["oversample"](cohort.labels[data.fold.test])
            folds.append(
                FoldResult(
                    data.fold,
                    () if arm.decoder else outcomes.get(source, {}).get(i, ()),
                    fitted,
                    data.ledger.seen(data.fold.test),
                    records[source][i][1],
                    notes,
                )
            )
        out.append(ArmResult(arm, max(worst, key=PROTOCOLS.index), tuple(folds)))
    return out


def _extras(view: Any) -> dict[str, Any]:
    """Returns the background of maps: mean volume, mask and affine."""
    if (mean := getattr(view, "mean", None)) is None:
        return {}
    return {"mean": mean, "mask": view.union, "affine": view.cohort.common_affine}
