"""The classical classifiers that the paper compares with, on the features that the network sees."""

import contextlib
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import joblib
import numpy as np
import threadpoolctl
from jaxtyping import Float, Int
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, LinearSVC
from xgboost import XGBClassifier

# The paper names the classifiers but not their settings. These are the defaults of scikit-learn and
# xgboost except what is written here, mainly stronger penalties and more trees. Features arrive
# standardised. `break_ties` makes the predicted class the one of the highest decision value.
# `balanced` changes nothing on balanced rows; on rows as the scanner gave them, such as those of
# nuisance alone, a weak classifier would otherwise only ever name the commonest class.
BASELINES: Mapping[str, Callable[[int], BaseEstimator]] = {
    "SVM-linear": lambda seed: LinearSVC(C=1e-3, random_state=seed),
    "SVM-RBF": lambda seed: SVC(cache_size=500, break_ties=True),
    "RF": lambda seed: RandomForestClassifier(200, n_jobs=1, random_state=seed),
    "XGB": lambda seed: XGBClassifier(tree_method="hist", n_jobs=1, random_state=seed),
    "LDA": lambda seed: LinearDiscriminantAnalysis(),
    "MLP": lambda seed: MLPClassifier((10,), "tanh", max_iter=200, random_state=seed),
    "MLP-modern": lambda seed: MLPClassifier(
        (256, 64), alpha=1e-2, early_stopping=True, max_iter=100, random_state=seed
    ),
    # Of single volumes, n << p: any labels can be separated, and C of scikit-learn does that.
    "SVM-linear hard": lambda seed: LinearSVC(C=1.0, max_iter=20_000, random_state=seed),
    "LDA-shrinkage": lambda seed: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5),
    "1-NN": lambda seed: KNeighborsClassifier(1),
    # Default of older scikit-learn on values as scanned, gamma = 1 / voxels: the paper's 45.8 %.
    "SVM-RBF unscaled": lambda seed: SVC(gamma=1.0, cache_size=500, break_ties=True),
    # Of 180,224 voxels each tree sees a tenth.
    "XGB-voxels": lambda seed: XGBClassifier(
        tree_method="hist", max_bin=64, colsample_bytree=0.1, n_jobs=1, random_state=seed
    ),
    "logistic": lambda seed: LogisticRegression(C=1e-2, class_weight="balanced", max_iter=500),
}


class Job(NamedTuple):
    """One classifier on one fold."""

    name: str  # of `BASELINES`
    train_x: Float[np.ndarray, "n m"]
    train_y: Int[np.ndarray, " n"]
    test_x: Float[np.ndarray, "t m"]
    num_classes: int
    seed: int = 0


class Fitted(NamedTuple):
    """What a classifier says of the test rows."""

    predicted: Int[np.ndarray, " t"]
    probabilities: Float[np.ndarray, "t classes"]  # softmax of decision values where it has none
    converged: bool
    peak_bytes: int | None  # of the process while it fitted, libraries and rows included; Linux


def fit_predict(job: Job) -> Fitted:
    """Fits one classifier on one thread and applies it.

    Raises:
      ValueError: an unknown name, or training rows that lack a class.
    """
    if job.name not in BASELINES:
        raise ValueError(f"want a baseline of {sorted(BASELINES)}; got {job.name!r}")
    present = np.unique(job.train_y)
    if not np.array_equal(present, np.arange(job.num_classes)):
        raise ValueError(f"want training rows of {job.num_classes} classes; got {present.tolist()}")
    model = BASELINES[job.name](job.seed)
    _reset_peak()
    with warnings.catch_warnings(record=True) as said, threadpoolctl.threadpool_limits(1):
        warnings.simplefilter("always")
        model.fit(job.train_x, job.train_y)
        if hasattr(model, "predict_proba"):
            probabilities = model.predict_proba(job.test_x)
        else:
            values = model.decision_function(job.test_x)
            if values.ndim == 1:  # two classes: one value
                values = np.stack([-values, values], 1) / 2
            probabilities = softmax(values, axis=1)
        predicted = model.predict(job.test_x)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in said)
    probabilities = np.asarray(probabilities, np.float32)
    return Fitted(predicted.astype(np.int32), probabilities, converged, _peak())


def _reset_peak() -> None:
    """Linux: "5" sets the largest resident size so far to the present one (proc(5))."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int | None:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
    return None


def run(
    jobs: Sequence[Job], tick: Callable[[int], Any] = lambda done: None, workers: int | None = None
) -> list[Fitted]:
    """Runs many jobs side by side, one process per core; results in the order of the jobs.

    Args:
      jobs: of any number of folds.
      tick: called with 1 for every finished job.
      workers: processes; None is one per core that this process may use.

    Raises:
      ValueError: as `fit_predict`.
    """
    workers = workers or joblib.cpu_count()
    pool = joblib.Parallel(workers, return_as="generator", mmap_mode="r")
    results = []
    for fitted in pool(joblib.delayed(fit_predict)(job) for job in jobs):
        results.append(fitted)
        tick(1)
    return results
