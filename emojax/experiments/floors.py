"""Noise floors of classical classifiers: an arm's whole pipeline on noise without events."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import threadpoolctl

from emojax import statistics
from emojax.data.store import Store, default
from emojax.experiments import audits, base, noise
from emojax.experiments.base import Experiment
from emojax.provenance import Ledger, classify
from emojax.records import Arm, FoldData
from emojax.scoring import baselines, scores
from emojax.scoring.baselines import Job


class Floor(NamedTuple):
    """An arm that is fitted to noise, and the name of the arm whose floor it is."""

    name: str
    arm: Arm


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any] | None:
    """Scores classical classifiers on several draws of the noise floor.

    The headline has a floor; where arms are splits, every split of the measured values has one. A
    draw is generated from the values of all runs, goes through the same masks, voxels, alignment,
    scaler and rows, and is deleted before the next one. The provenance record is checked in every
    draw; the first draw is audited like the arm itself.

    Args:
      experiment: see `base.Experiment`.
      config: config with `null_floor` (False turns this off), `noise.draws` (0 does, too),
        `floor_baselines` and `seed`.
      view: the measured data that ledgers read.
      arm: the headline.
      made: folds of the headline; not used.
      tick: called with 1 for every draw.

    Returns:
      Arm -> classifier -> "draws" (balanced accuracy of each, mean over folds), "mean", "sd",
      "ci95" (Student's t over draws; None with one draw), "low", "high" (lowest and highest draw),
      "audited" (folds), "scheme" (in words). None if there is no such classifier.

    Raises:
      InputError: not enough disk space.
      LeakageError: as for the arms themselves.
    """
    cohort = getattr(view, "cohort", view)
    floors = [] if config.null else _floors(experiment, config, cohort)
    if not config.null_floor or not config.noise.draws or not floors:
        return None
    return score(experiment, config, cohort, floors, tick) or None


def score(
    experiment: Experiment,
    config: Any,
    cohort: Any,
    floors: Sequence[Floor],
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, dict[str, Any]]:
    """Scores arms on the draws of the noise floor; returns and raises as `analyse` does."""
    audited: dict[str, list[str]] = {}
    places: list[tuple[str, str, int, np.ndarray]] = []  # floor, classifier, draw, labels

    def jobs() -> Iterator[Job]:
        for floor, draw, data in _folds(experiment, config, cohort, floors, audited, tick):
            labels = cohort.labels[data.fold.test]
            for job in experiment.baselines(config, data, floor.arm.baselines):
                places.append((floor.name, job.name, draw, labels))
                yield job
            del data  # the last reference to a draw frees its memory

    found: dict[str, dict[str, list[list[float]]]] = {floor.name: {} for floor in floors}
    for (name, classifier, draw, labels), own in zip(places, baselines.run(jobs()), strict=True):
        draws = found[name].setdefault(classifier, [[] for _ in range(config.noise.draws)])
        draws[draw].append(scores.scores(labels, own.probabilities)["balanced_accuracy"])
    said = noise.scheme(cohort)
    return {
        name: {
            classifier: summary([float(np.mean(folds)) for folds in draws])
            | {"audited": audited.get(name, []), "scheme": said}
            for classifier, draws in each.items()
        }
        for name, each in found.items()
        if each
    }


def summary(draws: Sequence[float]) -> dict[str, Any]:
    """Returns the scores of several draws with their mean, sd, interval and range."""
    values = np.asarray(draws, np.float64)
    return {
        "draws": values.tolist(),
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "ci95": scores.limits(statistics.mean_interval(values)),
        "low": float(values.min()),
        "high": float(values.max()),
    }


def _floors(experiment: Experiment, config: Any, cohort: Any) -> list[Floor]:
    """Returns the noise arms of all arms that have a floor of classical classifiers."""
    arms = list(experiment.arms(config, cohort))
    real = [arm for arm in arms if not arm.on_noise]
    chosen = [arm for arm in real if arm.split and not arm.shares] or real[:1]
    trained, out = {arm.name: arm for arm in real if not arm.shares}, []
    for arm in chosen:
        source = trained[arm.shares or arm.name]
        names = dict.fromkeys(base.installed(config.get("floor_baselines", "")))
        names |= dict.fromkeys(source.baselines if arm.decoder else ())
        if names and arm.factor is None:
            options = {
                "on_noise": True,
                "baselines": tuple(names),
                "instances": 1,
                "members": False,
            }
            out.append(Floor(arm.name, replace(source, **options)))
    return out


def _folds(
    experiment: Experiment, config: Any, cohort: Any, floors: Sequence[Floor], audited, tick
) -> Iterator[tuple[Floor, int, FoldData]]:
    """Yields every fold of every draw lazily, so that earlier folds are fitted meanwhile.

    Raises:
      LeakageError: a fold saw more than its arm claims, by its record or by the audit.
    """
    key, store = jax.random.key(config.seed), Store(default(config.data)).scratch()
    for draw in range(config.noise.draws):
        noisy = noise.noise_like(key, cohort, store, draw)
        own = noisy, experiment.view(config, noisy)
        for floor in floors:
            arm = replace(floor.arm, draw=draw)
            made = features(experiment, config, own[1], arm)
            if config.audit and not draw:
                made = list(made)
                with threadpoolctl.threadpool_limits(1):
                    found = audits.audit_arms(
                        experiment, config, {0: own}, [arm], {arm.name: made}, None
                    )
                audited[floor.name] = found["arms"][arm.name]["folds"]
            for data in made:
                yield floor, draw, data
                del data
            del made
        del noisy, own  # before the next draw is made
        tick(1)


def features(experiment: Experiment, config: Any, view: Any, arm: Arm) -> Iterator[FoldData]:
    """Yields the features of each fold of an arm, with their protocol class in notes["protocol"].

    Raises:
      LeakageError: a fold saw more of its test volumes than the arm claims.
    """
    unit = experiment.units(config, view, arm)
    for number, fold in enumerate(experiment.folds(config, view, arm)):
        ledger = Ledger(view)
        with threadpoolctl.threadpool_limits(1):  # the matrices are small
            data = experiment.features(config, ledger, fold, arm, number)
        protocol, _ = classify(
            ledger.seen(fold.test, prior=False),
            subject=view.subject,
            unit=unit,
            claimed=arm.protocol,
            name=f"{arm.name} on noise" if arm.on_noise else arm.name,
            prior=ledger.prior,
        )
        yield replace(data, unit=unit, notes={**data.notes, "protocol": protocol})
