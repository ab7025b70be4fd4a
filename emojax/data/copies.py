"""Equal content: the same volumes under two names would stand on both sides of a strict split."""

import collections
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from emojax.data import mapped
from emojax.data.run import Run
from emojax.errors import InputError

CLOSE = 4e-6  # of the largest value: what another scale or type of the file may round differently
SMALL = 64  # values; so few may be equal by chance
SUMS = 4  # weighted sums of a volume's sample, by which it is compared with all others


def check(runs: Sequence[Run]) -> None:
    """Refuses runs that share a volume, whatever type, scale or compression their files have.

    A copy under another subject, or one with volumes cut off, is found as well. Volumes of one
    value do not count; of volumes with few values half a run must be equal, in its order.

    Raises:
      InputError: names both runs.
    """
    by_shape = collections.defaultdict(list)
    for run in runs:
        by_shape[run.frames.shape[1:]].append(run)
    for shape, alike in by_shape.items():
        few, shared = np.prod(shape) < SMALL, collections.Counter()
        for (i, at), (j, other) in _pairs(alike):
            a, b = alike[i], alike[j]
            if not few and not _equal(a.read([at])[0], b.read([other])[0]):
                continue
            shared[i, j, at - other] += 1
            half = (min(len(a.frames), len(b.frames)) + 1) // 2
            if not few or shared[i, j, at - other] >= half:
                raise InputError(
                    b.place,
                    f"the same values as {a.place} (volume {other} is its volume {at})",
                    "each scan once: remove one, or leave it out "
                    "(--config.data.runs, --config.data.subjects or --config.data.entities)",
                )


def _pairs(runs: Sequence[Run]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yields ((run, volume), (later run, volume)) that look equal: by sums of some values."""
    sums, size, weights, reference = [], 0.0, None, 0.0
    for i, run in enumerate(runs):
        sample = _sample(run).astype(np.float64)
        if weights is None:
            weights = np.random.default_rng(0).normal(size=(sample.shape[1], SUMS))
            reference = sample[:1]
        size = max(size, float(np.abs(sample).max(initial=0)))
        frame = np.flatnonzero(sample.max(1) > sample.min(1))
        own = (sample[frame] - reference) @ weights
        sums.append(np.column_stack([np.full(len(frame), i), frame, own]))
    if weights is None:
        return
    table = np.concatenate(sums)
    table = table[np.argsort(table[:, 2], kind="stable")]
    near = CLOSE * size * np.abs(weights).sum(0)
    for step in range(1, len(table)):
        close = np.flatnonzero(table[step:, 2] - table[:-step, 2] <= near[0])
        if not close.size:
            return
        apart = np.abs(table[close + step, 2:] - table[close, 2:]) <= near
        equal = close[apart.all(1) & (table[close, 0] != table[close + step, 0])]
        for first in equal.tolist():
            pair = sorted(tuple(map(int, table[k, :2])) for k in (first, first + step))
            yield pair[0], pair[1]


def _sample(run: Run) -> Float[np.ndarray, "t k"]:
    """Returns some values of every volume: lines through its middle, which lie together on disk."""
    shape = run.frames.shape[1:]
    if len(shape) == 1:
        values = run.read(slice(None), slice(None, None, max(1, shape[0] // 256)))
    else:
        middle = shape[2] // 2
        depths = sorted({shape[1] // 3, shape[1] // 2, 2 * shape[1] // 3})
        lines = [run.read(slice(None), (slice(None), y, middle)) for y in depths]
        values = np.concatenate(lines, axis=1)
    mapped.let_go(run.frames)
    return np.nan_to_num(values, posinf=0, neginf=0)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Returns whether two volumes are equal up to rounding, and not of one value only."""
    known = np.isfinite(a)
    if not np.array_equal(known, np.isfinite(b)) or not known.any():
        return False
    a, b = a[known], b[known]
    return bool(a.max() > a.min() and np.abs(a - b).max() <= CLOSE * np.abs(a).max())
