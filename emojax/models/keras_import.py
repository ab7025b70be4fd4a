"""Import of the published Keras networks: their weights (.h5) as variables of our modules.

Keras numbers layers per class and per process: a second model starts at, say, conv3d_17. So a layer
is identified by the rank of its number among the layers of its class. That is the order of
creation; the order in the file differs where branches meet.
"""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emojax.errors import one_line
from emojax.models import keras_file
from emojax.models.cnn1d import CNN1D
from emojax.models.resnet3d import ResNet3D

# Keras' name of a weight -> our collection and name.
_WEIGHTS = {
    "kernel": ("params", "kernel"),
    "bias": ("params", "bias"),
    "gamma": ("params", "scale"),
    "beta": ("params", "bias"),
    "moving_mean": ("batch_stats", "mean"),
    "moving_variance": ("batch_stats", "var"),
}
_SHOWN = 5  # maximum number of differences in a message


class Tensor(NamedTuple):
    """One line of an import's report."""

    source: str  # "conv1d_1/kernel"
    path: str  # "params/conv1/kernel"
    shape: tuple[int, ...]


class Imported(NamedTuple):
    """The variables for `model.apply`, and the origin of each tensor."""

    variables: dict[str, Any]
    report: list[Tensor]


def split_name(layer: str) -> tuple[str, int]:
    """Splits a layer's name: "conv3d_17" into ("conv3d", 17), "conv3d" into ("conv3d", 0).

    The first layer of a process has no number in tf.keras and number 1 in Keras.
    """
    found = re.fullmatch(r"(?s)(.*?)(?:_([0-9]{1,9}))?", layer)
    assert found is not None  # any text matches
    return found[1], int(found[2] or 0)


def read_h5(path: str | os.PathLike) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Reads the layers that have weights, class by class, in order of creation within a class.

    Links are not followed, and no more data are read than fit in the file.

    Args:
      path: file of a whole model or of weights alone, as saved by Keras 1 to 2 and tf.keras.

    Returns:
      [(layer name, {weight name without its path and ":0": array})].

    Raises:
      ValueError: the file is not HDF5, not of this layout, or damaged.
      FileNotFoundError: there is no such file.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: want a Keras .h5 file; got no such file")
    try:
        layers = _read_apart(path)
    except ValueError as error:
        said = f"{path}: want an HDF5 file of Keras weights; got {error}"
        raise ValueError(one_line(said)) from None
    kinds = list(dict.fromkeys(split_name(name)[0] for name, _ in layers))
    return sorted(layers, key=lambda layer: _creation(kinds, layer[0]))


def _creation(kinds, name):
    kind, number = split_name(name)
    return kinds.index(kind), number


def _read_apart(path: str | os.PathLike) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Reads a file in a separate process, as damaged files may make HDF5 loop forever or crash.

    Raises:
      ValueError: the file is damaged, or of another kind; the message names the problem.
    """
    command = [sys.executable, "-P", keras_file.__file__, os.fspath(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == keras_file.REFUSED:
        raise ValueError(done.stderr.decode(errors="replace").strip())
    if done.returncode:
        raise ValueError("a damaged file, on which the HDF5 library fails")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as stored:
        listed = json.loads(str(stored["names"]))
        return [
            (layer, {name: stored[f"{i}/{j}"] for j, name in enumerate(names)})
            for i, (layer, names) in enumerate(listed)
        ]


def assign(
    path: str | os.PathLike,
    layers: Mapping[str, Sequence[str]],
    expected: Mapping[str, Any],
) -> Imported:
    """Assigns every tensor of a file to one of our variables; none may be left over.

    Args:
      path: file, see `read_h5`.
      layers: Keras' class -> our layers of that class, as "a/b/c" paths, in order of creation.
      expected: shapes and dtypes of the variables, as from `jax.eval_shape(model.init, ...)`.

    Returns:
      Variables with the structure and dtypes of `expected`, and the report in order of the file.

    Raises:
      ValueError: the file lacks a layer or tensor, has one too many, one of another shape, or
        values that are not finite.
    """
    found = read_h5(path)
    _check_layers(path, layers, [name for name, _ in found])
    slots = {_join(keys): leaf for keys, leaf in jax.tree.leaves_with_path(expected)}
    ours = (
        name for kind in dict.fromkeys(split_name(n)[0] for n, _ in found) for name in layers[kind]
    )
    tensors, report = {}, []
    for layer, (source, weights) in zip(ours, found, strict=True):
        for weight, array in weights.items():
            collection, leaf = _WEIGHTS.get(weight, ("params", weight))
            tensor = Tensor(f"{source}/{weight}", f"{collection}/{layer}/{leaf}", array.shape)
            tensors[tensor.path] = array
            report.append(tensor)
    _check_tensors(path, slots, report)
    for tensor in report:
        with np.errstate(over="ignore"):
            values = tensors[tensor.path].astype(slots[tensor.path].dtype)
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: want finite values; got others in {tensor.source}")
    variables = jax.tree.map_with_path(
        lambda keys, leaf: jnp.asarray(tensors[_join(keys)], leaf.dtype), dict(expected)
    )
    return Imported(variables, report)


def _join(keys):
    return "/".join(key.key for key in keys)


def _check_layers(path, layers, found):
    want = {kind: len(names) for kind, names in layers.items() if names}
    got = {}
    for name in found:
        kind = split_name(name)[0]
        got[kind] = got.get(kind, 0) + 1
    if want != got:
        raise ValueError(f"{path}: want layers {_count(want)}; got {_count(got)}")


def _count(numbers):
    return ", ".join(f"{number} {kind}" for kind, number in sorted(numbers.items())) or "none"


def _check_tensors(path, slots, report):
    got = {tensor.path: tensor for tensor in report}
    wrong = [f"no tensor for {name} {slots[name].shape}" for name in slots if name not in got]
    for name, tensor in got.items():
        if name not in slots:
            wrong.append(f"{tensor.source} {tensor.shape}, which has no place")
        elif tensor.shape != slots[name].shape:
            wrong.append(f"{tensor.source} {tensor.shape} for {name} {slots[name].shape}")
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ValueError(
            f"{path}: want one tensor of the same shape for each of ours; got "
            + "; ".join(wrong[:_SHOWN])
            + more
        )


def import_cnn1d(path: str | os.PathLike, model: CNN1D, voxels: int) -> Imported:
    """Imports the weights of Experiment A's network.

    Args:
      path: file, see `read_h5`.
      model: network with the file's layer widths; its `param_dtype` sets the dtypes.
      voxels: length of its input vectors.

    Raises:
      ValueError: file and model do not match, see `assign`.
    """
    x = jax.ShapeDtypeStruct((1, voxels), model.dtype)
    expected = jax.eval_shape(model.init, jax.random.key(0), x)
    convs = [f"conv{i + 1}" for i in range(len(model.filters))]
    hidden = [f"dense{i + 1}" for i in range(len(model.dense))]
    norms = [f"{name}_bn" for name in model.normed]
    layers = {
        "conv1d": convs,
        "dense": [*hidden, f"dense{len(hidden) + 1}"],
        "batch_normalization": norms,
    }
    return assign(path, layers, expected)


def import_resnet3d(
    path: str | os.PathLike, model: ResNet3D, volume: tuple[int, int, int]
) -> Imported:
    """Imports the weights of Experiment B's network.

    In the file, a block's shortcut precedes the last convolution of its branch, but was created
    after it; `read_h5` restores the order of creation.

    Args:
      path: file, see `read_h5`.
      model: network with the file's depth, width and number of classes.
      volume: shape (X, Y, Z), which determines the blocks that have a shortcut.

    Raises:
      ValueError: file and model do not match, see `assign`.
    """
    x = jax.ShapeDtypeStruct((1, *volume), model.dtype)
    expected = jax.eval_shape(model.init, jax.random.key(0), x)
    blocks = [
        (f"stage{stage}/block{block + 1}", expected["params"][f"stage{stage}"][f"block{block + 1}"])
        for stage, count in enumerate(model.blocks, 1)
        for block in range(count)
    ]
    created = ("conv1", "conv2", "conv3", "shortcut")
    convs = [f"{name}/{layer}" for name, block in blocks for layer in created if layer in block]
    norms = ("bn1", "bn2", "bn3")
    norms = [f"{name}/{layer}" for name, block in blocks for layer in norms if layer in block]
    head = expected["params"]["head"]
    layers = {
        "conv3d": ["stem/conv", *convs],
        "batch_normalization": ["stem/bn", *norms, "final/bn"],
        "dense": [f"head/{layer}" for layer in ("features", "dense") if layer in head],
    }
    return assign(path, layers, expected)
