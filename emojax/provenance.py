"""Provenance: a record of every read, and checks that no scored data were seen.

    ledger = Ledger(cohort)
    x, y = ledger.values("voxels", train), ledger.labels("voxels", train)
    protocol, counts = classify(ledger.seen(test), subject=cohort.subject)

Everything runs on the host, with NumPy only. A step is anything fitted to or chosen from data: a
mask, the voxels, an alignment, a scaler, the network's weights, the epoch to keep.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Shaped

from emojax._numerics.checks import Array
from emojax._numerics.seen import LeakageError, Provenance, Seen, per_volume, row_mask
from emojax.audit import Audited, audit
from emojax.ledger import Ledger

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
PROTOCOLS: tuple[str, ...] = get_args(Protocol)  # by how much was seen of the test subject

BEFORE = " before they were read, which only a leaky protocol may score (A: protocols=paper)"
LEAKY_PROTOCOLS = frozenset({"paper"})  # these report a leak; all others refuse it


def classify(
    seen: Sequence[tuple[np.ndarray, Provenance]],
    *,
    subject: Shaped[Array, "n"],
    unit: Shaped[Array, "n"] | None = None,
    claimed: str = "leaky",
    name: str = "",
    prior: Provenance | None = None,
) -> tuple[str, dict[str, int]]:
    """Returns the protocol class that a record belongs to; raises if it is worse than claimed.

    - leaky: a step saw labels of scored volumes, or of other volumes of their unit.
    - transductive: a step saw values of scored volumes, but none of their labels.
    - calibrated: a step saw other volumes of the scored subject.
    - strict: no fitted step has seen anything of the scored subject.

    Args:
      seen: scored rows with the record behind their scores, as from `Ledger.seen`.
      subject: [n] subject of each volume.
      unit: [n] group whose labels may not be shared, e.g. the run; None: each volume is a group.
      claimed: class that the protocol claims.
      name: name of the protocol, for the message.
      prior: what was seen before the cohort was read, if `seen` does not include it. Values that it
        saw make any protocol transductive and break no claim; labels that it saw do.

    Returns:
      The class, and step -> number of scored volumes, or volumes of their unit, that it saw.

    Raises:
      LeakageError: the record is worse than claimed; the message names steps and volumes.
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
      3. given `subject`, the labels of any other volume of a scored subject, unless it is declared
         "calibration" (an alignment on condition means of the subject's other runs).
    Without `subject`, new volumes of known subjects may be scored. The values of a scored subject's
    other volumes are always allowed.

    Args:
      provenance: record of all steps that the scores depend on.
      scored: volumes about to be scored: a bool mask [n] or int indices; at least one.
      protocol: one in `LEAKY_PROTOCOLS` only reports; any other is strict.
      subject: [n] int or string, the subject of each volume; pass it when scoring new subjects.
      allow: step -> its declared exception; steps that were not fitted are ignored.

    Returns:
      Step -> number of volumes that it saw against the rules, whether lifted or not; empty if none.

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
        rules = [  # (text, rows that break the rule, allowance that lifts it)
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
    """Returns one row per step for the report, in order of the name, as plain data for JSON.

    Args:
      provenance: record of what was seen.
      subject: [n] int or string, the subject of each volume.

    Returns:
      Rows {"step": name, "values": number of volumes whose values it saw, "labels": likewise,
      "subjects": sorted subjects of which it saw anything, or None if `subject` is None}.

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
