"""Timing of volumes, from headers and sidecars: when each volume of a run was acquired.

    RepetitionTime         time from one volume to the next (TR)
    VolumeTiming           start of each volume, if they are not a TR apart
    DelayTime              pause after each volume, as in sparse sequences
    AcquisitionDuration    duration of each volume: the TR without the pause
    StartTime              with slice timing correction: the time within the TR that slices refer to

Each value is used, or refused with the name of its file. Some converters write the duration of the
whole run as AcquisitionDuration; such a value is ignored, with a note.
"""

import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from emojax.data.windows import Windows, regular
from emojax.errors import InputError
from emojax.sources.inheritance import ROUNDING, Facts

MIDDLE = 0.05  # of the TR; tolerance for a reference time at the middle of a volume
LEAST, MOST = 0.1, 30.0  # s, range of plausible TRs
WHOLE = 0.1  # of the run's duration; tolerance for an AcquisitionDuration of the whole run
DURATION = "AcquisitionDuration"
TYPE = "--config.data.tr=2.0"


class Acquired(NamedTuple):
    """The times of the volumes of a run."""

    tr: float | None  # s; None if volumes are not a TR apart
    windows: Windows
    starts: Float[np.ndarray, " t"] | None  # s; only without a TR
    unused: pathlib.Path | None = None  # file whose AcquisitionDuration is that of the whole run


def read(
    image: pathlib.Path,
    header: float | None,
    facts: Facts,
    num_volumes: int,
    tr: float | None = None,
) -> Acquired:
    """Returns the times at which the volumes of a run were acquired.

    Args:
      image: path of the scan, for messages.
      header: TR in the scan's header in s, or None.
      facts: values in the scan's sidecars.
      num_volumes: number of volumes.
      tr: TR in s, which overrules RepetitionTime, VolumeTiming and header.

    Raises:
      InputError: there is no TR, it is outside 0.1 to 30 s, or a timing value is of the wrong kind
        or contradicts another.
    """
    starts = None
    if tr is None and "VolumeTiming" in facts.values:
        starts = _volume_timing(facts, num_volumes)
        steps = np.diff(starts)
        step = float(steps.min())
        if _is_regular(starts):
            tr = step = _agreed(image, header, facts, round(float(steps.mean()), 6))
        elif "RepetitionTime" in facts.values:
            found = "VolumeTiming with several steps, and RepetitionTime"
            raise facts.refuse("VolumeTiming", found, f"one of the two (or {TYPE})")
        else:
            check_range(facts.origin["VolumeTiming"], "a step of VolumeTiming", step)
    else:
        tr = step = tr or _agreed(image, header, facts, None)
    unused = None
    if _is_of_run(facts, step, num_volumes, starts):
        unused = facts.origin[DURATION]
        facts = facts._replace(values={k: v for k, v in facts.values.items() if k != DURATION})
    long = _duration(facts, step, starts)
    length = step if long is None else long
    shift = _shift(facts, step, length)
    if tr is None and starts is not None:
        windows = Windows(starts + shift, starts + shift + length)
        return Acquired(None, windows, starts, unused)
    first = 0.0 if starts is None else float(starts[0])
    windows = regular(num_volumes, step if tr is None else tr, long, first + shift)
    return Acquired(tr, windows, None, unused)


def _agreed(image: pathlib.Path, header: float | None, facts: Facts, steps: float | None) -> float:
    """Returns the TR on which RepetitionTime, VolumeTiming and header agree.

    Args:
      image: path of the scan, for messages.
      header: TR in the header in s, or None.
      facts: values in the sidecars.
      steps: step of VolumeTiming in s if it is regular, or None.
    """
    written = _number(facts, "RepetitionTime", f"seconds > 0 (or {TYPE})")
    if written == 0:
        raise facts.refuse("RepetitionTime", "RepetitionTime 0", f"seconds > 0 (or {TYPE})")
    said = {"VolumeTiming": steps, "JSON": written, "header": header}
    said = {place: seconds for place, seconds in said.items() if seconds is not None}
    if not said:
        expected = f"RepetitionTime in s (or data.tr), such as {TYPE}"
        raise InputError(image, "no TR in header or JSON", expected)
    best = next(iter(said.values()))
    for place, seconds in said.items():
        if abs(seconds - best) > ROUNDING:
            first = next(iter(said))
            found = f"TR {seconds:g} s in the {place} and {best:g} s in the {first}"
            raise InputError(image, found, f"the same (or the right one as data.tr: {TYPE})")
    origin = facts.origin.get("RepetitionTime", image)
    check_range(image if "header" in said else origin, "a TR", best)
    return best


def check_range(where: pathlib.Path, what: str, seconds: float) -> None:
    """Checks that a time from one volume to the next is plausible.

    Args:
      where: path of the file that holds the value, for the message.
      what: name of the value, for the message.
      seconds: the value in s.

    Raises:
      InputError: the value is outside 0.1 to 30 s.
    """
    if not LEAST <= seconds <= MOST:
        expected = f"{LEAST:g} to {MOST:g} s; if it is right, or you know the right one, {TYPE}"
        raise InputError(where, f"{what} of {seconds:g} s", expected)


def _volume_timing(facts: Facts, num_volumes: int) -> Float[np.ndarray, " t"]:
    starts = _numbers(facts, "VolumeTiming")
    if len(starts) != num_volumes:
        found = f"VolumeTiming of {len(starts)} volumes"
        expected = f"one time for each of {num_volumes} volumes (or {TYPE})"
        raise facts.refuse("VolumeTiming", found, expected)
    wrong = np.flatnonzero(np.diff(starts) <= 0)
    if wrong.size:
        i = int(wrong[0])
        found = f"VolumeTiming {starts[i]:g}, {starts[i + 1]:g} of volumes {i} and {i + 1}"
        raise facts.refuse("VolumeTiming", found, f"increasing times in s (or {TYPE})")
    return starts


def _is_regular(starts: Float[np.ndarray, " t"]) -> bool:
    """Returns whether all volumes start at multiples of the mean step."""
    steady = np.linspace(starts[0], starts[-1], len(starts))
    return bool(np.abs(starts - steady).max() <= ROUNDING)


def _is_of_run(
    facts: Facts, step: float, num_volumes: int, starts: Float[np.ndarray, " t"] | None
) -> bool:
    """Returns whether AcquisitionDuration is that of the whole run, not of a volume."""
    length = _number(facts, DURATION, "seconds > 0")
    if length is None or length <= step + ROUNDING:
        return False
    run = num_volumes * step if starts is None else float(np.ptp(starts)) + step
    return abs(length - run) <= WHOLE * run


def _duration(facts: Facts, step: float, starts: Float[np.ndarray, " t"] | None) -> float | None:
    """Returns the duration of each volume in s; None if it is the whole TR.

    Args:
      facts: values in the sidecars.
      step: shortest time from one volume to the next, in s.
      starts: VolumeTiming if it is used, or None.
    """
    length = _number(facts, DURATION, "seconds > 0")
    pause = _number(facts, "DelayTime", "seconds >= 0")
    irregular = starts is not None and not _is_regular(starts)
    if length is not None and not 0 < length <= step + ROUNDING:
        found = f"AcquisitionDuration {length:g}, and a volume every {step:g} s"
        expected = (
            f'seconds of one volume: write "AcquisitionDuration": {step:g} there, or remove it '
            "(data.tr overrules only RepetitionTime, VolumeTiming and header)"
        )
        raise facts.refuse(DURATION, found, expected)
    if pause is not None and irregular:
        found = "DelayTime, and VolumeTiming with several steps"
        raise facts.refuse("DelayTime", found, "AcquisitionDuration in its place")
    if pause is not None and pause >= step:
        found = f"DelayTime {pause:g}, and a volume every {step:g} s"
        expected = 'seconds of the pause within a TR (without a pause: write "DelayTime": 0 there)'
        raise facts.refuse("DelayTime", found, expected)
    if pause is not None:
        rest = step - pause
        if length is not None and abs(rest - length) > ROUNDING:
            found = f"DelayTime {pause:g} and AcquisitionDuration {length:g} of a TR of {step:g} s"
            raise facts.refuse(
                "DelayTime", found, "two values that add up to the TR, or one of them"
            )
        return rest if pause else None
    if length is not None:
        return min(length, step)
    if starts is None:
        return None
    length = _of_slices(facts, step)
    if length is None and irregular:
        found = "VolumeTiming with several steps, and no AcquisitionDuration"
        expected = "AcquisitionDuration (seconds of one volume) or SliceTiming beside it"
        raise facts.refuse("VolumeTiming", found, expected)
    return length


def _of_slices(facts: Facts, step: float) -> float | None:
    """Returns the duration of a volume in s from its SliceTiming, or None."""
    if "SliceTiming" not in facts.values:
        return None
    times = np.unique(_numbers(facts, "SliceTiming").round(4))
    if len(times) < 2:
        return None
    length = float(times[-1] + np.median(np.diff(times)))
    if times[-1] > step + ROUNDING:
        found = f"SliceTiming up to {times[-1]:g}, and a volume every {step:g} s"
        raise facts.refuse("SliceTiming", found, "seconds within a volume")
    return min(length, step)


def _shift(facts: Facts, step: float, length: float) -> float:
    """Returns the shift in s that slice timing correction added to the times of volumes.

    Args:
      facts: values in the sidecars.
      step: shortest time from one volume to the next, in s.
      length: duration of a volume in s.
    """
    reference = _number(facts, "StartTime", "seconds >= 0")
    moved = facts.values.get("SliceTimingCorrected", bool(reference))
    if not isinstance(moved, bool):
        raise facts.refuse(
            "SliceTimingCorrected", f"SliceTimingCorrected {moved!r}", "true or false"
        )
    if reference is None or not (moved or reference):
        return 0.0
    if not moved:
        found = f"StartTime {reference:g}, and SliceTimingCorrected false"
        raise facts.refuse("StartTime", found, "one without the other")
    if reference > step + ROUNDING:
        found = f"StartTime {reference:g}, and a volume every {step:g} s"
        raise facts.refuse("StartTime", found, "seconds within a TR")
    off = reference - length / 2
    return 0.0 if abs(off) <= MIDDLE * step else off


def _number(facts: Facts, key: str, expected: str) -> float | None:
    """Returns a number of seconds, or None without the key."""
    if key not in facts.values:
        return None
    value = facts.values[key]
    if not _is_seconds(value):
        raise facts.refuse(key, f"{key} {value!r}", expected)
    return float(value)


def _numbers(facts: Facts, key: str) -> Float[np.ndarray, " n"]:
    values = facts.values[key]
    if not isinstance(values, list) or not values:
        raise facts.refuse(key, f"{key} {values!r}", "a list of seconds")
    for value in values:
        if not _is_seconds(value):
            raise facts.refuse(key, f"{value!r} in {key}", "seconds >= 0")
    return np.array(values, float)


def _is_seconds(value: Any) -> bool:
    """Returns whether a value of JSON is a finite number of seconds >= 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond floats
        return False
