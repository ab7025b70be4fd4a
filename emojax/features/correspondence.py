"""Checks that rows correspond between subjects, by the name of their run and by time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from emojax.data.run import Run
from emojax.errors import InputError
from emojax.features.masked import MaskedCohort

# Smallest mean over classes of the share of rows that have the class in both subjects. Some rows
# may be late. It is averaged over classes, as with much rest most rows agree in any order.
AGREE = 0.8
COVER = 0.5  # smallest share of the rows of a run that the other subject also has
WAY_OUT = "(or --config.align.match=class, which matches conditions instead)"


class Matched(NamedTuple):
    """The agreement of one unit's rows with those of another."""

    name: str
    reference: str
    agree: float  # mean over classes of the share of rows that have the class in both
    cover: float  # matched rows, relative to the smaller number of rows in shared runs


def check(data: MaskedCohort, least_runs: int = 1) -> list[str]:
    """Refuses units whose rows do not match in time; uses the design only, no values.

    Args:
      data: the masked cohort.
      least_runs: minimum number of runs that all units must share.

    Returns:
      Sentences for console and report: the agreement of labels of matched rows, and runs that are
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
    said = [f"rows matched by run and time: labels agree in at least {agree:.1%} of each class"]
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
    """Compares labels and times of two units in the runs that all units share."""
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


def _steps(runs: Sequence[Run]) -> list[float]:
    """Returns the smallest time step of each run whose rows are points in time."""
    steps = []
    for run in runs:
        if run.tr is not None:
            steps.append(run.tr)
        elif run.starts is not None:
            steps.append(np.diff(run.starts).min())
    return steps


def _check_times(data: MaskedCohort, reference: str, name: str, ours, theirs) -> None:
    cohort = data.cohort
    steps = _steps(cohort.runs)
    time = cohort.time
    off = float(np.abs(time[ours] - time[theirs]).max())
    if steps and off > min(steps):
        raise InputError(
            f"volumes of {name}",
            f"volumes {off:.3g} s away from those of the same number of {reference}",
            f"one TR for all {WAY_OUT}",
        )
