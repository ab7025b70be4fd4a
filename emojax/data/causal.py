"""The twin of the correction at the scanner: training runs, volume by volume in order of time.

Whatever a decoder meets at the scanner it has been trained on, see `online.correction`. Cleaning
(`data.cleaning`) uses a run as a whole, which no scanner has.
"""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np
from jaxtyping import Float

from emojax.data import mapped
from emojax.data.causal_settings import OFF, Correction, parse, prior_of
from emojax.data.cohort import Cohort, Prior
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.online import correction

BLOCK = 1 << 14  # voxels at a time


def twin(data: Any) -> str:
    """Returns the causal correction that takes the place of the whole-run cleaning of a config.

    Args:
      data: `config.data`, or anything with the keys of cleaning.

    Returns:
      A value of `data.online`; "" where nothing is cleaned as a whole, or nothing takes its place,
      as of maps, which have no order in time.
    """
    steps = [f"drift:{min(data.detrend, 5)}"] if data.detrend else []
    if data.motion or any(name.startswith("motion") for name in data.confounds.split(",")):
        steps.append("motion")
    if data.high_pass_hz:
        steps.append("ema:30")
    if data.zscore:
        steps.append("zscore")
    if data.centre and not steps:  # all others centre, too
        steps.append("cumulative")
    return "+".join(steps) if data.source != "maps" else ""


def apply(cohort: Cohort, store: Store, text: str, *, skip: int = 0) -> Cohort:
    """Corrects every run of a cohort as the scanner's would be, once into the store.

    Args:
      cohort: runs in time.
      store: the place of the corrected runs, float32.
      text: the correction, see `causal_settings.parse`; "" is none.
      skip: volumes at the start of each run that a decoder is never given: they stay as they are,
        and the others are corrected without them.

    Returns:
      The cohort of the corrected runs. Steps with a memory are declared as a prior, such as
      "online ema:30": a corrected volume holds values of those before it. `gain` alone is none.

    Raises:
      InputError: a run is not in time, has no realignment parameters where they are needed, or a
        volume has no level that could be scaled.
    """
    if not text:
        return cohort
    chosen = parse(text)
    runs = tuple(_correct_run(run, store, chosen=chosen, skip=skip) for run in cohort.runs)
    note = f"runs corrected causally, each volume by those before it (data.online={chosen.text})"
    if not chosen.steps:
        note = f"each volume scaled to one level (data.online={chosen.text})"
    prior = (Prior(prior_of(chosen)),) if chosen.steps else ()
    return dataclasses.replace(
        cohort, runs=runs, prior=(*cohort.prior, *prior), notes=(*cohort.notes, note)
    )


def _correct_run(run: Run, store: Any, *, chosen: Correction, skip: int) -> Run:
    moved = run.motion if chosen.needs_motion else None
    if chosen.needs_motion and (moved is None or moved.shape[1] != correction.MOTION):
        expected = f"six per volume for data.online={chosen.text} (without motion in it, none)"
        raise InputError(run.place, "no realignment parameters", expected)
    if run.tr is None and (run.starts is None or chosen.steps):
        found = "rows that are not points in time" if run.starts is None else "irregular times"
        raise InputError(run.place, found, f"runs with one TR for data.online (or {OFF})")
    count = len(run.frames)
    moved = None if moved is None else np.asarray(moved[skip:], np.float32)
    voxels = chosen._replace(gain=False)

    def fill(out):
        gains = _gains(run, skip) if chosen.gain else np.ones(count, np.float32)
        step = max(1, BLOCK // int(np.prod(run.frames.shape[1:-1])))
        for start in range(0, out.shape[-1], step):  # the axis that is slowest on disk
            block = run.read(slice(None), (..., slice(start, start + step)))
            flat = block.reshape(count, -1) * gains[:, None]
            if chosen.steps and count > skip:
                state = correction.init(voxels, flat.shape[1:])
                flat[skip:] = correction.replay(voxels, state, flat[skip:], moved)[1]
            out[..., start : start + step] = flat.reshape(block.shape)
        mapped.let_go(run.frames)

    recipe = f"online 1 {chosen.text} from {skip}"
    if moved is not None:
        recipe += f" {hashlib.sha256(moved.tobytes()).hexdigest()}"
    key = f"{recipe} {run.subject} {run.name} {run.content}"
    frames = store.derived(key, run.frames.shape, np.float32, fill)
    again = functools.partial(_correct_run, chosen=chosen, skip=skip)
    return run.with_values(frames, recipe, again)


def _gains(run: Run, skip: int) -> Float[np.ndarray, " t"]:
    """Returns the factor of each volume; those that no decoder is given stay as they are."""
    gains = np.ones(len(run.frames), np.float32)
    for t in range(skip, len(run.frames)):
        level = np.float32(correction.level_of(run.read([t])[0]))
        if not 0 < level < np.inf:
            expected = f"values as scanned, above 0, for gain in data.online (or {OFF})"
            raise InputError(f"{run.place}, volume {t}", f"a level of {level:.3g}", expected)
        gains[t] = np.float32(correction.LEVEL) / level
    return gains
