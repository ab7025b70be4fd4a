"""A session: turns volumes into records, which go to the journal first and then to the outputs."""

import dataclasses
import pathlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from emojax import online
from emojax.decoder import guards
from emojax.errors import InputError, say
from emojax.online.watching import journal as journals
from emojax.online.watching import memory, record
from emojax.online.watching.scans import Scan

ANEW = "the correction starts again, as its memory is lost"
Sender = Callable[[bytes, Mapping[str, Any]], None]
Reader = Callable[[Mapping[str, Any]], tuple[Any, float | None]]  # record -> evidence, feedback


@dataclasses.dataclass
class Session:
    """The state carried from one volume to the next, with the journal and the outputs.

    Attributes:
      state: state of the decoding, see `online.init`.
      journal: journal that lines are added to.
      read: stateful function from each line, in order, to evidence and feedback.
      send: function that takes a record as JSON and as data, and returns at once.
      visible: function that returns the part of a record that may be sent; all of it by default.
      dropped: function that returns the number of records that each output has dropped so far.
      begun: function that takes the sha256 of the first line, which identifies the session.
    """

    state: online.State
    journal: journals.Journal
    read: Reader = lambda own: (None, None)
    send: Sender = lambda line, own: None
    visible: Callable[[dict], dict] = lambda own: own
    dropped: Callable[[], dict[str, int]] = dict
    begun: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        self.is_started = False  # nothing is written before the first line
        self.seq, self.missed = 0, 0  # seq of the next record; volumes lost so far
        self.last: Mapping[str, Any] | None = None  # the last record
        self._is_behind = False  # whether lines wait for room on the disk
        self._unwritten: deque[tuple[dict[str, Any], bool]] = deque()
        self._marks: list[str] = []  # additional marks of the next volume
        self._is_restarted = False  # whether the state lacks the volume before

    @property
    def folder(self) -> pathlib.Path:
        """The folder of the session."""
        return self.journal.path.parent

    def start(self, about: Mapping[str, Any]) -> None:
        """Writes the first line.

        Args:
          about: its content; "time" is the start of the session.

        Raises:
          OSError: the disk is full or gone.
        """
        self.begun(self.journal.add({"kind": "start", "format": journals.FORMAT, **about}))
        self.is_started = True  # waiting notes follow

    def emit(self, number: int, scan: Scan | None, why: str = "") -> dict[str, Any]:
        """Decodes the next volume in order, writes its record and sends it.

        Args:
          number: number of the volume.
          scan: the volume; None if it is declared missing.
          why: reason why it is missing, if known.

        Returns:
          The record.
        """
        began = time.perf_counter()
        own = self._decode(number, scan, why)
        own["missed"] = self.missed = self.missed + (own["status"] in record.LOST)
        own["pose"] = record.as_numbers(self.state.pose) if self.state.registration else None
        own["evidence"], own["feedback"] = self.read(own)
        own["time_decoded"] = time.time()
        own["stages_ms"] |= {"decode": 1000 * (time.perf_counter() - began)}
        if self._remembers:
            self._keep_memory(self.state.memory)
        began = time.perf_counter()
        line = self._write(own)
        self.seq, self.last, self._is_restarted = self.seq + 1, own, False
        return self._send(own, line, {"journal": 1000 * (time.perf_counter() - began)})

    def note(self, what: str, text: str, volume: int | None = None) -> None:
        """Writes a note about an incident."""
        own = {"kind": "note", "time": time.time(), "what": what, "text": text, "volume": volume}
        self._write(own, wait=False)

    def event(self, own: Mapping[str, Any]) -> None:
        """Writes an event from the network, which may start a window of evidence."""
        line = {"kind": "event", "time": time.time()} | dict(own)
        self._write(line, wait=False)
        self.read(line)

    def end(self, text: str) -> None:
        """Writes the last line and closes the journal, if it was started."""
        self._write({"kind": "end", "time": time.time(), "text": text})
        if self._unwritten and self.is_started:
            say(f"{self.journal.path}: {len(self._unwritten)} lines could not be written")
        self.journal.close()

    def resume(self, found: journals.Verified) -> None:
        """Continues a journal; its last record is sent again unless it is known to have been sent.

        Args:
          found: the journal.
        """
        volumes = [own for own in found.lines if own["kind"] == "volume"]
        self.begun(found.hash_of(found.lines[0]))
        self.is_started = True
        for own in found.lines:
            self.read(own)
        self.note("restart", f"continues after {len(volumes)} volumes")
        if not volumes:
            return
        last = volumes[-1]
        self.seq, self.missed, self.last = last["seq"] + 1, last["missed"], last
        self.state = self.state._replace(count=len(volumes))
        self._is_restarted = last["status"] not in record.LOST
        if (pose := record.pose_of(last)) is not None:
            self.state = self.state._replace(pose=pose)
        if self._remembers:
            self._restore(last["seq"])
        if not any(own["kind"] == "sent" and own["seq"] == last["seq"] for own in found.lines):
            self._send(last, found.hash_of(last), {})

    def _restore(self, seq: int) -> None:
        assert self.state.memory is not None
        kept = memory.restore(self.folder, seq, self.state.memory)
        if kept is None:
            self.note("restart", ANEW)
            self._marks.append(ANEW)
        else:
            self.state = self.state._replace(memory=kept)

    @property
    def _remembers(self) -> bool:
        return self.state.correction is not None and bool(self.state.correction.steps)

    def _decode(self, number: int, scan: Scan | None, why: str) -> dict[str, Any]:
        """Returns the record of a volume, without evidence."""
        decoder = self.state.decoder
        more: dict[str, Any] = {"decoder": decoder.id}
        if scan is None:
            return self._lost(number, record.MISSING, why, more)
        more |= {name: getattr(scan, name) for name in ("time_scan", "time_closed", "time_ready")}
        more |= {"files": list(scan.files), "sha256": scan.sha256}
        more["stages_ms"] = {
            "wait": 1000 * (scan.time_ready - scan.time_closed),
            "order": 1000 * (time.time() - scan.time_ready),
        }
        if scan.values is None:
            return self._lost(number, record.UNREADABLE, scan.reason, more)
        again = self._is_restarted and self.last is not None and scan.sha256 == self.last["sha256"]
        try:
            where = " ".join(scan.files) or f"volume {number}"
            self.state, found = online.step(self.state, scan.values, scan.affine, where)
        except InputError as error:
            return self._lost(number, record.UNREADABLE, str(error), more)
        own = record.of_volume(found, decoder.facts.classes)
        if marks := [*[guards.REPEATED] * again, *self._marks]:
            own |= {"status": record.MARKED, "reasons": [*marks, *own["reasons"]]}
        self._marks = []
        return record.build(self.seq, number, **own, **more)

    def _lost(self, number: int, status: str, why: str, more: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the record of a volume that is not decoded but counts in the run."""
        self.state = self.state._replace(count=self.state.count + 1, before=None)
        return record.build(self.seq, number, status, [why] if why else [], **more)

    def _keep_memory(self, known: Any) -> None:
        try:
            memory.keep(self.folder, self.seq, known)
        except OSError as error:
            say(f"{self.folder}: {error.strerror}; a restart would lose what the correction knows")

    def _write(self, own: Mapping[str, Any], wait: bool = True) -> str | None:
        """Adds a line after all unwritten ones; returns its sha256, or None if it must wait."""
        self._unwritten.append((dict(own), wait))
        line = None
        while self._unwritten and self.is_started:
            entry, waits = self._unwritten[0]
            try:
                line = self.journal.add(entry, wait=waits)
            except OSError as error:
                if not self._is_behind:
                    say(f"{self.journal.path}: {error.strerror}; the run continues without it")
                self._is_behind = True
                return None
            self._unwritten.popleft()
        if self._is_behind:
            self._is_behind = False
            self.note("disk", "the journal could not be written for a while; it is complete again")
        return line

    def _send(
        self, own: dict[str, Any], line: str | None, stages: Mapping[str, float]
    ) -> dict[str, Any]:
        sent = journals.wire(own, line or "", time.time())
        if line is None:
            sent["reasons"] = [*sent["reasons"], "not in the journal: it cannot be written"]
        shown = self.visible(sent)
        self.send(journals.plain(shown), shown)
        after = {"kind": "sent", "seq": own["seq"], "time_sent": sent["time_sent"]}
        self._write(after | {"dropped": self.dropped(), "stages_ms": dict(stages)}, wait=False)
        return sent
