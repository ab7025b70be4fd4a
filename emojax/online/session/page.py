"""The report of a session: one HTML page, made from its journal alone."""

import base64
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from emojax.errors import InputError
from emojax.files import atomic_write
from emojax.online.session.measures import SENT, Statistics, labels_of, statistics, took_ms
from emojax.online.watching import journal as journals

FEW = 15  # largest number of rows of a table that is initially open
Line = Mapping[str, Any]
CAPTIONS = {
    "latencies": "Time from the closed file to the sent record, on a log scale.",
    "by_position": "Accuracy by position in the block, of single volumes and of the accumulated "
    "evidence.",
    "courses": "Vertical lines: volumes that were marked (red), missing or unreadable (black). "
    "Background: class according to the events file, if there is one.",
}


def report(
    journal_path: str | os.PathLike,
    out_html: str | os.PathLike,
    events: str | os.PathLike | None = None,
    *,
    label_map: str = "",
    unblind: bool = False,
) -> Statistics:
    """Writes the report of a session.

    Args:
      journal_path: its journal; the report covers it up to a break in the chain, which it states.
      out_html: file to write.
      events: events.tsv, for accuracy; None for none.
      label_map: see `localizer.read_labels`.
      unblind: whether to show probabilities and accuracy of a session with an allocation file.

    Raises:
      InputError: the journal is missing or cannot be read, or the events do not match the decoder.
    """
    path = pathlib.Path(journal_path)
    lines, log, broken = _read(path)
    try:
        found, content = _render(lines, log, broken, events, label_map, unblind)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        said = f"an incomplete line ({type(error).__name__}: {error})"
        raise InputError(path, said, journals.WANTED) from None
    with atomic_write(pathlib.Path(out_html)) as partial:
        partial.write_text(content, encoding="utf-8")
    return found


def _read(path: pathlib.Path) -> tuple[Sequence[Line], dict[str, str], str]:
    """Returns the lines of an unbroken chain, facts about the file, and the break, if any.

    Each line proves the one before it, so the last line before a break may be the changed one.
    """
    found: list[tuple[dict[str, Any], str, int]] = []
    broken = ""
    try:
        for entry in journals.read(path):
            found.append(entry)
    except InputError as error:
        found, broken = found[:-1], str(error)
        if not found:
            raise
    if not found:
        raise InputError(path, "no whole line", journals.WANTED)
    lines, (_, last, end) = [line for line, *_ in found], found[-1]
    if broken:
        return lines, {"file": str(path), "chain": f"breaks: {broken}"}, broken
    log = {"file": str(path), "chain": f"unbroken: {len(lines)} lines follow from each other"}
    log["sha256 of the last line"] = last
    if left := path.stat().st_size - end:
        log["end"] = f"{left} bytes of an unfinished line, which the next session removes"
    return lines, log, broken


def _render(
    lines: Sequence[Line],
    log: Mapping[str, str],
    broken: str,
    events: str | os.PathLike | None,
    label_map: str,
    unblind: bool,
) -> tuple[Statistics, str]:
    import matplotlib  # slow to import, like all of the report

    from emojax.online.session import checklist, template, texts
    from emojax.report import page as pages
    from emojax.report.plots import LITERAL
    from emojax.report.template import HEAD, STYLE, TABLE

    start, volumes = lines[0], [own for own in lines if own["kind"] == "volume"]
    subject = texts.subject_of(start)
    hidden = bool((start.get("meaning") or {}).get("allocation")) and not unblind
    labels = labels_of(lines, os.fspath(events), label_map) if events and not hidden else {}
    found, tr = statistics(lines, labels), start["tr"]
    with matplotlib.rc_context(LITERAL):  # names are not formulas
        images = _images(lines, volumes, labels, found, hidden)
    warnings = [f"The journal is broken. {broken} This report covers the part before."]
    warnings *= bool(broken)
    warnings += [texts.HIDDEN] * hidden
    page = pages.ENVIRONMENT.from_string(TABLE + HEAD + template.BODY).render(
        title=f"Session of subject {subject}" if subject else "Session",
        style=STYLE + template.STYLE,
        headline=texts.headline(found, tr),
        warnings=warnings,
        head=texts.head(start, lines),
        latency=texts.latency(found),
        accuracy=texts.accuracy(found),
        items=checklist.items(start, volumes, found),
        source=texts.SOURCE,
        reasons=texts.reasons(found),
        marks=texts.marks(volumes, tr),
        notes=texts.notes(lines, found),
        about=texts.about(start),
        seen=texts.seen(start),
        log=log,
        limits=texts.LIMITS,
        start=json.dumps(start, indent=1, ensure_ascii=False),
        few=FEW,
        images=images,
        captions=CAPTIONS,
    )
    return found, page


def _images(
    lines: Sequence[Line],
    volumes: Sequence[Line],
    labels: Mapping[int, str],
    found: Statistics,
    hidden: bool,
) -> dict[str, str]:
    """Returns the figures that have data, as base64."""
    from emojax.online.session import figures
    from emojax.report.page import png

    start, drawn = lines[0], {}
    if SENT in found.latency_ms:
        drawn["latencies"] = figures.latencies(list(took_ms(lines).values()), start["tr"])
    if found.accuracy:
        drawn["by_position"] = figures.by_position(found.accuracy, 1 / len(start["classes"]))
    if volumes:
        drawn["courses"] = figures.courses(volumes, start["classes"], labels, hidden)
    return {name: base64.b64encode(png(figure)).decode() for name, figure in drawn.items()}
