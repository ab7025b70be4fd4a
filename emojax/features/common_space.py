"""The common space of a fold: its template, and held-out units on their way into it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax import alignment, hyperalignment, piecewise, procrustes
from emojax.errors import InputError
from emojax.provenance import Ledger
from emojax.splits import Fold


class Team(NamedTuple):
    """The units of one fold, and their rows."""

    train: tuple[str, ...]
    monitor: str  # "" where nobody is
    test: str
    rows: Mapping[str, Int[np.ndarray, " k"]]
    run: Int[np.ndarray, " n"]  # of each row of the cohort
    frame: Int[np.ndarray, " n"]  # its place in the run


class Space(NamedTuple):
    """A common space."""

    model: hyperalignment.Hyperalignment | piecewise.Piecewise
    keys: Int[np.ndarray, "r 2"]  # (run, place in it, or class) of each row of the template
    everyones: Any | None  # the one map of regime "group"
    maps: Mapping[str, Any]  # unit of the template -> its map
    places: Int[np.ndarray, " m"] | None = None  # columns that are kept after the maps; None: all


class Chosen(NamedTuple):
    """A map, and the columns that are kept after it."""

    mapping: Any
    places: Int[np.ndarray, " m"]


def team_of(ledger: Ledger, fold: Fold) -> Team:
    """Returns the units of a fold of whole units."""
    units, run = ledger.design("units"), ledger.design("run")
    names = tuple(dict.fromkeys(units[fold.train].tolist()))
    monitor, test = (str(units[rows[0]]) if len(rows) else "" for rows in fold[2:])
    rows = {name: np.flatnonzero(units == name) for name in (*names, monitor, test) if name}
    return Team(names, monitor, test, rows, run, ledger.design("frame"))


def shared_rows(team: Team, names: Sequence[str], rows=None) -> list[np.ndarray | slice]:
    """Returns the places of those rows of each unit that all units have, by run and time."""
    rows = rows or team.rows
    keys = [_times(team, rows[name]) for name in names]
    if all(np.array_equal(own, keys[0]) for own in keys):
        return [slice(None)] * len(keys)
    places = [{key: i for i, key in enumerate(map(tuple, own.tolist()))} for own in keys]
    shared = [key for key in places[0] if all(key in own for own in places)]
    return [np.array([own[key] for key in shared], int) for own in places]


def _times(team: Team, rows: np.ndarray) -> Int[np.ndarray, "k 2"]:
    return np.stack([team.run[rows], team.frame[rows]], 1)


def fit(
    ledger: Ledger,
    team: Team,
    chosen: Mapping[str, Float[np.ndarray, "k m"]],
    settings,
    everybody: bool,
    parcels: Int[np.ndarray, " m"] | None = None,
) -> Space:
    """Fits the template to the chosen voxels of its units, whose values have been read.

    Args:
      ledger: of the fold.
      team: of the fold.
      chosen: unit of the template -> its chosen voxels.
      settings: `across_subjects.Settings`.
      everybody: whether the template holds all units (leaky); each then has a map of its own.
      parcels: of the chosen voxels; None: one common space for all.

    Raises:
      InputError: rows do not match.
    """
    try:
        rows, keys = _match(ledger, team, chosen, settings)
        stacked = jnp.stack(rows) if parcels is None else rows
    except ValueError as error:
        expected = "runs of one name in all subjects (or --config.align.regimes=none)"
        raise InputError("alignment", str(error), expected) from None
    if not len(keys):
        expected = "runs that they share (or --config.align.match=class)"
        raise InputError("alignment", "no volume that all training subjects have", expected)
    model = _fit(stacked, settings, parcels)
    ledger.keep("alignment", np.asarray(model.template))
    regime = alignment.REGIMES[settings.regime]
    if regime.own_map or everybody:
        return Space(model, keys, None, dict(zip(chosen, model.mappings, strict=True)))
    everyones = alignment.group(model, stacked)
    return Space(model, keys, everyones, dict.fromkeys(chosen, everyones))


def _fit(stacked, settings, parcels) -> hyperalignment.Hyperalignment | piecewise.Piecewise:
    options = dict(settings.options)
    if parcels is None:
        return hyperalignment.fit(stacked, **options)
    solver = options.pop("method", "svd")
    try:
        return piecewise.fit(stacked, parcels, method=settings.piecewise, solver=solver, **options)
    except ValueError as error:
        raise InputError("alignment by parcels", str(error), "other align settings") from None


def placer(space: Space | None, choose: Callable, settings, centre: bool) -> Callable:
    """Returns place(ledger, team, unit, x, scoring): writes a held-out unit's rows into x [n, m].

    With `scoring`, reads count for the scores of the rows that they are made for.
    """
    if space is None:
        return _each_run(choose, lambda ledger, *run: _centred(ledger, centre, *run))
    if space.everyones is not None:
        return _at_once(choose, lambda ledger, team, name, columns: space.everyones)
    if settings.regime == "transductive":
        return _at_once(
            choose, lambda *unit: _map_of_all_rows(*unit, space=space, settings=settings)
        )
    return _each_run(choose, lambda *run: _map_of_other_runs(*run, space=space, settings=settings))


def _at_once(choose, make_map):
    def place(ledger, team, name, x, scoring):
        rows = team.rows[name]
        part = ledger.scoring(rows) if scoring else ledger
        columns = choose(part, name, None)
        mapping = make_map(part, team, name, columns)
        part.keep("alignment", mapping)
        x[rows] = transform(mapping, part.scored(rows, columns))

    return place


def _each_run(choose, make_map):
    """A run enters without a look at itself."""

    def place(ledger, team, name, x, scoring):
        rows = team.rows[name]
        for run in np.unique(team.run[rows]):
            here, others = rows[team.run[rows] == run], rows[team.run[rows] != run]
            part = ledger.scoring(here) if scoring else ledger
            columns = choose(part, name, run)
            mapping = make_map(part, team, others, columns)
            x[here] = transform(mapping, part.scored(here, columns))

    return place


def _centred(ledger: Ledger, centre: bool, team, others, columns):
    if not centre:
        return None
    mean = ledger.values("centring", others, columns).mean(0)
    ledger.keep("centring", mean)
    return mean


def _map_of_other_runs(ledger: Ledger, team: Team, others, columns, *, space: Space, settings):
    mapping = own_map(ledger, team, others, columns, space, settings)
    ledger.keep("alignment", mapping)
    return mapping


def own_map(ledger: Ledger, team: Team, others, columns, space: Space, settings):
    """Fits the map of a unit's run by its other runs, `others` (rows of the cohort)."""
    values = ledger.values("alignment", others, columns)
    (rows,), own = _match(ledger, team, {"": values}, settings, {"": others})
    at = _places(own, space.keys)
    if not (at >= 0).any():
        names = ", ".join(np.unique(ledger.design("units")[others]).tolist())
        expected = "runs that all subjects have (or --config.align.match=class)"
        raise InputError(f"alignment of {names}", "no row in common with the others", expected)
    if not isinstance(space.model, piecewise.Piecewise):
        return alignment.independent_runs(space.model, rows[at >= 0], at[at >= 0])
    mapping = alignment.piecewise(space.model, rows[at >= 0], at[at >= 0])
    return mapping if space.places is None else Chosen(mapping, space.places)


def _map_of_all_rows(ledger: Ledger, team: Team, name, columns, *, space: Space, settings):
    values = ledger.values("alignment", team.rows[name], columns)
    (rows,), own = _match(ledger, team, {name: values}, settings)
    at = _places(own, space.keys)
    if (at >= 0).sum() < len(space.keys):  # the unit lacks some rows of the template
        return alignment.independent_runs(space.model, rows[at >= 0], at[at >= 0])
    order = np.argsort(at[at >= 0])
    return alignment.transductive(space.model, jnp.asarray(rows)[at >= 0][order])


def _match(ledger: Ledger, team: Team, chosen, settings, rows=None):
    """Returns corresponding rows [c, m] of each unit, and (run, place or class) of each [c, 2]."""
    rows = rows or team.rows
    if settings.match == "time":
        at = shared_rows(team, tuple(chosen), rows)
        matched = [x[own] for x, own in zip(chosen.values(), at, strict=True)]
        return matched, _times(team, rows[next(iter(chosen))])[at[0]]
    runs = [team.run[rows[name]] for name in chosen]
    labels = [ledger.labels("alignment", rows[name]) for name in chosen]
    return alignment.match_rows(list(chosen.values()), runs, labels)


def _places(own, keys) -> np.ndarray:
    """Returns [r] the template's row of each row, by run and place or class; -1 for none."""
    place = {key: i for i, key in enumerate(map(tuple, keys.tolist()))}
    return np.array([place.get(key, -1) for key in map(tuple, own.tolist())])


def transform(mapping, x: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "k m"]:
    """Applies a map of the common space, a mean to be subtracted, or nothing (None)."""
    if mapping is None:
        return x
    if isinstance(mapping, np.ndarray):
        return x - mapping
    if isinstance(mapping, Chosen):
        return transform(mapping.mapping, x)[:, mapping.places]
    if isinstance(mapping, piecewise.PiecewiseMapping):
        return np.asarray(piecewise.transform(mapping, x))
    return np.asarray(procrustes.transform(mapping, jnp.asarray(x)))
