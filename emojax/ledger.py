"""The ledger of a cohort: access to values and labels that records every read."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from emojax import shown
from emojax._numerics.seen import LeakageError, Provenance


class Ledger:
    """The only access to values and labels below the skeleton: each read is recorded.

    The source of the values is a cohort, or any object with `labels` [n], `volumes[rows]` and, if
    masks are read, `units` [n] and `inside` (unit -> mask).
    """

    def __init__(self, cohort: Any):
        """Opens a record that contains only steps that saw the cohort before it was read."""
        n = len(cohort.labels)
        everything, before = np.ones(n, bool), Provenance.empty(n)
        for prior in getattr(cohort, "prior", ()):
            labels = everything if prior.labels else None
            before |= Provenance.of(prior.step, n, values=everything, labels=labels)
        self.cohort_size = n
        self.prior = before  # what was seen before the cohort was read
        self._cohort, self._values = cohort, cohort.volumes
        self._record: dict[Any, Provenance] = {None: Provenance.empty(n)}
        self._kept: list[tuple[str, Any, Any]] = []
        self._closed: list[bool] = []  # shared with all ledgers of this record
        self._scope: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        return shown.text(*self._facts())

    def _repr_html_(self) -> str:
        return shown.page(*self._facts())

    def _facts(self) -> tuple[str, shown.Facts]:
        """Returns a title, and the reads of each step."""
        steps = (self.prior | self.reads).steps
        facts = [
            (step, f"values of {seen.values.sum()}, labels of {seen.labels.sum()}")
            for step, seen in steps.items()
        ]
        return f"Ledger of {self.cohort_size} volumes", facts or [("steps", "none yet")]

    def design(self, name: str) -> Shaped[np.ndarray, "n"]:
        """Returns a vector [n] of the design ("units", "subject", "run", "run_index", "frame").

        "union" is the mask whose voxels are the columns of the values, or None for vectors;
        "affine" maps its voxels to mm.

        Raises:
          ValueError: any other name, such as values and labels.
        """
        if name not in ("units", "subject", "run", "run_index", "frame", "union", "affine"):
            raise ValueError(f"want a vector of the design; got {name!r}")
        return getattr(self._cohort, name)

    def values(
        self,
        step: str,
        rows: Int[np.ndarray, " k"],
        columns: Shaped[np.ndarray, " _"] | None = None,
    ) -> np.ndarray:
        """Returns the values of rows, [k, ...], for a step that fits something to them.

        Args:
          step: name of the step.
          rows: [k] int, rows of the cohort.
          columns: indices or a mask of the columns to return; None: all.
        """
        self._write(step, values=rows)
        return self._take(rows, columns)

    def labels(self, step: str, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
        """Returns the labels of rows for a step."""
        self._write(step, labels=rows)
        return self._cohort.labels[rows]

    def mask(self, step: str, unit: str) -> Shaped[np.ndarray, "..."]:
        """Returns the brain mask of a unit, which counts as a read of all the unit's values."""
        self._write(step, values=np.flatnonzero(self._cohort.units == unit))
        return self._cohort.inside[unit]

    def scored(
        self, rows: Int[np.ndarray, " k"], columns: Shaped[np.ndarray, " _"] | None = None
    ) -> np.ndarray:
        """Returns values to be transformed and scored only; nothing may be fitted to them.

        This read is not recorded: the audit measures that nothing is fitted to it.

        Args:
          rows: [k] int, rows of the cohort.
          columns: indices or a mask of the columns to return; None: all.

        Raises:
          LeakageError: the record was closed.
        """
        self._check_open("scoring")
        return self._take(rows, columns)

    def reader(
        self, rows: Mapping[str, Int[np.ndarray, " _"]]
    ) -> Callable[[Int[np.ndarray, " k"]], np.ndarray]:
        """Grants steps access to the values of their rows, to be read later and repeatedly.

        Args:
          rows: step -> rows.

        Returns:
          A function of rows that raises LeakageError for any other row.
        """
        granted = np.zeros(self.cohort_size, bool)
        for step, own in rows.items():
            self._write(step, values=own)
            granted[own] = True
        return self._restricted(granted, f"steps {', '.join(rows)}")

    def scored_reader(
        self, rows: Int[np.ndarray, " _"]
    ) -> Callable[[Int[np.ndarray, " k"]], np.ndarray]:
        """Returns a function like `scored` that raises LeakageError for any other row."""
        self._check_open("scoring")
        granted = np.zeros(self.cohort_size, bool)
        granted[rows] = True
        return self._restricted(granted, "the scoring")

    def derive(self, values: Any) -> "Ledger":
        """Returns a ledger of other values of the same rows, e.g. features, on this record."""
        return self._copy(_values=values)

    def array(self, name: str) -> "Ledger":
        """Returns a ledger of another array [n, ...] of the cohort, e.g. "nuisance".

        Raises:
          LeakageError: the labels, which would be read as if they were values, or not an array.
        """
        found = getattr(self._cohort, name)
        if not isinstance(found, np.ndarray) or found is self._cohort.labels:
            raise LeakageError(f"array {name!r} is no array of values: labels have their own reads")
        return self.derive(found)

    def scoring(self, rows: Int[np.ndarray, " k"]) -> "Ledger":
        """Returns a ledger whose reads count for the scores of these rows only."""
        return self._copy(_scope=tuple(np.asarray(rows).tolist()))

    def keep(self, step: str, fitted: Any) -> None:
        """Keeps what a step fitted (a pytree of arrays) for the audit to compare."""
        self._kept.append((step, self._scope, fitted))

    def close(self) -> None:
        """Closes the record: values, labels and masks can no longer be requested.

        Readers granted before still work.
        """
        self._closed.append(True)

    @property
    def kept(self) -> list[tuple[str, tuple[int, ...] | None, Any]]:
        """Each step's fit and the scored rows that it is for (None: all), in order."""
        return list(self._kept)

    @property
    def reads(self) -> Provenance:
        """Record of the reads that all scored rows depend on."""
        return self._record[None]

    @property
    def shared(self) -> Provenance:
        """Record of `reads` and of what was seen before the cohort was read."""
        return self.prior | self.reads

    def seen(
        self, rows: Int[np.ndarray, " k"], *, prior: bool = True
    ) -> tuple[tuple[np.ndarray, Provenance], ...]:
        """Returns sets of scored rows, each with the record of the steps behind its scores.

        Args:
          rows: scored rows.
          prior: whether to include what was seen before the cohort was read.
        """
        shared = self.shared if prior else self.reads
        scopes = {scope: frozenset(scope) for scope in self._record if scope is not None}
        sets: dict[tuple, list[int]] = {}
        for row in np.asarray(rows).tolist():
            sets.setdefault(tuple(s for s, own in scopes.items() if row in own), []).append(row)
        found = []
        for behind, own in sets.items():
            record = shared
            for scope in behind:
                record |= self._record[scope]
            found.append((np.array(own), record))
        return tuple(found)

    def _check_open(self, step):
        if self._closed:
            raise LeakageError(f"step {step!r} reads after the record was closed")

    def _write(self, step, values=None, labels=None):
        self._check_open(step)
        new = Provenance.of(step, self.cohort_size, values=values, labels=labels)
        old = self._record.get(self._scope)
        self._record[self._scope] = new if old is None else old | new

    def _take(self, rows, columns):
        found = self._values[rows]
        return found if columns is None else found[:, columns]

    def _restricted(self, granted, what):
        def read(rows):
            if not granted[rows].all():
                row = np.asarray(rows)[~granted[rows]][0]
                raise LeakageError(f"{what} asked for row {row}, which was not granted")
            return self._take(rows, None)

        return read

    def _copy(self, **changes):
        new = object.__new__(Ledger)
        new.__dict__.update(self.__dict__ | changes)
        return new
