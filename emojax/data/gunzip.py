"""Decompression of .nii.gz files, hashed and checked on the way."""

import hashlib
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from emojax.data import nifti
from emojax.errors import InputError


def decode(
    path: pathlib.Path,
    out: BinaryIO,
    reserve: Callable[[int], None],
    tick: Callable[[int], None],
) -> str:
    """Writes the plain NIfTI image that a .nii.gz file holds.

    Args:
      path: the compressed file.
      out: the destination of the decompressed bytes.
      reserve: called with the size of the whole image as soon as its header has been read.
      tick: called with the number of compressed bytes after each chunk.

    Returns:
      sha256 of the compressed file.

    Raises:
      InputError: the file is truncated, damaged or no NIfTI image, or holds fewer bytes than its
        header says.
    """
    sha, head, wanted, written = hashlib.sha256(), b"", 0, 0
    with open(path, "rb") as source:
        for data in _inflate(path, source, sha, tick):
            if not wanted and len(head := head + data) >= nifti.HEADER:
                wanted = nifti.size(path, head)
                reserve(wanted)
            written += out.write(data)
    if written < max(wanted, nifti.HEADER):
        expected = f"{wanted or nifti.HEADER} or more as its header says"
        raise InputError(path, f"{written} bytes of image", expected)
    return sha.hexdigest()


def _inflate(path: pathlib.Path, source: BinaryIO, sha, tick) -> Iterator[bytes]:
    """Yields the decompressed bytes of all members of a gzip file, checksums verified."""
    inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
    started = False
    while data := source.read(nifti.CHUNK):
        sha.update(data)
        tick(len(data))
        while data:
            if inflate.eof:
                if not data.strip(b"\0"):
                    break  # zeros after the last member pad some archives
                inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                yield inflate.decompress(data)
            except zlib.error as error:
                raise InputError(path, f"damaged gzip data ({error})", "a whole .nii.gz") from None
            started, data = True, inflate.unused_data
    if not started or not inflate.eof:
        raise InputError(path, "a truncated .nii.gz", "a whole one")
