"""Calibration: fits a decoder to a new subject or session by one run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from emojax import alignment, hyperalignment, procrustes
from emojax.data import grid
from emojax.data.acquisitions import canonical
from emojax.data.causal_settings import parse
from emojax.decoder import bounds, checks, fit_quality, guards, personal
from emojax.decoder.build import Decoder, Facts, fold
from emojax.decoder.decode import as_volumes, onto_grid, verify
from emojax.decoder.fit_quality import Fit
from emojax.errors import InputError
from emojax.online import correction

WAYS = ("time", "class", "none")
RUN = "calibration run"
SAME_TR = 1e-3  # s, largest difference

_Members = Sequence[Mapping[str, Any]]
_Values = Sequence[Float[np.ndarray, "t m"]]


def calibrate(
    decoder: Decoder,
    volumes: Float[np.ndarray, "t X Y Z"],
    subject: str,
    run: int | str = 0,
    affine: Float[np.ndarray, "4 4"] | None = None,
    *,
    by: str = "time",
    labels: Int[np.ndarray, " t"] | None = None,
    tr: float | None = None,
    inputs: Sequence[tuple[str, str]] = (),
    where: str = RUN,
) -> Decoder:
    """Returns the decoder with its alignment replaced by that of a new subject.

    Args:
      decoder: a decoder.
      volumes: [t, X, Y, Z], the whole run, as scanned; or [t, v] for a decoder of vectors.
      subject: name of the new subject.
      run: name or number of the corresponding run of the template, for by="time".
      affine: voxel -> mm of the volumes; None is not checked.
      by: correspondence with the template. "time": volumes correspond to those of a run that the
        training subjects share; no labels are needed. "class": class means correspond. "none":
        only reference, limits and level are renewed, and the voxel means of a decoder that
        subtracts them. This suits decoders without alignment, and a new session of the decoder's
        own subject.
      labels: [t] class of each volume, indexing `facts.classes`, -1 for none; for by="class".
      tr: TR of the volumes, s; None is not checked.
      inputs: (name, sha256) of the files that were read, stored in the decoder.
      where: name of the run, for messages.

    Raises:
      InputError: the decoder has no template, there is no such run, the volumes have another grid,
        affine or TR, there are too few of them, they do not vary, or they do not fit the template.
    """
    if by not in WAYS:
        raise InputError("by", repr(by), f"one of {', '.join(WAYS)}")
    if not subject:
        raise InputError("subject", "none", "the name of the run's subject")
    volumes, left = as_volumes(decoder, np.asarray(volumes)), decoder.facts.drop_first
    labels = None if labels is None else np.array(labels)  # a copy
    _check_scan(decoder, volumes, affine, tr, where)
    volumes, affine = onto_grid(decoder, volumes, affine)
    _check_volumes(decoder, volumes, affine, subject, where)
    if by == "none":
        weights, fit = _centred(decoder, volumes, subject, where), None
    else:
        members = _templates(decoder)
        values = _member_values(decoder, volumes, members, where)
        if labels is not None:
            labels[:left] = -1
        if by == "time":
            number = _run_number(decoder.facts, members, run)
            fit, maps = _by_time(decoder.facts, members, values, number, where)
        else:
            fit, maps = _by_class(decoder.facts, members, values, labels, where)
        weights = _folded(decoder, members, maps)
    seen = int((labels >= 0).sum()) if by == "class" and labels is not None else 0
    facts = _renewed(decoder, volumes[left:], subject, fit, inputs, seen)
    reference, limits = guards.measured([volumes[left:]], np.asarray(decoder.mask))
    facts = facts._replace(limits=limits, reference_of=subject)
    made = decoder.replace(weights=weights, facts=facts, reference=reference, id="")
    checks.check(made, "calibrated decoder")
    return made


def members_of(decoder: Decoder) -> list[Mapping[str, Any]]:
    """Returns the calibration data of each member of a bag, or of the single network."""
    kept = decoder.calibration
    if kept is None:
        return []
    return kept.get("members") or [{**kept, "voxels": np.asarray(decoder.weights["voxels"])}]


def _templates(decoder: Decoder) -> list[Mapping[str, Any]]:
    members = members_of(decoder)
    if not members or any("template" not in own for own in members):
        expected = "one of Experiment A with alignment (--by=none renews what needs no alignment)"
        raise InputError("decoder", "no template", expected)
    return members


def _check_scan(
    decoder: Decoder, volumes: np.ndarray, affine: np.ndarray | None, tr: float | None, where: str
) -> None:
    """Refuses a run of another grid or TR."""
    facts, shape = decoder.facts, volumes.shape[1:]
    size = tuple(facts.grid)
    least = fit_quality.SHORTEST + facts.drop_first
    if volumes.ndim != 4 or len(volumes) < least:
        found = f"{len(volumes)} volumes" if volumes.ndim == 4 else f"{volumes.ndim} axes"
        raise InputError(where, found, f"{least} or more, of a whole run")
    if affine is not None and decoder.affine is not None:
        if grid.turn(affine, shape, decoder.affine, size) is None:
            found = f"volumes of {shape} with another affine or shape"
            expected = f"{size}, the grid of the training volumes (resample the run to it)"
            raise InputError(where, found, expected)
    elif shape != size:
        raise InputError(where, f"volumes of {shape}", f"{size} as trained on")
    if tr is not None and facts.tr is not None and abs(tr - facts.tr) > SAME_TR:
        expected = f"{facts.tr:g} s as in training: volumes correspond by their number"
        raise InputError(where, f"TR {tr:g} s", expected)


def _check_volumes(
    decoder: Decoder, volumes: np.ndarray, affine: np.ndarray | None, subject: str, where: str
) -> None:
    """Refuses volumes that cannot be decoded, a frozen run, and another person's session."""
    repeated = sum(np.array_equal(a, b) for a, b in zip(volumes[1:], volumes[:-1], strict=True))
    if 2 * repeated > len(volumes):
        found = f"{repeated} of {len(volumes)} volumes that are the same as the one before"
        raise InputError(where, found, "a run in which voxels vary (is the file whole?)")
    marked = [verify(decoder, v, affine, f"volume {i} of the {where}").reasons
              for i, v in enumerate(volumes)]  # fmt: skip
    if not _same_person(decoder.facts.reference_of, subject):
        return
    other = sum(any(reason.startswith("correlation") for reason in one) for one in marked)
    if 2 * other > len(volumes):
        found = f"{other} of {len(volumes)} volumes unlike the reference image of {subject}"
        expected = f"a run of {subject} in the position of the reference (or another --subject)"
        raise InputError(where, found, expected)


def _check_level(decoder: Decoder, volumes: np.ndarray, where: str) -> None:
    """Refuses another signal level if the weights stay, as nothing rescales the volumes."""
    facts = decoder.facts
    if facts.online or "mean" not in bounds.usual(facts):
        return
    gain = volumes[:, np.asarray(decoder.mask)].mean(dtype=np.float64) / facts.level
    if not guards.GAIN[0] <= gain <= guards.GAIN[1]:
        expected = f"{guards.GAIN[0]:g} to {guards.GAIN[1]:g}, as --by=none leaves the weights"
        raise InputError(where, f"{gain:.3g} times the level of training", expected)


def _same_person(one: str, other: str) -> bool:
    names = [canonical(name.removeprefix("sub-")) for name in (one, other)]
    return bool(one) and names[0] == names[1]


def _centred(decoder: Decoder, volumes: np.ndarray, subject: str, where: str) -> Mapping[str, Any]:
    """Returns the weights of an unaligned decoder, with the subject's voxel means if it centres."""
    aligned = any("template" in own for own in members_of(decoder)) or decoder.facts.alignment
    if aligned and not _same_person(decoder.facts.subject, subject):
        whose = decoder.facts.subject or "the training subjects"
        expected = f"--by=time or --by=class for subject {subject}, or --subject={whose}"
        raise InputError("by", f"none, with a decoder that is aligned to {whose}", expected)
    if not personal.centres(decoder.facts):
        _check_level(decoder, volumes, where)
        return decoder.weights
    members = members_of(decoder)
    if not members:
        found = "no calibration data, which new voxel means need"
        raise InputError("decoder", found, "one with calibration.npz and voxels.classical=keep")
    values, left = _member_values(decoder, volumes, members, where), decoder.facts.drop_first
    return _folded(decoder, members, [x[left:].mean(0, dtype=np.float64) for x in values])


def _member_values(
    decoder: Decoder, volumes: np.ndarray, members: Sequence[Mapping[str, Any]], where: str
) -> list[Float[np.ndarray, "t m"]]:
    """Returns each member's voxels, after the causal correction of training, if any."""
    x = np.asarray(volumes, np.float32).reshape(len(volumes), -1)
    chosen = parse(decoder.facts.online) if decoder.facts.online else None
    if chosen is None:
        return [x[:, own["voxels"]] for own in members]
    if chosen.needs_motion:
        expected = f"a decoder without them (this one: data.online={chosen.text})"
        raise InputError(where, "no motion parameters", expected)
    if chosen.gain:
        x = x * np.array([correction.gain(volume) for volume in volumes], np.float32)[:, None]
    plain, left = chosen._replace(gain=False), decoder.facts.drop_first
    found = []
    for own in members:
        part = x[:, own["voxels"]]
        if chosen.steps:  # begins after the volumes that are left out
            state = correction.init(plain, part.shape[1:])
            part[left:] = np.asarray(correction.replay(plain, state, part[left:])[1])
        part[:left] = part[left:].mean(0)  # keeps the length without adding information
        found.append(part)
    return found


def _by_time(
    facts: Facts, members: _Members, values: _Values, number: int, where: str
) -> tuple[Fit, list[procrustes.Mapping]]:
    """Fits a map to each member by volumes that correspond in time."""
    if any(_is_by_class(own) for own in members):
        expected = "--by=class: rows of this template are class means"
        raise InputError("by", "time", expected)
    at = [np.flatnonzero(own["run"] == number) for own in members]
    frames = [own["frame"][rows] for own, rows in zip(members, at, strict=True)]
    last = max(int(own.max()) for own in frames)
    if len(values[0]) <= last:
        expected = f"{last + 1} or more (was the run cut short?)"
        raise InputError(where, f"{len(values[0])} volumes", expected)
    maps = [
        _map(facts, own["template"], x[own_frames], rows, where)
        for own, x, own_frames, rows in zip(members, values, frames, at, strict=True)
    ]
    rows = [
        fit_quality.Rows(x, *(own[name] for name in ("template", "run", "frame")))
        for own, x in zip(members, values, strict=True)
    ]
    fit = fit_quality.by_time(rows, number)
    _check_lag(facts, fit, number, where)
    return fit, maps


def _check_lag(facts: Facts, fit: Fit, number: int, where: str) -> None:
    """Refuses a run that does not follow the template's."""
    best = max(fit.others, key=lambda run: fit.others[run])
    said = f"correlation {fit.correlation:.3f}, p {fit.p:.3f}"
    if best != number and fit.others[best] > fit.curve[fit.lag]:
        name = facts.runs[best] if facts.runs else str(best)
        found = f"a run that fits {name} better ({fit.others[best]:.3f} against {said})"
        raise InputError(where, found, f"the run that --run names (is it --run={name}?)")
    if abs(fit.lag) > fit_quality.NEAR:
        shift = f"{abs(fit.lag)} volumes {'earlier' if fit.lag > 0 else 'later'}"
        found = f"a run that fits best {shift} ({fit.curve[fit.lag]:.3f}; as it is {said})"
        hint = "were volumes scanned before it?" if fit.lag > 0 else "is its start cut off?"
        raise InputError(where, found, f"the run from its first volume ({hint})")
    if fit.p > fit.largest_p:
        found = f"a run that fits no better than by chance ({said})"
        expected = f"p <= {fit.largest_p:.3g}: a run with the events of the training runs"
        raise InputError(where, found, f"{expected} at the same times (or --by=class)")


def _by_class(
    facts: Facts, members: _Members, values: _Values, labels: np.ndarray | None, where: str
) -> tuple[Fit, list[procrustes.Mapping]]:
    """Fits a map to each member by class means."""
    if any("label" not in own for own in members):
        expected = "labels, as a new export has them (or --by=time)"
        raise InputError("decoder", "a template without labels", expected)
    labels = np.full(0, -1) if labels is None else np.asarray(labels)
    if labels.size and not np.isin(labels, np.arange(-1, len(facts.classes))).all():
        found = f"labels from {labels.min()} to {labels.max()}"
        raise InputError(where, found, f"-1 to {len(facts.classes) - 1}")
    if labels.shape != values[0].shape[:1]:
        found = f"labels of {len(labels)} volumes"
        raise InputError(where, found, f"a label for each of {len(values[0])} volumes, -1 for none")
    counts = [int((labels == k).sum()) for k in range(len(facts.classes))]
    known = [set(np.asarray(own["label"]).tolist()) for own in members]
    for k, (name, count) in enumerate(zip(facts.classes, counts, strict=True)):
        if count < 2 or not all(k in own for own in known):
            raise InputError(where, f"{count} volumes of class {name}", "two or more of each class")
    targets = [_class_means(own["template"], own["label"], len(counts)) for own in members]
    fit = fit_quality.by_class(list(zip(values, targets, strict=True)), labels)
    if fit.p > fit.largest_p:
        found = f"classes that fit no better than by chance (correlation {fit.correlation:.3f}"
        expected = f"p <= {fit.largest_p:.3g}: more volumes, or the right events"
        raise InputError(where, f"{found}, p {fit.p:.3f})", expected)
    maps = [
        _map(facts, target, _class_means(x, labels, len(counts)), np.arange(len(counts)), where)
        for x, target in zip(values, targets, strict=True)
    ]
    return fit, maps


def _is_by_class(own: Mapping[str, Any]) -> bool:
    """Returns whether rows of a template are class means, whose frame is the class."""
    return "label" in own and np.array_equal(own["label"], own["frame"])


def _class_means(x: np.ndarray, labels: np.ndarray, classes: int) -> Float[np.ndarray, "k m"]:
    return np.stack([np.asarray(x)[np.asarray(labels) == k].mean(0) for k in range(classes)])


def _map(
    facts: Facts, template: np.ndarray, x: np.ndarray, rows: np.ndarray, where: str
) -> procrustes.Mapping:
    options = hyperalignment.Options(**dict(facts.alignment))
    try:
        return alignment.independent_runs(hyperalignment.from_template(template, options), x, rows)
    except ValueError as error:
        expected = "a run like those of the template"
        raise InputError(where, error, expected) from None


def _folded(
    decoder: Decoder, members: _Members, maps: Sequence[procrustes.Mapping | np.ndarray]
) -> Mapping[str, Any]:
    try:
        return fold(decoder.network, members, maps, decoder.facts.temperature)
    except Exception as error:  # a user's network may raise anything
        said = f"a network that cannot be folded again ({type(error).__name__}: {error})"
        raise InputError("decoder, calibration", said, "the parameters of its network") from None


def _renewed(
    decoder: Decoder,
    volumes: np.ndarray,
    subject: str,
    fit: Fit | None,
    inputs: Sequence[tuple[str, str]],
    labelled: int,
) -> Facts:
    """Returns the facts of the new decoder, without those of the old subject."""
    facts, mask = decoder.facts, np.asarray(decoder.mask)
    if not facts.online:  # otherwise level and spread are those after a correction
        means = [volume[mask].mean(dtype=np.float64) for volume in volumes]
        sds = [volume[mask].std(dtype=np.float64) for volume in volumes]
        facts = facts._replace(level=float(np.mean(means)), spread=float(np.mean(sds)))
    steps = facts.provenance
    step = personal.CENTRING if personal.centres(facts) else personal.ALIGNMENT
    if fit is not None or step == personal.CENTRING:
        steps = tuple(one for one in steps if one[0] not in personal.STEPS)
        steps = (*steps, (step, len(volumes), labelled))
    return facts._replace(
        subject=subject,
        provenance=steps,
        fit=() if fit is None else fit.facts,
        inputs=tuple(inputs),
        parent=decoder.id,
    )


def _run_number(facts: Facts, members: Sequence[Mapping[str, Any]], run: int | str) -> int:
    """Returns the number of a run; digits are a number if the decoder has no names of runs."""
    numbers: list[int] = sorted(set.intersection(*(set(own["run"].tolist()) for own in members)))
    known, number = [canonical(name) for name in facts.runs], run
    if isinstance(run, str) and canonical(run) in known:
        number = known.index(canonical(run))
    elif isinstance(run, str) and not facts.runs:
        number = {str(number): number for number in numbers}.get(run, run)
    if isinstance(number, str) or number not in numbers:
        listed = ", ".join(facts.runs[n] for n in numbers) if facts.runs else f"{numbers}"
        raise InputError("run", repr(run) if isinstance(run, str) else run, f"one of {listed}")
    return number
