"""Records of networks for the registry, and of any Flax module."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from emojax._numerics.checks import is_concrete
from emojax.errors import InputError
from emojax.rules import Rule

Input = Literal["vector", "volume"]


def _nothing(config: Any) -> str:
    return ""


def _one(config: Any) -> int:
    return 1


def _only(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if len(parts) > 1:
        raise ValueError(f"want one network; got {len(parts)}, which cannot be joined")
    return dict(parts[0])


@dataclasses.dataclass(frozen=True)
class Network:
    """Everything that experiments and decoders need to know about a network.

    `config` is the `model` part of an experiment's config. The module is called as
    `module.apply(variables, x, train=bool, rngs={"dropout": key})`, with x [batch, voxels] or
    [batch, X, Y, Z], and returns logits [batch, num_classes].
    """

    make: Callable[[Any, int], nn.Module]  # (config, num_classes), after `rules` were checked
    penalty: Callable[..., jax.Array]  # (params, kind, factor, shortcut_factor=None) -> []
    label: Callable[[Any], str]  # config -> name in tables
    input: Input = "vector"
    linear: bool = False  # vectors end with logits of a linear path (`models.residual.Path`)
    kinds: tuple[str, ...] = ("l2",)  # supported penalties
    least: Callable[[Any], int] = _one  # config -> fewest voxels of a vector, or along each axis
    # Ranges of the keys of `config`; another network may use the same keys.
    rules: Mapping[str, Rule] = dataclasses.field(default_factory=dict, compare=False)
    # Folding for inference, or None. For volumes, `fold` takes (params, batch_stats); for vectors,
    # (params, batch_stats, matrix, offset), and includes the affine map before the network. `apply`
    # takes (weights, x) and returns logits.
    fold: Callable[..., dict[str, Any]] | None = None
    apply: Callable[[Mapping[str, Any], jax.Array], jax.Array] | None = None
    # Joins the members of a bag into one decoder of vectors: takes the result of `fold` for each,
    # with its "voxels" and "centre" (see `decoder.build.fold`), and returns the same for all.
    join: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]] = _only
    obstacle: Callable[[Any], str] = _nothing  # config -> the setting that prevents folding
    # Takes (weights without those of the scale, voxels of a vector, number of classes); raises
    # ValueError if `fold` does not return such weights. None: only `apply`'s output is checked.
    check_folded: Callable[[Mapping[str, Any], int, int], None] | None = None

    def check_foldable(self, config: Any) -> None:
        """Checks that the network with these settings can become a decoder.

        Raises:
          InputError: the network has no folding, or none for these settings.
        """
        why = f"{self.label(config)}, a network without folding"
        why = why if self.fold is None else self.obstacle(config)
        if why:
            raise InputError("model", why, "a network that can be folded for inference")


def check_penalty(kind: str, factor: float | jax.Array, kinds: Sequence[str]) -> None:
    """Checks the arguments of a penalty; a traced factor is not checked.

    Raises:
      ValueError: an unknown kind, or a factor that is negative or not finite.
    """
    if kind not in kinds or (is_concrete(factor) and not 0 <= factor < math.inf):
        known = " or ".join(map(repr, kinds))
        raise ValueError(f"want kind {known} and factor >= 0; got {kind!r}, {factor}")


def l2(
    params: Mapping[str, Any], factor: float | jax.Array, shortcut_factor: float | None = None
) -> Float[jax.Array, ""]:
    """Returns factor * sum(w^2) over every leaf named "kernel".

    Biases and batch norms are not penalised. There is no factor 1/2 (Keras' convention).

    Args:
      params: the collection "params" of a network.
      factor: weight of all kernels.
      shortcut_factor: weight of the kernels below "shortcut"; default: `factor`. The authors' code
        always uses 1e-4 there.
    """
    factors = {True: factor if shortcut_factor is None else shortcut_factor, False: factor}
    total = jnp.zeros(())
    for path, leaf in _kernels(params):
        total += factors["shortcut" in path] * jnp.sum(leaf**2)
    return total


def _kernels(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = [([getattr(key, "key", None) for key in path], leaf) for path, leaf in leaves]
    return [(path, leaf) for path, leaf in named if path[-1] == "kernel"]


def penalty_l2(
    params: Mapping[str, Any],
    kind: str,
    factor: float | jax.Array,
    shortcut_factor: float | None = None,
) -> Float[jax.Array, ""]:
    """Returns the penalty of a network whose only kind is `l2`.

    Raises:
      ValueError: another kind, a negative factor, or parameters without any kernel.
    """
    check_penalty(kind, factor, ("l2",))
    if not _kernels(params) and not (is_concrete(factor) and factor == 0):
        raise ValueError("want parameters called 'kernel', or a Network with a penalty of its own")
    return l2(params, factor, shortcut_factor)


@functools.cache  # one record per class, so that equal programs compare equal
def from_module(module: type[nn.Module], name: str) -> Network:
    """Returns the record of a Flax module class.

    The module is made by `module(num_classes=...)`, or with the number as its first field. The
    class may have an attribute `input`, "vector" (default) or "volume".

    Args:
      module: the class.
      name: its dotted path, for messages.

    Raises:
      InputError: an unknown `input`.
    """
    takes: Input = getattr(module, "input", "vector")
    if takes not in get_args(Input):
        raise InputError(f"{name}.input", repr(takes), f"one of {get_args(Input)}")
    by_name = any(field.name == "num_classes" for field in dataclasses.fields(module))

    def make(config, num_classes):
        try:
            return module(num_classes=num_classes) if by_name else module(num_classes)
        except TypeError as error:
            expected = "a module class that is made from num_classes alone"
            raise InputError("model.name", f"{name!r} ({error})", expected) from None

    return Network(make, penalty_l2, lambda config: module.__name__, input=takes)


def check_module(name: str, module: nn.Module, shape: Sequence[int], num_classes: int) -> None:
    """Checks by tracing, without computing anything, that a module can be trained.

    Args:
      name: `model.name`, for the message.
      module: module made by `Network.make`.
      shape: shape of one example, (voxels,) or (X, Y, Z).
      num_classes: expected number of logits.

    Raises:
      InputError: the module cannot be called as in training, or returns another shape.
    """

    def call(key, x):
        logits, variables = module.init_with_output({"params": key}, x, train=False)
        rngs = {"dropout": key}
        trained, _ = module.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs)
        return trained, logits

    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    try:
        found = [out.shape for out in jax.eval_shape(call, jax.random.key(0), x)]
    except Exception as error:  # a user's code may raise anything
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        expected = f"a module that takes (x {list(x.shape)}, train=bool)"
        raise InputError("model.name", f"{name!r} ({said})", expected) from error
    if found != [(2, num_classes)] * 2:
        expected = f"logits {[2, num_classes]} of x {list(x.shape)}"
        raise InputError("model.name", f"{name!r} with outputs {list(found[0])}", expected)
