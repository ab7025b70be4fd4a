"""The real-time commands: watch, replay, verify-log and session."""

import pathlib
from collections.abc import Sequence
from typing import Any

from emojax import stops
from emojax.cli.commands import BUNDLE, IDENTITY, leads, start_jax
from emojax.cli.flags import Given, Usage, number, parse
from emojax.errors import InputError

EVENTS = "events.tsv of the run: blocks or trials, for evidence and for accuracy afterwards"
LISTENERS = {
    "host": "address to listen on; only this machine by default",
    "token": "password for clients; required with another --host",
    "http": "port of the live page and of /latest; 0 picks a free one",
    "tcp": "port of the line server; 0 picks a free one",
    "udp": "host:port to send each record to",
    "lsl": "name of a Lab Streaming Layer stream",
    "page": "your own HTML file, served at /experiment",
}
MEANING = {
    "evidence": "how evidence accumulates, such as 'block', 'hrf:4-12', 'ema:3' or 'sprt:.05'",
    "events": EVENTS,
    "label_map": "the values of trial_type of each class in the events, as in data.label_map",
    "target": "class whose probability drives the feedback",
    "feedback": "sealed file with each subject's kind of feedback (emojax seal)",
    "subject": "the subject's name in that file; the decoder's subject by default",
}
WATCH = Usage(
    "watch",
    {
        "bundle": BUNDLE,
        "input": "folder that the scanner writes to",
        "out": "folder of the session: journal and report",
        "workdir": "same as --out",
        "correct": "'auto' (default), 'motion', 'level', 'motion+level' or 'none', as in decode",
        "series": "number or name of the DICOM series; the first magnitude images by default",
        "pattern": "pattern of file names, such as 'vol_{n}.nii'; usually detected automatically",
        "tr": "seconds between volumes, if the decoder has no TR; files with another are rejected",
        "first": "number of the first volume; 1 by default, or 0 if there is one",
        "volumes": "number of volumes; the session ends after them, or 30 TRs after the last",
        "reorder_ms": "how long to wait for a volume when later ones exist; half a TR by default",
        "idle_s": "end the session after this time without a volume; by default it continues",
        "poll_ms": "look into the folder at this interval, instead of waiting for events",
        **MEANING,
        **LISTENERS,
        **IDENTITY,
    },
    needs=("bundle", "input"),
    positional=("bundle", "input"),
    switches={"quiet": "print no line for each volume"},
    example="emojax watch runs/demo/decoder /scans --out=session --http=8000",
)
JOURNAL = "journal of a session (journal.jsonl)"
REPLAY = Usage(
    "replay",
    {
        "input": JOURNAL,
        "bundle": "folder of the decoder, if it has moved",
        "folder": "folder of the volumes, if they have moved",
        "out": "folder to write the new journal to",
        "events": EVENTS,
        "budget_ms": "limit for the time from a closed file to its record sent; exit code 1 if the "
        "99th percentile is above it",
    },
    needs=("input",),
    positional=("input",),
    example="emojax replay session/journal.jsonl --budget_ms=50",
)
VERIFY = Usage(
    "verify-log",
    {"input": JOURNAL, "expect": "expected sha256 of its last line"},
    needs=("input",),
    positional=("input",),
    example="emojax verify-log session/journal.jsonl",
)
SESSION = Usage(
    "session",
    {
        "input": JOURNAL,
        "events": EVENTS,
        "out": "file of the report; beside the journal by default",
    },
    needs=("input",),
    positional=("input",),
    switches={"unblind": "show probabilities even if the session's feedback was sealed"},
    example="emojax session session/journal.jsonl --events=sub-01_events.tsv",
)


def watch(argv: Sequence[str]) -> None:
    """Decodes volumes as the scanner writes them, until the session ends."""
    given = parse(argv, WATCH)
    out = given.text["out"] or given.text["workdir"]
    if not out:
        raise InputError("flags", "no --out", "--out, the folder of the session")
    settings = _settings(given)
    if not leads():
        return
    with stops.deferred():
        start_jax()
        import jax

        # Asynchronous dispatch would have to wake up another thread for each volume.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        from emojax.online.watching import loop, opening
    own, quiet = loop.Settings(**settings), given.switches["quiet"]
    opening.watch(given.text, pathlib.Path(out), own, quiet=quiet)


def replay(argv: Sequence[str]) -> int:
    """Decodes a session again; returns 1 if a record differs or the budget is exceeded."""
    given = parse(argv, REPLAY)
    text, budget = given.text, number(given.text, "budget_ms", least=0)
    with stops.deferred():
        start_jax()
        from emojax.online import replaying
    places = {name: text[name] for name in ("bundle", "folder")}
    found = replaying.replay(text["input"], **places, out=text["out"] or None)
    for line in replaying.summary(found, text["events"]):
        print(line)
    late = budget is not None and not replaying.p99(found) <= budget
    if late:
        print(f"above the budget of {budget:g} ms")
    return 1 if found.differences or late else 0


def session(argv: Sequence[str]) -> None:
    """Writes the report of a session."""
    given = parse(argv, SESSION)
    path = pathlib.Path(given.text["input"])
    out = pathlib.Path(given.text["out"] or path.with_suffix(".html"))
    with stops.deferred():
        start_jax()
        from emojax.online import session as sessions
    unblind = given.switches["unblind"]
    sessions.report(path, out, given.text["events"] or None, unblind=unblind)
    print(out)


def verify_log(argv: Sequence[str]) -> None:
    """Checks that no line of a journal was changed or removed."""
    given = parse(argv, VERIFY)
    with stops.deferred():
        from emojax.online.watching import journal
    path, expect = given.text["input"], given.text["expect"]
    found = journal.verify(path)
    if expect and found.last != expect:
        raise InputError(path, f"sha256 {found.last} of the last line", expect)
    count = sum(line["kind"] == "volume" for line in found.lines)
    print(f"{path}: {len(found.lines)} lines, {count} volumes, each follows from the one before")
    if found.size < pathlib.Path(path).stat().st_size:
        print("an unfinished line at the end: the session was cut off while writing it")
    print(found.last)


def _settings(given: Given) -> dict[str, Any]:
    """Returns the keyword arguments of the session's `Settings`."""
    text, seconds = given.text, ("tr", "reorder_ms", "idle_s", "poll_ms")
    numbers = {name: number(text, name, least=0) or 0.0 for name in seconds}
    counts = {
        "first": number(text, "first", int, least=0),
        "volumes": number(text, "volumes", int, least=0) or 0,
    }
    words = {name: text[name] for name in ("series", "pattern")}
    return {**numbers, **counts, **words, "correct": text["correct"] or "auto"}
