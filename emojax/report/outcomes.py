"""Rows, probabilities and curves of an arm, in the form that tables, figures and files need."""

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
SAME = 1e-6  # probabilities that differ by less than this count as equal
NETWORK = "network"  # name of the classifier in rows of networks


class Predictions(NamedTuple):
    """The scored rows of a fold, and the probabilities that its networks assign to them."""

    rows: Int[np.ndarray, " t"]  # rows of the cohort; a row may occur several times
    networks: Sequence[Float[np.ndarray, "t classes"]]  # probabilities of each instance
    uncalibrated: Sequence[Float[np.ndarray, "t classes"] | None]  # before a temperature


def predictions(arm: Arm, fold: FoldResult) -> Predictions:
    """Returns the scored rows of a fold, and each network's probabilities for them.

    Raises:
      InputError: a network has diverged.
    """
    pick = np.arange(len(fold.fold.test))
    if arm.oversampled and "oversampled" in fold.notes:
        pick = np.asarray(fold.notes["oversampled"])
    networks = [np.asarray(outcome[arm.pick])[pick] for outcome in fold.outcomes]
    if not all(np.isfinite(values).all() for values in networks):
        place = f"{arm.name}, fold {fold.fold.name}"
        expected = "finite ones: try a lower train.lr or another penalty, in a new workdir"
        raise InputError(place, "a network that diverged to probabilities of NaN", expected)
    before = [outcome.get(f"uncalibrated_{arm.pick}") for outcome in fold.outcomes]
    before = [None if values is None else np.asarray(values)[pick] for values in before]
    return Predictions(np.asarray(fold.fold.test)[pick], networks, before)


def first_predictions(arm: Arm, fold: FoldResult) -> Predictions:
    """Returns the predictions of the networks, or of the arm's classifier if it has no network.

    The classifier is the arm's decoder, or else the first classical one.
    """
    found = predictions(arm, fold)
    if found.networks:
        return found
    first = fold.baselines[arm.decoder or next(iter(fold.baselines))]
    return Predictions(np.asarray(fold.fold.test), [np.asarray(first.probabilities)], [None])


def pooled(result: ArmResult) -> tuple[Int[np.ndarray, " t"], Float[np.ndarray, "t classes"]]:
    """Returns the rows and probabilities of all folds and instances of an arm.

    They are those of its network, or of the classifier that `first_predictions` takes.
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

    Args:
      cohort: the labelled volumes that rows refer to.
      arm: arm of the network.
      outcome: result of its training.

    Returns:
      The temperature. None for an arm that is declared leaky, whose monitored volumes may be the
      scored ones, and for a network without finite predictions of the monitored volumes.
    """
    found = outcome.get(f"monitored_{arm.pick}")
    if arm.leaks or found is None or not len(found) or not np.isfinite(found).all():
        return None
    labels = cohort.labels[outcome["monitored_rows"]]
    return scores.fit_temperature(labels, np.asarray(found))


def calibrated(result: ArmResult, fitted: Sequence[Sequence[float | None]]) -> ArmResult:
    """Returns an arm with temperatures applied to its networks' probabilities.

    The uncalibrated probabilities are kept in each outcome as "uncalibrated_best" (or "_last"),
    beside "temperatures". Outcomes that have these already are not changed.

    Args:
      result: the arm.
      fitted: temperature of each network, by fold. None leaves a network as it is, [] a whole
        fold.
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
    """Returns the gain of an arm's networks over the linear path on which they were built, if any.

    Arms of decoders, leaky arms and arms on noise have none.
    """
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
    """Returns the block of each row, see `splits.blocks`; -1 for volumes without a time."""
    timed = np.array([run.tr is not None or run.starts is not None for run in cohort.runs])
    return np.where(timed[cohort.run_index], splits.blocks(cohort), -1)


def learned_nothing(cohort: Cohort, result: ArmResult) -> str | None:
    """Returns how the output of an arm's networks is constant in every fold; None if it varies."""
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
    """Returns the group of each row; the arm's split keeps groups whole."""
    return np.asarray(splits.SPLITS[arm.split].groups(cohort))


def curves(result: ArmResult) -> dict[str, Float[np.ndarray, "lines epochs"]]:
    """Returns each curve of an arm, one line per fold and instance; {} without a network."""
    outcomes = [outcome for fold in result.folds for outcome in fold.outcomes]
    if not outcomes:
        return {}
    return {name: np.stack([np.asarray(o[name]) for o in outcomes]) for name in CURVES}


def trained(results: Sequence[ArmResult]) -> list[ArmResult]:
    """Returns the arms that have networks trained for them alone."""
    return [r for r in results if not r.arm.shares and r.folds and r.folds[0].outcomes]


def monitored(cohort: Cohort, fold: splits.Fold) -> str:
    """Returns which volumes are monitored, for the titles of curves."""
    if np.isin(fold.monitor, fold.test).any():
        return "monitored: the scored volumes"
    for units, text in ((cohort.subject, "other subjects"), (cohort.run_index, "other runs")):
        if not np.isin(units[fold.monitor], units[fold.train]).any():
            return f"monitored: {text}"
    return "monitored: other volumes of these runs"


def seen(cohort: Cohort, result: ArmResult) -> list[dict[str, Any]]:
    """Returns what each step of the first fold has seen, one row per step.

    In addition to the columns of `provenance.table`, a row counts the volumes whose values and
    labels were seen among the scored volumes ("of_scored"), the rest of their runs
    ("of_scored_runs") and the other runs of their subjects ("of_other_runs").
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
