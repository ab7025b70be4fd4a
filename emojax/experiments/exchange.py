"""Exchangeability of labels: which blocks of rows may swap labels in a permutation test.

If rows are points in time, blocks of volumes are exchanged within runs; otherwise single rows are
exchanged within subjects. Subjects who saw the same order of events get the same new order: a
decoder of time in the run is then as good on the new order as on the old one, and does not pass for
a decoder of the labels.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from emojax.data.acquisitions import canonical
from emojax.data.cohort import Cohort
from emojax.features.correspondence import AGREE, COVER

PATIENCE = 200  # minimum number of attempts to draw a new arrangement


class Exchange(NamedTuple):
    """Blocks of rows with one class each, and the sets within which blocks are exchanged."""

    block: Int[np.ndarray, " n"]  # block of each row
    label: Int[np.ndarray, " b"]  # class of each block
    within: Int[np.ndarray, " b"]  # set of each block
    scheme: str  # description for the report

    @property
    def arrangements(self) -> int:
        """Number of distinct arrangements of the classes, including the present one."""
        total = 1
        for number in np.unique(self.within):
            counts = np.bincount(self.label[self.within == number]).tolist()
            total *= math.factorial(sum(counts))
            for count in counts:
                total //= math.factorial(count)
        return total

    def draw(self, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Returns the labels of one random arrangement; all are equally likely.

        Each block keeps its extent and gets another block's class. Where blocks differ in length,
        the number of volumes of each class can differ from that of the true labels.
        """
        return self.label[self.order(rng)][self.block]

    def different(
        self,
        rng: np.random.Generator,
        labels: Int[np.ndarray, " n"],
        count: int,
        allowed: Callable[[Int[np.ndarray, " n"]], bool],
    ) -> list[Int[np.ndarray, " n"]]:
        """Returns `count` distinct arrangements, or fewer if many draws find no new one.

        Args:
          rng: random number generator.
          labels: the true labels, which are never returned.
          count: number of arrangements, less than `arrangements`.
          allowed: called with labels; returns whether they may be used.
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
    """Returns the exchange of labels that a study allows.

    Args:
      cohort: the labelled rows. Volumes without a label are not part of it and stay unlabelled.
      timed: whether rows are points in time; consecutive rows of one class are then one block.
    """
    return _blocks(cohort) if timed else _rows(cohort)


def _rows(cohort: Cohort) -> Exchange:
    """Exchanges single rows: within runs if every run of the subject has every class."""
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
    """Exchanges blocks within runs, in the same way for all subjects who saw the same order."""
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
    """Returns the rows of each group of subjects who saw the same classes at the same times."""
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
    """Returns whether two subjects share most times and, at these, most labels of every class."""
    _, i, j = np.intersect1d(time[ours], time[theirs], return_indices=True)
    if not len(i) or len(i) < COVER * min(len(ours), len(theirs)):
        return False
    ours, theirs = labels[ours[i]], labels[theirs[j]]
    return all((theirs[ours == k] == k).mean() >= AGREE for k in np.unique(ours))


def _timeline(time, run, labels):
    """Returns the block of each row, and class and run of each block; see `Exchange`.

    Blocks are those of the group's common timeline, which has the most common label at each time: a
    volume that one subject lacks does not split its block. A row whose label differs from the
    timeline joins the nearest block with its label. Without such a block in its run, the row is
    never exchanged, and its block gets a negative run.
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
    """Returns set ids in which every negative id is replaced by a new, unique one."""
    out, alone = within.copy(), np.flatnonzero(within < 0)
    out[alone] = within.max() + 1 + np.arange(len(alone))
    return out
