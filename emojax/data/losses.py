"""Counts of events, and of those that label no volume, by value and run."""

import collections
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from emojax.data.label_map import escape
from emojax.data.names import NONE, loose, tidy

MOST_VALUES = 20  # largest number of values without a class that are listed
NO_CLASS = "(no class)"
HEADERS = {  # field of `Loss` -> its column
    "events": "read",
    "unlabelled": "label no volume",
    "behind": "after the scan",
    "unknown": "unknown duration",
    "dropped": "volumes dropped",
}


class Loss(NamedTuple):
    """The events of one value of the label column in one run."""

    subject: str
    run: str
    value: str  # value of the label column; "" for n/a
    name: str  # name of its class; "" if it maps to none
    events: int
    unlabelled: int  # events of a class, in the scan and of known duration, that label no volume
    behind: int  # events that begin after the end of the scan
    unknown: int  # events in the scan without a duration (n/a)
    dropped: int  # volumes of the value that were dropped due to conflicts


class Seen(NamedTuple):
    """A value of the label column in a whole study."""

    value: str
    name: str  # name of its class; "" for none
    number: int  # number of its events, or rows


def table(
    lost: Iterable[Loss], classes: Sequence[str]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Returns header and rows of a table of events by class, without columns of zeros.

    Args:
      lost: counts of all runs.
      classes: classes in the order of the rows; events without a class come last.
    """
    sums: dict[str, collections.Counter] = {}
    for loss in lost:
        counted = {field: getattr(loss, field) for field in HEADERS}
        sums.setdefault(loss.name, collections.Counter()).update(counted)
    names = [name for name in (*classes, "") if name in sums]
    shown = [field for field in HEADERS if any(sums[name][field] for name in names)]
    rows = [(name or NO_CLASS, *(str(sums[name][field]) for field in shown)) for name in names]
    return ("events", *(HEADERS[field] for field in shown)), rows


def remarks(lost: Iterable[Loss]) -> list[str]:
    """Returns sentences about events that label no volume, each with a setting that helps."""
    lost = list(lost)
    mapped = sum(loss.events for loss in lost if loss.name)
    unlabelled, behind, unknown = (
        sum(getattr(loss, field) for loss in lost) for field in ("unlabelled", "behind", "unknown")
    )
    out = []
    if unlabelled:
        out.append(
            f"{unlabelled} of {mapped} events label no volume: too little of any lies inside them "
            "(a smaller data.min_overlap takes more: --config.data.min_overlap=0.25; and "
            "--config.data.event_duration_s=4.0 is the length of events of duration 0 or n/a)"
        )
    if behind:
        out.append(f"{_count(behind, 'event')} after the end of the scan: left out")
    if unknown:
        out.append(
            f"{_count(unknown, 'event')} of unknown duration: volumes from there to the next onset "
            "have no class (--config.data.event_duration_s=4.0 gives these events a length)"
        )
    values: dict[tuple[str, str], int] = collections.Counter()
    for loss in lost:
        values[loss.value, loss.name] += loss.events
    return out + about_values([Seen(*key, count) for key, count in values.items()])


def about_values(seen: Sequence[Seen]) -> list[str]:
    """Returns sentences about values that map to no class, or have similar spellings."""
    out, left_out = [], [s for s in seen if not s.name]
    left_out.sort(key=lambda s: (not s.value, -s.number, s.value))
    if left_out:
        listed = ", ".join(f"{s.value or NONE} ({s.number})" for s in left_out[:MOST_VALUES])
        more = f" and {len(left_out) - MOST_VALUES} more" if len(left_out) > MOST_VALUES else ""
        out.append(f"values of no class: {listed}{more}")
    order = sorted(seen, key=lambda s: (loose(s.value), not s.name, s.value))
    for _, group in itertools.groupby(order, key=lambda s: loose(s.value)):
        alike = list(group)
        if alike[0].name and len({s.name for s in alike}) > 1:
            listed = " and ".join(f"'{s.value}' ({s.number})" for s in alike)
            values = "|".join(escape(s.value) for s in alike)
            out.append(
                f"warning: {listed} differ only by case or blanks, and are not one class "
                f'(--config.data.label_map="{escape(alike[0].name)}={values};..." makes them one)'
            )
    return out


def of_rows(
    named: Iterable[Sequence[str]],
    numbers: Iterable[Int[np.ndarray, " _"]],
    classes: Sequence[str],
) -> list[str]:
    """Returns the sentences of `about_values` for rows that are labelled by name.

    Args:
      named: for each run, the name of each row.
      numbers: for each run, the class number of each row, -1 for none.
      classes: names of the classes.
    """
    counts: dict[tuple[str, int], int] = collections.Counter()
    for names, own in zip(named, numbers, strict=True):
        counts.update(zip(map(tidy, names), own.tolist(), strict=True))
    return about_values([Seen(v, (*classes, "")[i], n) for (v, i), n in counts.items()])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
