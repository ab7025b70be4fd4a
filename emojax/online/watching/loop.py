"""The loop of a session, from files in the folder to records in order."""

import contextlib
import gc
import math
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

import emojax
from emojax import locks, online, stops
from emojax.decoder.build import Decoder
from emojax.decoder.decode import check_grid, onto_grid
from emojax.errors import InputError, say
from emojax.online.watching import journal as journals
from emojax.online.watching import warm
from emojax.online.watching.folder import Folder
from emojax.online.watching.intake import SETTLE_S, Intake
from emojax.online.watching.order import Order
from emojax.online.watching.scans import Scan
from emojax.online.watching.session import Session

SWITCH = 5e-4  # s between switches of threads; Python's default of 5 ms would delay volumes
LONGEST = 1 << 20  # bytes of a first line
PATIENCE = 30  # TRs without a volume, after which a run of known length ends
OUTSIDE = ("volumes", "idle_s", "poll_ms")  # settings that do not change records
NEAR = 1e-3  # largest relative difference of equal TRs


class Settings(NamedTuple):
    """Settings of a session, stored in the first line of its journal."""

    correct: str = online.AUTO  # see `online.steps_of`
    series: str = ""  # number or name of the DICOM series; "" is the first of magnitude images
    pattern: str = ""  # pattern of file names, such as "vol_{n}.nii"; "" takes the last number
    tr: float = 0.0  # s; 0 for that of the decoder
    first: int | None = None  # number of the first volume; None for 1, or 0 if a volume 0 exists
    volumes: int = 0  # number of volumes, after which the run ends; 0 to end it by Ctrl-C
    reorder_ms: float = 0.0  # time to wait for a volume after a later one; 0 for half a TR
    idle_s: float = 0.0  # time without a volume, after which the run ends; 0 for never
    poll_ms: float = 0.0  # time between two polls of the folder; 0 to use events if available


class Run(NamedTuple):
    """The inputs of `watch`."""

    decoder: Decoder
    folder: pathlib.Path  # folder to watch
    out: pathlib.Path  # folder of the session
    settings: Settings
    open: Callable[[journals.Journal, online.State, float], Session]  # float: TR, s
    about: Mapping[str, Any]  # additional keys of the journal's first line
    told: Callable[[Mapping[str, Any]], None]  # called with each record, for the terminal
    events: Callable[[], Iterator[Mapping[str, Any]]] = lambda: iter(())  # yields new events


def watch(run: Run) -> str:
    """Decodes the volumes of a folder until the run ends.

    Returns:
      The reason why it ended.

    Raises:
      InputError: the folder is missing, the output folder belongs to another session, or the first
        volume does not match the decoder.
      Stopped: a signal ended the run; the journal is complete.
    """
    tr, state = _tr(run.decoder, run.settings.tr), online.init(run.decoder, run.settings.correct)
    run.out.mkdir(parents=True, exist_ok=True)
    with locks.Lock(run.out / "lock"), _quick(), stops.deferred():
        path = run.out / journals.NAME
        earlier = journals.verify(path) if _has_a_line(path) else None
        if earlier is not None:
            _check_same(run, path, dict(earlier.lines[0]))
        poll = run.settings.poll_ms or None
        with Folder(run.folder, poll_ms=poll) as folder:
            if earlier is None and (count := len(os.listdir(run.folder))):
                say(f"{run.folder}: {count} files exist already; they count as part of the run")
            warm.up(state)
            own = run.decoder.id[:12] or "without an id"
            say(f"ready: {run.folder} ({folder.kind}), decoder {own}")
            loop = _Loop(run, tr, state, folder, path, earlier)
            try:
                why = loop.run()
            except BaseException as error:
                loop.end(f"stopped: {stops.asked() or type(error).__name__}")
                raise
            loop.end(why)
    return why


class _Loop:
    """The loop of one session. The journal begins with the first volume that fits."""

    def __init__(
        self,
        run: Run,
        tr: float,
        state: online.State,
        folder: Folder,
        path: pathlib.Path,
        earlier: journals.Verified | None,
    ):
        own, self._run, self._folder, self._tr = run.settings, run, folder, tr
        window = own.reorder_ms / 1000 or tr / 2
        self._patience = own.idle_s or (PATIENCE * tr if own.volumes else math.inf)
        self._began, self._heard = time.time(), time.monotonic()
        series, first, done = own.series, own.first, []
        self._session = run.open(journals.Journal(path, earlier), state, tr)
        if earlier is not None:
            self._session.resume(earlier)
            series = earlier.lines[0]["series"]
            volumes = [line for line in earlier.lines if line["kind"] == "volume"]
            first = volumes[-1]["volume"] + 1 if volumes else first
            done = [name for line in volumes for name in line["files"]]
        settle = min(SETTLE_S, window / 2)
        self._intake = Intake(series=series, pattern=own.pattern, settle_s=settle, done=done)
        self._order = Order(first, window_s=window)

    def run(self) -> str:
        """Decodes volumes as they arrive; returns the reason why the run ended."""
        count = self._run.settings.volumes
        while True:
            stops.check()
            for path in self._folder.get(self._order.wait(time.monotonic())):
                stops.check()
                self._take(self._intake.offer(path, time.monotonic()))
            self._take(self._intake.retry(time.monotonic()))
            self._report_incidents()
            if self._is_done:
                return f"{count} volumes"
            if time.monotonic() - self._heard <= self._patience:
                continue
            if self._session.is_started:
                left = self._order.next + count - self._session.seq - 1
                self._emit(self._order.finish(left if count else None))
            if self._session.is_started or self._run.settings.idle_s:
                return f"no volume for {self._patience:g} s"

    def end(self, why: str) -> None:
        """Closes the journal, and prints the sha256 of its last line."""
        self._session.end(why)
        if self._session.is_started:
            own = self._session.journal
            say(f"journal: {own.path}, whose last line has sha256 {own.last}")

    def _take(self, scans: list[Scan]) -> None:
        """Puts volumes in order, and decodes the next ones."""
        now = time.monotonic()
        for scan in scans:
            self._heard = now
            if not self._session.is_started:
                self._begin(scan)
            outcome = self._order.add(scan.number, scan, scan.sha256, now)
            if outcome != "new":
                hint = "; --first if volumes count from there" if outcome == "jump" else ""
                text = f"{' '.join(scan.files)}: {outcome}, volume {scan.number}{hint}"
                self._session.note(outcome, text, scan.number)
        self._emit(self._order.pop(now))

    @property
    def _is_done(self) -> bool:
        count = self._run.settings.volumes
        return 0 < count <= self._session.seq

    def _emit(self, ready: list[tuple[int, Scan | None]]) -> None:
        came = next((number for number, scan in ready if scan), 0)
        if ready and not self._session.seq and came > ready[0][0]:
            text = f"volume {came} came first: those before it are missing (or --first={came})"
            say(text)
            self._session.note("gap", text, came)
        for number, scan in ready:
            if self._is_done:
                return
            why = "" if scan else self._intake.incomplete(number)
            self._run.told(self._session.emit(number, scan, why))

    def _report_incidents(self) -> None:
        """Writes notes and events to the journal, and prints the notes."""
        for note in self._intake.notes() + self._folder.notes():
            say(note.text)
            self._session.note(note.what, note.text, note.volume)
        for event in self._run.events():
            self._session.event(event)

    def _begin(self, scan: Scan) -> None:
        """Starts the journal at the first volume.

        Raises:
          InputError: the volume does not match the decoder.
        """
        decoder, where = self._run.decoder, " ".join(scan.files)
        if scan.values is not None:
            volume, affine = onto_grid(decoder, scan.values, scan.affine)
            check_grid(decoder, volume.shape, affine, where)
        if scan.tr and abs(scan.tr - self._tr) > NEAR * self._tr:
            raise InputError(where, f"TR {scan.tr:g} s", f"{self._tr:g} s, that of the session")
        more = {"time": self._began, "series": self._intake.series}
        self._session.start(_about(self._run, self._tr) | more)


def _has_a_line(path: pathlib.Path) -> bool:
    """Returns whether a journal has a complete first line, which a power cut may prevent."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.readline(LONGEST).endswith(b"\n")


def _tr(decoder: Decoder, asked: float) -> float:
    """Returns the TR, s.

    Raises:
      InputError: neither decoder nor flag state it, or they differ.
    """
    found = asked or decoder.facts.tr
    if not found:
        raise InputError("--tr", "none", "the TR in s, which this decoder does not state")
    trained = decoder.facts.tr or found
    if abs(found - trained) > NEAR * trained:
        raise InputError("--tr", f"{asked:g} s", f"{trained:g} s, as the decoder's training runs")
    return found


@contextlib.contextmanager
def _quick() -> Iterator[None]:
    """Switches threads quickly in the context; unfreezes the garbage collector afterwards."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()


def _about(run: Run, tr: float) -> dict[str, Any]:
    """Returns the content of a journal's first line."""
    decoder = run.decoder
    return {
        "decoder": decoder.id,
        "classes": list(decoder.facts.classes),
        "facts": decoder.facts._asdict(),
        "tr": tr,
        "folder": str(run.folder),
        "settings": run.settings._asdict(),
        "versions": {
            "emojax": emojax.__version__,
            "jax": jax.__version__,
            "python": platform.python_version(),
        },
        **run.about,
    }


def _check_same(run: Run, path: pathlib.Path, start: dict[str, Any]) -> None:
    """Refuses to continue the journal of another session.

    Raises:
      InputError: decoder, folder or settings differ.
    """
    own = journals.as_read(_about(run, start["tr"]))
    for one in (start, own):
        one["settings"] = {k: v for k, v in one["settings"].items() if k not in OUTSIDE}
    names = ("decoder", "folder", "settings", *run.about)
    if differ := [name for name in names if start.get(name) != own[name]]:
        found = f"a session with other {' and '.join(differ)}"
        raise InputError(path, found, "another --out for a new session, or the same command")
