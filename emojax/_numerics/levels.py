"""The levels of hyperalignment over blocks of subjects; `hyperalignment` is the way in.

Subjects come in blocks [g, n, v] of equal width. One block at a time is decomposed, its subjects in
parallel, so that whole brains fit in memory and small data keep all cores busy.
"""

import functools
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from emojax import procrustes
from emojax._numerics.checks import Array, as_float, check_finite, is_concrete, known
from emojax._numerics.polar import Method
from emojax._numerics.transforms import Chain, Components, prepare, principal_components, zscore
from emojax.procrustes import Mapping, Rows

BLOCK_BYTES = 2**26


class Options(NamedTuple):
    """The settings of a fit that new subjects are aligned with, too."""

    scaling: bool
    reflection: bool
    demean: bool
    zscore_common: bool
    zscore_all: bool
    alpha: float
    method: Method
    lowrank: bool | None


def blocks(data: Array | Sequence[Array]) -> tuple[list[jax.Array], bool]:
    """Checked subjects in blocks [g, n, v] that are worked on at once; do they form a stack?"""
    if not hasattr(data, "ndim") and len({x.shape for x in data}) == 1:
        data = jnp.stack([as_float(x) for x in data])
    stacked = hasattr(data, "ndim")
    if stacked:
        if data.ndim != 3 or not len(data):
            raise ValueError(f"want data [subjects, rows, voxels]; got shape {data.shape}")
        _check_shape([data.shape[1:]])
        size = BLOCK_BYTES // (data[0].size * data.dtype.itemsize)
        size = max(1, size) if is_concrete(data) else len(data)
        made = [as_float(data[i : i + size]) for i in range(0, len(data), size)]
    else:
        _check_shape([x.shape for x in data])
        made, size = [as_float(x)[None] for x in data], 1
    for i, block in enumerate(made):
        check_finite(f"data (subjects from {i * size})", block)
        if known(_all_vary, block) is False:
            raise ValueError(
                f"want voxels that vary in every subject; see subjects from {i * size}"
            )
    return made, stacked


_all_vary = jax.jit(lambda block: jax.vmap(procrustes.varies)(block).all())


def _check_shape(shapes):
    if any(len(shape) != 2 for shape in shapes) or not shapes:
        raise ValueError(
            f"want data [subjects, rows, voxels] or a list of [rows, voxels]; got {shapes}"
        )
    counts = {rows for rows, _ in shapes}
    if len(counts) > 1:
        raise ValueError(
            f"want as many rows in every subject; got {[rows for rows, _ in shapes]}: "
            "see alignment.match_rows"
        )
    if min(counts) < 2 or min(voxels for _, voxels in shapes) < 1:
        raise ValueError(f"want at least 2 rows and 1 voxel; got {shapes}")


@partial(jax.jit, static_argnames="options")
@jax.default_matmul_precision("highest")
def _prepare_block(block, options):
    def one(x):
        x, links = prepare(x, options.zscore_all, options.alpha)
        return procrustes.compress(x, options.demean), links

    return jax.vmap(one)(block)


def prepared(blocks: list[jax.Array], options: Options) -> tuple[list, list]:
    """Every block's rows, compressed, and the links that led to them."""
    pairs = [_prepare_block(block, options) for block in blocks]
    return [rows for rows, _ in pairs], [links for _, links in pairs]


def _align(source, target, options):
    return procrustes.align_rows(
        source,
        target,
        scaling=options.scaling,
        reflection=options.reflection,
        method=options.method,
    )


def _move_onto(source, target, options):
    """One subject's rows mapped onto a target [n, q], z-scored if asked."""
    target = procrustes.compress(target, options.demean)
    y = procrustes.moved_rows(source, *_align(source, target, options), target)
    return zscore(y)[0] if options.zscore_common else y


@partial(jax.jit, static_argnames=("share", "options"))
@jax.default_matmul_precision("highest")
def _level1_step(common, rows, i, count, share, options):
    """Maps subject i of a block onto the common space and mixes it in as number `count`."""
    y = _move_onto(jax.tree.map(lambda leaf: leaf[i], rows), common, options)
    residual = jnp.linalg.norm(y - common)
    w = jnp.asarray(count / (count + 1) if share is None else share, y.dtype)
    common = w * y + (1 - w) * common
    return (zscore(common)[0] if options.zscore_common else common), (y, residual)


@partial(jax.jit, static_argnames="options")
@jax.default_matmul_precision("highest")
def _start(rows, i, options):
    """The reference's rows as they came, and the common space that level 1 starts from."""
    start = procrustes.restore(jax.tree.map(lambda leaf: leaf[i], rows))
    as_is = options.zscore_all or not options.zscore_common
    return start, start if as_is else zscore(start)[0]


@partial(jax.jit, static_argnames="reference")
def _after_level1(steps, residuals, start, reference):
    """All subjects' rows [s, n, q] with the reference in its place, their mean, the residuals [s].

    The reference enters level 2 as it came, neither mapped nor z-scored.
    """
    mapped = jnp.stack([*steps[:reference], start, *steps[reference:]])
    zero = jnp.zeros_like(residuals[0])
    return mapped, mapped.mean(0), jnp.stack([*residuals[:reference], zero, *residuals[reference:]])


@partial(jax.jit, static_argnames="options")
@jax.default_matmul_precision("highest")
def _level2_block(rows, mapped, first, common, options):
    """Maps each subject of a block onto the mean of all others' previous versions."""
    total = len(mapped)
    previous = jax.lax.dynamic_slice_in_dim(mapped, first, len(rows.mean))

    def one(source, previous):
        others = (total * common - previous) / (total - 1)
        y = _move_onto(source, zscore(others)[0] if options.zscore_common else others, options)
        return y, jnp.linalg.norm(y - common)

    return jax.vmap(one)(rows, previous)


@jax.jit
def _after_level2(moved):
    mapped = jnp.concatenate([y for y, _ in moved])
    return mapped, mapped.mean(0), jnp.concatenate([residuals for _, residuals in moved])


@partial(jax.jit, static_argnames="options")
@jax.default_matmul_precision("highest")
def _finished(common, options):
    return zscore(common)[0] if options.zscore_common else common


def train(
    rows_blocks: list[Rows],
    reference: int,
    level2_iters: int,
    share: float | None,
    options: Options,
) -> tuple[jax.Array, jax.Array]:
    """Levels 1 and 2: the template [n, q] and the training residuals [1 + level2_iters, s]."""
    order = [(b, i) for b, rows in enumerate(rows_blocks) for i in range(len(rows.mean))]
    b, i = order.pop(reference)
    start, common = _start(rows_blocks[b], i, options)
    if not order:  # a single subject is its own common space
        return common, jnp.zeros((1 + level2_iters, 1), common.dtype)
    steps = _level1(rows_blocks, common, order, share, options)
    mapped, common, residuals = _after_level1(*steps, start, reference)
    history = [residuals]
    for _ in range(level2_iters):
        moved, first = [], 0
        for rows in rows_blocks:
            moved.append(_level2_block(rows, mapped, first, common, options))
            first += len(rows.mean)
        mapped, common, residuals = _after_level2(moved)
        history.append(residuals)
    return _finished(common, options), jnp.stack(history)


def _level1(rows_blocks, common, order, share, options):
    """Every subject but the reference in turn: mapped rows [n, q] and residual of each."""
    if is_concrete(common) or len(rows_blocks) > 1:
        # A loop on the host: XLA's CPU runs the body of a scan on one thread.
        out = []
        for count, (b, i) in enumerate(order, start=1):
            common, y = _level1_step(common, rows_blocks[b], i, count, share, options)
            out.append(y)
        return [y for y, _ in out], [residual for _, residual in out]

    def step(common, index):
        return _level1_step(common, rows_blocks[0], *index, share, options)

    subjects = jnp.asarray([i for _, i in order])
    steps = jax.lax.scan(step, common, (subjects, jnp.arange(1, len(order) + 1)))[1]
    return [list(each) for each in steps]


@partial(jax.jit, static_argnames=("lowrank", "options"))
@jax.default_matmul_precision("highest")
def _level3_block(rows, template, lowrank, options):
    """Each subject's map onto the template [n, q]; the sum of the mapped rows; residuals [g]."""
    target = procrustes.compress(template, options.demean)

    def one(source):
        core, scale = _align(source, target, options)
        y = procrustes.moved_rows(source, core, scale, target)
        if lowrank:
            fitted = procrustes.lowrank_map(source, core, scale, target)
        else:
            fitted = procrustes.dense_map(source, core, scale, target, options.reflection)
        return fitted, y, jnp.linalg.norm(y - template)

    fitted, moved, residuals = jax.vmap(one)(rows)
    return fitted, moved.sum(0), residuals


def level3(
    rows_blocks: list[Rows], template: jax.Array, options: Options
) -> tuple[list, jax.Array, jax.Array]:
    """Maps of every block onto the template, the sum of all mapped rows [n, q], residuals [s]."""
    n, q = template.shape
    out = []
    for rows in rows_blocks:
        lowrank = options.lowrank
        if lowrank is None:
            lowrank = min(rows.mean.shape[1], q) >= 2 * n
        out.append(_level3_block(rows, template, lowrank, options))
    fitted, moved, residuals = zip(*out, strict=True)
    residuals = residuals[0] if len(out) == 1 else jnp.concatenate(residuals)
    return list(fitted), functools.reduce(jnp.add, moved), residuals


reduce_to = jax.jit(principal_components, static_argnames="count")


def collected(
    fitted: list[Mapping], links: list[tuple], components: Components | None, stacked: bool
) -> Mapping | list[Mapping]:
    """Maps of all blocks as one stack, or a list where widths differ; in chains if links are on."""

    def wrapped(one, ends):
        if components is None and ends == (None, None):
            return one
        many = len(one)
        last = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (many, *leaf.shape)), components)
        return Chain(*ends, one, last)

    whole = [wrapped(*pair) for pair in zip(fitted, links, strict=True)]
    if not stacked:
        return [block[0] for block in whole]
    return whole[0] if len(whole) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *whole)
