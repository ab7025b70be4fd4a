"""Types and shapes of a decoder's arrays, which must follow from its facts and its network.

No value is read, so that dummy arrays made from the headers of a file suffice.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from emojax import files, models
from emojax.decoder.build import Facts
from emojax.errors import InputError
from emojax.models import Network

SCALE = {"vector": {"voxels"}, "volume": {"mean", "sd"}}  # in addition to the folded weights
LATER = {"vector": {"centre", "temperature"}, "volume": {"temperature"}}  # since format 2
MEMBER, ROWS = {"params", "mean", "sd"}, {"template", "run", "frame"}  # read by `calibrate`
LARGEST = {"vector": 1 << 26, "volume": 1 << 31}  # bytes of weights; for a vector, in addition
PER_VOXEL = 1 << 14  # bytes for each voxel inside the mask: 4,096 numbers
KINDS = {"b": "a bool mask", "f": "float32 or float64", "iu": "whole numbers", "biuf": "numbers"}


def check_context(context: Mapping[str, Any], facts: Facts, where: Any) -> None:
    """Checks the types and shapes of mask, affine and reference.

    Raises:
      InputError: one of them is wrong; the message names it.
    """
    grid = tuple(facts.grid)
    wanted = {"mask": ("b", grid), "affine": ("f", (4, 4)), "reference": ("f", grid)}
    good = {"mask"} <= context.keys() <= wanted.keys()
    found = ", ".join(sorted(context)) or "nothing"
    need(good, f"{where}, context", found, "mask, optionally affine and reference")
    for name, array in context.items():
        kinds, shape = wanted[name]
        expected = f"{KINDS[kinds]} of {shape}"
        need(_is(array, kinds, shape), f"{where}, {name}", _show(array), expected)


def check_weights(
    weights: Mapping[str, Any], name: str, facts: Facts, inside: int, where: Any
) -> int:
    """Checks the types and shapes of weights; returns the number of voxels of a vector.

    Args:
      weights: weights of a decoder.
      name: name of the network.
      facts: facts of the decoder.
      inside: number of voxels inside the mask.
      where: folder of the decoder, for messages.

    Raises:
      InputError: the weights do not match the network and the facts.
    """
    where, network = f"{where}, weights", models.find(name)
    need(network.apply is not None, where, repr(name), "a network that can be folded")
    flat = files.flatten(weights)
    most = LARGEST[network.input] + (PER_VOXEL * inside if network.input == "vector" else 0)
    total = sum(array.nbytes for array in flat.values())
    need(total <= most, where, f"{total:,} bytes", f"at most {most:,} for this mask and network")
    scale = SCALE[network.input]
    for part in scale:
        need(part in flat, where, f"no {part}", f"the scale: {', '.join(sorted(scale))}")
    scale = scale | (LATER[network.input] & flat.keys())
    for part, array in flat.items():
        kinds = "f" if network.check_folded and part not in scale else "biuf"
        need(_is(array, kinds), f"{where}: {part}", _show(array), KINDS[kinds])
    size = 0
    if network.input == "vector":
        size = _check_voxels(flat["voxels"], f"{where}: voxels")
        centre = flat.get("centre", np.zeros(size))
        need(_is(centre, "f", (size,)), f"{where}: centre", _show(centre), f"numbers [{size}]")
    else:
        for part in ("mean", "sd"):
            good = _is(flat[part], "f") and _covers(flat[part].shape, facts.grid)
            need(
                good, f"{where}: {part}", _show(flat[part]), f"one number, or {facts.grid} of them"
            )
    value = flat.get("temperature", np.ones(()))
    need(_is(value, "f", ()), f"{where}: temperature", _show(value), "one number")
    classes = len(facts.classes)
    try:
        if network.check_folded is not None:
            own = {part: array for part, array in weights.items() if part not in scale}
            network.check_folded(own, size, classes)
        else:
            _check_outputs(network, weights, size, facts)
    except Exception as error:  # a user's network may raise anything
        expected = f"those of {name} for {classes} classes"
        raise InputError(where, f"weights that do not fit ({error})", expected) from None
    return size


def _covers(shape: tuple[int, ...], grid: tuple[int, int, int]) -> bool:
    """Returns whether a scale is one number or covers the grid, perhaps with padding."""
    return not shape or (len(shape) == 3 and all(np.greater_equal(shape, grid)))


def _check_outputs(network: Network, weights: Mapping[str, Any], size: int, facts: Facts) -> None:
    """Traces the network and checks the shape of its logits.

    Raises:
      ValueError: the shape is another one. A user's network may raise anything else.
    """
    shape = (1, size) if network.input == "vector" else (1, *facts.grid)
    assert network.apply is not None  # by `check_weights`
    weights = jax.tree.map(np.asarray, weights)
    x = jax.ShapeDtypeStruct(shape, np.float32)
    found, wanted = jax.eval_shape(network.apply, weights, x).shape, (1, len(facts.classes))
    if found != wanted:
        raise ValueError(f"want outputs {wanted}; got {found}")


def check_calibration(kept: Any, network: Network, size: int, facts: Facts, where: Any) -> None:
    """Checks the types and shapes of calibration data, member by member of a bag.

    Args:
      kept: `Decoder.calibration`.
      network: network of the decoder.
      size: number of voxels of a vector.
      facts: facts of the decoder.
      where: folder of the decoder, for messages.

    Raises:
      InputError: names or shapes are inconsistent.
    """
    where = f"{where}, calibration"
    good = isinstance(kept, Mapping) and network.input == "vector"
    need(good, where, "something else", "that of a network of vectors")
    if "members" not in kept:
        _check_member(kept, MEMBER, size, where)
        return
    good = set(kept) == {"members"} and isinstance(kept["members"], list) and kept["members"]
    need(bool(good), where, f"{', '.join(sorted(kept))}", "a list of members")
    for i, own in enumerate(kept["members"]):
        place = f"{where}: members/{i}"
        good = isinstance(own, Mapping) and "voxels" in own
        need(good, place, "no voxels", "those of a member")
        voxels = _check_voxels(own["voxels"], f"{place}: voxels")
        _check_member(own, MEMBER | {"voxels"}, voxels, place)


def _check_member(kept: Mapping[str, Any], needed: set[str], size: int, where: str) -> None:
    """Checks the types and shapes of one network's, or one member's, calibration data."""
    names = needed | (ROWS if ROWS & kept.keys() else set())
    found = kept.keys() - {"batch_stats", "path", "label"}
    need(found == names, where, ", ".join(sorted(found)), ", ".join(sorted(names)))
    for name, array in files.flatten(kept).items():
        need(_is(array, "biuf"), f"{where}: {name}", _show(array), KINDS["biuf"])
    for name in ("mean", "sd"):
        found = np.shape(kept[name])
        need(found == (size,), f"{where}: {name}", f"shape {found}", f"{(size,)} as the voxels")
    if "template" not in names:
        return
    shape = np.shape(kept["template"])
    good = len(shape) == 2 and shape[0] > 1 and shape[1] == size
    need(good, f"{where}: template", f"shape {shape}", f"[rows, {size}]")
    for name in ("run", "frame", *({"label"} & kept.keys())):
        good = _is(kept[name], "iu", shape[:1])
        need(good, f"{where}: {name}", _show(kept[name]), f"{shape[0]} whole numbers")


def _check_voxels(voxels: Any, where: str) -> int:
    good = _is(voxels, "iu") and voxels.ndim == 1 and len(voxels) > 0
    need(good, where, _show(voxels), "whole numbers [voxels]")
    return len(voxels)


def need(holds: bool, where: Any, found: Any, expected: str) -> None:
    """Raises an InputError unless a condition holds.

    Raises:
      InputError: the condition does not hold.
    """
    if not holds:
        raise InputError(where, found, expected)


def _is(array: Any, kinds: str, shape: tuple | None = None) -> bool:
    """Returns whether an object is an array of one of these kinds, and of the shape if given."""
    dtype = getattr(array, "dtype", None)
    if dtype is None or dtype.kind not in kinds or shape not in (None, array.shape):
        return False
    return dtype.kind != "f" or dtype.itemsize in (4, 8)  # neither half nor extended precision


def _show(array: Any) -> str:
    """Returns the dtype and shape of an array, for messages."""
    if not hasattr(array, "dtype"):
        return f"a {type(array).__name__}"
    return f"{array.dtype} of shape {array.shape}"
