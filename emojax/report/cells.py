"""A table of text cells, as the report, the terminal and other pages show it."""

import dataclasses
import re
from collections.abc import Sequence

NUMBER = re.compile(r"([-+]?[\d.]+( \([\d.]+\)| (-|/|of) [\d.]+)*)?")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text cells."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def number_like(cell: str) -> bool:
    """Returns whether a cell is empty, or numbers such as "0.741 (0.085)" or "3 of 4"."""
    return NUMBER.fullmatch(cell) is not None
