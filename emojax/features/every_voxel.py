"""Every voxel of the training units' common mask, for classical classifiers."""

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from emojax.features import kernels
from emojax.features.across_subjects import Settings, centres
from emojax.provenance import Ledger
from emojax.splits import Fold

Read = Callable[[Int[np.ndarray, " k"]], Float[np.ndarray, "k v"]]


class EveryVoxel(NamedTuple):
    """Standardised voxels, read on demand."""

    read: Read  # for training rows
    read_test: Read  # for test rows
    size: int  # v, the number of voxels
    scale: tuple[Float[np.ndarray, " v"], Float[np.ndarray, " v"]]  # mean, sd of centred voxels


def every_voxel(
    ledger: Ledger, fold: Fold, settings: Settings, mask: Bool[np.ndarray, " v"]
) -> EveryVoxel:
    """Centres voxels like regime "none", and standardises them by the training rows.

    Args:
      ledger: ledger of a `MaskedCohort`.
      fold: whole units that train and are tested.
      settings: settings of a regime without alignment.
      mask: columns inside every training unit's mask.
    """
    units, run, columns = ledger.design("units"), ledger.design("run"), np.flatnonzero(mask)
    parts = [np.flatnonzero(units == name) for name in dict.fromkeys(units[fold.train])]
    means = []  # (rows, mean to subtract from them)
    if centres(ledger, settings):
        means += [(rows, ledger.values("baselines", rows, columns).mean(0)) for rows in parts]
        rows = np.flatnonzero(np.isin(units, units[fold.test]))
        for number in np.unique(run[rows]):
            here, others = rows[run[rows] == number], rows[run[rows] != number]
            part = ledger.scoring(here)
            means.append((here, part.values("centring", others, columns).mean(0)))

    def centred(read: Read, rows) -> np.ndarray:
        x = read(rows)[:, columns]  # a copy
        for own, mean in means:
            if (here := np.isin(rows, own)).any():
                x[here] -= mean
        return x

    granted, scored = ledger.reader({"baselines": fold.train}), ledger.scored_reader(fold.test)
    total, squares = np.zeros(len(columns)), np.zeros(len(columns))
    for rows in parts:
        total += centred(granted, rows).sum(0, np.float64)
    mean = total / len(fold.train)
    for rows in parts:
        squares += ((centred(granted, rows) - mean) ** 2).sum(0)
    sd = np.sqrt(squares / len(fold.train))
    mean, sd = mean.astype(np.float32), np.where(sd > 0, sd, 1).astype(np.float32)
    ledger.keep("baselines", (mean, sd))

    def reader(read: Read) -> Read:
        return lambda rows: (centred(read, rows) - mean) / sd

    return EveryVoxel(reader(granted), reader(scored), len(columns), (mean, sd))


def inputs(
    every: EveryVoxel,
    fold: Fold,
    rows: Int[np.ndarray, " k"],
    wanted: Collection[str],
    squared_norm: float,
) -> dict[str, tuple[Float[np.ndarray, "k m"], Float[np.ndarray, "t m"]]]:
    """Returns the inputs of classical classifiers: training rows and test rows.

    Classifiers that use only distances and angles get coordinates in the span of the training rows,
    if there are fewer of these than voxels; their predictions are the same (see `kernels`).

    Args:
      every: voxels of the fold.
      fold: the fold.
      rows: training rows; a row may occur several times.
      wanted: needs of classifiers, see `baselines.Baseline`.
      squared_norm: mean squared norm of the training rows' coordinates: the number of standardised
        voxels that the classifiers' settings are meant for.

    Returns:
      Needs -> (training rows, test rows).
    """
    x, x_test = every.read(fold.train), every.read_test(fold.test)
    found = dict.fromkeys(wanted, (x, x_test))
    if "features" in wanted and len(x) < every.size:
        found["features"] = kernels.span(x, x_test, squared_norm)
    place = dict(zip(fold.train.tolist(), range(len(x)), strict=True))
    again = [place[row] for row in rows.tolist()]
    return {needs: (train[again], test) for needs, (train, test) in found.items()}
