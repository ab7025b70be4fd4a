"""Assignment of one class per volume from events: delay, overlap, baseline, conflicts, losses."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from emojax.data.events import Events, Timing
from emojax.data.label_map import Labelling
from emojax.data.losses import Loss
from emojax.data.windows import Windows
from emojax.errors import InputError

ROUNDING = 1e-6  # part of a volume; onsets have only a few decimals
MOST_BEHIND = 0.5  # largest share of events after the scan; with more, times have another unit


class Assigned(NamedTuple):
    """The classes of the volumes of one run, and the counts of its events."""

    labels: Int[np.ndarray, " t"]  # int32, -1 for none
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
    """Returns one class per volume of a run, -1 for none, and the counts of events.

    An event is active in [onset, onset + duration) plus the haemodynamic delay. A volume belongs to
    a class if events of that class cover at least `min_overlap` of its acquisition. It belongs to
    the baseline if it has no class and at least `min_overlap` of it lies outside all events, mapped
    to a class or not.

    After the onset of an event of unknown duration, the state is unknown until the next event.
    Volumes that such times cover by `min_overlap` belong to no class and not to the baseline.

    Args:
      events: events of the run; those that begin after the end of the scan are left out.
      labels: classes of their values.
      timing: delay, overlap, conflicts, volumes to drop at the start, default duration.
      windows: acquisition windows of the volumes.
      subject: name of the subject, for the counts.
      run: name of the run, for the counts.

    Raises:
      InputError: most onsets lie after the end of the run, an event of a class lasts 0 s, or a
        volume is in two classes and `timing.conflicts` is "error".
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
    """Returns which events begin after the end of the run, refusing more than `MOST_BEHIND`."""
    behind = events.onset >= end
    if behind.mean() > MOST_BEHIND:
        expected = f"onsets before the end of the run, {end:g} s"
        expected += f" ({behind.sum()} of {behind.size} are after it: are they in ms? If the scan "
        expected += "stopped early, --config.data.subjects or --config.data.runs leaves it out)"
        raise InputError(events.path, f"an onset at {events.onset[-1]:g} s", expected)
    return behind


def _refuse(
    path: pathlib.Path,
    classes: Sequence[str],
    inside: Bool[np.ndarray, "c t"],
    twice: Bool[np.ndarray, " t"],
) -> None:
    """Refuses volumes of two classes."""
    if twice.any():
        first = int(twice.argmax())
        names = " and ".join(classes[int(c)] for c in np.flatnonzero(inside[:, first]))
        found = f"{twice.sum()} volumes in two classes (first: volume {first}, {names})"
        raise InputError(path, found, "one class per volume, or data.conflicts=drop")


def _durations(
    events: Events, unused: Bool[np.ndarray, " e"], instead: float
) -> Float[np.ndarray, " e"]:
    """Returns durations in s, NaN if unknown, refusing used events of 0 s."""
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
    """Returns the time from each onset to the next later one, inf after the last."""
    later = np.append(onset, np.inf)[np.searchsorted(onset, onset, side="right")]
    return later - onset


def _covered(
    start: Float[np.ndarray, " e"], stop: Float[np.ndarray, " e"], windows: Windows
) -> Float[np.ndarray, " t"]:
    """Returns the part of each volume inside any of [start, stop), sorted by start."""
    stop = np.minimum(np.maximum.accumulate(stop), windows.stop.max())
    some = stop > start
    start, stop = start[some], stop[some]
    if not start.size:
        return np.zeros(len(windows.start))
    first = np.append(True, start[1:] > stop[:-1])  # first interval of each connected group
    start, stop = start[first], stop[np.append(first[1:], True)]
    edges = np.stack([start, stop], 1).ravel()
    seconds = np.repeat(np.append(0, np.cumsum(stop - start)), 2)[1:-1]  # covered up to each edge
    before = [np.interp(times, edges, seconds) for times in (windows.start, windows.stop)]
    return (before[1] - before[0]) / (windows.stop - windows.start)


def _shows(
    start: Float[np.ndarray, " e"], stop: Float[np.ndarray, " e"], windows: Windows
) -> Bool[np.ndarray, "e t"]:
    """Returns whether each event overlaps with each volume."""
    least = ROUNDING * (windows.stop - windows.start)
    return (start[:, None] < windows.stop - least) & (stop[:, None] > windows.start + least)


def _losses(
    values: Sequence[str],
    labels: Labelling,
    counted: Mapping[str, Bool[np.ndarray, " e"]],
    dropped: Bool[np.ndarray, "e t"],
    subject: str,
    run: str,
) -> tuple[Loss, ...]:
    """Returns the counts of each value.

    Args:
      values: value of each event.
      labels: classes of the values.
      counted: field of `Loss` -> [e] bool, the events that it counts.
      dropped: [e, t] bool, whether an event was in a volume that was dropped due to a conflict.
      subject: name of the subject.
      run: name of the run.
    """
    out = []
    for value in sorted(set(values)):
        name = labels.classes[labels.number[value]] if value in labels.number else ""
        own = np.array([other == value for other in values])
        counts = {field: int(marks[own].sum()) for field, marks in counted.items()}
        counts["dropped"] = int(dropped[own].any(0).sum())
        out.append(Loss(subject, run, value, name, int(own.sum()), **counts))
    return tuple(out)
