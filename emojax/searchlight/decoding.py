"""Searchlight decoding in closed form, in the sphere around every voxel.

Spheres are padded to one size and go through one compiled program in chunks. Each is decomposed
once: folds remove their held-out rows by a downdate, and labellings (the observed one and its
permutations) enter as right-hand sides.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax._numerics import downdates, within
from emojax._numerics.checks import Array, as_float, check_finite, check_labels
from emojax._numerics.spheres import Spheres

Classifier = Literal["lda", "ridge"]
CHUNK_BYTES = 2**25  # size of one array of a chunk of spheres
LABELLINGS = 64  # number decoded at a time


class Decoded(NamedTuple):
    """Accuracies of every sphere; axis p only if y has it."""

    balanced: Float[np.ndarray, "*p c"]  # mean over folds of the mean recall of the fold's classes
    accuracy: Float[np.ndarray, "*p c"]  # mean over folds
    folds: Float[np.ndarray, "*p c f"] | None  # balanced accuracy of each fold, if requested
    scores: Float[np.ndarray, "*p c f t q"] | None  # of tested rows, in order, padded with NaN


def decode(
    x: Float[Array, "n v"],
    y: Int[Array, "*p n"],
    folds: Sequence[tuple[Int[Array, "_"], Int[Array, "_"]]],
    spheres: Spheres,
    *,
    classifier: Classifier = "lda",
    alpha: float = 1.0,
    shrinkage: float = 0.1,
    equal_priors: bool = False,
    num_classes: int | None = None,
    per_fold: bool = True,
    with_scores: bool = False,
    tick: Callable[[int], Any] = lambda done: None,
) -> Decoded:
    """Decodes classes in every sphere, fold by fold.

    The results equal, up to rounding, a refit of scikit-learn's `RidgeClassifier(alpha)` or
    `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)` for every fold and sphere.

    Args:
      x: [n, v] float, voxels of the mask (C order); float64 is computed in float64.
      y: [n] or [p, n] int, classes from 0: one labelling or p labellings of the same rows, which
        share all work that does not depend on labels.
      folds: (train, test) row indices; a row may be in no fold.
      spheres: result of `searchlight.spheres`.
      classifier: "lda" or "ridge" (regression onto -1 and 1, one against the rest).
      alpha: penalty of "ridge", > 0, in squared units of x.
      shrinkage: for "lda", in (0, 1]: weight of the mean variance in the pooled covariance.
      equal_priors: for "lda": whether classes have equal priors; default: their training frequency.
      num_classes: number of classes; default: one more than the largest of y.
      per_fold: whether to return the accuracies of each fold.
      with_scores: whether to return decision values: one column for two classes (> 0 is class 1),
        else one per class.
      tick: called with the number of spheres just done.

    Raises:
      ValueError: shapes or rows that do not fit, values that are not finite, a setting out of
        range, or a fold that trains without one of the classes.

    References:
      Kriegeskorte et al., Information-based functional brain mapping, PNAS 2006. Cook and
      Weisberg, Residuals and influence in regression, 1982 (deletion of rows).
    """
    x, labels = as_float(x), np.atleast_2d(np.asarray(y))
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"want integer y; got dtype {labels.dtype}")
    _check(x, labels, spheres, classifier, alpha, shrinkage)
    classes = int(labels.max()) + 1 if num_classes is None else num_classes
    check_labels("y", labels, classes)
    layout = downdates.plan(folds, len(x))
    labels = labels[:, layout.rows]
    _check_classes(labels, layout, classes)
    settings = classifier, float(alpha), float(shrinkage), equal_priors, classes
    task = _Task(*settings, many=len(labels) > downdates.FEW)
    columns = _columns(x, layout.rows)
    blocks = [labels[i : i + LABELLINGS] for i in range(0, len(labels), LABELLINGS)]
    size = _chunk(spheres, layout, len(blocks[0]), task, x.dtype.itemsize)
    parts = []
    for first in range(0, len(spheres), size):
        last = min(first + size, len(spheres))
        here = np.minimum(np.arange(first, first + size), last - 1)  # chunks of one shape
        made = _decompose(columns, spheres.indices[here], spheres.counts[here], layout.out, task)
        found = (_score(made, block, layout.out, layout.test, task) for block in blocks)
        own = [_keep(part, last - first, per_fold, with_scores) for part in found]
        parts.append([_join(own, 0) for own in zip(*own, strict=True)])
        tick(last - first)
    joined: list[Any] = [_join(own, 1) for own in zip(*parts, strict=True)]
    if np.ndim(y) == 1:
        joined = [None if own is None else own[0] for own in joined]
    return Decoded(*joined)


class _Task(NamedTuple):
    """Static settings of a program."""

    classifier: Classifier
    alpha: float
    shrinkage: float
    equal_priors: bool
    classes: int
    many: bool  # whether "lda" has many labellings, and works in principal axes


def _columns(x: jax.Array, rows) -> Float[jax.Array, "v n"]:
    """Returns centred voxels x rows, with a last voxel of zeros that pads spheres."""
    x = x[rows]
    x = x - x.mean(0)
    x = x - x.mean(0)  # float32 rounds the first mean
    return jnp.concatenate([x.T, jnp.zeros((1, len(x)), x.dtype)])


@partial(jax.jit, static_argnames="task")
@jax.default_matmul_precision("highest")
def _decompose(columns, indices, counts, out, task):
    def one(index, count):
        x = downdates.compress(columns[index])
        if task.classifier == "ridge":
            return downdates.ridge(x, out, task.alpha)
        if task.many:
            return downdates.scatter(x, count, out)
        return within.Voxels(x, count.astype(x.dtype))

    return jax.vmap(one)(indices, counts)


@partial(jax.jit, static_argnames="task")
@jax.default_matmul_precision("highest")
def _score(made, labels, out, test, task):
    """Returns balanced accuracy [p, c, f], accuracy, and scores [p, c, f, t, q]."""
    dtype = jax.tree.leaves(made)[0].dtype
    count, most = len(labels), test.shape[1]
    member = jax.nn.one_hot(labels.T, task.classes, dtype=dtype)  # [n, p, q]
    truth = labels.T.at[test].get(mode="fill", fill_value=-1)  # [f, t, p]

    def one(made):
        if task.classifier == "ridge":
            target = 2 * (member[..., 1:] if task.classes == 2 else member) - 1
            target = target.reshape(len(target), -1)
            scores = downdates.ridge_scores(made, target, out, most)
            return scores.reshape(*scores.shape[:2], count, -1)
        settings = out, most, task.shrinkage, task.equal_priors
        if task.many:
            return downdates.lda_scores(made, member, *settings)
        each = partial(within.lda_scores, made)
        return jax.vmap(lambda own: each(own, *settings), 1, 2)(member)

    scores = jnp.moveaxis(jax.vmap(one)(made), 3, 0)  # [p, c, f, t, q]
    named = scores.argmax(-1) if task.classes > 2 else (scores[..., 0] > 0).astype(int)
    right = (named == jnp.moveaxis(truth, 2, 0)[:, None]).astype(dtype)  # [p, c, f, t]
    same = jax.nn.one_hot(truth, task.classes, dtype=dtype)  # [f, t, p, q]
    recall = (same / jnp.maximum(same.sum(1, keepdims=True), 1)).sum(3)
    recall /= (same.sum(1) > 0).sum(-1)[:, None]
    tested = (truth >= 0) / (truth >= 0).sum(1, keepdims=True)
    balanced, accuracy = (
        jnp.einsum("pcft,ftp->pcf", right, w.astype(dtype)) for w in (recall, tested)
    )
    return (
        balanced,
        accuracy,
        jnp.where(jnp.moveaxis(truth, 2, 0)[:, None, ..., None] >= 0, scores, jnp.nan),
    )


def _keep(part, real: int, per_fold: bool, with_scores: bool) -> list:
    """Returns mean balanced accuracy, mean accuracy, balanced accuracy by fold, and scores."""
    balanced, accuracy, scores = (own[:, :real] for own in part)
    kept = [balanced.mean(2), accuracy.mean(2)]
    kept += [balanced if per_fold else None, scores if with_scores else None]
    return [None if own is None else np.asarray(own) for own in kept]


def _join(parts: Sequence, axis: int):
    return None if parts[0] is None else np.concatenate(parts, axis)


def _chunk(spheres: Spheres, layout: downdates.Folds, labellings: int, task: _Task, item: int):
    """Returns the number of spheres for which no array exceeds `CHUNK_BYTES`."""
    (f, r), n, k = layout.out.shape, len(layout.rows), spheres.indices.shape[1]
    inner = min(k, n)
    own = max(n * k, f * inner * (r + inner))
    each = max(f * inner, f * r, n) * task.classes
    if task.classifier == "lda" and not task.many:
        each = max(each, f * inner**2)
    return int(np.clip(CHUNK_BYTES / (item * max(own, labellings * each)), 1, len(spheres)))


def _check(x, labels, spheres: Spheres, classifier, alpha, shrinkage) -> None:
    if x.ndim != 2 or x.shape[1] != spheres.num_voxels:
        raise ValueError(f"want x [n, {spheres.num_voxels}], as the mask; got shape {x.shape}")
    if labels.ndim != 2 or labels.shape[1] != len(x) or not labels.size:
        raise ValueError(f"want y [{len(x)}] or [p >= 1, {len(x)}]; got shape {labels.shape}")
    if classifier not in get_args(Classifier):
        raise ValueError(f"want classifier in {get_args(Classifier)}; got {classifier!r}")
    if not alpha > 0:
        raise ValueError(f"want alpha > 0; got {alpha}")
    if not 0 < shrinkage <= 1:
        raise ValueError(f"want shrinkage in (0, 1]; got {shrinkage}")
    check_finite("x", x)


def _check_classes(labels, layout: downdates.Folds, classes: int) -> None:
    if classes < 2:
        raise ValueError(f"want at least 2 classes; got {classes}")
    member = labels[:, None] == np.arange(classes)[:, None]  # [p, q, n]
    trains = np.einsum("pqn,fn->fpq", member.astype(int), layout.train.astype(int))
    if (trains == 0).any():
        fold, labelling, own = np.argwhere(trains == 0)[0]
        raise ValueError(
            f"fold {fold} trains without class {own} (labelling {labelling}); want every class "
            "among the training rows of every fold"
        )
