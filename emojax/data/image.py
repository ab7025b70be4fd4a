"""The scan of one run, from a 4-D image or from the 3-D images of its volumes."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from emojax.data.nifti import Scan
from emojax.errors import InputError

Facts = Mapping[str, Any]  # of one image: "hashes" of its files, counts of `nifti.non_finite`


class Image(NamedTuple):
    """A 4-D scan, mapped from disk."""

    path: pathlib.Path  # the (first) source file
    frames: np.ndarray  # [t, X, Y, Z], stored units
    slope: float  # value = slope * stored + intercept
    intercept: float
    affine: np.ndarray  # [4, 4], voxel -> mm
    tr: float | None  # s, from the header; None if it states none
    hashes: dict[str, str]  # source file -> sha256, for header and values of a pair separately
    nan_voxels: int  # number of voxels that are NaN or infinite in every volume


def from_4d(file: pathlib.Path, scan: Scan, facts: Facts) -> Image:
    """Returns the scan of a 4-D image.

    Raises:
      InputError: the image has only one volume or no finite values, or a volume has NaN voxels that
        are finite in others.
    """
    if len(scan.frames) == 1:
        raise InputError(file, "one volume", "a 4-D scan [X, Y, Z, t]")
    _check_finite(file, scan, facts)
    return Image(file, *scan, facts["hashes"], facts["nan_voxels"])


def from_3d(
    files: Sequence[pathlib.Path],
    scans: Sequence[Scan],
    facts: Sequence[Facts],
    derived: Callable[..., np.ndarray],
) -> Image:
    """Returns the scan of 3-D images, copied into one array (float32 if their scales differ).

    Args:
      files: the images in order of time.
      scans: their mapped contents.
      facts: their hashes and NaN counts.
      derived: `Store.derived`.

    Raises:
      InputError: an image is not 3-D, has no finite values, or differs from the first in shape,
        affine or NaN voxels.
    """
    first = scans[0]
    for file, scan, own in zip(files, scans, facts, strict=True):
        if scan.frames.shape != (1, *first.frames.shape[1:]):
            found, wanted = scan.frames.shape, first.frames.shape[1:]
            raise InputError(
                file, f"shape {found[1:]} x {found[0]}", f"one {wanted} volume as {files[0]}"
            )
        if not np.allclose(scan.affine, first.affine, atol=1e-3):
            raise InputError(file, f"another affine than {files[0]}", "one affine per run")
        _check_finite(file, scan, own)
        if own["nan_places"] != facts[0]["nan_places"]:
            expected = f"the same voxels as in {files[0]} ({facts[0]['nan_voxels']})"
            raise InputError(file, f"{own['nan_voxels']} NaN or infinite voxels", expected)
    same = len({(s.slope, s.intercept, s.frames.dtype) for s in scans}) == 1

    def fill(out: np.ndarray) -> None:
        for row, scan in zip(out, scans, strict=True):
            row[...] = scan.frames[0] if same else scan.frames[0] * scan.slope + scan.intercept

    hashes = {path: digest for own in facts for path, digest in own["hashes"].items()}
    shape = (len(files), *first.frames.shape[1:])
    dtype = first.frames.dtype if same else np.float32
    frames = derived("joined " + " ".join(hashes.values()), shape, dtype, fill)
    scale = (first.slope, first.intercept) if same else (1.0, 0.0)
    return Image(files[0], frames, *scale, first.affine, first.tr, hashes, facts[0]["nan_voxels"])


def _check_finite(file: pathlib.Path, scan: Scan, facts: Facts) -> None:
    """Refuses NaN, unless the same voxels are NaN in all volumes and others are finite."""
    if facts["nan_voxels"] == scan.frames[0].size:
        raise InputError(file, "NaN or infinite values in every voxel", "finite values")
    if facts["bad_volume"] is not None:
        raise InputError(
            file,
            f"{facts['bad_count']} NaN or infinite voxels in volume {facts['bad_volume']}",
            "finite values, or NaN in the same voxels of every volume",
        )
