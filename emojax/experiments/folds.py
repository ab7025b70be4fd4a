"""What Experiment A trains: its variants, networks and folds; `experiment_a.py` tells the story."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emojax import alignment, plateau, resampling
from emojax.errors import InputError
from emojax.features import across_subjects
from emojax.features.across_subjects import Fold, FoldFeatures, Leaks, Settings
from emojax.models import cnn1d
from emojax.sources import names
from emojax.training import crossval, optimizer
from emojax.training.checkpoint import Progress
from emojax.training.crossval import Program, Task

PROTOCOLS = ("nested", "last", "paper")


class Variant(NamedTuple):
    """One way to train all folds."""

    name: str
    settings: Settings
    leaks: Leaks
    on_test: bool  # epoch and rate follow the test subject: the published procedure


def variants(config, num_classes: int, prior: Sequence[str] = ()) -> list[Variant]:
    """The trainings that the protocols, regimes and leaks of a config need; the headline first.

    Raises:
      InputError: an unknown protocol or regime.
    """
    protocols, regimes = names(config.protocols), names(config.align.regimes)
    for key, values, known in (
        ("protocols", protocols, PROTOCOLS),
        ("align.regimes", regimes, alignment.REGIMES),
        ("align.match", (config.align.match,), across_subjects.MATCHES),
    ):
        for value in values or ("",):
            if value not in known:
                raise InputError(key, repr(value), f"one or more of {', '.join(known)}")
    settings = Settings(
        config.voxels.keep,
        num_classes,
        regimes[0],
        config.align.match,
        config.voxels.own,
        config.voxels.centre,
        config.align.level2_iters,
        tuple(prior),
    )
    strict, all_see = Leaks(), Leaks(voxels=not config.voxels.own, alignment=True)
    out = [Variant(regimes[0], settings, strict, False)]
    if "paper" in protocols:
        leaky = settings._replace(regime="transductive")
        out.append(Variant("paper", leaky, all_see, True))
        if config.leaks:
            out.append(Variant("leaky voxels and alignment", leaky, all_see, False))
            if all_see.voxels:
                out.append(Variant("leaky voxels", settings, Leaks(voxels=True), False))
    out += [Variant(r, settings._replace(regime=r), strict, False) for r in regimes[1:]]
    return out


def least_voxels() -> int:
    """The fewest voxels that the network's convolutions leave something of."""
    return 1 + len(cnn1d.CNN1D.filters) * (cnn1d.CNN1D.window - 1)


def make_program(config, num_classes: int) -> Program:
    """The network, its optimiser and rules, from the config.

    Raises:
      InputError: an unknown activation or penalty.
      ValueError: a rate or rule out of range.
    """
    train, known = config.train, ("", *cnn1d.ACTIVATIONS)
    if config.model.conv_activation not in known:
        found = repr(config.model.conv_activation)
        raise InputError("model.conv_activation", found, f"one of {known}")
    model = cnn1d.CNN1D(
        num_classes,
        conv_activation=config.model.conv_activation or None,
        batch_norm=config.model.batch_norm,
        dropout=tuple(config.model.dropout),
    )
    if train.penalty not in ("l1", "l2"):
        raise InputError("train.penalty", repr(train.penalty), "l1 or l2")
    penalty = None
    if train.penalty_factor:
        penalty = lambda p: cnn1d.penalty(p, train.penalty, train.penalty_factor)  # noqa: E731
    return crossval.make_program(
        model,
        optimizer.adam(train.lr, form=train.adam),
        plateau.reduce_on_plateau(**train.plateau, base_lr=train.lr),
        batch_size=train.batch_size,
        penalty=penalty,
    )


def make_task(key: jax.Array, made: FoldFeatures, per_class: int, num_classes: int) -> Task:
    """Balanced training rows of every subject, and the monitored subject's, likewise."""

    def balanced(i, x, y):
        rows = resampling.balance(jax.random.fold_in(key, i), y, per_class, num_classes=num_classes)
        return x[np.asarray(rows)], y[np.asarray(rows)]

    pairs = [
        balanced(i, x, y) for i, (x, y) in enumerate(zip(made.train_x, made.train_y, strict=True))
    ]
    x, y = (np.concatenate(column) for column in zip(*pairs, strict=True))
    monitor = balanced(len(pairs), made.monitor_x, made.monitor_y)
    return Task(*(jnp.asarray(a) for a in (x, y, *monitor)))


def leave_one_out(subjects, variant: Variant) -> list[Fold]:
    """Leave one out; where the test subject is monitored, all others train."""
    folds = across_subjects.leave_one_out(tuple(subjects))
    if not variant.on_test:
        return folds
    everyone = tuple(subjects)
    return [Fold(tuple(s for s in everyone if s != f.test), f.test, f.test) for f in folds]


def make_tasks(config, made: list[FoldFeatures], variant: Variant) -> list[Task]:
    """The tasks of all folds; a fold's random numbers are the same in every variant."""
    keys = [jax.random.fold_in(jax.random.key(config.seed), i) for i in range(len(made))]
    classes = variant.settings.num_classes
    return [
        make_task(jax.random.fold_in(key, 1), m, config.balance, classes)
        for key, m in zip(keys, made, strict=True)
    ]


def train(
    config,
    program: Program,
    name: str,
    tasks: list[Task],
    made: list[FoldFeatures],
    progress: Progress,
    tick: Callable[[int], None],
    keep: bool = False,
) -> list[dict[str, np.ndarray]]:
    """Trains every fold, or takes it from the workdir; returns what `crossval.fit` does of each.

    With `keep` the networks of the best epochs stay in the workdir, as "<name> <fold>".

    Folds of one shape go side by side where the strategy is "scan".
    """
    tests = [m.test_x for m in made]
    strategy = strategy_of(config)
    keys = [jax.random.fold_in(jax.random.key(config.seed), i) for i in range(len(tasks))]
    shapes = [
        (task.x.shape, task.monitor_x.shape, test.shape)
        for task, test in zip(tasks, tests, strict=True)
    ]
    groups = [[i] for i in range(len(tasks))]
    if strategy == "scan":
        same = itertools.groupby(
            sorted(range(len(tasks)), key=shapes.__getitem__), shapes.__getitem__
        )
        groups = [list(group) for _, group in same]
    found = {}
    for group in groups:
        label = f"{name} {group[0]}".replace(" ", "-")
        done = progress.done(label)
        if done is None:
            done = crossval.fit(
                program,
                [jax.random.fold_in(keys[i], 0) for i in group],
                [tasks[i] for i in group],
                [jnp.asarray(tests[i]) for i in group],
                epochs=config.train.epochs,
                every=config.train.checkpoint_epochs,
                strategy=strategy,
                load=lambda like, label=label: progress.load(label, like),
                save=lambda epoch, tree, label=label: progress.save(label, epoch, tree),
                tick=tick,
                keep=lambda place, best, group=group: (
                    keep and progress.keep(f"{name} {group[place]}", best)
                ),
            )
            progress.finish(label, done)
        else:
            tick(config.train.epochs * len(group))
        for place, i in enumerate(group):
            found[i] = {key: value[place] for key, value in done.items()}
    return [found[i] for i in range(len(tasks))]


def strategy_of(config) -> str:
    """ "loop" or "scan".

    Raises:
      InputError: neither of them nor "auto".
    """
    strategy = config.train.strategy
    if strategy not in ("auto", "loop", "scan"):
        raise InputError("train.strategy", repr(strategy), "auto, loop or scan")
    return crossval.default_strategy() if strategy == "auto" else strategy
