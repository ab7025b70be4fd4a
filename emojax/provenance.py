"""Who saw what: the record that reads write, the refusal to score what was seen, and the audit.

    ledger = Ledger(cohort)
    x, y = ledger.values("voxels", train), ledger.labels("voxels", train)
    protocol, counts = classify(ledger.seen(test), subject=cohort.subject)

Host side, NumPy only. A step is whatever is fitted or chosen from data: a mask, the voxels, an
alignment, a scaler, the network's weights, the epoch to keep.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Int, Shaped

from emojax import shown
from emojax._numerics.checks import Array
from emojax._numerics.seen import LeakageError, Provenance, Seen, per_volume, row_mask
from emojax.audit import Audited, audit

__all__ = [
    "LEAKY_PROTOCOLS",
    "PROTOCOLS",
    "Audited",
    "LeakageError",
    "Ledger",
    "Provenance",
    "Seen",
    "audit",
    "check_scoring",
    "classify",
    "table",
]

Allowance = Literal["transductive", "calibration"]
Protocol = Literal["strict", "calibrated", "transductive", "leaky"]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)  # in order of what was seen of the test subject

BEFORE = " before they were read, which only a leaky protocol may score (A: protocols=paper)"
LEAKY_PROTOCOLS = frozenset({"paper"})  # these report a leak; all others refuse it


class Ledger:
    """The only way to values and labels below the skeleton: reading them writes the record.

    The source of the values is a cohort, or anything with `labels` [n], `volumes[rows]` and, where
    masks are read, `units` [n] and `inside` (unit -> mask).
    """

    def __init__(self, cohort: Any):
        """Opens an empty record, apart from the steps that saw the cohort before it was read."""
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
        """Returns a title, and what each step has read."""
        steps = (self.prior | self.reads).steps
        facts = [
            (step, f"values of {seen.values.sum()}, labels of {seen.labels.sum()}")
            for step, seen in steps.items()
        ]
        return f"Ledger of {self.cohort_size} volumes", facts or [("steps", "none yet")]

    def design(self, name: str) -> Shaped[np.ndarray, "n"]:
        """Returns a vector [n] of the design ("units", "subject", "run", "run_index", "frame").

        "union" is the mask whose voxels are the columns of the values, None for vectors; "affine"
        leads from its voxels to mm.

        Raises:
          ValueError: values and labels are no design.
        """
        if name not in ("units", "subject", "run", "run_index", "frame", "union", "affine"):
            raise ValueError(f"want a vector of the design; got {name!r}")
        return getattr(self._cohort, name)

    def values(self, step: str, rows: Int[np.ndarray, " k"], columns=None) -> np.ndarray:
        """Returns the values of rows, [k, ...], to a step that fits something to them."""
        self._write(step, values=rows)
        return self._take(rows, columns)

    def labels(self, step: str, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
        """Returns the labels of rows to a step."""
        self._write(step, labels=rows)
        return self._cohort.labels[rows]

    def mask(self, step: str, unit: str) -> Shaped[np.ndarray, "..."]:
        """Returns the brain mask of a unit; it was made from all of the unit's values."""
        self._write(step, values=np.flatnonzero(self._cohort.units == unit))
        return self._cohort.inside[unit]

    def scored(self, rows: Int[np.ndarray, " k"], columns=None) -> np.ndarray:
        """Returns values that are only transformed, to be scored; nothing may be fitted to them.

        This read is not on the record: that nothing is fitted to it is what the audit measures.

        Raises:
          LeakageError: the record was closed.
        """
        self._check_open("scoring")
        return self._take(rows, columns)

    def reader(
        self, rows: Mapping[str, Int[np.ndarray, " _"]]
    ) -> Callable[[Int[np.ndarray, " k"]], np.ndarray]:
        """Grants steps the values of their rows, to be read later and repeatedly.

        Args:
          rows: step -> rows.

        Returns:
          A function of rows; it raises LeakageError for any other row.
        """
        granted = np.zeros(self.cohort_size, bool)
        for step, own in rows.items():
            self._write(step, values=own)
            granted[own] = True
        return self._restricted(granted, f"steps {', '.join(rows)}")

    def scored_reader(
        self, rows: Int[np.ndarray, " _"]
    ) -> Callable[[Int[np.ndarray, " k"]], np.ndarray]:
        """Returns a function of rows, as `scored`; it raises LeakageError for any other row."""
        self._check_open("scoring")
        granted = np.zeros(self.cohort_size, bool)
        granted[rows] = True
        return self._restricted(granted, "the scoring")

    def derive(self, values: Any) -> "Ledger":
        """Returns a ledger of other values of the same rows, e.g. of features, on this record."""
        return self._copy(_values=values)

    def array(self, name: str) -> "Ledger":
        """Returns a ledger of another array [n, ...] of the cohort, e.g. "nuisance".

        Raises:
          LeakageError: labels, which would be read as if they were values; or no array.
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
        """Ends the record: values, labels and masks can no longer be asked for.

        Readers that were granted before go on.
        """
        self._closed.append(True)

    @property
    def kept(self) -> list[tuple[str, tuple[int, ...] | None, Any]]:
        """Every step's fit with the scored rows that it is for (None: all), in order."""
        return list(self._kept)

    @property
    def reads(self) -> Provenance:
        """The record of the reads that all scored rows depend on."""
        return self._record[None]

    @property
    def shared(self) -> Provenance:
        """The same with what was seen before the cohort was read."""
        return self.prior | self.reads

    def seen(
        self, rows: Int[np.ndarray, " k"], *, prior: bool = True
    ) -> tuple[tuple[np.ndarray, Provenance], ...]:
        """Returns scored rows, set by set, with what the steps behind their scores have seen.

        Args:
          rows: scored rows.
          prior: whether with what was seen before the cohort was read.
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


def classify(
    seen: Sequence[tuple[np.ndarray, Provenance]],
    *,
    subject: Shaped[Array, "n"],
    unit: Shaped[Array, "n"] | None = None,
    claimed: str = "leaky",
    name: str = "",
    prior: Provenance | None = None,
) -> tuple[str, dict[str, int]]:
    """Returns the class of protocol that a record belongs to, and refuses a worse one than claimed.

    - leaky: a step saw labels of scored volumes, or of other volumes of their unit.
    - transductive: a step saw values of scored volumes, but none of their labels.
    - calibrated: a step saw other volumes of the scored subject.
    - strict: nothing fitted has seen anything of the scored subject.

    Args:
      seen: scored rows with the record behind their scores, as from `Ledger.seen`.
      subject: [n] subject of each volume.
      unit: [n] the group whose labels may not be shared, e.g. the run; None: each volume its own.
      claimed: the class that the protocol claims to be, by its reads.
      name: its name, for the message.
      prior: what was seen before the cohort was read, where `seen` is without it. Values that it
        saw make any protocol transductive and break no claim; labels that it saw do.

    Returns:
      The class, and step -> number of scored volumes, or volumes of their unit, that it saw.

    Raises:
      LeakageError: the record is worse than what is claimed; the line names step and volumes.
    """
    worst, counts, complaints = 0, {}, []
    records = [(rows, record, "") for rows, record in seen]
    if prior is not None:
        records += [(rows, prior, BEFORE) for rows, _ in seen]
    for rows, record, before in records:
        n = record.num_volumes
        scored = row_mask("scored", rows, n)
        own = np.isin(subject, np.asarray(subject)[scored])
        near = scored if unit is None else np.isin(unit, np.asarray(unit)[scored])
        for step, saw in record.steps.items():
            kinds = (
                (3, "labels of {} scored volumes", saw.labels & scored),
                (3, "labels of {} other volumes of their unit", saw.labels & near & ~scored),
                (2, "values of {} scored volumes", saw.values & scored),
                (1, "{} other volumes of the scored subject", (saw.values | saw.labels) & own),
            )
            broken = [(rank, text, hit) for rank, text, hit in kinds if hit.any()]
            if not broken:
                continue
            rank, text, hit = broken[0]
            worst = max(worst, rank)
            if rank > 1:
                counts[step] = min(counts.get(step, 0) + int(hit.sum()), n)
            if rank > max(PROTOCOLS.index(claimed), 2 if before else 0):
                what = text.format(hit.sum()) + before
                complaints.append(f"step {step!r} saw {what} (first: row {hit.argmax()})")
    if complaints:
        raise LeakageError(
            f"{name or 'the protocol'} claims to be {claimed}, but "
            + "; ".join(dict.fromkeys(complaints))
        )
    return PROTOCOLS[worst], counts


def check_scoring(
    provenance: Provenance,
    scored: Shaped[Array, "_"],
    *,
    protocol: str = "strict",
    subject: Shaped[Array, "n"] | None = None,
    allow: Mapping[str, Allowance] | None = None,
) -> dict[str, int]:
    """Refuses to score volumes that a fitted step has seen.

    A step may not have seen
      1. the labels of a scored volume: no allowance lifts this;
      2. the values of a scored volume, unless it is declared "transductive";
      3. given `subject`, the labels of any other volume of a subject that is scored, unless it is
         declared "calibration" (an alignment on condition means of the subject's other runs).
    Without `subject`, new volumes of known subjects may be scored. Values of a scored subject's
    other volumes are always fair.

    Args:
      provenance: what was seen by all that the scores depend on.
      scored: volumes about to be scored: a bool mask [n] or int indices; at least one.
      protocol: one in `LEAKY_PROTOCOLS` only reports; any other is strict.
      subject: [n] int or string, the subject of each volume; pass it where new subjects are scored.
      allow: step -> its declared exception; steps that were not fitted are ignored.

    Returns:
      Step -> number of volumes that it saw against the rules, lifted or not. Empty if clean.

    Raises:
      LeakageError: a step broke a rule that was not lifted for it, and the protocol is strict.
      ValueError: nothing is scored, a shape or index is wrong, or an allowance is unknown.
    """
    n = provenance.num_volumes
    scored = row_mask("scored", scored, n)
    if not scored.any():
        raise ValueError(f"want at least one scored volume; got none of {n}")
    others = np.zeros(n, bool)
    if subject is not None:
        subject = per_volume("subject", subject, n)
        others = np.isin(subject, subject[scored]) & ~scored
    allow = dict(allow or {})
    for step, allowance in allow.items():
        if allowance not in get_args(Allowance):
            raise ValueError(f"want allow[{step!r}] in {get_args(Allowance)}; got {allowance!r}")

    report, complaints = {}, []
    for step, seen in provenance.steps.items():
        rules = [  # what it says, whose rows they are, the allowance that lifts it
            ("the values of {} scored volumes", seen.values & scored, "transductive"),
            ("the labels of {} scored volumes", seen.labels & scored, None),
            (
                "the labels of {} other volumes of their subjects",
                seen.labels & others,
                "calibration",
            ),
        ]
        broken = np.any([rows for _, rows, _ in rules], axis=0)
        if broken.any():
            report[step] = int(broken.sum())
        said = [
            f"{text.format(rows.sum())} (first {rows.argmax()})"
            for text, rows, lifted_by in rules
            if rows.any() and not (lifted_by and allow.get(step) == lifted_by)
        ]
        if said:
            complaints.append(f"step {step!r} saw " + " and ".join(said))
    if complaints and protocol not in LEAKY_PROTOCOLS:
        raise LeakageError(
            f"protocol {protocol!r} refuses to score {scored.sum()} volumes: "
            + "; ".join(complaints)
        )
    return report


def table(
    provenance: Provenance, subject: Shaped[Array, "n"] | None = None
) -> list[dict[str, Any]]:
    """One row per step for the report, in order of the name; plain data that JSON can hold.

    Args:
      provenance: what was seen.
      subject: [n] int or string, the subject of each volume.

    Returns:
      Rows {"step": name, "values": number of volumes whose values it saw, "labels": likewise,
      "subjects": sorted subjects of which it saw anything, or None where `subject` is None}.

    Raises:
      ValueError: `subject` has another shape than [n].
    """
    if subject is not None:
        subject = per_volume("subject", subject, provenance.num_volumes)
    return [
        {
            "step": step,
            "values": int(seen.values.sum()),
            "labels": int(seen.labels.sum()),
            "subjects": None
            if subject is None
            else np.unique(subject[seen.values | seen.labels]).tolist(),
        }
        for step, seen in provenance.steps.items()
    ]
