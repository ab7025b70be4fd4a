"""Search for duplicate volumes, which could end up on both sides of a strict split."""

import collections
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from emojax.data import mapped
from emojax.data.run import Run
from emojax.errors import InputError

ROUNDING = 4e-6  # relative error of float32, and of scales applied in another precision
SMALL = 64  # values; fewer may be equal by chance
SUMS = 4  # weighted sums of a volume's sample, which are compared between all volumes
BESIDE = 1e-3  # relative; sizes this close to the border of two groups belong to both
SPREAD = 6 / 12**0.5  # six standard deviations of the error of rounding to a step of 1
ROW = np.dtype(
    [
        *(("run", int), ("frame", int), ("form", int)),
        *(("size", float), ("step", float), ("sums", float, SUMS), ("near", float, SUMS)),
    ]
)


def check(runs: Sequence[Run]) -> None:
    """Refuses runs that share a volume, whatever dtype, scale or compression their files have.

    Copies under another subject and truncated copies are found as well. Constant volumes do not
    count. If volumes have few values, half a run must be equal, in order.

    Raises:
      InputError: two runs share a volume; the message names both.
    """
    by_shape = collections.defaultdict(list)
    for run in runs:
        by_shape[run.frames.shape[1:]].append(run)
    for shape, alike in by_shape.items():
        few, shared = np.prod(shape) < SMALL, collections.Counter()
        for (i, at), (j, other) in _pairs(alike):
            a, b = alike[i], alike[j]
            step = 0.0 if _form(a) == _form(b) else _step(a) + _step(b)
            if not few and not equal(a.read([at])[0], b.read([other])[0], step):
                continue
            shared[i, j, at - other] += 1
            half = (min(len(a.frames), len(b.frames)) + 1) // 2
            if not few or shared[i, j, at - other] >= half:
                of = a.place if a.place != b.place else f"another of its runs, {a.name}"
                raise InputError(
                    b.place,
                    f"the same values as {of} (volume {other} of {b.name} is its volume {at})",
                    "each scan once: remove one, or leave it out "
                    "(--config.data.runs, --config.data.subjects or --config.data.entities)",
                )


def equal(
    a: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"], step: float = 0.0
) -> bool:
    """Returns whether two volumes are equal up to rounding, and not constant.

    Args:
      a: the first volume.
      b: the second volume, of the same shape.
      step: step between whole numbers in their files, in units of the values; 0 for floats.
    """
    known = np.isfinite(a) & np.isfinite(b)  # one background may be 0, the other NaN
    if not known.any():
        return False
    a, b = a[known], b[known]
    allowed = ROUNDING * (np.abs(a) + np.abs(a).mean()) + 0.51 * step
    return bool(a.max() - a.min() > 2 * step and (np.abs(a - b) <= allowed).all())


def _step(run: Run) -> float:
    """Returns the step between values of a run stored as whole numbers; 0 for floats."""
    return abs(run.slope) if run.frames.dtype.kind in "iu" else 0.0


def _form(run: Run) -> tuple[float, ...]:
    """Returns the storage format; equal values of one format are stored equally."""
    return (run.slope, run.intercept) if _step(run) else ()


def _pairs(runs: Sequence[Run]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yields ((run, volume), (later run, volume)) that look equal by sums of some values."""
    for table, weights in _tables(runs):
        length = float(np.sqrt((weights**2).sum(0)).max())
        coarse = SPREAD * table["step"] * length  # effect of rounding on a sum
        table["step"][coarse > table["sums"].std()] = 0  # too coarse to distinguish volumes
        sizes = np.log2(table["size"])
        low, high = (np.floor(sizes + side * BESIDE) for side in (-1, 1))
        for group in np.unique(low):  # volumes of similar size
            yield from _near(table[(low == group) | (high == group)], SPREAD * length)


def _near(table: np.ndarray, unit: float) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yields pairs of volumes of different runs whose sums agree.

    Args:
      table: one row for each volume, see `ROW`.
      unit: change of a sum if values are rounded to steps of 1.
    """
    table = table[np.argsort(table["sums"][:, 0], kind="stable")]
    sums, near, step, form = (table[name] for name in ("sums", "near", "step", "form"))
    widest = 2 * near[:, 0].max(initial=0)
    if len(np.unique(form)) > 1:
        widest += 2 * unit * step.max()
    for shift in range(1, len(table)):
        first = np.flatnonzero(sums[shift:, 0] - sums[:-shift, 0] <= widest)
        if not first.size:
            return
        first = first[table["run"][first] != table["run"][first + shift]]
        second = first + shift
        coarse = np.where(form[first] == form[second], 0, np.hypot(step[first], step[second]))
        allowed = near[first] + near[second] + unit * coarse[:, None]
        agree = (np.abs(sums[second] - sums[first]) <= allowed).all(1)
        for pair in np.stack([first, second], 1)[agree].tolist():
            found = sorted((int(table["run"][k]), int(table["frame"][k])) for k in pair)
            yield found[0], found[1]


def _tables(runs: Sequence[Run]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields rows and weights of samples, then of whole volumes.

    Whole volumes are read only if the sample is constant, as in maps of a region.
    """
    forms = {form: i for i, form in enumerate(dict.fromkeys(map(_form, runs)))}
    sampled, whole, sample = [], [], np.zeros((0, 0))
    for i, run in enumerate(runs):
        sample, own = _sample(run), (i, forms[_form(run)], _step(run))
        varies = sample.max(1) > sample.min(1)
        sampled.append(_rows(own, np.flatnonzero(varies), sample[varies]))
        for frame in np.flatnonzero(~varies).tolist():
            volume = np.nan_to_num(run.read([frame]), posinf=0, neginf=0).reshape(1, -1)
            if volume.max() > volume.min():
                whole.append(_rows(own, np.array([frame]), volume))
    for rows, size in ((sampled, sample.shape[1]), (whole, np.prod(runs[0].frames.shape[1:]))):
        if sum(map(len, rows)):
            yield np.concatenate(rows), _weights(int(size))


@functools.lru_cache(maxsize=4)
def _weights(size: int) -> Float[np.ndarray, "n s"]:
    return np.random.default_rng(0).normal(size=(size, SUMS))


def _rows(
    own: tuple[int, int, float], frames: Int[np.ndarray, " k"], values: Float[np.ndarray, "k n"]
) -> np.ndarray:
    """Returns the rows of volumes with the same run, format and step."""
    table, weights = np.zeros(len(frames), ROW), _weights(values.shape[1])
    table["run"], table["form"], table["step"] = own
    values = values.astype(np.float64)
    table["frame"], table["sums"] = frames, values @ weights
    parts = np.abs(values) @ np.abs(weights)
    table["size"], table["near"] = np.abs(values).mean(1), ROUNDING * parts
    return table


def _sample(run: Run) -> Float[np.ndarray, "t k"]:
    """Returns some values of every volume: lines through its middle, contiguous on disk."""
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
