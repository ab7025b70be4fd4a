"""Evidence from several volumes: sums of log-odds over blocks, and tests that may abstain.

state = evidence.init(classes, "block", tr=2.0, events=evidence.read_events("events.tsv"))
state, found = evidence.step(state, {"fear": 0.7, "calm": 0.3}, number=1, onset_s=0.0)

Each volume gives a class c the log-odds x_c = log p_c - log base_c, less their mean over classes,
clipped to +-limit. With n volumes in a window, whose sum is S, the evidence is

    log base + S / (1 + (n - 1) rho),    and its softmax is the probability of each class.

Volumes of a block are far from independent: rho is the correlation of any two of them. Without it
(rho = 0) ten volumes would count ten times, and the sum would be overconfident; with it they count
for at most 1 / rho of them. rho changes which class leads only if `base` is given.

A sequential test decides for the first class whose probability reaches 1 - error, and abstains
until then: the MSPRT (Baum & Veeravalli, IEEE Trans. Inf. Theory 40, 1994: stop at a posterior of
more than 1 / (1 + A); here A = error / (1 - error)), which for two classes is Wald's test (Ann.
Math. Stat. 16, 1945). If the probabilities are right, at most `error` of the decisions for a class
are wrong. They are only as right as each volume's p, rho and the windows.

Measured on the simulated `demo030` (240 blocks of 10 volumes of 2 s, bag of logistic decoders; see
benchmarks/evidence.py): two volumes of a block correlate by .56, hence rho = .5; the first volumes
of a block mislead, as BOLD still shows the block before, hence `least` = 3. For requested errors of
.20, .10, .05 and .01, the shares of wrong decisions are .19, .11, .11 and .06: small errors are not
kept. With rho = 0 and `least` = 1 they would be .29, .25, .21 and .17. Settings were chosen on
these very blocks, and a network's more confident probabilities on the same blocks gave .16 at .05.
A requested error is therefore only a target: measure it on your own runs before an experiment
relies on it. It applies to one window; without events the window slides, and the test is repeated
at every volume.
"""

import bisect
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from emojax.data import events as tables
from emojax.online.evidence_settings import BLOCK, EMA, HRF, Settings, parse

SMALLEST = 1e-12  # lower limit of probabilities
ROUNDING = 1e-6  # s, tolerance of event times


class Event(NamedTuple):
    """An event without its label, which the evidence does not use."""

    onset: float  # s from the start of volume 1
    duration: float = math.inf  # s; inf for until the next event


class State(NamedTuple):
    """The state carried from one volume to the next; plain data, restored by reading a journal."""

    settings: Settings
    classes: tuple[str, ...]
    tr: float
    events: tuple[Event, ...]  # sorted by onset
    place: tuple[float, bool] | None = None  # onset of the last event, whether it is still active
    window: int = -1  # number of the window, from 0
    total: tuple[float, ...] = ()  # sum of the log-odds in the window
    volumes: float = 0.0  # number of volumes that count in the window
    recent: tuple[tuple[int, tuple[float, ...]], ...] = ()  # sliding window: (number, log-odds)
    decided: str = ""  # decision of the test in this window


def read_events(path: str | os.PathLike) -> tuple[Event, ...]:
    """Reads onsets and durations from a BIDS events.tsv, ignoring labels.

    Raises:
      InputError: the table cannot be read, or a cell is not a number.
    """
    path = pathlib.Path(path)
    rows = tables.read_table(path, "\t", ("onset", "duration"))
    return tuple(
        _event(
            tables.number(path, i, "onset", row["onset"]),
            tables.duration(path, i, row["duration"]),
        )
        for i, row in enumerate(rows, 2)
    )


def _event(onset: float, duration: float | None) -> Event:
    """Returns an event; one without a length lasts until the next."""
    return Event(onset, duration) if duration and duration > 0 else Event(onset)


def init(
    classes: Sequence[str],
    text: str,
    *,
    tr: float = 0.0,
    delay_s: float | None = None,
    events: Sequence[Event] = (),
) -> State:
    """Returns the state before the first volume of a run.

    Args:
      classes: names of the classes, the keys of p.
      text: see `evidence_settings.parse`.
      tr: TR, s; a volume belongs to the window that contains its middle.
      delay_s: see `parse`.
      events: events that are known before the run.

    Raises:
      InputError: as `parse`.
    """
    own = parse(text, len(classes), delay_s)
    return State(own, tuple(classes), tr, tuple(sorted(events)))


def add_event(state: State, onset: float, duration: float | None = None) -> State:
    """Returns the state with one more event, such as a trigger.

    Earlier volumes keep their windows, even if the event arrives late.
    """
    events = list(state.events)
    bisect.insort(events, _event(onset, duration))
    return state._replace(events=tuple(events))


def read(
    state: State, line: Mapping[str, Any], tr: float, first: int = 1
) -> tuple[State, dict[str, Any] | None]:
    """Processes the next line of a journal, of whichever kind.

    Args:
      state: state after the preceding lines.
      line: the parsed line.
      tr: TR, s.
      first: number of the volume that began at 0 s.

    Returns:
      The new state, and the evidence if the line is a volume's.
    """
    if line["kind"] == "event":
        return add_event(state, line["onset"], line.get("duration")), None
    if line["kind"] != "volume":
        return state, None
    number, marked = line["volume"], line["status"] == "marked"
    return step(state, line["p"], number, (number - first) * tr, marked=marked)


def step(
    state: State,
    p: Mapping[str, float] | None,
    number: int,
    onset_s: float,
    *,
    marked: bool = False,
) -> tuple[State, dict[str, Any] | None]:
    """Adds a volume.

    Args:
      state: state from `init` or the step before; it is not modified.
      p: class -> probability; None for a missing volume, which adds nothing.
      number: number of the volume.
      onset_s: start of the volume, s.
      marked: whether the volume is marked; it adds nothing then, unless `Settings.marked`.

    Returns:
      The new state, and the evidence: number of the window, number of volumes that count in it,
      log-odds and probability of each class, and the decision (the leading class; with a test, ""
      until one class is certain enough). The evidence is None outside windows, and in a window
      without volumes.
    """
    own = state.settings
    state = _in_window(state, onset_s + state.tr / 2)
    if own.kind == HRF and not (state.place and state.place[1]):
        return state, None
    if p is not None and (own.marked or not marked):
        state = _add(state, number, _log_odds(state, p))
    if _slides(state):
        recent = tuple(row for row in state.recent if row[0] > number - own.last)
        total = tuple(np.sum([row for _, row in recent], 0).tolist()) if recent else ()
        state = state._replace(recent=recent, total=total, volumes=float(len(recent)))
    if not state.total:
        return state, None
    sums = np.log(_base(state)) + np.asarray(state.total) / (1 + (state.volumes - 1) * own.rho)
    found = np.exp(sums - sums.max())
    found /= found.sum()
    decision = state.classes[int(found.argmax())]
    if own.error:
        decision = ("" if _slides(state) else state.decided) or _tested(state, found)
        state = state._replace(decided=decision)
    logits = sums - [np.logaddexp.reduce(np.delete(sums, k)) for k in range(len(sums))]
    return state, {
        "window": None if _slides(state) or own.kind == EMA else state.window,
        "volumes": round(state.volumes, 6),
        "log_odds": dict(zip(state.classes, logits.tolist(), strict=True)),
        "p": dict(zip(state.classes, found.tolist(), strict=True)),
        "decision": decision,
    }


def _slides(state: State) -> bool:
    return state.settings.kind == BLOCK and not state.events


def _in_window(state: State, time: float) -> State:
    """Returns the state in the window of a time: the last event, or the gap after it."""
    own = state.settings
    if own.kind == EMA or not state.events:
        return state
    shift = own.part[0] if own.kind == HRF else own.delay
    seen = bisect.bisect_right(state.events, (time - shift + ROUNDING, math.inf))
    place = -math.inf, False
    if seen:
        onset, duration = state.events[seen - 1]
        stop = onset + (own.part[1] if own.kind == HRF else own.delay + duration)
        place = onset, time <= stop + ROUNDING
    if place == state.place:
        return state
    number = state.window + (own.kind == BLOCK or place[1])
    return State(own, state.classes, state.tr, state.events, place, number)


def _base(state: State) -> np.ndarray:
    k = len(state.classes)
    return np.asarray(state.settings.base or [1 / k] * k)


def _log_odds(state: State, p: Mapping[str, float]) -> np.ndarray:
    """Returns the log-odds of each class from one volume."""
    found = np.log(np.maximum([p[name] for name in state.classes], SMALLEST))
    found -= np.log(_base(state))
    return np.clip(found - found.mean(), -state.settings.limit, state.settings.limit)


def _add(state: State, number: int, x: np.ndarray) -> State:
    if _slides(state):
        return state._replace(recent=(*state.recent, (number, tuple(x.tolist()))))
    own = state.settings
    keep = 0.5 ** (1 / own.half_life) if own.kind == EMA else 1.0  # weight of earlier volumes
    total = x + keep * np.asarray(state.total or [0.0])
    return state._replace(total=tuple(total.tolist()), volumes=1 + keep * state.volumes)


def _tested(state: State, p: np.ndarray) -> str:
    """Returns the decision of the test, or ""."""
    sure = p >= 1 - np.asarray(state.settings.error)
    enough = state.volumes >= state.settings.least and sure.any()
    return state.classes[int(np.where(sure, p, 0).argmax())] if enough else ""
