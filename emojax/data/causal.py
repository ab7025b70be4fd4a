"""Causal correction of training runs, volume by volume, as at the scanner (`online.correction`).

A decoder is thus trained on the same kind of volumes as it decodes. Cleaning (`data.cleaning`) uses
whole runs, which do not exist yet at the scanner.
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
from emojax.data.scratch import Scratch
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.online import correction

BLOCK = 1 << 14  # voxels at a time


def twin(data: Any) -> str:
    """Returns the causal counterpart of a config's whole-run cleaning.

    Args:
      data: `config.data`, or any object with the keys of cleaning.

    Returns:
      A value of `data.online`; "" if there is no whole-run cleaning, or if rows are maps, which
      have no order in time.
    """
    steps = [f"drift:{min(data.detrend, 5)}"] if data.detrend else []
    if data.motion or any(name.startswith("motion") for name in data.confounds.split(",")):
        steps.append("motion")
    if data.high_pass_hz:
        steps.append("ema:30")
    if data.zscore:
        steps.append("zscore")
    if data.centre and not steps:  # all other steps centre, too
        steps.append("cumulative")
    return "+".join(steps) if data.source != "maps" else ""


def apply(cohort: Cohort, store: Store, text: str, *, skip: int = 0) -> Cohort:
    """Corrects every run of a cohort as at the scanner, and keeps the result in the store.

    Args:
      cohort: runs that are time series.
      store: store for the corrected runs (float32).
      text: the correction, see `causal_settings.parse`; "" for none.
      skip: number of volumes at the start of each run that a decoder never gets; they are left
        unchanged and do not influence the others.

    Returns:
      The cohort of the corrected runs. Steps with a memory are declared as a prior, such as
      "online ema:30", since a corrected volume depends on earlier ones. `gain` alone is not a
      prior.

    Raises:
      InputError: a run is not a time series, lacks realignment parameters that are needed, or has a
        volume whose level cannot be scaled.
    """
    if not text:
        return cohort
    chosen = parse(text)
    runs = tuple(_correct_run(run, store, chosen=chosen, skip=skip) for run in cohort.runs)
    note = f"runs corrected causally, each volume by those before it (data.online={chosen.text})"
    if not chosen.steps:
        note = f"each volume scaled to the same level (data.online={chosen.text})"
    prior = (Prior(prior_of(chosen)),) if chosen.steps else ()
    return dataclasses.replace(
        cohort, runs=runs, prior=(*cohort.prior, *prior), notes=(*cohort.notes, note)
    )


def _correct_run(run: Run, store: Store | Scratch, *, chosen: Correction, skip: int) -> Run:
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

    def fill(out: np.ndarray) -> None:
        gains = _gains(run, skip) if chosen.gain else np.ones(count, np.float32)
        step = max(1, BLOCK // int(np.prod(run.frames.shape[1:-1])))
        for start in range(0, out.shape[-1], step):  # the slowest axis on disk
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
    """Returns the factor of each volume; 1 for those that a decoder never gets."""
    gains = np.ones(len(run.frames), np.float32)
    for t in range(skip, len(run.frames)):
        level = np.float32(correction.level_of(run.read([t])[0]))
        if not 0 < level < np.inf:
            expected = f"values as scanned, above 0, for gain in data.online (or {OFF})"
            raise InputError(f"{run.place}, volume {t}", f"a level of {level:.3g}", expected)
        gains[t] = np.float32(correction.LEVEL) / level
    return gains
