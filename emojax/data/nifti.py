"""Image files: their headers, and values mapped from disk."""

import contextlib
import hashlib
import io
import logging
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import nibabel as nib
import numpy as np
from jaxtyping import Float
from nibabel import imageglobals
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import FileBasedHeader
from nibabel.spatialimages import SpatialHeader, SpatialImage

from emojax.data import hashes
from emojax.data.paths import require_file
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.files import cause

HEADER = 540  # bytes of the longest header
TRAILING = 1 << 16  # bytes that may follow the last voxel: some tools pad files to whole blocks
INFLATION = 1040  # upper limit of the compression ratio of gzip
OTHER = {".img": ".hdr", ".hdr": ".img"}  # suffix of the other file of a pair
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}  # NIfTI's units of time

Path = str | os.PathLike
# nibabel also prints what it raises or repairs. (Disabling the logger would not survive a call of
# logging.config elsewhere.)
imageglobals.logger.setLevel(logging.CRITICAL + 1)


class Scan(NamedTuple):
    """A mapped, uncompressed image."""

    frames: np.ndarray  # [t, X, Y, Z] (t = 1 for a 3-D file), stored units
    slope: float
    intercept: float
    affine: np.ndarray  # [4, 4] float64, voxel -> mm
    tr: float | None  # s; None if the header has none


def load(path: Path, expected: str = "NIfTI-1/2 or Analyze") -> SpatialImage:
    """Opens any image that nibabel reads, leaving its values on disk.

    Args:
      path: the image.
      expected: description of the expected file, for messages.

    Raises:
      InputError: the path is not a regular file, its other half is missing, or it is not an image.
    """
    for part in parts(pathlib.Path(path)):
        require_file(part, expected)
    try:
        return _spatial(nib.load(path))
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
      expected: description of the expected file, for messages.
      check: function called with the shape in the header before any value is read; it may raise.

    Raises:
      InputError: as `load`, or the file is not a complete image of real numbers.
    """
    image = load(path, expected)
    try:
        proxy, affine = _check_header(image)
        check(tuple(image.shape))
        with np.errstate(all="ignore"):  # the caller checks for values that are not finite
            return np.asarray(proxy, np.float32), affine
    except InputError:
        raise
    except Exception as error:  # nibabel raises many types on damaged files
        raise InputError(path, f"no readable image ({cause(error)})", expected) from None


def read_volume(
    path: Path, expected: str
) -> tuple[Float[np.ndarray, "X Y Z"], Float[np.ndarray, "4 4"]]:
    """Reads an image of one volume as `read` does.

    Raises:
      InputError: as `read`, or the image is not a single volume.
    """
    values, affine = read(path, expected)
    return values.reshape(shape_of_volume(path, values.shape)), affine


def shape_of_volume(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Returns (X, Y, Z) of an image [X, Y, Z] or [X, Y, Z, 1].

    Raises:
      InputError: the shape is neither.
    """
    if len(shape) not in (3, 4) or shape[3:] not in ((), (1,)):
        raise InputError(path, f"an image of shape {shape}", "one volume [X, Y, Z]")
    x, y, z = shape[:3]
    return x, y, z


def _spatial(image: object) -> SpatialImage:
    if not isinstance(image, SpatialImage):
        raise TypeError(f"no image of voxels but a {type(image).__name__}")
    return image


def _mapped(image: SpatialImage) -> tuple[ArrayProxy, str, Float[np.ndarray, "4 4"]]:
    """Returns values on disk, file name and affine of a loaded image.

    Raises:
      ValueError: one is missing.
    """
    file, affine = image.file_map["image"].filename, image.affine
    if file is None or affine is None:
        raise ValueError("no file of values, or no affine")
    return cast(ArrayProxy, image.dataobj), file, affine  # dataobj is an ndarray only in memory


def _check_header(image: SpatialImage) -> tuple[ArrayProxy, Float[np.ndarray, "4 4"]]:
    """Checks a header before memory is allocated for its values; returns values and affine.

    Raises:
      ValueError: values are not real numbers or more than the file can hold, or the affine is not
        finite.
    """
    proxy, file, affine = _mapped(image)
    if proxy.dtype.kind not in "iuf":
        raise ValueError(f"values of type {proxy.dtype}")
    if not proxy.shape or min(proxy.shape) < 1:
        raise ValueError(f"shape {proxy.shape}")
    size = math.prod(map(int, proxy.shape)) * proxy.dtype.itemsize
    zipped = not str(file).endswith((".nii", ".img", ".hdr"))
    if size > os.path.getsize(file) * (INFLATION if zipped else 1):
        raise ValueError(f"{size} bytes by its header, more than the file can hold")
    if not np.isfinite(affine).all():
        raise ValueError("an affine that is not finite")
    return proxy, affine


def open_mapped(mapped: pathlib.Path, path: pathlib.Path) -> Scan:
    """Maps an uncompressed image.

    Args:
      mapped: the uncompressed file: `path` itself, or the .nii that was decoded from it, under any
        name.
      path: the file that the user named, for messages.

    Raises:
      InputError: nibabel cannot read the image, it does not have 3 or 4 axes, or its length is not
        the one in its header.
    """
    image = load(path) if mapped == path else _load_decoded(mapped, path)
    try:
        proxy, file, affine = _mapped(image)
    except ValueError as error:
        raise InputError(path, error, "NIfTI-1/2 or Analyze") from None
    wanted = _length(path, proxy.shape, proxy.dtype, proxy.offset)
    there = os.path.getsize(file)
    if not wanted <= there <= wanted + TRAILING:
        raise InputError(path, f"{there} bytes", f"{wanted} as its header says")
    # NIfTI's first axis is the fastest: in C order the file is [t, Z, Y, X].
    stored = np.memmap(file, proxy.dtype, "r", proxy.offset, (*proxy.shape, 1)[:4][::-1])
    frames = stored.transpose(0, 3, 2, 1)
    with np.errstate(all="ignore"):
        regular = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-9
    if not regular:
        raise InputError(path, "an affine that is singular or not finite", "voxel -> mm")
    slope = 1.0 if proxy.slope is None else float(proxy.slope)
    intercept = 0.0 if proxy.inter is None else float(proxy.inter)
    return Scan(frames, slope, intercept, affine, repetition_time(image.header))


def repetition_time(header: FileBasedHeader) -> float | None:
    """Returns the TR in a header, s; None if it has none, or does not state its unit.

    Many tools write a step of 1 in unknown units if they do not know the TR.
    """
    if not isinstance(header, SpatialHeader):
        return None
    zooms, units = header.get_zooms(), ""
    if isinstance(header, nib.Nifti1Header):  # Analyze has no units
        with contextlib.suppress(KeyError):  # an unknown code
            units = str(header.get_xyzt_units()[1])
    if units not in SECONDS or len(zooms) < 4 or not np.isfinite(zooms[3]) or zooms[3] <= 0:
        return None
    return round(float(zooms[3]) * SECONDS[units], 6) or None


def size(path: pathlib.Path, start: bytes) -> int:
    """Returns the number of bytes of a complete, uncompressed .nii file.

    Args:
      path: the file that the user named, for messages.
      start: at least the first `HEADER` bytes of the image, or all of a shorter one.

    Raises:
      InputError: the start is not a NIfTI header, or that of an unsupported image.
    """
    kind = _kind(path, start)
    try:
        header = kind.header_class.from_fileobj(io.BytesIO(start))
        layout = header.get_data_shape(), header.get_data_dtype(), header.get_data_offset()
    except Exception as error:  # nibabel raises many types on damaged headers
        raise InputError(path, f"a damaged header ({error})", "NIfTI-1/2") from None
    return _length(path, *layout)


def parts(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of an image, `path` first: a single file, or header and values of a pair.

    SPM keeps the affine of Analyze images in a third file, which nibabel reads.

    Raises:
      InputError: the other half of a pair is missing, or one of them cannot be read.
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
    """Counts the voxels that are NaN or infinite as float32, volume by volume.

    Args:
      mapped: the uncompressed file, see `open_mapped`.
      path: the file that the user named, for messages.

    Returns:
      "nan_voxels": number of voxels that are not finite in any volume; "nan_places": a hash of
      their places, "" without any; "bad_volume", "bad_count": the first volume with more such
      voxels and their number, or None and 0.

    Raises:
      InputError: as `open_mapped`, or a value is finite in the file but not as float32.
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
        "nan_places": hashlib.sha256(np.packbits(always).data).hexdigest() if voxels else "",
        "bad_volume": first,
        "bad_count": 0 if first is None else counts[first],
    }


def _is_finite(scan: Scan) -> bool:
    """Returns whether all values must be finite: whole numbers, scaled to within float32."""
    if scan.frames.dtype.kind == "f":
        return False
    largest = max(-int(np.iinfo(scan.frames.dtype).min), int(np.iinfo(scan.frames.dtype).max))
    return largest * abs(scan.slope) + abs(scan.intercept) < float(np.finfo(np.float32).max)


def _load_decoded(mapped: pathlib.Path, path: pathlib.Path) -> nib.Nifti1Image:
    """Opens a decoded .nii, whatever its name."""
    with open(mapped, "rb") as file:
        kind = _kind(path, file.read(HEADER))
    try:
        return kind.from_file_map(kind.make_file_map({"image": os.fspath(mapped)}))
    except Exception as error:  # nibabel raises many types on damaged headers
        raise InputError(path, f"no readable image ({cause(error)})", "NIfTI-1/2") from None


def _kind(path: pathlib.Path, start: bytes) -> type[nib.Nifti1Image]:
    """Returns the type of image, NIfTI-1 or NIfTI-2, that starts with these bytes."""
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
    """Returns the number of bytes of an uncompressed image, up to its last voxel.

    Raises:
      InputError: the layout is not that of one or more volumes.
    """
    if len(shape) not in (3, 4) or min(shape) < 1 or offset < 0 or dtype.kind not in "iuf":
        found = f"{dtype} of shape {shape}"
        raise InputError(path, found, "real numbers [X, Y, Z] or [X, Y, Z, t]")
    return offset + math.prod(map(int, shape)) * dtype.itemsize
