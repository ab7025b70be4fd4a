"""The fits of an arm: networks and classical classifiers, real ones and the audit's stand-ins."""

import dataclasses
import functools
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from emojax.errors import InputError
from emojax.experiments import programs
from emojax.experiments.base import Experiment
from emojax.records import Arm, FoldData
from emojax.scoring import baselines
from emojax.training import loop
from emojax.training.feeds import Resident, Streamed
from emojax.training.loop import Program, Task

STAND_IN_EPOCHS = 2


@dataclasses.dataclass(frozen=True)
class Plan:
    """The way in which networks are trained on this machine."""

    program: Program
    train: Any  # the config's `train`
    streamed: bool  # volumes stay on disk
    side_by_side: bool  # folds of one shape may share a program
    epochs: int
    every: int
    strategy: loop.Strategy


Log = Callable[[str, int, Mapping[str, float]], None]
Keep = Callable[[int, int, loop.Best], None]


def fit_networks(
    plan: Plan,
    arm: Arm,
    folds: Sequence[tuple[int, FoldData]],
    *,
    store: Any,
    log: Log,
    keep: Keep = lambda number, instance, best: None,
) -> dict[int, tuple[dict[str, np.ndarray], ...]]:
    """Trains the networks of an arm's folds, or takes them from the store, and predicts.

    Test rows are read only after the training, in float32: as a decoder will see them.

    Args:
      plan: see `Plan`.
      arm: the arm; its name is part of the names in the store.
      folds: (number, data) of each fold.
      store: a `checkpoint.Workdir`, or anything with its methods.
      log: called after each epoch, as by `loop.fit`, and once for a finished training.
      keep: called with fold, instance and best parameters at the end of each training.

    Returns:
      Fold -> per instance: "last", "best" [t, classes] probabilities of the test rows, "epoch" []
      of the best, "done" [] epochs, and `trial.CURVES`, [epochs] each.
    """
    found: dict[tuple[int, int], dict[str, np.ndarray]] = {}
    for part in [folds] if plan.side_by_side else [[fold] for fold in folds]:
        tasks, places = [], {}
        for number, data in part:
            feed = functools.cache(functools.partial(_feed, plan, data))
            for instance, rows in enumerate(data.train):
                name = f"{arm.name} {number} {instance}"
                if (done := store.load_finished(name)) is not None:
                    found[number, instance] = done
                    log(name, plan.epochs, {})
                    continue
                tasks.append(Task(name, data.keys[instance], feed, rows, data.monitor))
                places[name] = number, instance, data
        for group in [tasks] if plan.side_by_side else [[task] for task in tasks]:
            for task, trained in _fit(plan, arm, group, store, log):
                number, instance, data = places[task.name]
                outcome = _predict(plan, data, trained)
                if not np.isfinite(outcome["best"]).all():
                    found = "outputs that are not finite"
                    raise InputError(f"training {task.name}", found, "a lower train.lr")
                keep(number, instance, trained.best)
                store.save_finished(task.name, outcome)
                found[number, instance] = outcome
    return {
        number: tuple(found[number, i] for i in range(len(data.train))) for number, data in folds
    }


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
    """Returns a feed of the training and monitored rows, in bfloat16 where that loses little."""
    dtype = plan.train.feed_dtype
    if dtype == "auto":
        dtype = "bfloat16" if data.rounding < plan.train.feed_rounding else "float32"
    rows = np.concatenate([*data.train, data.monitor])
    kind = Streamed if plan.streamed else Resident
    return kind(data.read, data.labels, rows, jnp.dtype(dtype), plan.program.mesh)


def _predict(plan: Plan, data: FoldData, trained: loop.Trained) -> dict[str, np.ndarray]:
    rows = data.fold.test
    feed = Streamed(data.read_test, data.labels, rows, np.float32, plan.program.mesh)
    networks = {"last": trained.last, "best": trained.best}
    out = {
        name: loop.predict(plan.program, feed, rows, network.params, network.batch_stats)
        for name, network in networks.items()
    }
    ends = {"epoch": np.asarray(trained.best.epoch), "done": np.int32(trained.done)}
    return out | ends | trained.curves


def fit_classifiers(
    experiment: Experiment,
    config: Any,
    folds: Sequence[tuple[Arm, int, FoldData]],
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[tuple[str, int], dict[str, baselines.Fitted]]:
    """Fits the classical classifiers of all folds side by side: (arm, fold) -> name -> fit."""
    places = []

    def jobs():
        for arm, number, data in folds:
            for job in experiment.baselines(config, data, arm.baselines):
                places.append((arm.name, number, job.name))
                yield job

    done = baselines.run(jobs(), tick)
    out: dict[tuple[str, int], dict[str, baselines.Fitted]] = {}
    for (arm_name, number, name), fitted in zip(places, done, strict=True):
        out.setdefault((arm_name, number), {})[name] = fitted
    return out


class _NoStore(loop.Store):
    """A store that keeps nothing."""

    def load_finished(self, name):
        """Returns None: nothing was kept."""

    def save_finished(self, name, arrays):
        """Keeps nothing."""


class _NearestMean:
    """Nearest class means: a classifier whose every number depends on every training row."""

    def fit(self, x, y):
        """Takes the class means."""
        self.classes_ = np.unique(y)
        self._means = [x[y == k].mean(0, dtype=np.float64) for k in self.classes_]

    def predict_proba(self, x):
        """Returns a softmax of negative mean squared distances, [n, classes]."""
        distances = [[((row - mean) ** 2).mean() for mean in self._means] for row in x]
        return softmax(-np.array(distances), axis=1)

    def predict(self, x):
        """Returns the nearest class of each row."""
        return self.classes_[self.predict_proba(x).argmax(1)]


def stand_in(
    experiment: Experiment, config: Any, arm: Arm, plan: Plan | None, num_classes: int
) -> Callable[[FoldData], dict[str, Any]]:
    """Returns small fits that go the way of the real ones, for the audit to compare.

    A single dense layer is trained by `fit_networks`, and nearest class means by
    `baselines.fit_predict` on the inputs of every classical classifier.

    Returns:
      FoldData -> "network": weights, curves and epoch; "baselines": digests of training inputs;
      "scored": inputs and predictions of every test row, [t, ...] each.
    """
    small = plan and dataclasses.replace(
        plan,
        program=programs.stand_in(plan.program, num_classes),
        epochs=STAND_IN_EPOCHS,
        every=STAND_IN_EPOCHS,
        strategy="loop",
        side_by_side=False,
    )

    def fits(data: FoldData) -> dict[str, Any]:
        out: dict[str, Any] = {"scored": {}}
        if small is not None:
            data = dataclasses.replace(data, train=data.train[:1], keys=data.keys[:1])
            weights = []
            found = fit_networks(
                small,
                arm,
                [(0, data)],
                store=_NoStore(),
                log=lambda *epoch: None,
                keep=lambda number, instance, best: weights.append(best.params),
            )
            outcome = dict(found[0][0])
            for name in ("best", "last"):
                out["scored"][f"network {name}"] = outcome.pop(name)
            out["network"] = {"weights": weights, "rest": outcome}
        if arm.baselines:
            digests = {}
            for job in experiment.baselines(config, data, arm.baselines):
                digests[job.name] = _digest(job.train_x, job.train_y)
                inputs = [zlib.crc32(np.ascontiguousarray(row)) for row in job.test_x]
                out["scored"][f"{job.name} inputs"] = np.array(inputs, np.uint32)
                fitted = baselines.fit_predict(job._replace(estimator=_NearestMean()))
                out["scored"][job.name] = fitted.probabilities
            out["baselines"] = digests
        return out

    return fits


def _digest(*arrays) -> np.ndarray:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array))
    return np.frombuffer(found.digest(), np.uint8)
