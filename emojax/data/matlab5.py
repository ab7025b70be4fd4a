"""Reader of MATLAB files of versions 5 to 7.2: numbers, text and cells.

scipy can read them too, but ends the whole process if a damaged file states impossible sizes. Here
every size is checked against the bytes that exist.
"""

import math
import pathlib
import zlib
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

import numpy as np

from emojax.data.archives import refuse_bomb

HEADER = 128  # bytes; the last two state the byte order
ByteOrder = Literal["little", "big"]
ORDERS: dict[bytes, ByteOrder] = {b"IM": "little", b"MI": "big"}
MATRIX, COMPRESSED = 14, 15  # types of elements; the others are of numbers or text
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"}
NUMBERS |= {7: "f4", 9: "f8", 12: "i8", 13: "u8"}
TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
CELL, CHAR, NUMERIC = 1, 4, range(6, 16)  # classes of arrays
COMPLEX = 0x800  # flag of an array
BEGINNING = 4096  # bytes of an array that contain its name
PADDING = 64  # bytes that may follow a compressed array


class Head(NamedTuple):
    """The header of an array."""

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str
    content: int  # offset of the content


def read(path: pathlib.Path, names: Collection[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads some variables.

    Args:
      path: the file.
      names: names of the variables; the content of others is skipped.

    Returns:
      Name -> array of MATLAB's shape with the stored dtype (cells are object arrays, text is an
      array of its rows), and the names of all variables.

    Raises:
      ValueError: the file is damaged, or has a variable twice or of an unsupported kind.
      InputError: a variable could exhaust the memory.
    """
    data = memoryview(path.read_bytes())
    order = ORDERS.get(bytes(data[HEADER - 2 : HEADER]))
    if order is None:
        raise ValueError("no header of MATLAB 5")
    found: dict[str, np.ndarray] = {}
    have: list[str] = []
    for kind, element in _elements(data[HEADER:], order):
        inflate = zlib.decompressobj() if kind == COMPRESSED else None
        start = memoryview(inflate.decompress(element, BEGINNING))[8:] if inflate else element
        if kind not in (MATRIX, COMPRESSED):
            raise ValueError(f"an element of type {kind}")
        name = _head(start, order).name
        have.append(name)
        if name not in names:
            continue
        if name in found:
            raise ValueError(f"{name} twice")
        found[name] = _array(_inflated(path, name, element, order) if inflate else element, order)
    return found, sorted(filter(None, have))


def _elements(data: memoryview, order: ByteOrder) -> Iterator[tuple[int, memoryview]]:
    """Yields type and content of consecutive elements."""
    at = 0
    while at < len(data):
        kind, element, at = _element(data, at, order)
        yield kind, element


def _element(data: memoryview, at: int, order: ByteOrder) -> tuple[int, memoryview, int]:
    """Returns type and content of the element at an offset, and the offset of the next."""
    tag = data[at : at + 8]
    if len(tag) < 8:
        raise ValueError("truncated")
    kind, size = (int.from_bytes(tag[i : i + 4], order) for i in (0, 4))
    if kind >> 16:  # the tag itself contains up to four bytes
        kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if size > 4:
            raise ValueError(f"{size} bytes in a tag")
    else:
        start = at + 8
        end = start + size + (-size % 8 if kind != COMPRESSED else 0)
    if start + size > len(data):
        raise ValueError(f"truncated: {len(data) - start} bytes where {size} should be")
    return kind, data[start : start + size], end


def _inflated(path: pathlib.Path, name: str, element: memoryview, order: ByteOrder) -> memoryview:
    """Returns the content of a compressed array after verifying its checksum."""
    inflate = zlib.decompressobj()
    size = 8 + int.from_bytes(zlib.decompressobj().decompress(element, 8)[4:], order)
    refuse_bomb(path, name, size, len(element))
    raw = inflate.decompress(element, size + PADDING)
    if not inflate.eof or len(raw) < size:
        raise ValueError(f"{len(raw)} bytes of {name} where {size} should be")
    return memoryview(raw)[8:size]


def _head(data: memoryview, order: ByteOrder) -> Head:
    _, flags, at = _element(data, 0, order)
    _, shape, at = _element(data, at, order)
    _, name, at = _element(data, at, order)
    if len(flags) != 8 or len(shape) < 8 or len(shape) % 4:
        raise ValueError("damaged array")
    code = int.from_bytes(flags[:4], order)
    sizes = [int.from_bytes(shape[i : i + 4], order, signed=True) for i in range(0, len(shape), 4)]
    if min(sizes) < 0:
        raise ValueError(f"an array of shape {sizes}")
    return Head(code & 0xFF, code, tuple(sizes), bytes(name).decode("latin-1"), at)


def _array(data: memoryview, order: ByteOrder) -> np.ndarray:
    if not len(data):
        return np.zeros((0, 0))  # an empty cell
    head = _head(data, order)
    count, content = math.prod(head.shape), data[head.content :]
    if head.kind == CELL:
        if count > len(content) // 8:
            raise ValueError(f"{count} cells in {len(content)} bytes")
        cells, at = np.empty(count, object), 0
        for i in range(count):
            kind, element, at = _element(content, at, order)
            if kind != MATRIX:
                raise ValueError(f"a cell of type {kind}")
            cells[i] = _array(element, order)
        return cells.reshape(head.shape, order="F")
    if head.kind == CHAR:
        return _text(head, content, order)
    if head.kind not in NUMERIC:
        raise ValueError(f"{head.name or 'a cell'} is no array of numbers, text or cells")
    real, at = _numbers(head, content, 0, order)
    return real + 1j * _numbers(head, content, at, order)[0] if head.flags & COMPLEX else real


def _numbers(head: Head, content: memoryview, at: int, order: ByteOrder) -> tuple[np.ndarray, int]:
    kind, element, at = _element(content, at, order)
    if kind not in NUMBERS:
        raise ValueError(f"numbers of type {kind}")
    dtype = np.dtype(NUMBERS[kind])
    if len(element) != math.prod(head.shape) * dtype.itemsize:
        raise ValueError(f"{len(element)} bytes of {dtype} for the shape {head.shape}")
    stored = np.frombuffer(element, dtype.newbyteorder(order)).astype(dtype, copy=False)
    return stored.reshape(head.shape, order="F"), at


def _text(head: Head, content: memoryview, order: ByteOrder) -> np.ndarray:
    """Returns the rows of a text."""
    if not math.prod(head.shape):
        return np.zeros(0, str)
    kind, element, _ = _element(content, 0, order)
    if kind not in TEXT:
        raise ValueError(f"text of type {kind}")
    wide = {"little": "-le", "big": "-be"}[order] if TEXT[kind] == "utf-16" else ""
    text = bytes(element).decode(TEXT[kind] + wide)
    rows = head.shape[0]
    if rows > 1 and len(text) != math.prod(head.shape):
        raise ValueError(f"{len(text)} letters for the shape {head.shape}")
    return np.array([text[row::rows] for row in range(rows)])
