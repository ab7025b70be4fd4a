"""Checks of a decoder as a whole: facts, weights and context must be consistent."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from emojax import files, models
from emojax.decoder import shapes
from emojax.decoder.build import Decoder
from emojax.decoder.shapes import need


def check(decoder: Decoder, where: Any = "decoder") -> None:
    """Checks the arrays of a decoder against its facts and its network.

    Args:
      decoder: a decoder whose arrays are NumPy's or jax's.
      where: its folder, for messages.

    Raises:
      InputError: parameters of another network, inconsistent shapes, voxels outside the mask, or
        values that are not finite.
    """
    facts, mask, network = decoder.facts, decoder.mask, models.find(decoder.network)
    context = {"mask": mask, "affine": decoder.affine, "reference": decoder.reference}
    shapes.check_context({k: v for k, v in context.items() if v is not None}, facts, where)
    need(bool(mask.any()), f"{where}, mask", "no voxel", "one or more")
    if decoder.affine is not None:
        _check_finite(decoder.affine, f"{where}, affine")
    if decoder.reference is not None:
        _check_finite(np.asarray(decoder.reference)[mask], f"{where}, reference inside the mask")
    inside = int(mask.sum())
    size = shapes.check_weights(decoder.weights, decoder.network, facts, inside, where)
    flat = files.flatten(decoder.weights)
    if network.input == "vector":
        _check_voxels(flat["voxels"], mask, f"{where}, weights: voxels")
    else:
        _check_scale(flat.pop("mean"), flat.pop("sd"), f"{where}, weights: scale")
    for name, array in flat.items():
        _check_finite(array, f"{where}, weights: {name}")
    temperature = flat.get("temperature", 1)
    need(bool(temperature > 0), f"{where}, weights: temperature", f"{temperature}", "a number > 0")
    if decoder.calibration is not None:
        shapes.check_calibration(decoder.calibration, network, size, facts, where)
        _check_calibration(decoder.calibration, decoder, f"{where}, calibration")


def _check_calibration(kept: Mapping[str, Any], decoder: Decoder, where: str) -> None:
    for i, own in enumerate(kept.get("members", [])):
        _check_voxels(own["voxels"], decoder.mask, f"{where}: members/{i}/voxels")
        _check_calibration(own, decoder, f"{where}: members/{i}")
    if "members" in kept:
        return
    for name, array in files.flatten(kept).items():
        _check_finite(array, f"{where}: {name}")
    need(bool((kept["sd"] >= 0).all()), f"{where}: sd", "negative values", "none")
    runs = len(decoder.facts.runs)
    for name, end in {"run": runs or 2**31, "frame": 2**31}.items():
        if name in kept:
            least, most = int(kept[name].min()), int(kept[name].max())
            good, found = least >= 0 and most < end, f"numbers from {least} to {most}"
            need(good, f"{where}: {name}", found, f"numbers from 0 to {end - 1}")


def _check_voxels(voxels: np.ndarray, mask: np.ndarray, where: str) -> None:
    inside = (voxels >= 0) & (voxels < mask.size)
    inside[inside] = mask.ravel()[voxels[inside]]
    found = f"{(~inside).sum()} of {len(voxels)} outside the mask"
    need(bool(inside.all()), where, found, "positions inside the mask")
    need(len(np.unique(voxels)) == len(voxels), where, "a position twice", "each once")


def _check_scale(mean: np.ndarray, sd: np.ndarray, where: str) -> None:
    """Checks the scale of volumes; sd is infinite where nothing varied."""
    good = bool((sd > 0).all() and (np.isfinite(mean) | np.isinf(sd)).all())
    need(good, where, "an sd of 0, or a mean that is not finite", "sd > 0")


def _check_finite(array: np.ndarray, where: str) -> None:
    need(bool(np.isfinite(array).all()), where, "values that are not finite", "finite ones")
