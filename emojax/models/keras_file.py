"""Layers of a Keras .h5 file, as a script of its own.

    python keras_file.py FILE.h5 > FILE.npz

It needs h5py and NumPy alone, so that it starts quickly. A file that keeps it busy is damaged: its
time on the processor is limited.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping

import h5py
import numpy as np

REFUSED = 2  # exit code; the reason is on stderr
INFLATION = 16  # how many times the size of a file its tensors may take: some are compressed
SECONDS, PACE = 6, 10**7  # of the processor, for any file and for that many bytes more


def read(path: str | os.PathLike) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Reads the layers with weights, in the order of the file.

    Raises:
      ValueError: says what is wrong with the file.
    """
    if not os.path.isfile(path):
        raise ValueError("something that is no file")
    try:
        with h5py.File(path, "r") as file:
            return _read_layers(file, INFLATION * os.path.getsize(path))
    except Exception as error:  # h5py raises many types on damaged files
        raise ValueError(str(error) or type(error).__name__) from None


def _read_layers(file, most: float) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Reads all layers with weights; `most`: bytes that they may have in all."""
    whole = file.id.links.exists(b"model_weights")
    root = _find(file, "model_weights", h5py.Group) if whole else file
    if "layer_names" not in root.attrs:
        groups = ", ".join(sorted(root)[:5]) or "nothing"
        raise ValueError(f"no attribute layer_names beside {groups}")
    found = {}
    for layer in _names(root, "layer_names"):
        group = _find(root, layer, h5py.Group)
        found[layer] = {name: _find(group, name) for name in _names(group, "weight_names")}
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


def _find(group: h5py.Group, path: str, kind: type = h5py.Dataset):
    """Returns a group or tensor of the file itself: not one that a link leads to."""
    node = group
    for name in filter(None, path.split("/")):
        links = node.id.links if isinstance(node, h5py.Group) else None
        if links is None or not links.exists(name.encode()):
            raise ValueError(f"no {name!r} in {node.name}, which lists it")
        if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"a link {name!r} in {node.name}, and none is followed")
        node = node[name]
    if not isinstance(node, kind):
        raise ValueError(f"{path!r}, which is no {kind.__name__.lower()}")
    if isinstance(node, h5py.Dataset) and (node.is_virtual or node.external):
        raise ValueError(f"{path!r}, which is in another file")
    return node


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Returns a list of texts, which files of h5py 2 hold as bytes and later ones as str."""
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
    """Writes the layers to the standard output: arrays "i/j", and their names as JSON.

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
    arrays = {
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
