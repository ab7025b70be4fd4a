"""Loops over the subjects of a hyperalignment, one after another or block by block.

The steps are functions of a single subject, defined in `hyperalignment`.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from emojax._numerics.checks import is_concrete
from emojax._numerics.order import waited
from emojax._numerics.subjects import Options, Subjects
from emojax._numerics.transforms import Components, ComposedMapping, Mappings


def scan_subjects(
    step: Callable, carry: jax.Array, subjects: Subjects, order: list[int], settings: Hashable
) -> list:
    """Applies a step to subjects in turn: step(carry, source, count, settings) -> (carry, out).

    Args:
      step: module-level function, compiled once; `count` starts at 1.
      carry: array that each step hands to the next.
      subjects: all subjects.
      order: indices of the subjects to visit.
      settings: static arguments of the step.

    Returns:
      The `out` of each step.
    """
    places = [subjects.places[i] for i in order]
    if is_concrete(carry) or len(subjects.blocks) > 1:
        # A loop on the host, as XLA on CPUs runs the body of a scan on one thread.
        outs = []
        for count, (b, i) in enumerate(places, start=1):
            carry, out = _step_one(step, carry, subjects.blocks[b], i, count, settings)
            outs.append(out)
        return outs

    def body(carry, index):
        return _step_one(step, carry, subjects.blocks[0], *index, settings)

    indices = jnp.asarray([i for _, i in places]), jnp.arange(1, len(places) + 1)
    stacked = jax.lax.scan(body, carry, indices)[1]
    return [_take(stacked, i) for i in range(len(places))]


def map_subjects(
    step: Callable,
    subjects: Subjects,
    own: Any,
    shared: Any,
    settings: Hashable,
) -> tuple[list, Any]:
    """Applies a step to all subjects: step(source, own, shared, settings) -> (kept, added).

    Args:
      step: module-level function, compiled once for each shape of a block.
      subjects: all subjects.
      own: [s, ...], of which each step gets its subject's entry; or None.
      shared: pytree of arrays that all steps get.
      settings: static arguments of the step.

    Returns:
      The `kept` of each block, stacked; and the sum of `added` over all subjects, a pytree (None
      adds nothing).
    """
    blocks: list[Any] = []
    total: Any = None
    first = 0
    for rows in subjects.blocks:
        kept, added = waited(_step_block(step, rows, own, first, shared, settings))
        blocks.append(kept)
        total = added if total is None else jax.tree.map(jnp.add, total, added)
        first += len(rows.mean)
    return blocks, total


@partial(jax.jit, static_argnames="put")
def pool(
    parts: Sequence[tuple[jax.Array, jax.Array]], put: Callable
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Joins the mapped rows and the residuals of all subjects.

    Args:
      parts: (mapped rows, residual) of single subjects, or of blocks.
      put: jnp.stack for single subjects, jnp.concatenate for blocks.

    Returns:
      Mapped rows [s, n, q], their mean over subjects [n, q], and residuals [s].
    """
    mapped = put([y for y, _ in parts])
    return mapped, mapped.mean(0), put([residual for _, residual in parts])


@partial(jax.jit, static_argnames=("function", "options"))
@jax.default_matmul_precision("highest")
def run_compiled(function: Callable, x: jax.Array, options: Options) -> jax.Array:
    """Computes function(x, options) as one program."""
    return function(x, options)


def join(blocks: Sequence[Any]) -> Any:
    """Concatenates the arrays of pytrees, one for each block, along subjects."""
    if len(blocks) == 1:
        return blocks[0]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *blocks)


def compose_maps(
    subjects: Subjects, fitted: list, components: Components | None
) -> Mappings | list[Mappings]:
    """Composes the rotations of all blocks with links and components, if any.

    Returns:
      One stack of maps, or a list if widths differ.
    """

    def compose(rotation, links):
        if components is None and links == (None, None):
            return rotation
        many = len(rotation)
        last = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (many, *leaf.shape)), components)
        return ComposedMapping(links[0], links[1], rotation, last)

    whole = [compose(*pair) for pair in zip(fitted, subjects.links, strict=True)]
    return join(whole) if subjects.stacked else [block[0] for block in whole]


def _take(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


@partial(jax.jit, static_argnames=("step", "settings"))
@jax.default_matmul_precision("highest")
def _step_one(step, carry, rows, i, count, settings):
    return step(carry, _take(rows, i), count, settings)


@partial(jax.jit, static_argnames=("step", "settings"))
@jax.default_matmul_precision("highest")
def _step_block(step, rows, own, first, shared, settings):
    if own is not None:
        own = jax.lax.dynamic_slice_in_dim(own, first, len(rows.mean))
    kept, added = jax.vmap(lambda source, own: step(source, own, shared, settings))(rows, own)
    return kept, jax.tree.map(lambda leaf: leaf.sum(0), added)
