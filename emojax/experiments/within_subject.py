"""Within-subject decoders: the alternative to a calibrated decoder, trained on the same runs.

If voxels or alignment of a test subject come from its own other runs, these runs could also train a
decoder of this subject. It gets the features of the headline: for each scored run, the subject's
voxels and map fitted without this run, and the scaler of the fold.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from emojax import metrics
from emojax.experiments import crossed
from emojax.experiments.base import Experiment
from emojax.features import across_subjects, common_space
from emojax.features.across_subjects import Features, Settings
from emojax.features.common_space import Team
from emojax.provenance import Ledger, classify
from emojax.records import Arm, FoldData
from emojax.scoring import baselines, scores
from emojax.scoring.baselines import Baseline, Job

CROSS_SUBJECT = "logistic"
CLASSIFIERS: dict[str, str | Baseline] = {
    "logistic": "logistic",
    "LDA-shrinkage": Baseline(
        lambda seed: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    ),
}
STEP = "within subject"


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any] | None:
    """Scores decoders of each test subject, run by run, trained on its other runs.

    Args:
      experiment: see `base.Experiment`.
      config: config with `within_subject` (False turns this off) and `seed`.
      view: the data that ledgers read.
      arm: the headline.
      made: folds of the headline.
      tick: called with 1 for every fold.

    Returns:
      classifier -> "mean" and "ci95" of balanced accuracy over folds, "folds", and
      "minus_cross_subject": its gain over logistic regression on the other subjects ("difference",
      "ci95", "p"). None if voxels and alignment see no other run of the test subject, or if such
      runs lack a class.

    Raises:
      LeakageError: a decoder saw labels of the run that it is scored on.
    """
    if not config.within_subject or config.get("units") == "run":  # the headline already does this
        return None
    if not all(map(_uses_own_runs, made)):
        return None
    jobs: dict[str, list[list[Job]]] = {name: [] for name in CLASSIFIERS}
    truth, cross = [], []
    for data in made:
        parts = list(_runs(view, arm, data))
        if any(len(np.unique(y)) < len(np.unique(view.labels)) for _, _, y, _ in parts):
            return None
        for name, own in CLASSIFIERS.items():
            jobs[name].append([_job(own, config, view, *part) for part in parts])
        truth.append(np.concatenate([view.labels[rows] for rows, *_ in parts]))
        cross.append(_cross_subject(experiment, config, view, data))
        tick(1)
    out = {}
    for name, folds in jobs.items():
        found = []
        for y, own in zip(truth, folds, strict=True):
            predicted = [baselines.fit_predict(job).predicted for job in own]
            found.append(_balanced(view, y, np.concatenate(predicted)))
        out[name] = crossed.mean(found) | {"folds": found}
        gain = None if None in cross else scores.paired_difference(found, cross)
        out[name]["minus_cross_subject"] = gain
    return out


def _uses_own_runs(data: FoldData) -> bool:
    """Returns whether voxels or alignment of the test subject come from its own other runs.

    The provenance record decides: each run is then scored separately, and no step has seen it.
    """
    made, subject = data.notes.get("made"), data.ledger.design("subject")
    if not isinstance(made, Features):
        return False
    own = np.isin(subject, subject[data.fold.test])
    for rows, record in data.ledger.seen(data.fold.test, prior=False):
        steps = [record.steps[step] for step in ("voxels", "alignment") if step in record.steps]
        saw = np.any([step.values | step.labels for step in steps], axis=0)
        if not (saw & own).any() or (saw[rows]).any():
            return False
    return True


def _runs(
    view: Any, arm: Arm, data: FoldData
) -> Iterator[tuple[Int[np.ndarray, " k"], np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (rows, training features, training labels, features) of each test run."""
    made, settings = data.notes["made"], data.notes["settings"]
    ledger = Ledger(view)
    team = common_space.team_of(ledger, data.fold)
    rows = team.rows[team.test]
    for run in np.unique(team.run[rows]):
        here, others = rows[team.run[rows] == run], rows[team.run[rows] != run]
        part = ledger.scoring(here)
        columns, place = _placed(part, team, run, others, made, settings)
        train = place(part.values(STEP, others, columns))
        yield here, train, part.labels(STEP, others), place(part.scored(here, columns))
    classify(
        ledger.seen(rows, prior=False),
        subject=ledger.design("subject"),
        unit=ledger.design("run_index"),
        claimed="calibrated",
        name=STEP,
    )


def _placed(
    part: Ledger, team: Team, run: int, others: np.ndarray, made: Features, settings: Settings
) -> tuple[Int[np.ndarray, " m"], Callable[[np.ndarray], Float[np.ndarray, "k m"]]]:
    """Returns the columns of a run, and the function from the subject's rows to its features.

    Voxels and map are fitted again like the headline's, to the same rows.
    """
    columns = made.columns
    if columns is None:
        choose = across_subjects.chooser(part, team, (team.test,), settings, None)
        columns = choose(part, team.test, run)
    mapping = None
    if made.space is not None:
        mapping = common_space.own_map(part, team, others, columns, made.space, settings)
    elif across_subjects.centres(part, settings):
        mapping = part.values("centring", others, columns).mean(0)
    mean, sd = made.scaler

    def place(x):
        return ((common_space.transform(mapping, x) - mean) / sd).astype(np.float32)

    return columns, place


def _job(name: str | Baseline, config, view, rows, train, labels, test) -> Job:
    return baselines.make_job(name, config.seed, train, labels, test, int(view.labels.max()) + 1)


def _cross_subject(experiment: Experiment, config, view, data: FoldData) -> float | None:
    """Returns the balanced accuracy of logistic regression on the other subjects."""
    jobs = list(experiment.baselines(config, data, (CROSS_SUBJECT,)))
    if not jobs:
        return None
    predicted = baselines.fit_predict(jobs[0]).predicted
    return _balanced(view, view.labels[data.fold.test], predicted)


def _balanced(view, labels, predicted) -> float:
    classes = int(view.labels.max()) + 1
    return float(metrics.balanced_accuracy(labels, predicted.astype(np.int32), classes))
