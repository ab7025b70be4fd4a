"""The command `watch`: opens decoder, outputs and session from its flags, and writes the report."""

import contextlib
import pathlib
import queue
from collections.abc import Iterator, Mapping
from typing import Any

from emojax import online, stops
from emojax.decoder import bundle as bundles
from emojax.decoder import localizer
from emojax.decoder.build import Facts
from emojax.errors import InputError, say
from emojax.online import feedback, outputs
from emojax.online.watching import journal as journals
from emojax.online.watching import loop, meaning
from emojax.online.watching.session import Session

REPORT = "session.html"
EVENTS, AT_ONCE = 256, 16  # events that wait, and events that are written between two volumes
LARGEST = 20_000_000  # bytes of a journal whose report is written at once (10,000 volumes)


def session(
    journal: journals.Journal,
    state: online.State,
    tr: float,
    choices: meaning.Choices,
    allocation: feedback.Allocation | None = None,
    listeners: outputs.Outputs | None = None,
) -> Session:
    """Returns a session.

    Args:
      journal: journal that the session writes.
      state: see `online.init`.
      tr: TR, s.
      choices: settings of evidence and feedback.
      allocation: allocation of the feedback; None for real feedback.
      listeners: outputs of the records; None for none.
    """
    classes, sealed = state.decoder.facts.classes, bool(choices.allocation)
    made = Session(state, journal, meaning.Reader(classes, tr, choices, allocation))
    made.visible = lambda own: feedback.visible(own, sealed)
    if listeners is not None:
        made.send, made.dropped = listeners.send, listeners.dropped
        about = {"classes": list(classes), "tr": tr, "decoder": state.decoder.id}
        made.begun = lambda line: listeners.state(run=line, **about)
    return made


def watch(
    text: Mapping[str, str], out: pathlib.Path, settings: loop.Settings, *, quiet: bool = False
) -> None:
    """Runs the command `watch`.

    Args:
      text: flags of the command.
      out: folder of the session.
      settings: settings from the flags that change records.
      quiet: whether to print no line for each volume.

    Raises:
      InputError: an input cannot be used; raised before the first volume.
    """
    folder = pathlib.Path(text["input"])
    if not folder.is_dir():
        found = "no folder" if folder.exists() else "no such folder"
        raise InputError(folder, found, "the folder that the scanner writes to")
    decoder = bundles.load(
        text["bundle"], expect=text["expect"], trust=text["trust"], calibration=False
    )
    allocation = None
    if text["feedback"]:
        if not text["target"]:
            raise InputError("flags", "--feedback alone", "--target=CLASS, which it needs")
        subject, run = text["subject"] or decoder.facts.subject, "/".join(out.resolve().parts[-2:])
        allocation = feedback.open_sealed(text["feedback"], subject, run)
    sealed = allocation.sha256 if allocation else ""
    choices = meaning.choose(
        decoder.facts, text["evidence"], text["events"], text["target"], sealed
    )
    if text["events"]:
        _check_labels(text, decoder.facts, settings.tr or decoder.facts.tr, choices)
    path, heard = out / journals.NAME, queue.Queue(EVENTS)
    with contextlib.closing(_listen(text, path)) as listeners:
        listeners.on_event = lambda event: _hear(heard, event)
        if listeners.page:
            say(f"live page: {listeners.page}")
        run = loop.Run(
            decoder,
            folder.absolute(),
            out,
            settings,
            lambda own, state, tr: session(own, state, tr, choices, allocation, listeners),
            {"bundle": str(pathlib.Path(text["bundle"]).absolute()), "meaning": choices._asdict()},
            lambda own: None if quiet else _print(feedback.visible(own, bool(sealed))),
            lambda: _some_of(heard),
        )
        try:
            say(f"ended: {loop.watch(run)}")
        except stops.Stopped:
            _report(path, text)
            raise
        _report(path, text)


def choices_of(start: Mapping[str, Any]) -> meaning.Choices:
    """Returns the choices in the first line of a journal."""
    own = start["meaning"]
    return meaning.Choices(**own | {"events": tuple(map(tuple, own["events"]))})


def _check_labels(
    text: Mapping[str, str], facts: Facts, tr: float | None, choices: meaning.Choices
) -> None:
    """Warns before the run if its report will lack accuracy, as evidence needs only onsets."""
    last = max((onset for onset, _ in choices.events), default=0.0) + choices.delay_s
    try:
        count = int(last / (tr or 1)) + 2
        localizer.read_labels(pathlib.Path(text["events"]), facts, count, tr, text["label_map"])
    except InputError as error:
        say(f"no accuracy in the report: {error}")


def _listen(text: Mapping[str, str], path: pathlib.Path) -> outputs.Outputs:
    """Opens the outputs that the flags name; the journal decides what they may show.

    Raises:
      InputError: a port is not a number, or see `outputs.open_outputs`.
    """

    def history(first: int) -> Iterator[bytes]:
        if path.is_file():
            start = next((line for line, *_ in journals.read(path)), None)
            sealed = start is None or bool(start["meaning"]["allocation"])
            for own in journals.records(path, first):
                yield journals.plain(feedback.visible(own, sealed))

    settings = outputs.Settings(
        host=text["host"] or outputs.LOOPBACK,
        token=text["token"],
        udp=text["udp"],
        tcp=_port("tcp", text["tcp"]),
        http=_port("http", text["http"]),
        lsl=text["lsl"],
        page=text["page"],
    )
    return outputs.open_outputs(settings, history)


def _port(name: str, text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or int(text) > 65535:
        raise InputError(f"--{name}", repr(text), "a port from 0 to 65535")
    return int(text)


def _hear(heard: queue.Queue, event: Mapping[str, Any]) -> None:
    """Queues an event of a client; called in the thread of the outputs.

    Raises:
      InputError: more events have arrived than the session could write.
    """
    try:
        heard.put_nowait(event)
    except queue.Full:
        raise InputError("onset", f"more than {EVENTS} at a time", "fewer") from None


def _some_of(heard: queue.Queue) -> Iterator[dict[str, Any]]:
    """Yields queued events, but too few to delay a volume noticeably."""
    for _ in range(min(heard.qsize(), AT_ONCE)):
        yield heard.get_nowait()


def _print(own: Mapping[str, Any]) -> None:
    """Prints a record as a line of the terminal."""
    p = f"{own['p'][own['decision']]:.2f}" if own["p"] and own["decision"] else ""
    late = own["time_closed"] and f"{1000 * (own['time_sent'] - own['time_closed']):.0f} ms"
    parts = (f"{own['volume']:5d}", own["decision"] or "-", p, late, *_marks(own))
    print("  ".join(filter(None, parts)), flush=True)


def _marks(own: Mapping[str, Any]) -> tuple[str, ...]:
    return () if own["status"] == "ok" else (own["status"], "; ".join(own["reasons"]))


def _report(path: pathlib.Path, text: Mapping[str, str]) -> None:
    """Writes the report of a session that has ended, and prints what went wrong."""
    from emojax.online import session as sessions

    if not path.is_file():
        return
    if path.stat().st_size > LARGEST:
        say(f"emojax session {path} writes its report, which takes a while")
        return
    out, events = path.with_name(REPORT), text["events"] or None
    try:
        try:
            sessions.report(path, out, events, label_map=text["label_map"])
        except InputError as error:
            if events is None:
                raise
            say(f"no accuracy in the report: {error}")
            sessions.report(path, out)
    except (InputError, OSError) as error:
        say(f"no report: {error} (emojax session {path} writes it)")
        return
    say(f"report: {out}")
