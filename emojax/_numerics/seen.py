"""The record of what fitted steps have seen, as masks over a cohort's volumes."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Shaped

from emojax._numerics.checks import Array


class LeakageError(Exception):
    """An error: a fitted step has seen a volume that is about to be scored."""

    __module__ = "emojax.provenance"  # its public place, which tracebacks name


class Seen(NamedTuple):
    """The volumes that one step has seen."""

    values: Bool[np.ndarray, "n"]
    labels: Bool[np.ndarray, "n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Provenance:
    """The record of what steps have seen of a cohort; made by `empty` and `of`, combined with `|`.

    `|` joins by name: a step fitted twice has seen what either fit saw. It is commutative,
    associative and idempotent, and `empty` is its neutral element. Two records are equal if they
    have the same steps and each step has seen the same volumes.
    """

    num_volumes: int
    _steps: tuple[tuple[str, Seen], ...]  # in order of the name

    @classmethod
    def empty(cls, num_volumes: int) -> "Provenance":
        """Returns a record without steps, over a cohort of `num_volumes` volumes."""
        return cls(num_volumes, ())

    @classmethod
    def of(
        cls,
        step: str,
        num_volumes: int,
        values: Shaped[Array, "_"] | None = None,
        labels: Shaped[Array, "_"] | None = None,
    ) -> "Provenance":
        """Returns the record of one step.

        Args:
          step: name of the step, as shown in errors and the report.
          num_volumes: n, the number of volumes of the cohort.
          values: volumes whose values it saw: a bool mask [n], int indices, or None for none.
            Integers are always indices, even if they are all 0 or 1.
          labels: volumes whose labels it saw, likewise.

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
                        row_mask("values", values, num_volumes),
                        row_mask("labels", labels, num_volumes),
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
        """Returns the record of what either has seen.

        Raises:
          ValueError: the records are over cohorts of different sizes.
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
        return frozen(np.any(masks, axis=0) if masks else np.zeros(self.num_volumes, bool))


def frozen(mask: np.ndarray) -> np.ndarray:
    """Returns the same array, made read-only."""
    mask.setflags(write=False)
    return mask


def per_volume(name: str, x: ArrayLike, n: int) -> np.ndarray:
    """Returns an array after checking that it has one value per volume.

    Raises:
      ValueError: its shape is not [n].
    """
    x = np.asarray(x)
    if x.shape != (n,):
        raise ValueError(f"want {name} [{n}], one per volume; got shape {x.shape}")
    return x


def row_mask(name: str, rows: ArrayLike | None, n: int) -> np.ndarray:
    """Returns a new read-only bool mask [n], from a mask, indices or None."""
    mask = np.zeros(n, bool)
    rows = np.asarray([] if rows is None else rows)
    if rows.dtype == bool:
        mask |= per_volume(f"the mask of {name}", rows, n)
    elif rows.size:
        if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
            got = f"{rows.dtype}{list(rows.shape)}"
            raise ValueError(f"want {name} as a bool mask or 1-d int indices; got {got}")
        if rows.min() < 0 or rows.max() >= n:
            raise ValueError(
                f"want indices of {name} in [0, {n}); got values from {rows.min()} to {rows.max()}"
            )
        mask[rows] = True
    return frozen(mask)
