"""Measurements that fit or predict again and compare bit by bit."""

import copy
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from emojax.sklearn import contents, reach
from emojax.sklearn.findings import Finding, Note

FLIPS = 0.25  # fraction of predictions that change with the last bit
SLIGHT = 0.01  # in sd: change of numeric predictions permitted with the last bit
REPEATS = 10  # number of equal outputs for the same rows that count as not random
OWN = "what a step learns as its own attributes, set by `fit`"
OUTPUTS = ("predict_proba", "decision_function", "predict", "transform")


def of_shared_state(first: Any, second: Any, use: Callable[[Any], None]) -> list[Finding]:
    """Finds state outside the estimator that a fit changes, and that persists beyond the fold.

    Args:
      first: a clone, which is fitted.
      second: another clone; whatever both can reach is shared between folds.
      use: function that fits an estimator and predicts with it.
    """
    others = {id(value): value for _, value in reach.walk(second)}
    reached = [(path, value) for path, value in reach.walk(first) if id(value) in others]
    before = [(path, value, reach.contents_of(value)) for path, value in reached]
    use(first)
    found = []
    for path, value, old in before:
        if old is None:
            continue
        new = reach.contents_of(value) or {}
        for name in new:
            if old.get(name, "") != new[name] and new[name] is not None:
                where = ".".join(part for part in (path, name) if part)
                what = name or path.rpartition(".")[2] or path
                text = f"{what} changes while it is fitted, and outlives the fold"
                found.append(Finding(where, text, OWN))
    return found


def of_fits(
    fit: Callable[[Any, Any], Any], X: Any, y: Any, fitted: Any, note: Note
) -> Iterator[Finding]:
    """Finds the user's steps that depend on something other than their training rows.

    Fitted again to the same rows, nothing may change; fitted to other values and labels, everything
    must. Library classes are exempt from the second test.

    Args:
      fit: function (X, y) -> a fitted clone.
      X, y: the training rows.
      fitted: the estimator fitted to them.
      note: function that records what cannot be measured.
    """
    parts = dict(_fitted_parts(fitted))
    if not any(not reach.is_library(part) for part in parts.values()):
        return
    again = dict(_fitted_parts(fit(X, y)))
    if seeds := _unseeded(fitted):
        note("fits that depend on their rows alone", f"random_state=None in {', '.join(seeds)}")
    else:
        for path, part in parts.items():
            own = path in again and not reach.is_library(part)  # trees hold uninitialised memory
            if own and (name := _moved(part, again[path])):
                text = f"{path} is random: {name} differs when it is fitted again to the same rows"
                note("fits that depend on their rows alone", text)
    other = replaced(X, np.random.default_rng(0))
    if other is None:
        note("fits that depend on their rows alone", "rows of neither numbers nor a data frame")
        return
    mixed = y if y is None else _permuted(y)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            elsewhere = dict(_fitted_parts(fit(other, mixed)))
    except Exception as error:
        note(
            "fits that depend on their rows alone", f"it cannot be fitted to other values ({error})"
        )
        return
    for path, part in parts.items():
        if path not in elsewhere or reach.is_library(part) or not _learned(part):
            continue
        if not _moved(part, elsewhere[path]):
            names = ", ".join(_learned(part))
            text = f"{names} stays the same for other values and other labels: it is from elsewhere"
            yield Finding(
                path, text, "a step that learns from its rows (or allow=, of a choice a priori)"
            )


def _fitted_parts(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Yields (path, estimator) for every estimator that has learned something."""
    for path, value in reach.walk(estimator):
        if reach.is_estimator(value) and reach.state_of(value):
            yield path or type(value).__name__, value


def _learned(estimator: Any) -> list[str]:
    """Returns the names of an estimator's learned attributes that can be compared."""
    state = {k: v for k, v in reach.state_of(estimator).items() if not _says_little(v)}
    names = [name for name in state if name.endswith("_")] or list(state)
    return [name for name in names if reach.fingerprint(state[name]) is not None]


def _is_note(value: Any) -> bool:
    """Returns whether a value only records that there was a fit, or its shape."""
    if isinstance(value, tuple):
        return all(map(_is_note, value))
    return value is None or isinstance(value, bool | int | str | np.integer)


def _says_little(value: Any) -> bool:
    """Returns whether a value is a note or an array of equal values.

    Other rows may well lead to the same value, for example a mask that keeps every voxel.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc":
        return _is_note(value)
    return value.size != 1 and bool((value == value.ravel()[:1]).all())


def _moved(ours: Any, theirs: Any) -> str:
    """Returns the first attribute that differs, or ""."""
    mine, other = reach.state_of(ours), reach.state_of(theirs)
    for name, value in mine.items():
        if name not in other:
            return name
        first, second = reach.fingerprint(value), reach.fingerprint(other[name])
        if first is not None and second is not None and first != second:
            return name
    return ""


def _unseeded(estimator: Any) -> list[str]:
    """Returns the `random_state` parameters of an estimator that are not set."""
    found = estimator.get_params(deep=True)
    return [
        name for name, value in found.items() if name.endswith("random_state") and value is None
    ]


def replaced(X: Any, rng: np.random.Generator) -> Any:
    """Returns rows with other values, about within the range of each column; None if unknown.

    Each column is resampled from half of its own values; floating numbers are a quarter larger.
    """
    if hasattr(X, "iloc"):
        columns = {name: _drawn(X[name].to_numpy(), rng) for name in X.columns}
        return type(X)(columns, index=X.index).astype(X.dtypes.to_dict())
    if sparse.issparse(X):
        return None
    values = np.asarray(X)
    if values.dtype.kind not in "biuf" or values.ndim < 2:
        return None
    flat = values.reshape(len(values), -1)
    place = rng.integers(0, max(len(flat) // 2, 1), flat.shape)
    out = np.take_along_axis(flat, place, 0).reshape(values.shape)
    return out * values.dtype.type(1.25) if values.dtype.kind == "f" else out


def _drawn(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = values[rng.integers(0, max(len(values) // 2, 1), len(values))]
    return out * 1.25 if out.dtype.kind == "f" else out


def _permuted(y: Any) -> Any:
    order = np.random.default_rng(1).permutation(len(y))
    return y.iloc[order] if hasattr(y, "iloc") else np.asarray(y)[order]


def of_predictions(estimator: Any, X: Any, train: Any, note: Note) -> Iterator[Finding]:
    """Finds steps whose output for a scored row depends on the rows scored together with it.

    Every second scored row is replaced by a training row; the outputs for the rest must not change.

    Args:
      estimator: the fitted estimator.
      X: the scored rows.
      train: the training rows.
      note: function that records what cannot be measured.
    """
    n, others = contents.count(X), contents.count(train)
    if n < 2:
        return
    odd = np.arange(1, n, 2)
    other = contents.take(train, odd * 7919 % others)
    mixed = contents.replace(X, odd, other)
    if mixed is None:
        note("outputs that depend on other scored rows", "rows in a container of another kind")
        return
    even = np.arange(0, n, 2)
    for path, step in _stages(estimator):
        try:
            ours, theirs = step(copy.deepcopy(X)), step(copy.deepcopy(mixed))
            if _same(ours, theirs, even):
                continue
            again = (step(copy.deepcopy(X)) for _ in range(REPEATS))
            is_random = not all(_same(ours, one, even) for one in again)
        except Exception as error:
            note("outputs that depend on other scored rows", f"{path}: {error}")
            continue
        if is_random:
            note("outputs that depend on other scored rows", f"{path} is random")
            continue
        text = "its output for a scored row depends on the rows that are scored with it"
        yield Finding(path, text, "statistics that `fit` takes from the training rows")
        return


def of_last_bits(estimator: Any, X: Any, note: Note) -> Iterator[Finding]:
    """Finds predictions that depend on the last bit of scored rows: a look-up, not a pattern."""
    values = X if isinstance(X, np.ndarray) else None
    if values is None or values.dtype not in (np.float32, np.float64) or len(values) < 8:
        note("look-ups", "fewer than 8 scored rows, or rows that are no array of floating numbers")
        return
    flat = values.reshape(len(values), -1)
    if np.greater(np.diff(np.sort(flat, 0), axis=0), 0).mean() < 0.5:
        note("look-ups", "values that repeat")
        return
    moved = np.nextafter(values, np.full_like(values, np.inf))
    if not hasattr(estimator, "predict"):
        return

    def predict(rows):
        return np.asarray(estimator.predict(rows.copy()))  # predict may work in place

    try:
        ours = predict(values)
        flipped = _differ(estimator, ours, predict(moved))
        if flipped.ndim != 1 or flipped.mean() <= FLIPS or flipped.sum() < 3:
            return
        is_random = any((ours != predict(values)).any() for _ in range(REPEATS))
    except Exception as error:
        note("look-ups", f"{type(error).__name__} for rows that differ in their last bit")
        return
    if is_random:
        note("look-ups", f"{type(estimator).__name__} is random")
    else:
        text = f"{flipped.mean():.0%} of predictions change with the last bit of a scored row"
        yield Finding(type(estimator).__name__, text, "no step that looks rows up")


def _differ(estimator: Any, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Returns which predictions differ: classes at all, numbers by more than rounding."""
    if ours.dtype.kind != "f" or is_classifier(estimator):
        return ours != theirs
    return np.abs(ours - theirs) > SLIGHT * ours.std() + 1e-6 * np.abs(ours)


def _stages(estimator: Any) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """Yields (path, function of rows) for the pipeline up to each step, then for all of it."""
    if isinstance(estimator, Pipeline):
        for i, (name, step) in enumerate(estimator.steps[:-1], 1):
            if step not in (None, "passthrough") and hasattr(step, "transform"):
                yield name, functools.partial(_transform, estimator.steps[:i])
    method = next((name for name in OUTPUTS if hasattr(estimator, name)), None)
    if method:
        last = estimator.steps[-1][0] if isinstance(estimator, Pipeline) else None
        yield last or type(estimator).__name__, getattr(estimator, method)


def _transform(steps: Sequence[tuple[str, Any]], X: Any) -> Any:
    for _, step in steps:
        X = X if step in (None, "passthrough") else step.transform(X)
    return X


def _same(a: Any, b: Any, rows: np.ndarray) -> bool:
    """Returns whether outputs for rows are the same bit by bit."""
    if sparse.issparse(a):
        a, b = a.toarray(), b.toarray()
    a, b = (np.asarray(x)[rows] for x in (a, b))
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
