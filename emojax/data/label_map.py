r"""The label map, from values of the label column to classes.

"rest=;neutral=calm;negative=fear|anger" makes three classes; the one without values is the
baseline. In a name, `\|`, `\;`, `\=` and `\\` stand for the characters themselves.
"""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from emojax.data.events import Events
from emojax.data.names import NONE, loose, tidy
from emojax.errors import InputError

EVERY_VALUE = ""  # the default label map, which makes every value a class
KEY = "data.label_map"
SPECIAL = r"[\\|;=]"  # characters that need a backslash in a name


class Labelling(NamedTuple):
    """Classes, and the values of the label column that map to them."""

    classes: tuple[str, ...]
    number: Mapping[str, int]  # value -> index into `classes`
    baseline: int  # class of volumes outside all events; -1 for none


def parse_label_map(text: str) -> dict[str, tuple[str, ...]]:
    """Returns class -> values, in the order of the map.

    Args:
      text: a label map, such as "rest=;bad=fear|anger"; see the module.

    Raises:
      InputError: the text cannot be parsed, a class or value occurs twice, a value is n/a, or two
        classes have no values.
    """
    classes: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for part in filter(str.strip, _split(text, ";")):
        name, *right = _split(part, "=", 1)
        name, written = _plain(name), filter(str.strip, _split("".join(right), "|"))
        values = tuple(dict.fromkeys(map(_plain, written)))
        if not right or not name or name in classes or seen & {*values}:
            expected = r"class=value|value;class=value, each once (in a name: \= \| \; \\)"
            raise InputError(KEY, f"'{part.strip()}' in '{text}'", expected)
        if "" in values:
            expected = f"values of events: {NONE} means no value"
            raise InputError(KEY, f"{NONE} as a value of class '{escape(name)}'", expected)
        classes[name] = values
        seen |= {*values}
    if sum(not values for values in classes.values()) > 1:
        raise InputError(KEY, f"'{text}'", "at most one class without values (baseline)")
    return classes


def escape(value: str) -> str:
    """Returns a value with the backslashes that a label map needs."""
    return re.sub(f"({SPECIAL})", r"\\\1", value)


def labelling(tables: Sequence[Events], label_map: str, column: str) -> Labelling:
    """Returns the class numbers of all values that occur in a study.

    Args:
      tables: events of every run.
      label_map: see `parse_label_map`; "" makes every value a class, sorted.
      column: name of the column, for messages.

    Raises:
      InputError: a value of the map occurs in no run, or there are fewer than two classes. The
        message lists the values that occur, with their counts.
    """
    counts = collections.Counter(value for events in tables for value in events.value)
    if label_map == EVERY_VALUE:
        classes = {value: (value,) for value in sorted(counts) if value}
    else:
        classes = parse_label_map(label_map)
    for name, values in classes.items():
        for value in values:
            if value not in counts:
                found = f"value '{escape(value)}' of class '{escape(name)}'"
                raise InputError(KEY, found, f"values of {column}: {_listed(counts, value)}")
    if len(classes) < 2:
        found = f"classes {', '.join(classes) or 'none'}"
        raise InputError(KEY, found, f"two or more, of {column}: {_listed(counts)}")
    names = tuple(classes)
    number = {value: names.index(name) for name, values in classes.items() for value in values}
    baseline = next((i for i, values in enumerate(classes.values()) if not values), -1)
    return Labelling(names, number, baseline)


def _split(text: str, separator: str, most: int = 0) -> list[str]:
    """Splits at unescaped separators, at most `most` times; 0 for any number."""
    found = re.finditer(rf"\\{SPECIAL}|{re.escape(separator)}", text)
    cuts = [match.start() for match in found if match[0] == separator][: most or None]
    return [text[a:b] for a, b in zip([0, *(i + 1 for i in cuts)], [*cuts, None], strict=True)]


def _plain(name: str) -> str:
    """Returns a tidied name without its backslashes."""
    return tidy(re.sub(rf"\\({SPECIAL})", r"\1", name))


def _listed(counts: Mapping[str, int], wanted: str = "") -> str:
    """Lists values with their counts, those with a spelling similar to the wanted one first."""
    order = sorted(counts, key=lambda v: (not v, loose(v) != loose(wanted), v))
    return ", ".join(f"{escape(v) or NONE} ({counts[v]})" for v in order) or "none"
