"""Feedback: one number in [0, 1] for each volume, or what stands for it in a control group.

state = feedback.init("fear", classes)
state, value = feedback.step(state, p, evidence, number=1)

The log-odds of a target class, of the volume or of the evidence, less those of chance, are clipped
to +-limit and scaled, so that chance is .5; they may be smoothed. Without a value (a missing or
marked volume) there is none: a display shows its last.

With an allocation (see `allocation`) other values may take their place. They are absent where real
ones are, and of such a session only `visible` leaves the process, whoever's turn it is: feedback
without probabilities, decision and evidence, by which real and sham could be told apart. The
journal keeps them for the analysis, so it must stay closed until then. What blinding cannot do: a
participant may notice that feedback does not follow what he or she does, and sham without the
JOURNAL of a real run has values that are distributed otherwise than the real ones of a study.
"""

import math
from collections.abc import Mapping, Sequence
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
SMALLEST = 1e-12  # probability that is taken for less
HELP = "a class, then options: fear,of=evidence,limit=3,smooth=2,marked=yes"
HIDDEN = {"p": None, "decision": "", "evidence": None}  # of a session with an allocation


class Settings(NamedTuple):
    """Choices by which probabilities become feedback."""

    target: str  # class
    of: str = VOLUME  # whose log-odds: of the single volume, or of the evidence
    limit: float = 3.0  # of the log-odds, in nats; there feedback is 0 or 1
    smooth: float = 0.0  # half-life in volumes of an exponential mean; 0: none
    marked: bool = False  # whether volumes that stand out change it


class State(NamedTuple):
    """All that goes from one volume to the next."""

    settings: Settings
    chance: float  # log-odds of it
    allocation: Allocation
    mean: float | None = None  # of the real values, smoothed
    sham: Sham = Sham()


def parse(text: str, classes: Sequence[str]) -> Settings:
    """Returns settings from text.

    Args:
      text: a class; fields of `Settings` may follow, such as "fear,of=evidence,smooth=2".
      classes: of the decoder.

    Raises:
      InputError: anything else.
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


READERS = {
    "of": {VOLUME: VOLUME, EVIDENCE: EVIDENCE}.__getitem__,
    **dict.fromkeys(("limit", "smooth"), float),
    "marked": {"yes": True, "no": False}.__getitem__,
}


def init(text: str, classes: Sequence[str], allocation: Allocation | None = None) -> State:
    """Returns the state before the first volume of a run.

    Args:
      text: see `parse`.
      classes: of the decoder.
      allocation: see `open_sealed`; None is real feedback.

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
    """Makes the feedback of a volume.

    Args:
      state: as from `init` or the step before; it is not changed.
      p: class -> probability; None of a volume that is missing.
      evidence: see `evidence.step`; None where there is none.
      number: of the volume.
      marked: whether it stands out; it changes nothing then, unless `Settings.marked`.
    """
    own = state.settings
    if state.allocation.kind != REAL:  # goes on at every volume, seen or not
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


def _odds(own: Settings, p, evidence) -> float | None:
    """Returns the log-odds of the target."""
    if own.of == EVIDENCE:
        return None if evidence is None else evidence["log_odds"][own.target]
    if p is None:
        return None
    others = sum(value for name, value in p.items() if name != own.target)
    return math.log(max(p[own.target], SMALLEST)) - math.log(max(others, SMALLEST))


def visible(record: Mapping[str, Any], sealed: bool) -> dict[str, Any]:
    """Returns what of a record may be sent and shown.

    Args:
      record: of a volume.
      sealed: whether the session has an allocation file; the same for real, sham and yoked.
    """
    return {**record, **HIDDEN} if sealed else dict(record)


__all__ = ["Allocation", "Settings", "State", "draw", "init", "open_sealed", "parse", "seal"]
__all__ += ["shown_in", "step", "visible"]
