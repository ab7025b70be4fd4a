"""The elements of a DICOM file. Its head is read by pydicom, its frames and pixels here.

pydicom takes 40 ms for the headers of 44 frames, longer than all other steps from file to feedback.
"""

import functools
import io
import math
import struct
import warnings
from collections.abc import Mapping
from typing import NamedTuple

from emojax.errors import InputError

NEEDED = "pip install 'emojax[realtime]'"
EXPECTED = "a whole DICOM file"
PREAMBLE, META = 128, 4096  # bytes before "DICM", and largest end of the file's meta group
IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
PLAIN = {IMPLICIT, "1.2.840.10008.1.2.1", BIG_ENDIAN}  # syntaxes without compression
DEFLATED = "1.2.840.10008.1.2.1.99"
SHARED, FRAMES, PIXELS = 0x52009229, 0x52009230, 0x7FE00010
IMAGES = {f"1.2.840.10008.5.1.4.1.1.4{end}" for end in ("", ".1", ".4")}  # MR image classes
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
OPEN = 0xFFFFFFFF  # undefined length: the value ends at a delimiter
LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
ZEROS = 64  # bytes; a file that ends in this many zeros may only be preallocated

SOP_CLASS, IMAGE_TYPE, COMPONENT, FRAME_TYPE = 0x00080016, 0x00080008, 0x00089208, 0x00089007
MAKER, SERIES_NAME, PROTOCOL = 0x00080070, 0x0008103E, 0x00181030
SERIES_UID, FRAME_UID, SERIES_NUMBER = 0x0020000E, 0x00200052, 0x00200011
ACQUISITION, INSTANCE = 0x00200012, 0x00200013
TEMPORAL, TEMPORAL_INDEX = 0x00200100, 0x00209128
MOMENT, FRAME_MOMENT = 0x0008002A, 0x00189074
DAYS = 0x00080022, 0x00080023, 0x00080021  # of acquisition, content, series
TIMES = 0x00080032, 0x00080033
TR, ECHO, FRAME_ECHO = 0x00180080, 0x00180081, 0x00189082
POSITION, ORIENTATION, SPACING = 0x00200032, 0x00200037, 0x00280030
THICKNESS, BETWEEN = 0x00180050, 0x00180088
SAMPLES, NUM_FRAMES, ROWS, COLUMNS = 0x00280002, 0x00280008, 0x00280010, 0x00280011
BITS, SIGNED, INTERCEPT, SLOPE = 0x00280100, 0x00280103, 0x00281052, 0x00281053
MATRIX = 0x00181310
CSA, MOSAIC_IMAGES, MOSAIC_TIMES = 0x00291010, 0x0019100A, 0x00191029  # Siemens
SIEMENS_COUNTS = 0x0021118E  # X_1_1_...: positions of an image in the scan, then their totals
GE_SLICES, GE_IMAGES, GE_KIND = 0x0021104F, 0x00201002, 0x0043102F
PHILIPS_SLICES, PHILIPS_SLOPE = 0x20011018, 0x2005100E

_OF_FRAMES = {
    *(POSITION, ORIENTATION, SPACING, THICKNESS, BETWEEN, INTERCEPT, SLOPE, PHILIPS_SLOPE),
    *(TR, FRAME_ECHO, COMPONENT, FRAME_TYPE, TEMPORAL_INDEX, FRAME_MOMENT),
}
_OF_FILE = {
    *(SOP_CLASS, IMAGE_TYPE, MAKER, SERIES_NAME, PROTOCOL, SERIES_UID, FRAME_UID, SERIES_NUMBER),
    *(ACQUISITION, INSTANCE, TEMPORAL, MOMENT, *DAYS, *TIMES, ECHO, MATRIX),
    *(SAMPLES, NUM_FRAMES, ROWS, COLUMNS, BITS, SIGNED),
    *(CSA, MOSAIC_IMAGES, MOSAIC_TIMES, SIEMENS_COUNTS),
    *(GE_SLICES, GE_IMAGES, GE_KIND, PHILIPS_SLICES),
}
_HEAD = [*_OF_FRAMES, *_OF_FILE]
_SEQUENCES = {  # of a frame: content, position, orientation, pixel size and scale, echo, time
    *(ITEM, 0x00209111, 0x00209113, 0x00209116, 0x00289110, 0x00289145),
    *(0x00189114, 0x00189112, 0x00189226, 0x2005140F),
}


class NotWhole(InputError):
    """A file that is still being written; read it again later."""


class Elements(NamedTuple):
    """The raw values of elements by their tag."""

    values: Mapping[int, bytes]
    order: str = "<"  # byte order

    def text(self, tag: int) -> str:
        """Returns a text; "" without one."""
        return self.values.get(tag, b"").decode("utf-8", "replace").strip(" \0")

    def texts(self, tag: int) -> tuple[str, ...]:
        """Returns the parts of a text with multiple values."""
        return tuple(part.strip() for part in self.text(tag).split("\\"))

    def numbers(self, tag: int) -> tuple[float, ...]:
        """Returns the numbers of a decimal string; () without any, or for other text."""
        return _numbers(self.values.get(tag, b""))

    def number(self, tag: int, default: float = 0.0) -> float:
        """Returns the first number of a decimal string."""
        return next(iter(self.numbers(tag)), default)

    def binary(self, tag: int, code: str, default: float = 0) -> float:
        """Returns the first binary number, of the type given by a code of `struct`."""
        found = self.values.get(tag, b"")
        if len(found) < struct.calcsize(code):
            return default
        return struct.unpack_from(self.order + code, found)[0]


class File(NamedTuple):
    """One DICOM file."""

    syntax: str  # UID of the transfer syntax
    head: Elements
    frames: list[Elements]  # including the elements of the head and shared ones; may be empty
    pixels: memoryview  # raw pixels; empty if they are compressed


class _Bytes(NamedTuple):
    """A reader of elements by their offset; past the end of the data it raises `struct.error`."""

    data: bytes
    explicit: bool
    short: struct.Struct  # tag, type, length
    long: struct.Struct  # length
    where: str

    def element(self, at: int) -> tuple[int, int, int, bytes]:
        """Returns tag, start, length and type of the element at an offset."""
        group, number, kind, length = self.short.unpack_from(self.data, at)
        start = at + 8
        if not self.explicit or group == 0xFFFE:
            (length,) = self.long.unpack_from(self.data, at + 4)
        elif kind in LONG:
            (length,) = self.long.unpack_from(self.data, start)
            start = at + 12
        return group << 16 | number, start, length, kind

    def end(self, start: int, length: int) -> int:
        """Returns the end of a value of defined length."""
        if start + length > len(self.data):
            raise not_whole(self.where, len(self.data), start + length)
        return start + length

    def skip(self, start: int, length: int, kind: bytes) -> int:
        """Returns the offset of the element after a value."""
        if length != OPEN:
            return self.end(start, length)
        if kind == b"UN" and self.explicit:  # nested elements have no type
            return self._replace(explicit=False).skip(start, length, b"")
        at, depth = start, 1
        while depth:
            tag, at, size, kind = self.element(at)
            if tag in (ITEM_END, SEQUENCE_END):
                depth -= 1
            elif size != OPEN:
                at = self.end(at, size)
            elif kind == b"UN" and self.explicit and tag != ITEM:
                at = self.skip(at, size, kind)
            else:
                depth += 1
        return at

    def collect(self, start: int, length: int, into: dict[int, bytes]) -> int:
        """Collects the wanted elements of a frame; returns the offset of the next element."""
        at, stop = start, len(self.data) if length == OPEN else self.end(start, length)
        while at < stop:
            tag, begin, size, kind = self.element(at)
            if tag in (ITEM_END, SEQUENCE_END):
                return begin
            if tag in _SEQUENCES:
                at = self.collect(begin, size, into)
                continue
            at = self.skip(begin, size, kind)
            if tag in _OF_FRAMES:  # the first: later, private ones are half a voxel off
                into.setdefault(tag, self.data[begin:at])
        return at

    def items(self, start: int, length: int) -> tuple[list[dict[int, bytes]], int]:
        """Returns the wanted elements of each item of a sequence, and the next offset."""
        at, stop = start, len(self.data) if length == OPEN else self.end(start, length)
        found: list[dict[int, bytes]] = []
        while at < stop:
            tag, at, size, _ = self.element(at)
            if tag == SEQUENCE_END:
                break
            found.append({})
            at = self.collect(at, size, found[-1])
        return found, at


def damage(where: str, found: str, data: bytes, expected: str = EXPECTED) -> InputError:
    """Returns the error of an unusable file; one that ends in zeros may still be written."""
    if not any(data[-ZEROS:]):
        expected += "; it may still be written"
        return NotWhole(where, f"{found}, and zeros at the end", expected)
    return InputError(where, found, expected)


def not_whole(where: str, size: int, wanted: int | None = None) -> NotWhole:
    """Returns the error of a file with fewer bytes than its header states."""
    asked = "more" if wanted is None else f"{wanted} or more"
    return NotWhole(where, f"{size} bytes", f"{asked}: it may still be written")


def load(data: bytes, where: str) -> File:
    """Reads the elements of a file.

    Args:
      data: content of the file.
      where: its name, for messages.

    Raises:
      NotWhole: bytes at the end are missing or still zero.
      InputError: the file is not DICOM, is damaged, or has a transfer syntax that cannot be read.
    """
    syntax = _syntax(data, where)
    explicit, order = syntax != IMPLICIT, ">" if syntax == BIG_ENDIAN else "<"
    values, at = _head(data, where)
    head = Elements(values, order)
    kind = head.text(SOP_CLASS)
    if kind and at < len(data) and kind not in IMAGES:
        raise damage(where, f"an object of class {kind}", data, "an MR image")
    short, long = struct.Struct(order + "HH2sH"), struct.Struct(order + "I")
    own = _Bytes(data, explicit, short, long, where)
    try:
        return _file(own, at, syntax, head)
    except struct.error:
        raise not_whole(where, len(data)) from None


def _file(own: _Bytes, at: int, syntax: str, head: Elements) -> File:
    common, frames = head.values, []
    while True:
        tag, start, length, code = own.element(at)
        if tag == 0:
            raise damage(own.where, f"no element at byte {at}", own.data)
        if tag not in (SHARED, FRAMES):
            at = own.skip(start, length, code)
            if tag == PIXELS:
                pixels = memoryview(own.data)[start : start if length == OPEN else at]
                return File(syntax, head, [Elements(v, head.order) for v in frames], pixels)
            continue
        found, at = own.items(start, length)
        if tag == SHARED:
            common = {**common, **(found[0] if found else {})}
        else:
            frames = [{**common, **values} for values in found]


def _syntax(data: bytes, where: str) -> str:
    prefix = data[PREAMBLE : PREAMBLE + 4]
    if len(prefix) < 4 or not any(data[: PREAMBLE + 4]):
        raise not_whole(where, len(data) if any(data) else 0)
    if prefix != b"DICM":
        raise damage(where, "no DICM after 128 bytes", data)
    at = data.find(b"\2\0\x10\0UI", PREAMBLE, META)
    if at < 0 and len(data) >= META:
        raise damage(where, "no transfer syntax", data)
    start, length = at + 8, int.from_bytes(data[at + 6 : at + 8], "little")
    if at < 0 or len(data) < start + length or not any(data[start : start + length]):
        raise not_whole(where, len(data))
    uid = data[start : start + length].rstrip(b" \0").decode("ascii", "replace")
    if uid == DEFLATED or not (uid in PLAIN or _can_decode(uid)):
        expected = "pixels without compression, or a package with which pydicom decodes them"
        raise damage(where, f"transfer syntax {uid}", data, expected)
    return uid


def _can_decode(uid: str) -> bool:
    from pydicom import config
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    known = UID(uid, validation_mode=config.IGNORE)
    try:
        return known.is_valid and get_decoder(known).is_available
    except (NotImplementedError, ValueError):
        return False


def _head(data: bytes, where: str) -> tuple[dict[int, bytes], int]:
    """Returns the wanted elements of the head, and the offset of the frames' elements."""
    try:
        from pydicom.filereader import read_partial
    except ImportError:
        raise InputError("DICOM", "no package pydicom", NEEDED) from None
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damage, which is reported below
            head = read_partial(
                file, lambda tag, *_: tag >= SHARED or tag == 0, specific_tags=_HEAD
            )
        found = {int(tag): head.get_item(tag).value for tag in head.keys()}  # noqa: SIM118
    except (OSError, struct.error):  # the file ends within a sequence or a length
        raise not_whole(where, len(data)) from None
    except Exception as error:  # pydicom raises many types on damaged files
        raise damage(where, f"damage ({type(error).__name__})", data) from None
    return {tag: v for tag, v in found.items() if isinstance(v, bytes)}, file.tell()


@functools.lru_cache(4096)
def _numbers(text: bytes) -> tuple[float, ...]:
    try:
        found = tuple(map(float, text.strip(b" \0").split(b"\\")))
    except ValueError:
        return ()
    return found if all(map(math.isfinite, found)) else ()
