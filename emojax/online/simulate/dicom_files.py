"""DICOM files as scanners write them, made from a volume as dcm2niix stores it (y upwards).

A volume becomes a mosaic, a multi-frame file, or single slices, as of Siemens unless `About` names
another vendor.
"""

import datetime
import io
import math
import os
import struct
from collections.abc import Iterable, Sequence
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian

MR, ENHANCED = UID("1.2.840.10008.5.1.4.1.1.4"), UID("1.2.840.10008.5.1.4.1.1.4.1")
SPLIT = 1000  # series numbers reserved for the volumes of one series
ROOT = "1.2.826.0.1.3680043.8.498."
START = datetime.datetime(2026, 3, 1, 9, 30)
MARK = 1234567  # volume number in `heads`, which `stamped` replaces


Volume = Shaped[np.ndarray, "X Y Z"]
Affine = Float[np.ndarray, "4 4"]


class About(NamedTuple):
    """The series that files belong to."""

    number: int = 5
    name: str = "task-emotion_bold"
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "ND")
    tr: float = 2.0
    echo: float = 30.0  # ms
    study: str = ROOT + "1"
    frame: str = ROOT + "2"
    vendor: str = "SIEMENS"

    @property
    def uid(self) -> str:
        """The UID of the series."""
        return f"{ROOT}3.{self.number}"


PLAIN = About()


def mosaic(
    volume: Volume,
    affine: Affine,
    number: int = 1,
    about: About = PLAIN,
    *,
    csa: bool = True,
    count: bool = True,
) -> Dataset:
    """Returns a mosaic.

    Args:
      volume: [X, Y, Z] int16 or uint16.
      affine: voxel -> mm.
      number: number of the volume, from 1.
      about: the series of the file.
      csa: whether it has a CSA header.
      count: whether the CSA header states the number of slices.
    """
    x, y, z = volume.shape
    image = tiles(volume)
    side = len(image) // y
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
    """Returns a CSA header of the second type, with some additional tags."""
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


def slices(volume: Volume, affine: Affine, number: int = 1, about: About = PLAIN) -> list[Dataset]:
    """Returns one file for each slice, as Siemens XA writes a split series.

    Args:
      volume: [X, Y, Z] int16 or uint16.
      affine: voxel -> mm.
      number: number of the volume, from 1.
      about: the series of the files.
    """
    made, z = plain_slices(volume, affine, number, about), volume.shape[2]
    for k, data in enumerate(made, 1):
        data.ImageType = [*about.image_type, "MFSPLIT"]
        data.SoftwareVersions, data.InstanceNumber = "syngo MR XA30", k
        data.AcquisitionNumber = number
        data.SeriesNumber = SPLIT * about.number + number  # each volume has its own series
        data.SeriesInstanceUID = f"{about.uid}.{number}"
        data.SOPInstanceUID = UID(f"{data.SeriesInstanceUID}.{k}")
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        counts = f"X_1_1_1_{number}_1_1_{k}_1_1_{k}_1_195_1_1_1_1_20_2_1_{z}_1_1"
        data.add_new(0x00210011, "LO", "SIEMENS MR SDI 02")
        data.add_new(0x0021118E, "LO", counts)
    return made


def plain_slices(
    volume: Volume, affine: Affine, number: int = 1, about: About = PLAIN
) -> list[Dataset]:
    """Returns one file for each slice, without private elements; arguments as of `slices`."""
    z, images = volume.shape[2], rows(volume)
    along, down, positions = _geometry(volume.shape, affine)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    out = []
    for k in range(z):
        data = _base(about, number, instance=(number - 1) * z + k + 1)
        _place(data, along, down, positions[k], steps)
        data.AcquisitionNumber = 1
        out.append(_with_pixels(data, images[k]))
    return out


def enhanced(
    values: Shaped[np.ndarray, "t X Y Z"],
    affine: Affine,
    number: int = 1,
    about: About = PLAIN,
    *,
    slopes: Sequence[float] | Float[np.ndarray, " f"] | None = None,
    order: Iterable[int] | None = None,
    kinds: Sequence[str] | None = None,
    echoes: Sequence[float] | None = None,
) -> Dataset:
    """Returns a multi-frame file.

    Args:
      values: [t, X, Y, Z] int16 or uint16, the volumes.
      affine: voxel -> mm.
      number: number of the first volume, from 1.
      about: the series of the file.
      slopes: [t * Z] RescaleSlope of each frame; None for 1.
      order: [t * Z] order of the frames in the file.
      kinds: [t] ComplexImageComponent of each volume; all volumes then have the same time.
      echoes: [t] echo time of each volume, ms; all volumes then have the same time.
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
        moment = _moment(number + at - 1, about)
        content.FrameAcquisitionDateTime = moment.strftime("%Y%m%d%H%M%S.%f")
        content.InStackPositionNumber = k + 1
        place.ImagePositionPatient = _texts(positions[k])
        plane.ImageOrientationPatient = _texts([*along, *down])
        measures.PixelSpacing = _texts([steps[1], steps[0]])
        measures.SliceThickness = measures.SpacingBetweenSlices = _texts([steps[2]])[0]
        echo.EffectiveEchoTime = echoes[v] if echoes else about.echo
        kind.ComplexImageComponent = kinds[v] if kinds else "MAGNITUDE"
        kind.FrameType = list(data.ImageType)
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
        images.append(rows(values[v])[k])
    data.PerFrameFunctionalGroupsSequence = Items(frames)
    data.NumberOfFrames = len(frames)
    return _with_pixels(data, np.stack(images))


def save(
    data: Dataset,
    path: str | os.PathLike | IO[bytes],
    syntax: UID = ExplicitVRLittleEndian,
) -> None:
    """Writes a file as scanners do, with a preamble.

    Args:
      data: the elements of the file, which get the syntax.
      path: path or open file to write to.
      syntax: a transfer syntax without compression.
    """
    if syntax == ExplicitVRBigEndian != data.file_meta.TransferSyntaxUID:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)


def rows(volume: Volume) -> np.ndarray:
    """Returns the slices of a volume as images [Z, rows, columns]; the first row is the last y."""
    return volume.transpose(2, 1, 0)[:, ::-1]


def tiles(volume: Volume) -> np.ndarray:
    """Returns the image of a mosaic, with the slices of a volume side by side."""
    x, y, z = volume.shape
    side = math.ceil(math.sqrt(z))
    image = np.zeros((side, side, y, x), volume.dtype)
    image.reshape(-1, y, x)[:z] = rows(volume)
    return image.swapaxes(1, 2).reshape(side * y, side * x)


def images(form: str, volume: Volume) -> list[np.ndarray]:
    """Returns the pixels of each file of a volume: one mosaic, one stack, or single slices."""
    if form == "slices":
        return list(rows(volume))
    return [tiles(volume) if form == "mosaic" else rows(volume)]


def heads(
    form: str, empty: Volume, affine: Affine, about: About, slope: float = 1.0
) -> list[bytes]:
    """Returns the files of a volume up to their pixels, for `stamped`.

    Args:
      form: "mosaic", "enhanced" or "slices".
      empty: [X, Y, Z] zeros of the dtype of the pixels.
      affine: voxel -> mm.
      about: the series of the files.
      slope: RescaleSlope, the value of a stored 1.
    """
    if form == "enhanced":
        slopes = np.full(empty.shape[2], slope)
        kinds = ["PHASE" if "P" in about.image_type else "MAGNITUDE"]
        made = [enhanced(empty[None], affine, MARK, about, slopes=slopes, kinds=kinds)]
    else:
        write = {"mosaic": lambda *args: [mosaic(*args)], "slices": slices}[form]
        made = write(empty, affine, MARK, about)
        for data in made if slope != 1 else ():
            data.RescaleIntercept, data.RescaleSlope = "0", _texts([slope])[0]
    out = []
    for data in made:
        file = io.BytesIO()
        save(data, file)
        out.append(file.getvalue()[: -len(data.PixelData)])
    return out


def stamped(head: bytes, number: int, about: About) -> bytes:
    """Returns the head of another volume, with its number and time and of the same length."""
    for old, new in zip(_stamps(MARK, about), _stamps(number, about), strict=True):
        head = head.replace(old, new)
    return head


def _stamps(number: int, about: About) -> list[bytes]:
    """Returns the texts that differ from volume to volume, longer ones before parts of them."""
    moment = _moment(number, about)
    uid = f".{number if number == MARK else 10**6 + number}"  # parts of a UID have no leading zero
    series = f"{SPLIT * about.number + number:07}"
    texts = moment.strftime("%H%M%S.%f"), moment.strftime("%Y%m%d"), uid, series, f"{number:07}"
    return [text.encode() for text in texts]


def _moment(number: int, about: About) -> datetime.datetime:
    return START + datetime.timedelta(seconds=about.tr * (number - 1))


def _geometry(shape: Sequence[int], affine: Affine) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the directions along rows and columns and the positions of slices, LPS mm."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    unit = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    corners = np.array([[0, shape[1] - 1, k, 1] for k in range(shape[2])])
    return unit[:, 0], -unit[:, 1], (corners @ lps.T)[:, :3]


def _base(about: About, number: int, instance: int | None = None) -> Dataset:
    data, meta = Dataset(), FileMetaDataset()
    instance = instance or number
    moment = _moment(number, about)
    meta.MediaStorageSOPClassUID = data.SOPClassUID = MR
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = UID(f"{about.uid}.{instance}")
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


def _place(
    data: Dataset, along: np.ndarray, down: np.ndarray, position: np.ndarray, steps: np.ndarray
) -> None:
    data.ImagePositionPatient = _texts(position)
    data.ImageOrientationPatient = _texts([*along, *down])
    data.PixelSpacing = _texts([steps[1], steps[0]])
    data.SliceThickness = data.SpacingBetweenSlices = _texts([steps[2]])[0]


def _texts(numbers: Iterable[float]) -> list[str]:
    return [f"{float(n):.10g}"[:16] for n in numbers]


def _with_pixels(data: Dataset, image: np.ndarray) -> Dataset:
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = image.shape[-2:]
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(image.dtype.kind == "i")
    data.PixelData = image.astype(image.dtype.newbyteorder("<")).tobytes()
    return data
