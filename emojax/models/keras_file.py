"""A script that reads the layers of a Keras .h5 file.

    python keras_file.py FILE.h5 > FILE.npz

It imports only h5py and NumPy, so that it starts quickly. Its CPU time is limited: a file that
takes too long is damaged.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import h5py
import numpy as np
from h5py import h5l  # pyright: ignore[reportAttributeAccessIssue]  # not in the stub

Node = TypeVar("Node", h5py.Group, h5py.Dataset)

REFUSED = 2  # exit code; the reason is on stderr
INFLATION = 16  # maximum size of tensors relative to the file, as some are compressed
SECONDS, PACE = 6, 10**7  # CPU time in s for any file, plus 1 s for each `PACE` bytes


def read(path: str | os.PathLike) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Reads the layers with weights, in the order of the file.

    Raises:
      ValueError: the file is damaged, or of another kind; the message names the problem.
    """
    if not os.path.isfile(path):
        raise ValueError("something that is not a file")
    try:
        with h5py.File(path, "r") as file:
            return _read_layers(file, INFLATION * os.path.getsize(path))
    except Exception as error:  # h5py raises many types for damaged files
        raise ValueError(str(error) or type(error).__name__) from None


def _read_layers(file, most: float) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Reads all layers with weights, of at most `most` bytes in total."""
    whole = file.id.links.exists(b"model_weights")
    root = _find(file, "model_weights", h5py.Group) if whole else file
    if "layer_names" not in root.attrs:
        groups = ", ".join(sorted(root)[:5]) or "nothing"
        raise ValueError(f"no attribute layer_names beside {groups}")
    found = {}
    for layer in _names(root, "layer_names"):
        group = _find(root, layer, h5py.Group)
        names = _names(group, "weight_names")
        found[layer] = {name: _find(group, name, h5py.Dataset) for name in names}
    tensors = [tensor for weights in found.values() for tensor in weights.values()]
    if (size := sum(tensor.nbytes for tensor in tensors)) > most:
        raise ValueError(f"tensors of {size} bytes, more than it can hold")
    return [(layer, _read_weights(layer, weights)) for layer, weights in found.items() if weights]


def _read_weights(layer: str, tensors: Mapping[str, h5py.Dataset]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        short = name.rsplit("/", 1)[-1].removesuffix(":0")
        if short in out:
            raise ValueError(f"two tensors {layer}/{short}")
        if tensor.dtype.kind not in "fiu":
            raise ValueError(f"{layer}/{name} of type {tensor.dtype}")
        out[short] = tensor[()]
    return out


def _find(group: h5py.Group, path: str, kind: type[Node]) -> Node:
    """Returns a group or tensor of the file itself, without following links."""
    node: Any = group
    for name in filter(None, path.split("/")):
        links = node.id.links if isinstance(node, h5py.Group) else None
        if links is None or not links.exists(name.encode()):
            raise ValueError(f"no {name!r} in {node.name}, which lists it")
        if links.get_info(name.encode()).type != h5l.TYPE_HARD:
            raise ValueError(f"a link {name!r} in {node.name}, and none is followed")
        node = node[name]
    if not isinstance(node, kind):
        raise ValueError(f"{path!r}, which is no {kind.__name__.lower()}")
    if isinstance(node, h5py.Dataset) and (node.is_virtual or node.external):
        raise ValueError(f"{path!r}, which is in another file")
    return node


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Returns a list of texts, stored as bytes by h5py 2 and as str by later versions."""
    if attribute not in group.attrs:
        raise ValueError(f"no attribute {attribute} of {group.name}")
    found = np.asarray(group.attrs[attribute])
    if found.ndim != 1 or (found.size and found.dtype.kind not in "SUO"):
        raise ValueError(f"{attribute} of {group.name} that is no list of texts")
    names = [n.decode() if isinstance(n, bytes) else str(n) for n in found.tolist()]
    if len(set(names)) < len(names):
        raise ValueError(f"{attribute} of {group.name} with one name twice")
    return names


def main(path: str) -> int:
    """Writes the layers to standard output: arrays "i/j", and their names as JSON.

    Returns:
      The exit code.
    """
    with contextlib.suppress(ImportError):  # Windows has no limits
        import resource

        seconds = SECONDS + os.path.getsize(path) // PACE
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        layers = read(path)
    except ValueError as error:
        print(error, file=sys.stderr)
        return REFUSED
    arrays: dict[str, Any] = {
        f"{i}/{j}": array
        for i, (_, weights) in enumerate(layers)
        for j, array in enumerate(weights.values())
    }
    out = io.BytesIO()
    np.savez(out, names=json.dumps([[layer, [*weights]] for layer, weights in layers]), **arrays)
    sys.stdout.buffer.write(out.getbuffer())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
