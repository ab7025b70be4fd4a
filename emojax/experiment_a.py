"""Experiment A: leave one subject out, 3 classes (arXiv 2210.17015, section 2), honestly.

`run` reads top to bottom as the paper's method does. `study.py` reads the cohort, `features.py`
makes a fold's features, `folds.py` trains, `results.py` scores, `report.py` writes.
"""

import contextlib
import math
import time
from collections.abc import Iterator

import jax
import numpy as np
import rich.console
import rich.progress

from emojax import (
    baselines,
    checkpoint,
    counts,
    crossval,
    features,
    folds,
    report,
    results,
    sources,
    study,
)
from emojax.cohort import Cohort
from emojax.errors import InputError
from emojax.features import FoldFeatures
from emojax.folds import Variant
from emojax.study import Study


def run(config, workdir: str, *, command: str = "", only_data: bool = False) -> None:
    """Runs the experiment of a config and writes its report into the workdir.

    Args:
      config: as of configs/expA.py.
      workdir: made, or gone on with.
      command: what was typed, for the report.
      only_data: reads and counts the data, writes counts.csv, and stops.

    Raises:
      InputError: data or settings cannot be used.
      LeakageError: a step of a strict protocol saw what it is scored on.
    """
    console = rich.console.Console(soft_wrap=True, highlight=False)
    seconds: dict[str, float] = {}
    folder = checkpoint.claim(workdir, config.to_dict())
    if not config.data.store:
        config.data.store = str(folder.parent / "store")
    with _timed(seconds, "reading"):
        cohort = sources.load(config)
    counts.show(console, cohort)
    counts.write(folder, cohort)
    if only_data:
        return
    wanted = folds.variants(config, len(cohort.classes), cohort.prior)
    with _timed(seconds, "masks"):
        data = study.load(config, cohort)
        noise = study.noise_like(jax.random.key(config.seed), data.subjects)
        if config.null:
            data = data._replace(subjects=noise)
    with _timed(seconds, "features"):
        made = {v.name: make_features(data, cohort, v) for v in wanted}
        if config.null_floor:
            headline = wanted[0]
            floor = headline._replace(name="noise floor")
            made[floor.name] = make_features(data._replace(subjects=noise), cohort, floor)
            wanted.append(floor)
    program = folds.make_program(config, len(cohort.classes))
    tasks = {v.name: folds.make_tasks(config, made[v.name], v) for v in wanted}
    with _timed(seconds, "plan"):
        plan(console, config, program, tasks)
    progress = checkpoint.Progress(folder)
    with _timed(seconds, "training"), _bar(console, config, tasks) as tick:
        trained = {
            name: folds.train(config, program, name, tasks[name], made[name], progress, tick)
            for name in tasks
        }
    with _timed(seconds, "baselines"):
        others = run_baselines(config, console, data, made[wanted[0].name], tasks[wanted[0].name])
    result = results.collect(config, cohort, data, wanted, made, trained, others)
    result.metrics.update(command=command, seconds=seconds)
    report.write(folder, result)
    report.print_table(result, console)
    console.print(f"report: {folder / 'report.html'}")


def make_features(data: Study, cohort: Cohort, variant: Variant) -> list[FoldFeatures]:
    """Features of every fold, refused where a strict variant's steps saw what will be scored.

    Raises:
      InputError, LeakageError: see `features`.
    """
    made = []
    unit = np.empty(len(cohort.labels), object)
    for name, subject in data.subjects.items():
        unit[subject.rows] = name
    strict = not (variant.on_test or any(variant.leaks))
    for fold in folds.leave_one_out(data.subjects, variant):
        allowed = np.all([data.inside[name] for name in fold.train], axis=0)
        if variant.settings.own_voxels:
            allowed = None
        made.append(
            features.fold_features(data.subjects, fold, variant.settings, variant.leaks, allowed)
        )
        protocol = "nested" if strict else "paper"
        features.score_check(made[-1], unit.astype(str), variant.settings, protocol)
    return made


def plan(console, config, program: crossval.Program, tasks) -> None:
    """Prints memory, steps and, from a few steps on this device, the time that training takes."""
    some = next(iter(tasks.values()))[0]
    compiled = crossval.compile_program(program, "loop")
    trial = compiled.init(jax.random.key(0), some)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(trial.state.params))
    rows = compiled.order(trial, some)
    taken = []
    for i in range(4):
        start = time.perf_counter()
        trial, metrics = compiled.step(trial, some, rows[i % len(rows)])
        jax.block_until_ready(metrics)
        taken.append(time.perf_counter() - start)
    step = min(taken[1:])
    steps = sum(
        config.train.epochs * math.ceil(len(task.y) / config.train.batch_size)
        for variant in tasks.values()
        for task in variant
    )
    folds_at_once = 1 if folds.strategy_of(config) == "loop" else len(next(iter(tasks.values())))
    trainings = sum(map(len, tasks.values()))
    console.print(
        f"plan: {trainings} trainings ({len(tasks)} variants: {', '.join(tasks)}) of "
        f"{config.train.epochs} epochs, {steps:,} steps of {step * 1e3:.0f} ms one by one on "
        f"{jax.devices()[0].device_kind}: about {_duration(steps * step)}; "
        f"{size / 4e6:.1f} M parameters, {5 * size * folds_at_once / 1e9:.2f} GB of state"
    )
    if steps * step > 3600 and jax.default_backend() == "cpu":
        console.print("      that is long for this machine: configs/expA.py:demo takes minutes")


def run_baselines(config, console, data: Study, made, tasks):
    """Classical classifiers on the headline's features, and one on nuisance alone.

    Returns:
      For each fold name -> (predicted [n], scores [n, classes]) on the test rows.
    """
    names = folds.names(config.baselines)
    unknown = [name for name in names if name not in baselines.BASELINES]
    if unknown:
        raise InputError("baselines", repr(unknown[0]), f"of {', '.join(baselines.BASELINES)}")
    if not names:
        return [{} for _ in made]
    jobs = []
    for i, (features_, task) in enumerate(zip(made, tasks, strict=True)):
        x, y = np.asarray(task.x), np.asarray(task.y)
        for name in names:
            jobs.append((name, i, x, y, features_.test_x))
    return jobs


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 3)


@contextlib.contextmanager
def _bar(console, config, tasks):
    columns = (
        "training",
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        "fold epochs",
        rich.progress.TimeRemainingColumn(),
    )
    total = config.train.epochs * sum(map(len, tasks.values()))
    bar = rich.progress.Progress(
        *columns, console=console, transient=True, disable=not config.data.progress
    )
    with bar:
        task = bar.add_task("", total=total)
        yield lambda epochs: bar.advance(task, epochs)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
