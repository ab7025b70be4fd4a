"""Evidence and feedback of a session.

Both depend only on the lines of the journal, in order, so that a restart and a replay reproduce
them by reading it.
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
    """Settings of evidence and feedback; plain data, in the first line of the journal."""

    evidence: str = DEFAULT
    delay_s: float = 5.0  # from events to BOLD
    events: tuple[tuple[float, float | None], ...] = ()  # onset, duration in s; never a label
    target: str = ""  # see `feedback.init`; "" for no feedback
    allocation: str = ""  # sha256 of the sealed allocation file


def choose(
    facts: Facts, text: str = "", events: str = "", target: str = "", allocation: str = ""
) -> Choices:
    """Returns checked choices.

    Args:
      facts: facts of the decoder.
      text: settings of the evidence, see `evidence_settings.parse`; "" for the default.
      events: path of an events.tsv; "" for none.
      target: settings of the feedback, see `feedback.init`; "" for none.
      allocation: sha256 of a sealed allocation file; "" for none.

    Raises:
      InputError: the table or a text cannot be read.
    """
    found = evidence.read_events(pathlib.Path(events)) if events else ()
    known = tuple((own.onset, _finite(own.duration)) for own in found)
    chosen = Choices(text or DEFAULT, localizer.hrf_delay_s(facts), known, target, allocation)
    Reader(facts.classes, 1.0, chosen)  # refuses invalid settings early
    return chosen


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Reader:
    """A function from the next line of a journal to its evidence and feedback."""

    def __init__(
        self,
        classes: Sequence[str],
        tr: float,
        choices: Choices,
        allocation: feedback.Allocation | None = None,
    ):
        """Prepares for the first line.

        Args:
          classes: classes of the decoder.
          tr: TR, s.
          choices: settings of evidence and feedback.
          allocation: allocation of the feedback; None for real feedback.

        Raises:
          InputError: a text cannot be read.
        """
        events = [
            evidence.Event(onset, math.inf if duration is None else duration)
            for onset, duration in choices.events
        ]
        self._tr = tr
        self._first: int | None = None
        self._evidence = evidence.init(
            classes, choices.evidence, tr=tr, delay_s=choices.delay_s, events=events
        )
        self._feedback = None
        if choices.target:
            self._feedback = feedback.init(choices.target, classes, allocation)

    def __call__(self, line: Mapping[str, Any]) -> tuple[dict[str, Any] | None, float | None]:
        """Returns evidence and feedback of the next line; None if it is not a volume's."""
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
