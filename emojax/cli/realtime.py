"""The commands of real time: watch, replay, verify-log and session."""

import pathlib
from collections.abc import Sequence
from typing import Any

from emojax import stops
from emojax.cli.commands import BUNDLE, IDENTITY, leads, start_jax
from emojax.cli.flags import Given, Usage, number, parse
from emojax.errors import InputError

EVENTS = "events.tsv of the run: blocks or trials, for evidence and for accuracy afterwards"
LISTENERS = {
    "host": "address that others may connect to; this machine alone by default",
    "token": "password that others have to know; needed with another --host",
    "http": "port of the live page and of /latest; 0 takes a free one",
    "tcp": "port of the line server; 0 takes a free one",
    "udp": "host:port that each record is sent to",
    "lsl": "name of a stream of the Lab Streaming Layer",
    "page": "an HTML file of your own, served at /experiment",
}
MEANING = {
    "evidence": "how volumes add up, such as 'block', 'hrf:4-12', 'ema:3' or 'sprt:.05'",
    "events": EVENTS,
    "label_map": "of the events: which values of trial_type mean which class, as data.label_map",
    "target": "class whose probability the feedback rises with",
    "feedback": "sealed file of who gets which feedback (emojax seal)",
    "subject": "name in that file; that of the decoder by default",
}
WATCH = Usage(
    "watch",
    {
        "bundle": BUNDLE,
        "input": "folder that the scanner writes to",
        "out": "folder of the session: journal and report",
        "workdir": "the same as --out",
        "correct": "'auto' (default), 'motion', 'level', 'motion+level' or 'none', as in decode",
        "series": "number or name of the DICOM series; the first magnitude images by default",
        "pattern": "of file names, such as 'vol_{n}.nii'; found by itself as a rule",
        "tr": "s between volumes, where the decoder does not say; other files are refused",
        "first": "number of the first volume; 1 by default, or 0 where there is one",
        "volumes": "how many there will be; the session ends behind them, or 30 TRs after the last",
        "reorder_ms": "wait for a volume while later ones are there; half a TR by default",
        "idle_s": "end the session after so long without a volume; by default it goes on",
        "poll_ms": "look into the folder so often, instead of waiting for events",
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
        "budget_ms": "from a closed file to its record sent; a 99th percentile above it is exit 1",
    },
    needs=("input",),
    positional=("input",),
    example="emojax replay session/journal.jsonl --budget_ms=50",
)
VERIFY = Usage(
    "verify-log",
    {"input": JOURNAL, "expect": "sha256 that its last line should have"},
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
    switches={"unblind": "show probabilities of a session whose feedback was sealed, too"},
    example="emojax session session/journal.jsonl --events=sub-01_events.tsv",
)


def watch(argv: Sequence[str]) -> None:
    """Decodes what a scanner writes, until the session ends."""
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

        # Another thread would have to wake up for each volume.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        from emojax.online.watching import loop, opening
    own, quiet = loop.Settings(**settings), given.switches["quiet"]
    opening.watch(given.text, pathlib.Path(out), own, quiet=quiet)


def replay(argv: Sequence[str]) -> int:
    """Decodes a session again; returns 1 where a record differs or the budget is exceeded."""
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
    """Returns the settings of a session, as `watching.Settings` has them."""
    text, seconds = given.text, ("tr", "reorder_ms", "idle_s", "poll_ms")
    numbers = {name: number(text, name, least=0) or 0.0 for name in seconds}
    counts = {
        "first": number(text, "first", int, least=0),
        "volumes": number(text, "volumes", int, least=0) or 0,
    }
    words = {name: text[name] for name in ("series", "pattern")}
    return {**numbers, **counts, **words, "correct": text["correct"] or "auto"}
