"""Synthetic DICOM files of each kind that scanners of several makers write."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from emojax.online.simulate import dicom_files
from emojax.online.simulate.dicom_files import PLAIN, About, csa_header, mosaic, save

__all__ = ["PLAIN", "About", "csa_header", "mosaic", "save"]
SIEMENS, GE, PHILIPS = PLAIN.vendor, "GE MEDICAL SYSTEMS", "Philips Medical Systems"


def slices(volume, affine, number=1, about=PLAIN, *, stated=True) -> list[Dataset]:
    """Returns one file per slice of a vendor; without `stated`, the number of slices is omitted."""
    z = volume.shape[2]
    if about.vendor == SIEMENS:
        made = dicom_files.slices(volume, affine, number, about)
        for data in made:
            if not stated:
                del data[0x0021118E]
        return made
    made = dicom_files.plain_slices(volume, affine, number, about)
    for data in made:
        if about.vendor == GE:
            data.ImagesInAcquisition = z
        if about.vendor == GE and stated:
            data.private_block(0x0021, "GEMS_RELA_01", create=True).add_new(0x4F, "SS", z)
        if about.vendor == PHILIPS:
            data.TemporalPositionIdentifier = number
        if about.vendor == PHILIPS and stated:
            block = data.private_block(0x2001, "Philips Imaging DD 001", create=True)
            block.add_new(0x18, "SL", z)
    return made


def enhanced(values, affine, number=1, about=PLAIN, **settings) -> Dataset:
    """Returns one multi-frame file of [t, X, Y, Z] of a vendor; see `dicom_files.enhanced`."""
    data = dicom_files.enhanced(values, affine, number, about, **settings)
    if about.vendor == PHILIPS:  # its own sequence states another position, some mm off
        for frame in data.PerFrameFunctionalGroupsSequence:
            own, (place,) = Dataset(), frame.PlanePositionSequence
            own.ImagePositionPatient = [f"{float(v) + 1.5:.6g}" for v in place.ImagePositionPatient]
            frame.add_new(0x20050014, "LO", "Philips MR Imaging DD 005")
            frame.add_new(0x2005140F, "SQ", Items([own]))
    return data


def oblique(seed=0, voxel=(3.0, 3.1, 3.5), shape=(16, 12, 10), plane="axial", mirrored=True):
    """Returns a voxel -> mm affine as dcm2niix gives it: y runs up the image, and det < 0.

    Without `mirrored`, the slices run the other way, as they do in some mosaics.
    """
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(np.eye(3) + rng.normal(0, 0.12, (3, 3)))
    turn = turn * np.sign(np.diag(turn))
    order = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}[plane]
    axes = turn[:, order] * voxel
    if (np.linalg.det(axes) < 0) != mirrored:
        axes[:, 2 if plane != "axial" else 0] *= -1
    if (np.linalg.det(axes) < 0) != mirrored:
        raise AssertionError("no such affine")
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = rng.normal(0, 5, 3) - axes @ (np.array(shape) - 1) / 2
    return affine


def volumes(count=1, shape=(16, 12, 10), seed=0, high=4000):
    """Returns [t, X, Y, Z] int16 without any symmetry."""
    return np.random.default_rng(seed).integers(1, high, (count, *shape)).astype(np.int16)


def without_lengths(data: Dataset) -> Dataset:
    """Ends sequences and their items by marks, as some writers do, in place of their lengths."""
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                without_lengths(item)
    return data
