"""Output of records as samples of a Lab Streaming Layer (LSL) stream."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from emojax.errors import InputError

STATUSES = "ok", "marked", "missing", "unreadable"  # sent as 0, 1, 2, 3
QUIET = "[log]\nlevel = -2\n"
ONLY_HERE = "[multicast]\nResolveScope = machine\n"
BUFFER = 360  # samples that the library keeps for a slow reader


class Lsl:
    """A stream that starts once the classes are known, as its channels cannot change later."""

    def __init__(self, name: str, local: bool):
        """Args: the name of the stream, and whether it is announced on this machine only."""
        try:
            import pylsl
        except (ImportError, RuntimeError) as error:  # RuntimeError: its C library is missing
            raise InputError("lsl", "no working pylsl", "pip install pylsl") from error
        pylsl.set_config_content(QUIET + ONLY_HERE * local)
        self._pylsl, self._name = pylsl, name
        self._classes: Sequence[str] = ()
        self._outlet = None

    def start(self, classes: Sequence[str], decoder: str) -> None:
        """Announces the stream.

        Args:
          classes: names of the classes.
          decoder: id of the decoder.
        """
        if self._outlet:
            return
        labels = [
            *("seq", "volume", "status"),
            *(f"p {c}" for c in classes),
            *(f"log-odds {c}" for c in classes),
            "feedback",
        ]
        info = self._pylsl.StreamInfo(
            self._name,
            "fMRI",
            len(labels),
            self._pylsl.IRREGULAR_RATE,
            self._pylsl.cf_float32,
            f"emojax {self._name} {decoder}",
        )
        about = info.desc()
        about.append_child_value("decoder", decoder)
        about.append_child_value("statuses", " ".join(STATUSES))
        channels = about.append_child("channels")
        for label in labels:
            channels.append_child("channel").append_child_value("label", label)
        self._classes = tuple(classes)
        self._outlet = self._pylsl.StreamOutlet(info, max_buffered=BUFFER)

    def send(self, record: bytes, values: Mapping[str, Any]) -> None:
        """Sends a record, with NaN for unknown values."""
        if not self._outlet:
            raise RuntimeError("the classes are not known yet")
        p = values["p"] or {}
        log_odds = (values["evidence"] or {}).get("log_odds", {})
        sample = [
            *(values["seq"], values["volume"], STATUSES.index(values["status"])),
            *(p.get(name) for name in self._classes),
            *(log_odds.get(name) for name in self._classes),
            values["feedback"],
        ]
        self._outlet.push_sample([math.nan if x is None else float(x) for x in sample])

    def close(self) -> None:
        """Ends the stream."""
        self._outlet = None
