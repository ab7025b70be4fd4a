"""Class balancing and train/test splits, as int32 arrays of row indices.

The same key gives the same rows. `balance` can be traced (`jit`, `vmap`). The sizes of splits
depend on values, so splits are made on the host. Run numbers that repeat in every subject define no
groups: to leave runs out, give each run of each subject its own number, for example
`100 * subject + run`.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32, Key, Shaped

from emojax._numerics.apportion import nearest_table, part_sizes
from emojax._numerics.checks import (
    Array,
    as_labels,
    check_integers,
    check_key,
    check_labels,
    count_classes,
    is_concrete,
)

Rows = Int32[np.ndarray, "_"]
_MOST = 10**8  # maximum number of rows of a class; with more, XLA aborts the process


class Split(NamedTuple):
    """Train and test rows, disjoint and together all rows, each in ascending order."""

    train: Rows
    test: Rows


def balance(
    key: Key[Array, ""],
    labels: Int[Array, "*subjects n"],
    per_class: int,
    *,
    num_classes: int | None = None,
) -> Int32[jax.Array, "*subjects balanced"]:
    """Draws the same number of rows of every class, within each subject.

    A class with at least `per_class` rows contributes that many different rows. A smaller one
    contributes each of its rows once, then bootstrap draws (with replacement). In the paper's
    Experiment A, a subject has 200, 100 and 100 rows of 3 classes, and per_class = 200.

    Args:
      key: [] typed key. Subject s, counted over all leading axes, uses `fold_in(key, s)`; labels
        [n] use `key` itself.
      labels: [..., n] int in [0, num_classes); the leading axes are subjects.
      per_class: number of rows per class and subject; static under jit.
      num_classes: number of classes K, static under jit. None: one more than the largest label,
        which must be known.

    Returns:
      [..., num_classes * per_class] rows within each subject, class 0 first, then class 1, ...
      Under tracing, a missing class cannot raise: its rows are n, which is out of range.

    Raises:
      ValueError: a subject lacks a class, labels or per_class are out of range, there are no rows,
        the key is not one typed key, or num_classes is None while labels are traced.

    References:
      arXiv 2210.17015, section 2 (class balance of Experiment A).
    """
    check_key(key)
    labels = as_labels(labels)
    if labels.dtype.kind in "USO":
        check_integers("labels", labels)
    labels = jnp.asarray(labels)
    if labels.ndim < 1 or labels.size == 0:
        raise ValueError(f"want labels [..., n] with n >= 1; got shape {labels.shape}")
    if not 1 <= per_class <= _MOST:
        raise ValueError(f"want per_class >= 1, at most {_MOST}; got {per_class}")
    num_classes = count_classes(num_classes, labels)
    check_labels("labels", labels, num_classes)
    if is_concrete(labels):
        for s, subject in enumerate(np.asarray(labels).reshape(-1, labels.shape[-1])):
            where = f"subject {s}" if labels.ndim > 1 else "labels"
            require_classes(subject, np.arange(len(subject)), num_classes, where)
    return _balance(key, labels, per_class, num_classes)


@partial(jax.jit, static_argnames=("per_class", "num_classes"))
def _balance(key, labels, per_class, num_classes):
    flat = labels.reshape(-1, labels.shape[-1]).astype(jnp.int32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(flat)))
    one = partial(_balance_one, per_class=per_class, num_classes=num_classes)
    rows = jax.vmap(one)(keys, flat) if labels.ndim > 1 else one(key, flat[0])
    return rows.reshape(*labels.shape[:-1], num_classes * per_class)


def _balance_one(key, labels, per_class, num_classes):
    n = len(labels)
    bits = jax.random.bits(key, n + num_classes * per_class, "uint32")
    # Rows class by class, in random order within a class.
    by_class = jnp.lexsort((bits[:n], labels)).astype(jnp.int32)
    classes = jnp.arange(num_classes, dtype=jnp.int32)[:, None]
    start = (labels[None] < classes).sum(1, keepdims=True, dtype=jnp.int32)  # [classes, 1]
    count = (labels[None] == classes).sum(1, keepdims=True, dtype=jnp.int32)
    slot = jnp.arange(per_class, dtype=jnp.int32)[None]
    draw = bits[n:].reshape(num_classes, per_class) % jnp.maximum(count, 1).astype("uint32")
    slot = start + jnp.where(slot < count, slot, draw.astype(jnp.int32))
    rows = by_class.at[slot].get(mode="clip")
    return jnp.where(count > 0, rows, n).reshape(-1)


def leave_one_group_out(
    groups: Shaped[Array, "n"],
    *,
    labels: Int[Array, "n"] | None = None,
    num_classes: int | None = None,
) -> list[Split]:
    """Makes one split per group, in sorted order of the groups; that group is the test set.

    Args:
      groups: [n] int or string, e.g. the subject (leave-one-subject-out) or run of each row.
      labels: [n] int; if given, every class must occur on both sides of every split.
      num_classes: number of classes of `labels`. None: the classes that occur in `labels`.

    Raises:
      ValueError: fewer than two groups, shapes disagree, or a split lacks a class.
    """
    names, group = _number_groups(groups, at_least=2)
    tests = {f"fold {i} (group {name})": [i] for i, name in enumerate(names)}
    return _make_splits(group, tests, labels, num_classes)


def group_kfold(
    key: Key[Array, ""],
    groups: Shaped[Array, "n"],
    num_folds: int,
    *,
    labels: Int[Array, "n"] | None = None,
    num_classes: int | None = None,
    strata: Shaped[Array, "n"] | None = None,
) -> list[Split]:
    """Deals whole groups at random into folds; each fold is the test set of one split.

    Args:
      key: [] typed key.
      groups: [n] int or string; a group is never on both sides.
      num_folds: number of folds, >= 2. Folds differ by at most one in their numbers of groups.
      labels, num_classes: as for `leave_one_group_out`.
      strata: as for `group_split`.

    Raises:
      ValueError: num_folds < 2, fewer groups than folds, shapes disagree, or a split lacks a class.
    """
    if num_folds < 2:
        raise ValueError(f"want num_folds >= 2; got {num_folds}")
    names, group = _number_groups(groups, at_least=num_folds)
    sizes = np.array([len(part) for part in np.array_split(names, num_folds)])
    tests = _deal(_shuffle(key, len(names)), sizes, _of_groups(strata, group))
    return _make_splits(group, {f"fold {i}": t for i, t in enumerate(tests)}, labels, num_classes)


def random_split(
    key: Key[Array, ""], num_rows: int, fractions: Sequence[int | float]
) -> tuple[Rows, ...]:
    """Splits rows at random, without regard to class or group.

    Args:
      key: [] typed key.
      num_rows: number of rows n.
      fractions: size of each part, > 0. Ints are exact sizes and sum to n. Floats sum to 1; sizes
        are rounded by largest remainder, and a part left empty takes one row from the largest.

    Returns:
      One array of ascending rows per part; no part is empty.

    Raises:
      ValueError: fractions are wrong, or there are fewer rows than parts.
    """
    return _cut(_shuffle(key, num_rows), part_sizes(num_rows, fractions, "rows"))


def stratified_split(
    key: Key[Array, ""], labels: Int[Array, "n"], fractions: Sequence[int | float]
) -> tuple[Rows, ...]:
    """Splits rows at random into parts of exact sizes with the classes' proportions.

    Of all integer tables [classes, parts] with the classes' counts and the parts' sizes as sums,
    this takes the one closest to proportional in least squares. For example, the paper's Experiment
    B, 1524 rows of each of two classes into (1950, 488, 610), gives 975, 244 and 305 of each class.

    Args:
      key: [] typed key.
      labels: [n] int; the classes are those that occur.
      fractions: as for `random_split`.

    Returns:
      One array of ascending rows per part; every class occurs in every part.

    Raises:
      ValueError: fractions or labels are wrong, or a part would lack a class.
    """
    labels = _host_labels(labels)
    sizes = part_sizes(len(labels), fractions, "rows")
    parts = _deal(_shuffle(key, len(labels)), sizes, labels)
    for i, part in enumerate(parts):
        require_classes(labels, part, None, f"part {i}")
    return parts


def group_split(
    key: Key[Array, ""],
    groups: Shaped[Array, "n"],
    fractions: Sequence[int | float],
    *,
    labels: Int[Array, "n"] | None = None,
    strata: Shaped[Array, "n"] | None = None,
) -> tuple[Rows, ...]:
    """Splits whole groups at random, for example into subjects to train, validate and test on.

    Args:
      key: [] typed key.
      groups: [n] int or string; a group is never in two parts.
      fractions: fractions of the groups, not of the rows; otherwise as for `random_split`.
      labels: [n] int; if given, every class that occurs must occur in every part.
      strata: [n] kind of group that each row belongs to, e.g. patient or control; every part gets
        its share of each kind, as closely as whole groups allow. None: all groups are of one kind.

    Returns:
      One array of ascending rows per part, each with at least one group.

    Raises:
      ValueError: fractions or shapes are wrong, fewer groups than parts, a group of two strata, or
        a part lacks a class.
    """
    names, group = _number_groups(groups, at_least=1)
    sizes = part_sizes(len(names), fractions, "groups")
    chosen = _deal(_shuffle(key, len(names)), sizes, _of_groups(strata, group))
    parts = tuple(_rows(np.isin(group, c)) for c in chosen)
    if labels is not None:
        labels = _host_labels(labels, len(group))
        for i, part in enumerate(parts):
            require_classes(labels, part, None, f"part {i}")
    return parts


def require_classes(
    labels: Int[Array, "n"], indices: Int[Array, "rows"], num_classes: int | None, where: str
) -> None:
    """Raises ValueError, naming `where` and the class, if the chosen rows lack a class.

    Args:
      labels: [n] int.
      indices: [rows] int, the rows of one part.
      num_classes: number of classes K; each class in [0, K) must occur. None: every class of
        `labels`.
      where: name of the rows in the message, e.g. "fold 3, test".
    """
    labels = np.asarray(labels)
    want = np.unique(labels) if num_classes is None else np.arange(num_classes)
    missing = np.setdiff1d(want, labels[np.asarray(indices, dtype=np.int64)])
    if missing.size:
        raise ValueError(f"want every class in {where}; class {missing[0]} has no row there")


def _make_splits(group, tests, labels, num_classes) -> list[Split]:
    labels = None if labels is None else _host_labels(labels, len(group), num_classes)
    out = []
    for where, chosen in tests.items():
        is_test = np.isin(group, chosen)
        split = Split(train=_rows(~is_test), test=_rows(is_test))
        if labels is not None:
            require_classes(labels, split.train, num_classes, f"{where}, train")
            require_classes(labels, split.test, num_classes, f"{where}, test")
        out.append(split)
    return out


def _host_labels(labels, num_rows=None, num_classes=None) -> np.ndarray:
    labels = np.asarray(as_labels(labels))
    want = labels.size if num_rows is None else num_rows
    if labels.shape != (want,) or not want:
        raise ValueError(f"want labels [{num_rows or 'n'}], one per row; got shape {labels.shape}")
    if num_classes is None:
        num_classes = int(labels.max()) + 1 if labels.dtype.kind in "iu" else 1
    check_labels("labels", labels, num_classes)
    return labels


def _number_groups(groups, at_least: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sorted names of the groups, and each row's position in them."""
    groups = np.asarray(as_labels(groups, "groups"))
    if groups.ndim != 1 or groups.dtype.kind not in "biuUS":
        got = f"{groups.dtype}{list(groups.shape)}"
        raise ValueError(f"want groups [n] of integers or strings; got {got}")
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < at_least:
        raise ValueError(f"want at least {at_least} groups; got {len(names)}: {names}")
    return names, group


def _rows(mask: np.ndarray) -> Rows:
    return np.flatnonzero(mask).astype(np.int32)


def _shuffle(key, n: int) -> Rows:
    check_key(key)
    # NumPy, seeded by the key: jax would compile again for every n.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    return rng.permutation(n).astype(np.int32)


def _deal(shuffled: Rows, sizes: np.ndarray, kinds: np.ndarray) -> tuple[Rows, ...]:
    """Deals shuffled numbers into parts in proportion to the kinds; ascending within each part."""
    counts = np.unique(kinds, return_counts=True)[1]
    by_kind = shuffled[np.argsort(kinds[shuffled], kind="stable")]
    cells = np.split(by_kind, np.cumsum(nearest_table(counts, sizes))[:-1])  # kind by kind
    return tuple(np.sort(np.concatenate(cells[p :: len(sizes)])) for p in range(len(sizes)))


def _of_groups(strata, group: np.ndarray) -> np.ndarray:
    """Returns the stratum of each group, as a number."""
    if strata is None:
        return np.zeros(group.max() + 1, int)
    strata = np.asarray(strata)
    if strata.shape != group.shape:
        raise ValueError(f"want strata [{len(group)}], one per row; got shape {strata.shape}")
    kinds, first = np.unique(strata, return_inverse=True)[1], np.unique(group, return_index=True)[1]
    if (kinds != kinds[first][group]).any():
        raise ValueError("want groups of one stratum each; got a group with rows of two")
    return kinds[first]


def _cut(order: Rows, sizes: np.ndarray) -> tuple[Rows, ...]:
    return tuple(np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1]))
