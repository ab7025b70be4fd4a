"""Decodes volumes with NumPy alone; a copy of this file is in every decoder, as decoder_numpy.py.

    from decoder_numpy import read
    decode = read("runs/demo/decoder")
    p = decode(volume)  # [X, Y, Z] as scanned -> probabilities [classes]

A volume that cannot be decoded gives NaN: values inside the mask are not finite, or their mean or
sd is outside the bounds in the manifest. Axes and affine are not checked.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]


def read(folder: str | pathlib.Path | None = None, expect: str = "") -> Function:
    """Loads a decoder and returns its function from a volume to probabilities.

    Args:
      folder: folder of the decoder; by default, the one that this file is in.
      expect: expected id of the decoder, or its first digits.

    Raises:
      ValueError: a file was changed, the decoder is not the expected one, or it needs more than
        this file: its program.bin, a correction of the volumes, or a calibration.
    """
    folder = pathlib.Path(folder or pathlib.Path(__file__).parent)
    manifest = json.loads((folder / "manifest.json").read_text())
    bound = {k: v for k, v in manifest.items() if k not in ("id", "signature")}
    canonical = json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()
    found = hashlib.sha256(canonical).hexdigest()
    if found != manifest.get("id") or not found.startswith(expect):
        expected = expect or manifest.get("id", "format 2, which has ids")
        raise ValueError(f"{folder}: found decoder {found}; expected {expected}")
    _check(folder, manifest["facts"])
    weights, context = (_arrays(folder / name, manifest["sha256"][name]) for name in FILES)
    name, mask, inside = manifest["network"], context["mask"], np.flatnonzero(context["mask"])
    if name not in ACTIVATIONS:
        raise ValueError(f"{folder}: found a {name}; expected program.bin to be used, with jax")
    (low, high), (least, most) = (manifest["bounds"].get(k, ANY) for k in ("sd", "mean"))
    voxels, centre, temperature = (weights[k] for k in ("voxels", "centre", "temperature"))

    def decode(volume: np.ndarray) -> np.ndarray:
        if np.shape(volume) != mask.shape:
            raise ValueError(f"volume: found shape {np.shape(volume)}; expected {mask.shape}")
        flat = np.asarray(volume, np.float32).reshape(-1)
        values = flat[inside]
        mean = values.mean(dtype=np.float64)
        values = values - np.float32(mean) if least < mean < most else values * np.nan
        if not low < np.sqrt(values @ values / len(values)) < high:
            return np.full(len(manifest["facts"]["classes"]), np.nan)
        p = softmax(logits(weights, flat[voxels] - centre, ACTIVATIONS[name]) / temperature)
        return p if np.isfinite(p).all() else np.full_like(p, np.nan)

    return decode


def _check(folder: pathlib.Path, facts: dict[str, Any]) -> None:
    """Refuses a decoder that is not calibrated yet, or that takes causally corrected volumes."""
    centres = any(step == "centring" for step, *_ in facts["provenance"])
    if not facts["subject"] and facts["trained_on"] and (facts["alignment"] or centres):
        raise ValueError(f"{folder}: found no person's own; expected a calibrated decoder")
    if facts["online"]:
        raise ValueError(f"{folder}: found data.online={facts['online']}; expected emojax")


def _arrays(path: pathlib.Path, sha256: str) -> dict[str, Any]:
    """Returns the arrays of a file as nested dicts."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{path}: found content that was changed")
    tree: dict[str, Any] = {}
    with np.load(path) as stored:
        for name, array in stored.items():
            *above, last = name.split("/")
            node = tree
            for step in above:
                node = node.setdefault(step, {})
            node[last] = array
    return tree


def logits(weights: dict[str, Any], x: np.ndarray, activation: Function) -> np.ndarray:
    """Returns the logits of a network, or the log of its members' mean probabilities."""
    if "members" in weights:
        return log_mean([_member(own, x, activation) for own in in_order(weights["members"])])
    if "kernel" in weights:  # all members of a bag side by side
        kernel = weights["kernel"]
        each = (x @ kernel.reshape(len(kernel), -1)).reshape(kernel.shape[1:]) + weights["bias"]
        return log_mean(softmax(each))
    total = x @ weights["linear"]["0"] + weights["linear"]["1"] if "linear" in weights else 0
    *hidden, last = in_order(weights["layers"])
    for layer in hidden:
        x = activation(x @ layer["0"] + layer["1"])
    return x @ last["0"] + last["1"] + total


def _member(own: dict[str, Any], x: np.ndarray, activation: Function) -> np.ndarray:
    """Returns the probabilities of one member, the mean of several networks."""
    each = [softmax(logits(net, x, activation)) for net in in_order(own["instances"])]
    return softmax(log_mean(each) / own["temperature"])


def in_order(table: dict[str, Any]) -> list[Any]:
    """Returns the values of a dict whose keys are 0, 1, 2, ..."""
    return [table[str(i)] for i in range(len(table))]


def log_mean(each: list[np.ndarray] | np.ndarray) -> np.ndarray:
    """Returns the logarithm of the mean of probabilities."""
    return np.log(np.maximum(np.mean(each, axis=0), TINY))


def softmax(x: np.ndarray) -> np.ndarray:
    """Returns probabilities along the last axis."""
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def gelu(x: np.ndarray) -> np.ndarray:
    """Returns the Gaussian error linear unit of x, in its tanh approximation."""
    return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


FILES, ANY, TINY = ("weights.npz", "context.npz"), (-np.inf, np.inf), np.finfo(np.float32).tiny
ACTIVATIONS: dict[str, Function] = {  # of the networks of vectors, by name
    "linear": lambda x: x,
    "cnn1d": lambda x: np.maximum(x, 0),
    "residual": gelu,
    "mlp_relu": lambda x: np.maximum(x, 0),
    "mlp_tanh": np.tanh,
    "mlp_logistic": lambda x: 1 / (1 + np.exp(-x)),
    "mlp_identity": lambda x: x,
}
