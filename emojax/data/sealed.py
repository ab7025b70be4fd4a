"""Records: small JSON files with a hash of themselves, so that a damaged one is noticed."""

import hashlib
import json
import os
import pathlib
from typing import Any

FORMAT = 2  # of the records; 1 was without a hash


class Damaged(Exception):
    """A kept file that is not what was written; the text names it and says how it differs."""


def write(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Writes a record, which JSON can hold."""
    record = record | {"format": FORMAT}
    path.write_text(json.dumps(record | {"seal": _seal(record)}))


def read(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns a record, or None where there is none, or one of another format.

    Raises:
      Damaged: the file is not what `write` wrote.
    """
    if not os.path.lexists(path):
        return None
    try:
        if not path.is_file():  # a named pipe would be waited for
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
