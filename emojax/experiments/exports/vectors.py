"""Decoders of Experiment A: voxels, alignment, scaler and classifier as one function."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from emojax import alignment
from emojax.data import phases
from emojax.data.acquisitions import canonical
from emojax.data.run import Run
from emojax.decoder import Decoder, Facts, build, personal
from emojax.errors import InputError
from emojax.experiments.exports import facts, span
from emojax.experiments.exports.parts import Made, Packed, Trained
from emojax.features import across_subjects
from emojax.features.masked import MaskedCohort
from emojax.records import FoldData


class Place(NamedTuple):
    """The mask of the volumes that a decoder reads, and the columns of the view inside it."""

    mask: Bool[np.ndarray, "X Y Z"]
    columns: Int[np.ndarray, " v"]  # position of each column among the mask's voxels; -1 outside


def pack(made: Made, trained: Trained, run: str) -> Packed:
    """Builds the decoder of a run of the fold's test subject, or of a new person after a refit.

    Args:
      made: the fold.
      trained: its classifier.
      run: name of the run to be decoded; "" is the last.

    Raises:
      InputError: the pipeline cannot be repeated volume by volume, or there is no such run.
    """
    config, view, data = made.config, made.view, made.data
    settings = data.notes["settings"]
    facts.check_scanned(config, view.cohort)
    _check(made, trained)
    here = _rows_of(view, data.fold.test, run)
    unit = str(view.units[here[0] if len(here) else data.fold.train[0]])
    place = _place(view, unit)
    own = alignment.REGIMES[settings.regime].own_map
    stated = _facts(made, trained, here, place, own)
    affine = view.cohort.affine(view.subject[view.rows(unit)[0]])
    affine = None if affine is None else np.asarray(affine)
    if _is_of_every_voxel(made, trained):
        mean = _mean_of_others(made, data, here, np.flatnonzero(data.notes["made"].mask))
        weights, calibration = span.every_voxel(made, trained, place.mask, mean), None
    else:
        parts = data.members if trained.by_member else (data,)
        found = _fitted(made, here, trained.by_member)
        kept = [
            _keep(stated, part, params, trained, place.columns[columns], place.mask, own)
            for part, params, (columns, _) in zip(parts, trained.params, found, strict=True)
        ]
        maps = [mapping for _, mapping in found]
        weights = build.fold(trained.network, kept, maps, trained.temperature)
        calibration = {"members": kept}
    if facts.centred_maps(config, view.cohort):
        mean = _map_mean(view.cohort.runs[view.run_index[here[0]]]).ravel()
        weights["centre"] = np.float32(weights["centre"] + mean[weights["voxels"]])
    decoder = Decoder(weights, place.mask, affine, calibration, trained.network, stated)
    return Packed(facts.with_reference(decoder, *_reference(made, here, own)), here)


def _check(made: Made, trained: Trained) -> None:
    """Rejects pipelines that have seen the scored rows, or that cannot apply to a new person."""
    settings, arm, data = made.data.notes["settings"], made.arm, made.data
    if arm.leaks:
        expected = "an arm without leaks (--config.protocols=nested)"
        raise InputError("decoder", f"{arm.name}, which is declared leaky", expected)
    if settings.regime == "transductive":
        found = "regime transductive, whose map is fitted to the decoded run"
        raise InputError("decoder", found, "--config.align.regimes=independent_runs, or group")
    if settings.regime == "piecewise":
        found = "regime piecewise, whose maps cannot be exported yet"
        raise InputError("decoder", found, "--config.align.regimes=independent_runs, or group")
    if len(data.fold.test):
        return
    one = "--subject=NAME of a subject in the study"
    if settings.own_voxels:
        found = "voxels.own=True, which selects a new person's voxels by labels"
        raise InputError("refit", found, f"--config.voxels.own=False, or {one}")
    if facts.centred_maps(made.config, made.view.cohort):
        found = "data.centre: the mean of a new person's maps is unknown"
        raise InputError("refit", found, f"--config.data.centre=False, or {one}")
    if _is_of_every_voxel(made, trained) and across_subjects.centres(data.ledger, settings):
        found = "voxels.centre with every voxel: the mean of a new person's voxels is unknown"
        raise InputError("refit", found, f"--config.voxels.classical=keep, or {one}")


def _is_of_every_voxel(made: Made, trained: Trained) -> bool:
    return "every voxel" in made.data.notes and trained.job is not None and not trained.by_member


def _rows_of(view: MaskedCohort, rows: Int[np.ndarray, " t"], run: str) -> Int[np.ndarray, " k"]:
    """Returns the rows of a run of the test unit; "" is the last."""
    if not len(rows):
        return rows
    names = view.cohort.run[rows]
    known = list(dict.fromkeys(names[np.argsort(view.run_index[rows], kind="stable")].tolist()))
    name = run or known[-1]
    same = {canonical(one): one for one in known}
    if canonical(name) not in same:
        raise InputError("run", repr(run), f"one of {', '.join(known)}")
    return rows[names == same[canonical(name)]]


def _place(view: MaskedCohort, unit: str) -> Place:
    """Returns the place of a unit's volumes; vectors become volumes [voxels, 1, 1]."""
    mask = view.union if view.union is not None else view.own_columns.get(unit)
    if mask is None:
        mask = view.inside[unit].reshape(-1, 1, 1)
        return Place(mask, np.where(mask.ravel(), np.cumsum(mask) - 1, -1))
    return Place(mask, np.arange(int(mask.sum())))


def _facts(made: Made, trained: Trained, here, place: Place, own: bool) -> Facts:
    view, data = made.view, made.data
    settings, subjects = data.notes["settings"], np.unique(view.subject)
    names = dict.fromkeys(view.units[data.fold.train].tolist())
    if settings.own_voxels:  # other subjects have other voxels
        rows = np.flatnonzero(
            (view.units == view.units[here[0]]) & ~np.isin(view.run_index, _runs(view, here))
        )
        values = [_scanned(made, rows if len(rows) else here)[:, place.columns >= 0]]
    else:
        values = (_scanned(made, view.rows(name))[:, place.columns >= 0] for name in names)
    stated = facts.common(made, trained, values, place.mask.shape)
    subject = str(view.subject[here[0]]) if len(here) else ""
    if made.config.units == "run" and len(subjects) == 1:
        subject = str(subjects[0])
    if own:
        options = data.notes["made"].space.model.options._asdict()
        stated = stated._replace(alignment=tuple(options.items()))
        stated = stated._replace(runs=tuple(map(str, view.run_names)))  # by their numbers
    record = data.ledger.shared
    if len(here):
        record = next(s for rows, s in data.ledger.seen(data.fold.test) if here[0] in rows)
    if facts.centred_maps(made.config, view.cohort):
        said = "the mean of all its maps is subtracted, those to be decoded among them"
        stated = stated._replace(preprocessing=(*stated.preprocessing, said))
    steps = facts.seen(record)
    if not len(here) and across_subjects.centres(data.ledger, settings):
        steps = tuple(step for step in steps if step[0] != personal.CENTRING)
        steps = (*steps, (personal.CENTRING, 0, 0))  # by `calibrate`
    return stated._replace(subject=subject, provenance=steps)


def _scanned(made: Made, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k v"]:
    """Returns rows as scanned: without centring of maps, which the decoder does itself."""
    x, view = made.view.volumes[rows], made.view
    if not facts.centred_maps(made.config, view.cohort):
        return x
    parts = []
    for i in _runs(view, rows):
        run, mean = view.cohort.runs[i], _map_mean(view.cohort.runs[i])
        columns = view.union if view.union is not None else view.own_columns.get(run.subject)
        own = x[view.run_index[rows] == i]
        parts.append(own + (mean if columns is None else mean[columns]))
    return np.concatenate(parts)


def _runs(view: MaskedCohort, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, " r"]:
    return np.unique(view.run_index[rows])


def _map_mean(run: Run) -> Float[np.ndarray, "..."]:
    """Returns the mean of the maps of a run, as scanned."""
    return phases.uncleaned(run).read(slice(None)).mean(0, dtype=np.float64)


def _fitted(made: Made, here, by_member: bool) -> list[tuple[Int[np.ndarray, " m"], Any]]:
    """Returns (columns, alignment) of the run to be decoded, for the fold or for each member."""
    data = made.data
    settings, parts = data.notes["settings"], (data, *data.members)
    columns = [part.notes["made"].voxels for part in parts]
    if settings.own_voxels:
        columns = [columns for _, columns in _kept(data, here, ("voxels",))]
    if len(here):
        maps = _kept(data, here, ("alignment", "centring")) or [None] * len(parts)
    else:
        maps = [_map_of_new_person(made, part, here) for part in parts]
    found = list(zip(columns, maps, strict=True))
    return found[1:] if by_member else found[:1]


def _kept(data: FoldData, here, steps: tuple[str, ...]) -> list[Any]:
    """Returns the fits of steps to the rows of a run, for the fold and then for each member."""
    return [fit for step, own, fit in data.ledger.kept if own and here[0] in own and step in steps]


def _map_of_new_person(made: Made, part: FoldData, here) -> Any:
    """Returns the map for an unknown person: the common rotation, or the mean of the others."""
    space = part.notes["made"].space
    if space is not None and (everyones := space.everyones) is not None:
        return everyones
    return _mean_of_others(made, part, here, part.notes["made"].voxels)


def _mean_of_others(made: Made, part: FoldData, here, columns) -> Float[np.ndarray, " m"] | None:
    """Returns the mean of other runs or subjects that regime "none" subtracts; None if none."""
    if not across_subjects.centres(part.ledger, part.notes["settings"]):
        return None
    view = made.view
    if len(here):
        rows = view.rows(str(view.units[here[0]]))
        others = rows[view.run_index[rows] != view.run_index[here[0]]]
        return view.volumes[others][:, columns].mean(0)
    units = dict.fromkeys(view.units[part.fold.train].tolist())
    return np.mean([view.volumes[view.rows(name)][:, columns].mean(0) for name in units], axis=0)


def _keep(
    stated: Facts, part: FoldData, params, trained: Trained, voxels, mask, own: bool
) -> dict[str, Any]:
    """Returns the parts that a member is folded from, here and by `calibrate` for new subjects."""
    fitted, rows = part.notes["made"], dict[str, np.ndarray]()
    if own:
        model, keys = fitted.space.model, fitted.space.keys
        run, frame = keys.T
        rows = {"template": np.asarray(model.template), "run": run, "frame": frame}
        rows["label"] = frame if part.notes["settings"].match == "class" else _labels(part, keys)
    mean, sd = fitted.scaler
    own_fit = {"mean": mean, "sd": sd} | rows
    kept = build.keep(
        stated, mask, voxels, params=params, batch_stats=trained.batch_stats, **own_fit
    )
    if trained.job is None and (path := part.notes.get("linear path")) is not None:
        kept["path"] = tuple(path)
    return kept


def _labels(part: FoldData, keys: Int[np.ndarray, "r 2"]) -> Int[np.ndarray, " r"]:
    """Returns the class of each (run, frame) of a template; -1 where training subjects differ."""
    rows = part.fold.train
    run, frame = (part.ledger.design(name)[rows].tolist() for name in ("run", "frame"))
    classes: dict[tuple[int, int], set[int]] = {}
    for *time, label in zip(run, frame, part.labels[rows].tolist(), strict=True):
        classes.setdefault(tuple(time), set()).add(label)
    found = [classes[key] for key in map(tuple, keys.tolist())]
    return np.array([min(own) if len(own) == 1 else -1 for own in found])


def _reference(made: Made, here, own: bool):
    """Returns the runs of the reference image, in groups, and the subject they belong to.

    They are the subject's other runs if something was fitted to them, otherwise those of the
    training subjects.
    """
    view, data = made.view, made.data
    settings, cohort = data.notes["settings"], view.cohort
    used = [cohort.runs[i] for i in _runs(view, np.arange(len(view.labels)))]
    known = own or settings.own_voxels or made.config.units == "run"
    known = known or across_subjects.centres(data.ledger, settings)
    subject = str(view.subject[here[0]]) if len(here) else ""
    if made.config.units == "run" and len(cohort.subjects) == 1:
        subject = cohort.subjects[0]
    if subject and known:
        unseen = cohort.runs[view.run_index[here[0]]] if len(here) else None
        return [[r] for r in used if r.subject == subject and r is not unseen], subject
    train = view.subject[np.concatenate([data.fold.train, data.fold.monitor])]
    groups = [[r for r in used if r.subject == name] for name in np.unique(train)]
    return groups, ""
