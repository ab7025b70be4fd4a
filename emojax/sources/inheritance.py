"""Files that the runs of a BIDS data set inherit: tables of events, and sidecars in JSON."""

import json
import pathlib
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

from emojax.data.paths import require_file, visible
from emojax.errors import InputError
from emojax.files import cause
from emojax.sources.bids_names import ACQUISITION, File, parse

PAUSES = {"VolumeTiming", "DelayTime", "AcquisitionDuration"}  # none: volumes fill their TR
Levels = list[
    list[pathlib.Path]
]  # from the root to the nearest folder; in each the best match last


class Inherited:
    """Files of one kind below a folder, by what their names share with a run."""

    def __init__(self, root: pathlib.Path, suffix: str, ext: str, of_acquisition: bool = False):
        """Makes a reader of one kind of file.

        Args:
          root: where inheritance ends.
          suffix, ext: of the files, such as "events" and ".tsv".
          of_acquisition: whether they belong to every version of an acquisition: an echo or a
            space in either name does not count then.
        """
        self.root, self._suffix, self._ext = root, suffix, ext
        self._only = ACQUISITION if of_acquisition else None
        self._listed: dict[pathlib.Path, list[File]] = {}

    def of(self, run: File, folder: pathlib.Path) -> Levels:
        """Returns the files of a run.

        Args:
          run: its scan.
          folder: where inheritance begins, relative to the root.

        Raises:
          InputError: two files of one folder fit as well, and differ.
        """
        levels: Levels = []
        for parent in reversed((folder, *folder.parents)):
            if fitting := [f for f in self._list(self.root / parent) if self._fits(f, run)]:
                shared = {file.path: file.same.items() & run.same.items() for file in fitting}
                _refuse_twins(shared)
                levels.append(sorted(shared, key=lambda path: len(shared[path])))
        return levels

    def _fits(self, file: File, run: File) -> bool:
        own = file.same.items()
        return all(
            run.same.get(entity) == value
            for entity, value in own
            if self._only is None or entity in self._only
        )

    def _list(self, folder: pathlib.Path) -> list[File]:
        """Returns the files of one folder, by name."""
        if folder not in self._listed:
            found = map(parse, visible(folder.glob(f"*{self._suffix}{self._ext}")))
            self._listed[folder] = [file for file in found if file.suffix == self._suffix]
        return self._listed[folder]


class Facts(NamedTuple):
    """The statements of a run's sidecars, and the sidecar that each is from."""

    values: dict[str, Any]
    origin: dict[str, pathlib.Path]
    files: list[pathlib.Path]  # from the root to the nearest

    def refuse(self, key: str, found: str, expected: str) -> InputError:
        """Returns the error of a fact that cannot be used; it names the sidecar."""
        return InputError(self.origin[key], found, expected)


class Sidecars:
    """The JSON files of a data set, each read once."""

    def __init__(self, root: pathlib.Path, raw: pathlib.Path | None = None):
        """Args: root of the data set, and of the raw data that it was derived from."""
        roots = dict.fromkeys((root, raw or root))  # a derivative may leave facts of timing out
        self._own, *self._raw = [Inherited(place, "bold", ".json") for place in roots]
        self._read: dict[pathlib.Path, dict[str, Any]] = {}

    def of(self, run: File) -> Facts:
        """Returns what the sidecars of a run say; the nearest wins, and null says nothing.

        Raises:
          InputError: one is no JSON.
        """
        folder = run.path.parent.relative_to(self._own.root)
        found = self._merged(self._own.of(run, folder))
        for raw in self._raw if not PAUSES & found.values.keys() else ():
            more = self._merged(raw.of(run, folder))
            kept = {key: value for key, value in more.values.items() if key in PAUSES}
            found.values.update(kept)
            found.origin.update({key: more.origin[key] for key in kept})
            found.files.extend(dict.fromkeys(more.origin[key] for key in kept))
        return found

    def _merged(self, levels: Levels) -> Facts:
        found = Facts({}, {}, [path for level in levels for path in level])
        for path in found.files:
            if path not in self._read:
                self._read[path] = read_json(path)
            said = {key: value for key, value in self._read[path].items() if value is not None}
            found.values.update(said)
            found.origin.update(dict.fromkeys(said, path))
        return found


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


def _refuse_twins(shared: Mapping[pathlib.Path, Set]) -> None:
    """Refuses files of one folder whose names say the same of a run, such as run-1 and run-01."""
    first_of: dict[frozenset, pathlib.Path] = {}
    for path, entities in shared.items():
        first = first_of.setdefault(frozenset(entities), path)
        if first is not path and _content(first) != _content(path):
            found = f"other content than {first.name}, which is of the same run"
            raise InputError(path, found, "one of the two: remove the other")


def _content(path: pathlib.Path) -> bytes:
    require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(path, f"no readable file ({cause(error)})", "text") from None
