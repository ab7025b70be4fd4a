"""Leaks that `LeakGuard` looks for, one function each; none of them changes its arguments.

A function yields findings. If it cannot measure something, it notes (what, why) and yields nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from emojax.sklearn import contents, reach

SPLIT, ROWS = "the split", "the rows"
CHANCE = 1e-3  # expected number of equal pairs above which they are attributed to chance
CENTRED = 1e-5  # in sd: largest mean that counts as 0 up to rounding
NEARER = 20  # how much closer to 0 than means of training rows is not by chance
MOST = 0.9  # share of columns; components of a PCA in float32 may lie along rounding errors
Note = Callable[[str, str], None]


class Finding(NamedTuple):
    """A leak and its location."""

    step: str  # name of a step of the pipeline, `SPLIT` or `ROWS`
    text: str
    advice: str


class Side(NamedTuple):
    """The rows of one side of a split."""

    X: Any
    y: Any
    digests: list[bytes]
    groups: np.ndarray | None  # groups of the rows whose group is known


def of_groups(train: Side, scored: Side) -> Iterator[Finding]:
    """Yields a finding if groups have rows on both sides."""
    if train.groups is None or scored.groups is None:
        return
    both = np.intersect1d(train.groups, scored.groups)
    if len(both):
        some = ", ".join(map(str, both[:3].tolist()))
        many = f"{len(both)} groups ({some}{', ...' if len(both) > 3 else ''})"
        yield Finding(
            SPLIT,
            f"{many if len(both) > 1 else f'group {some}'} with rows on both sides",
            "a splitter that keeps groups whole, such as LeaveOneGroupOut or GroupKFold",
        )


def of_copies(train: Side, scored: Side, note: Note) -> Iterator[Finding]:
    """Yields a finding if scored rows are training rows or copies of them."""
    known, blank = set(train.digests), contents.constant(scored.X)
    equal = [i for i, digest in enumerate(scored.digests) if digest in known]
    same = [i for i in equal if not blank[i]]
    if len(same) < len(equal):
        said = f"{len(equal) - len(same)} scored rows equal training rows, as blank rows do"
        note("rows of one value", said)
    advice = "each row once: oversample within the training rows, after the split"
    if same and contents.chance(train.X) * len(known) * len(scored.digests) > CHANCE:
        note("rows on both sides", f"{len(same)} are equal, as rows of so few values are by chance")
        return
    if same:
        said = f"{len(same)} of {len(scored.digests)} scored rows are training rows, too"
        yield Finding(ROWS, f"{said} (first: row {same[0]} of those scored)", advice)
        return
    ours, theirs = contents.numbers(scored.X), contents.numbers(train.X)
    if ours is None or theirs is None or ours.shape[1] < contents.LEAST:
        note("scaled, shifted and permuted copies", f"fewer than {contents.LEAST} numbers a row")
        return
    found = contents.copies(contents.Moments(ours), contents.Moments(theirs))
    if found:
        i, j, kind = found[0]
        said = f"{len(found)} of {len(ours)} scored rows are copies of training rows"
        yield Finding(ROWS, f"{said} (row {i} of those scored is {kind} of row {j})", advice)


def of_scaling(train: Side, everything: Any) -> Iterator[Finding]:
    """Yields a finding if all rows together show the trace of a scaler fitted to all of them."""
    ours, X = contents.numbers(train.X), contents.numbers(everything)
    if ours is None or X is None or X.dtype.kind != "f" or len(X) < 8:
        return
    some = slice(0, 4096)  # a sufficient number of columns
    X, ours = X[:, some].astype(np.float64), ours[:, some].astype(np.float64)
    sd = X.std(0)
    X, ours, sd = X[:, sd > 0], ours[:, sd > 0], sd[sd > 0]
    if not len(sd) or not np.isfinite(X).all():
        return
    advice = "the scaler as a step of the Pipeline"
    apart = np.median(np.abs(ours.mean(0)) / sd)
    means = np.abs(X.mean(0)) / sd
    centred = means.max() < CENTRED
    if not centred and np.quantile(means, MOST) < apart / NEARER:  # float32 rounds means
        centred = _tell(X)
    if centred and apart > 100 * CENTRED:
        said = "columns have mean 0 over training and scored rows together, not over training rows"
        yield Finding(ROWS, f"{said}: they were centred or scaled before the split", advice)
    distinct = (np.diff(np.sort(X, 0), axis=0) > 0).sum(0)
    if (distinct < len(X) / 2).any():
        return  # minima of repeated values agree by chance
    for low, high in ((X.min(0), X.max(0)), (None, np.abs(X).max(0))):
        ends = [high] if low is None else [low, high]
        round_ends = all(np.ptp(end) < 1e-6 for end in ends) and len(sd) > 1
        own = np.abs(ours).max(0) if low is None else ours.max(0)
        if round_ends and (own < high - 1e-6).any():
            said = "columns have one largest value over training and scored rows together"
            yield Finding(ROWS, f"{said}: they were scaled before the split", advice)
            return


def _tell(X: np.ndarray) -> bool:
    """Returns whether at least 8 columns are too dissimilar for all means to be 0 by chance."""
    some = X[:, np.linspace(0, X.shape[1] - 1, min(X.shape[1], 64)).astype(int)]
    alike = np.abs(np.corrcoef(some, rowvar=False)).reshape(some.shape[1], -1)
    kept: list[int] = []
    for i in range(len(alike)):
        if (alike[i, kept] < 0.5).all():
            kept.append(i)
    return len(kept) >= 8


def of_time(order: tuple[np.ndarray, np.ndarray], X: Any, y: Any, note: Note) -> Iterator[Finding]:
    """Yields a finding if similar neighbours in time are on both sides of the split.

    Args:
      order: positions of training and scored rows in the order of acquisition; -1: unknown.
      X: the training rows.
      y: their labels; pairs with equal labels are compared with other pairs of that label.
      note: function that records what cannot be measured, see the module.
    """
    train, scored = order
    placed, scored = np.flatnonzero(train >= 0), scored[scored >= 0]
    if not len(placed) or not len(scored):
        note("neighbours in time", "rows that occur several times have no place")
        return
    train, X = train[placed], contents.take(X, placed)
    beside = np.isin(scored - 1, train) | np.isin(scored + 1, train)
    if beside.mean() <= 0.5:
        return
    values = contents.numbers(X)
    if values is None or len(values) < 20 or values.shape[1] < contents.LEAST:
        note("neighbours in time", f"want 20 rows of {contents.LEAST} numbers or more")
        return
    labels = np.zeros(len(train)) if y is None else np.asarray(y)[placed]
    ordered = np.argsort(train)
    places, labels = train[ordered], labels[ordered]
    z = values[ordered].astype(np.float64)
    z = contents.standardised(z - z.mean(0))
    near = np.flatnonzero((np.diff(places) <= 2) & (labels[1:] == labels[:-1]))
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, len(z), (4000, 2))
    apart = np.abs(places[pairs[:, 0]] - places[pairs[:, 1]]) > 20
    far = pairs[apart & (labels[pairs[:, 0]] == labels[pairs[:, 1]])]
    if len(near) < 10 or len(far) < 10:
        note("neighbours in time", "too few pairs of neighbours of one label")
        return
    a = (z[near] * z[near + 1]).mean(1)
    b = (z[far[:, 0]] * z[far[:, 1]]).mean(1)
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    error = np.sqrt(a.var() / len(a) + b.var() / len(b))
    if a.mean() - b.mean() > max(0.05, 5 * error):
        yield Finding(
            SPLIT,
            f"{beside.mean():.0%} of scored rows have a neighbour in time that trains, and "
            f"neighbours are alike (r = {a.mean():.2f}, others of the same label {b.mean():.2f})",
            "groups= of runs, and a splitter that keeps them whole",
        )


def of_fitted_steps(estimator: Any) -> Iterator[Finding]:
    """Yields steps that were fitted before `fit`: prefit, frozen, or inside a function."""
    for path, value in reach.walk(estimator):
        if reach.is_estimator(value) and reach.is_fitted(value):
            yield Finding(
                path or type(value).__name__,
                f"{type(value).__name__} was fitted before the split, to rows that nobody recorded",
                "it unfitted as a step, or allow= with its name if its rows are none of these",
            )


def of_choices(estimator: Any, note: Note) -> None:
    """Notes numbers that may choose columns, as the rows behind such a choice are unknown."""
    for path, value in reach.walk(estimator):
        is_choice = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "biu"
        if is_choice and len(value) > 1:
            note("choices by numbers", f"{path} may choose columns; nobody can tell by which rows")
            return


def of_reachable(
    estimator: Any, digests: Sequence[bytes], columns: int, labels: np.ndarray | None
) -> Iterator[Finding]:
    """Yields scored rows, or the labels of all rows, that the estimator's code can reach.

    Args:
      estimator: an estimator, before or after `fit`.
      digests: digests of the scored rows that are not training rows.
      columns: number of columns.
      labels: labels of all rows, training and scored; None: not searched for.
    """
    wanted = set(digests)
    ordered = None if labels is None else np.sort(labels)
    for path, value in reach.walk(estimator):
        held = _rows_in(value, columns)
        held = held if held is None else held[~contents.constant(held)]  # e.g. weights of 0
        if held is not None and wanted & set(contents.digests(held)):
            yield Finding(
                path,
                f"{path.rpartition('.')[2] or path} holds rows that are scored",
                "steps that know nothing but what `fit` is given",
            )
        elif ordered is not None and _holds(value, ordered):
            yield Finding(
                path,
                f"{path.rpartition('.')[2] or path} holds the labels of training and scored rows",
                "steps that know nothing but what `fit` is given",
            )


def _rows_in(value: Any, columns: int) -> np.ndarray | None:
    """Returns a value as rows [k, columns], or None if it cannot be that."""
    if isinstance(value, bytes) and len(value) in (4 * columns, 8 * columns):
        return np.frombuffer(value, np.float32 if len(value) == 4 * columns else np.float64)[None]
    if isinstance(value, tuple | list) and len(value) == columns:
        if all(isinstance(own, float | int | np.number) for own in value):
            return np.asarray(value, np.float64)[None]
        return None
    found = contents.numbers(value) if hasattr(value, "shape") else None
    if found is None and isinstance(value, np.ndarray) and value.shape == (columns,):
        found = value[None] if value.dtype.kind in "biuf" else None
    if found is None or found.shape[1] != columns or columns < 2:
        return None
    return found


def _holds(value: Any, ordered: np.ndarray) -> bool:
    """Returns whether a value is a vector of exactly these labels, in any order."""
    if getattr(value, "shape", None) != ordered.shape or isinstance(value, reach.PLAIN):
        return False
    try:
        return bool((np.sort(np.asarray(value)) == ordered).all())
    except TypeError:
        return False
