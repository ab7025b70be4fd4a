"""From events to one class per volume: lag, overlap, baseline, conflicts, and what was lost."""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from emojax.data.events import Events, Timing
from emojax.data.label_map import Labelling
from emojax.data.losses import Loss
from emojax.data.windows import Windows
from emojax.errors import InputError

ROUNDING = 1e-6  # of a volume: onsets are written with a few decimals
MOST_BEHIND = 0.5  # of the events of a run; with more, their times are in another unit


class Assigned(NamedTuple):
    """The classes of the volumes of one run, and what became of its events."""

    labels: Int[np.ndarray, " t"]  # int32, -1 where there is none
    lost: tuple[Loss, ...]  # one for each value of the label column, sorted


def assign(
    events: Events,
    labels: Labelling,
    timing: Timing,
    windows: Windows,
    *,
    subject: str = "",
    run: str = "",
) -> Assigned:
    """Returns one class per volume of a run, -1 where there is none, and what was lost.

    An event shows in [onset, onset + duration) shifted by the haemodynamic delay. A volume belongs
    to a class if events of that class cover at least `min_overlap` of its acquisition, and to the
    baseline if it belongs to no class and all events, those that map to no class as well, leave at
    least `min_overlap` of it uncovered.

    After the onset of an event of unknown duration, nobody knows what shows until the next one
    begins. Volumes that such times cover by `min_overlap` belong to no class and no baseline.

    Args:
      events: of this run; those that begin after the end of the scan are left out.
      labels: classes of their values.
      timing: delay, overlap, conflicts, volumes to drop at the start, length of events without one.
      windows: when the volumes were acquired.
      subject, run: named in the counts of what was lost.

    Raises:
      InputError: most onsets lie after the end of the run, an event of a class lasts 0 s, or, where
        conflicts are errors, a volume is in two classes.
    """
    behind = _behind(events, windows.stop.max())
    number = np.array([labels.number.get(value, -1) for value in events.value])
    duration = _durations(events, behind | (number < 0), timing.event_duration_s)
    unknown = np.isnan(duration) & ~behind
    known = ~behind & ~unknown
    start = events.onset + timing.hrf_delay_s
    stop = start + np.where(unknown, _until_next(events.onset), duration)

    def covered(chosen: Bool[np.ndarray, " e"]) -> Float[np.ndarray, " t"]:
        return _covered(start[chosen], stop[chosen], windows)

    least = timing.min_overlap - ROUNDING
    usable = covered(unknown) < least
    usable[: timing.drop_first] = False
    parts = np.stack([covered(known & (number == c)) for c in range(len(labels.classes))])
    inside = (parts >= least) & usable
    out = np.where(inside.any(0), inside.argmax(0), -1)
    out[usable & ~inside.any(0) & (1 - covered(~behind) >= least)] = labels.baseline
    twice = inside.sum(0) > 1
    if timing.conflicts == "error":
        _refuse(events.path, labels.classes, inside, twice)
    out[twice] = -1
    named = known & (number >= 0)
    shows = _shows(start, stop, windows) & named[:, None]
    counted = {
        "unlabelled": named & ~(shows & (out == number[:, None])).any(1),
        "behind": behind,
        "unknown": unknown,
    }
    lost = _losses(events.value, labels, counted, shows & twice, subject, run)
    return Assigned(out.astype(np.int32), lost)


def _behind(events: Events, end: float) -> Bool[np.ndarray, " e"]:
    """Returns which events begin after the end of the run: never most of them."""
    behind = events.onset >= end
    if behind.mean() > MOST_BEHIND:
        expected = f"onsets before the end of the run, {end:g} s"
        expected += f" ({behind.sum()} of {behind.size} are behind it: are they in ms? If the scan "
        expected += "stopped early, --config.data.subjects or --config.data.runs leaves it out)"
        raise InputError(events.path, f"an onset at {events.onset[-1]:g} s", expected)
    return behind


def _refuse(path: pathlib.Path, classes, inside: Bool[np.ndarray, "c t"], twice) -> None:
    """Refuses volumes of two classes."""
    if twice.any():
        first = int(twice.argmax())
        names = " and ".join(classes[c] for c in np.flatnonzero(inside[:, first]))
        found = f"{twice.sum()} volumes in two classes (first: volume {first}, {names})"
        raise InputError(path, found, "one class per volume, or data.conflicts=drop")


def _durations(
    events: Events, unused: Bool[np.ndarray, " e"], instead: float
) -> Float[np.ndarray, " e"]:
    """Returns durations in s, NaN where they are unknown; used events last longer than 0 s."""
    duration = events.duration
    if instead:
        duration = np.where(np.isnan(duration) | (duration == 0), instead, duration)
    empty = np.flatnonzero((duration == 0) & ~unused)
    if empty.size:
        found = f"duration 0 of {events.value[empty[0]]!r} at {events.onset[empty[0]]:g} s"
        expected = "a duration > 0, or for all that have none --config.data.event_duration_s=4.0"
        raise InputError(events.path, found, expected)
    return duration


def _until_next(onset: Float[np.ndarray, " e"]) -> Float[np.ndarray, " e"]:
    """Returns the time from each onset to the next later one, inf behind the last."""
    later = np.append(onset, np.inf)[np.searchsorted(onset, onset, side="right")]
    return later - onset


def _covered(start, stop, windows: Windows) -> Float[np.ndarray, " t"]:
    """Returns the part of each volume in any of [start, stop), ordered by start."""
    stop = np.minimum(np.maximum.accumulate(stop), windows.stop.max())
    some = stop > start
    start, stop = start[some], stop[some]
    if not start.size:
        return np.zeros(len(windows.start))
    first = np.append(True, start[1:] > stop[:-1])  # of each group that touches
    start, stop = start[first], stop[np.append(first[1:], True)]
    edges = np.stack([start, stop], 1).ravel()
    seconds = np.repeat(np.append(0, np.cumsum(stop - start)), 2)[1:-1]  # covered up to each edge
    before = [np.interp(times, edges, seconds) for times in (windows.start, windows.stop)]
    return (before[1] - before[0]) / (windows.stop - windows.start)


def _shows(start, stop, windows: Windows) -> Bool[np.ndarray, "e t"]:
    """Returns whether any part of an event is in a volume."""
    least = ROUNDING * (windows.stop - windows.start)
    return (start[:, None] < windows.stop - least) & (stop[:, None] > windows.start + least)


def _losses(values, labels: Labelling, counted, dropped, subject, run) -> tuple[Loss, ...]:
    """Returns the counts of each value.

    Args:
      values: of the events.
      labels: their classes.
      counted: field of `Loss` -> [e] bool, the events that it counts.
      dropped: [e, t] bool, whether an event was in a volume that conflicts took.
      subject, run: of the events.
    """
    out = []
    for value in sorted(set(values)):
        name = labels.classes[labels.number[value]] if value in labels.number else ""
        own = np.array([other == value for other in values])
        counts = {field: int(marks[own].sum()) for field, marks in counted.items()}
        counts["dropped"] = int(dropped[own].any(0).sum())
        out.append(Loss(subject, run, value, name, int(own.sum()), **counts))
    return tuple(out)
