"""Statistics of a session as plain data, computed from its journal."""

import collections
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from emojax.decoder import localizer
from emojax.decoder.build import Facts
from emojax.online import evidence
from emojax.online.watching import record

Line = Mapping[str, Any]
SENT = "closed to sent"  # stage from the closed file to the sent record
STAGES = ("wait", "order", "decode", "journal")  # order of the other stages in tables
PERCENTILES = (50, 90, 99)
LARGE_MM = 0.5  # threshold of displacement (Power et al., NeuroImage 59, 2012)
MEASURES = ("fd_mm", "gain", "offset", "correlation", "aligned")
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?")
LONGEST = 80  # characters of a reason


class Accuracy(NamedTuple):
    """Comparison of decisions with the events file."""

    by_class: dict[str, tuple[int, int]]  # right decisions, volumes with a decision
    balanced: float | None  # mean over classes of the share of right decisions
    abstained: int  # volumes with a label but without a decision
    by_position: tuple[tuple[int, int], ...]  # (right, volumes) by position in the block, from 1


class Statistics(NamedTuple):
    """Numbers of a session."""

    volumes: dict[str, int]  # status -> number of volumes
    reasons: dict[str, int]  # kind of reason -> number of volumes
    notes: dict[str, int]  # kind of note (duplicate, late, conflict, restart, ...) -> count
    latency_ms: dict[str, dict[str, float]]  # stage -> volumes, p50, p90, p99, max
    late: int  # records sent more than one TR after their file was closed
    earlier: int  # volumes whose files existed before the session; they have no latency
    unsent: int  # records that the journal does not list as sent
    gaps: tuple[tuple[int, int], ...]  # first and last number of consecutive missing volumes
    dropped: dict[str, int]  # output -> records dropped for slow clients
    measures: dict[str, tuple[float, float, float]]  # name -> minimum, median, maximum
    motion: dict[str, float]  # mean, max, share, task, see `_motion`; {} if unknown
    accuracy: dict[str, Accuracy]  # "volume", and "evidence" if there is some; {} without labels


def statistics(lines: Iterable[Line], labels: Mapping[int, str] | None = None) -> Statistics:
    """Returns the statistics of a session.

    Args:
      lines: lines of its journal, in order.
      labels: volume -> class, see `labels_of`; accuracy covers only these volumes.
    """
    lines = list(lines)
    start, volumes = lines[0], [own for own in lines if own["kind"] == "volume"]
    notes = collections.Counter(own["what"] for own in lines if own["kind"] == "note")
    sent, live, took = first_sent(lines), since_start(lines), took_ms(lines)
    earlier = sum(own["time_closed"] is not None for own in volumes) - len(live)
    dropped = [own["dropped"] for own in lines if own["kind"] == "sent"]
    return Statistics(
        dict.fromkeys(record.STATUSES, 0) | collections.Counter(own["status"] for own in volumes),
        _reasons(volumes),
        dict(notes),
        _latency(live, sent, took),
        sum(ms > 1000 * start["tr"] for ms in took.values()),
        earlier,
        sum(own["seq"] not in sent for own in volumes),
        _gaps(volumes),
        _most(dropped),
        _measures(volumes),
        _motion(volumes, labels or {}),
        {} if not labels else _accuracies(volumes, labels, start["classes"]),
    )


def first_sent(lines: Iterable[Line]) -> dict[int, Line]:
    """Returns seq -> the line that states when its record was first sent."""
    sent: dict[int, Line] = {}
    for own in lines:
        if own["kind"] == "sent":
            sent.setdefault(own["seq"], own)
    return sent


def since_start(lines: Sequence[Line]) -> list[Line]:
    """Returns the records of volumes whose files were closed during the session."""
    begun, volumes = lines[0]["time"], (own for own in lines if own["kind"] == "volume")
    return [
        own for own in volumes if own["time_closed"] is not None and own["time_closed"] >= begun
    ]


def took_ms(lines: Sequence[Line]) -> dict[int, float]:
    """Returns seq -> ms from file closed to record sent, for the volumes of `since_start`."""
    sent, live = first_sent(lines), since_start(lines)
    return {
        own["seq"]: 1000 * (sent[own["seq"]]["time_sent"] - own["time_closed"])
        for own in live
        if own["seq"] in sent
    }


def _reasons(volumes: Sequence[Line]) -> dict[str, int]:
    """Returns kinds of reasons, most frequent first, with # in place of numbers."""
    kinds = collections.Counter(
        kind
        for own in volumes
        for kind in {NUMBER.sub("#", text)[:LONGEST] for text in own["reasons"]}
    )
    return dict(kinds.most_common())


def _latency(
    live: Sequence[Line], sent: Mapping[int, Line], took: Mapping[int, float]
) -> dict[str, dict[str, float]]:
    """Returns stage -> percentiles in ms."""
    found: dict[str, list[float]] = {SENT: list(took.values())}
    for own in live:
        after = sent[own["seq"]].get("stages_ms", {}) if own["seq"] in sent else {}
        for stage, ms in {**own["stages_ms"], **after}.items():
            if ms is not None:
                found.setdefault(stage, []).append(ms)
    order = {name: place for place, name in enumerate((SENT, *STAGES))}
    names = sorted(found, key=lambda name: (order.get(name, len(order)), name))
    return {name: percentiles(found[name]) for name in names if found[name]}


def percentiles(ms: Sequence[float]) -> dict[str, float]:
    """Returns the number, percentiles and maximum of durations."""
    at = np.percentile(ms, PERCENTILES).tolist()
    named = {f"p{name}": value for name, value in zip(PERCENTILES, at, strict=True)}
    return {"volumes": len(ms), **named, "max": float(max(ms))}


def _gaps(volumes: Sequence[Line]) -> tuple[tuple[int, int], ...]:
    """Returns the first and last number of each group of consecutive missing volumes."""
    gaps: list[list[int]] = []
    for number in sorted(own["volume"] for own in volumes if own["status"] == record.MISSING):
        if gaps and number == gaps[-1][1] + 1:
            gaps[-1][1] = number
        else:
            gaps.append([number, number])
    return tuple((first, last) for first, last in gaps)


def _most(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Returns totals of counters that are reset by a restart."""
    total, before = collections.Counter(), {}
    for own in counts:
        for name, value in own.items():
            last = before.get(name, 0)
            total[name] += value - last if value >= last else value
        before = own
    return dict(total)


def _known(volumes: Sequence[Line], name: str) -> list[float]:
    return [own[name] for own in volumes if own[name] is not None]


def _measures(volumes: Sequence[Line]) -> dict[str, tuple[float, float, float]]:
    found = {name: _known(volumes, name) for name in MEASURES}
    return {
        name: (float(min(values)), float(np.median(values)), float(max(values)))
        for name, values in found.items()
        if values
    }


def _motion(volumes: Sequence[Line], labels: Mapping[int, str]) -> dict[str, float]:
    """Returns mean and max in mm, the share above `LARGE_MM`, and the correlation with the task."""
    known = [own for own in volumes if own["fd_mm"] is not None]
    if not known:
        return {}
    fd = np.array([own["fd_mm"] for own in known])
    share = float((fd > LARGE_MM).mean())
    out = {"mean": float(fd.mean()), "max": float(fd.max()), "share": share}
    names = np.array([labels.get(own["volume"], "") for own in known])
    task = _largest_correlation(fd[names != ""], names[names != ""])
    return out if task is None else out | {"task": task}


def _largest_correlation(
    values: Float[np.ndarray, " n"], names: Shaped[np.ndarray, " n"]
) -> float | None:
    """Returns the largest |r| between values and membership of a class; None if undefined."""
    found = []
    for name in set(names.tolist()):
        x, y = (names == name) - (names == name).mean(), values - values.mean()
        power = float(np.sqrt((x @ x) * (y @ y)))
        found += [abs(float(x @ y)) / power] if power else []
    return max(found, default=None)


def _accuracies(
    volumes: Sequence[Line], labels: Mapping[int, str], classes: Sequence[str]
) -> dict[str, Accuracy]:
    said = {own["volume"]: own["decision"] for own in volumes if own["p"]}
    out = {"volume": _accuracy(said, labels, classes)} if said else {}
    if any(own["evidence"] for own in volumes):
        found = {own["volume"]: (own["evidence"] or {}).get("decision", "") for own in volumes}
        out["evidence"] = _accuracy(found, labels, classes)
    return out


def _accuracy(
    said: Mapping[int, str], labels: Mapping[int, str], classes: Sequence[str]
) -> Accuracy:
    """Compares decisions with labels; "" is no decision."""
    places = positions(labels)
    known = sorted(number for number in said if number in labels)
    decided = [number for number in known if said[number]]
    by_class = {name: [0, 0] for name in classes if name in labels.values()}
    by_position = [[0, 0] for _ in range(max(places.values(), default=0))]
    for number in decided:
        right = said[number] == labels[number]
        for cell in (by_class[labels[number]], by_position[places[number] - 1]):
            cell[0] += right
            cell[1] += 1
    shares = [right / count for right, count in by_class.values() if count]
    return Accuracy(
        {name: (right, count) for name, (right, count) in by_class.items()},
        float(np.mean(shares)) if shares else None,
        len(known) - len(decided),
        tuple((right, count) for right, count in by_position),
    )


def positions(labels: Mapping[int, str]) -> dict[int, int]:
    """Returns the position of each volume in its block of equal labels, from 1."""
    out: dict[int, int] = {}
    for number in sorted(labels):
        goes_on = labels.get(number - 1) == labels[number]
        out[number] = out[number - 1] + 1 if goes_on else 1
    return out


def first_volume(lines: Iterable[Line]) -> int:
    """Returns the number of the volume at which the time of the events begins."""
    return next((own["volume"] for own in lines if own["kind"] == "volume"), 1)


def labels_of(
    lines: Sequence[Line], path: str | pathlib.Path, label_map: str = ""
) -> dict[int, str]:
    """Returns the class of each volume of a session from its events, as in training.

    Args:
      lines: lines of the journal.
      path: path of the events.tsv.
      label_map: see `localizer.read_labels`.

    Raises:
      InputError: the table cannot be read, or its classes are not the decoder's.
    """
    start, numbers = lines[0], [own["volume"] for own in lines if own["kind"] == "volume"]
    if not numbers:
        return {}
    delay = (start.get("meaning") or {}).get("delay_s")
    before = () if delay is None else (f"labels {delay:g} s behind events",)
    facts = Facts(tuple(start["classes"]), (0, 0, 0), 0.0, 1.0, start["tr"], preprocessing=before)
    first = first_volume(lines)
    count = max(numbers) - first + 1
    last = max((own.onset for own in evidence.read_events(path)), default=0.0)
    planned = max(count, int((last + (delay or 0)) / start["tr"]) + 2)  # may have ended early
    found: Int[np.ndarray, " t"] = localizer.read_labels(
        pathlib.Path(path), facts, planned, start["tr"], label_map
    )[:count]
    return {first + i: facts.classes[k] for i, k in enumerate(found.tolist()) if k >= 0}
