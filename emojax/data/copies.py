"""Equal content: the same volumes under two names would stand on both sides of a strict split."""

import collections
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from emojax.data.run import Run
from emojax.errors import InputError

CLOSE = 4e-6  # of the largest value: what another scale or type of the file may round differently
SMALL = 64  # values; so few may be equal by chance


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
    for alike in by_shape.values():
        shared = collections.Counter()
        for (i, at), (j, other) in _pairs([_sample(run) for run in alike]):
            a, b = alike[i], alike[j]
            if not _equal(a.read([at])[0], b.read([other])[0]):
                continue
            shared[i, j, at - other] += 1
            many = (min(len(a.frames), len(b.frames)) + 1) // 2
            if a.frames[0].size >= SMALL or shared[i, j, at - other] >= many:
                raise InputError(
                    b.place,
                    f"the same values as {a.place} (volume {other} is its volume {at})",
                    "each scan once: remove one, or leave it out "
                    "(--config.data.runs, --config.data.subjects or --config.data.entities)",
                )


def _sample(run: Run) -> Float[np.ndarray, "t k"]:
    """Returns some values of every volume: lines through its middle, which lie together on disk."""
    shape = run.frames.shape[1:]
    if len(shape) == 1:
        step = max(1, shape[0] // 256)
        values = run.read(slice(None), slice(None, None, step))
    else:
        middle = shape[2] // 2
        depths = sorted({shape[1] // 3, shape[1] // 2, 2 * shape[1] // 3})
        lines = [run.read(slice(None), (slice(None), y, middle)) for y in depths]
        values = np.concatenate(lines, axis=1)
    return np.nan_to_num(values, posinf=0, neginf=0)


def _pairs(samples: Sequence[np.ndarray]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yields ((run, volume), (later run, volume)) whose samples are equal, up to rounding."""
    run = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
    frame = np.concatenate([np.arange(len(sample)) for sample in samples])
    x = np.concatenate(samples).astype(np.float64)
    varies = x.max(1) > x.min(1)
    run, frame, x = run[varies], frame[varies], x[varies]
    if not len(x):
        return
    size = np.abs(x).max()
    weights = np.random.default_rng(0).normal(size=x.shape[1])
    place = (x - x.mean(0)) @ weights
    order = np.argsort(place, kind="stable")
    run, frame, x, place = run[order], frame[order], x[order], place[order]
    near = CLOSE * size * np.abs(weights).sum()
    for step in range(1, len(x)):
        close = np.flatnonzero(place[step:] - place[:-step] <= near)
        if not close.size:
            return
        for first in close[run[close] != run[close + step]].tolist():
            second = first + step
            if np.abs(x[first] - x[second]).max() <= CLOSE * size:
                found = sorted([(int(run[k]), int(frame[k])) for k in (first, second)])
                yield found[0], found[1]


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Returns whether two volumes are equal up to rounding, and not of one value only."""
    known = np.isfinite(a)
    if not np.array_equal(known, np.isfinite(b)) or not known.any():
        return False
    a, b = a[known], b[known]
    return bool(a.max() > a.min() and np.abs(a - b).max() <= CLOSE * np.abs(a).max())
