"""DICOM files of scanners as volumes: mosaics, multi-frame files, and single slices.

`read` returns the parts of volumes in one file; `slices.add` assembles volumes from them. No
content of a file is executed.
"""

import datetime
import io
import os
import pathlib
import re
import warnings

import numpy as np
from jaxtyping import Float, Shaped

from emojax.errors import InputError
from emojax.online.dicom import elements as e
from emojax.online.dicom import mosaic
from emojax.online.dicom.elements import NotWhole
from emojax.online.dicom.slices import Part, Series

__all__ = ["KINDS", "NotWhole", "Part", "Series", "kind_of", "read"]

MAGNITUDE = "magnitude"
KINDS = (
    MAGNITUDE,
    *("phase", "real", "imaginary"),
    "motion-corrected",  # additional series of the scanner
    "reference",  # single-band image before a run
    *("derived", "localizer"),
)
SPLIT = 1000  # series numbers that Siemens XA reserves for the volumes of one series
LARGEST = 2**31  # bytes of decompressed pixels
TAIL = 8  # pixels "end in zeros" if the last eighth of the last slice is zero
_COMPONENTS = {
    "phase": {"P", "PHASE", "PHASE MAP"},
    "real": {"R", "REAL"},
    "imaginary": {"I", "IMAGINARY"},
}
_GE_KINDS = {1: "phase", 2: "real", 3: "imaginary"}
_TELLING = e.FRAME_ECHO, e.COMPONENT, e.FRAME_TYPE  # elements that distinguish series in a file
_LOCALIZER = re.compile("localizer|scout|survey|3-?plane", re.IGNORECASE)


def read(path: str | os.PathLike) -> tuple[Part, ...]:
    """Reads one file.

    Returns:
      The parts of volumes in the file. Most files hold one part; a multi-frame file holds one for
      each volume, and for magnitude and phase.

    Raises:
      NotWhole: the file is still being written; read it again later.
      InputError: the file is not an MR image, is damaged, or has a compression that cannot be read.
    """
    where = str(path)
    try:
        if not pathlib.Path(path).is_file():
            raise InputError(where, "not a regular file", e.EXPECTED)
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise InputError(where, error.strerror, e.EXPECTED) from None
    try:
        file = e.load(data, where)
        pixels = _pixels(file, data, where)
        own = file.frames or [file.head]
        if len(pixels) != len(own):
            found = f"{len(pixels)} frames and {len(own)} headers"
            raise InputError(where, found, "one header for each frame")
        if file.frames:
            return _of_frames(own, pixels, where)
        rows, columns = pixels.shape[1:]
        tiling = mosaic.layout(file.head, rows, columns, where)
        if tiling is not None:
            return (_of_mosaic(file.head, pixels[0], tiling, where),)
        return (_of_slice(file.head, pixels, where),)
    except (OverflowError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise e.damage(where, f"damage ({type(error).__name__})", data) from None


def kind_of(own: e.Elements) -> str:
    """Returns the kind of an image (one of `KINDS`) from its type, component and series name."""
    types = [t.upper() for t in (*own.texts(e.IMAGE_TYPE), *own.texts(e.FRAME_TYPE))]
    words, name = {*types, own.text(e.COMPONENT).upper()}, own.text(e.SERIES_NAME)
    if "LOCALIZER" in words or _LOCALIZER.search(name):
        return "localizer"
    for kind, spelled in _COMPONENTS.items():
        if words & spelled:
            return kind
    if own.text(e.MAKER).upper().startswith("GE") and int(own.binary(e.GE_KIND, "h")) in _GE_KINDS:
        return _GE_KINDS[int(own.binary(e.GE_KIND, "h"))]
    if "MOCO" in words or name.upper().startswith("MOCOSERIES"):
        return "motion-corrected"
    if "DERIVED" in words:
        return "derived"
    return "reference" if name.upper().endswith("SBREF") else MAGNITUDE


def _pixels(file: e.File, data: bytes, where: str) -> Shaped[np.ndarray, "n rows columns"]:
    """Returns the frames of a file as stored."""
    head = file.head
    shape = (
        max(int(head.number(e.NUM_FRAMES, 1)), 1),
        int(head.binary(e.ROWS, "H")),
        int(head.binary(e.COLUMNS, "H")),
    )
    bits, samples = int(head.binary(e.BITS, "H")), int(head.binary(e.SAMPLES, "H", 1))
    if not (shape[1] and shape[2] and bits in (8, 16, 32) and samples == 1):
        found = f"{shape[1]} x {shape[2]} pixels of {bits} bits and {samples} samples"
        raise e.damage(where, found, data, "grey values of 8, 16 or 32 bits")
    size = int(np.prod(shape, dtype=object)) * bits // 8
    if file.syntax not in e.PLAIN:
        return _decompressed(data, shape, size, where)
    if not 0 <= len(file.pixels) - size < shape[2] * bits // 8:
        expected = f"{size}: {' x '.join(map(str, shape))} of {bits} bits"
        raise e.damage(where, f"{len(file.pixels)} bytes of pixels", data, expected)
    code = "i" if head.binary(e.SIGNED, "H") else "u"
    found = np.frombuffer(file.pixels, f"{head.order}{code}{bits // 8}", size * 8 // bits)
    return found.reshape(shape)


def _decompressed(data: bytes, shape: tuple[int, ...], size: int, where: str) -> np.ndarray:
    import pydicom

    if size > LARGEST:
        raise InputError(where, f"{size} bytes of pixels", f"at most {LARGEST}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # raised if the data do not match the header
            return np.asarray(pydicom.dcmread(io.BytesIO(data)).pixel_array).reshape(shape)
    except Exception as error:  # decoders raise many types on damaged data
        found = f"compressed pixels that are damaged ({type(error).__name__})"
        raise e.damage(where, found, data) from None


def _of_slice(own: e.Elements, pixels: np.ndarray, where: str) -> Part:
    """Returns the part of a file with one slice.

    The number of a volume depends on the vendor: the acquisition for Siemens, the temporal position
    for Philips and others. GE states neither, and the image number has to do.
    """
    number = int(own.binary(e.TEMPORAL_INDEX, "I") or own.number(e.TEMPORAL))
    maker, stated = own.text(e.MAKER).upper(), int(own.binary(e.PHILIPS_SLICES, "I"))
    if maker.startswith("SIEMENS"):
        number = int(own.number(e.ACQUISITION)) or number
        counts = own.text(e.SIEMENS_COUNTS).split("_")
        if len(counts) > 20 and counts[19].isdecimal() and counts[20].isdecimal():
            stated = int(counts[19]) * int(counts[20])  # slabs and slices
    elif maker.startswith("GE"):
        stated = int(own.binary(e.GE_SLICES, "H") or own.number(e.GE_IMAGES))
    return _part([own], pixels, number, stated, where)


def _of_mosaic(own: e.Elements, image: np.ndarray, tiling: mosaic.Layout, where: str) -> Part:
    found = mosaic.tiles(image, tiling)
    part = _part([own], found, int(own.number(e.INSTANCE)), tiling.slices, where)
    along, down = part.axes[:, 0], part.axes[:, 1]
    normal = mosaic.direction(tiling, *(v / np.linalg.norm(v) for v in (along, down)))
    step = normal * np.linalg.norm(part.axes[:, 2])
    rows, columns = found.shape[1:]
    # A mosaic states the position that an image of its size around the slice's centre would have.
    corner = part.positions[0] + (along * columns + down * rows) * (tiling.side - 1) / 2
    positions = corner + np.arange(tiling.slices)[:, None] * step
    return part._replace(positions=positions, axes=np.c_[along, down, step])


def _of_frames(own: list[e.Elements], pixels: np.ndarray, where: str) -> tuple[Part, ...]:
    """Returns the parts of a multi-frame file, one for each kind, echo and volume."""
    if len(own) == 1:
        return (_of_slice(own[0], pixels, where),)
    groups: dict[tuple[Series, int, int], list[int]] = {}
    seen: dict[tuple, int] = {}  # occurrences of each position, in files that count no volumes
    known: dict[tuple, Series] = {}
    for i, frame in enumerate(own):
        place, spelled = frame.values.get(e.POSITION), tuple(map(frame.values.get, _TELLING))
        series = known[spelled] = known.get(spelled) or _series(frame, where)
        index = int(frame.binary(e.TEMPORAL_INDEX, "I"))
        seen[series, index, place] = seen.get((series, index, place), 0) + 1
        groups.setdefault((series, index, seen[series, index, place]), []).append(i)
    most: dict[Series, int] = {}
    for (series, *_), members in groups.items():
        most[series] = max(most.get(series, 0), len(members))
    alone, counted = len(groups) == len(most), max(seen.values()) == 1
    numbers, parts = dict.fromkeys(most, 0), []
    for series, index, occurrence in sorted(groups, key=lambda key: key[1:]):
        members = groups[series, index, occurrence]
        numbers[series] = index if index and counted else numbers[series] + 1
        number = int(own[0].number(e.INSTANCE)) if alone else numbers[series]
        chosen = pixels if len(members) == len(pixels) else pixels[members]
        parts.append(_part([own[i] for i in members], chosen, number, most[series], where))
    return tuple(parts)


def _part(own: list[e.Elements], pixels: np.ndarray, number: int, slices: int, where: str) -> Part:
    first = own[0]
    positions = np.array([_exactly(frame, e.POSITION, 3, where) for frame in own])
    orientation = np.array(_exactly(first, e.ORIENTATION, 6, where)).reshape(2, 3)
    spacing = np.array(_exactly(first, e.SPACING, 2, where))
    thickness = first.number(e.BETWEEN) or first.number(e.THICKNESS)
    lengths = np.linalg.norm(orientation, axis=1)
    if np.abs(lengths - 1).max() > 0.01 or abs(orientation[0] @ orientation[1]) > 0.01:
        raise InputError(where, f"directions {orientation.tolist()}", "two at right angles")
    if not (spacing > 0).all() or thickness < 0:
        raise InputError(where, f"pixels of {spacing.tolist()} mm", "sizes above 0")
    if any(frame.values.get(e.ORIENTATION) != first.values.get(e.ORIENTATION) for frame in own):
        raise InputError(where, "slices of several orientations", "a stack of slices")
    along, down = orientation / lengths[:, None]
    axes = np.c_[along * spacing[1], down * spacing[0], np.cross(along, down) * thickness]
    return Part(
        _series(first, where),
        first.text(e.SERIES_UID),
        number,
        int(first.number(e.INSTANCE)),
        slices,
        _scaled(own, pixels),
        positions,
        axes,
        _time(first),
        first.number(e.TR) / 1000,
        not pixels[-1][-max(pixels.shape[1] // TAIL, 1) :].any(),
    )


def _series(own: e.Elements, where: str) -> Series:
    frame = own.text(e.FRAME_UID) or own.text(e.SERIES_UID)
    name = own.text(e.SERIES_NAME) or own.text(e.PROTOCOL)
    echo = own.binary(e.FRAME_ECHO, "d") or own.number(e.ECHO)
    if not np.isfinite(echo):
        raise InputError(where, f"an echo time of {echo}", "a time in ms")
    number, acquisition = int(own.number(e.SERIES_NUMBER)), int(own.number(e.ACQUISITION))
    if "MFSPLIT" in own.texts(e.IMAGE_TYPE) and number > SPLIT:
        # The scanner has split a multi-frame image: volumes 1, 2 of series 7 become 7001, 7002.
        number -= acquisition if (number - acquisition) % SPLIT == 0 else 0
        number //= SPLIT
    return Series(number, name, kind_of(own), round(echo, 3), frame)


def _exactly(own: e.Elements, tag: int, count: int, where: str) -> tuple[float, ...]:
    found = own.numbers(tag)
    if len(found) != count:
        raise InputError(where, f"{len(found)} numbers at ({tag:08x})", f"the {count} of a place")
    return found


def _scaled(own: list[e.Elements], pixels: np.ndarray) -> Float[np.ndarray, "n rows columns"]:
    """Returns the values in the units of the file, as dcm2niix scales them.

    Philips states a second slope, which makes values of different series comparable.
    """
    scales = np.array([(f.number(e.SLOPE, 1) or 1, f.number(e.INTERCEPT)) for f in own])
    second = {frame.binary(e.PHILIPS_SLOPE, "f") for frame in own}
    if len(second) == 1 and (scales == scales[0]).all() and max(second) > 0:
        scales = scales / (scales[:, :1] * max(second))
    values = pixels.astype(np.float32)
    if (scales != (1, 0)).any():
        slope, intercept = scales.astype(np.float32).T[:, :, None, None]
        values = values * slope + intercept
    return values


def _time(own: e.Elements) -> float:
    moment = own.text(e.FRAME_MOMENT) or own.text(e.MOMENT)
    if not moment:
        day = next(filter(None, map(own.text, e.DAYS)), "19700101")
        moment = day + next(filter(None, map(own.text, e.TIMES)), "")
    digits = re.match(r"(\d{8})(\d\d)(\d\d)(\d\d(?:\.\d+)?)", moment)
    if digits is None:
        return float("nan")
    day, hours, minutes, seconds = digits.groups()
    try:
        days = datetime.date(int(day[:4]), int(day[4:6]), int(day[6:])).toordinal()
    except ValueError:
        return float("nan")
    days -= datetime.date(1970, 1, 1).toordinal()
    return days * 86400.0 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)
