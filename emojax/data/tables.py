"""Helpers of the sources of labelled rows: tables of numbers, filters, classes of named rows."""

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
      delimiter: between cells; None is any white space.
      skip: lines at the start that are not read.

    Raises:
      InputError: the table is no text, is empty, has lines of different lengths, or has a cell that
        is no finite number, which is named by line and column.
    """
    require_file(path, "a table of numbers")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file; refused below
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
      path: where they come from, for messages.
      name: of the values.
      values: real numbers of any type.

    Raises:
      InputError: one is NaN, infinite, or too large for float32; the first is named.
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
    """Returns the indices of the (subject, run) pairs that the filters allow; empty ones allow all.

    Raises:
      InputError: a filter names what does not exist, or nothing is left.
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
    """Returns a function that spells a subject and a run alike wherever the same ones are meant.

    "sub-01", "01" and "1" are one subject, unless one of the lists tells them apart; so are runs,
    unless they are two runs of one subject.

    Args:
      lists: the pairs of a folder or a table each.
    """
    subject = _speller("sub", [{(tidy(pair[0]),) for pair in pairs} for pairs in lists])
    own = [{(subject(pair[0]), tidy(pair[1])) for pair in pairs} for pairs in lists]
    run = _speller("run", own)
    return lambda pair: (subject(pair[0]), run(pair[1]))


def _speller(prefix: str, lists: Sequence[set[tuple[str, ...]]]) -> Callable[[str], str]:
    """Returns how a name is spelled: plainly where that leaves apart what is apart.

    Args:
      prefix: of the entity.
      lists: names with what they are of before them; the last is spelled.
    """
    plain = functools.partial(_plain, prefix)
    apart = all(len({(*of, plain(name)) for *of, name in names}) == len(names) for names in lists)
    return plain if apart else tidy


def _plain(prefix: str, name: str) -> str:
    """Returns a name without the prefix of its entity, a number without zeros in front."""
    return number(re.sub(rf"^{prefix}(-|-?(?=\d))", "", tidy(name)))


def classify(
    path: pathlib.Path,
    named: Sequence[Sequence[str]],
    label_map: str = EVERY_VALUE,
    *,
    column: str = "label",
    classes: Sequence[str] = (),
) -> tuple[tuple[str, ...], list[Int[np.ndarray, " _"]]]:
    """Returns the class numbers of rows that carry the name of what they show.

    Args:
      path: where the names come from, for messages.
      named: for each run, the name of each row, in any spelling that `names.tidy` brings to
        one; "" and "n/a" have no class.
      label_map: a map of these names that `label_map.parse_label_map` reads.
      column: where the names stand, for messages.
      classes: all names in the order of their numbers, if the map is ""; else they are sorted.

    Returns:
      The classes, and for each run int32 [t], -1 where a row has none.

    Raises:
      InputError: anything that `label_map.labelling` refuses, or a class of the map has no values:
        what is not labelled may be anything, and is not taken for rest.
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
    """Describes the first cell that is no finite number, or line of another length; "" if none."""
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
        return "bytes that are no text"
    except OSError:
        pass
    return ""
