"""Maps between voxel spaces: the rotation of a Procrustes fit, dense or as two thin factors."""

import abc
import dataclasses
from collections.abc import Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float

from emojax._numerics.checks import Array

AnyMapping = TypeVar("AnyMapping", bound="Mapping")


class Mapping(abc.ABC):
    """A map from one voxel space into another, or a stack of maps: `mapping[i]` is map i of it."""

    @property
    @abc.abstractmethod
    def stack(self) -> tuple[int, ...]:
        """Shape of the stack; () for a single map."""

    @property
    @abc.abstractmethod
    def widths(self) -> tuple[int, int]:
        """Numbers of input voxels and output dimensions."""

    @abc.abstractmethod
    def forward(self, x: Float[Array, "t p"]) -> Float[Array, "t q"]:
        """Maps rows of the source's space into the target's; see `procrustes.transform`."""

    @abc.abstractmethod
    def reverse(self, y: Float[Array, "t q"]) -> Float[Array, "t p"]:
        """Maps rows of the target's space into the source's; see `procrustes.inverse`."""

    def __getitem__(self: AnyMapping, index) -> AnyMapping:
        return jax.tree.map(lambda leaf: leaf[index], self)

    def __len__(self) -> int:
        """Returns the number of maps in a stack."""
        if not self.stack:
            raise TypeError("a single map has no length; a stack of maps has")
        return self.stack[0]

    def __iter__(self: AnyMapping) -> Iterator[AnyMapping]:
        return (self[i] for i in range(len(self)))


class _Rotation(Mapping):
    """A map x -> scale * (x - source_mean) @ rotation + target_mean, in any representation."""

    scale: Float[Array, "*stack"]
    source_mean: Float[Array, "*stack p"]
    target_mean: Float[Array, "*stack q"]

    @property
    def stack(self) -> tuple[int, ...]:
        """Shape of the stack; () for a single map."""
        return self.scale.shape

    @property
    def widths(self) -> tuple[int, int]:
        """Numbers of input voxels and output dimensions."""
        return self.source_mean.shape[-1], self.target_mean.shape[-1]

    def forward(self, x: Float[Array, "t p"]) -> Float[Array, "t q"]:
        """Maps rows of the source's space into the target's; see `procrustes.transform`."""
        return self._rotate(x - self.source_mean) * self.scale + self.target_mean

    def reverse(self, y: Float[Array, "t q"]) -> Float[Array, "t p"]:
        """Maps rows of the target's space into the source's; see `procrustes.inverse`."""
        return self._rotate_back((y - self.target_mean) / self.scale) + self.source_mean

    @abc.abstractmethod
    def _rotate(self, x) -> jax.Array:
        """Computes x @ rotation."""

    @abc.abstractmethod
    def _rotate_back(self, y) -> jax.Array:
        """Computes y @ rotation.T."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Procrustes(_Rotation):
    """A fitted map x -> scale * (x - source_mean) @ rotation + target_mean.

    Stacked along a leading axis (as by `jax.vmap`), it is a set of maps.
    """

    rotation: Float[Array, "*stack p q"]  # orthonormal rows or columns; orthogonal where p == q
    scale: Float[Array, "*stack"]  # 1 if fitted with scaling=False
    source_mean: Float[Array, "*stack p"]  # zeros if fitted with demean=False
    target_mean: Float[Array, "*stack q"]

    @property
    def projection(self) -> Float[Array, "*stack p q"]:
        """[p, q]: scale * rotation, the matrix that centred rows are multiplied by."""
        return self.scale[..., None, None] * self.rotation

    def _rotate(self, x):
        return x @ self.rotation

    def _rotate_back(self, y):
        return y @ self.rotation.T


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRankProcrustes(_Rotation):
    """A `Procrustes` whose rotation, left @ right.T, is kept as two thin factors.

    The rotation has the rank r of the fitted rows: it maps the span of the source's rows onto that
    of the target's and drops the rest, about which the data say nothing. (A dense fit rotates the
    rest to an arbitrary place. If rows have a lower rank than n - 1, as after centring within runs,
    both do so within the span of rounding noise. Fitted rows are not affected.) `rotation` and
    `projection` form the p x q matrix.
    """

    left: Float[Array, "*stack p r"]
    right: Float[Array, "*stack q r"]
    scale: Float[Array, "*stack"]
    source_mean: Float[Array, "*stack p"]
    target_mean: Float[Array, "*stack q"]

    @property
    def rotation(self) -> Float[Array, "*stack p q"]:
        """[p, q], computed at each access; large for whole brains."""
        return self.left @ jnp.swapaxes(self.right, -1, -2)

    @property
    def projection(self) -> Float[Array, "*stack p q"]:
        """[p, q]: scale * rotation, the matrix that centred rows are multiplied by."""
        return self.scale[..., None, None] * self.rotation

    def _rotate(self, x):
        return (x @ self.left) @ self.right.T

    def _rotate_back(self, y):
        return (y @ self.right) @ self.left.T
