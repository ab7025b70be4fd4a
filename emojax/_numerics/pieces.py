"""Parcels of voxels in batches of equal width, and maps that move each parcel on its own."""

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from emojax._numerics.checks import Array, is_concrete
from emojax._numerics.maps import Mapping

STEPS = 4  # sizes per octave: at most 1 / 4 padding, and few programs to compile


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Parcels grouped by padded width; parcels of one bucket go through one program."""

    labels: Int[np.ndarray, " v"]
    num_rows: int
    names: Int[np.ndarray, " k"]  # label of each parcel, in order of the buckets
    buckets: tuple[Int[np.ndarray, "_ _"], ...]  # voxels of each parcel, padded with v
    is_outside: Bool[np.ndarray, " v"]  # voxels in no parcel

    @functools.cached_property
    def key(self) -> tuple:
        """Key that equal layouts share, and with it compiled programs."""
        own = ((bucket.shape, bucket.tobytes()) for bucket in self.buckets)
        return self.num_rows, len(self.labels), self.names.tobytes(), *own

    def __eq__(self, other) -> bool:
        return isinstance(other, Layout) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def slices(self) -> list[slice]:
        """Positions in `names` of the parcels of each bucket."""
        ends = np.cumsum([0, *map(len, self.buckets)]).tolist()
        return [slice(*pair) for pair in itertools.pairwise(ends)]

    @property
    def sizes(self) -> Int[np.ndarray, " k"]:
        """Number of voxels of each parcel, in order of `names`."""
        return np.concatenate([(own < len(self.labels)).sum(1) for own in self.buckets])

    def spread(self, per_parcel: Shaped[Array, "*s k"]) -> Shaped[Array, "*s v"]:
        """Gives each voxel its parcel's value, and 0 outside parcels."""
        place = np.full(len(self.labels) + 1, len(self.names))
        for own, part in zip(self.buckets, self.slices, strict=True):
            place[own] = np.arange(part.start, part.stop)[:, None]
        xp = np if isinstance(per_parcel, np.ndarray) else jnp
        none = xp.zeros((*per_parcel.shape[:-1], 1), per_parcel.dtype)
        return xp.concatenate([per_parcel, none], -1)[..., place[:-1]]


def lay_out(labels: Int[np.ndarray, " v"], num_rows: int, background: int | None) -> Layout:
    """Sorts parcels into buckets of padded width.

    Parcels of more than `num_rows` voxels are never in one bucket with smaller ones: their maps
    have another representation, which padding must not change.

    Args:
      labels: [v] int, the parcel of each voxel.
      num_rows: number of rows that parcels are aligned by.
      background: label of voxels in no parcel, besides negative ones; None: only negative ones.

    Raises:
      ValueError: labels are not a vector of integers, or no voxel is in a parcel.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"want integer labels [v]; got {labels.dtype} {labels.shape}")
    is_outside = (labels < 0) | (labels == background)
    inside = np.flatnonzero(~is_outside)
    if not len(inside):
        raise ValueError(f"want voxels in parcels; all {len(labels)} are background")
    order = inside[np.argsort(labels[inside], kind="stable")]
    names, starts = np.unique(labels[order], return_index=True)
    parcels = np.split(order, starts[1:])
    widths = np.array([_padded(len(own), num_rows) for own in parcels])
    buckets, of_buckets = [], []
    for width in np.unique(widths):
        places = np.flatnonzero(widths == width)
        bucket = np.full((len(places), width), len(labels))
        for row, place in zip(bucket, places, strict=True):
            row[: len(parcels[place])] = parcels[place]
        buckets.append(bucket)
        of_buckets.append(names[places])
    return Layout(labels, num_rows, np.concatenate(of_buckets), tuple(buckets), is_outside)


def rounded(size: int) -> int:
    """Rounds a size up to one of `STEPS` per octave; sizes up to 32 become 8, 16 or 32."""
    if size <= 32:
        return max(8, 1 << (size - 1).bit_length())
    step = 2 ** (size.bit_length() - 1) // STEPS
    return -(-size // step) * step


def _padded(size: int, num_rows: int) -> int:
    """Returns the padded width of a parcel, on the same side of `num_rows`."""
    return min(rounded(size), num_rows) if size <= num_rows else rounded(size)


class Linear(NamedTuple):
    """A ridge map x -> (x - source_mean) @ left @ right + target_mean."""

    left: Float[Array, "*stack p r"]
    right: Float[Array, "*stack r q"] | None  # None: the identity
    source_mean: Float[Array, "*stack p"]
    target_mean: Float[Array, "*stack q"]

    def forward(self, x: Float[Array, "t p"]) -> Float[Array, "t q"]:
        """Applies the map to rows."""
        y = (x - self.source_mean) @ self.left
        return (y if self.right is None else y @ self.right) + self.target_mean


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PiecewiseMapping(Mapping):
    """A map that moves each parcel on its own, or a stack of such maps over subjects."""

    parts: tuple[Any, ...]  # for each bucket: maps of its parcels, stacked [*stack, k]
    moves: Bool[Array, "*stack v"]  # False: the voxel is left as it is
    layout: Layout = dataclasses.field(metadata={"static": True})

    @property
    def stack(self) -> tuple[int, ...]:
        """Shape of the stack; () for a single map."""
        return self.moves.shape[:-1]

    @property
    def widths(self) -> tuple[int, int]:
        """Numbers of input and output voxels."""
        return self.moves.shape[-1], self.moves.shape[-1]

    def forward(self, x: Float[Array, "t v"]) -> Float[Array, "t v"]:
        """Moves rows of the source's space into the template's, parcel by parcel."""
        return self._apply(x, "forward")

    def reverse(self, y: Float[Array, "t v"]) -> Float[Array, "t v"]:
        """Moves rows of the template's space into the source's, parcel by parcel.

        Raises:
          ValueError: the maps are ridge regressions, which cannot be undone.
        """
        if any(isinstance(part, Linear) for part in self.parts):
            raise ValueError("ridge maps have no inverse; want method='procrustes' or 'identity'")
        return self._apply(y, "reverse")

    def _apply(self, x, way: str):
        if not self.parts:
            return x
        rows = x.shape[:-1]
        x = x.reshape(-1, x.shape[-1])
        on_host = jax.default_backend() == "cpu" and is_concrete(x, self.moves)
        moved = (self._on_host if on_host else self._in_batches)(x, way)
        xp = np if on_host else jnp
        return jnp.asarray(xp.where(self.moves, moved, x).reshape(*rows, -1))

    def _on_host(self, x, way: str) -> np.ndarray:
        """Maps parcel by parcel, without compiling a program for each layout."""
        x = np.asarray(x)
        y, size = x.copy(), x.shape[1]
        for part, bucket in zip(self.parts, self.layout.buckets, strict=True):
            part = jax.tree.map(np.asarray, part)
            for i, own in enumerate(bucket):
                taken = np.where(own < size, x[:, np.minimum(own, size - 1)], 0)
                moved = getattr(jax.tree.map(lambda leaf, i=i: leaf[i], part), way)(taken)
                y[:, own[own < size]] = moved[:, own < size]
        return y

    def _in_batches(self, x, way: str) -> jax.Array:
        columns = jnp.concatenate([x.T, jnp.zeros((1, len(x)), x.dtype)])  # the last is padding
        y = columns
        for part, own in zip(self.parts, self.layout.buckets, strict=True):
            taken = jnp.swapaxes(columns[own], 1, 2)  # [k, t, p]
            moved = jax.vmap(lambda part, x: getattr(part, way)(x))(part, taken)
            y = y.at[own].set(jnp.swapaxes(moved, 1, 2).astype(y.dtype))
        return y[:-1].T
