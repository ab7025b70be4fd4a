"""Checks of whether the design of a study predicts the labels without any image.

Leaving subjects out does not help if all of them saw the same events at the same times, or if a
column of the design, such as the stimulus set, is correlated with the labels.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from emojax import splits
from emojax.data.acquisitions import canonical
from emojax.data.cohort import Cohort
from emojax.errors import InputError
from emojax.experiments import crossed, held_out
from emojax.experiments.base import Experiment
from emojax.records import Arm, FoldData
from emojax.scoring import baselines, linear, scores

MOST_FOLDS = 10  # for nuisance classifiers; with more subjects, several are left out together
LOGISTIC = "logistic"
SVM = "SVM-linear hard"


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any] | None:
    """Measures how well the design alone predicts the labels.

    Args:
      experiment: see `base.Experiment`.
      config: config with `design` (False turns this off) and `seed`.
      view: the data that ledgers read.
      arm: the headline.
      made: folds of the headline.
      tick: called with 1 for every part.

    Returns:
      "lookup": predicts the label of other subjects at the same position of the same run
      ("accuracy", "chance", "matched": fraction of rows with a counterpart); None if rows are not
      points in time. "nuisance": classifier of "columns" alone -> "mean" and "ci95"; None without
      such columns. "subject_and_run_out": logistic regression on other subjects' other runs
      ("mean", "ci95"), "subject_out" on the same features and "minus_subject_out"; None with one
      run. Then for each column of the design: "decodes_label" and "decoded_by_data", each a
      balanced accuracy over new subjects with its interval, "chance" of the column and "levels".
      None if turned off.
    """
    if not config.design or arm.factor is not None:
        return None
    cohort = getattr(view, "cohort", view)
    if len(cohort.subjects) < 2:
        return None
    out: dict[str, Any] = {"lookup": lookup(cohort)}
    tick(1)
    out["nuisance"] = nuisance(cohort, config.seed)
    tick(1)
    out["subject_and_run_out"] = subject_and_run_out(experiment, config, cohort, made)
    tick(1)
    source = held_out.HeldOut(experiment, config, view, arm)
    for name in crossed.columns(config, cohort):
        levels, code = np.unique(cohort.factors[name], return_inverse=True)
        if 1 < len(levels) < len(code):
            out[name] = _column(source, cohort, code, len(levels))
        tick(1)
    return out


def is_timed(cohort: Cohort) -> bool:
    """Returns whether rows are points in time; other rows may be sorted by their labels."""
    return all(run.tr is not None or run.starts is not None for run in cohort.runs)


def run_names(cohort: Cohort) -> Shaped[np.ndarray, " n"]:
    """Returns the run of each row, by a name that all subjects share."""
    return np.array([canonical(run.name) for run in cohort.runs])[cohort.run_index]


def lookup(cohort: Cohort) -> dict[str, Any] | None:
    """Looks up the label of each volume in other subjects, by run and position in the run.

    The most common label counts; in a tie, the first in order. Rows without a counterpart in other
    subjects are not scored.
    """
    if not is_timed(cohort):
        return None
    labels = cohort.labels.tolist()
    places = list(zip(run_names(cohort).tolist(), cohort.frame.tolist(), strict=True))
    votes: dict[tuple, Counter] = {}
    for place, label in zip(places, labels, strict=True):
        votes.setdefault(place, Counter())[label] += 1
    right, matched = 0, 0
    for place, label in zip(places, labels, strict=True):
        others = votes[place] - Counter([label])  # without the subject's own vote
        if others:
            matched += 1
            most = max(others.values())
            right += min(k for k, count in others.items() if count == most) == label
    if not matched:
        return None
    return {
        "accuracy": right / matched,
        "chance": float(np.bincount(cohort.labels).max() / len(labels)),
        "matched": matched / len(labels),
    }


def nuisance(cohort: Cohort, seed: int) -> dict[str, Any] | None:
    """Decodes the labels from run, time in the run and motion alone, leaving subjects out."""
    names = np.unique(run_names(cohort), return_inverse=True)[1]
    columns: dict[str, np.ndarray] = {}
    if is_timed(cohort):
        columns["time in the run"] = cohort.time[:, None]
    if names.max() > 0:
        columns["run"] = names[:, None]
    if all(run.motion is not None for run in cohort.runs):
        pairs = zip(cohort.run_index.tolist(), cohort.frame.tolist(), strict=True)
        columns["motion"] = np.array([cohort.runs[i].motion[frame] for i, frame in pairs])
    if not columns:
        return None
    x = np.column_stack(list(columns.values()))
    at = list(columns).index("run") if "run" in columns else None
    every: dict[str, Any] = {"max_features": None}  # try all columns at each split: there are few
    forest = RandomForestClassifier(
        100, class_weight="balanced", n_jobs=1, random_state=seed, **every
    )
    coded = [] if at is None else [("run", OneHotEncoder(handle_unknown="ignore"), [at])]
    scaled: dict[str, Any] = {"remainder": StandardScaler()}
    regression = make_pipeline(
        ColumnTransformer(coded, **scaled),
        LogisticRegression(C=1.0, class_weight="balanced", max_iter=500),
    )
    found = {
        "random forest": _leaving_subjects_out(forest, x, cohort),
        "logistic": _leaving_subjects_out(regression, x, cohort),
    }
    return found | {"columns": list(columns)}


def _leaving_subjects_out(model, x: Float[np.ndarray, "n q"], cohort: Cohort) -> dict[str, Any]:
    number = np.unique(cohort.subject, return_inverse=True)[1] % MOST_FOLDS
    predicted = np.zeros(len(x), int)
    for fold in np.unique(number):
        test = number == fold
        predicted[test] = model.fit(x[~test], cohort.labels[~test]).predict(x[test])
    return _mean(predicted, cohort.labels, cohort.subject)


def _mean(predicted, labels, subject) -> dict[str, Any]:
    right = (predicted == labels)[None]
    return crossed.mean(held_out.by_subject(right, labels[None], subject)[0])


def subject_and_run_out(
    experiment: Experiment, config: Any, cohort: Cohort, made: Sequence[FoldData]
) -> dict[str, Any] | None:
    """Trains logistic regression on other subjects' other runs, with the headline's features.

    Voxels, alignment and scaler are those of the fold; the classifier has seen neither the test
    subject nor the test run.
    """
    run, subject = run_names(cohort), cohort.subject
    if len(np.unique(run)) < 2:
        return None
    jobs, tested = [], []
    for data in made:
        if np.isin(subject[data.fold.train], subject[data.fold.test]).any():
            return None
        for fold in (data.fold, *splits.leave_run_out(data.fold, run)):
            rows = data.train[0]
            rows = rows[np.isin(rows, fold.train)]
            if len(np.unique(data.labels[rows])) < len(cohort.classes):
                return None
            own = replace(data, fold=fold, train=(rows,))
            found = list(experiment.baselines(config, own, (LOGISTIC,)))
            if not found:
                return None
            jobs.append(found[0])
            tested.append((fold.test, fold is data.fold))
    done = baselines.run(jobs)
    predicted = {True: np.full(len(run), -1), False: np.full(len(run), -1)}
    for (rows, whole), fitted in zip(tested, done, strict=True):
        predicted[whole][rows] = fitted.predicted
    here = predicted[True] >= 0
    values = {
        whole: held_out.by_subject(
            (own[here] == cohort.labels[here])[None], cohort.labels[here][None], subject[here]
        )[0]
        for whole, own in predicted.items()
    }
    difference = scores.paired_difference(values[False].tolist(), values[True].tolist())
    return crossed.mean(values[False]) | {
        "subject_out": crossed.mean(values[True]),
        "minus_subject_out": difference,
    }


def _column(source: held_out.HeldOut, cohort: Cohort, code, levels: int) -> dict[str, Any]:
    """Returns how well a column decodes the label, and how well the data decode the column."""
    guess = majority(code, cohort.labels, cohort.subject)
    label = _mean(guess, cohort.labels, cohort.subject)
    out: dict[str, Any] = {
        "decodes_label": label["mean"],
        "decodes_label_ci95": label["ci95"],
        "decoded_by_data": None,
        "decoded_by_data_ci95": None,
        "levels": levels,
        "chance": 1 / levels,
    }
    try:
        found = _decoded(source, cohort, code, levels)
    except InputError:  # too few rows for the features
        return out
    if found is not None:
        out |= {"decoded_by_data": found["mean"], "decoded_by_data_ci95": found["ci95"]}
    return out


def majority(
    level: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], subject: Shaped[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Guesses each row's label from its level, as counted in all other subjects.

    For balanced accuracy, the best guess is the label with the largest share of its rows in the
    level.
    """
    table = np.zeros((level.max() + 1, labels.max() + 1))
    np.add.at(table, (level, labels), 1)
    out = np.zeros(len(labels), int)
    for name in np.unique(subject):
        here = subject == name
        others = table.copy()
        np.add.at(others, (level[here], labels[here]), -1)
        share = others / np.maximum(others.sum(0), 1)
        out[here] = share.argmax(1)[level[here]]
    return out


def _decoded(source, cohort: Cohort, code, levels: int) -> dict[str, Any] | None:
    """Decodes the column with a linear SVM; returns None if it is constant within each subject."""
    subject = cohort.subject
    if all(len(np.unique(code[subject == name])) == 1 for name in cohort.subjects):
        return None
    predicted = np.full(len(code), -1)
    for i, fold in enumerate(held_out.leaving_subjects_out(cohort)):
        train, (x, x_test) = source.inputs(fold, i)
        found = linear.CLASSIFIERS[SVM](x, code[train][None], x_test, levels)
        predicted[fold.test] = found[0].argmax(1)
    return _mean(predicted, code, subject)
