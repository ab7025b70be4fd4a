"""Features of one fold across subjects: mask, voxels, alignment, scaler.

Everything is fitted to the fold's training units. The monitored unit (whose scores choose the
epoch) and the test unit enter the common space in the same way, by the alignment regime. With
`Leaks`, a step is deliberately fitted to all units, as in the authors' published procedure.

All values and labels come from a `Ledger`, which records what each step has seen.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from emojax import alignment, anova
from emojax.errors import InputError
from emojax.features import common_space, masked, parcels
from emojax.features.common_space import Space, Team
from emojax.provenance import Ledger
from emojax.splits import Fold

MATCHES = ("time", "class")
Choose = Callable[[Ledger, str, int | None], np.ndarray]  # see `chooser`


class Settings(NamedTuple):
    """Settings of feature extraction."""

    keep: int  # number of voxels
    num_classes: int
    regime: str  # name in `alignment.REGIMES`
    match: str = "time"  # how rows correspond between units: "time", or "class" means per run
    own_voxels: bool = False  # each unit has its own voxels, if columns do not correspond
    centre: bool = True  # centre each unit's voxels for F-scores, and if nothing is aligned
    options: tuple[tuple[str, object], ...] = (("level2_iters", 1),)  # of `hyperalignment.fit`
    parcels: str = "ward:50"  # for regime "piecewise", see `parcels.parse`
    piecewise: str = "procrustes"  # `method` of `piecewise.fit`
    after: bool = False  # "piecewise": align all voxels, then choose by their aligned values

    @property
    def chooses_after(self) -> bool:
        """True if voxels are chosen after the alignment."""
        return self.after and self.regime == "piecewise"


class Leaks(NamedTuple):
    """Steps deliberately fitted to all units, including the test unit."""

    voxels: bool = False
    alignment: bool = False


STRICT = Leaks()


class Features(NamedTuple):
    """The scaled features of one fold, and the fitted steps behind them."""

    x: Float[np.ndarray, "n m"]  # rows of the cohort; NaN for rows that are not in the fold
    voxels: Int[np.ndarray, " m"] | None  # columns; None if each unit has its own
    isc: tuple[float, float]  # correlation between training units before and after alignment
    scaler: tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]  # mean and sd
    space: Space | None  # without the maps of single units, which are in its model
    mask: Bool[np.ndarray, " v"] | None  # of all training units; None if each has its own voxels
    columns: Int[np.ndarray, " p"] | None  # input columns of the maps: `voxels`, or all candidates


def fold_features(
    ledger: Ledger, fold: Fold, settings: Settings, leaks: Leaks = STRICT
) -> Features:
    """Computes everything that a fold's classifiers see.

    Args:
      ledger: ledger of a `MaskedCohort`.
      fold: whole units that train, are monitored and are tested.
      settings: see `Settings`.
      leaks: steps fitted to all units.

    Raises:
      InputError: fewer usable voxels than `keep`, or rows that do not match.
    """
    team = common_space.team_of(ledger, fold)
    allowed = None if settings.own_voxels else _common_mask(ledger, team.train)
    fitted = tuple(team.rows) if leaks.voxels else team.train
    choose = chooser(ledger, team, fitted, settings, allowed)
    space, chosen, aligned = _align(ledger, team, choose, settings, leaks)
    x = np.full((ledger.cohort_size, settings.keep), np.nan, np.float32)
    for name in aligned:
        x[team.rows[name]] = aligned[name]
    if not leaks.alignment:
        place = common_space.placer(space, choose, settings, centres(ledger, settings))
        if team.monitor not in ("", team.test):
            place(ledger, team, team.monitor, x, scoring=False)
        if team.test:
            place(ledger, team, team.test, x, scoring=True)
    mean, sd = _fit_scaler(ledger.derive(x), fold, by_column=space is None)
    ledger.keep("scaler", (mean, sd))
    columns = None if settings.own_voxels else choose(ledger, team.test, None)
    voxels = columns
    if columns is not None and space is not None and space.places is not None:
        voxels = columns[space.places]
    return Features(
        ((x - mean) / sd).astype(np.float32),
        voxels,
        (_isc(chosen, team, settings), _isc(aligned, team, settings)),
        (mean, sd),
        space and space._replace(maps={}),
        allowed,
        columns,
    )


def _align(ledger: Ledger, team: Team, choose: Choose, settings: Settings, leaks: Leaks):
    """Reads the units that the template (or, without one, the scaler) is fitted to.

    Returns:
      The common space or None, and the chosen voxels of each unit before and after the alignment.
    """
    names = tuple(team.rows) if leaks.alignment else team.train
    has_template = leaks.alignment or alignment.REGIMES[settings.regime].needs_template
    step = "alignment" if has_template else "scaler"
    chosen = {
        name: ledger.values(step, team.rows[name], choose(ledger, name, None)) for name in names
    }
    if not has_template:
        centre = centres(ledger, settings)
        return None, chosen, {n: x - x.mean(0) if centre else x for n, x in chosen.items()}
    pieces = None
    if settings.regime == "piecewise":
        pieces = parcels.find(ledger, team, settings.parcels, choose(ledger, "", None))
    space = common_space.fit(ledger, team, chosen, settings, leaks.alignment, pieces)
    aligned = {name: common_space.transform(space.maps[name], chosen[name]) for name in chosen}
    if settings.chooses_after:
        space = space._replace(places=_choose_aligned(ledger, team, aligned, settings))
        chosen, aligned = (
            {name: x[:, space.places] for name, x in own.items()} for own in (chosen, aligned)
        )
    return space, chosen, aligned


def _choose_aligned(ledger: Ledger, team: Team, aligned, settings: Settings) -> np.ndarray:
    """Returns the positions of the voxels whose aligned values in the training units score best."""
    rows = {name: team.rows[name] for name in aligned}
    values = masked.UnitRows(rows, dict(aligned), ledger.cohort_size)
    return chooser(ledger.derive(values), team, team.train, settings, None)(ledger, "", None)


def _common_mask(ledger: Ledger, names: Sequence[str]) -> Bool[np.ndarray, " v"]:
    """Returns the voxels inside every training unit's brain mask."""
    inside = np.all([ledger.mask("mask", name) for name in names], axis=0)
    ledger.keep("mask", inside)
    return inside


def _fit_scaler(features: Ledger, fold: Fold, by_column: bool):
    """Returns mean and sd of the training rows' features; sd is 1 for constant features."""
    pooled = features.values("scaler", fold.train)
    if by_column:  # NumPy sums contiguous columns pairwise, as always done for unaligned voxels
        pooled = np.asfortranarray(pooled)
    mean, sd = pooled.mean(0), pooled.std(0)
    return mean, np.where(sd > 0, sd, 1)


def chooser(
    ledger: Ledger,
    team: Team,
    fitted: Sequence[str],
    settings: Settings,
    allowed: Bool[np.ndarray, " v"] | None,
) -> Choose:
    """Returns choose(ledger, unit, run that must not be seen) -> columns.

    If voxels are chosen after the alignment, the function returns all `allowed` voxels; with
    allowed=None it chooses among aligned values.

    Args:
      ledger: ledger of the fold.
      team: units of the fold.
      fitted: units whose F-scores choose the voxels.
      settings: see `Settings`.
      allowed: voxels to choose from; None: all.
    """

    def select(ledger, state):
        f = np.array(anova.finalize(state).f)
        if allowed is not None:
            f[~allowed] = np.nan
        usable = int(np.isfinite(f).sum())
        if usable < settings.keep:
            raise InputError("voxels.keep", settings.keep, f"at most {usable}, the usable voxels")
        columns = np.asarray(anova.select_top(f, settings.keep))
        ledger.keep("voxels", (f, columns))
        return columns

    def score(ledger, rows):
        x, y = ledger.values("voxels", rows), ledger.labels("voxels", rows)
        x = x - x.mean(0) if settings.centre else x
        return anova.update(anova.init(x.shape[1], settings.num_classes, x.dtype), x, y)

    if settings.chooses_after and allowed is not None:
        every = np.flatnonzero(allowed)
        return lambda ledger, name, unseen_run: every
    if settings.own_voxels:

        def own(ledger, name, unseen_run):
            rows = team.rows[name]
            if unseen_run is not None:
                rows = rows[team.run[rows] != unseen_run]
            return select(ledger, score(ledger, rows))

        return own
    merged = None
    for name in fitted:
        new = score(ledger, team.rows[name])
        merged = new if merged is None else anova.merge(merged, new)
    columns = select(ledger, merged)
    return lambda ledger, name, unseen_run: columns


def nuisance_features(
    ledger: Ledger, fold: Fold, mask: Bool[np.ndarray, " v"] | None
) -> tuple[Float[np.ndarray, "n q"], Float[np.ndarray, "t q"]]:
    """Computes nuisance features, which may decode without a pattern.

    They are global signal, time in run, and motion. The global signal is the mean inside the
    training units' common mask, as the test unit's own mask depends on all of its volumes.

    Args:
      ledger: ledger of a `MaskedCohort`.
      fold: whole units that train and are tested.
      mask: columns of the global signal; None: all columns of each unit.

    Returns:
      Features of the training and the test rows, with mean 0 and sd 1 over the training rows.
    """
    units, columns = ledger.design("units"), slice(None) if mask is None else mask
    names = dict.fromkeys(units[fold.train])
    parts = [ledger.values("baselines", np.flatnonzero(units == name)) for name in names]
    signal = np.concatenate([part[:, columns].mean(1) for part in parts])
    others = ledger.array("nuisance")
    train = np.column_stack([signal, others.values("baselines", fold.train)])
    signal = ledger.scored(fold.test)[:, columns].mean(1)
    test = np.column_stack([signal, others.scored(fold.test)])
    mean, sd = train.mean(0), np.where(train.std(0) > 0, train.std(0), 1)
    return (train - mean) / sd, (test - mean) / sd


def centres(ledger: Ledger, settings: Settings) -> bool:
    """Returns whether regime "none" centres voxels by the unit's other runs.

    Alignment centres anyway, so this makes "none" a fair baseline. False if a unit has one run.
    """
    if not settings.centre or alignment.REGIMES[settings.regime].needs_template:
        return False
    units, run = ledger.design("units"), ledger.design("run")
    return all(np.unique(run[units == name]).size > 1 for name in np.unique(units))


def _isc(x, team: Team, settings: Settings) -> float:
    """Returns the mean correlation of a voxel's time course with the mean of the other units.

    NaN if rows do not match in time.
    """
    shared = common_space.shared_rows(team, team.train) if settings.match == "time" else []
    matched = [x[name][at] for name, at in zip(team.train, shared, strict=False)]
    if not matched or not len(matched[0]):
        return float("nan")
    rows = np.stack(matched).astype(np.float64)
    others = (rows.sum(0) - rows) / (len(rows) - 1)
    rows, others = (a - a.mean(1, keepdims=True) for a in (rows, others))
    length = np.sqrt((rows**2).sum(1) * (others**2).sum(1))
    return float(((rows * others).sum(1) / np.where(length > 0, length, 1)).mean())
