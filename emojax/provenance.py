"""What each fitted step has seen, and the refusal to score what it has seen.

    seen = Provenance.of("anova", n, values=train, labels=train)
    seen |= Provenance.of("alignment", n, values=test)
    check_scoring(seen, test, subject=subject, allow={"alignment": "transductive"})

Host side, NumPy only. A step is whatever was fitted or chosen from data: a mask, the voxels, an
alignment, a scaler, the network's weights, the epoch to keep.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Shaped

from emojax._numerics.checks import Array

Allowance = Literal["transductive", "calibration"]

LEAKY_PROTOCOLS = frozenset({"paper"})  # these report a leak; all others refuse it


class LeakageError(Exception):
    """A volume about to be scored has been seen by a fitted step."""


class Seen(NamedTuple):
    """Which volumes one step has seen."""

    values: Bool[np.ndarray, "n"]
    labels: Bool[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Provenance:
    """What the steps so far have seen of a cohort; made by `empty` and `of`, combined with `|`.

    `|` joins by name: the same step fitted twice has seen what either fit saw. It is commutative,
    associative and idempotent, and `empty` is its neutral element. Two are equal if they have the
    same steps and each step has seen the same volumes.
    """

    num_volumes: int
    _steps: tuple[tuple[str, Seen], ...]  # in order of the name

    @classmethod
    def empty(cls, num_volumes: int) -> "Provenance":
        """Nothing fitted yet, over a cohort of `num_volumes` volumes."""
        return cls(num_volumes, ())

    @classmethod
    def of(
        cls,
        step: str,
        num_volumes: int,
        values: Shaped[Array, "_"] | None = None,
        labels: Shaped[Array, "_"] | None = None,
    ) -> "Provenance":
        """One step.

        Args:
          step: its name, as errors and the report show it.
          num_volumes: n, of the cohort.
          values: the volumes whose values it saw: a bool mask [n], int indices, or None for none.
            Integers are always indices, also where they are all 0 or 1.
          labels: the volumes whose labels it saw, likewise.

        Raises:
          ValueError: the step has no name, a mask is not of length n, or an index is not below n.
        """
        if not step:
            raise ValueError(f"want a name for the step; got {step!r}")
        return cls(
            num_volumes,
            (
                (
                    step,
                    Seen(
                        _mask("values", values, num_volumes), _mask("labels", labels, num_volumes)
                    ),
                ),
            ),
        )

    @property
    def steps(self) -> dict[str, Seen]:
        """Name of each step -> what it saw, in order of the name."""
        return dict(self._steps)

    @property
    def values(self) -> Bool[np.ndarray, "n"]:
        """[n] bool: volumes whose values any step saw."""
        return self._union(*(seen.values for _, seen in self._steps))

    @property
    def labels(self) -> Bool[np.ndarray, "n"]:
        """[n] bool: volumes whose labels any step saw."""
        return self._union(*(seen.labels for _, seen in self._steps))

    @property
    def seen(self) -> Bool[np.ndarray, "n"]:
        """[n] bool: volumes whose values or labels any step saw."""
        return self._union(self.values, self.labels)

    def __or__(self, other: "Provenance") -> "Provenance":
        """What either has seen.

        Raises:
          ValueError: they are over cohorts of different sizes.
        """
        if not isinstance(other, Provenance):
            return NotImplemented
        if self.num_volumes != other.num_volumes:
            raise ValueError(
                f"want provenances over one cohort; got {self.num_volumes} and {other.num_volumes} "
                "volumes"
            )
        joined = self.steps
        for step, new in other._steps:
            old = joined.get(step, new)
            joined[step] = Seen(*(self._union(a, b) for a, b in zip(old, new, strict=True)))
        return Provenance(self.num_volumes, tuple(sorted(joined.items(), key=lambda item: item[0])))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Provenance):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self):
        return self.num_volumes, tuple(
            (step, seen.values.tobytes(), seen.labels.tobytes()) for step, seen in self._steps
        )

    def _union(self, *masks):
        return _frozen(np.any(masks, axis=0) if masks else np.zeros(self.num_volumes, bool))


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
    scored = _mask("scored", scored, n)
    if not scored.any():
        raise ValueError(f"want at least one scored volume; got none of {n}")
    others = np.zeros(n, bool)
    if subject is not None:
        subject = _per_volume("subject", subject, n)
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
        subject = _per_volume("subject", subject, provenance.num_volumes)
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


def _frozen(mask: np.ndarray) -> np.ndarray:
    mask.setflags(write=False)
    return mask


def _per_volume(name: str, x, n: int) -> np.ndarray:
    x = np.asarray(x)
    if x.shape != (n,):
        raise ValueError(f"want {name} [{n}], one per volume; got shape {x.shape}")
    return x


def _mask(name: str, rows, n: int) -> np.ndarray:
    """A read-only bool mask [n] of its own, from a mask, indices or None."""
    mask = np.zeros(n, bool)
    rows = np.asarray([] if rows is None else rows)
    if rows.dtype == bool:
        mask |= _per_volume(f"the mask of {name}", rows, n)
    elif rows.size:
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            got = f"{rows.dtype}{list(rows.shape)}"
            raise ValueError(f"want {name} as a bool mask or 1-d int indices; got {got}")
        if rows.min() < 0 or rows.max() >= n:
            raise ValueError(
                f"want indices of {name} in [0, {n}); got values from {rows.min()} to {rows.max()}"
            )
        mask[rows] = True
    return _frozen(mask)
