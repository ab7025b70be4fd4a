"""Names of BIDS files: their entities, and the comparison of entity values."""

import functools
import glob
import os
import pathlib
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

import bids2table

from emojax.data.acquisitions import number

ACQUISITION = ("sub", "ses", "task", "acq", "dir", "run")  # entities that identify an acquisition
NUMBERS = ("run", "echo", "flip", "inv", "split", "chunk", "res")  # numeric: run-1 equals run-01
NO_ENTITIES = ("datatype", "suffix", "ext")
IMAGES = (".nii", ".nii.gz")


class File(NamedTuple):
    """A file of a data set, described by its name."""

    path: pathlib.Path
    written: Mapping[str, str]  # entity -> value as written in the name
    same: Mapping[str, str]  # entity -> value in the form that is compared
    suffix: str  # such as "bold" or "events"
    ext: str  # such as ".nii.gz"

    @property
    def acquisition(self) -> tuple[str | None, ...]:
        """Identity of the acquisition, shared by all versions of it."""
        return tuple(self.same.get(entity) for entity in ACQUISITION)

    @property
    def label(self) -> str:
        """The acquisition in words: "sub-01 task-emo run-1"."""
        return " ".join(f"{e}-{self.written[e]}" for e in ACQUISITION if e in self.written)

    def fits(self, other: "File", ignored: tuple[str, ...] = ()) -> bool:
        """Returns whether another file has all entities of this one.

        Args:
          other: the other file.
          ignored: entities that need not match.
        """
        return all(other.same.get(e) == v for e, v in self.same.items() if e not in ignored)


def parse(path: pathlib.Path) -> File:
    """Parses the name of a file into its entities."""
    found = bids2table.parse_bids_entities(path.name)
    written = {entity: value for entity, value in found.items() if entity not in NO_ENTITIES}
    same = {entity: comparable(entity, value) for entity, value in written.items()}
    return File(path, written, same, found.get("suffix", ""), found.get("ext", ""))


def comparable(entity: str, value: str) -> str:
    """Returns an entity's value in the form that is compared: numbers without leading zeros."""
    text = unicodedata.normalize("NFC", value)
    return number(text) if entity in NUMBERS else text


def files(root: pathlib.Path) -> list[File]:
    """Returns the files in the subject folders of a data set, sorted by path.

    Hidden files, and derivatives inside a raw data set, are not included.
    """
    found = glob.glob(os.path.join("sub-*", "**", "sub-*.*"), root_dir=root, recursive=True)
    return [parse(root / path) for path in sorted(set(found))]


@functools.cache
def known() -> frozenset[str]:
    """Returns the entities that BIDS defines."""
    schema = bids2table.get_arrow_schema()
    return frozenset(f.name for f in schema if b"entity" in f.metadata) - {*NO_ENTITIES}
