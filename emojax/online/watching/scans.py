"""Files of single volumes: their numbers, whether they are complete, and the values of NIfTI files.

Each file is read once: completeness, values and checksum come from the same bytes.
"""

import functools
import hashlib
import math
import os
import pathlib
import re
import stat
import zlib
from typing import NamedTuple

import nibabel as nib
import numpy as np
from jaxtyping import Float, Shaped

from emojax.data.nifti import HEADER, TRAILING, repetition_time
from emojax.errors import InputError
from emojax.files import cause
from emojax.online.dicom import NotWhole
from emojax.online.dicom.elements import ZEROS

LARGEST = 2**29  # bytes of a file, and of the values of a volume
TAIL = 8  # values "end in zeros" if the last eighth of the last slice is zero
WHOLE = "a whole .nii or .nii.gz of one volume"
NUMBER = re.compile(r"\{n(?::0?\d*d?)?\}")  # in a pattern; its width does not matter
ENDING = re.compile(r"\.nii(?:\.gz)?$", re.IGNORECASE)
LAST = re.compile(r"([0-9]+)[^0-9]*$")
GZIP = b"\x1f\x8b"


class Scan(NamedTuple):
    """One volume as scanned, or the reason why it cannot be read."""

    number: int
    values: Float[np.ndarray, "X Y Z"] | None  # float32; None if it cannot be read, see `reason`
    affine: Float[np.ndarray, "4 4"] | None  # voxel -> mm
    tr: float | None  # s
    time_scan: float | None  # s since 1970, by the scanner's clock
    time_closed: float  # s since 1970, last modification of its last file
    time_ready: float  # s since 1970, when it was found to be complete
    files: tuple[str, ...]  # file names
    sha256: str  # see `digest`; "" without values
    reason: str = ""


class Image(NamedTuple):
    """The volume in a NIfTI file."""

    series: str  # file name with {n} in place of the number
    number: int
    values: Float[np.ndarray, "X Y Z"]  # float32
    affine: Float[np.ndarray, "4 4"]
    tr: float | None
    ends_in_zeros: bool  # as in a file that is still being filled


class _Layout(NamedTuple):
    """The content of a header."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    affine: Float[np.ndarray, "4 4"]
    tr: float | None

    @property
    def size(self) -> int:
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def is_nifti(name: str) -> bool:
    """Returns whether a file name is that of a NIfTI file."""
    return name.lower().endswith((".nii", ".nii.gz"))


def digest(values: Float[np.ndarray, "X Y Z"]) -> str:
    """Returns the sha256 of the float32 values, the first axis fastest as in the file."""
    return hashlib.sha256(np.ascontiguousarray(values.T, "<f4").data).hexdigest()


def identify(name: str, pattern: str = "") -> tuple[str, int] | None:
    """Returns the series and number in the name of a NIfTI file.

    Args:
      name: name of the file.
      pattern: see `check_pattern`; "" takes the last digits of the name.

    Returns:
      The name with {n} in place of the number (or the pattern), and the number; None without one.
    """
    if pattern:
        found = _compiled(pattern).fullmatch(name)
        return (pattern, int(found[1])) if found else None
    digits = LAST.search(ENDING.sub("", name))
    if digits is None:
        return None
    return f"{name[: digits.start(1)]}{{n}}{name[digits.end(1) :]}", int(digits[1])


def last_number(stem: str) -> int | None:
    """Returns the last number in a file name without its suffix."""
    digits = LAST.search(stem)
    return digits and int(digits[1])


def check_pattern(pattern: str) -> str:
    """Returns a checked pattern of file names, in which {n} is the number and * is anything.

    Raises:
      InputError: the pattern has no {n}, or more than one.
    """
    if pattern and len(NUMBER.findall(pattern)) != 1:
        raise InputError("pattern", repr(pattern), 'one {n} in it, such as "vol_{n}.nii"')
    return pattern


def read_nifti(path: str | os.PathLike, pattern: str = "") -> Image:
    """Reads a .nii or .nii.gz of one volume.

    Args:
      path: the file.
      pattern: see `check_pattern`.

    Raises:
      NotWhole: the file has fewer bytes than its header states; read it again later.
      InputError: the file is damaged, too large, has several volumes, or no number in its name.
      OSError: the file cannot be read, or is gone.
    """
    where = pathlib.Path(path).name
    own = identify(where, pattern)
    if own is None:
        expected = f"one like {pattern}" if pattern else 'one such as "vol_0001.nii"'
        raise InputError(where, "a name without a number", expected)
    check_size(path)
    data = read_bytes(path)
    if data.startswith(GZIP):
        data = _inflated(data, where)
    layout = _checked(data, where)
    if len(data) < layout.size:
        raise _partly(where, len(data), layout.size)
    if len(data) > layout.size + TRAILING:
        raise InputError(where, f"{len(data):,} bytes", f"{layout.size:,} as its header says")
    count = math.prod(layout.shape)
    stored = np.frombuffer(data, layout.dtype, count, layout.offset)
    stored = stored.reshape(layout.shape, order="F")
    ends_in_zeros = not stored[:, -max(layout.shape[1] // TAIL, 1) :, -1].any()
    return Image(*own, _scaled(stored, layout), layout.affine, layout.tr, ends_in_zeros)


def read_bytes(path: str | os.PathLike, most: int = -1) -> bytes:
    """Reads a regular file, without waiting for pipes or devices.

    Args:
      path: the file.
      most: maximum number of bytes to read; -1 for all.

    Raises:
      InputError: the path is not a regular file.
      OSError: the file cannot be read, or is gone.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError(pathlib.Path(path).name, "not a regular file", WHOLE)
        return file.read(most)


def check_size(path: str | os.PathLike) -> None:
    """Checks the size of a file before it is read.

    Raises:
      InputError: the file is larger than `LARGEST`.
      OSError: the file is gone.
    """
    size = os.stat(path).st_size
    if size > LARGEST:
        raise InputError(pathlib.Path(path).name, f"{size:,} bytes", f"at most {LARGEST:,}")


@functools.lru_cache(8)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = NUMBER.split(ENDING.sub("", pattern))
    before, after = (re.escape(part).replace(r"\*", ".*?") for part in parts)
    return re.compile(f"{before}([0-9]+){after}{ENDING.pattern}", re.IGNORECASE)


def _partly(where: str, there: int, wanted: int) -> NotWhole:
    return NotWhole(where, f"{there:,} of {wanted:,} bytes", "all of them; it is half written")


def _checked(data: bytes, where: str) -> _Layout:
    """Returns the content of the header, if it is complete.

    Raises:
      NotWhole, InputError: as `read_nifti`.
    """
    if not any(data[:HEADER]):
        raise NotWhole(where, f"{len(data):,} bytes without a header", WHOLE)
    try:
        return _layout(data[:HEADER])
    except ValueError as error:
        raise InputError(where, error, WHOLE) from None
    except Exception as error:  # nibabel raises many types on damaged headers
        if len(data) < HEADER:
            raise _partly(where, len(data), HEADER) from None
        raise InputError(where, f"a damaged header ({cause(error)})", WHOLE) from None


@functools.lru_cache(8)  # all files of a series have the same header
def _layout(start: bytes) -> _Layout:
    """Returns the content of a header.

    Raises:
      ValueError: the header is not that of one volume of real numbers; nibabel raises other types.
    """
    kinds = nib.Nifti1Header, nib.Nifti2Header
    kind = next((kind for kind in kinds if kind.may_contain_header(start)), kinds[0])
    header = kind(start[: kind.sizeof_hdr])
    shape, dtype = tuple(map(int, header.get_data_shape())), header.get_data_dtype()
    if len(shape) < 3 or min(shape) < 1 or max(shape[3:], default=1) > 1:
        raise ValueError(f"an image of shape {shape}")
    if dtype.kind not in "iuf":
        raise ValueError(f"values of type {dtype}")
    x, y, z = shape[:3]
    if x * y * z * max(dtype.itemsize, 4) > LARGEST:
        raise ValueError(f"an image of shape {shape}, larger than {LARGEST:,} bytes")
    slope, intercept = header.get_slope_inter()
    affine = np.array(header.get_best_affine(), np.float64)
    if not np.isfinite(affine).all():
        raise ValueError("an affine that is not finite")
    affine.setflags(write=False)  # shared by all volumes
    offset, scale = header.get_data_offset(), (slope or 1.0, intercept or 0.0)
    if not header.sizeof_hdr <= offset <= LARGEST:
        raise ValueError(f"values at byte {offset}, as of a pair of files")
    return _Layout((x, y, z), dtype, offset, *scale, affine, repetition_time(header))


def _scaled(stored: Shaped[np.ndarray, "X Y Z"], own: _Layout) -> Float[np.ndarray, "X Y Z"]:
    with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite: refused later
        values = stored.astype(np.float32)
        if own.slope != 1:
            values *= np.float32(own.slope)
        if own.intercept != 0:
            values += np.float32(own.intercept)
    return values


def _inflated(data: bytes, where: str) -> bytes:
    """Returns the decompressed image of a gzip file after verifying all checksums.

    Raises:
      NotWhole, InputError: as `read_nifti`.
    """
    try:
        start, _ = _inflate(data, HEADER)
        layout = _checked(start, where)
        found, is_whole = _inflate(data, layout.size + TRAILING + 1)
    except zlib.error as error:
        if not any(data[-ZEROS:]):
            raise NotWhole(where, "zeros at the end", "the rest; it is half written") from None
        raise InputError(where, f"damage ({error})", WHOLE) from None
    if len(found) < layout.size or not (is_whole or len(found) > layout.size + TRAILING):
        if is_whole:
            raise InputError(where, f"{len(found):,} bytes", f"{layout.size:,} as its header says")
        raise NotWhole(
            where,
            f"{len(data):,} bytes without the end of the gzip file",
            "all; it is half written",
        )
    return found


def _inflate(data: bytes, most: int) -> tuple[bytes, bool]:
    """Decompresses up to `most` bytes of all members of a gzip file; returns whether it ended."""
    found = b""
    while len(found) < most:
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        found += stream.decompress(data, most - len(found))
        if not stream.eof:
            return found, False
        data = stream.unused_data
        if not data.strip(b"\0"):
            return found, True
    return found, False
