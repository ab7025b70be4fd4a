"""Programs of decoders, compiled once for this machine and kept: a first volume need not wait.

Compiling a ResNet-50 takes about a second, and tracing it again a tenth of one. So what XLA has
compiled is kept as it is (`emojax.compiled`, never in a bundle) under a name that stands for all
that it depends on: the network and the shapes of its weights, emojax's code, versions, processor
and settings. The weights are arguments: all decoders of the same shapes share a program. Networks
of somebody else's code, programs for accelerators and decoders that were not loaded are compiled by
`jax.jit`.

XLA cannot write programs that call oneDNN (jax 0.12). Networks of volumes are therefore compiled
while their weights are being read.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

import emojax
from emojax import compiled, fusion, models
from emojax._numerics.threads import cores
from emojax.decoder.build import Decoder, Facts
from emojax.models import onednn

VERSIONS = ("jax", "jaxlib", "flax")
CODE = ("fusion.py", "models/*.py", "_numerics/*.py", "decoder/native.py")  # traced into programs
MOST = 4  # programs that are compiled ahead
UNKNOWN = (jax.errors.JaxRuntimeError, AttributeError, TypeError)  # of another jax than is known

_jitted = onednn.jit(fusion.apply_to_inputs, static_argnums=0)
_begun: dict[str, Future] = {}  # programs that are being compiled, by name
_at_work = threading.Lock()


class Program(NamedTuple):
    """A compiled program of all decoders with the same network and shapes."""

    executable: Any
    device: Any

    def __call__(self, leaves: Sequence[jax.Array], x: np.ndarray) -> np.ndarray:
        """Returns probabilities of what the network reads.

        Args:
          leaves: of the weights, in jax's order.
          x: inputs.
        """
        found = self.executable.execute_sharded([*leaves, jax.device_put(x, self.device)])
        return np.asarray(found.disassemble_into_single_device_arrays()[0][0])


def probabilities(decoder: Decoder, x: Float[np.ndarray, "..."]) -> Float[np.ndarray, " k"]:
    """Returns probabilities of what the network of a decoder reads, without a check.

    Args:
      decoder: any; a program is kept where it is a loaded one.
      x: see `decode.inputs`.
    """
    x = np.asarray(x)[None]
    if decoder.id:
        leaves, tree = jax.tree.flatten(_weights(decoder))
        program = _open(decoder.network, leaves, tree, (x.shape, x.dtype))
        if program is not None:
            try:
                return program(leaves, x)[0]
            except jax.errors.JaxRuntimeError:  # an older program than it seems to be
                pass
    return np.asarray(_jitted(decoder.network, _weights(decoder), x))[0]


def keep(decoder: Decoder) -> None:
    """Compiles the program of a decoder, if none is kept yet, for those who will load it.

    Args:
      decoder: one that was just saved.
    """
    leaves, tree = jax.tree.flatten(jax.device_put(_weights(decoder)))
    takes = _takes(decoder.network, decoder.weights, decoder.facts)
    _open(decoder.network, leaves, tree, takes)


def begin(network: str, weights: Mapping[str, Any], facts: Facts) -> None:
    """Begins to compile the program of a network of volumes, beside the reading of its weights.

    Args:
      network: its name.
      weights: arrays of the shapes and types that will be read.
      facts: of the decoder.
    """
    if models.find(network).input != "volume":
        return  # it takes less time than a thread is worth

    def typed(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))

    case = network, jax.tree.map(typed, dict(weights)), _takes(network, weights, facts)
    if (key := _key(*case, device := jax.devices()[0])) is not None and key not in _begun:
        with _at_work:
            while len(_begun) >= MOST:  # of decoders that were loaded, and not used
                _begun.pop(next(iter(_begun)))
            _begun[key] = future = Future()
        threading.Thread(target=_finish, args=(future, key, case, device)).start()


def _finish(future: Future, key: str, case: tuple, device: Any) -> None:
    """Compiles in a thread, in which settings of the caller's context do not hold."""
    try:
        same = _key(*case, device) == key
        future.set_result((_kept(key, device) or _compile(key, *case, device)) if same else None)
    except BaseException as error:  # the caller's, too, when it compiles
        future.set_exception(error)


def _open(network: str, leaves: Sequence[Any], tree: Any, takes) -> Program | None:
    """Returns the program that is kept, or compiles and keeps it; None: none can be kept."""
    if not all(isinstance(leaf, jax.Array) for leaf in leaves):
        return None
    devices = set().union(*(leaf.devices() for leaf in leaves))
    if len(devices) != 1:
        return None
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    config = jax.config  # what changes it changes the program
    settings = config.jax_default_matmul_precision, config.jax_enable_x64
    return _opened(network, shapes, tree, takes, devices.pop(), settings)


@functools.lru_cache(maxsize=8)
def _opened(network, shapes, tree, takes, device, settings) -> Program | None:
    """Returns the program for weights of these shapes; it holds no weights itself."""
    weights = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    if (key := _key(network, weights, takes, device)) is None:
        return None
    with _at_work:
        begun = _begun.pop(key, None)
    executable = begun.result() if begun else None
    executable = executable or _kept(key, device) or _compile(key, network, weights, takes, device)
    return executable and Program(executable, device)


def _kept(key: str, device: Any) -> Any:
    """Returns the executable that is kept under a key, if there is one that XLA takes."""
    if (content := compiled.read(key)) is None:
        return None
    try:
        return device.client.deserialize_executable(content, [device])
    except UNKNOWN:
        return None


def _compile(key: str, network: str, weights: Mapping[str, Any], takes, device: Any) -> Any:
    """Returns an executable, and keeps it; None: jax's own call has to do."""
    there = jax.sharding.SingleDeviceSharding(device)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), dict(weights)
    )
    x = jax.ShapeDtypeStruct(*takes, sharding=there)
    made = _jitted.lower(network, shapes, x).compile()
    try:
        executable = made.runtime_executable()
        if len(executable.get_parameter_layouts()) != len(jax.tree.leaves(weights)) + 1:
            return None  # an argument that has no effect was left out
        with contextlib.suppress(MemoryError, jax.errors.JaxRuntimeError):  # XLA cannot write it
            compiled.write(key, executable.serialize())
    except UNKNOWN:
        return None
    return executable


def _weights(decoder: Decoder) -> Mapping[str, Any]:
    """Returns the weights that the network computes with."""
    return {name: part for name, part in decoder.weights.items() if name != "voxels"}


def _takes(network: str, weights: Mapping[str, Any], facts: Facts):
    """Returns shape and type of what the network of a decoder reads."""
    vector = models.find(network).input == "vector"
    shape = np.shape(weights["voxels"]) if vector else tuple(facts.grid)
    return (1, *shape), np.dtype(np.float32)


def _key(network: str, weights: Mapping[str, Any], takes, device: Any) -> str | None:
    """Returns a name for all that a program depends on; None: it is not to be kept."""
    known = network in models.NETWORKS or network in models.FITTED
    if device.platform != "cpu" or not known or compiled.programs() is None:
        return None
    shapes = [(leaf.shape, leaf.dtype.name) for leaf in jax.tree.leaves(weights)]
    config, client = jax.config, device.client
    settings = {
        name: repr(getattr(config, name, value))
        for name, value in config.values.items()
        if "cache" not in name
    }
    place = [device.device_kind, device.id, client.platform_version, len(client.devices())]
    facts = {
        "network": network,
        "weights": [str(jax.tree.structure(weights)), shapes],
        "takes": [takes[0], takes[1].name],
        "code": _code(),
        "device": [*place, cores()],  # among which XLA divides a program
        "machine": compiled.machine(),
        "settings": settings,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@functools.cache
def _code() -> list[str]:
    """Returns versions, and a digest of the code that programs are made of."""
    root, digest = pathlib.Path(emojax.__file__).parent, hashlib.sha256()
    for pattern in CODE:
        for path in sorted(root.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return [digest.hexdigest(), *map(importlib.metadata.version, VERSIONS)]
