"""The loop of a session: from what is in the folder to records, in order."""

import contextlib
import gc
import math
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

SWITCH = 5e-4  # s after which Python lets another thread go on; its 5 ms would be late volumes
TR = 2.0  # s, where neither files nor decoder say
PATIENCE = 30  # TRs without a volume, after which a run whose length is known ends
OUTSIDE = ("volumes", "idle_s", "poll_ms")  # settings that change no record
NEAR = 1e-3  # of the TR, by which two may differ


class Settings(NamedTuple):
    """Choices of a session that change its records; the journal's first line has them."""

    correct: str = online.AUTO  # see `online.steps_of`
    series: str = ""  # number or name of the DICOM series; "" is the first of magnitude images
    pattern: str = ""  # of file names, such as "vol_{n}.nii"; "" finds the number by itself
    tr: float = 0.0  # s; 0: as the files say, or the decoder
    first: int | None = None  # number of the first volume; None: 1, or 0 where there is one
    volumes: int = 0  # of the run, which ends behind them; 0: it ends by Ctrl-C
    reorder_ms: float = 0.0  # that a volume is waited for while later ones are there; 0: half a TR
    idle_s: float = 0.0  # without a volume, after which the run ends; 0: never
    poll_ms: float = 0.0  # between two looks into the folder; 0: events, where there are some


class Run(NamedTuple):
    """One session as `watch` has opened it."""

    decoder: Decoder
    folder: pathlib.Path  # that is watched
    out: pathlib.Path
    settings: Settings
    open: Callable[[journals.Journal, online.State, float], Session]  # TR in s
    about: Mapping[str, Any]  # more for the first line of the journal
    told: Callable[[Mapping[str, Any]], None]  # each record, for the terminal
    events: Callable[[], Iterator[Mapping[str, Any]]] = lambda: iter(())  # that have come


def watch(run: Run) -> str:
    """Decodes the volumes of a folder until the run ends.

    Returns:
      Why it ended.

    Raises:
      InputError: before the first volume: the folder is absent, the output folder belongs to
        another session, or the first volume does not fit the decoder.
      Stopped: a signal ended the run; the journal is whole.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    state = online.init(run.decoder, run.settings.correct)
    with locks.Lock(run.out / "lock"), _quick(), stops.deferred():
        path = run.out / journals.NAME
        earlier = journals.verify(path) if path.is_file() and path.stat().st_size else None
        if earlier is not None:
            _check_same(run, path, dict(earlier.lines[0]))
        poll = run.settings.poll_ms or None
        with Folder(run.folder, poll_ms=poll) as folder:
            warm.up(state)
            own = run.decoder.id[:12] or "without an id"
            say(f"ready: {run.folder} ({folder.kind}), decoder {own}")
            loop = _Loop(run, state, folder, path, earlier)
            try:
                why = loop.run()
            except BaseException as error:
                loop.end(f"stopped: {stops.asked() or type(error).__name__}")
                raise
            loop.end(why)
    return why


class _Loop:
    """The loop of one session. The journal begins with the first volume that fits."""

    def __init__(self, run: Run, state: online.State, folder: Folder, path, earlier):
        self._run, self._state, self._folder, self._path = run, state, folder, path
        own = run.settings
        lines = earlier.lines if earlier else ()
        done = [name for line in lines for name in line.get("files", ())]
        series = lines[0]["series"] if lines else own.series
        settle = min(SETTLE_S, own.reorder_ms / 2000 or SETTLE_S)
        self._intake = Intake(series=series, pattern=own.pattern, settle_s=settle, done=done)
        self._order: Order | None = None
        self._session: Session | None = None
        self._early: list[Any] = []  # notes before the first volume
        self._began, self._heard = time.time(), time.monotonic()
        if earlier is not None:
            self._open(earlier.lines[0]["tr"], earlier)

    def run(self) -> str:
        """Decodes volumes as they come; returns why the run ended."""
        own = self._run.settings
        while True:
            stops.check()
            for path in self._folder.get(self._wait()):
                self._take(self._intake.offer(path, time.monotonic()))
            self._take(self._intake.retry(time.monotonic()))
            self._notes()
            if self._session is None:
                continue
            if own.volumes and self._session.seq >= own.volumes:
                return f"{own.volumes} volumes"
            if time.monotonic() - self._heard > self._patience:
                self._emit(self._order.finish(self._last))
                return f"no volume for {self._patience:g} s"

    def end(self, why: str) -> None:
        """Closes the journal."""
        if self._session is not None:
            self._session.end(why)

    def _wait(self) -> float:
        """Returns how long the folder may be waited for, in s."""
        return 0.05 if self._order is None else self._order.wait(time.monotonic())

    def _take(self, scans: list[Scan]) -> None:
        """Puts volumes in order, and decodes what is next."""
        now = time.monotonic()
        for scan in scans:
            self._heard = now
            if self._session is None:
                self._begin(scan)
            self._log(scan, self._order.add(scan.number, scan, scan.sha256, now))
        if self._order is not None:
            self._emit(self._order.pop(now))

    def _emit(self, ready: list[tuple[int, Scan | None]]) -> None:
        for number, scan in ready:
            why = "" if scan else self._intake.incomplete(number)
            self._run.told(self._session.emit(number, scan, why))

    def _log(self, scan: Scan, outcome: str) -> None:
        if outcome != "new":
            hint = "; --first if volumes count from there" if outcome == "jump" else ""
            text = f"{' '.join(scan.files)}: {outcome}, volume {scan.number}{hint}"
            self._session.note(outcome, text, scan.number)

    def _notes(self) -> None:
        """Writes what there is to say, and prints it: why nothing happens, for one."""
        found = self._intake.notes() + self._folder.notes()
        for note in found:
            say(note.text)
        self._early += found
        if self._session is not None:
            for note in self._early:
                self._session.note(note.what, note.text, note.volume)
            self._early.clear()
            for event in self._run.events():
                self._session.event(event)

    def _begin(self, scan: Scan) -> None:
        """Opens the journal at the first volume.

        Raises:
          InputError: the volume does not fit the decoder.
        """
        decoder, where = self._run.decoder, " ".join(scan.files)
        if scan.values is not None:
            volume, affine = onto_grid(decoder, scan.values, scan.affine)
            check_grid(decoder, volume.shape, affine, where)
        tr, asked, trained = scan.tr, self._run.settings.tr, decoder.facts.tr
        if tr and trained and abs(tr - trained) > NEAR * trained:
            found, expected = f"TR {tr:g} s", f"{trained:g} s, as the decoder's training runs"
            raise InputError(where, found, expected)
        self._open(asked or tr or trained or TR, None)

    def _open(self, tr: float, earlier: journals.Verified | None) -> None:
        own = self._run.settings
        window = own.reorder_ms / 1000 or tr / 2
        if earlier is None:
            journal = journals.Journal(self._path)
        else:
            journal = journals.Journal(self._path, earlier.last, earlier.size)
        self._session = self._run.open(journal, self._state, tr)
        first = own.first
        if earlier is None:
            more = {"time": self._began, "series": self._intake.series}
            self._session.start(_about(self._run, tr) | more)
        else:
            self._session.resume(earlier)
            done = [line for line in earlier.lines if line["kind"] == "volume"]
            first = done[-1]["volume"] + 1 if done else first
        self._order = Order(first, window_s=window)
        self._patience = own.idle_s or (PATIENCE * tr if own.volumes else math.inf)

    @property
    def _last(self) -> int | None:
        """The number of the last volume of the run, where it is known."""
        count = self._run.settings.volumes
        return self._order.next + count - self._session.seq - 1 if count else None


@contextlib.contextmanager
def _quick() -> Iterator[None]:
    """Lets threads take turns quickly, and collects garbage between volumes only."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
        gc.unfreeze()


def _about(run: Run, tr: float) -> dict[str, Any]:
    """Returns what the first line of a journal says."""
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
    """Refuses to go on with the journal of another session.

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
