"""The classical classifiers that the paper compares with the network, and user-defined ones.

A name in the config's `baselines` is a key of `BASELINES`, or a path such as "mypkg.models:ridge"
of a function seed -> estimator with `fit`, and `predict_proba`, `decision_function` or `predict`.
"""

import contextlib
import copy
import importlib
import inspect
import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import joblib
import numpy as np
import threadpoolctl
from jaxtyping import Float, Int
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, LinearSVC

from emojax.errors import InputError
from emojax.registry import Registry
from emojax.scoring import bag, parameters, processes

NEEDS = ("features", "voxels", "raw", "nuisance", "members")
BAG = "bag"
NUISANCE = "nuisance only (logistic)"


class Baseline(NamedTuple):
    """A classical classifier, and the kind of inputs that it is fitted to.

    "features" are the network's inputs, or coordinates with the same distances; "voxels" the scaled
    voxels themselves, for classifiers that are not invariant to rotation; "raw" values as scanned;
    "nuisance" time in the run, global signal and motion, without any pattern; "members" the
    features of every member of a bag, and the member that monitors each row.
    """

    make: Callable[[int], Any]  # seed -> estimator
    needs: str = "features"  # one of `NEEDS`
    package: str = ""  # optional package that it requires


def _xgb(**settings) -> Callable[[int], Any]:
    def make(seed):
        if not _importable("xgboost"):
            raise InputError("baselines", "no package xgboost", "it to be installed, or no XGB row")
        xgboost = importlib.import_module("xgboost")
        return xgboost.XGBClassifier(tree_method="hist", n_jobs=1, random_state=seed, **settings)

    return make


def _logistic(seed: int) -> LogisticRegression:
    return LogisticRegression(C=1e-2, class_weight="balanced", max_iter=500)


# The paper names the classifiers but not their settings. Settings are the defaults of scikit-learn
# and xgboost except where given here, mainly stronger penalties and more trees. Features are
# standardised. `break_ties` makes the predicted class the one with the highest decision value.
# `balanced` changes nothing on balanced rows. On unbalanced rows, such as those of nuisance alone,
# a weak classifier would otherwise always predict the most frequent class.
BASELINES = Registry(
    "baselines",
    {
        "SVM-linear": Baseline(lambda seed: LinearSVC(C=1e-3, random_state=seed)),
        "SVM-RBF": Baseline(lambda seed: SVC(cache_size=500, break_ties=True)),
        "RF": Baseline(
            lambda seed: RandomForestClassifier(200, n_jobs=1, random_state=seed), "voxels"
        ),
        "XGB": Baseline(_xgb(), package="xgboost"),
        "LDA": Baseline(lambda seed: LinearDiscriminantAnalysis()),
        "MLP": Baseline(lambda seed: MLPClassifier((10,), "tanh", max_iter=200, random_state=seed)),
        "MLP-modern": Baseline(
            lambda seed: MLPClassifier(
                (256, 64), alpha=1e-2, early_stopping=True, max_iter=100, random_state=seed
            )
        ),
        # With n << p any labelling is linearly separable; scikit-learn's C = 1 separates it.
        "SVM-linear hard": Baseline(
            lambda seed: LinearSVC(C=1.0, max_iter=20_000, random_state=seed)
        ),
        "LDA-shrinkage": Baseline(
            lambda seed: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)
        ),
        "1-NN": Baseline(lambda seed: KNeighborsClassifier(1)),
        # Default of older scikit-learn on values as scanned, gamma = 1 / voxels: the paper's
        # 45.8 %.
        "SVM-RBF unscaled": Baseline(
            lambda seed: SVC(
                gamma=1.0,  # pyright: ignore[reportArgumentType]  # the stub lacks numbers
                cache_size=500,
                break_ties=True,
            ),
            "raw",
        ),
        # Each tree sees a tenth of the 180,224 voxels.
        "XGB-voxels": Baseline(_xgb(max_bin=64, colsample_bytree=0.1), "voxels", "xgboost"),
        "logistic": Baseline(_logistic),
        BAG: Baseline(lambda seed: bag.Bag(), "members"),
        NUISANCE: Baseline(_logistic, "nuisance"),
    },
)


class Job(NamedTuple):
    """One classifier on one fold, with everything that a process needs to fit it."""

    name: str  # name in tables and messages
    estimator: Any  # not fitted
    train_x: Float[np.ndarray, "n m"]
    train_y: Int[np.ndarray, " n"]
    test_x: Float[np.ndarray, "t m"]
    num_classes: int
    groups: Int[np.ndarray, " n"] | None = None  # of training rows, if the estimator takes them


class Fitted(NamedTuple):
    """One classifier's predictions for the test rows."""

    predicted: Int[np.ndarray, " t"]  # the class with the highest probability
    probabilities: Float[np.ndarray, "t classes"]  # or softmax of decision values
    converged: bool
    peak_bytes: int | None  # peak memory of the fitting process, including libraries; Linux only
    weights: Mapping[str, np.ndarray] | None = None  # see `bag.linear_weights`


def find(name: str | Baseline | Callable[[int], Any]) -> Baseline:
    """Finds a classical classifier by its name or dotted path, or from a function of a seed.

    A function may declare by an attribute `needs` what it is fitted to; the default is "features".

    Raises:
      InputError: an unknown name, a path to nothing or to something else, or unknown needs.
    """
    found = BASELINES[name] if isinstance(name, str) else name
    shown = repr(name)
    if not isinstance(found, Baseline):
        if not _takes_seed(found):
            raise InputError("baselines", shown, "the path of a function seed -> estimator")
        found = Baseline(found, getattr(found, "needs", "features"))
    if found.needs not in NEEDS:
        raise InputError("baselines", f"{shown} with needs {found.needs!r}", f"of {NEEDS}")
    return found


def available(name: str | Baseline | Callable[[int], Any]) -> bool:
    """Returns whether the package that a classifier requires is installed.

    Raises:
      InputError: as for `find`.
    """
    package = find(name).package
    return not package or _importable(package)


def settings(name: str | Baseline | Callable[[int], Any]) -> dict[str, Any]:
    """Returns "class" and all parameters other than the seed that differ from their defaults.

    Raises:
      InputError: as for `find`, or its package is not installed.
    """
    return parameters.changed(_estimator(name, 0))


def make_job(
    name: str | Baseline | Callable[[int], Any],
    seed: int,
    train_x: Float[np.ndarray, "n m"],
    train_y: Int[np.ndarray, " n"],
    test_x: Float[np.ndarray, "t m"],
    num_classes: int,
    groups: Int[np.ndarray, " n"] | None = None,
) -> Job:
    """Makes an estimator in this process, which can import the user's code, and its job.

    Raises:
      InputError: as for `find`, a package that is not installed, or not an estimator.
    """
    shown = name if isinstance(name, str) else getattr(name, "__name__", "baseline")
    return Job(shown, _estimator(name, seed), train_x, train_y, test_x, num_classes, groups)


class Estimator(NamedTuple):
    """A fitted estimator."""

    model: Any
    converged: bool


def fit(job: Job) -> Estimator:
    """Fits one classifier on one thread.

    Raises:
      ValueError: training rows that lack a class.
    """
    present = np.unique(job.train_y)
    if not np.array_equal(present, np.arange(job.num_classes)):
        raise ValueError(f"want training rows of {job.num_classes} classes; got {present.tolist()}")
    model = copy.deepcopy(job.estimator)
    own = {} if job.groups is None else {"groups": job.groups}
    with warnings.catch_warnings(record=True) as said, _alone():
        warnings.simplefilter("always")
        model.fit(job.train_x, job.train_y, **own)
    return Estimator(model, not any(issubclass(w.category, ConvergenceWarning) for w in said))


def fit_predict(job: Job) -> Fitted:
    """Fits one classifier on one thread and applies it.

    Raises:
      ValueError: training rows that lack a class.
      InputError: an estimator that predicts anything but these classes.
    """
    _reset_peak()
    model, converged = fit(job)
    with warnings.catch_warnings(), _alone():
        warnings.simplefilter("ignore")
        probabilities = np.asarray(_probabilities(model, job), np.float32)
    _check_probabilities(job, probabilities)
    predicted = probabilities.argmax(1).astype(np.int32)
    return Fitted(predicted, probabilities, converged, _peak(), bag.linear_weights(model))


@contextlib.contextmanager
def _alone():
    """Limits scikit-learn to one thread, as classifiers are fitted in parallel."""
    with threadpoolctl.threadpool_limits(1), joblib.parallel_config("sequential"):
        yield


def run(
    jobs: Iterable[Job], tick: Callable[[int], Any] = lambda done: None, workers: int | None = None
) -> list[Fitted]:
    """Runs many jobs in parallel, one process per core; results are in the order of the jobs.

    Args:
      jobs: jobs of any number of folds; taken when a process is free, at most two for each.
      tick: called with 1 for every finished job.
      workers: number of processes; None: one per core that this process may use.

    Raises:
      ValueError, InputError: as for `fit_predict`, or an estimator that cannot be pickled.
    """
    return processes.run(fit_predict, jobs, tick, workers)


def _probabilities(model, job):
    """Returns probabilities, softmax of decision values, or 1 for the predicted class."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(job.test_x)
    if hasattr(model, "decision_function"):
        values = np.asarray(model.decision_function(job.test_x))
        if values.ndim == 1:  # two classes: one value
            values = np.stack([-values, values], 1) / 2
        return softmax(values, axis=1)
    predicted = np.asarray(model.predict(job.test_x))
    one_hot = predicted.reshape(-1, 1) == np.arange(job.num_classes)
    if not one_hot.any(1).all():
        other = predicted[~one_hot.any(1)][0]
        expected = f"labels from 0 to {job.num_classes - 1}"
        raise InputError(f"baselines={job.name}", f"a prediction of {other}", expected)
    return one_hot


def _check_probabilities(job, p):
    expected = (len(job.test_x), job.num_classes)
    where = f"baselines={job.name}"
    if p.shape != expected:
        raise InputError(where, f"predictions of shape {p.shape}", f"{expected}: rows, classes")
    if not ((p >= 0).all() and (np.abs(p.sum(1) - 1) < 1e-3).all()):
        raise InputError(where, "rows that are no probabilities", "values >= 0 that sum to 1")


def _estimator(name, seed):
    estimator = find(name).make(seed)
    methods = ("predict_proba", "decision_function", "predict")
    if not hasattr(estimator, "fit") or not any(hasattr(estimator, m) for m in methods):
        found = f"{name!r}, which makes {type(estimator).__name__}"
        raise InputError("baselines", found, f"an estimator with fit and one of {methods}")
    return estimator


def _importable(package):
    """Returns whether a package can be imported with everything that it requires."""
    try:
        importlib.import_module(package)
    except (ImportError, OSError, ValueError):  # ValueError: xgboost without OpenMP
        return False
    return True


def _takes_seed(function):
    """Returns whether f(seed) passes a seed; SVC(0), for example, would set something else."""
    if not callable(function):
        return False
    try:
        signature = inspect.signature(function)
        signature.bind(0)
    except TypeError:
        return False
    except ValueError:  # the signature is unknown
        return True
    first = next(iter(signature.parameters))
    return not isinstance(function, type) or first in ("seed", "random_state")


def _reset_peak() -> None:
    """Resets the peak resident size to the current one (Linux: "5", see proc(5))."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int | None:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return 1024 * int(line.split()[1])
    return None
