"""Assembly of volumes from their parts: slices in any order, several series at once.

state = slices.init()
for part in dicom.read(path):
    state, volumes = slices.add(state, part)

Axes and directions of a volume are those of dcm2niix: x along the rows of the image, y up the
image, z along the normal of the slices, or in the order of a mosaic.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from emojax.errors import InputError

UNEVEN = 0.1  # slice distances, tolerance of positions; a missing slice shifts them by 1
SAME_PLACE = 0.01  # mm
MOST_OPEN = 64  # volumes that wait for slices; beyond that, the oldest is given up
REMEMBERED = 256  # last volumes of a series, which late slices do not open again


class Series(NamedTuple):
    """One series of images; images of another kind or echo count as another series.

    The UID of the series is not part of it, since some scanners change it within a run.
    """

    number: int
    name: str
    kind: str  # see `dicom.KINDS`
    echo: float  # ms
    frame: str  # UID of the frame of reference


class Part(NamedTuple):
    """The slices of one volume in one file."""

    series: Series
    uid: str  # UID of the series
    number: int  # number of the volume in its series, from 1; 0 if only `instance` is known
    instance: int  # number of the image in its series, from 1
    slices: int  # slices of a whole volume; 0 if not stated
    values: Float[np.ndarray, "z rows columns"]
    positions: Float[np.ndarray, "z 3"]  # of the first pixel of each slice, LPS mm
    axes: Float[np.ndarray, "3 3"]  # columns: steps along a row, down a column, between slices; LPS
    time: float  # s since 1970 by the scanner's clock; NaN if not stated
    tr: float  # s; 0 if not stated
    ends_in_zeros: bool  # whether the last pixels are zero, as in a file that is still being filled

    @property
    def is_whole(self) -> bool:
        """True if the part is a whole volume."""
        return len(self.values) == self.slices


class Volume(NamedTuple):
    """One whole volume."""

    series: Series
    number: int
    values: Float[np.ndarray, "X Y Z"]  # float32
    affine: Float[np.ndarray, "4 4"]  # voxel -> mm, RAS+
    time: float
    tr: float


class Waiting(NamedTuple):
    """One volume that lacks slices."""

    series: Series
    number: int
    have: int
    want: int  # 0 if not known yet


Key = tuple[Series, int]


class State(NamedTuple):
    """The state carried from one part to the next."""

    slices: int  # requested number of slices of a volume; 0 to take it from the files
    open: Mapping[Key, tuple[Part, ...]]  # in the order in which volumes began
    learned: Mapping[Series, int]  # slices of a volume, in series whose files do not state it
    done: Mapping[Series, frozenset[int]]  # numbers of volumes that were completed or given up


def init(slices: int = 0) -> State:
    """Returns the state before the first part.

    Args:
      slices: number of slices of a volume whose slices come one by one. 0 takes the number from the
        files, or else learns it: the first volume then counts as whole when the next one begins,
        which fails if slices of the two are interleaved.
    """
    if slices < 0:
        raise InputError("slices", slices, "a number of slices, or 0")
    return State(slices, {}, {}, {})


def status(state: State, part: Part) -> str:
    """Returns the status of a part.

    Returns:
      "new", or the reason why `add` ignores the part: "repeated" if it is there already, "conflict"
      if it is there with other values, "late" if its volume is done. Whole volumes are always
      "new".
    """
    if part.is_whole:
        return "new"
    number = _number(state, part)
    if number in state.done.get(part.series, ()):
        return "late"
    for other in state.open.get((part.series, number), ()):
        apart = np.abs(other.positions[:, None] - part.positions).max(-1)
        if apart.min() < SAME_PLACE:
            return "repeated" if np.array_equal(other.values, part.values) else "conflict"
    return "new"


def add(state: State, part: Part) -> tuple[State, list[Volume]]:
    """Adds a part.

    Returns:
      The next state, and the volumes that are now whole, usually none or one.

    Raises:
      InputError: the part does not match the others of its volume, or the slices of a volume are
        not evenly spaced. The state is unchanged; `drop` gives the volume up.
    """
    if part.is_whole:
        return state, [assemble([part])]
    if status(state, part) != "new":
        return state, []
    series, number = part.series, _number(state, part)
    own = series, number
    others = [key for key in state.open if key[0] == series and key != own]
    if others and not _count(state, part):
        largest = max(sum(len(p.values) for p in state.open[key]) for key in others)
        state = state._replace(learned={**state.learned, series: largest})
    state = state._replace(open={**state.open, own: (*state.open.get(own, ()), part)})
    _check_alike(state.open[own])
    count, volumes = _count(state, part), []
    for key in [*others, own]:
        parts = state.open[key]
        if sum(len(p.values) for p in parts) == count:
            volumes.append(assemble(parts, key[1]))
            state = drop(state, *key)
    for key in list(state.open)[:-MOST_OPEN]:
        state = drop(state, *key)
    return state, volumes


def waiting(state: State) -> list[Waiting]:
    """Returns the volumes that lack slices, in the order in which they began."""
    return [
        Waiting(*key, sum(len(p.values) for p in parts), _count(state, parts[0]))
        for key, parts in state.open.items()
    ]


def drop(state: State, series: Series, number: int) -> State:
    """Returns the state without a volume, whose later slices are "late"."""
    numbers = sorted(state.done.get(series, frozenset()) | {number})[-REMEMBERED:]
    left = {key: parts for key, parts in state.open.items() if key != (series, number)}
    return state._replace(open=left, done={**state.done, series: frozenset(numbers)})


def assemble(parts: Sequence[Part], number: int | None = None) -> Volume:
    """Assembles a volume from its parts.

    Args:
      parts: all slices of one volume in any order, of one size and orientation.
      number: number of the volume; None is that of the first part.

    Raises:
      InputError: the slices are not evenly spaced, for example because one is missing.
    """
    first = parts[0]
    positions = np.concatenate([part.positions for part in parts])
    values = first.values if len(parts) == 1 else np.concatenate([part.values for part in parts])
    step = first.axes[:, 2]
    along = positions @ (step / np.linalg.norm(step))
    order = np.argsort(along, kind="stable")
    if (np.diff(order) < 0).any():
        positions, values = positions[order], values[order]
    if len(positions) > 1:
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
        off = np.abs(positions - positions[0] - np.arange(len(positions))[:, None] * step).max()
        if not off <= UNEVEN * np.linalg.norm(step) or not np.any(step):
            where = f"{first.series.name}, volume {first.number if number is None else number}"
            raise InputError(where, "slices that are not evenly spaced", "a whole volume")
    right, down = first.axes[:, 0], first.axes[:, 1]
    affine = np.eye(4)
    affine[:3] = np.c_[right, -down, step, positions[0] + down * (values.shape[1] - 1)]
    affine[:2] *= -1  # LPS -> RAS
    values = np.ascontiguousarray(values[:, ::-1], np.float32).T
    times = [part.time for part in parts]
    time = min(times) if np.isfinite(times).all() else float("nan")
    return Volume(
        first.series, first.number if number is None else number, values, affine, time, first.tr
    )


def _count(state: State, part: Part) -> int:
    return state.slices or part.slices or state.learned.get(part.series, 0)


def _number(state: State, part: Part) -> int:
    if part.number:
        return part.number
    count = state.slices or part.slices
    if not count:
        expected = "files that state it, or `slices`"
        raise InputError(part.series.name, "no number of slices in a volume", expected)
    return (part.instance - 1) // count + 1


def _check_alike(parts: Sequence[Part]) -> None:
    first, last = parts[0], parts[-1]
    if last.values.shape[1:] != first.values.shape[1:]:
        found = f"slices of {first.values.shape[1:]} and {last.values.shape[1:]} pixels"
    elif np.abs(last.axes - first.axes).max() > SAME_PLACE:
        found = "slices of two orientations"
    else:
        return
    raise InputError(f"{first.series.name}, volume {first.number}", found, "equal slices")
