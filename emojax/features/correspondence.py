"""Rows that are said to correspond between subjects: by the name of their run, and by time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from emojax.data.run import Run
from emojax.errors import InputError
from emojax.features.masked import MaskedCohort

AGREE = 0.8  # least share, averaged over classes, of a class's rows that it has in both; a few
# may be late. Averaged, since where rest prevails most rows agree whatever the order.
COVER = 0.5  # least share of the rows of a run that the other subject has, too
WAY_OUT = "(or --config.align.match=class, which matches conditions instead)"


class Matched(NamedTuple):
    """Rows of one unit that match those of another."""

    name: str
    reference: str
    agree: float  # share of a class's rows that carry it in both, mean over classes
    cover: float  # share of the smaller number of rows of their shared runs


def check(data: MaskedCohort, least_runs: int = 1) -> list[str]:
    """Refuses units whose rows do not match in time; the design is asked, no value is.

    Args:
      data: the masked cohort.
      least_runs: that all units must share.

    Returns:
      Sentences for console and report: how many labels of matched rows agree, and which runs are
      not in all units.

    Raises:
      InputError: too few shared runs, or matched rows with other times or labels.
    """
    runs = {name: set(data.run[data.rows(name)].tolist()) for name in data.names}
    shared = sorted(set.intersection(*runs.values()))
    _check_shared(data, runs, shared, least_runs)
    pairs = [_match(data, data.names[0], name, shared) for name in data.names[1:]]
    for pair in pairs:
        if pair.cover < COVER:
            found = (
                f"{pair.cover:.0%} of its labelled volumes at times of those of {pair.reference}"
            )
        elif pair.agree < AGREE:
            found = (
                f"other labels in {1 - pair.agree:.0%} of a class's volumes, which match those of "
                f"{pair.reference} in time"
            )
        else:
            continue
        raise InputError(f"labels of {pair.name}", found, f"one order of events for all {WAY_OUT}")
    agree = min((pair.agree for pair in pairs), default=1.0)
    said = [f"rows matched by run and time: {agree:.1%} of a class or more have it in all subjects"]
    missing = [data.run_names[i] for i in sorted(set.union(*runs.values()) - set(shared))]
    if missing:
        used = ", ".join(data.run_names[i] for i in shared)
        said.append(f"not in all subjects: {', '.join(missing)}; all share {used}")
    return said


def _check_shared(
    data: MaskedCohort, runs: Mapping[str, set[int]], shared: Sequence[int], least: int
) -> None:
    if len(shared) >= least:
        return
    everything = set.union(*runs.values())
    name = next((n for n in data.names if runs[n] < everything), data.names[0])
    lacks = ", ".join(data.run_names[i] for i in sorted(everything - runs[name])) or "none"
    has = ", ".join(data.run_names[i] for i in shared) or "none"
    raise InputError(
        f"runs of {name}",
        f"runs without {lacks}; shared by all subjects: {has}",
        f"{least} or more runs of the same name in all subjects "
        f"(--config.data.subjects leaves some out) {WAY_OUT}",
    )


def _match(data: MaskedCohort, reference: str, name: str, shared: Sequence[int]) -> Matched:
    """Compares labels and times of two units in the runs that all share."""
    rows = [data.rows(unit) for unit in (reference, name)]
    rows = [own[np.isin(data.run[own], shared)] for own in rows]
    keys = [np.stack([data.run[own], data.frame[own]], 1).tolist() for own in rows]
    place = {tuple(key): i for i, key in enumerate(keys[0])}
    both = [(place[tuple(key)], i) for i, key in enumerate(keys[1]) if tuple(key) in place]
    if not both:
        return Matched(name, reference, 0.0, 0.0)
    ours, theirs = (own[list(at)] for own, at in zip(rows, zip(*both, strict=True), strict=True))
    _check_times(data, reference, name, ours, theirs)
    mine, other = data.labels[ours], data.labels[theirs]
    shares = [
        ((mine == k) & (other == k)).sum() / ((mine == k) | (other == k)).sum()
        for k in np.union1d(mine, other)
    ]
    return Matched(name, reference, float(np.mean(shares)), len(both) / min(map(len, rows)))


def _timed(cohort) -> list[Run]:
    """Returns the runs whose rows are points in time."""
    return [run for run in cohort.runs if run.tr is not None or run.starts is not None]


def _check_times(data: MaskedCohort, reference: str, name: str, ours, theirs) -> None:
    cohort = data.cohort
    steps = [np.diff(run.starts).min() if run.tr is None else run.tr for run in _timed(cohort)]
    time = cohort.time
    off = float(np.abs(time[ours] - time[theirs]).max())
    if steps and off > min(steps):
        raise InputError(
            f"volumes of {name}",
            f"volumes {off:.3g} s away from those of the same number of {reference}",
            f"one TR for all {WAY_OUT}",
        )
