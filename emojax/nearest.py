"""The known name that a mistyped one was probably meant to be."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the known name that resembles a mistyped one most, or "".

    Args:
      name: what was typed; capitals do not matter.
      known: names that would be right.
    """
    folded = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(name.casefold(), folded, 1)
    return folded[found[0]] if found else ""


def hint(name: str, known: Iterable[str]) -> str:
    """Returns " (did you mean 'demo'?)" for a mistyped name, or ""."""
    found = nearest(name, known)
    return f" (did you mean {found!r}?)" if found else ""
