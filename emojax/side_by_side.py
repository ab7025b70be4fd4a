"""Decoders of rows of voxels side by side: the same folds, one table, predictions on disk."""

import pathlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from sklearn.base import clone
from sklearn.model_selection import LeaveOneGroupOut, check_cv

from emojax import files
from emojax.errors import InputError
from emojax.nearest import hint
from emojax.provenance import LeakageError
from emojax.scoring import bag, baselines, scores
from emojax.scoring.baselines import Baseline, Fitted, Job
from emojax.sklearn import AnovaSelector, CNN1DClassifier, contents

CNN1D = "CNN1D"
DECODERS = (
    *("logistic", "LDA", "LDA-shrinkage", "SVM-linear", "SVM-RBF", "1-NN", "RF", "XGB", "MLP"),
    *(baselines.BAG, CNN1D),
)
MEMBERS = 10  # of the bag, at most
FEWEST = 55  # voxels of the CNN
Decoders = Sequence[str] | Mapping[str, Any]


class Fold(NamedTuple):
    """Rows of one fold, and its number from 1."""

    number: int
    train: Int[np.ndarray, " n"]
    test: Int[np.ndarray, " t"]


class GroupBag:
    """The bag of `scoring.bag` on features that all members share."""

    def fit(
        self, x: Float[np.ndarray, "n m"], y: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
    ) -> "GroupBag":
        """Fits a member for each of the first groups, which it monitors instead of training."""
        self.members_ = min(MEMBERS, groups.max() + 1)
        monitor = np.where(groups < self.members_, groups, -1)
        self.bag_ = bag.Bag().fit(self._each(x), y, monitor)
        return self

    def predict_proba(self, x: Float[np.ndarray, "t m"]) -> Float[np.ndarray, "t classes"]:
        """Returns the mean of the members' probabilities."""
        return self.bag_.predict_proba(self._each(x))

    def _each(self, x):
        return np.broadcast_to(x[:, None], (len(x), self.members_, x.shape[1]))


def bench(
    X: Float[np.ndarray, "n v"],
    y: Shaped[np.ndarray, " n"],
    groups: Shaped[np.ndarray, " n"],
    *,
    decoders: Decoders | None = None,
    splitter: Any = None,
    workdir: str | pathlib.Path | None = None,
    keep: int | None = None,
    seed: int = 0,
    workers: int | None = 1,
) -> pd.DataFrame:
    """Fits decoders to the same folds, and compares them.

    In each fold, voxels are chosen (`keep`) and standardised by training rows; those that need
    values as scanned get these.

    Args:
      X: rows of voxels.
      y: class of each row; numbers or strings.
      groups: what must stay whole: run, subject or acquisition of each row.
      decoders: names of `DECODERS` or `scoring.baselines.BASELINES`, "package.module:function"; or
        name -> one of these, or an estimator of scikit-learn. The first is what the others are
        compared with. None: all that apply.
      splitter: a splitter of scikit-learn, or (train, test) pairs, numbers of rows or masks. None:
        leaves one group out.
      workdir: folder for bench.csv and predictions.csv, a line for each decoder and scored row.
      keep: number of voxels that `AnovaSelector` keeps; None: all.
      seed: seed of the decoders.
      workers: number of processes; with 1, seconds can be compared. None: one per core.

    Returns:
      One line for each decoder: number of folds, mean balanced accuracy, its sd and 95 % interval
      over folds (Student's t), difference to the first one and p of it (flips of signs over folds),
      seconds of all fits and predictions. `attrs["notes"]` says what was left out, and why.

    Raises:
      LeakageError: a group with rows on both sides of a fold.
      InputError: rows that do not fit together, missing values, unusable folds, an unknown decoder,
        or an option out of range.
    """
    _check_options(keep, seed, workers)
    X, labels, classes, groups = _check(X, y, groups)
    folds = _folds(splitter, X, labels, groups)
    notes = _look_at(folds, X, groups)
    alone = _check_classes(folds, labels, classes, groups)
    made = _choose(decoders, X, alone, notes)
    jobs = [(name, fold) for name in made for fold in folds]
    features = _Features(X, labels, groups, keep, seed)
    work = (features.job(name, made[name], fold, len(classes)) for name, fold in jobs)
    found = baselines.processes.run(_timed, work, workers=workers)
    each = {name: [] for name in made}
    for (name, fold), (fitted, seconds) in zip(jobs, found, strict=True):
        each[name].append((fold, fitted, seconds))
    table = _table(each, labels)
    table.attrs = {"chance": 1 / len(classes), "notes": tuple(notes)}
    if workdir is not None:
        _write(pathlib.Path(workdir), table, _predictions(each, labels, classes, groups))
    return table


def _check_options(keep, seed, workers) -> None:
    for name, value, least in (("keep", keep, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value is None and name != "seed":
            continue
        is_whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not is_whole or not least <= value < 2**32:  # the end of scikit-learn's seeds
            raise InputError(f"bench: {name}", repr(value), f"a whole number in [{least}, 2**32)")


def _check(X, y, groups):
    """Returns rows as float32, labels as numbers, the classes, and groups."""
    found = contents.numbers(X)
    if found is None or np.ndim(X) != 2:
        raise InputError("bench: X", f"shape {np.shape(X)}", "rows of numbers [n, v]")
    if not found.size:
        raise InputError("bench: X", f"shape {found.shape}", "rows, and columns")
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).any(1).sum())
        raise InputError("bench: X", f"NaN or infinite values in {bad} rows", "finite values")
    with np.errstate(over="ignore"):
        X = found.astype(np.float32)
    if not np.isfinite(X).all():
        bad = int((~np.isfinite(X)).any(1).sum())
        said = f"values beyond float32 in {bad} rows"
        raise InputError("bench: X", said, "values below 3.4e38, in larger units")
    y, groups = np.asarray(y), np.asarray(groups)
    for name, values in (("y", y), ("groups", groups)):
        if values.shape != (len(found),):
            raise InputError(f"bench: {name}", f"shape {values.shape}", f"{len(found)} values")
        missing = np.flatnonzero(pd.isna(values))
        if len(missing):
            said = f"{len(missing)} missing values (first: row {missing[0]})"
            raise InputError(f"bench: {name}", said, "a value for every row")
    y, groups = (a.astype(str) if a.dtype == object else a for a in (y, groups))
    if y.dtype.kind == "f" and (y % 1).any():
        raise InputError("bench: y", f"the number {y[(y % 1) != 0][0]:g}", "classes")
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError("bench: y", f"one class, {classes.tolist()[0]!r}", "two or more")
    return X, labels.astype(np.int32), classes, groups


def _folds(splitter, X, labels, groups) -> list[Fold]:
    splitter = LeaveOneGroupOut() if splitter is None else splitter
    try:
        cv = check_cv(splitter, labels, classifier=True)
        pairs = [(train, test) for train, test in cv.split(X, labels, groups)]
    except (ValueError, TypeError) as error:
        raise InputError("bench: splitter", error, "folds of these groups") from None
    if not pairs:
        raise InputError("bench: splitter", "no folds", "one or more")
    n = len(labels)
    return [
        Fold(i, _places(train, n, i, "train"), _places(test, n, i, "score"))
        for i, (train, test) in enumerate(pairs, 1)
    ]


def _places(rows: Any, count: int, number: int, what: str) -> Int[np.ndarray, " k"]:
    """Returns the rows of one side of a fold as numbers; a mask is one way to say them."""
    rows, where = np.asarray(rows), f"bench: fold {number}"
    if rows.dtype == bool and rows.shape == (count,):
        rows = np.flatnonzero(rows)
    if not rows.size:
        raise InputError(where, f"no rows to {what}", "one or more")
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        found = f"{rows.dtype} of shape {rows.shape}"
        raise InputError(where, found, f"numbers of rows, or a mask [{count}]")
    if rows.min() < 0 or rows.max() >= count:
        found = f"the row {rows.min() if rows.min() < 0 else rows.max()}"
        raise InputError(where, found, f"rows from 0 to {count - 1}")
    return rows


def _look_at(folds: Sequence[Fold], X, groups) -> list[str]:
    """Refuses groups that straddle, and returns sentences on equal rows."""
    digests, said = np.array([d.hex() for d in contents.digests(X)]), []
    for number, train, test in folds:
        both = np.intersect1d(groups[train], groups[test])
        if len(both):
            raise LeakageError(
                f"bench: fold {number} has rows of group {both[0]} on both sides"
                + (f" (and of {len(both) - 1} other groups)" if len(both) > 1 else "")
                + "; want a splitter that keeps groups whole, such as GroupKFold"
            )
        equal = int(np.isin(digests[test], digests[train]).sum())
        if equal:
            said.append(f"fold {number}: {equal} scored rows equal a training row")
    within = len(digests) - len(np.unique(digests))
    if within:
        said.insert(0, f"{within} of {len(digests)} rows are copies of another row")
        warnings.warn("bench: " + "; ".join(said), UserWarning, stacklevel=3)
    return said


def _check_classes(folds: Sequence[Fold], labels, classes, groups) -> str:
    """Refuses folds that train without a class; returns why nobody could monitor, or ""."""
    alone = ""
    for number, train, _ in folds:
        for k, name in enumerate(classes.tolist()):
            found = len(np.unique(groups[train[labels[train] == k]]))
            if not found:
                said = f"no training row of class {name!r}"
                raise InputError(f"bench: fold {number}", said, "rows of every class")
            if found == 1:
                alone = f"only one training group of fold {number} has class {name!r}"
    return alone


def _choose(decoders: Decoders | None, X, alone: str, notes: list[str]) -> dict[str, Any]:
    """Returns name -> name, estimator or function of a seed, and notes what does not apply."""
    wanted = DECODERS if decoders is None else decoders
    if isinstance(wanted, str):
        wanted = (wanted,)
    if not isinstance(wanted, Mapping):
        wanted = {name: name for name in wanted}
    made = {}
    for name, decoder in wanted.items():
        if why := _obstacle(decoder, X, alone):
            if decoders is not None:
                raise InputError(f"bench: decoder {name!r}", why, "one that applies")
            notes.append(f"{name} was left out: {why}")
            continue
        made[name] = decoder
    if not made:
        raise InputError("bench: decoders", "none", "one or more")
    return made


def _obstacle(decoder: Any, X, alone: str) -> str:
    """Returns why a decoder does not apply, or ""."""
    if isinstance(decoder, str) and decoder == CNN1D:
        return f"it needs {FEWEST} voxels; X has {X.shape[1]}" if X.shape[1] < FEWEST else ""
    if isinstance(decoder, str) and decoder not in baselines.BASELINES and ":" not in decoder:
        known = *baselines.BASELINES, CNN1D
        expected = f"one of {', '.join(known)}, or 'package.module:name'"
        raise InputError("bench: decoders", f"{decoder!r}{hint(decoder, known)}", expected)
    if isinstance(decoder, str | Baseline):
        needs = baselines.find(decoder).needs
        if needs == "nuisance":
            return "it needs motion and time, not rows"
        if needs == "members" and alone:
            return alone
        if not baselines.available(decoder):
            return f"the package {baselines.find(decoder).package} is not installed"
    return ""


class _Features:
    """The rows of each fold as decoders get them; those of the fold at hand are kept."""

    def __init__(self, X, labels, groups, keep: int | None, seed: int):
        self.X, self.labels, self.groups, self.keep, self.seed = X, labels, groups, keep, seed
        self._at: tuple[int, Any] = (0, None)

    def job(self, name: str, decoder: Any, fold: Fold, classes: int) -> Job:
        """Returns the work of one decoder on one fold."""
        needs, estimator = self._estimator(decoder)
        raw, scaled = self._of(fold)
        train, test = raw if needs == "raw" else scaled
        groups = np.unique(self.groups[fold.train], return_inverse=True)[1]
        if needs != "groups" or groups.max() == 0:
            groups = None
        y = self.labels[fold.train]
        return Job(name, estimator, train, y, test, classes, groups)

    def _estimator(self, decoder: Any) -> tuple[str, Any]:
        """Returns the needs of a decoder, and a fresh estimator."""
        if hasattr(decoder, "fit"):
            return "raw", clone(decoder)
        if decoder == CNN1D:
            return "groups", CNN1DClassifier(random_state=self.seed, balanced=True)
        found = baselines.find(decoder)
        if found.needs == "members":
            return "groups", GroupBag()
        return found.needs, found.make(self.seed)

    def _of(self, fold: Fold):
        if self._at[0] != fold.number:
            raw = self.X[fold.train], self.X[fold.test]
            if self.keep is not None:
                chosen = AnovaSelector(self.keep).fit(raw[0], self.labels[fold.train])
                raw = tuple(np.ascontiguousarray(x[:, chosen.get_support()]) for x in raw)
            mean, sd = (f(raw[0], axis=0, dtype=np.float64) for f in (np.mean, np.std))
            sd = np.where(sd > 1e-6 * np.abs(mean), sd, np.inf)
            scaled = tuple(((x - mean) / sd).astype(np.float32) for x in raw)
            self._at = fold.number, (raw, scaled)
        return self._at[1]


def _timed(job: Job) -> tuple[Fitted, float]:
    """Returns the predictions of a job, and its seconds."""
    start = time.perf_counter()
    fitted = baselines.fit_predict(job)
    return fitted, time.perf_counter() - start


def _table(each: Mapping[str, list], labels) -> pd.DataFrame:
    rows, first = [], None
    for name, done in each.items():
        found = [
            scores.scores(labels[fold.test], fitted.probabilities)["balanced_accuracy"]
            for fold, fitted, _ in done
        ]
        first = found if first is None else first
        own = scores.summary([{"balanced_accuracy": x} for x in found])["balanced_accuracy"]
        low, high = own["ci95"] or (np.nan, np.nan)
        versus = {"difference": np.nan, "p": None}
        if found is not first:
            versus = scores.paired_difference(found, first)
        rows.append(
            {
                "decoder": name,
                "folds": len(found),
                "balanced_accuracy": own["mean"],
                "sd": own["sd"],
                "low": low,
                "high": high,
                "minus_first": versus["difference"],
                "p": np.nan if versus["p"] is None else versus["p"],
                "seconds": sum(seconds for *_, seconds in done),
            }
        )
    return pd.DataFrame(rows).set_index("decoder")


def _predictions(each: Mapping[str, list], labels, classes, groups) -> pd.DataFrame:
    """Returns a line for each decoder and scored row."""

    def parts() -> Iterator[pd.DataFrame]:
        for name, done in each.items():
            for fold, fitted, _ in done:
                own = {
                    "decoder": name,
                    "fold": fold.number,
                    "row": fold.test,
                    "group": groups[fold.test],
                    "label": classes[labels[fold.test]],
                    "predicted": classes[fitted.predicted],
                }
                p = {f"p_{k}": fitted.probabilities[:, i] for i, k in enumerate(classes)}
                yield pd.DataFrame(own | p)

    return pd.concat(parts(), ignore_index=True)


def _write(folder: pathlib.Path, table: pd.DataFrame, predictions: pd.DataFrame) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in (("predictions.csv", predictions), ("bench.csv", table.reset_index())):
            with files.atomic_write(folder / name) as partial:
                frame.to_csv(partial, index=False, float_format="%.6g")
    except OSError as error:
        raise InputError(f"bench: workdir {folder}", files.cause(error), "a folder") from None
