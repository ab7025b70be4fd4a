"""Rows, probabilities and curves of an arm, as tables, figures and files need them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from emojax import provenance, splits
from emojax.data.cohort import Cohort
from emojax.errors import InputError
from emojax.records import Arm, ArmResult, FoldResult
from emojax.scoring import gains, scores

CURVES = ("train_loss", "train_accuracy", "loss", "accuracy", "rate")
SAME = 1e-6  # probabilities that differ by less than this are equal
NETWORK = "network"  # the classifier of a row that is no classical one


class Predictions(NamedTuple):
    """The scored rows of a fold, and the probabilities that its networks give them."""

    rows: Int[np.ndarray, " t"]  # of the cohort; a row may occur several times
    networks: Sequence[Float[np.ndarray, "t classes"]]  # probabilities of each instance
    uncalibrated: Sequence[Float[np.ndarray, "t classes"] | None]  # where a temperature was applied


def predictions(arm: Arm, fold: FoldResult) -> Predictions:
    """Returns the scored rows of a fold, and what each of its networks says of them.

    Raises:
      InputError: a network has diverged.
    """
    pick = np.arange(len(fold.fold.test))
    if arm.oversampled and "oversampled" in fold.notes:
        pick = np.asarray(fold.notes["oversampled"])
    networks = [np.asarray(outcome[arm.pick])[pick] for outcome in fold.outcomes]
    if not all(np.isfinite(values).all() for values in networks):
        place = f"{arm.name}, fold {fold.fold.name}"
        expected = "finite ones: a lower train.lr, or another penalty, in a new workdir"
        raise InputError(place, "a network that diverged to probabilities of NaN", expected)
    before = [outcome.get(f"uncalibrated_{arm.pick}") for outcome in fold.outcomes]
    before = [None if values is None else np.asarray(values)[pick] for values in before]
    return Predictions(np.asarray(fold.fold.test)[pick], networks, before)


def first_predictions(arm: Arm, fold: FoldResult) -> Predictions:
    """Returns the predictions of the networks, or without any those of the arm's classifier.

    That is the one that the arm is about, or else its first.
    """
    found = predictions(arm, fold)
    if found.networks:
        return found
    first = fold.baselines[arm.decoder or next(iter(fold.baselines))]
    return Predictions(np.asarray(fold.fold.test), [np.asarray(first.probabilities)], [None])


def pooled(result: ArmResult) -> tuple[Int[np.ndarray, " t"], Float[np.ndarray, "t classes"]]:
    """Returns rows and probabilities of all folds and instances of an arm's network.

    Without a network they are those of its classifier, see `first_predictions`.
    """
    found = [first_predictions(result.arm, fold) for fold in result.folds]
    rows = [f.rows for f in found for _ in f.networks]
    return np.concatenate(rows), np.concatenate([p for f in found for p in f.networks])


def temperatures(cohort: Cohort, result: ArmResult) -> list[list[float | None]]:
    """Returns the temperature of each network, by fold; see `temperature`."""
    return [
        [temperature(cohort, result.arm, outcome) for outcome in fold.outcomes]
        for fold in result.folds
    ]


def temperature(cohort: Cohort, arm: Arm, outcome: Mapping[str, Any]) -> float | None:
    """Fits the temperature of a network to its monitored volumes, each of which counts once.

    Returns:
      The temperature; None for an arm that is leaky by name, whose monitored volumes may be those
      that are scored, and for a network without finite predictions of them.
    """
    found = outcome.get(f"monitored_{arm.pick}")
    if arm.leaks or found is None or not len(found) or not np.isfinite(found).all():
        return None
    labels = cohort.labels[outcome["monitored_rows"]]
    return scores.fit_temperature(labels, np.asarray(found))


def calibrated(result: ArmResult, fitted: Sequence[Sequence[float | None]]) -> ArmResult:
    """Returns an arm whose networks say probabilities with a temperature.

    Their own stay in each outcome as "uncalibrated_best" (or "_last"), beside "temperatures".
    Outcomes that have these stay as they are.

    Args:
      result: the arm.
      fitted: a temperature for each network, by fold; None leaves its probabilities, and [] those
        of a whole fold.
    """
    pick, folds = result.arm.pick, []
    for fold, values in zip(result.folds, fitted, strict=True):
        if not values:
            folds.append(fold)
            continue
        pairs = zip(fold.outcomes, values, strict=True)
        done = (o if t is None or "temperatures" in o else _with(o, pick, t) for o, t in pairs)
        folds.append(fold._replace(outcomes=tuple(done)))
    return result._replace(folds=tuple(folds))


def _with(outcome: Mapping[str, Any], pick: str, value: float) -> dict[str, Any]:
    own = np.asarray(outcome[pick])
    new = {pick: scores.with_temperature(own, value), f"uncalibrated_{pick}": own}
    return {**outcome, **new, "temperatures": np.array([value])}


def gain(cohort: Cohort, result: ArmResult) -> dict[str, Any] | None:
    """Returns what an arm's networks add to the linear path that they were built on, if any."""
    folds = [fold for fold in result.folds if fold.outcomes and "linear" in fold.notes]
    arm = result.arm
    if not folds or arm.decoder or arm.leaks or arm.on_noise:
        return None
    found = [predictions(arm, fold).networks for fold in folds]
    return gains.gain(
        [cohort.labels[fold.fold.test] for fold in folds],
        [fold.notes["linear"] for fold in folds],
        [np.mean(networks, axis=0) for networks in found],
    )


def base_rates(cohort: Cohort, fold: FoldResult) -> Float[np.ndarray, " classes"]:
    """Returns the share of each class in the training volumes of a fold, each counted once."""
    labels = cohort.labels[np.unique(fold.fold.train)]
    return np.bincount(labels, minlength=len(cohort.classes)) / len(labels)


def blocks(cohort: Cohort) -> Int[np.ndarray, " n"]:
    """Returns the block of each row, see `splits.blocks`; -1 where volumes have no time."""
    timed = np.array([run.tr is not None or run.starts is not None for run in cohort.runs])
    return np.where(timed[cohort.run_index], splits.blocks(cohort), -1)


def learned_nothing(cohort: Cohort, result: ArmResult) -> str | None:
    """Returns in what way an arm's networks are constant, in every fold; None if they are not."""
    scored = [fold for fold in result.folds if fold.outcomes]
    labels = [cohort.labels[fold.fold.test] for fold in scored]
    if not scored or len(np.unique(np.concatenate(labels))) < 2:
        return None
    for pick, when in dict({result.arm.pick: "", "last": " at the last epoch"}).items():
        each = [outcome for fold in scored for outcome in fold.outcomes]
        found = [np.asarray(o.get(f"uncalibrated_{pick}", o[pick])) for o in each]
        if not all(np.isfinite(values).all() for values in found):
            continue
        if all(np.ptp(values, axis=0).max() < SAME for values in found):
            return f"constant output{when} (the same probabilities for all volumes of a fold)"
        called = np.unique(np.concatenate([values.argmax(1) for values in found]))
        if len(called) == 1:
            return f"constant output{when} (class {cohort.classes[called[0]]} for every volume)"
    return None


def groups(cohort: Cohort, arm: Arm) -> Shaped[np.ndarray, " n"]:
    """Returns the group of each row that the arm's split keeps whole."""
    return np.asarray(splits.SPLITS[arm.split].groups(cohort))


def curves(result: ArmResult) -> dict[str, Float[np.ndarray, "lines epochs"]]:
    """Returns each curve of an arm, a line per fold and instance; {} without a network."""
    outcomes = [outcome for fold in result.folds for outcome in fold.outcomes]
    if not outcomes:
        return {}
    return {name: np.stack([np.asarray(o[name]) for o in outcomes]) for name in CURVES}


def trained(results: Sequence[ArmResult]) -> list[ArmResult]:
    """Returns the arms that have a training of their own."""
    return [r for r in results if not r.arm.shares and r.folds and r.folds[0].outcomes]


def monitored(cohort: Cohort, fold: splits.Fold) -> str:
    """Returns whom the monitored rows belong to, for the titles of curves."""
    if np.isin(fold.monitor, fold.test).any():
        return "monitored: the scored volumes"
    for units, text in ((cohort.subject, "other subjects"), (cohort.run_index, "other runs")):
        if not np.isin(units[fold.monitor], units[fold.train]).any():
            return f"monitored: {text}"
    return "monitored: other volumes of these runs"


def seen(cohort: Cohort, result: ArmResult) -> list[dict[str, Any]]:
    """Returns what each step of the first fold has seen, one row per step.

    Beside the columns of `provenance.table` a row has the numbers of volumes whose values and
    labels were seen of the scored volumes, of the rest of their runs, and of other runs of their
    subjects.
    """
    if not result.folds or not result.folds[0].seen:
        return []
    scored, found = result.folds[0].seen[0]
    scored = splits.mask_of(scored, len(cohort.labels))
    runs = np.isin(cohort.run_index, cohort.run_index[scored]) & ~scored
    others = np.isin(cohort.subject, cohort.subject[scored]) & ~scored & ~runs
    parts = {"of_scored": scored, "of_scored_runs": runs, "of_other_runs": others}
    return [
        row
        | {
            name: {
                "values": int((found.steps[row["step"]].values & part).sum()),
                "labels": int((found.steps[row["step"]].labels & part).sum()),
            }
            for name, part in parts.items()
        }
        for row in provenance.table(found, cohort.subject)
    ]
