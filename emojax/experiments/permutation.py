"""The headline against chance: its whole pipeline on labels that were exchanged.

Values never change. Voxels, alignment, rows and classifier are made again for every arrangement of
the labels (Ojala and Garriga, 2010), which is then what is scored, too. The statistic is the mean
over folds of balanced accuracy; p = (1 + number of arrangements that reach it) / (1 + number).
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import joblib
import numpy as np
import threadpoolctl
from jaxtyping import Int

from emojax import metrics, models
from emojax.alignment import REGIMES
from emojax.errors import InputError
from emojax.experiments import exchange, fits, programs
from emojax.experiments.base import Experiment
from emojax.experiments.exchange import Exchange
from emojax.provenance import Ledger
from emojax.records import Arm, FoldData
from emojax.scoring import baselines, processes
from emojax.splits import Fold
from emojax.training import loop

NETWORK = "network"
KEY = 14  # of `jax.random.fold_in`: no other step of a run has this number
PATIENCE = 200  # draws of one arrangement, and more where few are left
WORTH = 20.0  # s of work from which on processes are started for it
ROUNDING = 1e-6  # of a mean of float32 accuracies


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any] | None:
    """Tests the headline's folds and features against exchanged labels.

    With `config.permute` "network" every arrangement costs a training of every fold, as long as
    those of the headline: `config.permutations` times the whole run. It is meant for small ones.

    Args:
      experiment: see `base.Experiment`.
      config: with `permutations` (0 turns this off), `permute` and `seed`.
      view: what ledgers read.
      arm: the headline.
      made: its folds, whose rows stay as they are.
      tick: called with 1 for every arrangement.

    Returns:
      "classifier", "p", "observed", "null" (a value for each arrangement), "scheme" (what was
      exchanged), "blocks" (their number), "least_p". None where there is nothing to test: turned
      off, a sweep, or an experiment without this classifier.

    Raises:
      InputError: fewer different arrangements than `config.permutations` asks for.
    """
    if not applies(experiment, config, arm):
        return None
    folds = [data.fold for data in made]
    found = design(config, view, arm)
    labels = arrangements(config, view, arm, found, folds)
    score = _network if config.permute == NETWORK else _classical
    observed, null = score(experiment, config, view, arm, made, labels, tick)
    if observed is None:
        return None
    reached = int((null >= observed - ROUNDING).sum())
    return {
        "classifier": config.permute,
        "p": (1 + reached) / (1 + len(null)),
        "observed": observed,
        "null": null.tolist(),
        "scheme": found.scheme,
        "blocks": len(found.label),
        "least_p": 1 / (1 + len(null)),
    }


def applies(experiment: Experiment, config: Any, arm: Arm) -> bool:
    """Returns whether the headline of this run is tested.

    Raises:
      InputError: `config.permute` is no classifier.
    """
    if not config.get("permutations", 0) or arm.factor is not None:
        return False
    if config.permute == NETWORK:
        return experiment.program is not None
    return baselines.available(config.permute)


def design(config: Any, view: Any, arm: Arm) -> Exchange:
    """Finds what may be exchanged: blocks where rows have times, or are matched as if they had."""
    cohort = getattr(view, "cohort", view)
    timed = all(run.tr is not None or run.starts is not None for run in cohort.runs)
    if arm.regime and REGIMES[arm.regime].needs_template:
        timed = timed or config.align.match == "time"
    return exchange.design(cohort, timed)


def arrangements(
    config: Any, view: Any, arm: Arm, found: Exchange, folds: Sequence[Fold]
) -> list[Int[np.ndarray, " n"]]:
    """Draws `config.permutations` different arrangements of the labels, none of them the true one.

    Folds keep their rows. An arrangement after which a fold or a unit lacks a class that it has now
    is drawn again, as the true one could not have been it.

    Raises:
      InputError: there are fewer.
    """
    count, possible = config.permutations, found.arrangements
    if possible <= count:
        raise _too_few(count, possible - 1, found)
    cohort = getattr(view, "cohort", view)
    units = getattr(view, "units", cohort.subject)
    parts = [rows for fold in folds for rows in (fold.train, fold.monitor) if len(rows)]
    parts += [np.flatnonzero(units == name) for name in np.unique(units)]
    before = [np.unique(cohort.labels[rows]) for rows in parts]
    key = jax.random.fold_in(jax.random.key(config.seed), KEY)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    seen, out = {cohort.labels.astype(np.int32).tobytes()}, []
    for _ in range(count):
        for _ in range(PATIENCE + 20 * possible // (possible - len(seen))):
            labels = found.draw(rng).astype(np.int32)
            pairs = zip(parts, before, strict=True)
            fits_in = all(np.isin(classes, labels[rows]).all() for rows, classes in pairs)
            if fits_in and labels.tobytes() not in seen:
                break
        else:
            raise _too_few(count, len(out), found)
        seen.add(labels.tobytes())
        out.append(labels)
    return out


def _too_few(count: int, possible: int, found: Exchange) -> InputError:
    what = f"{count}, but {found.scheme}: {len(found.label)} blocks have {possible} other orders"
    expected = "0: no test"
    if possible:
        least = 1 / (1 + possible)
        expected = f"at most {possible}, for p of {least:.2g} or more (0: no test)"
    return InputError("permutations", what, f"{expected}: --config.permutations={possible}")


def relabelled(view: Any, labels: Int[np.ndarray, " n"]) -> Any:
    """Returns the same values with other labels, of a cohort or of a view that holds one."""
    if hasattr(view, "with_labels"):
        return view.with_labels(labels)
    return dataclasses.replace(view, cohort=view.cohort.with_labels(labels))


def balanced(view: Any, folds: Sequence[Fold], predicted: Sequence[np.ndarray]) -> float:
    """Returns the mean over folds of balanced accuracy."""
    labels, classes = view.labels, int(view.labels.max()) + 1
    scores = [
        float(metrics.balanced_accuracy(labels[fold.test], found.astype(np.int32), classes))
        for fold, found in zip(folds, predicted, strict=True)
    ]
    return float(np.mean(scores))


# classical classifiers


class Work(NamedTuple):
    """One arrangement, with all that a process needs to fit and score its folds."""

    name: str  # for messages
    experiment: Experiment
    config: Any
    arm: Arm
    folds: Sequence[Fold]
    view: Any  # or the folder that holds it, see `_share`
    labels: Int[np.ndarray, " n"]
    caller: int  # process id
    cache: str | None  # of the caller's compiled programs


def _classical(experiment, config, view, arm, made, labels, tick):
    """Returns the statistic of the true labels, and those of the arrangements."""
    arm = dataclasses.replace(arm, baselines=(config.permute,))
    folds, true = [data.fold for data in made], np.asarray(view.labels)
    if all(map(_keeps_values, made)):
        still = _Still.of(experiment, config, view, arm, made)
        if still is not None:
            null = []
            for own in labels:
                null.append(still.score(own))
                tick(1)
            return still.score(true), np.array(null)
    cache = jax.config.jax_compilation_cache_dir
    work = Work("permutation", experiment, config, arm, folds, view, true, os.getpid(), cache)
    start = time.perf_counter()
    observed = score_one(work)
    if observed is None:
        return None, None
    workers, masked = 1, hasattr(view, "cohort")  # whole scans stay on disk
    if masked and (time.perf_counter() - start) * len(labels) > WORTH:
        workers = min(joblib.cpu_count(), len(labels))
    with tempfile.TemporaryDirectory(prefix="emojax-", ignore_cleanup_errors=True) as root:
        if workers > 1:
            work = work._replace(view=_share(view, pathlib.Path(root)))
        jobs = (work._replace(labels=own) for own in labels)
        return observed, np.array(processes.run(score_one, jobs, tick, workers))


def score_one(work: Work) -> float | None:
    """Fits and scores one arrangement, on the CPU and one thread of LAPACK: alike everywhere."""
    if work.caller != os.getpid():
        jax.config.update("jax_platforms", "cpu")  # devices belong to the caller
        jax.config.update("jax_compilation_cache_dir", work.cache)
    with _on_cpu(), threadpoolctl.threadpool_limits(1):
        kept = _shared(work.view) if isinstance(work.view, str) else work.view
        view, predicted = relabelled(kept, work.labels), []
        for i, fold in enumerate(work.folds):
            data = work.experiment.features(work.config, Ledger(view), fold, work.arm, i)
            jobs = list(work.experiment.baselines(work.config, data, work.arm.baselines))
            if not jobs:
                return None
            predicted.append(baselines.fit_predict(jobs[0]).predicted)
        return balanced(view, work.folds, predicted)


def _on_cpu():
    if jax.default_backend() == "cpu":  # asking for it would compile everything again
        return contextlib.nullcontext()
    return jax.default_device(jax.local_devices(backend="cpu")[0])


def _share(view: Any, folder: pathlib.Path) -> str:
    """Writes a masked cohort, without its scans, as files that processes map into memory."""
    runs = tuple(dataclasses.replace(run, frames=run.frames[:0]) for run in view.cohort.runs)
    view = dataclasses.replace(view, cohort=dataclasses.replace(view.cohort, runs=runs))
    parts: list[pickle.PickleBuffer] = []
    (folder / "view").write_bytes(pickle.dumps(view, 5, buffer_callback=parts.append))
    for i, part in enumerate(parts):
        (folder / str(i)).write_bytes(part.raw())
    return str(folder)


@functools.lru_cache(maxsize=1)
def _shared(folder: str) -> Any:
    """Reads what `_share` wrote."""
    place, parts = pathlib.Path(folder), []
    for i in range(len(list(place.iterdir())) - 1):
        file = place / str(i)
        parts.append(np.memmap(file, mode="r") if file.stat().st_size else b"")
    return pickle.loads((place / "view").read_bytes(), buffers=parts)


# where no value depends on a label, only rows and classes change


def _keeps_values(data: FoldData) -> bool:
    """Returns whether, by the record, only the training itself has read labels."""
    steps = data.ledger.reads.steps.items()
    return not any(saw.labels.any() for step, saw in steps if step not in (NETWORK, "epoch choice"))


class _Blank:
    """A view whose values are all 0, for rows that are drawn by labels alone."""

    def __init__(self, view: Any):
        self._view = view
        n, *sizes = view.volumes.shape
        self.volumes = np.zeros((n, *[1] * len(sizes)), np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


class _Still:
    """Folds whose inputs were made once."""

    def __init__(self, draw, view, folds, jobs, values):
        self._draw, self._view, self._folds = draw, view, folds
        self._jobs, self._values = jobs, values  # row of the cohort -> its input, of each fold

    @classmethod
    def of(cls, experiment, config, view, arm, made: Sequence[FoldData]) -> "_Still | None":
        """Returns them, or None where rows cannot be drawn without values."""
        if not hasattr(getattr(view, "volumes", None), "shape"):
            return None

        def draw(labels, number):
            blank = _Blank(relabelled(view, labels))
            data = experiment.features(config, Ledger(blank), made[number].fold, arm, number)
            return data.train[0] if len(data.train) == 1 else data.fold.train

        jobs, values = [], []
        for i, data in enumerate(made):
            own = list(experiment.baselines(config, data, arm.baselines))
            rows = draw(view.labels, i)
            if not own or not np.array_equal(own[0].train_y, view.labels[rows]):
                return None
            different, first = np.unique(rows, return_index=True)
            inputs = np.zeros((len(view.labels), *own[0].train_x.shape[1:]), np.float32)
            inputs[different] = own[0].train_x[first]
            jobs.append(own[0]._replace(train_x=None, train_y=None))
            values.append(inputs)
            if not np.isin(data.fold.train, different).all():
                return None
        return cls(draw, view, [data.fold for data in made], jobs, values)

    def score(self, labels: Int[np.ndarray, " n"]) -> float:
        """Returns the statistic of one arrangement."""
        predicted = []
        for i, (job, inputs) in enumerate(zip(self._jobs, self._values, strict=True)):
            rows = self._draw(labels, i)
            job = job._replace(train_x=inputs[rows], train_y=labels[rows])
            predicted.append(baselines.fit_predict(job).predicted)
        return balanced(relabelled(self._view, labels), self._folds, predicted)


# the network


class _NoStore(loop.Store):
    """A store that keeps nothing."""

    def load_finished(self, name):
        """Returns None: nothing was kept."""

    def save_finished(self, name, arrays):
        """Keeps nothing."""


def _network(experiment, config, view, arm, made, labels, tick):
    """Returns the statistic of networks of true labels, and those of the arrangements."""
    arm = dataclasses.replace(arm, baselines=())
    train, classes = config.train, int(view.labels.max()) + 1
    streamed = train.feed == "stream"
    plan = fits.Plan(
        experiment.program(config, classes),
        train,
        streamed,
        models.find(config.model.name).input == "vector",
        train.epochs,
        train.epochs,
        programs.strategy_of(config, streamed),
    )

    def score(own):
        other = relabelled(view, own)
        folds = [
            (i, experiment.features(config, Ledger(other), data.fold, arm, i))
            for i, data in enumerate(made)
        ]
        done = fits.fit_networks(
            plan, arm, folds, store=_NoStore(), log=lambda name, epoch, values: None
        )
        kept = "last" if arm.pick == "last" else "best"
        each = zip(*(done[i] for i, _ in folds), strict=True)  # instance -> its folds
        scores = [
            balanced(other, [data.fold for data in made], [o[kept].argmax(1) for o in outcomes])
            for outcomes in each
        ]
        return float(np.mean(scores))

    observed, null = score(view.labels), []
    for own in labels:
        null.append(score(own))
        tick(1)
    return observed, np.array(null)
