"""The events tables of a BIDS data set, found in it or in the raw data it was derived from."""

import os
import pathlib
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from emojax.data.paths import require_folder
from emojax.errors import InputError
from emojax.sources.bids_names import File
from emojax.sources.inheritance import Inherited, read_json

DESCRIPTION = "dataset_description.json"
LEVELS = 4  # number of parent folders of a derivative that are searched for its raw data
NAMES = ("", "raw", "rawdata", "sourcedata", "sourcedata/raw", "bids")  # subfolders searched
TYPE = "--config.data.events_root=/path/to/raw"


class EventTables(NamedTuple):
    """The events.tsv of each run, and the data set that holds them."""

    paths: list[pathlib.Path]  # one per run
    root: pathlib.Path  # of the data set
    notes: list[str]  # a sentence, if this data set was found by searching


def event_tables(
    scans: Sequence[File], root: pathlib.Path, events_root: str | os.PathLike
) -> EventTables:
    """Returns the events.tsv of each scan.

    It is in the nearest folder upwards that has one, and shares the most entities with the scan.

    Args:
      scans: BOLD images of the runs.
      root: root of their data set.
      events_root: root of the data set that holds the events. "" means `root`; for scans without
        events there, also the raw data named in dataset_description.json or found in a folder
        above.

    Raises:
      InputError: a scan has no events.
    """
    best = root
    if events_root:
        best = require_folder(events_root, "the root of a BIDS data set (data.events_root)")
    found, more = _tables(scans, root, best), {}
    missing = [scan for scan in scans if scan.path not in found]
    tried = [best]
    for candidate in candidates(root) if missing and not events_root else ():
        tried.append(candidate)
        there = _tables(missing, root, candidate)
        if len(there) > len(more):  # keep the folder with the most tables
            best, more = candidate, there
        if len(more) == len(missing):
            break
    found |= more
    if lost := [scan for scan in scans if scan.path not in found]:
        raise _no_events(lost, scans, root, best, tried)
    said = f"events were read from the raw data in {best} (runs: {len(missing)})"
    return EventTables([found[scan.path] for scan in scans], best, [said] if missing else [])


def _no_events(
    lost: Sequence[File],
    scans: Sequence[File],
    root: pathlib.Path,
    best: pathlib.Path,
    tried: Sequence[pathlib.Path],
) -> InputError:
    """Returns the error for scans without events; `best` is the folder with the most tables."""
    first, found, others = lost[0], "no events", [str(path) for path in tried if path != best]
    ways = [f"*_events.tsv in {best / first.path.parent.relative_to(root)} or above"]
    if len(lost) < len(scans):
        found += f" of {first.label} ({len(lost)} of {len(scans)} runs have none in {best})"
        without = {scan.written["sub"] for scan in lost}
        whole = dict.fromkeys(s.written["sub"] for s in scans if s.written["sub"] not in without)
        key = f"data.subjects={','.join(whole)}" if whole else "data.runs=..."
        ways.append(f"runs that have some: --config.{key}")
    elif others:
        ways[0] += f" (nor in {', '.join(others)})"
    ways.append(f"or their folder: {TYPE}")
    return InputError(first.path, found, ", ".join(ways))


def candidates(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields folders that may hold the raw data of a derivative, the likeliest first.

    Args:
      root: root of the derivative.
    """
    seen = {os.path.realpath(root)}
    above = list(root.absolute().parents[:LEVELS])
    for path in (*_linked(root), *(parent / name for parent in above for name in NAMES)):
        real = os.path.realpath(path)
        if real not in seen and any(path.glob("sub-*")):
            seen.add(real)
            yield pathlib.Path(os.path.normpath(path))


def _linked(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns the local folders that a data set names as its sources."""
    description = root / DESCRIPTION
    try:
        found = read_json(description)
    except InputError:
        return []
    links, sources = found.get("DatasetLinks"), found.get("SourceDatasets")
    named = list(links.values()) if isinstance(links, dict) else []
    if isinstance(sources, list):
        named += [source.get("URL") for source in sources if isinstance(source, dict)]
    local = []
    for text in named:
        if not isinstance(text, str) or not text or "\0" in text:
            continue
        parts = urllib.parse.urlsplit(text)
        if parts.scheme == "file":
            host = parts.netloc.removeprefix("localhost")
            local.append(root / urllib.parse.unquote(host + parts.path))
        elif not parts.scheme:
            local.append(root / text)
    return local


def _tables(scans: Sequence[File], root: pathlib.Path, events_root: pathlib.Path):
    """Returns the table of each scan that has one, by the path of the scan."""
    inherited, found = Inherited(events_root, "events", ".tsv", of_acquisition=True), {}
    for scan in scans:
        if levels := inherited.of(scan, scan.path.parent.relative_to(root)):
            found[scan.path] = levels[-1][-1]
    return found
