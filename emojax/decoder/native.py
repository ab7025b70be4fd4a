"""Programs of decoders, compiled once for this machine and kept, so that no first volume waits.

Compiling a ResNet-50 takes about a second, and tracing it again a tenth of one. XLA's executable is
therefore kept (`emojax.compiled`, never in a bundle) under a key of all that it depends on: the
network and the shapes of its weights, emojax's code, versions, processor and settings. The weights
are arguments, so that all decoders of the same shapes share a program. Users' networks, programs
for accelerators and decoders that were not loaded from a bundle are compiled by `jax.jit`.

XLA cannot serialise programs that call oneDNN (jax 0.12). Networks of volumes are therefore
compiled while their weights are being read.
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
MOST = 4  # largest number of programs that are compiled ahead
UNKNOWN = (jax.errors.JaxRuntimeError, AttributeError, TypeError)  # raised by unknown jax versions

_jitted = onednn.jit(fusion.apply_to_inputs, static_argnums=0)
_begun: dict[str, Future] = {}  # programs that are being compiled, by key
_at_work = threading.Lock()


_Takes = tuple[tuple[int, ...], np.dtype]  # shape and dtype of the inputs


class Program(NamedTuple):
    """A compiled program, shared by all decoders of the same network and shapes."""

    executable: Any
    device: Any

    def __call__(self, leaves: Sequence[jax.Array], x: np.ndarray) -> np.ndarray:
        """Returns the probabilities of the network's inputs.

        Args:
          leaves: leaves of the weights, in jax's order.
          x: inputs.
        """
        found = self.executable.execute_sharded([*leaves, jax.device_put(x, self.device)])
        return np.asarray(found.disassemble_into_single_device_arrays()[0][0])


def probabilities(decoder: Decoder, x: Float[np.ndarray, "..."]) -> Float[np.ndarray, " k"]:
    """Returns the probabilities of the network's input, without checks.

    Args:
      decoder: any decoder; only the program of a loaded one is kept.
      x: input of the network, see `decode.inputs`.
    """
    x = np.asarray(x)[None]
    if decoder.id:
        leaves, tree = jax.tree.flatten(_weights(decoder))
        program = _open(decoder.network, leaves, tree, (x.shape, x.dtype))
        if program is not None:
            try:
                return program(leaves, x)[0]
            except jax.errors.JaxRuntimeError:  # a stale program that could still be read
                pass
    return np.asarray(_jitted(decoder.network, _weights(decoder), x))[0]


def keep(decoder: Decoder) -> None:
    """Compiles and keeps the program of a decoder for later loads, unless there is one.

    Args:
      decoder: a decoder that was just saved.
    """
    leaves, tree = jax.tree.flatten(jax.device_put(_weights(decoder)))
    takes = _takes(decoder.network, decoder.weights, decoder.facts)
    _open(decoder.network, leaves, tree, takes)


def begin(network: str, weights: Mapping[str, Any], facts: Facts) -> None:
    """Starts compiling the program of a network of volumes while its weights are being read.

    Args:
      network: name of the network.
      weights: arrays of the shapes and types that will be read.
      facts: facts of the decoder.
    """
    if models.find(network).input != "volume":
        return  # compiling takes less time than a thread is worth

    def typed(leaf: np.ndarray) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))

    case = network, jax.tree.map(typed, dict(weights)), _takes(network, weights, facts)
    if (key := _key(*case, device := jax.devices()[0])) is not None and key not in _begun:
        with _at_work:
            while len(_begun) >= MOST:  # of decoders that were loaded but not used
                _begun.pop(next(iter(_begun)))
            _begun[key] = future = Future()
        threading.Thread(target=_finish, args=(future, key, case, device)).start()


def _finish(
    future: Future, key: str, case: tuple[str, Mapping[str, Any], _Takes], device: Any
) -> None:
    """Compiles in a thread, unless the caller's context has settings that do not apply here."""
    try:
        same = _key(*case, device) == key
        future.set_result((_kept(key, device) or _compile(key, *case, device)) if same else None)
    except BaseException as error:  # raised again where the program is used
        future.set_exception(error)


def _open(network: str, leaves: Sequence[Any], tree: Any, takes: _Takes) -> Program | None:
    """Returns the kept program, or compiles and keeps it; None if it cannot be kept."""
    if not all(isinstance(leaf, jax.Array) for leaf in leaves):
        return None
    devices = set().union(*(leaf.devices() for leaf in leaves))
    if len(devices) != 1:
        return None
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    config: Any = jax.config  # attributes are made at run time; these two change the program
    settings = config.jax_default_matmul_precision, config.jax_enable_x64
    return _opened(network, shapes, tree, takes, devices.pop(), settings)


@functools.lru_cache(maxsize=8)
def _opened(
    network: str, shapes: tuple, tree: Any, takes: _Takes, device: Any, settings: tuple
) -> Program | None:
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
    """Returns the executable that is kept under a key, or None if XLA cannot load one."""
    if (content := compiled.read(key)) is None:
        return None
    try:
        return device.client.deserialize_executable(content, [device])
    except UNKNOWN:
        return None


def _compile(key: str, network: str, weights: Mapping[str, Any], takes: _Takes, device: Any) -> Any:
    """Compiles and keeps an executable; returns None if only `jax.jit` can call it."""
    there = jax.sharding.SingleDeviceSharding(device)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=there), dict(weights)
    )
    x = jax.ShapeDtypeStruct(*takes, sharding=there)
    made = _jitted.lower(network, shapes, x).compile()
    try:
        executable: Any = made.runtime_executable()
        if len(executable.get_parameter_layouts()) != len(jax.tree.leaves(weights)) + 1:
            return None  # jax has dropped an unused argument
        with contextlib.suppress(MemoryError, jax.errors.JaxRuntimeError):  # XLA cannot write it
            compiled.write(key, executable.serialize())
    except UNKNOWN:
        return None
    return executable


def _weights(decoder: Decoder) -> Mapping[str, Any]:
    """Returns the weights that the network is applied with."""
    return {name: part for name, part in decoder.weights.items() if name != "voxels"}


def _takes(network: str, weights: Mapping[str, Any], facts: Facts) -> _Takes:
    """Returns the shape and dtype of the network's inputs."""
    vector = models.find(network).input == "vector"
    shape = np.shape(weights["voxels"]) if vector else tuple(facts.grid)
    return (1, *shape), np.dtype(np.float32)


def _key(network: str, weights: Mapping[str, Any], takes: _Takes, device: Any) -> str | None:
    """Returns a digest of all that a program depends on; None if it is not to be kept."""
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
        "device": [*place, cores()],  # XLA divides a program among the cores
        "machine": compiled.machine(),
        "settings": settings,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@functools.cache
def _code() -> list[str]:
    """Returns a digest of the code that is traced into programs, and versions."""
    root, digest = pathlib.Path(emojax.__file__).parent, hashlib.sha256()
    for pattern in CODE:
        for path in sorted(root.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return [digest.hexdigest(), *map(importlib.metadata.version, VERSIONS)]
