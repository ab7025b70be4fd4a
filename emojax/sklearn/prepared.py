"""Knowledge of a guard besides the folds: all rows with their groups, and how they were made."""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

from emojax.sklearn import contents
from emojax.sklearn.findings import ROWS, SPLIT, Finding, Note


def groups_per_row(groups: Any, count: int) -> np.ndarray | None:
    """Returns the group of each row, with objects as text; None if none are given.

    Raises:
      ValueError: a wrong number of groups, or missing ones.
    """
    if groups is None:
        return None
    if contents.count(groups) != count:
        raise ValueError(f"want groups of {count} rows; got {contents.count(groups)}")
    groups = np.asarray(groups)
    _check_all("groups", groups)
    return groups.astype(str) if groups.dtype == object else groups


def _check_all(name: str, values: np.ndarray) -> None:
    missing = np.flatnonzero(pd.isna(values).reshape(len(values), -1).any(1))
    if len(missing):
        said = f"{len(missing)} are missing (first: row {missing[0]})"
        raise ValueError(f"want {name} of all rows; {said}")


class Known:
    """All rows of a study, indexed by their content."""

    def __init__(
        self,
        rows: Any,
        groups: Shaped[np.ndarray, " n"] | None,
        labels: Shaped[np.ndarray, " n"] | None,
        raw: Any,
        prepare: Callable[..., Any] | None,
    ):
        """Checks that everything belongs to the same rows; arguments as for `LeakGuard`.

        Raises:
          ValueError: lengths disagree, something is missing, or prepare makes other rows.
        """
        if (raw is None) != (prepare is None):
            raise ValueError("want raw= and prepare= together: what rows were made of, and how")
        self.given = rows, groups, labels, raw, prepare
        self.raw, self.prepare = raw, prepare
        self.labels = None if labels is None else np.asarray(labels)
        if self.labels is not None:
            _check_all("labels", self.labels)
        made = None if prepare is None else self._make(raw, self.labels)
        self.rows = rows if rows is not None else made
        if self.rows is None:
            if groups is not None or labels is not None:
                raise ValueError("want rows= beside groups= or labels=: they say whose these are")
            self.digests, self.places, self.group_of = [], {}, None
            return
        self.digests = contents.digests(self.rows)
        if made is not None and rows is not None and contents.digests(made) != self.digests:
            raise ValueError("want prepare(raw) to be the rows; it makes others")
        n = len(self.digests)
        for name, values in (("labels", labels), ("raw", raw)):
            if values is not None and contents.count(values) != n:
                raise ValueError(f"want {name} of {n} rows; got {contents.count(values)}")
        self.places: dict[bytes, list[int]] = {}
        for i, digest in enumerate(self.digests):
            self.places.setdefault(digest, []).append(i)
        groups = groups_per_row(groups, n)
        self.group_of: dict[bytes, Any] | None = None  # for rows whose content determines it
        if groups is not None:
            own = {digest: groups[places] for digest, places in self.places.items()}
            self.group_of = {digest: g[0] for digest, g in own.items() if (g == g[0]).all()}

    @property
    def columns(self) -> int:
        """Number of columns; 0 if rows are not numbers."""
        values = None if self.rows is None else contents.numbers(self.rows)
        return 0 if values is None else values.shape[1]

    def order(self, digests: Sequence[bytes]) -> Int[np.ndarray, " k"] | None:
        """Returns the positions of rows among all rows; None if some are not among them.

        The position of a row that occurs several times is ambiguous, and given as -1.
        """
        if self.rows is None or not all(digest in self.places for digest in digests):
            return None
        found = [self.places[digest] for digest in digests]
        return np.array([own[0] if len(own) == 1 else -1 for own in found], int)

    def groups_of(self, digests: Sequence[bytes]) -> dict[int, Any] | None:
        """Returns row -> group, without rows that are in several groups; None if unknown."""
        if self.group_of is None or not all(digest in self.places for digest in digests):
            return None
        found = enumerate(digests)
        return {i: self.group_of[digest] for i, digest in found if digest in self.group_of}

    def others(self, train: Sequence[bytes]) -> list[bytes]:
        """Returns the digests of all rows other than the training rows."""
        known = set(train)
        return [digest for digest in self.digests if digest not in known]

    def find(self, train: Sequence[bytes], note: Note) -> Iterator[Finding]:
        """Yields a finding if training rows are not among the rows of the study."""
        if self.rows is None:
            note("rows as they were made", "no rows (LeakGuard(rows=X))")
            return
        foreign = [i for i, digest in enumerate(train) if digest not in self.places]
        if len(foreign) == len(train):
            if self.given[0] is None:
                raise ValueError("want prepare(raw) to make the rows of X; it makes others")
            raise ValueError("want rows= that hold the rows of X, as `fit` gets them; got others")
        if foreign:
            yield Finding(
                SPLIT,
                f"{len(foreign)} of {len(train)} training rows are none of rows= (first: training "
                f"row {foreign[0]}): they were made before the split",
                "oversampling and augmentation within the training rows, as steps",
            )

    def replaced(
        self, train: Sequence[bytes], scored: Sequence[bytes], note: Note
    ) -> Iterator[Finding]:
        """Yields findings if training rows change with the values or labels of scored rows."""
        if self.prepare is None:
            note("steps before the pipeline", "no raw= and prepare=")
            return
        ours, theirs = self.order(train), self.order(scored)
        if ours is None or theirs is None:
            note("steps before the pipeline", "rows that prepare(raw) does not make")
            return
        ours, theirs = ours[ours >= 0], theirs[theirs >= 0]
        if not len(ours) or not len(theirs):
            note("steps before the pipeline", "rows that occur several times have no place")
            return
        kept = np.setdiff1d(np.arange(contents.count(self.raw)), theirs)
        drawn = np.random.default_rng(0).choice(kept, len(theirs))
        raw = contents.replace(self.raw, theirs, _larger(contents.take(self.raw, drawn)))
        if raw is None:
            note("steps before the pipeline", "raw= in a container of another kind")
            return
        yield from self._compare(ours, raw, self.labels, "values")
        if self.labels is not None:
            labels = self.labels.copy()
            classes, number = np.unique(labels, return_inverse=True)
            labels[theirs] = classes[(number[theirs] + 1) % len(classes)]
            yield from self._compare(ours, self.raw, labels, "labels")

    def _compare(self, train: np.ndarray, raw: Any, labels: Any, what: str) -> Iterator[Finding]:
        made = contents.digests(self._make(raw, labels))
        moved = sum(made[i] != self.digests[i] for i in train)
        if moved:
            yield Finding(
                ROWS,
                f"{moved} of {len(train)} training rows change with the {what} of scored rows: "
                "prepare was fitted to all rows",
                "prepare as steps of the Pipeline",
            )

    def _make(self, raw: Any, labels: Any) -> Any:
        """Returns prepare(raw), or prepare(raw, labels) if it takes two arguments."""
        prepare = self.prepare
        assert prepare is not None  # raw= is given with it
        try:
            takes = [
                p
                for p in inspect.signature(prepare).parameters.values()
                if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
            ]
            both = len(takes) > 1
        except (TypeError, ValueError):
            both = False
        if both and labels is None:
            raise ValueError("want labels= for a prepare of rows and labels")
        raw = copy.deepcopy(raw)  # prepare may work in place
        return prepare(raw, labels) if both else prepare(raw)


def _larger(raw: Any) -> Any:
    """Returns rows whose floating numbers are a quarter larger, in the same kind of container."""
    if isinstance(raw, pd.DataFrame):
        return raw.apply(_larger)
    if isinstance(raw, list):
        values = np.asarray(raw)
        return _larger(values).tolist() if values.dtype.kind == "f" else raw
    return raw * raw.dtype.type(1.25) if raw.dtype.kind == "f" else raw
