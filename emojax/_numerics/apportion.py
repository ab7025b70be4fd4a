"""Integer part sizes nearest to given fractions, for splits."""

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np


def part_sizes(total: int, fractions: Sequence[int | float], unit: str) -> np.ndarray:
    """Returns [parts] int >= 1 with sum `total`; see `resampling.random_split`."""
    given = tuple(fractions)
    if not given or not all(isinstance(f, Real) and f > 0 for f in given):
        raise ValueError(f"want one fraction > 0 per part; got {given}")
    whole = all(isinstance(f, Integral) for f in given)
    want = total if whole else 1
    if abs(sum(given) - want) > 1e-6:
        raise ValueError(f"want fractions with sum 1 or sizes with sum {total}; got {given}")
    if total < len(given):
        raise ValueError(f"want at least as many {unit} as parts; got {total} for {len(given)}")
    sizes = _largest_remainder(total, np.array(given, dtype=np.float64))
    while 0 in sizes:
        sizes[sizes.argmax()] -= 1
        sizes[sizes.argmin()] += 1
    return sizes


def _largest_remainder(total: int, weights: np.ndarray) -> np.ndarray:
    exact = total * weights / weights.sum()
    sizes = np.floor(exact + 1e-9).astype(np.int64)  # 100 * 0.29 is 28.999...
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    return sizes


def nearest_table(counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Finds the integer table with these row and column sums that is closest to proportional.

    Rounding by largest remainder is optimal for each class alone. Then rows move, one at a time,
    from parts with too many to parts with too few along the cheapest path of moves, which keeps the
    table optimal at every step (successive shortest paths; Bellman-Ford, as a move may cost < 0).
    """
    exact = np.outer(counts, sizes) / counts.sum()
    table = np.stack([_largest_remainder(n, sizes) for n in counts.tolist()])
    while (table.sum(0) != sizes).any():
        # 2 cost[k, a, b] is the change of the squared distance if one of class k moves from a to b.
        off = table - exact
        cost = np.where(table[:, :, None] > 0, 1 - off[:, :, None] + off[:, None, :], np.inf)
        mover, cost = cost.argmin(0), cost.min(0)
        surplus = table.sum(0) - sizes
        distance, before = np.where(surplus > 0, 0.0, np.inf), np.full(len(sizes), -1)
        for _ in sizes:
            through = distance[:, None] + cost
            shorter = through.min(0) < distance - 1e-9
            distance = np.where(shorter, through.min(0), distance)
            before = np.where(shorter, through.argmin(0), before)
        part = np.where(surplus < 0, distance, np.inf).argmin()
        while before[part] >= 0:
            table[mover[before[part], part], [before[part], part]] += (-1, 1)
            part = before[part]
    return table
