"""Single volumes and image files: checked against the training volumes, then decoded."""

import os

import jax
import numpy as np
from jaxtyping import Float

from emojax import fusion, models
from emojax.data import grid, nifti
from emojax.decoder.build import Decoder
from emojax.errors import InputError

FACTOR = 3.0  # largest ratio of mean and sd inside the mask to those of the training volumes


def verify(decoder: Decoder, volume, affine=None, where: str = "volume") -> None:
    """Refuses a volume that is not like those that the decoder was trained on.

    Its mean inside the mask must lie within a factor of `FACTOR` of the training volumes' (where
    that is not near 0), and so must its sd over the mask.

    Args:
      decoder: the decoder.
      volume: [X, Y, Z].
      affine: voxel -> mm of the volume; None is not checked.
      where: name of the volume, for messages.

    Raises:
      InputError: another shape, affine or size of values, or values that are not finite.
    """
    facts, shape = decoder.facts, np.shape(volume)
    if shape != tuple(facts.grid):
        raise InputError(where, f"shape {shape}", f"{tuple(facts.grid)} as trained on")
    known = affine is not None and decoder.affine is not None
    if known and not grid.same(affine, decoder.affine, shape):
        off = grid.offset(affine, decoder.affine, shape)
        raise InputError(
            where, f"another affine (off by up to {off:.3g} voxels)", "that of training"
        )
    inside = np.asarray(volume)[decoder.mask]
    with np.errstate(invalid="ignore"):  # said below, in one line
        mean, sd = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
    if not np.isfinite(mean + sd):
        bad = int((~np.isfinite(inside)).sum())
        raise InputError(where, f"{bad} voxels of the mask that are not finite", "finite values")
    pairs = [("sd", sd, facts.spread)]
    if abs(facts.level) > facts.spread / 2:
        pairs.append(("mean", mean, facts.level))
    for name, got, usual in pairs:
        if not 1 / FACTOR < got / usual < FACTOR:
            expected = f"{usual / FACTOR:.3g} to {usual * FACTOR:.3g} as the training volumes"
            raise InputError(where, f"{name} {got:.3g} inside the mask", expected)


def onto_grid(
    decoder: Decoder, volumes: Float[np.ndarray, "... X Y Z"], affine
) -> tuple[Float[np.ndarray, "... X Y Z"], Float[np.ndarray, "4 4"] | None]:
    """Turns volumes whose axes are in another order or direction than the training volumes'.

    Returns:
      Volumes and their affine; as they came where a turn does not bring them onto the grid.
    """
    shape = volumes.shape[-3:]
    if affine is None or decoder.affine is None:
        return volumes, affine
    by = grid.turn(affine, shape, decoder.affine, tuple(decoder.facts.grid))
    if by is None or by.is_identity:
        return volumes, affine
    return by.apply(volumes, volumes.ndim - 3), grid.turned(affine, shape, by)


_probabilities = jax.jit(fusion.apply_to_inputs, static_argnums=0)


def decode(
    decoder: Decoder, volume: Float[np.ndarray, "X Y Z"], affine=None, where: str = "volume"
) -> Float[np.ndarray, " k"]:
    """Returns the probabilities of one volume, which is turned to the grid and checked first.

    Args:
      decoder: see `load`; calls are fast where its weights are on the device.
      volume: [X, Y, Z] in the units of the scanner, after the decoder's `facts.preprocessing`.
      affine: voxel -> mm of the volume; None is not checked.
      where: name of the volume, for messages.

    Raises:
      InputError: the volume does not pass `verify`, or the network has no finite output for it.
    """
    volume, affine = onto_grid(decoder, np.asarray(volume), affine)
    verify(decoder, volume, affine, where)
    x = np.asarray(volume, np.float32)
    if models.find(decoder.network).input == "vector":  # only these voxels go to the device
        x = x.reshape(-1)[np.asarray(decoder.weights["voxels"])]
    found = np.asarray(_probabilities(decoder.network, decoder.weights, x[None]))[0]
    if not np.isfinite(found).all():
        expected = "finite ones (the decoder's weights are out of range: export it again)"
        raise InputError(where, "probabilities that are not finite", expected)
    return found


def decode_file(decoder: Decoder, path: str | os.PathLike) -> Float[np.ndarray, "t k"]:
    """Returns the probabilities of every volume of an image file.

    Args:
      decoder: see `load`.
      path: .nii, .nii.gz or .img, 3-D or 4-D.

    Raises:
      InputError: no readable or whole image, or a volume that does not pass `verify`: then no
        volume is decoded.
    """
    values, affine = read_image(path)
    if values.ndim not in (3, 4):
        raise InputError(path, f"{values.ndim} axes", "one volume or a run")
    volumes = np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]
    found = [
        decode(decoder, volume, affine, f"{path}, volume {i}") for i, volume in enumerate(volumes)
    ]
    return np.stack(found)


def read_image(
    path: str | os.PathLike,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "4 4"]]:
    """Reads an image file: its values as scanned, float32, time last, and its affine.

    Args:
      path: .nii, .nii.gz or .img.

    Returns:
      The values, and the affine (voxel -> mm).

    Raises:
      InputError: no such file, or no readable or whole image of real numbers.
    """
    return nifti.read(path, "an image")
