"""Evidence over several volumes: sums of log-odds over blocks, and tests that may abstain.

state = evidence.init(classes, "block", tr=2.0, events=evidence.read_events("events.tsv"))
state, found = evidence.step(state, {"fear": 0.7, "calm": 0.3}, number=1, onset_s=0.0)

Each volume gives a class c the log-odds x_c = log p_c - log base_c, less their mean over classes,
clipped to +-limit. With n volumes in a window, whose sum is S, the evidence is

    log base + S / (1 + (n - 1) rho),    and its softmax is the probability of each class.

Volumes of a block are far from independent: rho is the correlation of any two of them. Without it
(rho = 0) ten volumes would count ten times, and the sum be absurdly sure; with it they count for
at most 1 / rho of them. It never changes which class leads, but where `base` is given.

A sequential test decides for the first class whose probability reaches 1 - error, and abstains
until then: the MSPRT (Baum & Veeravalli, IEEE Trans. Inf. Theory 40, 1994: stop at a posterior of
more than 1 / (1 + A); here A = error / (1 - error)), which for two classes is Wald's test (Ann.
Math. Stat. 16, 1945). Where the probabilities are right, of the decisions for a class at most
`error` are wrong. They are right only as far as each volume's p, rho and the windows are.

Measured on the simulated `demo030` (240 blocks of 10 volumes of 2 s, bag of logistic decoders; see
benchmarks/evidence.py): two volumes of a block correlate by .56, hence rho = .5; the first volumes
of a block mislead, as BOLD still shows the block before, hence `least` = 3. Of the decisions for
which an error of .20, .10, .05 and .01 was asked, .19, .11, .11 and .06 are wrong: small errors are
not kept. With rho = 0 and `least` = 1 it would be .29, .25, .21 and .17. Settings were chosen on
these very blocks, and a network's surer probabilities on the same blocks gave .16 at .05. So a
stated error is an aim: measure it on runs of your own before an experiment relies on it. It is
meant for one window; without events windows slide, and the test is made anew at every volume.
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

SMALLEST = 1e-12  # probability that is taken for less
ROUNDING = 1e-6  # s, by which times of events may be off


class Event(NamedTuple):
    """An onset, without its label: that plays no part in the evidence."""

    onset: float  # s from the start of volume 1
    duration: float = math.inf  # s; inf: until the next one


class State(NamedTuple):
    """All that goes from one volume to the next; plain data, made anew by reading a journal."""

    settings: Settings
    classes: tuple[str, ...]
    tr: float
    events: tuple[Event, ...]  # by onset
    place: tuple[float, bool] | None = None  # onset of the last event, whether it still shows
    window: int = -1  # number of the window, from 0
    total: tuple[float, ...] = ()  # sum of log-odds in it
    volumes: float = 0.0  # volumes in it that count
    recent: tuple[tuple[int, tuple[float, ...]], ...] = ()  # number, log-odds: of a sliding window
    decided: str = ""  # by the test, in this window


def read_events(path: str | os.PathLike) -> tuple[Event, ...]:
    """Reads onsets and durations from a BIDS events.tsv; labels are not looked at.

    Raises:
      InputError: the table cannot be read, or a cell is no number.
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
      classes: names, as the keys of p.
      text: see `evidence_settings.parse`.
      tr: s; a volume belongs to the window that holds its middle.
      delay_s: see `parse`.
      events: those that are known before the run.

    Raises:
      InputError: as `parse`.
    """
    own = parse(text, len(classes), delay_s)
    return State(own, tuple(classes), tr, tuple(sorted(events)))


def add_event(state: State, onset: float, duration: float | None = None) -> State:
    """Returns the state with one more event, such as a trigger.

    Volumes before it stay where they are, even if it comes late.
    """
    events = list(state.events)
    bisect.insort(events, _event(onset, duration))
    return state._replace(events=tuple(events))


def read(
    state: State, line: Mapping[str, Any], tr: float, first: int = 1
) -> tuple[State, dict[str, Any] | None]:
    """Takes a line of a journal, of whichever kind.

    Args:
      state: after the lines before it.
      line: as data.
      tr: s.
      first: number of the volume that began at 0 s.

    Returns:
      The state, and the evidence if the line is a volume's.
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
      state: as from `init` or the step before; it is not changed.
      p: class -> probability; None of a volume that is missing, which adds nothing.
      number: of the volume.
      onset_s: s, when it began.
      marked: whether it stands out; it adds nothing then, unless `Settings.marked`.

    Returns:
      The state, and the evidence: number of the window, volumes in it that count, log-odds and
      probability of each class, and the decision: the leading class, or with a test "" until one is
      certain enough. None outside windows and in a window without a volume yet.
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
    """Returns the state in the window of a time: that of the last event, or the gap behind it."""
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
    """Returns the log-odds that one volume gives each class."""
    found = np.log(np.maximum([p[name] for name in state.classes], SMALLEST))
    found -= np.log(_base(state))
    return np.clip(found - found.mean(), -state.settings.limit, state.settings.limit)


def _add(state: State, number: int, x: np.ndarray) -> State:
    if _slides(state):
        return state._replace(recent=(*state.recent, (number, tuple(x.tolist()))))
    own = state.settings
    keep = 0.5 ** (1 / own.half_life) if own.kind == EMA else 1.0  # of what was before
    total = x + keep * np.asarray(state.total or [0.0])
    return state._replace(total=tuple(total.tolist()), volumes=1 + keep * state.volumes)


def _tested(state: State, p: np.ndarray) -> str:
    """Returns the class that the test decides for, or ""."""
    sure = p >= 1 - np.asarray(state.settings.error)
    enough = state.volumes >= state.settings.least and sure.any()
    return state.classes[int(np.where(sure, p, 0).argmax())] if enough else ""
