"""Registries: short names in a config, or dotted paths to a user's own code."""

import importlib
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from emojax.errors import InputError


class Registry(Mapping[str, Any]):
    """Named entries of one config key.

    An entry is an object, or "package.module:attribute", which is imported on first use. A name
    with a colon that is not an entry is such a path, too: `model.name=mypkg.nets:MLP` needs no
    registration.
    """

    def __init__(self, key: str, entries: Mapping[str, Any], of: type = object):
        """Args: config key for messages, mapping from name to entry, and class of all entries."""
        self.key = key
        self._entries, self._of = dict(entries), of

    def __getitem__(self, name: str) -> Any:
        """Returns an entry.

        Raises:
          InputError: an unknown name, a path to nothing, or an object of another class.
        """
        entry = self._entries.get(name, name)
        if name not in self._entries and ":" not in name:
            known = ", ".join(self._entries)
            raise InputError(self.key, repr(name), f"one of {known}, or 'package.module:name'")
        found = resolve(self.key, entry) if isinstance(entry, str) else entry
        if not isinstance(found, self._of):
            got = f"{name!r}, an object of the class {type(found).__name__}"
            raise InputError(self.key, got, f"one of the class {self._of.__name__}")
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def resolve(key: str, path: str) -> Any:
    """Imports "package.module:attribute".

    Raises:
      InputError: there is no such module or attribute; the message names the config key.
    """
    module, _, attribute = path.partition(":")
    expected = "an importable 'package.module:name'"
    if module.startswith("."):
        raise InputError(key, f"{path!r} (a relative path)", expected)
    try:
        found = importlib.import_module(module)
    except (ImportError, SyntaxError, ValueError) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name
        said = f"no module {missing!r}" if missing else error
        raise InputError(key, f"{path!r} ({said})", expected) from None
    except Exception as error:  # a user's module may fail in any way
        if module.partition(".")[0] == "emojax":
            raise
        line = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error}, in {line.filename}, line {line.lineno}"
        raise InputError(key, f"{path!r} ({said})", expected) from None
    try:
        for name in attribute.split("."):
            found = getattr(found, name)
    except AttributeError as error:
        raise InputError(key, f"{path!r} ({error})", expected) from None
    return found
