"""The common space of a fold: its template, and maps of held-out units into it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax import alignment, hyperalignment, piecewise, procrustes
from emojax.errors import InputError
from emojax.provenance import Ledger
from emojax.splits import Fold

if TYPE_CHECKING:
    from emojax.features.across_subjects import Settings


class Team(NamedTuple):
    """The units of one fold, and their rows."""

    train: tuple[str, ...]
    monitor: str  # "" if no unit is monitored
    test: str
    rows: Mapping[str, Int[np.ndarray, " k"]]
    run: Int[np.ndarray, " n"]  # run of each row of the cohort
    frame: Int[np.ndarray, " n"]  # position of each row in its run


class Space(NamedTuple):
    """A common space."""

    model: hyperalignment.Hyperalignment | piecewise.Piecewise
    keys: Int[np.ndarray, "r 2"]  # (run, frame) or (run, class) of each row of the template
    everyones: Any | None  # the single map of regime "group"
    maps: Mapping[str, Any]  # unit of the template -> its map
    places: Int[np.ndarray, " m"] | None = None  # columns kept after mapping; None: all


class Chosen(NamedTuple):
    """A map, and the columns kept after it."""

    mapping: Any
    places: Int[np.ndarray, " m"]


def team_of(ledger: Ledger, fold: Fold) -> Team:
    """Returns the team of a fold of whole units."""
    units, run = ledger.design("units"), ledger.design("run")
    names = tuple(dict.fromkeys(units[fold.train].tolist()))
    monitor, test = (str(units[rows[0]]) if len(rows) else "" for rows in fold[2:])
    rows = {name: np.flatnonzero(units == name) for name in (*names, monitor, test) if name}
    return Team(names, monitor, test, rows, run, ledger.design("frame"))


def shared_rows(
    team: Team, names: Sequence[str], rows: Mapping[str, Int[np.ndarray, " _"]] | None = None
) -> list[np.ndarray | slice]:
    """Returns, for each unit, the positions of the rows that all units have, by run and time."""
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
    settings: "Settings",
    everybody: bool,
    parcels: Int[np.ndarray, " m"] | None = None,
) -> Space:
    """Fits the template to the chosen voxels of its units, whose values have been read.

    Args:
      ledger: ledger of the fold.
      team: units of the fold.
      chosen: unit of the template -> its chosen voxels.
      settings: an `across_subjects.Settings`.
      everybody: whether the template includes all units (leaky); each then has its own map.
      parcels: parcels of the chosen voxels; None: one common space for all voxels.

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
        assert model.mappings is not None  # only `piecewise.from_template` has none
        return Space(model, keys, None, dict(zip(chosen, model.mappings, strict=True)))
    assert isinstance(model, hyperalignment.Hyperalignment)  # in parcels, units have own maps
    everyones = alignment.group(model, jnp.asarray(stacked))
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


def placer(space: Space | None, choose: Callable, settings: "Settings", centre: bool) -> Callable:
    """Returns place(ledger, team, unit, x, scoring), which writes a held-out unit's rows to x.

    With `scoring`, reads count only for the scores of the rows written.

    Args:
      space: the common space; None: nothing is aligned.
      choose: see `across_subjects.chooser`.
      settings: an `across_subjects.Settings`.
      centre: whether unaligned voxels are centred by the unit's other runs.
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
    """Returns a function that places each run by a map of the unit's other runs."""

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


def own_map(
    ledger: Ledger,
    team: Team,
    others: Int[np.ndarray, " k"],
    columns: Int[np.ndarray, " m"],
    space: Space,
    settings: "Settings",
) -> Any:
    """Fits the map for a unit's run to its other runs.

    Args:
      ledger: ledger of the fold.
      team: units of the fold.
      others: [k] rows of the cohort, those of the unit's other runs.
      columns: the chosen voxels.
      space: the common space.
      settings: an `across_subjects.Settings`.

    Raises:
      InputError: no row corresponds to one of the template.
    """
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
    assert isinstance(space.model, hyperalignment.Hyperalignment)  # parcels use the other runs
    if (at >= 0).sum() < len(space.keys):  # the unit lacks some rows of the template
        return alignment.independent_runs(space.model, rows[at >= 0], at[at >= 0])
    order = np.argsort(at[at >= 0])
    return alignment.transductive(space.model, jnp.asarray(rows)[at >= 0][order])


def _match(ledger: Ledger, team: Team, chosen, settings, rows=None):
    """Returns corresponding rows [c, m] of each unit, and their keys [c, 2], see `Space.keys`."""
    rows = rows or team.rows
    if settings.match == "time":
        at = shared_rows(team, tuple(chosen), rows)
        matched = [x[own] for x, own in zip(chosen.values(), at, strict=True)]
        return matched, _times(team, rows[next(iter(chosen))])[at[0]]
    runs = [team.run[rows[name]] for name in chosen]
    labels = [ledger.labels("alignment", rows[name]) for name in chosen]
    return alignment.match_rows(list(chosen.values()), runs, labels)


def _places(own, keys) -> np.ndarray:
    """Returns [r] the template row with the same key as each row; -1 for none."""
    place = {key: i for i, key in enumerate(map(tuple, keys.tolist()))}
    return np.array([place.get(key, -1) for key in map(tuple, own.tolist())])


def transform(mapping: Any, x: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "k m"]:
    """Applies a map, a mean to subtract, or nothing (None) to rows.

    Args:
      mapping: map into the common space, mean [m], or None.
      x: [k, m] rows.
    """
    if mapping is None:
        return x
    if isinstance(mapping, np.ndarray):
        return x - mapping
    if isinstance(mapping, Chosen):
        return transform(mapping.mapping, x)[:, mapping.places]
    if isinstance(mapping, piecewise.PiecewiseMapping):
        return np.asarray(piecewise.transform(mapping, x))
    return np.asarray(procrustes.transform(mapping, jnp.asarray(x)))
