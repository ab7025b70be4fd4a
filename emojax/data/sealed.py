"""Sealed records: small JSON files with a hash of their content, which reveals damage."""

import hashlib
import json
import os
import pathlib
from typing import Any

FORMAT = 2  # of the records; format 1 had no hash


class Damaged(Exception):
    """A damaged file in the store; the text names it and describes the difference."""


def write(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Writes a record of JSON values."""
    record = record | {"format": FORMAT}
    path.write_text(json.dumps(record | {"seal": _seal(record)}))


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns a record, or None if there is none or its format is another one.

    Raises:
      Damaged: the file has changed since `write`.
    """
    if not os.path.lexists(path):
        return None
    try:
        if not path.is_file():  # reading a named pipe would block
            raise ValueError
        record = json.loads(path.read_bytes())
        seal = record.pop("seal", None)
        known = record.get("format", FORMAT) == FORMAT and seal is not None
        if known and seal != _seal(record):
            raise ValueError
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{path} is no record that was written here") from None
    return record if known else None


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
