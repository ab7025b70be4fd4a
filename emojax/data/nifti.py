"""Image files: facts of the header, hashes, and values mapped from disk."""

import hashlib
import io
import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import nibabel as nib
import numpy as np

from emojax.errors import InputError

HEADER = 348  # bytes of the smallest header
CHUNK = 1 << 18  # bytes read at a time; zeros can inflate to a thousand times that
SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}  # NIfTI's units of time


class Scan(NamedTuple):
    """An uncompressed image, mapped."""

    frames: np.ndarray  # [t, X, Y, Z] (t = 1 for a 3-D file), stored units
    slope: float
    intercept: float
    affine: np.ndarray  # [4, 4] float64, voxel -> mm
    tr: float | None  # s; None where the header has none


def open_mapped(mapped: pathlib.Path, path: pathlib.Path) -> Scan:
    """Maps an uncompressed image.

    Args:
      mapped: the uncompressed file (.nii, .img or .hdr).
      path: the file that the user named, for messages.

    Raises:
      InputError: it is no image that nibabel reads, has no 3 or 4 axes, or is shorter than its
        header says.
    """
    try:
        image = nib.load(mapped)
        proxy = image.dataobj
        shape, dtype, offset = proxy.shape, proxy.dtype, proxy.offset
        file = image.file_map["image"].filename
    except Exception as error:  # nibabel raises many types on damaged headers
        raise InputError(path, f"no readable image ({error})", "NIfTI-1/2 or Analyze") from None
    if len(shape) not in (3, 4) or min(shape) < 1 or offset < 0 or dtype.kind not in "iuf":
        raise InputError(
            path, f"{dtype} of shape {shape}", "real numbers [X, Y, Z] or [X, Y, Z, t]"
        )
    there = pathlib.Path(file).stat().st_size
    wanted = offset + math.prod(map(int, shape)) * dtype.itemsize
    if there < wanted:
        raise InputError(path, f"{there} bytes", f"{wanted} as its header says")
    # NIfTI's first axis runs fastest: in C order the file is [t, Z, Y, X].
    stored = np.memmap(file, dtype, "r", offset, (*shape, 1)[:4][::-1])
    frames = stored.transpose(0, 3, 2, 1)
    if not (np.isfinite(image.affine).all() and abs(np.linalg.det(image.affine[:3, :3])) > 1e-9):
        raise InputError(path, "an affine that is singular or not finite", "voxel -> mm")
    slope = 1.0 if proxy.slope is None else float(proxy.slope)
    intercept = 0.0 if proxy.inter is None else float(proxy.inter)
    return Scan(frames, slope, intercept, image.affine, repetition_time(image.header))


def repetition_time(header: nib.spatialimages.SpatialHeader) -> float | None:
    """TR in s from a header; None where it has none, or does not say in which unit.

    A step of 1 in unknown units is what many tools write when they do not know the TR.
    """
    zooms = header.get_zooms()
    units = header.get_xyzt_units()[1] if hasattr(header, "get_xyzt_units") else ""
    if units not in SECONDS or len(zooms) < 4 or not np.isfinite(zooms[3]) or zooms[3] <= 0:
        return None
    return round(float(zooms[3]) * SECONDS[units], 6) or None


def size(path: pathlib.Path, start: bytes) -> int:
    """Bytes of the whole uncompressed .nii file, from its start.

    Raises:
      InputError: the start is no NIfTI header.
    """
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        if len(start) >= kind.header_class.sizeof_hdr and kind.header_class.may_contain_header(
            start
        ):
            try:
                header = kind.header_class.from_fileobj(io.BytesIO(start))
                values = math.prod(map(int, header.get_data_shape()))
                return header.get_data_offset() + values * header.get_data_dtype().itemsize
            except Exception as error:  # nibabel raises many types on damaged headers
                raise InputError(path, f"a damaged header ({error})", "NIfTI-1/2") from None
    raise InputError(path, "no NIfTI header", "a .nii.gz image")


def parts(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of an uncompressed image: itself, or header and values of a pair."""
    if path.suffix not in (".img", ".hdr"):
        return [path]
    pair = [path.with_suffix(".hdr"), path.with_suffix(".img")]
    for file in pair:
        if not file.exists():
            raise InputError(file, "no such file", f"the other half of {path}")
    return pair


def digest(path: pathlib.Path, tick: Callable[[int], None]) -> str:
    """Returns sha256 of an uncompressed image, or of both files of a pair.

    Args:
      path: the image.
      tick: called with the number of bytes after each chunk.
    """
    sha = hashlib.sha256()
    for file in parts(path):
        with open(file, "rb") as source:
            while data := source.read(CHUNK):
                sha.update(data)
                tick(len(data))
    return sha.hexdigest()


def non_finite(mapped: pathlib.Path, path: pathlib.Path) -> dict[str, int | None]:
    """Counts NaN and infinite voxels, volume by volume.

    Returns:
      "nan_voxels": how many are so in every volume; "bad_volume", "bad_count": the first volume
      with more than those and its count, or None and 0.
    """
    frames = open_mapped(mapped, path).frames
    if frames.dtype.kind in "iu":
        return {"nan_voxels": 0, "bad_volume": None, "bad_count": 0}
    always = ~np.isfinite(frames[0])
    counts = np.empty(len(frames), int)
    for t, frame in enumerate(frames):
        bad = ~np.isfinite(frame)
        counts[t] = bad.sum()
        always &= bad
    more = np.flatnonzero(counts > always.sum())
    first = int(more[0]) if more.size else None
    return {
        "nan_voxels": int(always.sum()),
        "bad_volume": first,
        "bad_count": 0 if first is None else int(counts[first]),
    }
