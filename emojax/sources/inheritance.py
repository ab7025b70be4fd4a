"""Files that the runs of a BIDS data set inherit: tables of events, and sidecars in JSON."""

import json
import pathlib
from collections.abc import Collection
from typing import Any

import bids2table

from emojax.data.paths import require_file
from emojax.errors import InputError
from emojax.files import cause

ABOUT_THE_FILE = ("ext", "datatype")
ABOUT_THE_IMAGE = (*ABOUT_THE_FILE, "space", "res", "den", "desc", "part", "cohort", "suffix")


def entities(path: pathlib.Path, ignored: Collection[str] = ABOUT_THE_IMAGE) -> dict[str, str]:
    """Returns the entities in a file's name, but for some."""
    found = bids2table.parse_bids_entities(path)
    return {name: value for name, value in found.items() if name not in ignored}


class Inherited:
    """Files of one kind below a folder, by what their names share with a run."""

    def __init__(self, root: pathlib.Path, pattern: str, ignored: Collection[str]):
        """Args: where inheritance ends, names of the files, and entities that do not count."""
        self.root, self._pattern, self._ignored = root, pattern, ignored
        self._listed: dict[pathlib.Path, list[tuple[int, pathlib.Path, dict[str, str]]]] = {}

    def of(self, run: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path]:
        """Returns the files of a run, from the root to the nearest.

        Args:
          run: its file.
          folder: where inheritance begins, relative to the root.
        """
        own = entities(run, self._ignored).items()
        return [
            file
            for parent in reversed((folder, *folder.parents))
            for _, file, shared in self._list(self.root / parent)
            if shared.items() <= own
        ]

    def _list(self, folder: pathlib.Path):
        """The files of one folder; those with more entities come last."""
        if folder not in self._listed:
            found = [(file, entities(file, self._ignored)) for file in folder.glob(self._pattern)]
            self._listed[folder] = sorted((len(e), file, e) for file, e in found)
        return self._listed[folder]


class Sidecars:
    """The JSON files of a data set, each read once."""

    def __init__(self, root: pathlib.Path):
        """Args: root of the data set."""
        self._inherited = Inherited(root, "*_bold.json", ABOUT_THE_FILE)
        self._read: dict[pathlib.Path, dict[str, Any]] = {}

    def of(self, run: pathlib.Path) -> dict[str, Any]:
        """Returns what the sidecars of a run say; the nearest wins.

        Raises:
          InputError: one is no JSON.
        """
        found: dict[str, Any] = {}
        for path in self.files(run):
            if path not in self._read:
                self._read[path] = read_json(path)
            found |= self._read[path]
        return found

    def files(self, run: pathlib.Path) -> list[pathlib.Path]:
        """Returns the sidecars of a run, from the root to the nearest."""
        return self._inherited.of(run, run.parent.relative_to(self._inherited.root))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a sidecar.

    Raises:
      InputError: it is no JSON object in UTF-8, gives two values of one key, or holds NaN, which
        JSON does not know.
    """
    expected = "a sidecar: one JSON object, in UTF-8"
    require_file(path, expected)
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, f"no JSON ({cause(error)})", expected) from None
    if not isinstance(found, dict):
        raise InputError(path, f"JSON of another kind ({type(found).__name__})", expected)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise ValueError(f"two values of {key!r}")
    return found


def _refuse(constant: str):
    raise ValueError(f"{constant}, which JSON does not know")
