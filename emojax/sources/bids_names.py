"""Names of BIDS files: their entities, and when two values of an entity are the same."""

import functools
import glob
import os
import pathlib
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

import bids2table

from emojax.data.acquisitions import number

ACQUISITION = ("sub", "ses", "task", "acq", "dir", "run")  # one stay in the scanner, one sequence
NUMBERS = ("run", "echo", "flip", "inv", "split", "chunk", "res")  # run-1 is run-01
NO_ENTITIES = ("datatype", "suffix", "ext")
IMAGES = (".nii", ".nii.gz")


class File(NamedTuple):
    """A file of a data set, by its name."""

    path: pathlib.Path
    written: Mapping[str, str]  # entity -> value, as in the name
    same: Mapping[str, str]  # entity -> value that is equal for equal values
    suffix: str  # "bold" or "events"
    ext: str  # ".nii.gz"

    @property
    def acquisition(self) -> tuple[str | None, ...]:
        """Identity of what the scanner took: every version of it has the same."""
        return tuple(self.same.get(entity) for entity in ACQUISITION)

    @property
    def label(self) -> str:
        """The acquisition in words: "sub-01 task-emo run-1"."""
        return " ".join(f"{e}-{self.written[e]}" for e in ACQUISITION if e in self.written)

    def fits(self, other: "File", ignored: tuple[str, ...] = ()) -> bool:
        """Returns whether another file has all entities of this one, apart from some."""
        return all(other.same.get(e) == v for e, v in self.same.items() if e not in ignored)


def parse(path: pathlib.Path) -> File:
    """Returns the entities in a file's name."""
    found = bids2table.parse_bids_entities(path.name)
    written = {entity: value for entity, value in found.items() if entity not in NO_ENTITIES}
    same = {entity: comparable(entity, value) for entity, value in written.items()}
    return File(path, written, same, found.get("suffix", ""), found.get("ext", ""))


def comparable(entity: str, value: str) -> str:
    """Returns the form in which two values of an entity are compared: numbers without zeros."""
    text = unicodedata.normalize("NFC", value)
    return number(text) if entity in NUMBERS else text


def files(root: pathlib.Path) -> list[File]:
    """Returns the files below the subjects of a data set, sorted by path.

    Hidden ones and derivatives inside a raw data set are not among them.
    """
    found = glob.glob(os.path.join("sub-*", "**", "sub-*.*"), root_dir=root, recursive=True)
    return [parse(root / path) for path in sorted(set(found))]


@functools.cache
def known() -> frozenset[str]:
    """Returns the entities that BIDS has."""
    schema = bids2table.get_arrow_schema()
    return frozenset(f.name for f in schema if b"entity" in f.metadata) - {*NO_ENTITIES}
