"""Classical classifiers on the noise floor: all that an arm does, on values without events."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import threadpoolctl

from emojax import statistics
from emojax.data.store import Store, default
from emojax.experiments import audits, base, fits, noise
from emojax.experiments.base import Experiment
from emojax.provenance import Ledger, classify
from emojax.records import Arm, FoldData
from emojax.scoring import scores


class Floor(NamedTuple):
    """An arm that is fitted to noise, and the name of the one that it stands for."""

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

    Of the arms, the headline has a floor, or where arms are splits, each that is fitted to measured
    values. A draw is made from the values of all runs, read like them, and gone before the next;
    masks, voxels, alignment, scaler and rows are made of it as of the values. What was seen is
    checked in every draw; the first one is audited as the arm itself.

    Args:
      experiment: see `base.Experiment`.
      config: with `null_floor` (False turns this off), `noise.draws` (so does 0),
        `floor_baselines` and `seed`.
      view: what ledgers read of the measured values.
      arm: the headline.
      made: its folds; not used.
      tick: called with 1 for every draw.

    Returns:
      Arm -> classifier -> "draws" (balanced accuracy of each, the mean over folds), "mean", "sd",
      "ci95" (Student's t over draws, None for one), "low", "high" (the least and the largest draw),
      "audited" (folds). None where there is no such classifier.

    Raises:
      InputError: the disk is too small.
      LeakageError: as for the arms themselves.
    """
    cohort = getattr(view, "cohort", view)
    floors = [] if config.null else _floors(experiment, config, cohort)
    if not config.null_floor or not config.noise.draws or not floors:
        return None
    key, store = jax.random.key(config.seed), Store(default(config.data)).scratch()
    found: dict[str, dict[str, list[float]]] = {floor.name: {} for floor in floors}
    audited: dict[str, list[str]] = {}
    for draw in range(config.noise.draws):
        noisy = noise.noise_like(key, cohort, store, draw)
        own = noisy, experiment.view(config, noisy)
        for floor in floors:
            one = replace(floor.arm, draw=draw)
            with threadpoolctl.threadpool_limits(1):  # the matrices are small
                folds = _features(experiment, config, own[1], one)
                if config.audit and not draw:
                    audit = audits.audit_arms(
                        experiment, config, {0: own}, [one], {one.name: folds}, None
                    )
                    audited[floor.name] = audit["arms"][one.name]["folds"]
            for name, score in _scores(experiment, config, cohort, one, folds).items():
                found[floor.name].setdefault(name, []).append(score)
            del folds
        tick(1)
    return {
        name: {k: summary(draws) | {"audited": audited.get(name, [])} for k, draws in each.items()}
        for name, each in found.items()
        if each
    } or None


def summary(draws: Sequence[float]) -> dict[str, Any]:
    """Returns the scores of several draws with their mean, sd, interval and limits."""
    values = np.asarray(draws, np.float64)
    interval = statistics.mean_interval(values)
    limits = [float(interval.low), float(interval.high)]
    return {
        "draws": values.tolist(),
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "ci95": None if np.isnan(limits).any() else limits,
        "low": float(values.min()),
        "high": float(values.max()),
    }


def _floors(experiment: Experiment, config: Any, cohort: Any) -> list[Floor]:
    """Returns the arms that have a floor of classical classifiers."""
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


def _features(experiment: Experiment, config: Any, view: Any, arm: Arm) -> list[FoldData]:
    """Makes the features of every fold of an arm, and refuses those that saw too much.

    Raises:
      LeakageError: a fold saw more of what it is scored on than the arm claims.
    """
    folds, unit = experiment.folds(config, view, arm), experiment.units(config, view, arm)
    made = []
    for number, fold in enumerate(folds):
        ledger = Ledger(view)
        made.append(replace(experiment.features(config, ledger, fold, arm, number), unit=unit))
        classify(
            ledger.seen(fold.test, prior=False),
            subject=view.subject,
            unit=unit,
            claimed=arm.protocol,
            name=f"{arm.name} on noise",
            prior=ledger.prior,
        )
    return made


def _scores(
    experiment: Experiment, config: Any, cohort: Any, arm: Arm, folds: Sequence[FoldData]
) -> Mapping[str, float]:
    """Returns the balanced accuracy of each classifier that there is, the mean over folds."""
    places = [(arm, number, data) for number, data in enumerate(folds)]
    fitted = fits.fit_classifiers(experiment, config, places)
    out: dict[str, list[float]] = {}
    for number, data in enumerate(folds):
        labels = cohort.labels[data.fold.test]
        for name, own in fitted.get((arm.name, number), {}).items():
            found = scores.scores(labels, own.probabilities)["balanced_accuracy"]
            out.setdefault(name, []).append(found)
    return {name: float(np.mean(values)) for name, values in out.items()}
