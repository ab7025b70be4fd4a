"""Checks of names and shapes of folded weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def check_cnn1d(weights: Mapping[str, Any], voxels: int, num_classes: int) -> None:
    """Checks weights for `apply_cnn1d`.

    Args:
      weights: {"layers": [(kernel, bias), ...]}.
      voxels: length of the vectors.
      num_classes: number of logits.

    Raises:
      ValueError: another structure, or shapes that do not fit together.
    """
    _check_names("weights", weights, {"layers"})
    _check_dense("layers", weights["layers"], voxels, num_classes)


def check_resnet3d(weights: Mapping[str, Any], voxels: int, num_classes: int) -> None:
    """Checks weights for `apply_resnet3d`.

    Args:
      weights: see `fold_resnet3d`.
      voxels: not used, as volumes of any size can be read.
      num_classes: number of logits.

    Raises:
      ValueError: another structure, or shapes that do not fit together.
    """
    _check_names("weights", weights, {"stem", "stages", "final", "head"})
    channels = _affine("stem", weights["stem"], (7, 7, 7, 1))
    for i, blocks in enumerate(_items("stages", weights["stages"])):
        for j, block in enumerate(_items(f"stages/{i}", blocks)):
            channels = _check_block(f"stages/{i}/{j}", block, channels, (i, j))
    _check_scale("final", weights["final"], channels)
    _check_dense("head", weights["head"], channels, num_classes)


def check_residual(weights: Mapping[str, Any], voxels: int, num_classes: int) -> None:
    """Checks weights for `apply_residual`.

    Args:
      weights: {"linear": (kernel, bias), "layers": [(kernel, bias), ...]}.
      voxels: length of the vectors.
      num_classes: number of logits.

    Raises:
      ValueError: another structure, or shapes that do not fit together.
    """
    _check_names("weights", weights, {"linear", "layers"})
    _check_dense("linear", [weights["linear"]], voxels, num_classes)
    _check_dense("layers", weights["layers"], voxels, num_classes)


def _check_block(where: str, block: Any, channels: int, place: tuple[int, int]) -> int:
    """Checks a residual block and returns its number of output channels."""
    windows = {"conv1": 3, "conv2": 3}
    if isinstance(block, Mapping) and "conv3" in block:
        windows = {"conv1": 1, "conv2": 3, "conv3": 1}
    names = {*windows, *(() if place == (0, 0) else ("before",))}
    is_first = place[0] > 0 and place[1] == 0  # the first block of a later stage has strides
    if is_first or (isinstance(block, Mapping) and "shortcut" in block):
        names |= {"shortcut"}
    _check_names(where, block, names)
    if "before" in names:
        _check_scale(f"{where}/before", block["before"], channels)
    out = channels
    for name, window in windows.items():
        out = _affine(f"{where}/{name}", block[name], (*[window] * 3, out))
    kept = channels
    if "shortcut" in names:
        kept = _affine(f"{where}/shortcut", block["shortcut"], (1, 1, 1, channels))
    if kept != out:
        raise ValueError(f"want {out} channels beside {where}; got {kept}")
    return out


def _check_dense(where: str, layers: Any, inputs: int, outputs: int) -> None:
    for i, layer in enumerate(_items(where, layers)):
        inputs = _affine(f"{where}/{i}", layer, (inputs,))
    if inputs != outputs:
        raise ValueError(f"want {outputs} outputs, one for each class; got {inputs}")


def _affine(where: str, pair: Any, inputs: tuple[int, ...]) -> int:
    """Checks kernel [*inputs, n] and bias [n] and returns n."""
    kernel, bias = (np.shape(part) for part in _items(where, pair, 2))
    if kernel[:-1] != inputs or bias != kernel[-1:] or 0 in kernel:
        wanted = ", ".join(map(str, inputs))
        raise ValueError(f"want {where}: kernel [{wanted}, n] and bias [n]; got {kernel}, {bias}")
    return kernel[-1]


def _check_scale(where: str, pair: Any, channels: int) -> None:
    shapes = [np.shape(part) for part in _items(where, pair, 2)]
    if shapes != [(channels,)] * 2:
        raise ValueError(f"want {where}: two arrays [{channels}]; got {shapes[0]}, {shapes[1]}")


def _check_names(where: str, node: Any, names: set[str]) -> None:
    found = node.keys() if isinstance(node, Mapping) else set()
    if found != names:
        shown = ", ".join(sorted(found)) or "none"
        raise ValueError(f"want {where} with {', '.join(sorted(names))}; got {shown}")


def _items(where: str, node: Any, count: int | None = None) -> list | tuple:
    """Returns a list of parts after checking that there are `count` (None: at least one)."""
    if not isinstance(node, list | tuple) or len(node) != (count or max(len(node), 1)):
        raise ValueError(f"want {where}: {count or 'one or more'} parts, in a row; got others")
    return node
