"""Checks of a decoder as a whole: facts, weights and context must belong together."""

from collections.abc import Mapping
from typing import Any, get_args

import jax
import numpy as np

from emojax import files, models
from emojax._numerics.polar import Method
from emojax.decoder.build import Decoder, Facts
from emojax.errors import InputError
from emojax.models import Network
from emojax.rules import Rule, each, flag, number, one_of, text, tuple_of, whole

MANY = 10**6
SCALE = {"vector": {"voxels"}, "volume": {"mean", "sd"}}  # beside what the folding returns
LATER = {"vector": {"centre", "temperature"}, "volume": {"temperature"}}  # since format 2
MEMBER, ROWS = {"params", "mean", "sd"}, {"template", "run", "frame"}  # of `calibrate`


def _are_names(value: Any) -> bool:
    return each(text, most=MANY).holds(value) and len(set(value)) == len(value) and all(value)


def _are_options(value: Any) -> bool:
    """Returns whether a value is a list of (name, value) of hyperalignment.Options."""
    pairs = tuple_of(text, Rule("anything", lambda _: True))
    if not each(pairs).holds(value) or len({name for name, _ in value}) < len(value):
        return False
    return all(name in OPTIONS and OPTIONS[name].holds(one) for name, one in value)


OPTIONS = {
    **dict.fromkeys(("scaling", "reflection", "demean", "zscore_common", "zscore_all"), flag),
    "alpha": number("[0, 1]"),
    "method": one_of(*get_args(Method)),
    "lowrank": one_of(None, True, False),
}
FACTS = {
    "classes": Rule("two names or more, each once", lambda v: _are_names(v) and len(v) > 1),
    "grid": tuple_of(*[whole("[1, 100000]")] * 3),
    "level": number("(-1e30, 1e30)"),
    "spread": number("(0, 1e30)"),
    "tr": Rule("seconds, or null", lambda v: v is None or number("(0, 1e6)").holds(v)),
    "subject": text,
    "preprocessing": each(text),
    "provenance": each(tuple_of(text, whole("[0, inf)"), whole("[0, inf)")), most=MANY),
    "runs": Rule("names, each once", _are_names),
    "alignment": Rule("options of hyperalignment.fit", _are_options),
    "kind": text,
    "left_out": text,
    "temperature": number("(0, 1e6]"),
    "members": each(tuple_of(text, *[number("(0, inf)")] * 2), most=MANY),
}


def read_facts(stored: Any, where: Any) -> Facts:
    """Returns the facts of a manifest, in which JSON had made lists of tuples.

    Args:
      stored: what JSON holds of them.
      where: the manifest, for messages.

    Raises:
      InputError: one is missing, unknown or out of range.
    """
    _need(isinstance(stored, dict), where, "facts that are no table", "those of a decoder")
    for name in stored:
        _need(name in FACTS, where, f"the fact {name!r}", f"some of {', '.join(FACTS)}")
    for name, rule in FACTS.items():
        if name in stored:
            _need(rule.holds(stored[name]), where, f"{name} {stored[name]!r}", rule.expected)
        else:
            _need(name in Facts._field_defaults, where, f"no {name}", rule.expected)
    return Facts(**{name: _as_tuples(value) for name, value in stored.items()})


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def check(decoder: Decoder, where: Any = "decoder") -> None:
    """Checks the arrays of a decoder against its facts and its network.

    Args:
      decoder: with arrays of NumPy or jax.
      where: its folder, for messages.

    Raises:
      InputError: names of another network, shapes that do not follow from each other, voxels
        outside the mask, or values that are not finite.
    """
    network, grid = models.find(decoder.network), tuple(decoder.facts.grid)
    mask, affine = decoder.mask, decoder.affine  # of NumPy
    _need(
        _is(mask, "b", grid) and mask.any(),
        f"{where}, mask",
        _show(mask),
        f"a bool mask of {grid}, not empty",
    )
    _need(
        affine is None or (_is(affine, "f", (4, 4)) and np.isfinite(affine).all()),
        f"{where}, affine",
        _show(affine),
        "finite values [4, 4]",
    )
    size = _check_weights(decoder, network, f"{where}, weights")
    if decoder.calibration is not None:
        _check_calibration(decoder, network, size, f"{where}, calibration")


def _check_weights(decoder: Decoder, network: Network, where: str) -> int:
    """Checks the weights, and returns the number of voxels of a vector."""
    _need(network.apply is not None, where, repr(decoder.network), "a network that can be folded")
    weights, flat, classes = decoder.weights, files.flatten(decoder.weights), decoder.facts.classes
    scale = SCALE[network.input]
    for name in scale:
        _need(name in flat, where, f"no {name}", f"the scale: {', '.join(sorted(scale))}")
    scale = scale | (LATER[network.input] & flat.keys())
    for name, array in flat.items():
        wanted = "f" if network.check_folded and name not in scale else "biuf"
        _need(_is(array, wanted), f"{where}: {name}", _show(array), "numbers as they were saved")
        good = name in SCALE["volume"] or np.isfinite(array).all()
        _need(good, f"{where}: {name}", "values that are not finite", "finite ones")
    size = 0
    if network.input == "vector":
        size = _check_voxels(flat["voxels"], decoder.mask, f"{where}: voxels")
        centre = flat.get("centre", np.zeros(size))
        _need(_is(centre, "f", (size,)), f"{where}: centre", _show(centre), f"numbers [{size}]")
    else:
        _check_scale(flat["mean"], flat["sd"], tuple(decoder.facts.grid), where)
    value = flat.get("temperature", np.ones(()))
    good = _is(value, "f", ()) and value > 0
    _need(bool(good), f"{where}: temperature", _show(value), "a number > 0")
    try:
        if network.check_folded is not None:
            own = {name: part for name, part in weights.items() if name not in scale}
            network.check_folded(own, size, len(classes))
        else:
            _check_outputs(decoder, network, size)
    except Exception as error:  # somebody else's network raises anything
        expected = f"those of {decoder.network} for {len(classes)} classes"
        raise InputError(where, f"weights that do not fit ({error})", expected) from None
    return size


def _check_voxels(voxels: np.ndarray, mask: np.ndarray, where: str) -> int:
    good = _is(voxels, "iu") and voxels.ndim == 1 and len(voxels) > 0
    _need(good, where, _show(voxels), "whole numbers [voxels]")
    inside = (voxels >= 0) & (voxels < mask.size)
    inside[inside] = mask.ravel()[voxels[inside]]
    found = f"{(~inside).sum()} of {len(voxels)} outside the mask"
    _need(bool(inside.all()), where, found, "positions inside the mask")
    _need(len(np.unique(voxels)) == len(voxels), where, "a position twice", "each once")
    return len(voxels)


def _check_scale(mean: np.ndarray, sd: np.ndarray, grid: tuple, where: str) -> None:
    """Checks the scale of volumes; sd is infinite where nothing varied."""
    for name, array in (("mean", mean), ("sd", sd)):
        good = _is(array, "f") and array.shape in ((), grid)
        _need(good, f"{where}: {name}", _show(array), f"numbers of shape () or {grid}")
    good = bool((sd > 0).all() and (np.isfinite(mean) | np.isinf(sd)).all())
    _need(good, f"{where}: scale", "an sd of 0, or a mean that is not finite", "sd > 0")


def _check_outputs(decoder: Decoder, network: Network, size: int) -> None:
    """Traces the network, and compares the shape of its logits.

    Raises:
      ValueError: another shape; or anything that somebody else's code raises.
    """
    shape = (1, size) if network.input == "vector" else (1, *decoder.facts.grid)
    weights = jax.tree.map(np.asarray, decoder.weights)
    x = jax.ShapeDtypeStruct(shape, np.float32)
    found, wanted = jax.eval_shape(network.apply, weights, x).shape, (1, len(decoder.facts.classes))
    if found != wanted:
        raise ValueError(f"want outputs {wanted}; got {found}")


def _check_calibration(decoder: Decoder, network: Network, size: int, where: str) -> None:
    """Checks what a new subject is calibrated with, member by member of a bag."""
    kept = decoder.calibration
    good = isinstance(kept, Mapping) and network.input == "vector"
    _need(good, where, "something else", "that of a network of vectors")
    if "members" not in kept:
        _check_member(kept, MEMBER, size, len(decoder.facts.runs), where)
        return
    good = set(kept) == {"members"} and isinstance(kept["members"], list) and kept["members"]
    _need(bool(good), where, f"{', '.join(sorted(kept))}", "a list of members")
    for i, own in enumerate(kept["members"]):
        place = f"{where}: members/{i}"
        good = isinstance(own, Mapping) and "voxels" in own
        _need(good, place, "no voxels", "those of a member")
        voxels = _check_voxels(own["voxels"], decoder.mask, f"{place}: voxels")
        _check_member(own, MEMBER | {"voxels"}, voxels, len(decoder.facts.runs), place)


def _check_member(
    kept: Mapping[str, Any], needed: set[str], size: int, runs: int, where: str
) -> None:
    """Checks what one network, or one member of a bag, is fitted to a new subject with."""
    names = needed | (ROWS if ROWS & kept.keys() else set())
    found = kept.keys() - {"batch_stats", "path"}
    _need(found == names, where, ", ".join(sorted(found)), ", ".join(sorted(names)))
    for name, array in files.flatten({k: kept[k] for k in kept.keys() - {"run", "frame"}}).items():
        good = _is(array, "biuf") and np.isfinite(array).all()
        _need(good, f"{where}: {name}", _show(array), "finite numbers")
    for name in ("mean", "sd"):
        found = np.shape(kept[name])
        _need(found == (size,), f"{where}: {name}", f"shape {found}", f"{(size,)} as the voxels")
    _need(bool((kept["sd"] >= 0).all()), f"{where}: sd", "negative values", "none")
    if "template" not in names:
        return
    shape = np.shape(kept["template"])
    good = len(shape) == 2 and shape[0] > 1 and shape[1] == size
    _need(good, f"{where}: template", f"shape {shape}", f"[rows, {size}]")
    most = {"run": runs or 2**31, "frame": 2**31}
    for name, end in most.items():
        array = np.asarray(kept[name])
        good = _is(array, "iu", shape[:1]) and array.min() >= 0 and array.max() < end
        _need(good, f"{where}: {name}", _show(array), f"{shape[0]} numbers from 0 to {end - 1}")


def _need(holds: bool, where: Any, found: Any, expected: str) -> None:
    if not holds:
        raise InputError(where, found, expected)


def _is(array: Any, kinds: str, shape: tuple | None = None) -> bool:
    """Returns whether something is an array of such a type, and of that shape."""
    dtype = getattr(array, "dtype", None)
    if dtype is None or dtype.kind not in kinds or shape not in (None, array.shape):
        return False
    return dtype.kind != "f" or dtype.itemsize in (4, 8)  # neither half nor extended precision


def _show(array: Any) -> str:
    """Returns type, shape and range of an array, for messages."""
    if not hasattr(array, "dtype"):
        return f"a {type(array).__name__}"
    shown = f"{array.dtype} of shape {array.shape}"
    if array.size and array.dtype.kind in "iuf":
        shown += f" with values from {np.min(array):g} to {np.max(array):g}"
    return shown
