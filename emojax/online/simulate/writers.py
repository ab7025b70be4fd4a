"""Content of the files of a simulated scanner, in each of their formats."""

import gzip
import math
import os
from collections.abc import Callable
from typing import NamedTuple

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped

from emojax.data import nifti
from emojax.errors import InputError
from emojax.online.simulate.faults import Action

NAMES = {  # file format -> default names
    "nifti": "vol_{n:05}.nii",
    "nifti.gz": "vol_{n:05}.nii.gz",
    "mosaic": "vol_{n:05}.dcm",
    "enhanced": "vol_{n:05}.dcm",
    "slices": "vol_{n:05}_{k:03}.dcm",
}
EXPECTED = "one run, a 4-D NIfTI image"
CHANGES = "motion", "zeros", "conflict", "series"  # faults that change the image itself
MOVE = 0.5  # voxels, shift by the motion fault
SQUARE = 1e-3  # largest cosine between axes at right angles
PEAK = 32767  # largest int16

Files = list[bytes]  # complete files of one volume
Writer = Callable[[Shaped[np.ndarray, "X Y Z"], int, bool], Files]  # image, number, whether phase


class Run(NamedTuple):
    """The run that is written."""

    values: Shaped[np.ndarray, "X Y Z t"]  # int16 or uint16; float32 if not whole numbers
    affine: Float[np.ndarray, "4 4"]  # voxel -> mm
    tr: float | None  # s


def read(path: str | os.PathLike) -> Run:
    """Reads a run.

    Raises:
      InputError: the file is not a complete 4-D image.
    """

    def check(shape: tuple[int, ...]) -> None:
        if len(shape) != 4:
            raise InputError(path, f"an image of shape {shape}", EXPECTED)

    values, affine = nifti.read(path, EXPECTED, check)
    if all(np.array_equal(np.rint(volume), volume) for volume in np.moveaxis(values, -1, 0)):
        for kind in map(np.iinfo, (np.int16, np.uint16)):
            if kind.min <= values.min() and values.max() <= kind.max:
                values = values.astype(kind.dtype)
                break
    return Run(values, affine, nifti.repetition_time(nifti.load(path, EXPECTED).header))


def image(run: Run, action: Action, seed: int) -> Shaped[np.ndarray, "X Y Z"]:
    """Returns the volume that an action writes, with its fault if that changes the image."""
    stored = run.values[..., action.source % run.values.shape[3]]
    if action.gain == 1 and action.fault not in CHANGES:
        return stored
    values = stored.astype(np.float32) * np.float32(action.gain)
    if action.fault == "motion":
        from scipy import ndimage

        values = ndimage.shift(values, shift(seed), order=3, mode="nearest")
    if action.fault == "zeros":
        values[..., -math.ceil(values.shape[-1] / 3) :] = 0
    if action.fault in ("conflict", "series"):
        values = values.max() + values.min() - values
    if stored.dtype.kind == "f":
        return values
    limits = np.iinfo(stored.dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(stored.dtype)


def shift(seed: int) -> Float[np.ndarray, " 3"]:
    """Returns the oblique shift of volumes with the motion fault, in voxels."""
    direction = np.random.default_rng(seed).uniform(0.3, 1, 3) * (1, -1, 1)
    return MOVE * direction / np.linalg.norm(direction)


def writer(form: str, run: Run, tr: float, where: object) -> Writer:
    """Returns the function that makes the files of one volume.

    Args:
      form: file format, one of `NAMES`.
      run: the run.
      tr: TR for the headers, s.
      where: name of the run, for messages.

    Raises:
      InputError: the format cannot hold the affine, or a package is missing.
    """
    if not form.startswith("nifti"):
        return _dicom(form, run, tr, where)
    head = _nifti_head(run, tr)

    def write(volume: Shaped[np.ndarray, "X Y Z"], number: int, phase: bool) -> Files:
        data = head + volume.astype(volume.dtype.newbyteorder("<"), copy=False).tobytes("F")
        return [gzip.compress(data, 1, mtime=0) if form == "nifti.gz" else data]

    return write


def _nifti_head(run: Run, tr: float) -> bytes:
    empty = np.zeros(run.values.shape[:3], run.values.dtype)
    made = nib.Nifti1Image(empty, run.affine)
    made.header.set_xyzt_units("mm", "sec")
    made.header["pixdim"][4] = tr
    return made.to_bytes()[: -empty.nbytes]


def _dicom(form: str, run: Run, tr: float, where: object) -> Writer:
    """Returns the writer of a DICOM format.

    Headers are made once for each series and then renumbered, as pydicom takes 40 ms for 44 frames.
    """
    try:
        from emojax.online.simulate import dicom_files
    except ImportError:
        raise InputError("DICOM", "no package pydicom", "pip install 'emojax[realtime]'") from None
    axes = run.affine[:3, :3] / np.linalg.norm(run.affine[:3, :3], axis=0)
    if not np.abs(axes.T @ axes - np.eye(3)).max() < SQUARE:
        found = f"a sheared affine {run.affine.tolist()}"
        raise InputError(where, found, f"axes at right angles in {form}, or --as=nifti")
    kind, slope = run.values.dtype, 1.0
    if kind.kind == "f":
        peak = np.abs(run.values).max(initial=0, where=np.isfinite(run.values))
        kind, slope = np.dtype(np.int16), float(f"{peak / PEAK or 1:.8g}")
    magnitude = dicom_files.About(tr=tr)
    of_phase = magnitude._replace(number=6, image_type=("ORIGINAL", "PRIMARY", "P", "ND"))
    empty = np.zeros(run.values.shape[:3], kind)
    heads = {
        about: dicom_files.heads(form, empty, run.affine, about, slope)
        for about in (magnitude, of_phase)
    }

    def write(volume: Shaped[np.ndarray, "X Y Z"], number: int, phase: bool) -> Files:
        if volume.dtype != kind:
            volume = np.rint(np.nan_to_num(volume / slope)).clip(-PEAK, PEAK).astype(kind)
        about = of_phase if phase else magnitude
        pixels = dicom_files.images(form, volume)
        return [
            dicom_files.stamped(head, number, about) + image.tobytes()
            for head, image in zip(heads[about], pixels, strict=True)
        ]

    return write
