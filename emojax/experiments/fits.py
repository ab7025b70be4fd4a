"""Fitting of an arm's networks and classical classifiers."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from emojax.cluster import lanes, pieces
from emojax.errors import InputError
from emojax.experiments.base import Experiment
from emojax.records import Arm, FoldData
from emojax.scoring import baselines, scores
from emojax.training import loop
from emojax.training.feeds import Resident, Streamed
from emojax.training.loop import Program, Task
from emojax.training.trial import CURVES


@dataclasses.dataclass(frozen=True)
class Plan:
    """Settings of training on this machine."""

    program: Program
    train: Any  # the config's `train`
    streamed: bool  # volumes stay on disk
    side_by_side: bool  # folds of equal shape may be trained in one program
    epochs: int
    every: int  # epochs between checkpoints
    strategy: loop.Strategy
    lanes: tuple[Program, ...] = ()  # one program for each device that trains its own folds


Number = int | str  # number of a fold, or "fold.member"
Log = Callable[[str, int, Mapping[str, float]], None]
Keep = Callable[[Number, int, Any], None]  # stores the network of the scored epoch
IsKept = Callable[[Number, int], bool]


def members_of(arm: Arm, number: int, data: FoldData) -> list[tuple[Number, FoldData]]:
    """Returns (number, data) of the training sets of a fold: the fold itself, or its members."""
    if not arm.members:
        return [(number, data)]
    return [(f"{number}.{i}", member) for i, member in enumerate(data.members)]


def model_name(arm: Arm, number: Number, instance: int) -> str:
    """Returns the name under which a network is kept for the export."""
    return f"{arm.name} {number}" + (f" {instance}" if instance else "")


def trainings(arm: Arm, made: Sequence[FoldData]) -> list[tuple[Number, FoldData]]:
    """Returns (number, data) of all training runs of an arm; none for an arm without a network."""
    if arm.decoder:
        return []
    return [pair for i, data in enumerate(made) for pair in members_of(arm, i, data)]


def joined(
    arm: Arm,
    made: Sequence[FoldData],
    outcomes: Mapping[Number, Sequence[Mapping[str, np.ndarray]]],
    temper: bool = True,
) -> dict[int, tuple[Mapping[str, np.ndarray], ...]]:
    """Returns the outcomes of each fold; those of members are averaged into one.

    The networks of a member are averaged, then calibrated with one temperature that is fitted on
    the member's monitored volumes (unless `temper` is False); the calibrated members are averaged.
    "temperatures" [members] are the fitted values; "uncalibrated_best" and "uncalibrated_last" are
    the averages without them. Curves and epochs are averages, too.
    """
    if not arm.members:
        return {i: tuple(outcomes[i]) for i in range(len(made))}
    found: dict[int, tuple[Mapping[str, np.ndarray], ...]] = {}
    for i, data in enumerate(made):
        pairs = members_of(arm, i, data)
        each = [_tempered(arm, own, _mean(outcomes[name]), temper) for name, own in pairs]
        found[i] = (_mean(each),)
    return found


def _tempered(
    arm: Arm, data: FoldData, outcome: Mapping[str, np.ndarray], temper: bool
) -> dict[str, np.ndarray]:
    """Returns a member's outcome, calibrated on its monitored rows."""
    labels, out = data.labels[outcome["monitored_rows"]], dict(outcome)
    del out["monitored_rows"]
    for name in ("last", "best"):
        monitored = out.pop(f"monitored_{name}")
        if not temper:
            continue
        found = scores.fit_temperature(labels, monitored)
        out[f"uncalibrated_{name}"] = outcome[name]
        out[name] = scores.with_temperature(outcome[name], found)
        if name == arm.pick:
            out["temperatures"] = np.array([found])
    return out


def _mean(outcomes: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the mean of outcomes; shorter curves are extended by their last value."""
    out: dict[str, np.ndarray] = {}
    done = max(int(one["done"]) for one in outcomes)
    for name in outcomes[0]:
        each = [np.asarray(one[name]) for one in outcomes]
        if name == "temperatures":
            out[name] = np.concatenate(each)
            continue
        if name in CURVES:
            each = [np.pad(curve, (0, done - len(curve)), "edge") for curve in each]
        out[name] = np.mean(each, axis=0).astype(each[0].dtype)
    return out | {"done": np.asarray(done, np.int32)}


class NoStore(pieces.Alone, loop.Store):
    """A store that keeps nothing."""

    def load_finished(self, name: str) -> None:
        """Returns None: nothing was kept."""

    def save_finished(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps nothing."""


class Training(NamedTuple):
    """One network to train, as a unit of shared work."""

    number: Number
    instance: int
    data: FoldData


def fit_networks(
    plan: Plan,
    arm: Arm,
    folds: Sequence[tuple[Number, FoldData]],
    *,
    store: Any,
    log: Log,
    keep: Keep = lambda number, instance, best: None,
    is_kept: IsKept = lambda number, instance: True,
    wait: bool = True,
) -> dict[Number, tuple[dict[str, np.ndarray], ...]]:
    """Trains the networks of an arm's folds, or loads them from the store, and predicts.

    The training runs are shared among the processes that use the store and the devices of each.
    Test rows are read only after training, in float32, as a decoder will see them. The monitored
    rows are then predicted in the same way, so that a temperature can be fitted to them.

    Args:
      plan: see `Plan`.
      arm: the arm; its name is part of the names in the store.
      folds: (number, data) of each fold.
      store: a `checkpoint.Workdir`, or an object with its methods, such as `NoStore`.
      log: called after each epoch, as by `loop.fit`, and once for a training run that was loaded.
      keep: called with fold, instance and best parameters at the end of each training run.
      is_kept: called with fold and instance of a finished training run; returns whether the files
        written by `keep` are intact. If not, the network is trained again.
      wait: whether to return only when all training runs are done, including those of other
        processes.

    Returns:
      Fold -> per instance: "last" and "best" [t, classes], the probabilities of the test rows;
      "epoch" [], the best epoch; "done" [], the number of epochs; `trial.CURVES`, [epochs] each;
      "monitored_rows" [u], the fold's distinct monitored rows, with "monitored_last" and
      "monitored_best" [u, classes]. Without `wait`, unfinished folds are missing.
    """
    work = {
        f"{arm.name} {number} {i}": Training(number, i, data)
        for number, data in folds
        for i in range(len(data.train))
    }
    found: dict[str, dict[str, np.ndarray]] = {}

    def is_done(name):
        if name not in found:
            number, instance, _ = work[name]
            done = store.load_finished(name)
            if done is None or not is_kept(number, instance):
                return False
            found[name] = done
            log(name, plan.epochs, {})
        return True

    programs = plan.lanes or (plan.program,)
    most = 1
    if plan.side_by_side and plan.strategy == "scan":
        most = -(-len(work) // (store.members * len(programs)))
    fit = functools.partial(_fit_lane, arm=arm, work=work, found=found, most=most, wait=wait)
    plans = [dataclasses.replace(plan, program=program) for program in programs]
    lanes.run(fit, plans, store, log=log, keep=keep, is_done=is_done)
    names = {
        number: [f"{arm.name} {number} {i}" for i in range(len(data.train))]
        for number, data in folds
    }
    return {
        number: tuple(found[name] for name in own)
        for number, own in names.items()
        if all(name in found for name in own)
    }


def _fit_lane(
    plan: Plan, *, arm: Arm, work, found, most: int, wait: bool, store, is_ended, log, keep, is_done
):
    """Runs trainings one after the other, or several at once on one device."""
    feeds: dict[Number, Resident | Streamed] = {}

    def feed(number, data):
        if number not in feeds:
            feeds[number] = _feed(plan, data)
        return feeds[number]

    with contextlib.closing(pieces.claimed(store, work, is_done, most=most, wait=wait)) as claimed:
        for names in claimed:
            for number in feeds.keys() - {work[name].number for name in names}:
                del feeds[number]  # to free its memory
            tasks = [
                Task(
                    name,
                    data.keys[instance],
                    functools.partial(feed, number, data),
                    data.train[instance],
                    data.monitor,
                )
                for name, (number, instance, data) in ((name, work[name]) for name in names)
            ]
            for task, trained in _fit(plan, arm, tasks, store, log):
                number, instance, data = work[task.name]
                outcome = _predict(plan, data, trained)
                if not np.isfinite(outcome["best"]).all():
                    said = "outputs that are not finite"
                    raise InputError(f"training {task.name}", said, "a lower train.lr")
                keep(number, instance, getattr(trained, arm.pick))
                store.save_finished(task.name, outcome)
                found[task.name] = outcome
            if is_ended():
                return


def _fit(plan: Plan, arm: Arm, tasks, store, log) -> Iterator[tuple[Task, loop.Trained]]:
    train = plan.train
    stop = None
    if train.early_stop:
        stop = (train.plateau.min_lr, max(train.plateau.patience, 1))
    return loop.fit(
        plan.program,
        tasks,
        epochs=plan.epochs,
        every=plan.every,
        factor=train.penalty_factor if arm.factor is None else arm.factor,
        strategy=plan.strategy,
        stop=stop,
        store=store,
        log=log,
    )


def _feed(plan: Plan, data: FoldData) -> Resident | Streamed:
    """Returns a feed of training and monitored rows, in bfloat16 where rounding is negligible."""
    dtype = plan.train.feed_dtype
    if dtype == "auto":
        dtype = "bfloat16" if data.rounding < plan.train.feed_rounding else "float32"
    rows = np.concatenate([*data.train, data.monitor])
    kind = Streamed if plan.streamed else Resident
    return kind(data.read, data.labels, rows, jnp.dtype(dtype), plan.program.mesh)


def _predict(plan: Plan, data: FoldData, trained: loop.Trained) -> dict[str, np.ndarray]:
    monitored = np.unique(data.fold.monitor)
    networks = {"last": trained.last, "best": trained.best}
    out = {"monitored_rows": monitored}
    for prefix, read, rows in (
        ("", data.read_test, data.fold.test),
        ("monitored_", data.read, monitored),
    ):
        feed = Streamed(read, data.labels, rows, np.float32, plan.program.mesh)
        for name, network in networks.items():
            found = loop.predict(plan.program, feed, rows, network.params, network.batch_stats)
            out[prefix + name] = found
    ends = {"epoch": np.asarray(trained.best.epoch), "done": np.int32(trained.done)}
    return out | ends | trained.curves


def fit_classifiers(
    experiment: Experiment,
    config: Any,
    folds: Sequence[tuple[Arm, int, FoldData]],
    tick: Callable[[int], Any] = lambda done: None,
    workers: int | None = None,
) -> dict[tuple[str, int], dict[str, baselines.Fitted]]:
    """Fits the classical classifiers of all folds side by side: (arm, fold) -> name -> fit."""
    places = []

    def jobs():
        for arm, number, data in folds:
            for job in experiment.baselines(config, data, arm.baselines):
                places.append((arm.name, number, job.name))
                yield job

    done = baselines.run(jobs(), tick, workers)
    out: dict[tuple[str, int], dict[str, baselines.Fitted]] = {}
    for (arm_name, number, name), fitted in zip(places, done, strict=True):
        out.setdefault((arm_name, number), {})[name] = fitted
    return out
