"""Synthetic DICOM files of each kind that scanners write, from a volume as dcm2niix stores it."""

import datetime
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

MR, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
ROOT = "1.2.826.0.1.3680043.8.498."
START = datetime.datetime(2026, 3, 1, 9, 30)
SIEMENS, GE, PHILIPS = "SIEMENS", "GE MEDICAL SYSTEMS", "Philips Medical Systems"


class About(NamedTuple):
    """The series that files belong to."""

    number: int = 5
    name: str = "task-emotion_bold"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND")
    tr: float = 2.0
    echo: float = 30.0  # ms
    study: str = ROOT + "1"
    frame: str = ROOT + "2"
    vendor: str = SIEMENS

    @property
    def uid(self) -> str:
        return f"{ROOT}3.{self.number}"


PLAIN = About()


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


def mosaic(volume, affine, number=1, about=PLAIN, *, csa=True, count=True) -> Dataset:
    """A Siemens mosaic; without `csa` its private header is gone, without `count` that number."""
    x, y, z = volume.shape
    side = int(np.ceil(np.sqrt(z)))
    image = np.zeros((side * y, side * x), np.int16)
    for k in range(z):
        row, column = divmod(k, side)
        image[row * y : (row + 1) * y, column * x : (column + 1) * x] = _rows(volume)[k]
    data = _base(about._replace(image_type=(*about.image_type, "MOSAIC")), number)
    along, down, positions = _geometry(volume.shape, affine)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    corner = positions[0] - (along * steps[0] * x + down * steps[1] * y) * (side - 1) / 2
    _place(data, along, down, corner, steps)
    data.AcquisitionNumber = number
    data.AcquisitionMatrix = [0, x, y, 0]
    normal = positions[1] - positions[0]
    if csa:
        values = {"AcquisitionMatrixText": [f"{y}p*{x}"]}
        values["NumberOfImagesInMosaic"] = [f"{z:<8}"] if count else []
        values["SliceNormalVector"] = [f"{v:.8f}" for v in normal / np.linalg.norm(normal)]
        block = data.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
        block.add_new(0x10, "OB", csa_header(values))
    return _with_pixels(data, image)


def csa_header(values: dict[str, list[str]]) -> bytes:
    """Returns a CSA header of the second type, with more tags than asked for."""
    tags = {"EchoLinePosition": ["32"], **values, "MosaicRefAcqTimes": ["0.0", "1000.0"]}
    out = b"SV10\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, items in tags.items():
        kind = {"NumberOfImagesInMosaic": b"US", "AcquisitionMatrixText": b"SH"}.get(name, b"FD")
        out += struct.pack("<64si4siii", name.encode(), len(items), kind, 6, 6, 77)
        for item in [*items, *[""] * (6 - len(items))]:
            text = item.encode() + b"\0" if item else b""
            out += struct.pack("<iiii", len(text), len(text), 77, len(text))
            out += text + b"\0" * (-len(text) % 4)
    return out


def slices(volume, affine, number=1, about=PLAIN, *, stated=True) -> list[Dataset]:
    """One file for each slice, of the vendor; not `stated`: without the number of slices."""
    z = volume.shape[2]
    along, down, positions = _geometry(volume.shape, affine)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    out = []
    for k in range(z):
        data = _base(about, number, instance=(number - 1) * z + k + 1)
        _place(data, along, down, positions[k], steps)
        data.AcquisitionNumber = number if about.vendor == SIEMENS else 1
        if about.vendor == SIEMENS:  # XA gives every volume a series of its own
            data.ImageType = [*about.image_type, "MFSPLIT"]
            data.SoftwareVersions, data.InstanceNumber = "syngo MR XA30", k + 1
            data.SeriesNumber = 1000 * about.number + number
            data.SeriesInstanceUID = f"{about.uid}.{number}"
            if stated:
                counts = f"X_1_1_1_{number}_1_1_{k + 1}_1_1_{k + 1}_1_195_1_1_1_1_20_2_1_{z}_1_1"
                data.add_new(0x00210011, "LO", "SIEMENS MR SDI 02")
                data.add_new(0x0021118E, "LO", counts)
        if about.vendor == GE:
            data.ImagesInAcquisition = z
        if about.vendor == GE and stated:
            data.private_block(0x0021, "GEMS_RELA_01", create=True).add_new(0x4F, "SS", z)
        if about.vendor == PHILIPS:
            data.TemporalPositionIdentifier = number
            if stated:
                block = data.private_block(0x2001, "Philips Imaging DD 001", create=True)
                block.add_new(0x18, "SL", z)
        out.append(_with_pixels(data, _rows(volume)[k]))
    return out


def enhanced(
    values, affine, number=1, about=PLAIN, *, slopes=None, order=None, kinds=None, echoes=None
) -> Dataset:
    """One multi-frame file of [t, X, Y, Z].

    Args:
      slopes: [t * Z] RescaleSlope of each frame.
      order: [t * Z] order of the frames in the file.
      kinds, echoes: [t] ComplexImageComponent and echo time of each volume; volumes of different
        ones are at the same time.
    """
    t, z = len(values), values.shape[3]
    along, down, positions = _geometry(values.shape[1:], affine)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    data = _base(about._replace(image_type=(*about.image_type[:2], "FMRI", "NONE")), number)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ENHANCED
    data.AcquisitionDateTime = data.AcquisitionDate + data.AcquisitionTime
    del data.AcquisitionTime, data.EchoTime, data.RepetitionTime
    shared, timing = Dataset(), Dataset()
    timing.RepetitionTime = about.tr * 1000
    shared.MRTimingAndRelatedParametersSequence = Items([timing])
    data.SharedFunctionalGroupsSequence = Items([shared])
    frames, images = [], []
    for i in np.arange(t * z) if order is None else order:
        v, k = divmod(int(i), z)
        frame, content, place, plane = Dataset(), Dataset(), Dataset(), Dataset()
        measures, echo, kind, scale = Dataset(), Dataset(), Dataset(), Dataset()
        at = 1 if kinds or echoes else v + 1
        content.TemporalPositionIndex = at
        content.DimensionIndexValues = [1, k + 1, at]
        moment = START + datetime.timedelta(seconds=about.tr * (number + at - 2))
        content.FrameAcquisitionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")
        content.InStackPositionNumber = k + 1
        place.ImagePositionPatient = _texts(positions[k])
        plane.ImageOrientationPatient = _texts([*along, *down])
        measures.PixelSpacing = _texts([steps[1], steps[0]])
        measures.SliceThickness = measures.SpacingBetweenSlices = _texts([steps[2]])[0]
        echo.EffectiveEchoTime = echoes[v] if echoes else about.echo
        kind.ComplexImageComponent = kinds[v] if kinds else "MAGNITUDE"
        kind.FrameType = list(data.ImageType)
        if about.vendor == PHILIPS:  # its own sequence states another position, half a voxel off
            own = Dataset()
            own.ImagePositionPatient = _texts(positions[k] + (along + down) * steps[0] / 2)
            frame.add_new(0x20050014, "LO", "Philips MR Imaging DD 005")
            frame.add_new(0x2005140F, "SQ", Items([own]))
        scale.RescaleIntercept = "0"
        scale.RescaleSlope = "1" if slopes is None else _texts([slopes[int(i)]])[0]
        frame.FrameContentSequence = Items([content])
        frame.PlanePositionSequence = Items([place])
        frame.PlaneOrientationSequence = Items([plane])
        frame.PixelMeasuresSequence = Items([measures])
        frame.MREchoSequence = Items([echo])
        frame.MRImageFrameTypeSequence = Items([kind])
        frame.PixelValueTransformationSequence = Items([scale])
        frames.append(frame)
        images.append(_rows(values[v])[k])
    data.PerFrameFunctionalGroupsSequence = Items(frames)
    data.NumberOfFrames = len(frames)
    return _with_pixels(data, np.stack(images))


def save(data: Dataset, path, syntax=ExplicitVRLittleEndian) -> None:
    """Writes a file as scanners do, with a preamble; of any syntax without compression."""
    if syntax == ExplicitVRBigEndian != data.file_meta.TransferSyntaxUID:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)


def without_lengths(data: Dataset) -> Dataset:
    """Ends sequences and their items by marks, as some writers do, in place of their lengths."""
    for element in data:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                without_lengths(item)
    return data


def _rows(volume) -> np.ndarray:
    return volume.transpose(2, 1, 0)[:, ::-1]  # [Z, rows, columns]: the first row is the last y


def _geometry(shape: Sequence[int], affine):
    """Returns the directions along rows and columns and the slices' positions, in LPS mm."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    unit = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    corners = np.array([[0, shape[1] - 1, k, 1] for k in range(shape[2])])
    return unit[:, 0], -unit[:, 1], (corners @ lps.T)[:, :3]


def _base(about: About, number: int, instance: int | None = None) -> Dataset:
    data, meta = Dataset(), FileMetaDataset()
    instance = instance or number
    moment = START + datetime.timedelta(seconds=about.tr * (number - 1))
    meta.MediaStorageSOPClassUID = data.SOPClassUID = MR
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"{about.uid}.{instance}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta = meta
    data.ImageType = list(about.image_type)
    data.Modality, data.Manufacturer = "MR", about.vendor
    data.AcquisitionDate = data.StudyDate = data.SeriesDate = moment.strftime("%Y%m%d")
    data.AcquisitionTime = moment.strftime("%H%M%S.%f")
    data.StudyTime = data.SeriesTime = START.strftime("%H%M%S")
    data.SeriesDescription = data.ProtocolName = about.name
    data.PatientName, data.PatientID, data.PatientPosition = "synthetic", "synthetic", "HFS"
    data.MRAcquisitionType, data.ScanningSequence, data.SequenceVariant = "2D", "EP", "SK"
    data.RepetitionTime, data.EchoTime, data.EchoNumbers = about.tr * 1000, about.echo, 1
    data.StudyInstanceUID, data.SeriesInstanceUID = about.study, about.uid
    data.FrameOfReferenceUID = about.frame
    data.SeriesNumber, data.InstanceNumber = about.number, instance
    return data


def _place(data: Dataset, along, down, position, steps) -> None:
    data.ImagePositionPatient = _texts(position)
    data.ImageOrientationPatient = _texts([*along, *down])
    data.PixelSpacing = _texts([steps[1], steps[0]])
    data.SliceThickness = data.SpacingBetweenSlices = _texts([steps[2]])[0]


def _texts(numbers) -> list[str]:
    return [f"{float(n):.10g}"[:16] for n in numbers]


def _with_pixels(data: Dataset, image) -> Dataset:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = image.shape[-2:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(image.dtype.kind == "i")
    data.PixelData = image.astype(image.dtype.newbyteorder("<")).tobytes()
    return data
