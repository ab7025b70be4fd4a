"""Decodes volumes with NumPy alone; a copy of this file is in every decoder, as decoder_numpy.py.

    from decoder_numpy import read
    decode = read("runs/demo/decoder")
    p = decode(volume)  # [X, Y, Z] as scanned -> probabilities [classes]

A volume that nothing can be read from gives NaN: values inside the mask that are not finite, or
whose mean or sd is outside of the bounds in the manifest. Axes and affine are not checked.
"""

import hashlib
import json
import pathlib

import numpy as np


def read(folder=None, expect=""):
    """Opens a decoder; returns its function from a volume to probabilities.

    Args:
      folder: of the decoder; by default, the one that this file is in.
      expect: the decoder's id, or its first digits.

    Raises:
      ValueError: a file was changed, it is another decoder, or one that takes more than this file:
        its program.bin, a correction of the volumes, or a calibration first.
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

    def decode(volume):
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


def _check(folder, facts):
    """Refuses a decoder of nobody, and one of volumes that were corrected by those before them."""
    centres = any(step == "centring" for step, *_ in facts["provenance"])
    if not facts["subject"] and facts["trained_on"] and (facts["alignment"] or centres):
        raise ValueError(f"{folder}: found no person's own; expected a calibrated decoder")
    if facts["online"]:
        raise ValueError(f"{folder}: found data.online={facts['online']}; expected emojax")


def _arrays(path, sha256):
    """Returns the arrays of a file by their names, as nested tables."""
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise ValueError(f"{path}: found content that was changed")
    tree = {}
    with np.load(path) as stored:
        for name, array in stored.items():
            *above, last = name.split("/")
            node = tree
            for step in above:
                node = node.setdefault(step, {})
            node[last] = array
    return tree


def logits(weights, x, activation):
    """Returns the logits of a network, or the logarithms of what its members agree on."""
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


def _member(own, x, activation):
    """Returns the probabilities of one member, the mean of several networks."""
    each = [softmax(logits(net, x, activation)) for net in in_order(own["instances"])]
    return softmax(log_mean(each) / own["temperature"])


def in_order(table):
    """Returns the parts of a table whose names are 0, 1, 2, ..."""
    return [table[str(i)] for i in range(len(table))]


def log_mean(each):
    """Returns the logarithm of the mean of probabilities."""
    return np.log(np.maximum(np.mean(each, axis=0), TINY))


def softmax(x):
    """Returns probabilities along the last axis."""
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def gelu(x):
    """Returns x weighted by a normal distribution function, in its usual approximation."""
    return x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


FILES, ANY, TINY = ("weights.npz", "context.npz"), (-np.inf, np.inf), np.finfo(np.float32).tiny
ACTIVATIONS = {  # of networks of vectors
    "linear": None,
    "cnn1d": lambda x: np.maximum(x, 0),
    "residual": gelu,
    "mlp_relu": lambda x: np.maximum(x, 0),
    "mlp_tanh": np.tanh,
    "mlp_logistic": lambda x: 1 / (1 + np.exp(-x)),
    "mlp_identity": lambda x: x,
}
