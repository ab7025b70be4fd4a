"""Experiment A: leave one subject out, 3 classes (arXiv 2210.17015, section 2), honestly.

`run` reads top to bottom as the paper's method does. `masked.py` reads the cohort, `across_subjects.py`
makes a fold's features, `folds.py` trains, `results.py` scores, `page.py` writes.
"""

import math
import time

import jax
import numpy as np
import rich.console

from emojax import sources
from emojax.data.cohort import Cohort
from emojax.errors import InputError
from emojax.experiments import folds
from emojax.experiments.folds import Variant
from emojax.features import across_subjects, masked
from emojax.features.masked import Study
from emojax.report import counts, page, results
from emojax.scoring import baselines
from emojax.training import checkpoint, crossval

NUISANCE = "nuisance only (logistic)"  # time in run, global signal, motion


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
    check(config)
    seconds: dict[str, float] = {}
    folder = checkpoint.claim(workdir, config.to_dict())
    if not config.data.store:
        config.data.store = str(folder.parent / "store")
    with console.timed(seconds, "reading"):
        cohort = sources.load(config)
    counts.show(console, cohort)
    counts.write(folder, cohort)
    if only_data:
        return
    wanted = folds.variants(config, len(cohort.classes), cohort.prior)
    with console.timed(seconds, "masks"):
        data = masked.load(config, cohort)
        key = jax.random.key(config.seed)
        if config.null:
            data = data._replace(subjects=masked.noise_like(key, data.subjects))
    with console.timed(seconds, "features"):
        made, leaks = {}, {}
        for v in wanted:
            made[v.name], leaks[v.name] = make_features(data, cohort, v)
        if config.null_floor:
            headline = wanted[0]
            floor = headline._replace(name=results.FLOOR)
            noisy = data._replace(subjects=masked.noise_like(key, data.subjects))
            made[floor.name], leaks[floor.name] = make_features(noisy, cohort, floor)
            del noisy  # as large as the cohort
            wanted.append(floor)
    program = folds.make_program(config, len(cohort.classes))
    tasks = {v.name: folds.make_tasks(config, made[v.name], v) for v in wanted}
    with console.timed(seconds, "plan"):
        plan(console, config, program, tasks)
    progress = checkpoint.Progress(folder)
    total = config.train.epochs * sum(map(len, tasks.values()))
    with (
        console.timed(seconds, "training"),
        console.bar(console, config, "fold epochs", total) as tick,
    ):
        trained = {
            name: folds.train(
                config,
                program,
                name,
                tasks[name],
                made[name],
                progress,
                tick,
                keep=config.train.keep_models and name == wanted[0].name,
            )
            for name in tasks
        }
    with console.timed(seconds, "baselines"):
        others = run_baselines(config, console, data, made[wanted[0].name], tasks[wanted[0].name])
    found = results.Trained(wanted, made, trained, others, leaks)
    result = results.collect(config, cohort, data, found)
    result.metrics.update(command=command, seconds=seconds)
    page.write(folder, result)
    page.print_table(result, console)
    console.print(f"report: {folder / 'report.html'}")


def check(config) -> None:
    """What can be known before any data is read.

    Raises:
      InputError: a setting is out of range.
    """
    for name in folds.names(config.baselines):
        if name not in baselines.BASELINES:
            raise InputError("baselines", repr(name), f"of {', '.join(baselines.BASELINES)}")
    for key, value in (
        ("balance", config.balance),
        ("train.epochs", config.train.epochs),
        ("train.batch_size", config.train.batch_size),
        ("train.checkpoint_epochs", config.train.checkpoint_epochs),
    ):
        if value < 1:
            raise InputError(key, value, "1 or more")
    least = folds.least_voxels()
    if config.voxels.keep < least:
        raise InputError("voxels.keep", config.voxels.keep, f"{least} or more for the convolutions")
    folds.strategy_of(config)
    folds.variants(config, 2)
    try:
        folds.make_program(config, 2)
    except ValueError as error:
        raise InputError("model or train", error, "settings in range") from None


def make_features(data: Study, cohort: Cohort, variant: Variant):
    """Features of every fold, refused where a strict variant's steps saw what will be scored.

    Returns:
      The features, and of each fold: step -> scored volumes that it saw, declared or leaky.

    Raises:
      InputError, LeakageError: see `features`.
    """
    unit = np.empty(len(cohort.labels), object)
    for name, subject in data.subjects.items():
        unit[subject.rows] = name
    widths = {subject.x.shape[1] for subject in data.subjects.values()}
    if len(widths) > 1 and not variant.settings.own_voxels:
        found = f"subjects with {min(widths)} to {max(widths)} voxels"
        raise InputError("cohort", found, "the same voxels in all, or voxels.own=True")
    protocol = "paper" if variant.on_test or any(variant.leaks) else "nested"
    made, leaks = [], []
    for fold in folds.leave_one_out(data.subjects, variant):
        allowed = None
        if not variant.settings.own_voxels:
            allowed = np.all([data.inside[name] for name in fold.train], axis=0)
        made.append(
            across_subjects.fold_features(
                data.subjects, fold, variant.settings, variant.leaks, allowed
            )
        )
        leaks.append(
            across_subjects.score_check(made[-1], unit.astype(str), variant.settings, protocol)
        )
    return made, leaks


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
        f"{jax.devices()[0].device_kind}: about {console.duration(steps * step)}; "
        f"{size / 4e6:.1f} M parameters, {5 * size * folds_at_once / 1e9:.2f} GB of state"
    )
    if steps * step > 3600 and jax.default_backend() == "cpu":
        console.print("      that is long for this machine: configs/expA.py:demo takes minutes")


def run_baselines(config, console, data: Study, made, tasks) -> list[dict[str, baselines.Fitted]]:
    """Classical classifiers on the headline's rows and features, and one on nuisance alone.

    Returns:
      Per fold: name -> what it says of the test rows.
    """
    names = folds.names(config.baselines)
    if not names:
        return [{} for _ in made]
    jobs, places = [], []
    classes = int(max(subject.y.max() for subject in data.subjects.values())) + 1
    for i, fold in enumerate(across_subjects.leave_one_out(tuple(data.subjects))):
        x, y = np.asarray(tasks[i].x), np.asarray(tasks[i].y)
        for name in names:
            jobs.append(baselines.Job(name, x, y, made[i].test_x, classes, config.seed))
            places.append((i, name))
        train = np.concatenate([data.nuisance[name] for name in fold.train])
        mean, sd = train.mean(0), np.where(train.std(0) > 0, train.std(0), 1)
        y = np.concatenate([data.subjects[name].y for name in fold.train])
        test = (data.nuisance[fold.test] - mean) / sd
        jobs.append(baselines.Job("logistic", (train - mean) / sd, y, test, classes, config.seed))
        places.append((i, NUISANCE))
    with console.bar(console, config, "baselines", len(jobs)) as tick:
        done = baselines.run(jobs, tick)
    out: list[dict[str, baselines.Fitted]] = [{} for _ in made]
    for (i, name), fitted in zip(places, done, strict=True):
        out[i][name] = fitted
    return out
