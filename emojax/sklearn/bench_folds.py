"""Rows, labels, groups and folds of `bench`, checked before anything is fitted."""

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from sklearn.model_selection import LeaveOneGroupOut, check_cv

from emojax.errors import InputError
from emojax.provenance import LeakageError
from emojax.sklearn import contents


class Rows(NamedTuple):
    """The rows of `bench`."""

    X: Float[np.ndarray, "n v"]  # float32
    labels: Int[np.ndarray, " n"]  # index of each row's class
    classes: Shaped[np.ndarray, " classes"]
    groups: Shaped[np.ndarray, " n"]


class Fold(NamedTuple):
    """The rows of one fold, and its number, counted from 1."""

    number: int
    train: Int[np.ndarray, " n"]
    test: Int[np.ndarray, " t"]


def check_options(keep: Any, seed: Any, workers: Any) -> None:
    """Checks the options of `bench`.

    Args:
      keep: number of voxels that are kept, or None.
      seed: seed of the decoders.
      workers: number of processes, or None.

    Raises:
      InputError: an option is not a whole number in its range.
    """
    for name, value, least in (("keep", keep, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value is None and name != "seed":
            continue
        if not _is_whole(value) or not least <= value < 2**32:  # limit of scikit-learn's seeds
            raise InputError(f"bench: {name}", repr(value), f"a whole number in [{least}, 2**32)")


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_rows(X: Any, y: Any, groups: Any) -> Rows:
    """Checks rows, their classes and groups, and returns them as arrays.

    Args:
      X: [n, v] rows of voxels.
      y: [n] class of each row.
      groups: [n] group of each row.

    Raises:
      InputError: shapes do not fit together, values are missing, not numbers or beyond float32, or
        there are fewer than two classes.
    """
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
    return Rows(X, labels.astype(np.int32), classes, groups)


def make_folds(splitter: Any, rows: Rows) -> list[Fold]:
    """Returns the folds of a splitter.

    Args:
      splitter: a scikit-learn splitter, or (train, test) pairs of row indices or masks. None:
        leave one group out.
      rows: the checked rows.

    Raises:
      InputError: the splitter fails on these rows, or a fold is empty or has no such rows.
    """
    splitter = LeaveOneGroupOut() if splitter is None else splitter
    try:
        cv: Any = check_cv(splitter, rows.labels, classifier=True)
        pairs = [(train, test) for train, test in cv.split(rows.X, rows.labels, rows.groups)]
    except (ValueError, TypeError) as error:
        raise InputError("bench: splitter", error, "folds of these groups") from None
    if not pairs:
        raise InputError("bench: splitter", "no folds", "one or more")
    n = len(rows.labels)
    return [
        Fold(i, _places(train, n, i, "train"), _places(test, n, i, "score"))
        for i, (train, test) in enumerate(pairs, 1)
    ]


def _places(rows: Any, count: int, number: int, what: str) -> Int[np.ndarray, " k"]:
    """Returns the rows of one side of a fold as indices, from indices or a mask."""
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


def check_groups(folds: Sequence[Fold], rows: Rows) -> list[str]:
    """Refuses groups on both sides of a fold, and returns sentences about equal rows.

    Args:
      folds: the folds.
      rows: the checked rows.

    Raises:
      LeakageError: a group has rows on both sides of a fold.
    """
    groups = rows.groups
    digests, said = np.array([d.hex() for d in contents.digests(rows.X)]), []
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


def check_classes(folds: Sequence[Fold], rows: Rows) -> str:
    """Refuses folds that train without a class; returns why no group can monitor, or "".

    Args:
      folds: the folds.
      rows: the checked rows.

    Raises:
      InputError: a fold has no training rows of a class.
    """
    alone = ""
    for number, train, _ in folds:
        for k, name in enumerate(rows.classes.tolist()):
            found = len(np.unique(rows.groups[train[rows.labels[train] == k]]))
            if not found:
                said = f"no training row of class {name!r}"
                raise InputError(f"bench: fold {number}", said, "rows of every class")
            if found == 1:
                alone = f"only one training group of fold {number} has class {name!r}"
    return alone
