"""Replay: decodes a session again from its journal and files, and compares record by record."""

import math
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from emojax import online
from emojax.decoder import bundle as bundles
from emojax.errors import InputError
from emojax.online import session
from emojax.online.watching import journal as journals
from emojax.online.watching import opening, record
from emojax.online.watching.intake import Intake
from emojax.online.watching.scans import Scan
from emojax.online.watching.session import Session

MOST = 10  # largest number of differences in the summary
LATER = 3600.0  # s, a time at which no file is waited for any more


class Replayed(NamedTuple):
    """The outcome of a replay."""

    lines: tuple[dict[str, Any], ...]  # lines of the original journal
    records: tuple[dict[str, Any], ...]  # records of the replay, in the order of the journal
    differences: tuple[tuple[int, tuple[str, ...]], ...]  # volume, keys that differ


def replay(
    path: str | os.PathLike,
    *,
    bundle: str = "",
    folder: str = "",
    out: str | os.PathLike | None = None,
) -> Replayed:
    """Decodes the volumes of a journal again, in its order.

    Args:
      path: path of the journal.
      bundle: folder of the decoder; "" is the one that the journal names.
      folder: folder of the scanner's files; "" is the one that was watched.
      out: folder to write the new journal to; None keeps none.

    Raises:
      InputError: the journal is incomplete, or the decoder or a file has changed.
    """
    lines = journals.verify(path).lines
    for number, line in enumerate(lines, 1):
        if lacks := [name for name in NEEDED.get(line["kind"], ()) if name not in line]:
            where = f"{path}, line {number}"
            raise InputError(where, f"no {', '.join(lacks)}", journals.WANTED)
    start = lines[0]
    decoder = bundles.load(bundle or start["bundle"], expect=start["decoder"], calibration=False)
    state = online.init(decoder, start["settings"]["correct"])
    files = pathlib.Path(folder or start["folder"])
    with tempfile.TemporaryDirectory() as scratch:
        target = pathlib.Path(scratch if out is None else out)
        target.mkdir(parents=True, exist_ok=True)
        if (target / journals.NAME).exists():
            raise InputError(target / journals.NAME, "another journal", "a new folder as --out")
        journal = journals.Journal(target / journals.NAME)
        choices = opening.choices_of(start)
        if choices.allocation:  # real values would unblind
            choices = choices._replace(target="")
        again = opening.session(journal, state, start["tr"], choices)
        again.start({name: start[name] for name in start if name not in journals.OWN})
        made = [_again(again, own, start, files) for own in lines if own["kind"] in REPEATED]
        again.end(f"replay of {path}")
    records = tuple(own for own in made if own is not None)
    before = [own for own in lines if own["kind"] == "volume"]
    blind = {"feedback"} if start["meaning"]["allocation"] else set()  # a difference would unblind
    found = (
        (old["volume"], tuple(name for name in record.same(old, new) if name not in blind))
        for old, new in zip(before, records, strict=True)
    )
    return Replayed(lines, records, tuple(pair for pair in found if pair[1]))


REPEATED = ("volume", "event")
NEEDED = {  # kind of line -> keys that are read
    "start": ("bundle", "classes", "decoder", "folder", "meaning", "series", "settings", "tr"),
    "volume": tuple(record.build(0, 0, record.OK, [])),
}


def _again(
    again: Session, own: Mapping[str, Any], start: Mapping[str, Any], folder: pathlib.Path
) -> dict[str, Any] | None:
    """Repeats one line of the journal; returns the record if it is a volume's."""
    if own["kind"] == "event":
        again.event({name: own[name] for name in own if name not in ("kind", "time", "before")})
        return None
    number = own["volume"]
    if own["status"] == record.MISSING:
        return again.emit(number, None, "; ".join(own["reasons"]))
    try:
        scan = _read(own, start, folder)
    except InputError as error:
        times = own["time_scan"], own["time_closed"], own["time_ready"]
        scan = Scan(number, None, None, None, *times, tuple(own["files"]), "", str(error))
    return again.emit(number, scan)


def _read(own: Mapping[str, Any], start: Mapping[str, Any], folder: pathlib.Path) -> Scan:
    """Reads the files of a record again.

    Raises:
      InputError: they are gone, or their values have changed.
    """
    intake = Intake(series=start["series"], pattern=start["settings"]["pattern"])
    paths = [folder / name for name in own["files"]]
    for path in paths:
        if not path.is_file():
            raise InputError(path, "no such file", "the files of the session (--input)")
    scans = [scan for path in paths for scan in intake.offer(path, 0.0)]
    scans += intake.retry(LATER)
    for scan in scans:
        if scan.number == own["volume"] and scan.sha256 == own["sha256"]:
            return scan
    raise InputError(" ".join(map(str, paths)), "other values than in the session", "the same file")


def summary(found: Replayed, events: str = "") -> Iterator[str]:
    """Yields the lines of a replay's summary.

    Args:
      found: the replay.
      events: path of the run's events.tsv, for accuracy; "" for none.

    Raises:
      InputError: the table cannot be read.
    """
    for volume, names in found.differences[:MOST]:
        own = next(own for own in found.records if own["volume"] == volume)
        yield f"volume {volume}: another {', '.join(names)} {'; '.join(own['reasons'])}".rstrip()
    same = len(found.records) - len(found.differences)
    yield f"{same} of {len(found.records)} records are the same, but for times and hashes"
    labels = session.labels_of(found.lines, events) if events else {}
    own = session.statistics(found.lines, labels)
    yield ", ".join(f"{count} {status}" for status, count in own.volumes.items() if count)
    for stage, ms in own.latency_ms.items():
        yield f"{stage}: p50 {ms['p50']:.1f}, p99 {ms['p99']:.1f}, most {ms['max']:.1f} ms"
    yield f"{own.late} records sent more than a TR after their file was closed"
    if found.lines[0]["meaning"]["allocation"]:
        return  # accuracy would reveal who got real feedback
    for name, known in own.accuracy.items():
        parts = [f"{label} {right} of {count}" for label, (right, count) in known.by_class.items()]
        if known.balanced is not None:
            parts.insert(0, f"balanced accuracy {known.balanced:.3f}")
        yield f"{name}: {', '.join(parts)}"


def p99(found: Replayed) -> float:
    """Returns the 99th percentile of the ms from file closed to record sent; inf without any."""
    own = session.statistics(found.lines).latency_ms.get(session.SENT)
    return own["p99"] if own else math.inf
