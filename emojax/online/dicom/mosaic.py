"""Mosaics: images of Siemens scanners whose tiles are the slices of a volume."""

import math
import struct
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from emojax.errors import InputError
from emojax.online.dicom import elements as e

NAME, ITEM = 64, 16  # bytes of a tag's name and of an item's header in a CSA header
MOST_ITEMS = 1024


class Layout(NamedTuple):
    """The tiles of a mosaic."""

    slices: int
    side: int  # number of tiles per row and per column of the image
    normal: tuple[float, float, float] | None  # direction of the slices, LPS


def layout(head: e.Elements, rows: int, columns: int, where: str) -> Layout | None:
    """Returns the layout of a mosaic, or None for an image of a single slice.

    The number of slices comes from the CSA header, else from the slice times, else from the private
    element that counts images, else from the number of acquisition matrices that fit into the
    image. Tools that split mosaics leave MOSAIC in the image type: an image as small as its matrix
    is a single slice.

    Raises:
      InputError: the image cannot be divided into this number of tiles.
    """
    if "MOSAIC" not in head.texts(e.IMAGE_TYPE):
        return None
    matrix = _matrix(head)
    if matrix and max(matrix) >= max(rows, columns):
        return None
    csa = head.values.get(e.CSA, b"")
    count = int(next(iter(csa_numbers(csa, "NumberOfImagesInMosaic", where)), 0))
    count = count or len(head.values.get(e.MOSAIC_TIMES, b"")) // 8
    count = count or int(head.binary(e.MOSAIC_IMAGES, "H"))
    count = count or _that_fit(matrix, rows, columns)
    side = math.ceil(math.sqrt(max(count, 0)))
    if not count:
        raise InputError(where, "a mosaic without its number of slices", "a CSA header")
    if count < 2 or rows % side or columns % side:
        found = f"a mosaic of {rows} x {columns} with {count} slices"
        raise InputError(where, found, "equal numbers of whole tiles in rows and columns")
    normal = csa_numbers(csa, "SliceNormalVector", where)
    return Layout(count, side, (normal[0], normal[1], normal[2]) if len(normal) == 3 else None)


def tiles(image: Shaped[np.ndarray, "rows columns"], own: Layout) -> Shaped[np.ndarray, "z y x"]:
    """Returns the slices of a mosaic in their order."""
    rows, columns = image.shape
    apart = image.reshape(own.side, rows // own.side, own.side, columns // own.side)
    return apart.swapaxes(1, 2).reshape(-1, *apart.shape[1::2])[: own.slices]


def direction(own: Layout, along: np.ndarray, down: np.ndarray) -> Float[np.ndarray, "3"]:
    """Returns the unit vector from slice to slice, LPS.

    Without a CSA header, slices run in the scanner's default direction: from right to left, from
    front to back, or upwards.
    """
    normal = np.cross(along, down)
    if own.normal is None:
        return normal * np.sign(normal[np.abs(normal).argmax()])
    return normal if normal @ np.array(own.normal) >= 0 else -normal


def csa_numbers(header: bytes, name: str, where: str) -> tuple[float, ...]:
    """Returns the numbers of one tag in a CSA header; () if it is missing.

    Raises:
      InputError: the header is damaged.
    """
    at = header.find(name.encode() + b"\0")
    if at < 0:
        return ()
    found = []
    try:
        (count,) = struct.unpack_from("<i", header, at + NAME + 12)
        at += NAME + 20
        for _ in range(min(count, MOST_ITEMS)):
            (length,) = struct.unpack_from("<i", header, at + 4)
            if not 0 <= length <= len(header):
                raise ValueError(length)
            text = header[at + ITEM : at + ITEM + length].split(b"\0")[0].strip()
            found += [float(text)] if text else []
            at += ITEM + length + -length % 4
    except (struct.error, ValueError):
        raise InputError(where, f"a damaged CSA header at {name}", e.EXPECTED) from None
    return tuple(found)


def _matrix(head: e.Elements) -> tuple[int, ...]:
    """Returns rows and columns of the acquisition matrix; () if it is missing."""
    raw = head.values.get(e.MATRIX, b"")
    if len(raw) < 8:
        return ()
    rows, columns, phase_rows, phase_columns = struct.unpack_from(head.order + "4H", raw)
    matrix = rows or phase_rows, columns or phase_columns
    return matrix if all(matrix) else ()


def _that_fit(matrix: tuple[int, ...], rows: int, columns: int) -> int:
    if not matrix:
        return 0
    for y, x in (matrix, (max(matrix), max(matrix))):  # a reduced phase matrix is padded
        if rows % y == columns % x == 0:
            return (rows // y) * (columns // x)
    return 0
