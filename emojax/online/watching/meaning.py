"""What records mean: the evidence of several volumes, and the value that is shown to the person.

Both are made of the lines of the journal alone, in order, so that a restart and a replay come to
the same by reading it.
"""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from emojax.decoder import localizer
from emojax.decoder.build import Facts
from emojax.online import evidence, feedback
from emojax.online.watching import record

DEFAULT = evidence.BLOCK


class Choices(NamedTuple):
    """Choices of what records mean; plain data, in the first line of the journal."""

    evidence: str = DEFAULT
    delay_s: float = 5.0  # that BOLD lies behind events
    events: tuple[tuple[float, float | None], ...] = ()  # onset, duration in s; never a label
    target: str = ""  # see `feedback.init`; "" gives none
    allocation: str = ""  # sha256 of the sealed file that says who gets which feedback


def choose(
    facts: Facts, text: str = "", events: str = "", target: str = "", allocation: str = ""
) -> Choices:
    """Returns choices.

    Args:
      facts: of the decoder.
      text: see `evidence_settings.parse`; "" is the default.
      events: path of an events.tsv; "" is none.
      target: see `feedback.init`.
      allocation: sha256 of a sealed file.

    Raises:
      InputError: a table or text that cannot be read.
    """
    found = evidence.read_events(pathlib.Path(events)) if events else ()
    known = tuple((own.onset, _finite(own.duration)) for own in found)
    chosen = Choices(text or DEFAULT, localizer.hrf_delay_s(facts), known, target, allocation)
    Reader(facts.classes, 1.0, chosen)  # refuses what is wrong before anything begins
    return chosen


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Reader:
    """Reads the lines of a journal in order; called with one, it returns evidence and feedback."""

    def __init__(
        self,
        classes: Sequence[str],
        tr: float,
        choices: Choices,
        allocation: feedback.Allocation | None = None,
    ):
        """Begins before the first line.

        Args:
          classes: of the decoder.
          tr: s.
          choices: what to make of the lines.
          allocation: which feedback the person gets; None: the real one.

        Raises:
          InputError: a text that cannot be read.
        """
        events = [
            evidence.Event(onset, math.inf if duration is None else duration)
            for onset, duration in choices.events
        ]
        self._tr, self._first = tr, None
        self._evidence = evidence.init(
            classes, choices.evidence, tr=tr, delay_s=choices.delay_s, events=events
        )
        self._feedback = None
        if choices.target:
            self._feedback = feedback.init(choices.target, classes, allocation)

    def __call__(self, line: Mapping[str, Any]) -> tuple[dict | None, float | None]:
        """Takes the next line; what is no volume has neither evidence nor feedback."""
        if line["kind"] == "volume" and self._first is None:
            self._first = line["volume"]
        first = 1 if self._first is None else self._first
        self._evidence, found = evidence.read(self._evidence, line, self._tr, first)
        if line["kind"] != "volume" or self._feedback is None:
            return found, None
        marked = line["status"] == record.MARKED
        self._feedback, value = feedback.step(
            self._feedback, line["p"], found, line["volume"], marked=marked
        )
        return found, value
