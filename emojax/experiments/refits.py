"""Balanced accuracy of whole pipelines that are fitted again to other labels."""

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
from jaxtyping import Float, Int

from emojax import metrics, models
from emojax.cluster import pieces
from emojax.experiments import fits, programs
from emojax.experiments.base import Experiment
from emojax.experiments.still import Still, keeps_values
from emojax.provenance import Ledger
from emojax.records import Arm, FoldData
from emojax.scoring import baselines, processes
from emojax.splits import Fold

PIECE = "permutation"
ALONE = pieces.Alone()
WORTH = 20.0  # seconds of work that justify starting processes
Labels = Sequence[Int[np.ndarray, " n"]]
Scores = tuple[float | None, Float[np.ndarray, " p"]]  # scores of the true and the other labels


def relabelled(view: Any, labels: Int[np.ndarray, " n"]) -> Any:
    """Returns a cohort, or a view that holds one, with other labels."""
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


class Work(NamedTuple):
    """One arrangement, with everything that a process needs to fit and score its folds."""

    name: str  # for messages
    experiment: Experiment
    config: Any
    arm: Arm
    folds: Sequence[Fold]
    view: Any  # the view, or the folder that holds it; see `_share`
    labels: Int[np.ndarray, " n"]
    caller: int  # process id of the caller
    cache: str | None  # the caller's cache of compiled programs


def classical(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    labels: Labels,
    tick: Callable[[int], Any],
    store: pieces.Store = ALONE,
) -> Scores:
    """Fits the classifier `config.permute` in the folds of an arm, to its labels and to others.

    Args:
      experiment: see `base.Experiment`.
      config: its configuration.
      view: the data that ledgers read.
      arm: the arm.
      made: its folds.
      labels: other labels of all rows, one array per arrangement.
      tick: called with 1 for each arrangement.
      store: keeper of claims and results, through which several processes share the arrangements.

    Returns:
      The score of the true labels (None if the experiment has no such classifier) and the scores of
      the others. In a helper process, scores that another process is computing are NaN.
    """
    arm = dataclasses.replace(arm, baselines=(config.permute,))
    folds, true = [data.fold for data in made], np.asarray(view.labels)
    if all(map(keeps_values, made)) and (still := Still.of(experiment, config, view, arm, made)):
        null = []
        for own in (true, *labels):
            other = relabelled(view, own)
            null.append(balanced(other, folds, still.predicted(other)))
            tick(min(len(null) - 1, 1))
        return null[0], np.array(null[1:])
    cache = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    work = Work("permutation", experiment, config, arm, folds, view, true, os.getpid(), cache)
    start = time.perf_counter()
    observed = score_one(work)
    if observed is None:
        return None, np.zeros(0)
    workers, masked = 1, hasattr(view, "cohort")  # whole scans are not copied to processes
    if masked and (time.perf_counter() - start) * len(labels) > WORTH:
        workers = min(joblib.cpu_count(), len(labels))
    with tempfile.TemporaryDirectory(prefix="emojax-", ignore_cleanup_errors=True) as root:
        if workers > 1:
            work = work._replace(view=_share(view, pathlib.Path(root)))

        def some(numbers):
            jobs = (work._replace(labels=labels[i]) for i in numbers)
            return processes.run(score_one, jobs, tick, workers)

        return observed, pieces.each_value(store, PIECE, len(labels), some, most=workers)


def score_one(work: Work) -> float | None:
    """Fits and scores one arrangement on the CPU with one LAPACK thread, for equal results."""
    if work.caller != os.getpid():
        jax.config.update("jax_platforms", "cpu")  # accelerators belong to the caller
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
    if jax.default_backend() == "cpu":  # setting it explicitly would recompile everything
        return contextlib.nullcontext()
    return jax.default_device(jax.local_devices(backend="cpu")[0])


def _share(view: Any, folder: pathlib.Path) -> str:
    """Writes a masked cohort, without its scans, to files that processes can memory-map."""
    runs = tuple(run.with_values(run.frames[:0], "not shared") for run in view.cohort.runs)
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


def network(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    folds: Sequence[Fold],
    labels: Labels,
    tick: Callable[[int], Any],
    store: pieces.Store = ALONE,
) -> Scores:
    """Trains the networks of an arm on its labels and on others.

    Takes and returns the same as `classical`, with folds in place of their data.
    """
    assert experiment.program is not None  # `permutation.applies` has checked it
    train, classes = config.train, int(view.labels.max()) + 1
    program, streamed = experiment.program(config, classes), train.feed == "stream"
    side_by_side = models.find(config.model.name).input == "vector"
    strategy = programs.strategy_of(config, streamed)

    def score(own):
        other = relabelled(view, own)
        made = [
            experiment.features(config, Ledger(other), fold, arm, i) for i, fold in enumerate(folds)
        ]
        parts = fits.trainings(arm, made)
        sizes = [len(rows) for _, data in parts for rows in data.train]
        epochs = max(programs.epochs_of(train, size) for size in sizes)
        plan = fits.Plan(program, train, streamed, side_by_side, epochs, epochs, strategy)
        done = fits.fit_networks(plan, arm, parts, store=fits.NoStore(), log=lambda *epoch: None)
        found = fits.joined(arm, made, done, config.temperature)
        each = zip(*(found[i] for i in range(len(made))), strict=True)  # instance -> its folds
        scores = [balanced(other, folds, [o[arm.pick].argmax(1) for o in own]) for own in each]
        return float(np.mean(scores))

    def some(numbers):
        for i in numbers:
            yield score(labels[i])
            tick(1)

    return score(view.labels), pieces.each_value(store, PIECE, len(labels), some)
