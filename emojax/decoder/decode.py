"""Single volumes and image files: checked against the training volumes, then decoded."""

import functools
import math
import os
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from emojax import models
from emojax.data import grid, nifti
from emojax.decoder import guards, native, personal
from emojax.decoder.build import Decoder
from emojax.decoder.guards import Marks
from emojax.errors import InputError


def verify(
    decoder: Decoder,
    volume: Float[np.ndarray, "X Y Z"] | Float[np.ndarray, " v"],
    affine: Float[np.ndarray, "4 4"] | None = None,
    where: str = "volume",
    before: Float[np.ndarray, "X Y Z"] | None = None,
) -> Marks:
    """Refuses a volume that cannot be decoded, and marks a conspicuous one.

    The mean inside the mask must lie within a factor of `FACTOR` of that of the training volumes
    (unless that is near 0), and so must the sd over the mask. Other oddities are returned.

    Args:
      decoder: the decoder.
      volume: [X, Y, Z], or [v] for a decoder of vectors.
      affine: voxel -> mm of the volume; None is not checked.
      where: name of the volume, for messages.
      before: [X, Y, Z] the preceding volume of the run, to detect a repeated one.

    Returns:
      The marks, see `guards.marks`.

    Raises:
      InputError: another shape, affine or size of values, or values that are not finite.
    """
    check_grid(decoder, as_volumes(decoder, np.asarray(volume)).shape, affine, where)
    guard = guards.prepare(decoder)
    found = guards.look(guard, volume)
    if not np.isfinite(found.mean + found.length):
        bad = int((~np.isfinite(found.values)).sum())
        what = f"{bad} voxels of the mask that are not finite" if bad else "values beyond float32"
        raise InputError(where, what, "finite values")
    for name, got in (("sd", found.sd), ("mean", found.mean)):
        least, most = guard.bounds.get(name, (-np.inf, np.inf))
        if not least < got < most:
            expected = f"{least:.3g} to {most:.3g} as the training volumes"
            raise InputError(where, f"{name} {got:.3g} inside the mask", expected)
    same = before is not None and np.array_equal(volume, before)
    return guards.marks(guard, found, same)


def check_grid(
    decoder: Decoder, shape: tuple[int, ...], affine: Float[np.ndarray, "4 4"] | None, where: str
) -> None:
    """Refuses a volume that lies on another grid than the training volumes.

    Args:
      decoder: the decoder.
      shape: shape of the volume.
      affine: voxel -> mm of the volume; None is not checked.
      where: name of the volume, for messages.

    Raises:
      InputError: another shape or affine.
    """
    if shape != tuple(decoder.facts.grid):
        raise InputError(where, f"shape {shape}", f"{tuple(decoder.facts.grid)} as trained on")
    if affine is None or decoder.affine is None:
        return
    if not grid.same(affine, decoder.affine, shape):
        off = grid.offset(affine, decoder.affine, shape)
        raise InputError(
            where, f"another affine (off by up to {off:.3g} voxels)", "that of training"
        )


def as_volumes(
    decoder: Decoder, values: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "... X Y Z"]:
    """Returns vectors [..., v] as volumes [..., v, 1, 1], for a decoder of vectors.

    Other values are returned unchanged.
    """
    size = tuple(decoder.facts.grid)
    are_vectors = size[1:] == (1, 1) and values.shape[-1:] == size[:1]
    return values[..., None, None] if are_vectors else values


def onto_grid(
    decoder: Decoder,
    volumes: Float[np.ndarray, "... X Y Z"],
    affine: Float[np.ndarray, "4 4"] | None,
) -> tuple[Float[np.ndarray, "... X Y Z"], Float[np.ndarray, "4 4"] | None]:
    """Permutes and flips the axes of volumes to match the training volumes.

    Args:
      decoder: the decoder.
      volumes: [..., X, Y, Z], or [..., v] for a decoder of vectors.
      affine: voxel -> mm of the volumes; None leaves them as they are.

    Returns:
      Volumes and their affine, unchanged if no permutation brings them onto the grid.
    """
    volumes = as_volumes(decoder, volumes)
    shape = volumes.shape[-3:]
    if affine is None or decoder.affine is None or len(shape) < 3:
        return volumes, affine
    by = grid.turn(affine, shape, decoder.affine, tuple(decoder.facts.grid))
    if by is None or by.is_identity:
        return volumes, affine
    return by.apply(volumes, volumes.ndim - 3), grid.turned(affine, shape, by)


def decode(
    decoder: Decoder,
    volume: Float[np.ndarray, "X Y Z"] | Float[np.ndarray, " v"],
    affine: Float[np.ndarray, "4 4"] | None = None,
    where: str = "volume",
) -> Float[np.ndarray, " k"]:
    """Returns the probabilities of one volume after bringing it onto the grid and checking it.

    The volume is decoded without correction; `online.step` corrects it first.

    Args:
      decoder: see `load`; calls are fast if its weights are on the device.
      volume: [X, Y, Z] in the units of the scanner, after the decoder's `facts.preprocessing`; or
        [v] for a decoder of vectors.
      affine: voxel -> mm of the volume; None is not checked.
      where: name of the volume, for messages.

    Raises:
      InputError: the volume does not pass `verify`, the decoder is not calibrated yet or takes
        corrected volumes (`facts.online`), or the network's output is not finite.
    """
    personal.check_calibrated(decoder)
    if text := decoder.facts.online:
        expected = "emojax.online, which corrects each volume by those before it"
        raise InputError(where, f"a decoder of corrected volumes (data.online={text})", expected)
    volume, affine = onto_grid(decoder, np.asarray(volume), affine)
    verify(decoder, volume, affine, where)
    return decode_inputs(decoder, inputs(decoder, volume), where)


def inputs(decoder: Decoder, volume: Float[np.ndarray, "X Y Z"]) -> Float[np.ndarray, "..."]:
    """Returns the network's input: the chosen voxels [v] of a volume, or all of it."""
    x = np.asarray(volume, np.float32)
    if models.find(decoder.network).input == "vector":  # only these voxels go to the device
        x = x.reshape(-1)[np.asarray(decoder.weights["voxels"])]
    return x


def decode_inputs(
    decoder: Decoder, x: Float[np.ndarray, "..."], where: str = "volume"
) -> Float[np.ndarray, " k"]:
    """Returns the probabilities of the network's input, see `inputs`.

    Raises:
      InputError: the network's output is not finite.
    """
    found = native.probabilities(decoder, x)
    if not math.isfinite(found.sum()):
        expected = "finite ones (the decoder's weights are out of range: export it again)"
        raise InputError(where, "probabilities that are not finite", expected)
    return found


def decode_file(decoder: Decoder, path: str | os.PathLike) -> Float[np.ndarray, "t k"]:
    """Returns the probabilities of every volume of an image file.

    Args:
      decoder: see `load`.
      path: .nii, .nii.gz or .img, 3-D or 4-D.

    Raises:
      InputError: the image is incomplete or cannot be read, or a volume does not pass `verify`;
        then no volume is decoded.
    """
    volumes, affine = read_run(decoder, path)
    found = [
        decode(decoder, volume, affine, f"{path}, volume {i}") for i, volume in enumerate(volumes)
    ]
    return np.stack(found)


def read_run(
    decoder: Decoder, path: str | os.PathLike
) -> tuple[Float[np.ndarray, "t X Y Z"], Float[np.ndarray, "4 4"]]:
    """Reads the volumes of an image for a decoder, checking the header first.

    Args:
      decoder: see `load`.
      path: .nii, .nii.gz or .img, 3-D or 4-D.

    Raises:
      InputError: the image is incomplete or cannot be read, or its volumes have another shape.
    """
    values, affine = read_image(path, functools.partial(check_shape, decoder, path))
    return (np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]), affine


def check_shape(decoder: Decoder, path: str | os.PathLike, shape: tuple[int, ...]) -> None:
    """Refuses an image of another grid; its axes may be in any order.

    Raises:
      InputError: the image has another number of axes, or axes of other lengths.
    """
    grid = tuple(decoder.facts.grid)
    if len(shape) not in (3, 4):
        raise InputError(path, f"{len(shape)} axes", "one volume or a run")
    if sorted(shape[:3]) != sorted(grid):
        raise InputError(f"{path}, volume 0", f"shape {tuple(shape[:3])}", f"{grid} as trained on")


def read_image(
    path: str | os.PathLike, check: Callable[[tuple[int, ...]], None] = lambda shape: None
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "4 4"]]:
    """Reads the values and the affine of an image file.

    Args:
      path: .nii, .nii.gz or .img.
      check: function called with the shape in the header, before any value is read.

    Returns:
      The values as scanned (float32, time last), and the affine (voxel -> mm).

    Raises:
      InputError: the file does not exist, or is not a complete image of real numbers.
    """
    return nifti.read(path, "an image", check)
