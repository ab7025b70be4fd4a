"""Labels that could as well have been others, and what is exchanged with what to draw them.

Where rows are points in time, blocks of volumes are exchanged within runs; else single rows, within
subjects. Subjects who saw one order of events get one new order: a decoder of time in the run is
then as right about the new order as about the old one, and cannot pass for one of the labels.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from emojax.data.acquisitions import canonical
from emojax.data.cohort import Cohort
from emojax.features.correspondence import AGREE, COVER

PATIENCE = 200  # draws of one arrangement, and more where few are left


class Exchange(NamedTuple):
    """Blocks of rows that have one class each, and the sets within which these are exchanged."""

    block: Int[np.ndarray, " n"]  # of each row
    label: Int[np.ndarray, " b"]  # class of each block
    within: Int[np.ndarray, " b"]  # set of each block
    scheme: str  # for people

    @property
    def arrangements(self) -> int:
        """Number of different ways to arrange the classes, the present one among them."""
        total = 1
        for number in np.unique(self.within):
            counts = np.bincount(self.label[self.within == number]).tolist()
            total *= math.factorial(sum(counts))
            for count in counts:
                total //= math.factorial(count)
        return total

    def draw(self, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Returns the labels of one random arrangement; all are equally likely.

        Each block keeps its extent and gets another block's class, so that where blocks differ in
        length the numbers of volumes of each class differ from those of the true labels.
        """
        return self.label[self.order(rng)][self.block]

    def different(
        self,
        rng: np.random.Generator,
        labels: Int[np.ndarray, " n"],
        count: int,
        allowed: Callable[[Int[np.ndarray, " n"]], bool],
    ) -> list[Int[np.ndarray, " n"]]:
        """Returns `count` different arrangements, fewer where no other is found in many draws.

        Args:
          rng: what draws.
          labels: the true labels, which are never among them.
          count: how many, fewer than `arrangements`.
          allowed: called with labels: whether they may be used.
        """
        seen, out = {labels.astype(np.int32).tobytes()}, []
        while len(out) < count:
            left = self.arrangements - len(seen)
            for _ in range(PATIENCE + 20 * self.arrangements // left):
                new = self.draw(rng).astype(np.int32)
                if new.tobytes() not in seen and allowed(new):
                    break
            else:
                break
            seen.add(new.tobytes())
            out.append(new)
        return out

    def order(self, rng: np.random.Generator) -> Int[np.ndarray, " b"]:
        """Returns the block whose class each block gets; all orders are equally likely."""
        order = np.arange(len(self.label))
        for number in np.unique(self.within):
            here = np.flatnonzero(self.within == number)
            order[here] = rng.permutation(here)
        return order


def design(cohort: Cohort, timed: bool) -> Exchange:
    """Finds what may be exchanged in a study.

    Args:
      cohort: the labelled rows; volumes without a label are no part of it and stay without.
      timed: whether rows are points in time; consecutive ones of one class are then one block.
    """
    return _blocks(cohort) if timed else _rows(cohort)


def _rows(cohort: Cohort) -> Exchange:
    """Exchanges single rows: within a run where all runs of the subject have every class."""
    subject = np.unique(cohort.subject, return_inverse=True)[1]
    within, by_run = len(cohort.runs) + subject, []
    for number in range(subject.max() + 1):
        rows = np.flatnonzero(subject == number)
        runs = np.unique(cohort.run_index[rows])
        classes = [set(cohort.labels[cohort.run_index == run].tolist()) for run in runs]
        by_run.append(len(runs) > 1 and min(map(len, classes)) == len(cohort.classes))
        if by_run[-1]:
            within[rows] = cohort.run_index[rows]
    scheme = "rows within subjects"
    if any(by_run):
        scheme = "rows within runs" if all(by_run) else "rows within complete runs or subjects"
    return Exchange(np.arange(len(subject)), cohort.labels, within, scheme)


def _blocks(cohort: Cohort) -> Exchange:
    """Exchanges blocks within runs: one arrangement for all subjects who saw the same order."""
    runs = [canonical(run.name) for run in cohort.runs]
    run = np.unique(runs, return_inverse=True)[1][cohort.run_index].astype(np.int64)
    time = run * (int(cohort.frame.max()) + 2) + cohort.frame  # runs never touch
    groups = _groups(cohort, time)
    block = np.empty(len(run), int)
    labels: list[np.ndarray] = []
    within: list[np.ndarray] = []
    for number, rows in enumerate(groups):
        own, label, place = _timeline(time[rows], run[rows], cohort.labels[rows])
        block[rows] = own + sum(map(len, labels))
        labels.append(label)
        within.append(np.where(place < 0, place, number * (run.max() + 1) + place))
    subjects = len(cohort.subjects)
    scheme = "blocks within runs, "
    if len(groups) == subjects:
        scheme += "each subject by itself"
    elif len(groups) == 1:
        scheme += "one order for all subjects"
    else:
        scheme += f"one order for each of {len(groups)} groups of subjects"
    return Exchange(block, np.concatenate(labels), _unique(np.concatenate(within)), scheme)


def _groups(cohort: Cohort, time: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, " k"]]:
    """Returns the rows of subjects who saw the same classes at the same times, group by group."""
    groups: list[list[np.ndarray]] = []
    for name in cohort.subjects:
        rows = np.flatnonzero(cohort.subject == name)
        for group in groups:
            if _agree(time, cohort.labels, group[0], rows):
                group.append(rows)
                break
        else:
            groups.append([rows])
    return [np.sort(np.concatenate(group)) for group in groups]


def _agree(time, labels, ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Returns whether rows share their times, and at these nearly all labels of every class."""
    _, i, j = np.intersect1d(time[ours], time[theirs], return_indices=True)
    if not len(i) or len(i) < COVER * min(len(ours), len(theirs)):
        return False
    ours, theirs = labels[ours[i]], labels[theirs[j]]
    return all((theirs[ours == k] == k).mean() >= AGREE for k in np.unique(ours))


def _timeline(time, run, labels):
    """Returns the block of each row, and class and run of each block; see `Exchange`.

    Blocks are those of the group's common timeline, on which the commonest label of a time counts:
    a volume that one subject lacks does not cut its block in two. A row with another label than
    the timeline belongs to the nearest block of its own; one without any such block in its run is
    never exchanged, and has a run below 0.
    """
    times, first, at = np.unique(time, return_index=True, return_inverse=True)
    votes = np.zeros((len(times), labels.max() + 1), int)
    np.add.at(votes, (at, labels), 1)
    line, line_run = votes.argmax(1), run[first]
    new = (np.diff(times, prepend=times[0] - 2) != 1) | (np.diff(line, prepend=-1) != 0)
    number = np.cumsum(new) - 1
    block, label, place = number[at], line[new].tolist(), line_run[new].tolist()
    for row in np.flatnonzero(line[at] != labels):
        same = np.flatnonzero((line == labels[row]) & (line_run == run[row]))
        if len(same):
            block[row] = number[same[np.abs(times[same] - time[row]).argmin()]]
        else:
            block[row] = len(label)
            label.append(labels[row])
            place.append(-len(label))
    return block, np.array(label), np.array(place)


def _unique(within: Int[np.ndarray, " b"]) -> Int[np.ndarray, " b"]:
    """Returns ids in which every negative one is a set of its own."""
    out, alone = within.copy(), np.flatnonzero(within < 0)
    out[alone] = within.max() + 1 + np.arange(len(alone))
    return out
