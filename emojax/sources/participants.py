"""Groups of subjects, read from the participants.tsv of a data set."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from emojax.data import events
from emojax.data.acquisitions import number
from emojax.data.hashes import sha256
from emojax.data.names import tidy
from emojax.errors import InputError

KEY = "data.group"
NAME = "participants.tsv"
COLUMN = "participant_id"


class Groups(NamedTuple):
    """The group of each subject, and the hash of the table."""

    of: Mapping[str, str]  # subject -> group
    hashes: Mapping[str, str]  # path of the table -> sha256


def read(roots: Sequence[pathlib.Path], column: str, subjects: Sequence[str]) -> Groups:
    """Reads the group of each subject.

    Args:
      roots: data sets that may hold participants.tsv; the first table with the column is used.
      column: name of the column, such as "diagnosis".
      subjects: subject labels, with or without "sub-".

    Raises:
      InputError: no table has the column, or a subject is missing, has no value or has two.
    """
    paths = [root / NAME for root in dict.fromkeys(roots) if os.path.lexists(root / NAME)]
    if not paths:
        where = f"{NAME} in {' or '.join(map(str, dict.fromkeys(roots)))}"
        raise InputError(KEY, f"{column!r}, but no {NAME}", f"{where} (or {KEY}='')")
    tables = {path: events.read_table(path, "\t", (COLUMN,)) for path in paths}
    fitting = [path for path, rows in tables.items() if rows and column in rows[0]]
    if not fitting or column == COLUMN:
        rows = next(iter(tables.values()))
        have = [name for name in (rows[0] if rows else ()) if name and name != COLUMN]
        example = f", such as --config.{KEY}={have[0]}" if have else ""
        expected = f"a column of it: {', '.join(have) or 'there is none'}{example}"
        raise InputError(paths[0], f"no column {column!r}", expected)
    path = fitting[0]
    groups: dict[str, set[str]] = {}
    for row in tables[path]:
        groups.setdefault(_label(row[COLUMN]), set()).add(tidy(row[column]))
    found = {subject: _group(path, column, subject, groups) for subject in subjects}
    missing = [subject for subject, value in found.items() if not value]
    if missing:
        listed = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        what = f"no {column} of {len(missing)} subjects: {listed}"
        expected = "a value other than n/a for each (or other subjects by --config.data.subjects)"
        raise InputError(path, what, expected)
    return Groups(found, {str(path): sha256(path)})


def _group(path, column: str, subject: str, groups: dict[str, set[str]]) -> str:
    """Returns the value of one subject, or "" without one."""
    own = _label(subject)
    alike = [label for label in groups if number(label) == number(own)]
    if own not in groups and len(alike) != 1:
        return ""
    values = groups[own if own in groups else alike[0]]
    if len(values) > 1:
        found = f"{column} {', '.join(sorted(values))} of subject {subject}"
        raise InputError(path, found, "one value for each subject")
    return next(iter(values))


def _label(text: str) -> str:
    return tidy(text).removeprefix("sub-")
