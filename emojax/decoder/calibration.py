"""Decoders of Experiment A for a new subject, aligned by one run without labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from emojax import alignment, hyperalignment
from emojax.data.acquisitions import canonical
from emojax.decoder import checks
from emojax.decoder.build import Decoder, Facts, fold
from emojax.decoder.decode import onto_grid, verify
from emojax.errors import InputError


def calibrate(
    decoder: Decoder,
    volumes: Float[np.ndarray, "t X Y Z"],
    subject: str,
    run: int | str = 0,
    affine: Float[np.ndarray, "4 4"] | None = None,
) -> Decoder:
    """Returns the decoder with the alignment of a new subject instead of the old one.

    The subject's volumes are matched in time with those of a run that the training subjects share;
    no label is needed.

    Args:
      decoder: a decoder of Experiment A, with a template.
      volumes: [t, X, Y, Z], the whole run.
      subject: name of the new subject.
      run: name of the corresponding run of the template, or its number.
      affine: voxel -> mm of the volumes; None is not checked.

    Raises:
      InputError: the decoder has no template, there is no such run, the run is too short or nothing
        varies in it, or a volume does not pass `verify`.
    """
    members = members_of(decoder)
    if not members or any("template" not in own for own in members):
        raise InputError("decoder", "no template", "one of Experiment A with alignment")
    volumes, affine = onto_grid(decoder, np.asarray(volumes), affine)
    number = _run_number(decoder.facts, members, run)
    at = [np.flatnonzero(own["run"] == number) for own in members]
    frames = [own["frame"][rows] for own, rows in zip(members, at, strict=True)]
    needed = np.unique(np.concatenate(frames))
    if len(volumes) <= needed[-1]:
        raise InputError("calibration run", f"{len(volumes)} volumes", f"{needed[-1] + 1} or more")
    for frame in needed:
        verify(decoder, volumes[frame], affine, f"volume {frame} of the calibration run")
    x = np.asarray(volumes, np.float32).reshape(len(volumes), -1)
    options = hyperalignment.Options(**dict(decoder.facts.alignment))
    try:
        mappings = [
            alignment.independent_runs(
                hyperalignment.from_template(own["template"], options),
                x[own_frames][:, own["voxels"]],
                rows,
            )
            for own, rows, own_frames in zip(members, at, frames, strict=True)
        ]
    except ValueError as error:
        expected = "a run like those that the template was made of"
        raise InputError("calibration run", error, expected) from None
    try:
        weights = fold(decoder.network, members, mappings, decoder.facts.temperature)
    except Exception as error:  # somebody else's network raises anything
        said = f"a network that cannot be folded again ({type(error).__name__}: {error})"
        raise InputError("decoder, calibration", said, "the parameters of its network") from None
    made = decoder.replace(weights=weights, facts=decoder.facts._replace(subject=subject))
    checks.check(made, "calibrated decoder")
    return made


def members_of(decoder: Decoder) -> list[Mapping[str, Any]]:
    """Returns what each member of a bag, or the one network, is fitted to a new subject with."""
    kept = decoder.calibration
    if kept is None:
        return []
    return kept.get("members") or [{**kept, "voxels": np.asarray(decoder.weights["voxels"])}]


def _run_number(facts: Facts, members: Sequence[Mapping[str, Any]], run: int | str) -> int:
    """Returns the number of a run; a decoder without names of runs reads digits as its number."""
    numbers = sorted(set.intersection(*(set(own["run"].tolist()) for own in members)))
    known, asked = [canonical(name) for name in facts.runs], run
    if isinstance(run, str) and canonical(run) in known:
        run = known.index(canonical(run))
    elif isinstance(run, str) and not facts.runs:
        run = {str(number): number for number in numbers}.get(run, run)
    if run not in numbers:
        known = ", ".join(facts.runs[n] for n in numbers) if facts.runs else f"{numbers}"
        raise InputError("run", repr(asked) if isinstance(asked, str) else asked, f"one of {known}")
    return run
