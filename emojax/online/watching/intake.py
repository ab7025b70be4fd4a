"""Intake: turns files into volumes as soon as they are complete.

intake = Intake()
for path in folder.get(timeout_s=0.05):
    scans = intake.offer(path, now)
scans = intake.retry(now)  # files that were incomplete before

No file in the folder can end a run: an unusable one becomes a note, or a `Scan` with a reason
instead of values.
"""

import pathlib
import stat
import time
from collections.abc import Iterable
from typing import NamedTuple

from emojax.errors import InputError, one_line
from emojax.files import cause
from emojax.online import dicom
from emojax.online.dicom import NotWhole
from emojax.online.watching import scans
from emojax.online.watching.assembly import Assembly
from emojax.online.watching.choice import Choice, Series, series_of
from emojax.online.watching.folder import QUIET_S, Stamp, stamp_of
from emojax.online.watching.notes import Note, Notes, keep
from emojax.online.watching.scans import Image, Scan

SETTLE_S = 0.25  # for which a doubtful file must stay unchanged
MOST = 256  # files that wait, and files that are known to be done
DICOM = (".dcm", ".ima", ".dicom")
START = 132  # bytes, of which the last four are DICM
IMAGE = "a .nii, .nii.gz or DICOM file"


class _Waiting(NamedTuple):
    """A file that could not be used yet."""

    path: pathlib.Path
    is_short: bool  # whether only more bytes help; otherwise it is accepted after some time
    text: str
    number: int | None  # number of the volume by its name, the only clue in half a DICOM file
    read: Stamp | None  # stamp when it was read
    seen: Stamp | None  # stamp at the last look
    since: float  # time at which it was first seen with this stamp


class Intake:
    """The intake of one series' volumes from any files that appear in a folder."""

    def __init__(
        self,
        *,
        series: str = "",
        pattern: str = "",
        settle_s: float = SETTLE_S,
        done: Iterable[str] = (),
    ):
        """Prepares for the first file.

        Args:
          series: number or name of the wanted series; "" is the first of magnitude images.
          pattern: pattern of NIfTI file names, see `scans.check_pattern`.
          settle_s: time for which a file must stay unchanged before zeros at its end, or damage,
            are accepted as final; shorter than the time for which `Order` waits for a volume.
          done: names of files that are not read again, after a restart.

        Raises:
          InputError: the pattern is without {n}.
        """
        self._notes = Notes()
        self._choice = Choice(series, pattern, self._notes)
        self._pattern, self._settle_s = pattern, settle_s
        self._assembly = Assembly(self._notes)
        self._tail: bool | None = None  # whether all volumes so far ended in zeros
        self._waiting: dict[str, _Waiting] = {}
        self._left = set(done)
        self._done: dict[str, Stamp | None] = {}
        self._early: list[tuple[Series, Scan]] = []  # damaged scans before a series is chosen

    @property
    def series(self) -> str:
        """The chosen series in the form of the argument; "" if there is none yet."""
        own = self._choice.chosen
        if own is None:
            return ""
        return own.name if own.number is None else str(own.number)

    def offer(self, path: pathlib.Path, now: float) -> list[Scan]:
        """Takes a file; returns the volumes that it completes.

        Args:
          path: a new file, or one that has been rewritten.
          now: time, s, by the same clock as in `retry`.
        """
        if path.name in self._left:
            self._left.discard(path.name)
            return []
        return self._take(path, now, is_settled=False)

    def retry(self, now: float) -> list[Scan]:
        """Returns the volumes of files that have become complete; a cheap call."""
        found: list[Scan] = []
        for name, own in list(self._waiting.items()):
            stamp, since = _stamp(own.path), min(own.since, now)  # the clock may be set back
            if stamp != own.seen or since != own.since:
                since = since if stamp == own.seen else now
                self._waiting[name] = own._replace(seen=stamp, since=since)
            elif stamp != own.read and now - since >= QUIET_S:
                found += self._take(own.path, now, is_settled=False)
            elif stamp == own.read and not own.is_short and now - since >= self._settle_s:
                found += self._take(own.path, now, is_settled=True)
        return found

    def notes(self) -> list[Note]:
        """Returns the notes about files since the last call."""
        return self._notes.take()

    def incomplete(self, number: int) -> str:
        """Gives a volume up; returns a description of its files, "" without any."""
        if text := self._assembly.give_up(number):
            return text
        for name, own in list(self._waiting.items()):
            if own.number == number:
                del self._waiting[name]
                return own.text
        return ""

    def _take(self, path: pathlib.Path, now: float, is_settled: bool) -> list[Scan]:
        """Reads a file. An unusable file waits, or is given up once it has settled."""
        self._waiting.pop(path.name, None)
        own = self._choice.identify(path.name) if scans.is_nifti(path.name) else None
        number, stamp = own and own[1], _stamp(path)
        if stamp is None:
            if own or path.name.lower().endswith(DICOM):  # others may be temporary names
                self._notes.add("ignored", f"{path.name}: gone before it was read", number)
            return []
        if self._done.get(path.name) == stamp:
            return []
        try:
            wanted = [piece for series, piece in self._read(path) if self._choice.wants(series)]
            if _stamp(path) != stamp:
                raise NotWhole(path.name, "changes", "a file that nobody writes to")
            if not (self._tail or is_settled) and any(p.ends_in_zeros for p in wanted):
                raise InputError(path.name, "zeros at the end", "values; it may be half written")
        except (InputError, OSError) as error:
            text, is_short = _describe(path, error), isinstance(error, NotWhole)
            if is_short or not is_settled:
                named = number if own else scans.last_number(path.stem)
                file = _Waiting(path, is_short, text, named, stamp, stamp, now)
                if (lost := keep(self._waiting, path.name, file, MOST)) is not None:
                    self._notes.add("unreadable", lost.text, lost.number)
                return []
            keep(self._done, path.name, stamp, MOST)
            return self._give_up(path, text, stamp)
        keep(self._done, path.name, stamp, MOST)
        return [scan for piece in wanted for scan in self._deliver(piece, path.name, stamp)]

    def _read(self, path: pathlib.Path) -> list[tuple[Series, Image | dicom.Part]]:
        """Reads the pieces of volumes in a file, with their series.

        Raises:
          NotWhole, InputError, OSError: the file cannot be used.
        """
        if refusal := _refusal(path):
            self._notes.once("ignored", str(path), f"{path.name}: ignored: {refusal}")
            return []
        if not scans.is_nifti(path.name):
            if path.name.lower().endswith(DICOM) or _looks_like_dicom(path):
                scans.check_size(path)
                return [(series_of(part), part) for part in dicom.read(path)]
            self._notes.once("ignored", path.suffix, f"{path.name}: ignored; expected {IMAGE}")
            return []
        own = self._choice.identify(path.name)
        if own is None:
            name, _ = scans.identify(path.name) or (path.name, 0)
            self._notes.once("ignored", name, f"{name}: ignored: no number at the place of {{n}}")
            return []
        if self._choice.chosen is not None and not self._choice.wants(own[0]):
            return []
        return [(own[0], scans.read_nifti(path, self._pattern))]

    def _deliver(self, piece: Image | dicom.Part, name: str, stamp: Stamp) -> list[Scan]:
        """Returns the volumes that a piece of the chosen series completes."""
        self._tail = piece.ends_in_zeros and self._tail is not False
        out = [scan for series, scan in self._early if series == self._choice.chosen]
        self._early.clear()
        if isinstance(piece, dicom.Part):
            return out + self._assembly.add(piece, name, stamp[0] / 1e9)
        own = piece.number, piece.values, piece.affine, piece.tr
        times = None, stamp[0] / 1e9, time.time()
        return [*out, Scan(*own, *times, (name,), scans.digest(piece.values))]

    def _give_up(self, path: pathlib.Path, text: str, stamp: Stamp) -> list[Scan]:
        """Returns a scan without values for a damaged file."""
        own = self._choice.identify(path.name) if scans.is_nifti(path.name) else None
        if own is None:
            self._notes.add("unreadable", text)
            return []
        series, number = own
        times = None, stamp[0] / 1e9, time.time()
        scan = Scan(number, None, None, None, *times, (path.name,), "", text)
        if not self._choice.is_by_name:  # a series is chosen by a file that can be read
            self._early = [*self._early[1 - MOST :], (series, scan)]
            return []
        return [scan] if self._choice.wants(series) else []


def _stamp(path: pathlib.Path) -> Stamp | None:
    return stamp_of(path, follow_links=True)


def _refusal(path: pathlib.Path) -> str:
    """Returns the reason why a path cannot be a file of the scanner, "" if it can.

    Links within the folder are followed, but not those to other places. Otherwise anybody who can
    write to the folder could choose which files of this computer are read.
    """
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        return "a link out of the folder"
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return "a folder"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _looks_like_dicom(path: pathlib.Path) -> bool:
    """Returns whether a file is DICOM by its content.

    Raises:
      InputError: the file is still too short to tell.
    """
    start = scans.read_bytes(path, START)
    if len(start) < START or not any(start):
        raise InputError(path.name, f"{len(start)} bytes", IMAGE)
    return start.endswith(b"DICM")


def _describe(path: pathlib.Path, error: Exception) -> str:
    """Returns the text of an error without the name of the folder."""
    text = str(error) if isinstance(error, InputError) else f"{path.name}: {cause(error)}"
    return one_line(text.replace(str(path), path.name))
