"""Image files: facts of the header, and values mapped from disk."""

import contextlib
import hashlib
import io
import logging
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from jaxtyping import Float

from emojax.data import hashes
from emojax.data.paths import require_file
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.files import cause

HEADER = 540  # bytes of the longest header
TRAILING = 1 << 16  # bytes that may follow the last voxel: some tools pad files to whole blocks
INFLATION = 1040  # bytes that one byte of a gzip file can become
OTHER = {".img": ".hdr", ".hdr": ".img"}  # half of a pair
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}  # NIfTI's units of time

Path = str | os.PathLike
# It prints what it raises, too, and what it repairs. (Others' logging.config enables loggers anew.)
nib.imageglobals.logger.setLevel(logging.CRITICAL + 1)


class Scan(NamedTuple):
    """An uncompressed image, mapped."""

    frames: np.ndarray  # [t, X, Y, Z] (t = 1 for a 3-D file), stored units
    slope: float
    intercept: float
    affine: np.ndarray  # [4, 4] float64, voxel -> mm
    tr: float | None  # s; None where the header has none


def load(path: Path, expected: str = "NIfTI-1/2 or Analyze") -> nib.spatialimages.SpatialImage:
    """Opens any image that nibabel reads; its values stay on disk.

    Args:
      path: the image.
      expected: for messages.

    Raises:
      InputError: it is no regular file, its other half is missing, or it is no image.
    """
    for part in parts(pathlib.Path(path)):
        require_file(part, expected)
    try:
        return nib.load(path)
    except Exception as error:  # nibabel raises many types on damaged headers
        raise InputError(path, f"no readable image ({cause(error)})", expected) from None


def read(
    path: Path,
    expected: str,
    check: Callable[[tuple[int, ...]], None] = lambda shape: None,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "4 4"]]:
    """Reads the values of an image as float32, time last, and its affine.

    Args:
      path: .nii, .nii.gz or .img.
      expected: for messages.
      check: called with the shape in the header before a value is read; it may raise.

    Raises:
      InputError: as `load`, or it is no whole image of real numbers.
    """
    image = load(path, expected)
    try:
        _check_header(image)
        check(tuple(image.shape))
        with np.errstate(all="ignore"):  # values that are not finite are for others to judge
            return np.asarray(image.dataobj, np.float32), image.affine
    except InputError:
        raise
    except Exception as error:  # nibabel raises many types on damaged files
        raise InputError(path, f"no readable image ({cause(error)})", expected) from None


def read_volume(
    path: Path, expected: str
) -> tuple[Float[np.ndarray, "X Y Z"], Float[np.ndarray, "4 4"]]:
    """Reads an image of one volume as `read` does.

    Raises:
      InputError: as `read`, or it is not one volume.
    """
    values, affine = read(path, expected)
    return values.reshape(shape_of_volume(path, values.shape)), affine


def shape_of_volume(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns (X, Y, Z) of an image [X, Y, Z] or [X, Y, Z, 1].

    Raises:
      InputError: it is neither.
    """
    if len(shape) not in (3, 4) or shape[3:] not in ((), (1,)):
        raise InputError(path, f"an image of shape {shape}", "one volume [X, Y, Z]")
    x, y, z = shape[:3]
    return x, y, z


def _check_header(image: nib.spatialimages.SpatialImage) -> None:
    """Checks what a header promises, before memory is taken for it.

    Raises:
      ValueError: values that are no real numbers, more of them than the file can hold, or an affine
        that is not finite.
    """
    proxy, file = image.dataobj, image.file_map["image"].filename
    if proxy.dtype.kind not in "iuf":
        raise ValueError(f"values of type {proxy.dtype}")
    if not proxy.shape or min(proxy.shape) < 1:
        raise ValueError(f"shape {proxy.shape}")
    size = math.prod(map(int, proxy.shape)) * proxy.dtype.itemsize
    zipped = not str(file).endswith((".nii", ".img", ".hdr"))
    if size > os.path.getsize(file) * (INFLATION if zipped else 1):
        raise ValueError(f"{size} bytes by its header, more than the file can hold")
    if not np.isfinite(image.affine).all():
        raise ValueError("an affine that is not finite")


def open_mapped(mapped: pathlib.Path, path: pathlib.Path) -> Scan:
    """Maps an uncompressed image.

    Args:
      mapped: the uncompressed file: `path` itself, or the .nii that was decoded from it, under any
        name.
      path: the file that the user named, for messages.

    Raises:
      InputError: it is no image that nibabel reads, has no 3 or 4 axes, or is not as long as its
        header says.
    """
    image = load(path) if mapped == path else _load_decoded(mapped, path)
    proxy, affine = image.dataobj, image.affine
    wanted = _length(path, proxy.shape, proxy.dtype, proxy.offset)
    file = image.file_map["image"].filename
    there = os.path.getsize(file)
    if not wanted <= there <= wanted + TRAILING:
        raise InputError(path, f"{there} bytes", f"{wanted} as its header says")
    # NIfTI's first axis runs fastest: in C order the file is [t, Z, Y, X].
    stored = np.memmap(file, proxy.dtype, "r", proxy.offset, (*proxy.shape, 1)[:4][::-1])
    frames = stored.transpose(0, 3, 2, 1)
    with np.errstate(all="ignore"):
        regular = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9
    if not regular:
        raise InputError(path, "an affine that is singular or not finite", "voxel -> mm")
    slope = 1.0 if proxy.slope is None else float(proxy.slope)
    intercept = 0.0 if proxy.inter is None else float(proxy.inter)
    return Scan(frames, slope, intercept, affine, repetition_time(image.header))


def repetition_time(header: nib.spatialimages.SpatialHeader) -> float | None:
    """Returns the TR in a header, s; None where it has none, or does not say in which unit.

    A step of 1 in unknown units is what many tools write when they do not know the TR.
    """
    zooms, units = header.get_zooms(), ""
    with contextlib.suppress(AttributeError, KeyError):  # Analyze has no units; an unknown code
        units = header.get_xyzt_units()[1]
    if units not in SECONDS or len(zooms) < 4 or not np.isfinite(zooms[3]) or zooms[3] <= 0:
        return None
    return round(float(zooms[3]) * SECONDS[units], 6) or None


def size(path: pathlib.Path, start: bytes) -> int:
    """Returns the bytes of a whole uncompressed .nii file.

    Args:
      path: the file that the user named, for messages.
      start: the first `HEADER` bytes of the image or more; a shorter image, whole.

    Raises:
      InputError: the start is no NIfTI header, or one of another kind of image.
    """
    kind = _kind(path, start)
    try:
        header = kind.header_class.from_fileobj(io.BytesIO(start))
        layout = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    except Exception as error:  # nibabel raises many types on damaged headers
        raise InputError(path, f"a damaged header ({error})", "NIfTI-1/2") from None
    return _length(path, *layout)


def parts(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of an image, `path` first: one, or header and values of a pair.

    Beside Analyze images, SPM keeps the affine in a third file, which nibabel reads.

    Raises:
      InputError: the other half of a pair is missing, or one of the two cannot be read.
    """
    if path.suffix not in OTHER:
        return [path]
    other, matrix = path.with_suffix(OTHER[path.suffix]), path.with_suffix(".mat")
    hashes.stamp(path)
    if not os.path.lexists(other):
        raise InputError(other, "no such file", f"the other half of {path}")
    hashes.stamp(other)
    if not os.path.exists(matrix) or _starts_nifti(path.with_suffix(".hdr")):
        return [path, other]
    return [path, other, matrix]


def non_finite(mapped: pathlib.Path, path: pathlib.Path) -> dict[str, Any]:
    """Counts the voxels that a run reads as NaN or infinite, volume by volume.

    Returns:
      "nan_voxels": how many are so in every volume; "nan_places": a hash of their places, "" where
      there are none; "bad_volume", "bad_count": the first volume with more than those and its
      count, or None and 0.

    Raises:
      InputError: as `open_mapped`, or a value is finite in the file, but not as float32.
    """
    scan = open_mapped(mapped, path)
    run = Run("", "", scan.frames, slope=scan.slope, intercept=scan.intercept)
    none = {"nan_voxels": 0, "nan_places": "", "bad_volume": None, "bad_count": 0}
    if _is_finite(scan):
        return none
    always, counts = np.ones(scan.frames.shape[1:], bool), []
    for t in range(len(scan.frames)):
        with np.errstate(all="ignore"):
            bad = ~np.isfinite(run.read(slice(t, t + 1))[0])
            if bad.any() and (beyond := int((bad & np.isfinite(scan.frames[t])).sum())):
                found = f"{beyond} values too large for float32 in volume {t}, as they are scaled"
                raise InputError(path, found, "values below 3.4e38")
        counts.append(int(bad.sum()))
        always &= bad
    if not any(counts):
        return none
    voxels = int(always.sum())
    first = next((t for t, count in enumerate(counts) if count > voxels), None)
    return {
        "nan_voxels": voxels,
        "nan_places": hashlib.sha256(np.packbits(always)).hexdigest() if voxels else "",
        "bad_volume": first,
        "bad_count": 0 if first is None else counts[first],
    }


def _is_finite(scan: Scan) -> bool:
    """Returns whether every value is finite by its type: whole numbers, scaled within float32."""
    if scan.frames.dtype.kind == "f":
        return False
    largest = max(-int(np.iinfo(scan.frames.dtype).min), int(np.iinfo(scan.frames.dtype).max))
    return largest * abs(scan.slope) + abs(scan.intercept) < float(np.finfo(np.float32).max)


def _load_decoded(mapped: pathlib.Path, path: pathlib.Path) -> nib.Nifti1Image:
    """Opens a decoded .nii, whose name need not tell its type."""
    with open(mapped, "rb") as file:
        kind = _kind(path, file.read(HEADER))
    try:
        return kind.from_file_map(kind.make_file_map({"image": os.fspath(mapped)}))
    except Exception as error:  # nibabel raises many types on damaged headers
        raise InputError(path, f"no readable image ({cause(error)})", "NIfTI-1/2") from None


def _kind(path: pathlib.Path, start: bytes) -> type[nib.Nifti1Image]:
    """Returns NIfTI-1 or NIfTI-2, whichever starts like this."""
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        header = kind.header_class
        if len(start) >= header.sizeof_hdr and header.may_contain_header(start):
            return kind
    raise InputError(path, "no NIfTI header", "a .nii.gz image")


def _starts_nifti(header: pathlib.Path) -> bool:
    start = next(hashes.chunks(header), b"")
    pairs = (nib.Nifti1Pair.header_class, nib.Nifti2Pair.header_class)
    return any(len(start) >= h.sizeof_hdr and h.may_contain_header(start) for h in pairs)


def _length(path: pathlib.Path, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> int:
    """Returns the bytes of an uncompressed image, up to its last voxel.

    Raises:
      InputError: its layout is not that of a volume, or of several.
    """
    if len(shape) not in (3, 4) or min(shape) < 1 or offset < 0 or dtype.kind not in "iuf":
        found = f"{dtype} of shape {shape}"
        raise InputError(path, found, "real numbers [X, Y, Z] or [X, Y, Z, t]")
    return offset + math.prod(map(int, shape)) * dtype.itemsize
