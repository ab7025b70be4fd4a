"""Helpers for sources of labelled rows: tables of numbers, filters, classes of named rows."""

import functools
import pathlib
import re
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, Num

from emojax.data.acquisitions import number
from emojax.data.events import Events
from emojax.data.label_map import EVERY_VALUE, labelling
from emojax.data.names import tidy
from emojax.data.paths import require_file
from emojax.errors import InputError

Pair = tuple[str, str]  # names of a subject and of a run


def numbers(
    path: pathlib.Path, *, delimiter: str | None = None, skip: int = 0
) -> Float[np.ndarray, "n k"]:
    """Reads a text table of finite numbers, float64.

    Args:
      path: the table.
      delimiter: delimiter of cells; None for any white space.
      skip: number of lines at the start to skip.

    Raises:
      InputError: the table is not text, is empty, has lines of different lengths, or has a cell
        that is not a finite number; the message names its line and column.
    """
    require_file(path, "a table of numbers")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about an empty file, refused below
            table = np.loadtxt(
                path,
                delimiter=delimiter,
                skiprows=skip,
                comments=None,
                ndmin=2,
                encoding="utf-8-sig",
            )
    except (OSError, ValueError) as error:
        raise InputError(path, _fault(path, delimiter, skip) or error, "numbers") from None
    if not table.size:
        raise InputError(path, "no numbers", "a table of numbers")
    if not np.isfinite(table).all():
        raise InputError(path, _fault(path, delimiter, skip), "finite numbers")
    return table


def as_float32(
    path: pathlib.Path, name: str, values: Num[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Returns real numbers as float32.

    Args:
      path: source of the values, for messages.
      name: name of the values, for messages.
      values: real numbers of any dtype.

    Raises:
      InputError: a value is NaN, infinite, or too large for float32; the message names the first.
    """
    with np.errstate(over="ignore"):
        out = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(out))
    if len(bad):
        first = tuple(bad[0].tolist())
        found = f"{len(bad)} values of {name} like {values[first]} (first: at {list(first)})"
        raise InputError(path, found, "finite numbers below 3.4e38")
    return out


def choose(
    root: pathlib.Path,
    found: Sequence[Pair],
    subjects: Sequence[str] = (),
    runs: Sequence[str] = (),
) -> list[int]:
    """Returns the indices of the (subject, run) pairs that the filters allow.

    Args:
      root: the study, for messages.
      found: the pairs.
      subjects: allowed subjects; empty for all.
      runs: allowed runs; empty for all.

    Raises:
      InputError: a filter names a subject or run that does not exist, or no pair is left.
    """
    spell, kept = comparer(found), set(range(len(found)))
    for column, what, wanted in ((0, "subject", subjects), (1, "run", runs)):
        have = [spell(pair)[column] for pair in found]
        for name in wanted:
            if spell((name, name))[column] not in have:
                listed = ", ".join(sorted({pair[column] for pair in found}))
                raise InputError(root, f"no {what} {name!r}", f"one of {listed}")
        allowed = {spell((name, name))[column] for name in wanted}
        kept -= {i for i, name in enumerate(have) if wanted and name not in allowed}
    if not kept:
        raise InputError(root, "no run that both filters allow", "data.subjects and data.runs")
    return sorted(kept)


def comparer(*lists: Sequence[Pair]) -> Callable[[Pair], Pair]:
    """Returns a function that gives equal spellings to names of the same subject and run.

    "sub-01", "01" and "1" are one subject, unless one of the lists has them as different subjects.
    The same holds for runs, unless they are different runs of one subject.

    Args:
      lists: lists of pairs, each from one folder or table.
    """
    subject = _speller("sub", [{(tidy(pair[0]),) for pair in pairs} for pairs in lists])
    own = [{(subject(pair[0]), tidy(pair[1])) for pair in pairs} for pairs in lists]
    run = _speller("run", own)
    return lambda pair: (subject(pair[0]), run(pair[1]))


def _speller(prefix: str, lists: Sequence[set[tuple[str, ...]]]) -> Callable[[str], str]:
    """Returns a function that spells names plainly if that keeps different names different.

    Args:
      prefix: prefix of the entity.
      lists: names to spell, each after the names of what it belongs to.
    """
    plain = functools.partial(_plain, prefix)
    apart = all(len({(*of, plain(name)) for *of, name in names}) == len(names) for names in lists)
    return plain if apart else tidy


def _plain(prefix: str, name: str) -> str:
    """Returns a name without the prefix of its entity, and numbers without leading zeros."""
    return number(re.sub(rf"^{prefix}(-|-?(?=\d))", "", tidy(name)))


def classify(
    path: pathlib.Path,
    named: Sequence[Sequence[str]],
    label_map: str = EVERY_VALUE,
    *,
    column: str = "label",
    classes: Sequence[str] = (),
) -> tuple[tuple[str, ...], list[Int[np.ndarray, " _"]]]:
    """Returns the class numbers of rows that are labelled by name.

    Args:
      path: source of the names, for messages.
      named: for each run, the name of each row, unified by `names.tidy`; "" and "n/a" are no class.
      label_map: a map of these names, see `label_map.parse_label_map`.
      column: column of the names, for messages.
      classes: all names in the order of their numbers, if the map is ""; otherwise sorted.

    Returns:
      The classes, and for each run int32 [t], -1 for rows without a class.

    Raises:
      InputError: as `label_map.labelling`, or a class of the map has no values; rows without a
        label are unknown, and do not count as rest.
    """
    spelled = [tuple(map(tidy, run)) for run in named]
    names, number = tuple(classes), {name: i for i, name in enumerate(classes)}
    if label_map != EVERY_VALUE or not names:
        none = np.zeros(0)
        found = labelling([Events(path, none, none, run) for run in spelled], label_map, column)
        names, number = found.classes, found.number
        if found.baseline >= 0:
            raise InputError(
                "data.label_map",
                f"class {names[found.baseline]!r} without values",
                f"values of {column} for each class: rows without a label are not used",
            )
    return names, [np.array([number.get(name, -1) for name in run], np.int32) for run in spelled]


def _fault(path: pathlib.Path, delimiter: str | None, skip: int) -> str:
    """Describes the first cell that is not a finite number, or line of another length, if any."""
    width = 0
    try:
        with open(path, encoding="utf-8-sig") as file:
            for line, text in enumerate(file, 1):
                cells = text.strip("\r\n").split(delimiter)
                if line <= skip or not text.strip():
                    continue
                for column, cell in enumerate(cells, 1):
                    try:
                        finite = np.isfinite(float(cell))
                    except ValueError:
                        finite = False
                    if not finite:
                        return f"{cell.strip()!r} in line {line}, column {column}"
                width = width or len(cells)
                if len(cells) != width:
                    return f"{len(cells)} cells in line {line}, {width} before"
    except UnicodeDecodeError:
        return "bytes that are not text"
    except OSError:
        pass
    return ""
