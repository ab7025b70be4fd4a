"""Sentences and tables of a session's report."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from emojax.online.session.measures import SENT, Statistics, first_volume
from emojax.report.cells import Table

Line = Mapping[str, Any]
SHOWN = 200  # largest number of rows of a table; the journal has the others
LONGEST = 300  # characters of a text from a file or the network
SOURCE = (
    "The first ten items are the real-time steps that Heunis et al. code in 128 studies (Human "
    "Brain Mapping 41, 2020, doi:10.1002/hbm.25010; checklist: osf.io/kjwhf), in our own words. "
    "Items “not known here” are for you to report."
)
STAGES = (
    "Wait: until the file was complete. Order: until the volumes before it were decoded. Journal: "
    "until its line was on disk. Files that existed before the session do not count."
)
HIDDEN = (
    "Feedback was allocated by a sealed file. Probabilities, evidence and accuracy are left out of "
    "this page, as they would reveal who got real feedback; --unblind adds them."
)


def headline(found: Statistics, tr: float) -> str:
    """Returns the session in two sentences."""
    total, counts = sum(found.volumes.values()), found.volumes
    parts = [f"{counts['ok']} as expected"]
    parts += [f"{n} {status}" for status, n in counts.items() if n and status != "ok"]
    said = f"{total} volumes: {', '.join(parts)}."
    took = found.latency_ms.get(SENT)
    if took is None:
        return said
    late = f"{found.late} later than one TR" if found.late else f"none later than one TR ({tr:g} s)"
    return (
        f"{said} Records were sent {took['p50']:.1f} ms after their file (median), 99 % within "
        + (f"{took['p99']:.1f} ms, {late}.")
    )


def subject_of(start: Line) -> str:
    """Returns the subject of the decoder; "" if the journal does not name one."""
    return (start.get("facts") or {}).get("subject") or ""


def head(start: Line, lines: Sequence[Line]) -> dict[str, str]:
    """Returns the facts at the top of the report."""
    facts, meaning = start.get("facts") or {}, start.get("meaning") or {}
    end = next((own for own in lines[::-1] if own["kind"] == "end"), None)
    times = [own["time_decoded"] for own in lines if own["kind"] == "volume"]
    last = end["time"] if end else max(times, default=start["time"])
    versions = ", ".join(f"{name} {own}" for name, own in (start.get("versions") or {}).items())
    found = {
        "subject": subject_of(start) or "not named",
        "decoder": start.get("decoder") or "without an id",
        "kind": facts.get("kind", ""),
        "classes": ", ".join(start["classes"]),
        "TR": f"{start['tr']:g} s",
        "begin": date(start["time"]),
        "end": f"{date(last)} ({end['text'] if end else 'the journal has no end'})",
        "folder": start.get("folder", ""),
        "evidence": meaning.get("evidence", ""),
        "feedback": meaning.get("target", ""),
        "allocation file": meaning.get("allocation", ""),
        "versions": versions,
    }
    return {name: short(text) for name, text in found.items() if text}


def date(seconds: float) -> str:
    """Returns a time with its time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))


def short(text: object) -> str:
    """Returns a text, shortened if it is very long."""
    said = str(text)
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}…"


def latency(found: Statistics) -> Table:
    """Returns percentiles by stage."""
    header = ["stage (ms)", "volumes", "median", "90 %", "99 %", "largest"]
    rows = [
        [stage, str(own["volumes"]), *(f"{own[key]:.2f}" for key in ("p50", "p90", "p99", "max"))]
        for stage, own in found.latency_ms.items()
    ]
    note = [STAGES]
    note += [f"{found.earlier} volumes existed before the session."] * bool(found.earlier)
    note += [f"{found.unsent} records are not listed as sent."] * bool(found.unsent)
    note += [f"Dropped for slow clients: {name} {n}." for name, n in found.dropped.items() if n]
    return Table("From a closed file to its record", header, rows, " ".join(note))


def accuracy(found: Statistics) -> Table:
    """Returns accuracy by class."""
    rows = []
    for name, own in found.accuracy.items():
        cells = [f"{right} of {count}" for right, count in own.by_class.values()]
        balanced = "" if own.balanced is None else f"{own.balanced:.3f}"
        rows.append([name, *cells, balanced, str(own.abstained)])
    classes = list(next(iter(found.accuracy.values())).by_class) if found.accuracy else []
    note = (
        "Decisions that agree with the events, delayed as in training. “Evidence” uses all volumes "
        "of a window so far."
    )
    return Table("Right decisions", ["decision", *classes, "balanced", "abstained"], rows, note)


def reasons(found: Statistics) -> Table:
    """Returns how often each reason was given."""
    rows = [[short(text), str(count)] for text, count in found.reasons.items()]
    return Table("Reasons", ["reason", "volumes"], rows)


def marks(volumes: Sequence[Line], tr: float) -> Table:
    """Returns the volumes that are not "ok"."""
    odd, first = [own for own in volumes if own["status"] != "ok"], first_volume(volumes)
    rows = [
        [
            str(own["volume"]),
            f"{(own['volume'] - first) * tr:.1f}",
            own["status"],
            short("; ".join(own["reasons"])),
        ]
        for own in odd[:SHOWN]
    ]
    note = f"{len(odd) - SHOWN} more are in the journal." if len(odd) > SHOWN else ""
    title = f"{len(odd)} volumes that were marked or lost"
    return Table(title, ["volume", "s", "status", "why"], rows, note)


def notes(lines: Sequence[Line], found: Statistics) -> Table:
    """Returns the count of each kind of note, with the first of them."""
    first: dict[str, str] = {}
    for own in lines:
        if own["kind"] == "note":
            first.setdefault(own["what"], own["text"])
    rows = [[short(what), str(n), short(first[what])] for what, n in found.notes.items()]
    events = sum(own["kind"] == "event" for own in lines)
    if events:
        rows.append(["event", str(events), "triggers over the network"])
    return Table("Notes", ["what", "times", "the first one"], rows)


def about(start: Line) -> list[str]:
    """Returns sentences about the origin of the decoder."""
    facts = start.get("facts")
    if not facts:
        return ["The journal does not hold the facts of the decoder."]
    said = [f"Decoder of subject {facts['subject']}." if facts.get("subject") else ""]
    if trained := facts.get("trained_on"):
        said.append(f"Trained on {len(trained)} units: {', '.join(map(str, trained))}.")
    if facts.get("left_out"):
        said.append(f"Subject {facts['left_out']} was left out of that training.")
    if facts.get("reference_of"):
        said.append(f"The reference image is of subject {facts['reference_of']}.")
    if facts.get("parent"):
        said.append(f"Calibrated from decoder {facts['parent']}.")
    return [short(text) for text in said if text]


def seen(start: Line) -> list[Table]:
    """Returns tables of the volumes and labels seen by training and calibration."""
    facts = start.get("facts") or {}
    steps = [[str(step), *map(str, counts)] for step, *counts in facts.get("provenance") or ()]
    fit = [[str(name), f"{value:.4g}"] for name, value in facts.get("fit") or ()]
    scores = [[str(name), f"{value:.3f}"] for name, value in facts.get("scores") or ()]
    inputs = [[short(name), str(digest)] for name, digest in facts.get("inputs") or ()]
    return [
        Table("Volumes and labels that were seen", ["step", "volumes", "labels"], steps),
        Table("Fit of the calibration", ["measure", "value"], fit),
        Table("Scores of the training run's report", ["score", "value"], scores),
        Table("Files that the calibration read", ["file", "sha256"], inputs),
    ]


LIMITS = (
    "It does not show when the person saw the feedback, only when emojax handed a record over.",
    "It does not include the time until the scanner closed a file, or the delay of the BOLD "
    "response.",
    "It does not check that the clocks of scanner, share and this machine agree: the time at which "
    "a file was closed is that of the disk it lies on.",
    "It does not prove that the journal is the only one: the chain shows that no line was changed "
    "or removed, but anybody who can write the file can write a whole new one. Keep the sha256 of "
    "the last line elsewhere.",
    "It does not show that a person learned anything: accuracy compares decisions with events of "
    "the task.",
    "It does not separate neural from physiological or other signals: a decoder uses anything that "
    "varies with its labels.",
)
