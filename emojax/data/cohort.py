"""The data of a study: one row for each labelled volume, with values left on disk.

cohort = sources.load(config)
cohort.labels, cohort.subject, cohort.run, cohort.time   # [n] each
cohort.volumes[rows]                                     # reads rows as float32 [k, X, Y, Z]
x = cohort.features(mask)                                # [n, voxels], C order of the mask
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from emojax import shown
from emojax.data import belonging, copies, grid, overview
from emojax.data.acquisitions import natural
from emojax.data.losses import Loss
from emojax.data.run import Rows, Run
from emojax.errors import InputError

COLUMNS = ("subject", "run", "volumes", "unused")  # columns of `counts` beside the classes
NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # control characters, invalid UTF-8, line separators


class Prior(NamedTuple):
    """A step before the cohort was read that saw all of its values, and perhaps all labels."""

    step: str
    labels: bool = False

    def __str__(self) -> str:
        return self.step


class Volumes:
    """The volumes of a cohort, which are read on indexing: rows -> float32 [k, ...]."""

    def __init__(self, cohort: "Cohort"):
        self._cohort = cohort

    def __len__(self) -> int:
        return len(self._cohort.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, X, Y, Z) or (n, voxels)."""
        return (len(self), *self._cohort.shape)

    dtype = np.dtype(np.float32)

    def __getitem__(self, rows: Rows | int) -> np.ndarray:
        rows = np.arange(len(self))[rows]
        if rows.ndim == 0:
            return self[rows[None]][0]
        cohort, out = self._cohort, np.empty((len(rows), *self._cohort.shape), np.float32)
        for index in np.unique(cohort.run_index[rows]):
            here = np.flatnonzero(cohort.run_index[rows] == index)
            out[here] = cohort.runs[index].read(cohort.frame[rows[here]])
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("want copy=True or None: volumes are read from disk")
        return self[:].astype(dtype or self.dtype, copy=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """Labelled volumes of one or more subjects.

    `runs` holds all volumes; the row vectors select the labelled ones that decoding uses. `masks`
    are the subjects' own brain masks, if the source has them; `prior` declares earlier steps that
    have already changed the values. `factors` are columns of the design beside the labels.
    """

    runs: tuple[Run, ...]
    classes: tuple[str, ...]
    labels: Int[np.ndarray, " n"]  # int32, index into `classes`
    run_index: Int[np.ndarray, " n"]  # int32, index into `runs`: unique over subjects
    frame: Int[np.ndarray, " n"]  # int32, index of the volume in its run, from 0
    masks: Mapping[str, Bool[np.ndarray, "X Y Z"]] = dataclasses.field(default_factory=dict)
    prior: tuple[Prior, ...] = ()
    factors: Mapping[str, Shaped[np.ndarray, " n"]] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)  # subject -> its group
    lost: tuple[Loss, ...] = ()  # counts of events and of those that label no volume
    notes: tuple[str, ...] = ()  # sentences for console and report, e.g. about volumes left out

    def __len__(self) -> int:
        """Returns the number of labelled volumes."""
        return len(self.labels)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return shown.text(*overview.facts(self))

    def _repr_html_(self) -> str:
        return shown.page(*overview.facts(self))

    def to_frame(self) -> pd.DataFrame:
        """Returns a row for each labelled volume: subject, run, frame, seconds, label, factors."""
        return overview.frame(self)

    @property
    def volumes(self) -> Volumes:
        """The values, read on indexing."""
        return Volumes(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one volume: (X, Y, Z) or (voxels,).

        Raises:
          InputError: the shapes of runs with labelled volumes differ.
        """
        runs = [self.runs[i] for i in np.unique(self.run_index)]
        shapes = {run.frames.shape[1:]: run for run in runs}
        if len(shapes) > 1:
            found = ", ".join(f"{s} ({run.place})" for s, run in shapes.items())
            expected = f"one shape for all subjects: {belonging.OWN}"
            raise InputError("volumes of the cohort", f"shapes {found}", expected)
        return next(iter(shapes))

    @property
    def subject(self) -> np.ndarray:
        """[n] str, subject of each volume."""
        return np.array([run.subject for run in self.runs])[self.run_index]

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects that have labelled volumes, sorted."""
        return tuple(np.unique(self.subject).tolist())

    @property
    def run(self) -> np.ndarray:
        """[n] str, run of each volume; unique within a subject only, see `run_index`."""
        return np.array([run.name for run in self.runs])[self.run_index]

    @property
    def time(self) -> Float[np.ndarray, " n"]:
        """[n] s from the start of the run to that of the volume; row numbers if TR is None."""
        out = np.zeros(len(self.frame))
        for index, run in enumerate(self.runs):
            here = self.run_index == index
            step = 1.0 if run.tr is None else run.tr
            frame = self.frame[here]
            out[here] = frame * step if run.starts is None else run.starts[frame]
        return out

    @property
    def tr(self) -> float | None:
        """The TR of all runs in s, or None if they differ or have none."""
        trs = {run.tr for run in self.runs}
        return trs.pop() if len(trs) == 1 else None

    @property
    def hashes(self) -> dict[str, str]:
        """Source file -> sha256 of its content."""
        return {path: digest for run in self.runs for path, digest in run.hashes.items()}

    @property
    def common_affine(self) -> Float[np.ndarray, "4 4"] | None:
        """Voxel -> mm if all subjects share it, else None."""
        return None if _grids_differ(self.runs) else self.runs[0].affine

    def affine(self, subject: str) -> Float[np.ndarray, "4 4"] | None:
        """Returns voxel -> mm of a subject, which all its runs share, or None."""
        return next(run.affine for run in self.runs if run.subject == subject)

    def select(self, rows: Rows) -> "Cohort":
        """Returns the same runs with some of the labelled volumes.

        Args:
          rows: bool mask [n], indices or a slice of the labelled volumes.
        """
        rows = np.arange(len(self.labels))[rows]
        vectors = {name: getattr(self, name)[rows] for name in ("labels", "run_index", "frame")}
        factors = {name: values[rows] for name, values in self.factors.items()}
        return dataclasses.replace(self, **vectors, factors=factors)

    def with_labels(self, labels: Int[np.ndarray, " n"]) -> "Cohort":
        """Returns the same volumes with other labels.

        Raises:
          ValueError: the labels are not n class numbers.
        """
        labels = np.asarray(labels)
        if (
            labels.shape != self.labels.shape
            or labels.dtype.kind not in "iu"
            or not ((labels >= 0) & (labels < len(self.classes))).all()
        ):
            raise ValueError(
                f"want {self.labels.size} integers below {len(self.classes)}; got "
                f"{labels.dtype} {labels.shape} from {labels.min(initial=0)} to "
                f"{labels.max(initial=0)}"
            )
        return dataclasses.replace(self, labels=labels.astype(np.int32))

    def with_masks(self, masks: Mapping[str, Bool[np.ndarray, "X Y Z"]]) -> "Cohort":
        """Returns the same volumes with other brain masks, subject -> [X, Y, Z]."""
        return dataclasses.replace(self, masks=dict(masks))

    def replace_row(self, row: int, values: Float[np.ndarray, "..."]) -> "Cohort":
        """Returns the cohort, in memory, with new values of one labelled volume.

        All other volumes keep their exact values; only the frames of this run are copied.

        Args:
          row: index of the labelled volume, below n.
          values: [X, Y, Z] or [voxels], in the units of the scan; stored as float32.

        Raises:
          ValueError: the values have another shape than the volume.
        """
        index = int(self.run_index[row])
        changed = self.runs[index].replace(int(self.frame[row]), values)
        runs = (*self.runs[:index], changed, *self.runs[index + 1 :])
        return dataclasses.replace(self, runs=runs)

    def chunks(self, size: int = 64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (rows [k], values float32 [k, ...]) run by run, every row once, with k <= size."""
        order = np.lexsort((self.frame, self.run_index))
        cuts = np.flatnonzero(np.diff(self.run_index[order])) + 1
        for rows in np.split(order, cuts):
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                yield part, self.runs[self.run_index[part[0]]].read(self.frame[part])

    def features(self, mask: Bool[np.ndarray, "X Y Z"] | None = None) -> Float[np.ndarray, "n v"]:
        """Returns all labelled volumes inside a mask, float32, reading a chunk at a time.

        Args:
          mask: [X, Y, Z] bool; None for a cohort of vectors, which are returned unchanged.

        Raises:
          ValueError: the mask has another shape than the volumes.
        """
        if mask is None:
            return self.volumes[:]
        if mask.shape != self.shape:
            raise ValueError(f"want a mask of shape {self.shape} as the volumes; got {mask.shape}")
        out = np.empty((len(self.labels), int(mask.sum())), np.float32)
        for rows, values in self.chunks():
            for row, volume in zip(rows, values, strict=True):
                out[row] = volume[mask]
        return out

    def counts(self) -> list[dict[str, Any]]:
        """Returns a row for each run, for print and report: subject, run, volumes, class counts."""
        rows = []
        names = [f"class {name}" if name in COLUMNS else name for name in self.classes]
        for index, run in enumerate(self.runs):
            here = np.bincount(self.labels[self.run_index == index], minlength=len(self.classes))
            per_class = dict(zip(names, here.tolist(), strict=True))
            scanned = {"subject": run.subject, "run": run.name, "volumes": len(run.frames)}
            rows.append(scanned | per_class | {"unused": len(run.frames) - int(here.sum())})
        return rows


def build(
    runs: Sequence[Run],
    classes: Sequence[str],
    labels: Sequence[Int[np.ndarray, " _"]],
    masks: Mapping[str, Bool[np.ndarray, "X Y Z"]] | None = None,
    *,
    factors: Mapping[str, Sequence[Shaped[np.ndarray, " _"]]] | None = None,
    groups: Mapping[str, str] | None = None,
    lost: Sequence[Loss] = (),
    notes: Sequence[str] = (),
) -> Cohort:
    """Builds a cohort from whole runs and one label per volume.

    Images that differ from the first in the order or direction of their axes are turned, without
    loss, so that voxels correspond in mm.

    Args:
      runs: all runs in any order; they are sorted by subject and name, with numbers as numbers.
      classes: names of the classes, in the order of their numbers.
      labels: for each run [t] int, the class of each volume, -1 for none.
      masks: subject -> its own brain mask, on the grid of its first given run.
      factors: column of the design -> for each run [t] str.
      groups: subject -> its group.
      lost: counts of events and of those that label no volume.
      notes: sentences for console and report.

    Raises:
      InputError: there is no run; a name is not text; a subject has two runs of one name, or runs
        of different shape, grid or TR; two runs have the same values; labels have another length
        than their run; or no volume has a label.
    """
    if not runs:
        raise InputError("cohort", "no run", "at least one")
    for run in runs:
        for name in (run.subject, run.name, *classes):
            if any(unicodedata.category(letter) in NO_TEXT for letter in name):
                raise InputError(run.place, f"the name {name!r}", "text in one line")
    runs, masks, said = belonging.turn_runs(runs, masks or {})
    order = sorted(range(len(runs)), key=lambda i: (runs[i].subject, natural(runs[i].name)))
    runs, labels = tuple(runs[i] for i in order), [labels[i] for i in order]
    for previous, run in itertools.pairwise(runs):
        if previous.subject == run.subject:
            belonging.check_same(previous, run)
    for run, label in zip(runs, labels, strict=True):
        if label.shape != (len(run.frames),):
            raise InputError(
                run.place,
                f"{len(run.frames)} volumes and {label.size} labels",
                "one label per volume",
            )
    copies.check(runs)
    frame = np.concatenate([np.arange(len(run.frames)) for run in runs])
    run_index = np.repeat(np.arange(len(runs)), [len(run.frames) for run in runs])
    label = np.concatenate(labels)
    used = label >= 0
    if not used.any():
        raise belonging.without_volumes(classes, len(runs), lost)
    columns = {
        name: np.concatenate([values[i] for i in order])[used]
        for name, values in (factors or {}).items()
    }
    if len({run.subject for run in runs}) > 1 and _grids_differ(runs):
        said = [*said, "subjects have grids of their own: their voxels do not correspond in mm"]
    vectors = (x[used].astype(np.int32) for x in (label, run_index, frame))
    return Cohort(
        runs,
        tuple(classes),
        *vectors,
        masks=masks,
        factors=columns,
        groups=dict(groups or {}),
        lost=tuple(lost),
        notes=(*notes, *said),
    )


def _grids_differ(runs: Sequence[Run]) -> bool:
    """Returns whether images are not all on one grid; False for vectors."""
    first, shape = runs[0].affine, runs[0].frames.shape[1:]
    return len(shape) == 3 and not all(
        run.frames.shape[1:] == shape and grid.same(run.affine, first, shape) for run in runs
    )
