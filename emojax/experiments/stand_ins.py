"""Small fits that replace the real ones in the audit, on the same code path."""

import copy
import dataclasses
import hashlib
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import softmax

from emojax.experiments import fits, programs
from emojax.experiments.base import Experiment
from emojax.experiments.fits import Plan
from emojax.provenance import LeakageError
from emojax.records import Arm, FoldData
from emojax.scoring import baselines

EPOCHS = 2
FEW = 20  # rows of each class for a trial fit of a classifier
ROUNDING = 1e-3  # tolerance of a probability


class _Probe:
    """A nearest-mean classifier that records its training data and the rows it predicts.

    Each of its parameters depends on every training row of a class.
    """

    def __init__(self):
        self.learned: list[np.ndarray] = []  # digests of each fit
        self.asked = np.zeros(0, np.uint32)  # digests of each predicted row

    def __deepcopy__(self, memo):
        return self  # the caller reads its records afterwards

    def fit(self, x, y, groups=()):
        """Computes the class means."""
        self.learned.append(_digest(x, y, groups))
        self.classes_ = np.unique(y)
        self._means = [x[y == k].mean(0, dtype=np.float64) for k in self.classes_]

    def predict_proba(self, x):
        """Returns a softmax of negative mean squared distances, [n, classes]."""
        rows = [zlib.crc32(np.ascontiguousarray(row).data) for row in x]
        self.asked = np.array(rows, np.uint32)
        distances = [[((row - mean) ** 2).mean() for mean in self._means] for row in x]
        return softmax(-np.array(distances), axis=1)

    def predict(self, x):
        """Returns the nearest class of each row."""
        return self.classes_[self.predict_proba(x).argmax(1)]


class _Fitted:
    """An estimator that is already fitted; `fit` changes nothing."""

    def __init__(self, estimator):
        self._estimator = estimator

    def __deepcopy__(self, memo):
        return self

    def __getattr__(self, name):
        return getattr(self._estimator, name)

    def fit(self, x, y, **groups):
        """Changes nothing."""


def stand_in(
    experiment: Experiment, config: Any, arm: Arm, plan: Plan | None, num_classes: int
) -> Callable[[FoldData], dict[str, Any]]:
    """Returns a function that makes small fits on the code path of the real ones.

    `fit_networks` trains a single dense layer, and `fit_classifiers` fits nearest class means to
    the inputs of every classical classifier.

    Returns:
      FoldData -> "network": weights, curves and epoch; "baselines": digests of all training data;
      "scored": inputs and predictions of every test row, [t, ...] each. It raises LeakageError if a
      prediction of a classical classifier depends on other rows.
    """
    small = plan and dataclasses.replace(
        plan,
        program=programs.stand_in(plan.program, num_classes),
        epochs=EPOCHS,
        every=EPOCHS,
        strategy="loop",
        side_by_side=False,
    )
    checked: set[str] = set()

    def networks(data: FoldData) -> dict[str, Any]:
        assert small is not None  # `every` has checked it
        members = fits.members_of(arm, 0, data)
        weights, scored, rest = [], {}, []
        found = fits.fit_networks(
            small,
            arm,
            [
                (name, dataclasses.replace(own, train=own.train[:1], keys=own.keys[:1]))
                for name, own in members
            ],
            store=fits.NoStore(),
            log=lambda *epoch: None,
            keep=lambda number, instance, best: weights.append(best.params),
        )
        for name, _ in members:
            outcome = dict(found[name][0])
            scored |= {f"network {name} {part}": outcome.pop(part) for part in ("best", "last")}
            rest.append(outcome)
        return {"network": {"weights": weights, "rest": rest}, "scored": scored}

    def classifiers(data: FoldData) -> dict[str, Any]:
        probes: dict[str, _Probe] = {}

        def probed(config, data, names):
            for job in experiment.baselines(config, data, names):
                if job.name not in checked:
                    checked.add(job.name)
                    _check_row_by_row(arm, job)
                probes[job.name] = _Probe()
                yield job._replace(estimator=probes[job.name])

        instead = dataclasses.replace(experiment, baselines=probed)
        found = fits.fit_classifiers(instead, config, [(arm, 0, data)], workers=1)
        scored: dict[str, np.ndarray] = {}
        for name, fitted in found.get((arm.name, 0), {}).items():
            scored[name] = fitted.probabilities
            scored[f"{name} inputs"] = probes[name].asked
        learned = {name: probe.learned for name, probe in probes.items()}
        return {"baselines": learned, "scored": scored}

    def every(data: FoldData) -> dict[str, Any]:
        trained = small is not None and not arm.decoder
        out: dict[str, Any] = {"scored": {}}
        for part in [networks] * trained + [classifiers] * bool(arm.baselines):
            found = part(data)
            out |= found | {"scored": out["scored"] | found["scored"]}
        return out

    return every


def _check_row_by_row(arm: Arm, job: baselines.Job) -> None:
    """Fits the real classifier to a few rows and rejects predictions that depend on other rows.

    Raises:
      LeakageError: names the classifier.
    """
    groups = np.zeros(len(job.train_y)) if job.groups is None else job.groups
    cells = [
        (job.train_y == k) & (groups == j) for k in range(job.num_classes) for j in set(groups)
    ]
    rows = np.sort(np.concatenate([np.flatnonzero(cell)[:FEW] for cell in cells]))
    job = job._replace(train_x=job.train_x[rows], train_y=job.train_y[rows])
    own = {} if job.groups is None else {"groups": job.groups[rows]}
    model = copy.deepcopy(job.estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(job.train_x, job.train_y, **own)
    count = -(-len(job.test_x) // 4)
    job = job._replace(estimator=_Fitted(model))
    whole = baselines.fit_predict(job).probabilities[:count]
    part = baselines.fit_predict(job._replace(test_x=job.test_x[:count])).probabilities
    other = np.abs(whole - part).max(1) > ROUNDING
    if other.mean() > 0.1:  # rounding may decide a tie, but not most of them
        raise LeakageError(
            f"{arm.name}: step 'scoring' depends on what it is scored on: other volumes were left "
            f"out, and {other.sum()} of {count} predictions of {job.name!r} moved"
        )


def _digest(*arrays) -> np.ndarray:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return np.frombuffer(found.digest(), np.uint8)
