"""Suggestions for mistyped names."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns the known name most similar to a mistyped one, or "".

    Args:
      name: name as typed; case does not matter.
      known: valid names.
    """
    folded = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(name.casefold(), folded, 1)
    return folded[found[0]] if found else ""


def hint(name: str, known: Iterable[str]) -> str:
    """Returns " (did you mean 'demo'?)" for a mistyped name, or ""."""
    found = nearest(name, known)
    return f" (did you mean {found!r}?)" if found else ""
