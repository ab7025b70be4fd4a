"""The networks as Flax Linen modules, their registry, and the import of Keras weights."""

from flax import linen as nn

from emojax.errors import InputError
from emojax.models import linear, mlp
from emojax.models.network import Network, check_module, from_module
from emojax.registry import Registry

NETWORKS = Registry(
    "model.name",
    {
        "cnn1d": "emojax.models.cnn1d:NETWORK",
        "residual": "emojax.models.residual:NETWORK",
        "resnet3d": "emojax.models.resnet3d:NETWORK",
    },
)

FITTED = {"linear": linear.NETWORK, **mlp.NETWORKS}  # decoders fitted by other libraries

__all__ = ["NETWORKS", "Network", "check_module", "find"]


def find(name: str) -> Network:
    """Finds a network by name.

    Args:
      name: name in `NETWORKS` or `FITTED`, or the dotted path "package.module:name" of a `Network`
        or of a Flax module class (see `network.from_module`).

    Raises:
      InputError: an unknown name, or a path to something else.
    """
    found = FITTED.get(name) or NETWORKS[name]
    if isinstance(found, Network):
        return found
    if isinstance(found, type) and issubclass(found, nn.Module):
        return from_module(found, name)
    expected = "a Network, or a Flax (Linen) module class"
    raise InputError("model.name", f"{name!r}, {_kind(found)}", expected)


def _kind(found: object) -> str:
    what = "the class" if isinstance(found, type) else "an object of the class"
    return f"{what} {(found if isinstance(found, type) else type(found)).__name__}"
