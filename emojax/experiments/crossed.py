"""Crossed validation: test rows have a new subject and a new level of a column of the design.

A decoder may recognise a cell of the design (an emotion after one kind of prime) by something other
than the label, such as the stimuli of this cell. Leaving a subject out leaves no cell out. Here
training rows share neither the subject nor the level with the test rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, Shaped

from emojax import splits, statistics
from emojax.data.cohort import Cohort
from emojax.errors import InputError
from emojax.experiments import held_out, permutation
from emojax.experiments.base import Experiment
from emojax.experiments.exchange import Exchange
from emojax.files import split_list
from emojax.records import Arm, FoldData
from emojax.scoring import linear
from emojax.splits import Fold

ALL = "all"
MOST = 99  # maximum number of label arrangements, each as expensive as one training run
KEY = 15  # for `jax.random.fold_in`; no other step of a run uses this number
LEFT_OUT = "left out"  # replaces the classifiers of a column that cannot be crossed


def check(config: Any, cohort: Cohort) -> None:
    """Rejects columns requested by name that cannot be crossed, before anything is fitted.

    Raises:
      InputError: no such column, or a column that leaves no rows to train on.
    """
    asked = split_list(config.crossed)
    if asked == (ALL,):
        return
    for name in asked:
        if name not in cohort.factors:
            there = ", ".join(columns(config, cohort)) or "none"
            expected = f"columns of the design ({there}), as --config.crossed=all or ''"
            raise InputError("crossed", repr(name), expected)
        try:
            folds_of(cohort, cohort.factors[name])
        except ValueError as error:
            expected = "a column whose levels all have every class, or --config.crossed="
            raise InputError(f"crossed={name}", str(error), expected) from None


def columns(config: Any, cohort: Cohort) -> list[str]:
    """Returns the columns of the design except the one that labels are made from."""
    label = getattr(config.data, "label_column", "")
    return [name for name in cohort.factors if name not in (label, "run")]


def folds_of(cohort: Cohort, level: Shaped[np.ndarray, " n"]) -> list[Fold]:
    """Returns one fold for each subject and level.

    Raises:
      ValueError: nothing can be crossed, or training rows lack a class.
    """
    if len(cohort.subjects) < 3:
        raise ValueError(f"{len(cohort.subjects)} subjects, but at least 3 are needed")
    if len(np.unique(level)) < 2:
        raise ValueError(f"one level, {level[0]}")
    if len(np.unique(level)) == len(level):
        raise ValueError("a different level in every row")
    folds = splits.crossed(cohort.subject, level)
    for fold in folds:
        missing = set(range(len(cohort.classes))) - set(cohort.labels[fold.train].tolist())
        if missing:
            name = cohort.classes[min(missing)]
            raise ValueError(f"no row of {name} to train on for {fold.name}: the cell is empty")
    return folds


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any] | None:
    """Scores linear classifiers on new subjects and new levels of each column of the design.

    They see the headline's features, made again for each fold, or every voxel if the headline's
    classical classifiers do. For the null, labels are exchanged within subject and level, in
    training and test rows alike; the features, which depend only on true labels of training rows,
    are kept.

    Args:
      experiment: see `base.Experiment`.
      config: config with `crossed`, `permutations` (at most 99 are drawn; 0: no null) and `seed`.
      view: the data that ledgers read.
      arm: the headline.
      made: folds of the headline; not used.
      tick: called with 1 for every fold.

    Returns:
      column -> classifier -> "mean" and "ci95" of balanced accuracy over subjects; "null" ("mean",
      "sd", "draws") and "p", or None without a null; "permuted", the exchange in words;
      "leaving_subjects_out", "mean" and "ci95" with known levels. A column that cannot be crossed
      has the reason under "left out". None without a column.

    Raises:
      InputError: as `check`.
    """
    cohort = getattr(view, "cohort", view)
    asked = split_list(config.crossed)
    check(config, cohort)
    names = columns(config, cohort) if asked == (ALL,) else list(asked)
    if not names or arm.factor is not None:
        return None
    found, known = {}, None
    source = held_out.HeldOut(experiment, config, view, arm)
    for name in names:
        try:
            folds = folds_of(cohort, cohort.factors[name])
            labels, scheme = _labels(config, view, arm, cohort.factors[name])
            scores = _scores(source, view.subject, folds, labels, tick)
        except (ValueError, InputError) as error:
            if asked != (ALL,):
                raise
            found[name] = {LEFT_OUT: str(error)}
            continue
        if known is None:
            folds = held_out.leaving_subjects_out(view)
            known = _scores(source, view.subject, folds, cohort.labels[None], tick)
        found[name] = {
            classifier: _summary(own, scheme) | {"leaving_subjects_out": mean(known[classifier][0])}
            for classifier, own in scores.items()
        }
    return found


def mean(values: Sequence[float]) -> dict[str, Any]:
    """Returns mean and 95 % interval over subjects."""
    interval = statistics.mean_interval(np.asarray(values, np.float64))
    limits = [max(float(interval.low), 0.0), min(float(interval.high), 1.0)]
    return {
        "mean": float(interval.estimate),
        "ci95": None if np.isnan(limits).any() else limits,
    }


def _labels(config, view, arm: Arm, level) -> tuple[Int[np.ndarray, "p n"], str]:
    """Returns the true labels followed by exchanged ones, and the exchange in words."""
    true = np.asarray(view.labels)
    count = min(permutation.asked(config), MOST)
    if not count:
        return true[None], ""
    found = _within(permutation.design(config, view, arm), level)
    key = jax.random.fold_in(jax.random.key(config.seed), KEY)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return np.stack([true, *(found.draw(rng) for _ in range(count))]), found.scheme


def _within(found: Exchange, level) -> Exchange:
    """Restricts the exchange to within levels, unless a level would have nothing to exchange."""
    first = np.unique(found.block, return_index=True)[1]
    pairs = np.stack([found.within, np.unique(level, return_inverse=True)[1][first]])
    within = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()
    if all(len(np.unique(found.label[within == number])) > 1 for number in np.unique(within)):
        return found._replace(within=within, scheme=f"{found.scheme}, and within levels")
    return found


def _scores(source: held_out.HeldOut, subject, folds, labels, tick) -> dict[str, np.ndarray]:
    """Returns classifier -> balanced accuracy [labellings, subjects]."""
    classes = int(labels.max()) + 1
    predicted = {name: np.zeros(labels.shape, int) for name in linear.CLASSIFIERS}
    for i, fold in enumerate(folds):
        train, (x, x_test) = source.inputs(fold, i)
        for name, fit in linear.CLASSIFIERS.items():
            scored = fit(x, labels[:, train], x_test, classes)
            predicted[name][:, fold.test] = scored.argmax(2)
        tick(1)
    return {
        name: held_out.by_subject(own == labels, labels, subject) for name, own in predicted.items()
    }


def _summary(scores: np.ndarray, scheme: str) -> dict[str, Any]:
    """Summarises the score of the first labelling, with the others as its null."""
    observed, null = scores[0].mean(), scores[1:].mean(1)
    out: dict[str, Any] = mean(scores[0]) | {"null": None, "p": None, "permuted": scheme}
    if len(null):
        sd = float(null.std(ddof=1)) if len(null) > 1 else 0.0
        out["null"] = {"mean": float(null.mean()), "sd": sd, "draws": len(null)}
        out["p"] = permutation.p_value(observed, null)
    return out
