"""Subjects of a hyperalignment: their settings, checks, and compressed rows in blocks.

Subjects are in blocks [g, n, v] of equal width. Blocks are decomposed one at a time, their subjects
in parallel, so that whole brains fit in memory and small data keep all cores busy.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax._numerics.checks import Array, as_array, as_float, check_finite, is_concrete, known
from emojax._numerics.order import waited
from emojax._numerics.polar import Method
from emojax._numerics.rows import Rows, compress, restore, varies
from emojax._numerics.transforms import prepare

BLOCK_BYTES = 2**26


class Options(NamedTuple):
    """Settings of a hyperalignment that also apply to new subjects; defaults are PyMVPA's.

    See `hyperalignment.fit` for each of them.
    """

    scaling: bool = True
    reflection: bool = True
    demean: bool = True
    zscore_common: bool = True
    zscore_all: bool = False
    alpha: float = 1.0
    method: Method = "svd"
    lowrank: bool | None = None

    @property
    def of_rotation(self) -> dict[str, Any]:
        """Keyword arguments of `procrustes.align_rows`."""
        return {
            "scaling": self.scaling,
            "reflection": self.reflection,
            "method": self.method,
        }


@dataclasses.dataclass(frozen=True)
class Subjects:
    """The compressed rows of all subjects, in blocks [g, ...] of equal width."""

    blocks: list[Rows]
    links: list[tuple]  # for each block: the links that led to its rows
    stacked: bool  # whether the subjects came as one array, and their maps leave as one stack

    @property
    def places(self) -> list[tuple[int, int]]:
        """Block of every subject and index within it."""
        return [(b, i) for b, rows in enumerate(self.blocks) for i in range(len(rows.mean))]

    @property
    def widths(self) -> list[int]:
        """Number of voxels of every subject."""
        return [self.blocks[b].mean.shape[1] for b, _ in self.places]

    @property
    def num_rows(self) -> int:
        """Number of rows of each subject."""
        return self.blocks[0].left.shape[1]

    def __len__(self) -> int:
        """Returns the number of subjects."""
        return len(self.places)

    def restore(self, index: int) -> Float[jax.Array, "n v"]:
        """Returns one subject's rows as they were compressed."""
        b, i = self.places[index]
        return _restore(self.blocks[b], i)


def compress_subjects(data: Array | Sequence[Array], options: Options) -> Subjects:
    """Checks subjects, z-scores and whitens them if requested, and compresses their rows.

    Raises:
      ValueError: data are not subjects of equal row count (>= 2), contain values that are not
        finite or a subject without a varying voxel.
    """
    blocks, stacked = _split(data)
    pairs = [waited(_compress_block(block, options)) for block in blocks]
    return Subjects([rows for rows, _ in pairs], [links for _, links in pairs], stacked)


def choose_rows(
    template: Float[Array, "n q"], rows: Int[Array, " r"] | None, count: int
) -> Float[Array, "_ q"]:
    """Returns the template's rows that the `count` rows of the data correspond to.

    Raises:
      ValueError: a wrong number of rows, or a row that the template does not have.
    """
    want = len(template) if rows is None else len(rows)
    if count != want:
        raise ValueError(f"want data with {want} rows, as the template; got {count}")
    if rows is None:
        return template
    if is_concrete(rows):
        low, high = np.asarray(rows).min(), np.asarray(rows).max()
        if low < 0 or high >= len(template):
            raise ValueError(f"want rows in [0, {len(template)}); got {low} to {high}")
    return template[jnp.asarray(rows)]


def check_settings(
    subjects: int,
    reference: int | None,
    level2_iters: int,
    weight: float,
    output_dim: int | None,
    options: Options,
) -> None:
    """Raises ValueError if a setting of `hyperalignment.fit` lies outside its range."""
    if reference is not None and not 0 <= reference < subjects:
        raise ValueError(f"want reference in [0, {subjects}); got {reference}")
    if level2_iters < 0:
        raise ValueError(f"want level2_iters >= 0; got {level2_iters}")
    if not 0 <= options.alpha <= 1:
        raise ValueError(f"want alpha in [0, 1]; got {options.alpha}")
    if not 0 <= weight <= 1:
        raise ValueError(f"want weight in [0, 1]; got {weight}")
    if output_dim is not None and output_dim < 1:
        raise ValueError(f"want output_dim >= 1; got {output_dim}")
    if options.method not in get_args(Method):
        raise ValueError(f"want method in {get_args(Method)}; got {options.method!r}")


def _split(data: Any) -> tuple[list[jax.Array], bool]:
    """Checks subjects; returns them in blocks [g, n, v], and whether they form one stack."""
    subjects, stack = [], None
    if isinstance(data, list | tuple):
        subjects = [as_array(x, f"data[{i}]") for i, x in enumerate(data)]
        if len({x.shape for x in subjects}) == 1:
            stack = jnp.stack([as_float(x) for x in subjects])
    else:  # an array on disk stays there and is read block by block
        stack = data if hasattr(data, "dtype") else as_array(data, "data")
    if stack is not None:
        if stack.ndim != 3 or not len(stack):
            raise ValueError(f"want data [subjects, rows, voxels]; got shape {stack.shape}")
        _check_shapes([stack.shape[1:]])
        size = BLOCK_BYTES // (stack[0].size * stack.dtype.itemsize)
        size = max(1, size) if is_concrete(stack) else len(stack)
        blocks = [as_float(stack[i : i + size]) for i in range(0, len(stack), size)]
    else:
        _check_shapes([x.shape for x in subjects])
        blocks, size = [as_float(x)[None] for x in subjects], 1
    for i, block in enumerate(blocks):
        check_finite(f"data (subjects from {i * size})", block)
        if known(_all_vary, block) is False:
            raise ValueError(
                f"want voxels that vary in every subject; see subjects from {i * size}"
            )
    return blocks, stack is not None


def _check_shapes(shapes):
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


_all_vary = jax.jit(lambda block: jax.vmap(varies)(block).all())


@partial(jax.jit, static_argnames="options")
@jax.default_matmul_precision("highest")
def _compress_block(block, options):
    def one(x):
        x, links = prepare(x, options.zscore_all, options.alpha)
        return compress(x, options.demean, options.reflection), links

    return jax.vmap(one)(block)


@jax.jit
@jax.default_matmul_precision("highest")
def _restore(rows, i):
    return restore(jax.tree.map(lambda leaf: leaf[i], rows))
