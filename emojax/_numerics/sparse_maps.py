"""Maps between nearby voxels of one grid, as sparse matrices that share a pattern."""

import dataclasses

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from emojax._numerics.spheres import Spheres

KEYS = 2**24  # pairs of voxels that are sorted at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern:
    """Pairs of voxels that have an entry, ordered by source and target: a CSR pattern."""

    starts: Int[np.ndarray, " v+1"]  # first entry of each source
    targets: Int[np.ndarray, " e"]
    keys: Int[np.ndarray, " e"]  # source * v + target

    def places(
        self, sources: Int[np.ndarray, "*b"], targets: Int[np.ndarray, "*b"]
    ) -> Int[np.ndarray, "*b"]:
        """Returns the index of each pair's entry."""
        return np.searchsorted(self.keys, _keys(sources, targets, len(self.starts) - 1))


@dataclasses.dataclass(frozen=True, eq=False)
class SparseMaps:
    """Maps x -> (x - mean) @ M of all subjects, where all M share one pattern."""

    values: Float[np.ndarray, "s e"]
    mean: Float[np.ndarray, "s v"]
    pattern: Pattern

    def __len__(self) -> int:
        """Returns the number of subjects."""
        return len(self.values)

    def matrix(self, subject: int) -> scipy.sparse.csr_array:
        """Returns a subject's map, [voxels, dimensions of the common space]."""
        own, v = self.pattern, self.mean.shape[1]
        return scipy.sparse.csr_array((self.values[subject], own.targets, own.starts), (v, v))

    def forward(self, subject: int, x: Float[np.ndarray, "t v"]) -> Float[np.ndarray, "t v"]:
        """Maps rows of a subject into the common space."""
        return (self.matrix(subject).T @ (x - self.mean[subject]).T).T

    def reverse(self, subject: int, y: Float[np.ndarray, "t v"]) -> Float[np.ndarray, "t v"]:
        """Maps rows of the common space back to a subject by the transposed map."""
        return (self.matrix(subject) @ y.T).T + self.mean[subject]


def pattern(spheres: Spheres, centres_only: bool) -> Pattern:
    """Finds the pairs of voxels that share a sphere.

    Args:
      spheres: spheres over v voxels.
      centres_only: whether targets are the spheres' centres alone.
    """
    v, width = spheres.num_voxels, spheres.indices.shape[1]
    size = max(1, KEYS // (width if centres_only else width**2))
    found = np.zeros(0, np.int64)
    for first in range(0, len(spheres), size):
        part = spheres.take(np.arange(first, min(first + size, len(spheres))), width)
        new = _keys(*pairs(part, centres_only), v)
        found = np.unique(np.concatenate([found, new.ravel()]))
    found = found[found < np.int64(v) * v]  # without padding
    sources, targets = np.divmod(found, v)
    starts = np.searchsorted(sources, np.arange(v + 1))
    return Pattern(starts, targets.astype(np.int32), found)


def pairs(
    spheres: Spheres, centres_only: bool
) -> tuple[Int[np.ndarray, "b k _"], Int[np.ndarray, "b k _"]]:
    """Returns the sources and targets of the maps of spheres."""
    targets = spheres.centres[:, None] if centres_only else spheres.indices
    sources, targets = np.broadcast_arrays(spheres.indices[:, :, None], targets[:, None, :])
    return sources, targets


def _keys(sources, targets, v: int) -> Int[np.ndarray, "*b"]:
    """Returns one number for each pair; pairs with padding have the largest."""
    keys = sources.astype(np.int64) * v + targets
    return np.where((sources < v) & (targets < v), keys, np.int64(v) * v)
