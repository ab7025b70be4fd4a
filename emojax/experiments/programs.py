"""The static parts of training from a config: network, optimiser, plateau rule, penalty."""

import functools
import json
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from emojax import models, plateau
from emojax.errors import InputError
from emojax.training import feeds, loop, optimizer
from emojax.training.loop import Program


def make_program(config: Any, num_classes: int) -> Program:
    """Builds the program of a config; equal settings share one compiled program.

    Raises:
      InputError: unknown network or penalty, a learning rate that decays in too many steps, or a
        batch size that is not a multiple of the number of devices.
    """
    found = _program(_text(config), num_classes, jax.default_backend())
    if found.batch_size % found.mesh.size:
        expected = f"a multiple of {found.mesh.size} devices"
        raise InputError("train.batch_size", found.batch_size, expected)
    return found


def check_train(config: Any) -> None:
    """Rejects training settings that contradict each other, without starting a backend.

    Raises:
      InputError: names the key.
    """
    _parts(_text(config), 2)


def _text(config: Any) -> str:
    """Returns the settings that a program depends on, as JSON."""
    parts = {"model": config.model.to_dict(), "train": config.train.to_dict()}
    return json.dumps(parts, sort_keys=True)


@functools.lru_cache(maxsize=16)
def _program(text: str, num_classes: int, backend: str) -> Program:
    (module, adam, rule, penalty, train), uses_volumes = _parts(text, num_classes)
    # Volumes are divided among all devices; vectors are too small for that.
    devices = None if uses_volumes else jax.local_devices()[:1]
    options = {name: train[name] for name in ("best_by", "draws", "warmup", "epoch_zero")}
    mesh = feeds.data_mesh(devices)
    return Program(module, adam, rule, penalty, train.batch_size, mesh, **options)


def _config(part: dict[str, Any]) -> Any:
    """Returns a section of the config; its attributes are keys, of which types know nothing."""
    return ConfigDict(part)


def _parts(text: str, num_classes: int) -> tuple[tuple, bool]:
    """Returns (network, optimiser, plateau rule, penalty, `train`), and whether it uses volumes."""
    model, train = map(_config, json.loads(text).values())
    network = models.find(model.name)
    if train.penalty not in network.kinds:
        expected = " or ".join(map(repr, network.kinds))
        raise InputError("train.penalty", repr(train.penalty), f"{expected} for {model.name}")
    shortcut = None if train.shortcut_l2 < 0 else train.shortcut_l2

    def penalty(params, factor):
        return network.penalty(params, train.penalty, factor, shortcut)

    module = network.make(model, num_classes)
    adam = optimizer.adam(
        train.lr, b1=train.adam_b1, b2=train.adam_b2, eps=train.adam_eps, form=train.adam
    )
    try:
        rule = plateau.reduce_on_plateau(**train.plateau, base_lr=train.lr)
    except ValueError as error:
        raise InputError("train.plateau", error, "a rate that decays in fewer steps") from None
    return (module, adam, rule, penalty, train), network.input == "volume"


def epochs_of(train: Any, rows: int) -> int:
    """Returns the number of epochs for this many training rows: at least `train.least_steps`."""
    return max(train.epochs, -(-train.least_steps // -(-rows // train.batch_size)))


class Linear(nn.Module):
    """A single dense layer, which replaces the network in the audit."""

    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch *shape"], train: bool = False) -> jax.Array:
        """Returns logits [batch, num_classes] of x [batch, ...]."""
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


def stand_in(program: Program, num_classes: int) -> Program:
    """Returns a program with the same batches and devices, but a single dense layer as network."""
    return _stand_in(num_classes, program.batch_size, program.mesh)


@functools.lru_cache(maxsize=4)
def _stand_in(num_classes, batch_size, mesh) -> Program:
    rule = plateau.reduce_on_plateau(base_lr=1e-3, factor=0.5, patience=1, min_lr=1e-5)
    adam = optimizer.adam(1e-3)
    return Program(Linear(num_classes), adam, rule, lambda p, f: 0.0, batch_size, mesh)


def strategy_of(config: Any, streamed: bool) -> loop.Strategy:
    """Returns how epochs are run; streamed volumes need a loop on the host."""
    if streamed:
        return "loop"
    strategy = config.train.strategy
    return loop.default_strategy() if strategy == "auto" else strategy
