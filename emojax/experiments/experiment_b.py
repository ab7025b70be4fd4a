"""Experiment B: single volumes, 3D ResNet (arXiv 2210.17015), under splits strict and published.

`run` reads top to bottom. `splits.py` says who trains, `scaling.py` scales, `fitting.py` trains,
`kernel_features.py` makes volumes small enough for classical classifiers, `results_b.py` scores.
"""

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
from jax.experimental import multihost_utils

from emojax import plateau, sources, splits
from emojax.data import noise
from emojax.data.cohort import Cohort
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.features import kernels as kernels
from emojax.features import scaling
from emojax.models import resnet3d
from emojax.report import counts, page, results_b
from emojax.report.results_b import Tested
from emojax.scoring import baselines
from emojax.sources import names
from emojax.splits import Design
from emojax.training import checkpoint, fitting, optimizer

DEPTHS = {18: "resnet18", 34: "resnet34", 50: "resnet50", 101: "resnet101", 152: "resnet152"}
ON_VOXELS = ("RF", "XGB-voxels")  # not indifferent to rotation: they need the voxels themselves
UNSCALED = "SVM-RBF unscaled"


class Setup(NamedTuple):
    """What every training shares."""

    program: fitting.Program
    streamed: bool
    scan: bool
    progress: checkpoint.Progress


def run(config, workdir: str, *, command: str = "", only_data: bool = False) -> None:
    """Runs the experiment of a config and writes its report into the workdir.

    Args:
      config: as of configs/expB.py.
      workdir: made, or gone on with.
      command: what was typed, for the report.
      only_data: reads and counts the data, writes counts.csv, and stops.

    Raises:
      InputError: data or settings cannot be used.
      LeakageError: a strict split would score what its training saw.
    """
    console = rich.console.Console(soft_wrap=True, highlight=False, quiet=jax.process_index() > 0)
    check(config)
    seconds: dict[str, float] = {}
    first = jax.process_index() == 0
    folder = checkpoint.claim(workdir, config.to_dict()) if first else os.path.abspath(workdir)
    folder = pathlib.Path(folder)
    multihost_utils.sync_global_devices("claimed")
    if not config.data.store:
        config.data.store = str(folder.parent / "store")
    with console.timed(seconds, "reading"):
        cohort = sources.load(config)
    if first:
        counts.show(console, cohort)
        counts.write(folder, cohort)
    if only_data:
        return
    check_volumes(config, cohort)
    design = Design(cohort.labels, cohort.subject, cohort.run_index, cohort.frame)
    key = jax.random.key(config.seed)
    folds = {
        kind: splits.make(key, design, kind, config.fractions, config.folds)
        for kind in names(config.splits)
    }
    with console.timed(seconds, "noise"):
        floor = None
        if config.null or (config.null_floor and not config.sweep):
            floor = noise.noise_like(key, cohort, Store(config.data.store))
        data = floor if config.null else cohort
    program = make_program(config, len(cohort.classes))
    with console.timed(seconds, "plan"):
        streamed = plan(console, config, program, cohort, folds)
    scan = jax.default_backend() != "cpu" and not streamed
    setup = Setup(program, streamed, scan, checkpoint.Progress(folder))
    if config.sweep:
        with console.timed(seconds, "training"):
            kind = next(iter(folds))
            found = sweep(config, console, setup, data, design, kind, folds[kind][0])
        result = results_b.collect_sweep(config, cohort, design, found)
    else:
        tested = []
        for noisy, source in ((False, data), (True, None if config.null else floor)):
            if source is None:
                continue
            for kind, made in folds.items():
                for number, split in enumerate(made):
                    place = f"{kind}{' noise' * noisy} {number}"
                    tested.append(
                        test(config, console, setup, source, design, kind, place, split, seconds)
                    )
        result = results_b.collect(config, cohort, design, tested)
    result.metrics.update(command=command, seconds=seconds, streamed=streamed)
    if first:
        page.write(folder, result)
        page.print_table(result, console)
        console.print(f"report: {folder / 'report.html'}")


def check(config) -> None:
    """What can be known before any data is read.

    Raises:
      InputError: a setting is out of range.
    """
    train = config.train
    rules = [
        ("model.depth", config.model.depth, config.model.depth in DEPTHS, f"one of {[*DEPTHS]}"),
        ("scale", repr(config.scale), config.scale in scaling.KINDS, f"one of {scaling.KINDS}"),
        ("folds", config.folds, config.folds >= 1, "1 or more"),
        ("instances", config.instances, config.instances >= 1, "1 or more"),
        ("pad", config.pad, config.pad >= 0, "0 or more"),
        ("train.epochs", train.epochs, train.epochs >= 1, "1 or more"),
        ("train.batch_size", train.batch_size, train.batch_size >= 1, "1 or more"),
        ("train.checkpoint_epochs", train.checkpoint_epochs, train.checkpoint_epochs >= 1, ">= 1"),
        ("train.penalty", repr(train.penalty), train.penalty == "l2", "'l2'"),
        ("train.feed", repr(train.feed), train.feed in ("auto", "resident", "stream"), FEEDS),
        ("train.feed_dtype", repr(train.feed_dtype), train.feed_dtype in DTYPES, f"of {DTYPES}"),
        ("model.dtype", repr(config.model.dtype), config.model.dtype in DTYPES, f"of {DTYPES}"),
    ]
    devices = jax.device_count()
    fair = train.batch_size % devices == 0
    rules.append(("train.batch_size", train.batch_size, fair, f"a multiple of {devices} devices"))
    for kind in names(config.splits) or ("",):
        rules.append(("splits", repr(kind), kind in splits.KINDS, f"of {', '.join(splits.KINDS)}"))
    for name in (*names(config.baselines), *names(config.floor_baselines)):
        known = ", ".join(baselines.BASELINES)
        rules.append(("baselines", repr(name), name in baselines.BASELINES, f"of {known}"))
    for key, found, fine, expected in rules:
        if not fine:
            raise InputError(key, found, expected)
    try:
        make_program(config, 2)
    except ValueError as error:
        raise InputError("model or train", error, "settings in range") from None


FEEDS = "'auto', 'resident' or 'stream'"
DTYPES = ("auto", "bfloat16", "float32")


def check_volumes(config, cohort: Cohort) -> None:
    """Refuses what the network cannot read.

    Raises:
      InputError: vectors, volumes of several shapes or too small ones, or fewer than two classes.
    """
    shape = cohort.shape
    if len(shape) != 3:
        raise InputError("volumes", f"rows of {shape[0]} values", "volumes [X, Y, Z]")
    padded = [max(n, config.pad) for n in shape]
    least = resnet3d.MINIMUM
    if min(padded) < least:
        expected = (
            f"{least} voxels or more along each axis (--config.pad={least} adds empty slices)"
        )
        raise InputError("volumes", f"{' x '.join(map(str, shape))} voxels", expected)
    present = np.unique(cohort.labels)
    if len(present) < len(cohort.classes) or len(present) < 2:
        found = f"volumes of {', '.join(cohort.classes[k] for k in present)}"
        raise InputError("classes", found, f"of each of {', '.join(cohort.classes)}, two or more")


def make_program(config, num_classes: int) -> fitting.Program:
    """The network, its optimiser and rules, from the config.

    Raises:
      ValueError: a rate or rule out of range.
    """
    model, train = config.model, config.train
    short = model.dtype == "bfloat16"
    if model.dtype == "auto":
        short = jax.default_backend() != "cpu"
    network = getattr(resnet3d, DEPTHS[model.depth])(
        num_classes,
        width=model.width,
        head_features=model.head_features or None,
        dtype=jnp.bfloat16 if short else jnp.float32,
        remat=model.remat,
        momentum=model.norm_momentum,
    )
    shortcut = None if train.shortcut_l2 < 0 else train.shortcut_l2
    return fitting.Program(
        network,
        optimizer.adam(train.lr, form=train.adam),
        plateau.reduce_on_plateau(**train.plateau, base_lr=train.lr),
        lambda params, factor: resnet3d.l2(params, factor, shortcut),
        train.batch_size,
        fitting.data_mesh(),
    )


def reader(config, cohort: Cohort) -> fitting.Read:
    """Rows -> volumes, short axes filled up with slices that are not a number and scale to 0."""
    widths = [(max(config.pad - n, 0)) for n in cohort.shape]
    if not any(widths):
        return lambda rows: cohort.volumes[rows]
    pads = [(0, 0), *((w // 2, w - w // 2) for w in widths)]
    return lambda rows: np.pad(cohort.volumes[rows], pads, constant_values=np.nan)


def plan(console, config, program, cohort: Cohort, folds) -> bool:
    """Prints memory, steps and, from a few steps on this device, the time that training takes.

    Returns:
      Whether volumes are streamed.

    Raises:
      InputError: a step does not fit into the device's memory.
    """
    grid = tuple(max(n, config.pad) for n in cohort.shape)
    measured = fitting.measure_step(program, grid)
    limit = fitting.memory_limit()
    if measured.bytes > limit:
        raise InputError(
            f"memory of {jax.devices()[0].device_kind}",
            f"{limit / 1e9:.1f} GB",
            f"{measured.bytes / 1e9:.1f} GB (less with train.batch_size, model.remat=True or "
            "model.dtype=bfloat16)",
        )
    volumes = (
        len(cohort.labels) * math.prod(grid) * (4 if config.train.feed_dtype == "float32" else 2)
    )
    streamed = config.train.feed == "stream"
    if config.train.feed == "auto":
        streamed = volumes + measured.bytes > 0.9 * limit
    trainings = [split for made in folds.values() for split in made]
    each = (config.instances * (1 - config.null) or 1) + config.null_floor
    if config.sweep:
        trainings, each = trainings[:1], len(config.sweep)
    steps = sum(math.ceil(len(split.train) / config.train.batch_size) for split in trainings)
    steps *= each * config.train.epochs
    total = steps * measured.seconds
    where = "streamed from disk" if streamed else "resident on the device"
    console.print(
        f"plan: {each * len(trainings)} trainings ({', '.join(folds)}) of up to "
        f"{config.train.epochs} epochs, {steps:,} steps of {measured.seconds * 1e3:.0f} ms on "
        f"{jax.device_count()} x {jax.devices()[0].device_kind}: up to {console.duration(total)}; "
        f"{measured.bytes / 1e9:.2f} GB for a step, volumes {where} ({volumes / 1e9:.2f} GB in "
        f"bfloat16)"
    )
    if total > 3600 and jax.default_backend() == "cpu":
        console.print("      that is long for this machine: configs/expB.py:demo takes minutes")
    return streamed


def test(
    config, console, setup, data: Cohort, design: Design, kind: str, place: str, split, seconds
) -> Tested:
    """Trains every instance of one fold, and the classical classifiers on the same rows."""
    noisy = " noise" in place
    leaks = splits.check(design, split, kind, data.prior)
    read, key = reader(config, data), jax.random.key(config.seed)
    number = int(place.rsplit(" ", 1)[1])
    scale = scaling.fit_scale(read, split.train, config.scale)
    instances = 1 if noisy else config.instances
    rows = [
        splits.resampled(
            jax.random.fold_in(jax.random.fold_in(key, number), j),
            split,
            design.labels,
            balance=config.oversample,
            bootstrap=instances > 1,
        )
        for j in range(instances)
    ]
    with (
        console.timed(seconds, "training"),
        console.bar(console, config, place, instances * config.train.epochs) as tick,
    ):
        keep = config.train.keep_models and place == f"{names(config.splits)[0]} 0"
        outcomes = train(config, setup, read, design.labels, scale, place, rows, tick, keep)
    wanted = names(config.floor_baselines if noisy else config.baselines)
    with (
        console.timed(seconds, "baselines"),
        console.bar(console, config, place, len(wanted)) as tick,
    ):
        classical = run_baselines(config, wanted, read, scale, split, rows[0], design, tick)
    return Tested(kind, noisy, split, outcomes, classical, leaks, scale.rounding)


def train(
    config,
    setup: Setup,
    read,
    labels,
    scale,
    place: str,
    rows: Sequence[fitting.Split],
    tick,
    keep: bool = False,
) -> list[dict[str, np.ndarray]]:
    """What `fitting.fit` returns of each instance, from the workdir where it is there."""
    feed, out, train_ = None, [], config.train
    for number, split in enumerate(rows):
        name = f"{place} {number}".replace(" ", "-")
        done = setup.progress.done(name)
        if done is None:
            feed = feed or make_feed(config, setup, read, labels, scale)
            key = jax.random.fold_in(jax.random.key(config.seed), number)
            done, best = fitting.fit(
                setup.program,
                key,
                feed,
                split,
                epochs=train_.epochs,
                every=train_.checkpoint_epochs,
                scored=fitting.Streamed(read, labels, scale, np.float32, setup.program.mesh),
                factor=train_.penalty_factor,
                scan=setup.scan,
                stop=stop_rule(config),
                load=lambda like, name=name: setup.progress.load(name, like),
                save=lambda epoch, tree, name=name: setup.progress.save(name, epoch, tree),
                tick=tick,
            )
            if keep:
                setup.progress.keep(name, best)
            setup.progress.finish(name, done)
        else:
            tick(train_.epochs)
        out.append(done)
    return out


def stop_rule(config) -> tuple[float, int] | None:
    """When `fitting.fit` may stop early."""
    rule = config.train.plateau
    return (rule.min_lr, max(rule.patience, 1)) if config.train.early_stop else None


def make_feed(config, setup: Setup, read, labels, scale):
    """Resident or streamed volumes, in bfloat16 unless that would round a response away.

    Test volumes are not taken from it: they are scored as a decoder will see them, in float32.
    """
    dtype = config.train.feed_dtype
    if dtype == "auto":
        dtype = "bfloat16" if scale.rounding < 0.05 else "float32"
    kind = fitting.Streamed if setup.streamed else fitting.Resident
    return kind(read, labels, scale, jnp.dtype(dtype), setup.program.mesh)


def run_baselines(
    config, wanted, read, scale, split, rows, design: Design, tick
) -> dict[str, baselines.Fitted]:
    """Classical classifiers on one fold: on coordinates in the span of its training volumes, or on
    the voxels.

    Args:
      wanted: names of `baselines.BASELINES`.
      split: which volumes there are; `rows`: the same, balanced.
    """
    if not wanted:
        return {}
    classes, n = len(np.unique(design.labels)), len(split.train)
    both = np.concatenate([split.train, split.test])
    need(len(both) * read(both[:1]).size * 4)
    again = np.searchsorted(split.train, rows.train) if config.instances == 1 else np.arange(n)
    y = design.labels[split.train][again]
    jobs = []

    def add(name, x, test):
        jobs.append(baselines.Job(name, x[again], y, test, classes, config.seed))

    def spanned(x, squared_norm):
        gram = kernels.products(x, x[:n])
        norms = np.einsum("ij,ij->i", x[n:], x[n:], dtype=np.float64)
        return kernels.isometry(gram[:n], gram[n:], norms, squared_norm)

    if UNSCALED in wanted:
        raw = np.nan_to_num(kernels.rows_of(read, both), copy=False)
        found = spanned(raw, None)
        root = np.float32(math.sqrt(raw.shape[1]))
        add(UNSCALED, found.train / root, found.test / root)
        del raw
    x = kernels.rows_of(lambda r: scaling.apply_scale(scale, read(r)), both)
    if set(wanted) - {UNSCALED, *ON_VOXELS}:
        found = spanned(x, kernels.SQUARED_NORM)
    for name in wanted:
        if name in ON_VOXELS:
            add(name, x[:n], x[n:])
        elif name != UNSCALED:
            add(name, found.train, found.test)
    done = baselines.run(jobs, tick)
    found = {job.name: fitted for job, fitted in zip(jobs, done, strict=True)}
    return {name: found[name] for name in wanted}


def need(size: int) -> None:
    """Raises InputError where rows of so many bytes would not fit into half of the memory."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 2 * size > total:
        expected = f"{2 * size / 1e9:.1f} GB for classical classifiers (or baselines='')"
        raise InputError("memory of this machine", f"{total / 1e9:.1f} GB", expected)


def sweep(config, console, setup: Setup, data: Cohort, design: Design, kind, split):
    """One training per L2 factor on one fold: factor -> what `fitting.fit` returns."""
    leaks = splits.check(design, split, kind, data.prior)
    read, key = reader(config, data), jax.random.key(config.seed)
    scale = scaling.fit_scale(read, split.train, config.scale)
    rows = splits.resampled(key, split, design.labels, balance=config.oversample, bootstrap=False)
    found: dict[float, dict[str, Any]] = {}
    with console.bar(console, config, "L2 sweep", len(config.sweep) * config.train.epochs) as tick:
        for factor in config.sweep:
            with config.unlocked():
                config.train.penalty_factor = factor
            place = f"{kind} L2 {factor:g}"
            (found[factor],) = train(config, setup, read, design.labels, scale, place, [rows], tick)
    return Tested(kind, False, split, [], {}, leaks, scale.rounding), found
