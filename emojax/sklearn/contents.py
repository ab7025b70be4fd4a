"""Comparison of rows by content: equal rows, and scaled, shifted or permuted copies."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from pandas.util import hash_pandas_object
from scipy import sparse

CHUNK = 256  # rows processed at a time, and columns sufficient for a comparison
LEAST = 16  # minimum number of columns to tell scaled or permuted copies from chance
CLOSE = 1e-3  # largest difference of two standardised rows that count as equal
Digest = bytes
_hash_rows: Any = hash_pandas_object  # declared as an object


def count(X: Any) -> int:
    """Returns the number of rows of an array, a list, a data frame or a sparse matrix."""
    return X.shape[0] if hasattr(X, "shape") else len(X)


def take(X: Any, rows: Int[np.ndarray, " k"]) -> Any:
    """Returns some rows, in the same kind of container."""
    if hasattr(X, "iloc"):
        return X.iloc[rows]
    if sparse.issparse(X):
        return X.tocsr()[rows]
    return X[rows] if hasattr(X, "shape") else [X[i] for i in rows]


def replace(X: Any, rows: Int[np.ndarray, " k"], values: Any) -> Any:
    """Returns a copy in which some rows are replaced; None for an unknown kind of container."""
    if isinstance(X, pd.DataFrame) and isinstance(values, pd.DataFrame):
        out = X.copy()
        for k in range(X.shape[1]):
            out.isetitem(k, _placed(X.iloc[:, k], rows, values.iloc[:, k]))
        return out
    if isinstance(X, pd.Series) and isinstance(values, pd.Series):
        return _placed(X, rows, values)
    if isinstance(X, np.ndarray) and isinstance(values, np.ndarray):
        out = X.copy()
        out[rows] = values
        return out
    if isinstance(X, list) and isinstance(values, list):
        out = list(X)
        for i, value in zip(rows, values, strict=True):
            out[i] = value
        return out
    return None


def _placed(column: pd.Series, rows: np.ndarray, values: pd.Series) -> pd.Series:
    out = column.copy()
    out.iloc[rows] = values.to_numpy()
    return out


def numbers(X: Any) -> np.ndarray | None:
    """Returns rows as an array of numbers [n, columns]; None if they are not numbers."""
    if sparse.issparse(X):
        return None
    try:
        found = np.asarray(X)
    except ValueError:  # lists of different lengths
        return None
    if found.dtype.kind not in "biuf" or found.ndim < 2:
        return None
    return found.reshape(len(found), math.prod(found.shape[1:]))  # -1 fails without rows


def digests(X: Any) -> list[Digest]:
    """Returns a hash of the content of each row, independent of the dtype of numbers."""
    if sparse.issparse(X):
        X = X.tocsr()
        return [_hash(X[i].toarray().astype(np.float64)) for i in range(X.shape[0])]
    if (found := numbers(X)) is not None:
        return [_hash(row) for part in _chunks(found) for row in part]
    frame = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X, object))
    return [int(h).to_bytes(8, "little") for h in _hash_rows(frame, index=False)]


def _hash(row: np.ndarray) -> Digest:
    return hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=16).digest()


def _chunks(X: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(X), CHUNK):
        yield X[start : start + CHUNK].astype(np.float64) + 0.0  # turns -0.0 into 0.0


def chance(X: Any) -> float:
    """Returns the probability that two rows agree, assuming independent columns.

    0 for rows with a single column of words, as equal texts are copies.
    """
    if sparse.issparse(X):
        X = X.tocsc()[:, :CHUNK].toarray()
    values = numbers(X)
    if values is None:
        values = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X, object))
        if values.shape[1] < 2:
            return 0.0
    if not len(values):
        return 0.0
    columns = pd.DataFrame(values).iloc[:, :CHUNK]
    log = 0.0
    for k in range(columns.shape[1]):
        share = columns.iloc[:, k].value_counts(normalize=True, dropna=False).to_numpy()
        log += np.log((share**2).sum())
    return float(np.exp(log))


def constant(X: Any) -> Bool[np.ndarray, " n"]:
    """Returns which rows have the same number in all of several columns, like blanked volumes."""
    if sparse.issparse(X):
        several = X.shape[1] > 1
        same = (X.max(axis=1).toarray() == X.min(axis=1).toarray()).ravel()
        return same & several
    values = numbers(X)
    if values is None or values.shape[1] < 2:
        return np.zeros(count(X), bool)
    missing, first = np.isnan(values).all(1), values[:, :1]
    return (values == first).all(1) | missing


class Moments:
    """Moments of rows, which are invariant to scaling, shifting and permuting their columns."""

    def __init__(self, X: np.ndarray):
        """Args: rows [n, columns], numbers."""
        self.X = X
        found = [_moments(part) for part in _chunks(X)]
        self.values = np.concatenate(found) if found else np.zeros((0, 3))
        order = np.argsort(self.values[:, 0])  # NaN, for uninformative rows, come last
        self.order = order[~np.isnan(self.values[order, 0])]
        self.sorted = self.values[self.order, 0]

    def near(self, values: np.ndarray) -> np.ndarray:
        """Returns the rows whose moments equal the given ones up to rounding."""
        if np.isnan(values).any():
            return self.order[:0]
        low, high = values[0] * (1 - CLOSE), values[0] * (1 + CLOSE)
        some = self.order[np.searchsorted(self.sorted, low) : np.searchsorted(self.sorted, high)]
        others = self.values[some]
        close = np.abs(others - values) <= 10 * CLOSE * (np.abs(values) + CLOSE)
        return some[close.all(1)]


def _moments(part: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "k 3"]:
    """Returns the fourth, sixth and absolute third moments of standardised rows.

    They are NaN if a row is constant, has few columns, or mostly repeated values, as such rows
    agree by chance.
    """
    z = standardised(part)
    square = z * z
    found = [(square * square).mean(1), (square**3).mean(1), np.abs((square * z).mean(1))]
    found = np.stack(found, 1)
    some = part[:, :CHUNK]
    distinct = (np.diff(np.sort(some, 1), axis=1) > 0).sum(1)
    found[(distinct < some.shape[1] / 2) | (part.shape[1] < LEAST)] = np.nan
    return found


def standardised(X: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "k m"]:
    """Returns rows with mean 0 and sd 1 each; constant rows become NaN."""
    X = X.astype(np.float64)
    z = X - X.mean(1, keepdims=True)
    with np.errstate(all="ignore"):
        return z / z.std(1, keepdims=True)


def copies(ours: Moments, theirs: Moments) -> list[tuple[int, int, str]]:
    """Returns (our row, their row, kind of copy) for each of our rows that they have a copy of."""
    found = []
    for i, values in enumerate(ours.values):
        for j in theirs.near(values):
            if kind := _kind(*standardised(np.stack([ours.X[i], theirs.X[j]]))):
                found.append((i, int(j), kind))
                break
    return found


def _kind(a: Float[np.ndarray, " m"], b: Float[np.ndarray, " m"]) -> str:
    for sign in (1, -1):
        if np.abs(a - sign * b).max() < CLOSE:
            return "a scaled or shifted copy"
        if np.abs(np.sort(a) - np.sort(sign * b)).max() < CLOSE:
            return "a copy with its columns in another order"
    return ""
