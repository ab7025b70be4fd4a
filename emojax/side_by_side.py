"""Side-by-side comparison of decoders on the same folds: one table, and predictions on disk."""

import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from sklearn.base import clone

from emojax import files
from emojax.errors import InputError
from emojax.nearest import hint
from emojax.scoring import bag, baselines, scores
from emojax.scoring.baselines import Baseline, Fitted, Job
from emojax.sklearn import AnovaSelector, CNN1DClassifier, bench_folds
from emojax.sklearn.bench_folds import Fold, Rows

CNN1D = "CNN1D"
DECODERS = (
    *("logistic", "LDA", "LDA-shrinkage", "SVM-linear", "SVM-RBF", "1-NN", "RF", "XGB", "MLP"),
    *(baselines.BAG, CNN1D),
)
MEMBERS = 10  # maximum number of members of the bag
FEWEST = 55  # minimum number of voxels for the CNN
Decoders = Sequence[str] | Mapping[str, Any]


class GroupBag:
    """The bag of `scoring.bag` on features that all members share."""

    def fit(
        self, x: Float[np.ndarray, "n m"], y: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"]
    ) -> "GroupBag":
        """Fits a member for each of the first groups, which it monitors instead of training on."""
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
    """Fits decoders to the same folds and compares them.

    In each fold, voxels are chosen (`keep`) and standardised using the training rows. Decoders that
    need values as scanned get unstandardised ones.

    Args:
      X: [n, v] rows of voxels.
      y: [n] class of each row, numbers or strings.
      groups: [n] group of each row that must stay whole: its run, subject or acquisition.
      decoders: names of `DECODERS` or `scoring.baselines.BASELINES`, or "package.module:function";
        or a mapping from name to one of these or to a scikit-learn estimator. The others are
        compared with the first. None: all that apply.
      splitter: a scikit-learn splitter, or (train, test) pairs of row indices or masks. None: leave
        one group out.
      workdir: folder for bench.csv and for predictions.csv, one line per decoder and scored row.
      keep: number of voxels that `AnovaSelector` keeps; None: all.
      seed: seed of the decoders.
      workers: number of processes; only with 1 are seconds comparable. None: one per core.

    Returns:
      One row for each decoder: number of folds, mean balanced accuracy, its sd and 95 % interval
      over folds (Student's t), difference from the first decoder and its p value (sign flips over
      folds), seconds of all fits and predictions. `attrs["notes"]` lists what was left out and why.

    Raises:
      LeakageError: a group with rows on both sides of a fold.
      InputError: rows that do not fit together, missing values, unusable folds, an unknown decoder,
        or an option out of range.
    """
    bench_folds.check_options(keep, seed, workers)
    rows = bench_folds.check_rows(X, y, groups)
    folds = bench_folds.make_folds(splitter, rows)
    notes = bench_folds.check_groups(folds, rows)
    alone = bench_folds.check_classes(folds, rows)
    made = _choose(decoders, rows.X, alone, notes)
    jobs = [(name, fold) for name in made for fold in folds]
    features = _Features(rows, keep, seed)
    work = (features.job(name, made[name], fold) for name, fold in jobs)
    found = baselines.processes.run(_timed, work, workers=workers)
    each = {name: [] for name in made}
    for (name, fold), (fitted, seconds) in zip(jobs, found, strict=True):
        each[name].append((fold, fitted, seconds))
    table = _table(each, rows.labels)
    table.attrs = {"chance": 1 / len(rows.classes), "notes": tuple(notes)}
    if workdir is not None:
        _write(pathlib.Path(workdir), table, _predictions(each, rows))
    return table


def _choose(decoders: Decoders | None, X, alone: str, notes: list[str]) -> dict[str, Any]:
    """Returns a mapping from name to decoder, and adds notes on those that do not apply."""
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
    """The rows of each fold as decoders get them; those of the current fold are cached."""

    def __init__(self, rows: Rows, keep: int | None, seed: int):
        self.rows, self.keep, self.seed = rows, keep, seed
        self._at: tuple[int, Any] = (0, None)

    def job(self, name: str, decoder: Any, fold: Fold) -> Job:
        """Returns the job of one decoder on one fold."""
        needs, estimator = self._estimator(decoder)
        raw, scaled = self._of(fold)
        train, test = raw if needs == "raw" else scaled
        groups = np.unique(self.rows.groups[fold.train], return_inverse=True)[1]
        if needs != "groups" or groups.max() == 0:
            groups = None
        y = self.rows.labels[fold.train]
        return Job(name, estimator, train, y, test, len(self.rows.classes), groups)

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
            raw = self.rows.X[fold.train], self.rows.X[fold.test]
            if self.keep is not None:
                chosen = AnovaSelector(self.keep).fit(raw[0], self.rows.labels[fold.train])
                raw = tuple(np.ascontiguousarray(x[:, chosen.get_support()]) for x in raw)
            mean, sd = (f(raw[0], axis=0, dtype=np.float64) for f in (np.mean, np.std))
            sd = np.where(sd > 1e-6 * np.abs(mean), sd, np.inf)
            scaled = tuple(((x - mean) / sd).astype(np.float32) for x in raw)
            self._at = fold.number, (raw, scaled)
        return self._at[1]


def _timed(job: Job) -> tuple[Fitted, float]:
    """Returns the predictions of a job and its time in seconds."""
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


def _predictions(each: Mapping[str, list], rows: Rows) -> pd.DataFrame:
    """Returns one row for each decoder and scored row."""

    def parts() -> Iterator[pd.DataFrame]:
        for name, done in each.items():
            for fold, fitted, _ in done:
                own = {
                    "decoder": name,
                    "fold": fold.number,
                    "row": fold.test,
                    "group": rows.groups[fold.test],
                    "label": rows.classes[rows.labels[fold.test]],
                    "predicted": rows.classes[fitted.predicted],
                }
                p = {f"p_{k}": fitted.probabilities[:, i] for i, k in enumerate(rows.classes)}
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
