"""Feedback: one number in [0, 1] for each volume, or its replacement in a control group.

state = feedback.init("fear", classes)
state, value = feedback.step(state, p, evidence, number=1)

The log-odds of a target class, from the volume or from the evidence, less those of chance, are
clipped to +-limit, scaled so that chance is .5, and optionally smoothed. A missing or marked volume
has no value; a display keeps its last one.

With an allocation (see `allocation`) other values may replace them. They are missing at the same
volumes as real ones. Only the output of `visible` leaves the process of such a session, whatever
the subject was allocated: feedback without probabilities, decision and evidence, which would reveal
real and sham. The journal keeps these for the analysis, so nobody may open it until then. Blinding
has limits: participants may notice that feedback does not follow what they do, and sham without the
JOURNAL of a real run has another distribution than the real values of a study.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from emojax.errors import InputError
from emojax.online.allocation import (
    REAL,
    Allocation,
    Sham,
    advance,
    draw,
    open_sealed,
    seal,
    shown_in,
)

VOLUME, EVIDENCE = "volume", "evidence"
SMALLEST = 1e-12  # lower limit of probabilities
HELP = "a class, then options: fear,of=evidence,limit=3,smooth=2,marked=yes"
HIDDEN = {"p": None, "decision": "", "evidence": None}  # hidden in a session with an allocation


class Settings(NamedTuple):
    """Settings of the feedback."""

    target: str  # class
    of: str = VOLUME  # source of the log-odds: the single volume or the evidence
    limit: float = 3.0  # nats; log-odds of +-limit give feedback of 1 or 0
    smooth: float = 0.0  # half-life in volumes of an exponential mean; 0 for none
    marked: bool = False  # whether marked volumes change the feedback


class State(NamedTuple):
    """The state carried from one volume to the next."""

    settings: Settings
    chance: float  # log-odds of chance
    allocation: Allocation
    mean: float | None = None  # smoothed mean of the real values
    sham: Sham = Sham()


def parse(text: str, classes: Sequence[str]) -> Settings:
    """Returns settings from text.

    Args:
      text: a class, optionally with fields of `Settings`, such as "fear,of=evidence,smooth=2".
      classes: classes of the decoder.

    Raises:
      InputError: the text cannot be read, or a value is out of range.
    """
    target, *options = (part.strip() for part in text.split(","))
    own = Settings(target)
    try:
        for option in options:
            key, _, value = option.partition("=")
            own = own._replace(**{key: READERS[key](value)})
    except (KeyError, ValueError):
        raise InputError("feedback", repr(text), HELP) from None
    if target not in classes:
        raise InputError("feedback", f"a class {target!r}", f"one of {', '.join(classes)}")
    if not (0 < own.limit < math.inf and 0 <= own.smooth < math.inf):
        raise InputError("feedback", repr(text), "limit > 0 and smooth >= 0")
    return own


READERS: dict[str, Callable[[str], Any]] = {
    "of": {VOLUME: VOLUME, EVIDENCE: EVIDENCE}.__getitem__,
    **dict.fromkeys(("limit", "smooth"), float),
    "marked": {"yes": True, "no": False}.__getitem__,
}


def init(text: str, classes: Sequence[str], allocation: Allocation | None = None) -> State:
    """Returns the state before the first volume of a run.

    Args:
      text: see `parse`.
      classes: classes of the decoder.
      allocation: see `open_sealed`; None for real feedback.

    Raises:
      InputError: as `parse`.
    """
    own = parse(text, classes)
    return State(own, -math.log(len(classes) - 1), allocation or Allocation())


def step(
    state: State,
    p: Mapping[str, float] | None,
    evidence: Mapping[str, Any] | None,
    number: int,
    *,
    marked: bool = False,
) -> tuple[State, float | None]:
    """Returns the next state and the feedback of a volume, None without any.

    Args:
      state: state from `init` or the step before; it is not modified.
      p: class -> probability; None for a missing volume.
      evidence: see `evidence.step`; None without any.
      number: number of the volume.
      marked: whether the volume is marked; it is ignored then, unless `Settings.marked`.
    """
    own = state.settings
    if state.allocation.kind != REAL:  # advances at every volume, missing or not
        state = state._replace(sham=advance(state.allocation, state.sham, number))
    odds = _odds(own, p, evidence)
    if odds is None or p is None or (marked and not own.marked):
        return state, None
    if state.allocation.kind != REAL:
        return state, state.sham.value
    value = (min(max(odds - state.chance, -own.limit), own.limit) / own.limit + 1) / 2
    if own.smooth and state.mean is not None:
        keep = 0.5 ** (1 / own.smooth)
        value = keep * state.mean + (1 - keep) * value
    return state._replace(mean=value), value


def _odds(
    own: Settings, p: Mapping[str, float] | None, evidence: Mapping[str, Any] | None
) -> float | None:
    """Returns the log-odds of the target."""
    if own.of == EVIDENCE:
        return None if evidence is None else evidence["log_odds"][own.target]
    if p is None:
        return None
    others = sum(value for name, value in p.items() if name != own.target)
    return math.log(max(p[own.target], SMALLEST)) - math.log(max(others, SMALLEST))


def visible(record: Mapping[str, Any], sealed: bool) -> dict[str, Any]:
    """Returns the part of a record that may be sent and shown.

    Args:
      record: record of a volume.
      sealed: whether the session has an allocation file, for whichever kind of feedback.
    """
    return {**record, **HIDDEN} if sealed else dict(record)


__all__ = ["Allocation", "Settings", "State", "draw", "init", "open_sealed", "parse", "seal"]
__all__ += ["shown_in", "step", "visible"]
