"""Masked cohorts for Experiment A: the voxels inside the brain, unit by unit."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from emojax import masking
from emojax.data import causal_settings, phases
from emojax.data.acquisitions import canonical, natural
from emojax.data.cohort import Cohort
from emojax.errors import InputError


class UnitRows:
    """Rows in memory, unit by unit; numbers of columns may differ. Rows of one unit are views."""

    def __init__(self, rows: Mapping[str, np.ndarray], blocks: Mapping[str, np.ndarray], n: int):
        """Args: each unit's rows, each unit's values [k, v], and the total number of rows."""
        self._blocks = list(blocks.values())
        self._unit, self._place = np.full(n, -1), np.zeros(n, int)
        for i, (name, own) in enumerate(rows.items()):
            self._unit[own], self._place[own] = i, np.arange(len(own))
            blocks[name].setflags(write=False)

    def __len__(self) -> int:
        return len(self._unit)

    def __getitem__(self, rows: np.ndarray) -> Float[np.ndarray, "k v"]:
        rows = np.arange(len(self))[rows]
        units, place = self._unit[rows], self._place[rows]
        first = self._blocks[units[0] if len(units) else 0]
        if len(units) and (units == units[0]).all():
            if (np.diff(place) == 1).all():
                place = slice(int(place[0]), int(place[-1]) + 1)
            return first[place]
        out = np.empty((len(rows), first.shape[1]), np.float32)
        for unit in np.unique(units):
            out[units == unit] = self._blocks[unit][place[units == unit]]
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedCohort:
    """A masked cohort by unit. A unit is what a fold leaves out: a subject or a run."""

    cohort: Cohort
    volumes: UnitRows  # [n] rows; values that are not finite are 0, and not in `inside`
    units: Shaped[np.ndarray, " n"]  # name of each row's unit
    run: Int[np.ndarray, " n"]  # index into `run_names`; equal numbers correspond between units
    inside: Mapping[str, Bool[np.ndarray, " v"]]  # unit -> finite voxels of its own brain mask
    nuisance: Float[np.ndarray, "n q"]  # time in run and motion, if all runs have them
    union: Bool[np.ndarray, "X Y Z"] | None  # columns of `volumes`; None if units have their own
    mean: Float[np.ndarray, "X Y Z"] | None  # mean volume
    run_names: tuple[str, ...]  # names over all units; run-1 and run-01 are the same
    # Unit -> the mask whose voxels are its columns, if there is no union.
    own_columns: Mapping[str, Bool[np.ndarray, "X Y Z"]] = dataclasses.field(default_factory=dict)

    @property
    def labels(self) -> Int[np.ndarray, " n"]:
        """[n] class of each row."""
        return self.cohort.labels

    @property
    def subject(self) -> Shaped[np.ndarray, " n"]:
        """[n] subject of each row."""
        return self.cohort.subject

    @property
    def affine(self) -> Float[np.ndarray, "4 4"] | None:
        """Voxel -> mm of the grid that all volumes share, if there is one."""
        return self.cohort.common_affine

    @property
    def prior(self) -> Sequence[Any]:
        """Steps that saw the cohort before it was read."""
        return self.cohort.prior

    @property
    def run_index(self) -> Int[np.ndarray, " n"]:
        """[n] run of each row, unique over subjects."""
        return self.cohort.run_index

    @property
    def frame(self) -> Int[np.ndarray, " n"]:
        """[n] position of each row in its run."""
        return self.cohort.frame

    @property
    def names(self) -> list[str]:
        """The units, sorted."""
        return list(self.inside)

    def rows(self, unit: str) -> Int[np.ndarray, " k"]:
        """Returns the rows of a unit, in order of run and time."""
        return np.flatnonzero(self.units == unit)

    def other_mask(self, test: Int[np.ndarray, " t"], seed: int) -> dict[str, np.ndarray] | None:
        """Returns the test subject's brain mask without a random half of its voxels.

        Args:
          test: scored rows.
          seed: seed for choosing voxels.

        Returns:
          Subject -> mask; None if there are no masks, or if other rows of the subject train, so
          that a change of its mask may change the training.
        """
        name = str(self.units[test[0]])
        subject = str(self.subject[test[0]])
        if self.union is None or name != subject:
            return None
        inside = self.inside[name]
        inside = inside & (np.random.default_rng(seed).random(inside.size) < 0.5)
        return {subject: np.asarray(masking.unmask(inside.astype(np.float32), self.union)) > 0}


def read(
    cohort: Cohort, mask: Mapping[str, float], units: str, like: MaskedCohort | None = None
) -> MaskedCohort:
    """Reads the masked values of all labelled volumes once.

    Args:
      cohort: the cohort.
      mask: options of `masking.brain_mask`.
      units: "subject" or "run".
      like: another masked cohort, whose columns are used; None: the voxels in any unit's mask.

    Raises:
      InputError: another kind of unit, or a mask cannot be made.
    """
    unit = cohort.subject
    if units == "run":
        unit = np.char.add(np.char.add(cohort.subject, "/"), cohort.run)
    elif units != "subject":
        raise InputError("units", repr(units), "subject or run")
    names = np.unique(unit).tolist()
    rows = {name: np.flatnonzero(unit == name) for name in names}
    is_vector = cohort.runs[0].frames.ndim == 2
    masks, means = ({}, []) if is_vector else _masks(cohort, mask, rows)
    union, mean = None, None
    if len({volume.shape for volume in means}) == 1:  # otherwise subjects have their own columns
        union, mean = np.any(list(masks.values()), axis=0), np.mean(means, axis=0)
    if like is not None:
        union = like.union
    run, run_names = _numbered(cohort.run) if units == "subject" else (np.zeros(len(unit), int), ())
    blocks, inside, nuisance = {}, {}, []
    for name, own in rows.items():
        part = cohort.select(own)
        columns = masks.get(name) if union is None else union
        values = part.features(columns)
        finite = np.isfinite(values).all(0)
        inside[name] = finite if columns is None else finite & masks[name][columns]
        blocks[name] = values if finite.all() else np.nan_to_num(values)
        nuisance.append(_nuisance(part))
    columns = min(block.shape[1] for block in nuisance)
    ordered = np.concatenate(list(rows.values()))
    together = np.empty((len(unit), columns), np.float32)
    together[ordered] = np.concatenate([block[:, :columns] for block in nuisance])
    volumes = UnitRows(rows, blocks, len(unit))
    own = masks if union is None else {}
    return MaskedCohort(cohort, volumes, unit, run, inside, together, union, mean, run_names, own)


def _numbered(names: Shaped[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], tuple[str, ...]]:
    """Returns the number of each row's run, by its name, and the names in order."""
    spelled = {canonical(name): name for name in sorted(set(names.tolist()), reverse=True)}
    number = {name: i for i, name in enumerate(sorted(spelled, key=natural))}
    return np.array([number[canonical(n)] for n in names]), tuple(spelled[name] for name in number)


def _masks(cohort: Cohort, options, rows):
    """Returns each unit's mask (from the source or its mean volume), and the mean volumes."""
    masks, means = {}, []
    for name, own in rows.items():
        part = cohort.select(own)
        if any(map(causal_settings.is_prior, part.prior)):  # cleaned values vary around 0
            part = dataclasses.replace(part, runs=tuple(map(phases.uncleaned, part.runs)))
        total = np.zeros(part.shape)
        for _, values in part.chunks():
            total += np.nan_to_num(values).sum(0)
        means.append(total / len(own))
        given = cohort.masks.get(part.subject[0])
        try:
            made = masking.brain_mask(means[-1], **options) if given is None else given
        except ValueError as error:
            raise InputError(f"mask of {name}", str(error), "a brain in its mean volume") from None
        masks[name] = np.asarray(made)
    return masks, means


def _nuisance(part: Cohort):
    """Returns time in run and motion, which may decode without any image."""
    runs = [part.runs[i] for i in part.run_index]
    columns = [np.zeros((len(runs), 0))]
    in_time = all(run.tr is not None or run.starts is not None for run in runs)
    if in_time:  # rows without times may be sorted by class
        columns.append(part.time)
    if all(run.motion is not None for run in runs):
        motion = [run.motion[frame] for run, frame in zip(runs, part.frame, strict=True)]
        columns.append(np.asarray(motion))
    return np.column_stack(columns).astype(np.float32)
