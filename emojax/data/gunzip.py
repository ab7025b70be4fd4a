"""Decompression of .nii.gz files, with hashes and checks.

The header states the length of an image, and no more than that is ever written. Some tools pad
files: up to 64 KiB after the last voxel (`nifti.TRAILING`) are read, checked by gzip, and left out.
A longer file is refused, since its header or the file is wrong. A header that states more bytes
than the compressed file could hold is refused before anything is written.
"""

import hashlib
import itertools
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from emojax.data import hashes, nifti
from emojax.errors import InputError

RATIO = 1032  # largest compression ratio of deflate
STEP = 1 << 20  # bytes that are decompressed at a time


class Decoded(NamedTuple):
    """Hashes of a .nii.gz file and of the image in it."""

    source: str  # sha256 of the compressed file
    content: str  # sha256 of the image
    bytes: int  # size of the image


def decode(
    path: pathlib.Path,
    out: BinaryIO,
    reserve: Callable[[int], None],
    tick: Callable[[int], None],
) -> Decoded:
    """Writes the plain NIfTI image that a .nii.gz file holds.

    Args:
      path: the compressed file.
      out: buffered destination of the decompressed bytes.
      reserve: function called with the size of the whole image once its header has been read.
      tick: function called with the number of compressed bytes after each chunk.

    Raises:
      InputError: the file is truncated, damaged or not a NIfTI image, or holds fewer bytes than its
        header states, or many more.
    """
    source, content, head, seen = hashlib.sha256(), hashlib.sha256(), b"", 0
    stream = _inflate(path, source, tick)
    while len(head) < nifti.HEADER and (data := next(stream, b"")):
        head += data
    wanted = nifti.size(path, head)
    packed = hashes.stamp(path)["size"]
    if wanted > RATIO * packed:
        expected = f"more for the {wanted:,} bytes of image that its header says"
        raise InputError(path, f"{packed:,} compressed bytes", expected)
    reserve(wanted)
    for data in itertools.chain([head], stream):
        image = data[: max(wanted - seen, 0)]
        content.update(image)
        out.write(image)
        seen += len(data)
        if seen > wanted + nifti.TRAILING:
            found = f"more than {nifti.TRAILING:,} bytes after the last voxel"
            raise InputError(path, found, f"{wanted:,} bytes of image as its header says")
    if seen < wanted:
        raise InputError(path, f"{seen} bytes of image", f"{wanted} as its header says")
    return Decoded(source.hexdigest(), content.hexdigest(), wanted)


def _inflate(path: pathlib.Path, sha: Any, tick: Callable[[int], None]) -> Iterator[bytes]:
    """Yields the decompressed bytes of all members of a gzip file, verifying their checksums."""
    inflate, started = zlib.decompressobj(zlib.MAX_WBITS | 16), False
    for data in hashes.chunks(path):
        sha.update(data)
        tick(len(data))
        more = True
        while more:
            if inflate.eof:
                if not data.strip(b"\0"):
                    break  # zeros after the last member pad some archives
                inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                out = inflate.decompress(data, STEP)
            except zlib.error as error:
                raise InputError(path, f"damaged gzip data ({error})", "a whole .nii.gz") from None
            if out:
                yield out
            started, data = True, inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            more = data or len(out) == STEP
    if not started or not inflate.eof:
        raise InputError(path, "a truncated .nii.gz", "a whole one")
