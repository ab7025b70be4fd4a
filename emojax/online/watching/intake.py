"""From files to volumes: which files are whole, and what is in them.

intake = Intake()
for path in folder.get(timeout_s=0.05):
    scans = intake.offer(path, now)
scans = intake.retry(now)  # files that were not whole

Nothing that lies in the folder ends a run: what cannot be used becomes a note, or a `Scan` with a
reason instead of values.
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
from emojax.online.watching.folder import QUIET_S
from emojax.online.watching.notes import Note, Notes, keep
from emojax.online.watching.scans import Image, Scan

SETTLE_S = 0.25  # that a doubtful file must stay unchanged
MOST = 256  # files that wait, and files that are known to be done
DICOM = (".dcm", ".ima", ".dicom")
START = 132  # bytes, the last four of which are DICM
IMAGE = "a .nii, .nii.gz or DICOM file"

Stamp = tuple[int, ...]


class _Waiting(NamedTuple):
    """A file that could not be used yet."""

    path: pathlib.Path
    is_short: bool  # only more bytes will do; otherwise time will, too
    text: str
    number: int | None  # of the volume, as the name says; of half a DICOM file, nothing else does
    read: Stamp | None  # its stamp when it was read
    seen: Stamp | None  # at the last look
    since: float  # when it was first seen like this


class Intake:
    """Volumes of one series, out of whatever appears in a folder."""

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
          series: number or name of the one that is wanted; "" is the first of magnitude images.
          pattern: of the names of NIfTI files, see `scans.check_pattern`.
          settle_s: how long a file must be unchanged before its zeros at the end, or its damage,
            are believed; less than the order waits for a volume.
          done: names of files that are not read again, as after a restart.

        Raises:
          InputError: a pattern without {n}.
        """
        self._notes = Notes()
        self._choice = Choice(series, pattern, self._notes)
        self._pattern, self._settle_s = pattern, settle_s
        self._assembly = Assembly(self._notes)
        self._tail: bool | None = None  # whether all volumes so far have ended in zeros
        self._waiting: dict[str, _Waiting] = {}
        self._left = set(done)
        self._done: dict[str, Stamp | None] = {}
        self._early: list[tuple[Series, Scan]] = []  # damaged ones, before a series is chosen

    @property
    def series(self) -> str:
        """The chosen series, as the argument takes it; "" if there is none yet."""
        own = self._choice.chosen
        if own is None:
            return ""
        return own.name if own.number is None else str(own.number)

    def offer(self, path: pathlib.Path, now: float) -> list[Scan]:
        """Takes a file; returns the volumes that it makes whole.

        Args:
          path: a file that has come, or has been written anew.
          now: s, by the clock that `retry` is called with.
        """
        if path.name in self._left:
            self._left.discard(path.name)
            return []
        return self._take(path, now, is_settled=False)

    def retry(self, now: float) -> list[Scan]:
        """Returns the volumes of files that were not whole, and are now. It is cheap."""
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
        """Returns what there is to say about files since the last call."""
        return self._notes.take()

    def incomplete(self, number: int) -> str:
        """Gives a volume up; returns what there is of it, "" if nothing."""
        if text := self._assembly.give_up(number):
            return text
        for name, own in list(self._waiting.items()):
            if own.number == number:
                del self._waiting[name]
                return own.text
        return ""

    def _take(self, path: pathlib.Path, now: float, is_settled: bool) -> list[Scan]:
        """Reads a file. If it cannot be used it waits, or is given up once it has settled."""
        self._waiting.pop(path.name, None)
        own = self._choice.identify(path.name) if scans.is_nifti(path.name) else None
        number, stamp = own and own[1], _stamp(path)
        if stamp is None:
            if own or path.name.lower().endswith(DICOM):  # others are names until a file is whole
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
            text, is_short = _say(path, error), isinstance(error, NotWhole)
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
        """Reads what there is in a file, with the series that each piece belongs to.

        Raises:
          NotWhole, InputError, OSError: it cannot be used.
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
        """Returns the volumes that a piece of the chosen series makes whole."""
        self._tail = piece.ends_in_zeros and self._tail is not False
        out = [scan for series, scan in self._early if series == self._choice.chosen]
        self._early.clear()
        if isinstance(piece, dicom.Part):
            return out + self._assembly.add(piece, name, stamp[0] / 1e9)
        own = piece.number, piece.values, piece.affine, piece.tr
        times = None, stamp[0] / 1e9, time.time()
        return [*out, Scan(*own, *times, (name,), scans.digest(piece.values))]

    def _give_up(self, path: pathlib.Path, text: str, stamp: Stamp) -> list[Scan]:
        """Returns the volume without values that a damaged file stands for."""
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
    """Returns what changes with the content of a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _refusal(path: pathlib.Path) -> str:
    """Returns why something cannot be a file of the scanner, "" if it can.

    Links within the folder are followed. Those to other places are not: whoever may write to the
    folder would choose which files of this computer are read.
    """
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        return "a link out of the folder"
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return "a folder"
    return "" if stat.S_ISREG(mode) else "no regular file"


def _looks_like_dicom(path: pathlib.Path) -> bool:
    """Returns whether a file is DICOM by its content.

    Raises:
      InputError: that cannot be told yet.
    """
    start = scans.read_bytes(path, START)
    if len(start) < START or not any(start):
        raise InputError(path.name, f"{len(start)} bytes", IMAGE)
    return start.endswith(b"DICM")


def _say(path: pathlib.Path, error: Exception) -> str:
    """Returns an error without the folder's name."""
    text = str(error) if isinstance(error, InputError) else f"{path.name}: {cause(error)}"
    return one_line(text.replace(str(path), path.name))
