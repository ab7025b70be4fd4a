"""What a guard knows beside the folds: all rows with their groups, and how they were made."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from emojax.sklearn import contents
from emojax.sklearn.findings import ROWS, SPLIT, Finding, Note


class Known:
    """All rows of a study, by their content."""

    def __init__(
        self,
        rows: Any,
        groups: Shaped[np.ndarray, " n"] | None,
        labels: Shaped[np.ndarray, " n"] | None,
        raw: Any,
        prepare: Callable[..., Any] | None,
    ):
        """Checks that all belongs to the same rows; arguments as of `LeakGuard`.

        Raises:
          ValueError: lengths disagree, something is missing, or prepare makes other rows.
        """
        if (raw is None) != (prepare is None):
            raise ValueError("want raw= and prepare= together: what rows were made of, and how")
        self.given = rows, groups, labels, raw, prepare
        self.raw, self.prepare = raw, prepare
        self.labels = None if labels is None else np.asarray(labels)
        made = None if prepare is None else self._make(raw, self.labels)
        self.rows = rows if rows is not None else made
        if self.rows is None:
            if groups is not None or labels is not None:
                raise ValueError("want rows= beside groups= or labels=: they say whose these are")
            self.digests, self.places, self.groups = [], {}, None
            return
        self.digests = contents.digests(self.rows)
        if made is not None and rows is not None and contents.digests(made) != self.digests:
            raise ValueError("want prepare(raw) to be the rows; it makes others")
        n = len(self.digests)
        for name, values in (("groups", groups), ("labels", labels), ("raw", raw)):
            if values is not None and contents.count(values) != n:
                raise ValueError(f"want {name} of {n} rows; got {contents.count(values)}")
        self.places: dict[bytes, int] = {}
        for i, digest in enumerate(self.digests):
            self.places.setdefault(digest, i)
        self.groups = None if groups is None else np.asarray(groups)

    @property
    def columns(self) -> int:
        """The number of numbers of a row; 0 where they are something else."""
        values = None if self.rows is None else contents.numbers(self.rows)
        return 0 if values is None else values.shape[1]

    def order(self, digests: Sequence[bytes]) -> Int[np.ndarray, " k"] | None:
        """Returns the places of rows among all rows; None if some are none of them."""
        if self.rows is None or not all(digest in self.places for digest in digests):
            return None
        return np.array([self.places[digest] for digest in digests], int)

    def groups_of(self, digests: Sequence[bytes]) -> Shaped[np.ndarray, " k"] | None:
        """Returns the group of each row; None where they are not known."""
        order = self.order(digests)
        return None if order is None or self.groups is None else self.groups[order]

    def others(self, train: Sequence[bytes]) -> list[bytes]:
        """Returns all rows that do not train."""
        known = set(train)
        return [digest for digest in self.digests if digest not in known]

    def find(self, train: Sequence[bytes], note: Note) -> Iterator[Finding]:
        """Yields training rows that are none of the study's, or more often there than in it."""
        if self.rows is None:
            note("rows as they were made", "no rows (LeakGuard(rows=X))")
            return
        foreign = [i for i, digest in enumerate(train) if digest not in self.places]
        if len(foreign) == len(train):
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
        """Makes the rows again from other scored values and labels, and compares training rows."""
        if self.prepare is None:
            note("steps before the pipeline", "no raw= and prepare=")
            return
        ours, theirs = self.order(train), self.order(scored)
        if ours is None or theirs is None:
            note("steps before the pipeline", "rows that prepare(raw) does not make")
            return
        raw = np.array(self.raw)
        kept = np.setdiff1d(np.arange(len(raw)), theirs)
        drawn = np.random.default_rng(0).choice(kept, len(theirs))
        raw[theirs] = raw[drawn] * raw.dtype.type(1.25) if raw.dtype.kind == "f" else raw[drawn]
        yield from self._compare(ours, raw, self.labels, "values")
        if self.labels is not None:
            labels = self.labels.copy()
            classes, number = np.unique(labels, return_inverse=True)
            labels[theirs] = classes[(number[theirs] + 1) % len(classes)]
            yield from self._compare(ours, np.asarray(self.raw), labels, "labels")

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
        """Returns prepare(raw), or prepare(raw, labels) where it takes two arguments."""
        try:
            takes = [
                p
                for p in inspect.signature(self.prepare).parameters.values()
                if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
            ]
            both = len(takes) > 1
        except (TypeError, ValueError):
            both = False
        if both and labels is None:
            raise ValueError("want labels= for a prepare of rows and labels")
        return self.prepare(raw, labels) if both else self.prepare(raw)
