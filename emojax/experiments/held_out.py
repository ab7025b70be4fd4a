"""Inputs for folds that the headline does not have, as its classical classifiers see them."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from emojax.errors import InputError
from emojax.experiments.base import Experiment
from emojax.features import across_subjects, kernels
from emojax.provenance import Ledger, classify
from emojax.records import Arm
from emojax.scoring import linear
from emojax.splits import Fold
from emojax.training import cost

MOST_KEPT = 2**29  # bytes of cached coordinates
LINEAR = "linear"  # decoder of an arm whose features no network reads
Pair = tuple[Float[np.ndarray, "n r"], Float[np.ndarray, "t r"]]


class _Some:
    """A selection of rows of an array that is read by rows."""

    def __init__(self, values: Any, rows: Int[np.ndarray, " k"]):
        self._values, self._rows = values, rows
        self.ndim = getattr(values, "ndim", 2)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows) -> np.ndarray:
        return self._values[self._rows[rows]]


def part(view: Any, rows: Int[np.ndarray, " k"]) -> Any:
    """Returns a cohort, or a view that holds one, restricted to some rows."""
    if not hasattr(view, "cohort"):
        return view.select(rows)
    vectors = {name: getattr(view, name)[rows] for name in ("units", "run", "nuisance")}
    present = np.unique(vectors["units"])
    changes = {
        "cohort": view.cohort.select(rows),
        "volumes": _Some(view.volumes, rows),
        "inside": {name: mask for name, mask in view.inside.items() if name in present},
    }
    return dataclasses.replace(view, **vectors, **changes)


class HeldOut:
    """Inputs of linear classifiers for folds that the headline does not have.

    If the headline's classical classifiers see every voxel, no label is read and nothing is fitted
    except one common scale: voxels are not standardised. Inner products are computed once for each
    test subject, inside the common mask of the others, and folds take their rows from them.
    Otherwise the headline's features are made again, in a study restricted to the rows of one fold.
    If the headline is a network, the subject after the test subject is held back from training, as
    it is there.
    """

    def __init__(self, experiment: Experiment, config: Any, view: Any, arm: Arm):
        """Takes experiment and config, the data that ledgers read, and the headline."""
        self._experiment, self._config, self._view = experiment, config, view
        self._holds_back = not arm.decoder
        own: dict[str, Any] = {"baselines": (), "instances": 1, "members": False}
        self._arm = dataclasses.replace(arm, **own, decoder=arm.decoder or LINEAR)
        self._kept: dict[str, Pair] = {}
        self._every = getattr(getattr(config, "voxels", None), "classical", "") == "all"

    def inputs(self, fold: Fold, number: int) -> tuple[Int[np.ndarray, " n"], Pair]:
        """Returns the training rows, and training and test data in principal coordinates.

        Args:
          fold: training rows of other subjects, and test rows of one subject.
          number: number of the fold, for its random keys.

        Raises:
          LeakageError: the features saw more of the test rows than the arm claims.
          InputError: too few rows for the features.
        """
        if not self._every:
            return self._headline(fold, number)
        subject = self._view.subject
        name = str(subject[fold.test[0]])
        if name not in self._kept:
            if sum(x.nbytes for pair in self._kept.values() for x in pair) > MOST_KEPT:
                self._kept.clear()
            test = subject == name
            whole = Fold(name, *map(np.flatnonzero, (~test, test & False, test)))
            self._kept[name] = _every_voxel(self._config, self._view, self._arm, whole)
        x, x_test = self._kept[name]
        at, at_test = (np.cumsum(own) - 1 for own in (subject != name, subject == name))
        return fold.train, linear.coordinates(x[at[fold.train]], x_test[at_test[fold.test]])

    def _headline(self, fold: Fold, number: int):
        whole = np.sort(np.concatenate([fold.train, fold.test]))
        own = part(self._view, whole)
        if len(np.unique(getattr(self._view, "units", self._view.subject)[fold.test])) > 1:
            expected = "'subject', because test subjects must be new"
            raise InputError("units", repr(self._config.units), expected)
        train, test = np.searchsorted(whole, fold.train), np.searchsorted(whole, fold.test)
        monitored = own.subject[train] == _next(own.subject, train, test)
        monitored &= self._holds_back
        fold = Fold(fold.name, train[~monitored], train[monitored], test)
        ledger = Ledger(own)

        data = self._experiment.features(self._config, ledger, fold, self._arm, number)
        _check(ledger, fold, self._arm)
        pair = (data.read(fold.train), data.read_test(test))
        return whole[fold.train], linear.coordinates(*(x.reshape(len(x), -1) for x in pair))


def _every_voxel(config, view, arm: Arm, fold: Fold) -> Pair:
    """Returns all voxels of training and test rows, as coordinates if rows are fewer."""
    ledger, settings = Ledger(view), arm.settings.settings
    units, run = ledger.design("units"), ledger.design("run")
    names = dict.fromkeys(units[fold.train].tolist())
    mask = np.all([ledger.mask("mask", name) for name in names], axis=0)
    size = 2 * ledger.cohort_size * int(mask.sum()) * 4
    cost.require_memory(size, "crossed and design (or --config.crossed= --config.design=False)")
    x = ledger.values("baselines", fold.train)[:, mask]
    x_test = ledger.scored(fold.test)[:, mask]
    if across_subjects.centres(ledger, settings):
        for name in names:
            x[units[fold.train] == name] -= x[units[fold.train] == name].mean(0)
        for number in np.unique(run[fold.test]):
            here = run[fold.test] == number
            part = ledger.scoring(fold.test[here])
            x_test[here] -= part.values("centring", fold.test[~here])[:, mask].mean(0)
    _check(ledger, fold, arm)
    mean = x.mean(0)
    x, x_test = x - mean, x_test - mean
    if len(x) < x.shape[1]:
        norms = np.einsum("ij,ij->i", x_test, x_test, dtype=np.float64)
        gram, cross = kernels.products(x, x), kernels.products(x_test, x)
        return kernels.isometry(gram, cross, norms, config.voxels.keep)
    unit = np.sqrt(config.voxels.keep / max((x**2).sum(1).mean(), 1e-30))
    return unit * x, unit * x_test


def _check(ledger: Ledger, fold: Fold, arm: Arm) -> None:
    """Rejects features that saw more than the headline claims."""
    seen = ledger.seen(fold.test, prior=False)
    classify(seen, subject=ledger.design("subject"), claimed=arm.protocol, name=fold.name)


def _next(subject, train, test) -> str:
    """Returns the training subject that follows the test subject in sorted order."""
    names, own = np.unique(subject[train]).tolist(), str(subject[test[0]])
    return next((name for name in names if name > own), names[0])


def leaving_subjects_out(view: Any) -> list[Fold]:
    """Returns one fold for each subject, with all others as training subjects."""
    subject = np.asarray(view.subject)
    none = np.zeros(0, int)
    return [
        Fold(name, np.flatnonzero(subject != name), none, np.flatnonzero(subject == name))
        for name in np.unique(subject).tolist()
    ]


def by_subject(
    right: Float[np.ndarray, "p n"], labels: Int[np.ndarray, "p n"], subject: Any
) -> Float[np.ndarray, "p s"]:
    """Returns the balanced accuracy of each subject, over the classes that it has.

    Args:
      right: [p, n] whether each row was classified correctly, for p labellings.
      labels: [p, n] classes.
      subject: [n] name of each row's subject.
    """
    subject = np.asarray(subject)
    out = []
    for name in np.unique(subject):
        here = subject == name
        own, hits = labels[:, here], right[:, here].astype(float)
        true = own[:, None] == np.arange(labels.max() + 1)[:, None]  # [p, classes, k]
        count = true.sum(2)
        share = (true * hits[:, None]).sum(2) / np.maximum(count, 1)
        out.append(share.sum(1) / (count > 0).sum(1))
    return np.stack(out, 1)
