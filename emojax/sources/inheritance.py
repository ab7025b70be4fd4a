"""Files that the runs of a BIDS data set inherit: events tables and JSON sidecars."""

import json
import pathlib
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import numpy as np

from emojax.data.paths import require_file, visible
from emojax.errors import InputError
from emojax.files import cause
from emojax.sources.bids_names import ACQUISITION, File, parse

PAUSES = ("VolumeTiming", "DelayTime", "AcquisitionDuration")  # without them, no pauses
ROUNDING = 1e-3  # s, tolerance between two statements of one time
Shared = Set[tuple[str, str]]  # entities that a file shares with a run
# The files of each folder from the root to the nearest, with the best match last in each.
Levels = list[list[pathlib.Path]]


class Inherited:
    """Files of one kind in a data set, matched to runs by the entities in their names."""

    def __init__(self, root: pathlib.Path, suffix: str, ext: str, of_acquisition: bool = False):
        """Prepares to match one kind of file.

        Args:
          root: folder at which inheritance ends.
          suffix: suffix of the files, such as "events".
          ext: extension of the files, such as ".tsv".
          of_acquisition: whether the files apply to all versions of an acquisition, so that
            entities such as echo or space are ignored.
        """
        self.root, self._suffix, self._ext = root, suffix, ext
        self._only = ACQUISITION if of_acquisition else None
        self._listed: dict[pathlib.Path, list[File]] = {}

    def of(self, run: File, folder: pathlib.Path) -> Levels:
        """Returns the files that a run inherits.

        Args:
          run: BOLD image of the run.
          folder: folder at which inheritance begins, relative to the root.

        Raises:
          InputError: two files of one folder match equally well but differ.
        """
        levels = self.matches(run, folder)
        for level in levels:
            _refuse_twins(level)
        return [list(level) for level in levels]

    def matches(self, run: File, folder: pathlib.Path) -> list[dict[pathlib.Path, Shared]]:
        """Returns the files that a run inherits, with the entities they share with it.

        Several files of one folder may match equally well.

        Args:
          run: BOLD image of the run.
          folder: folder at which inheritance begins, relative to the root.
        """
        levels = []
        for parent in reversed((folder, *folder.parents)):
            if fitting := [f for f in self._list(self.root / parent) if self._fits(f, run)]:
                fitting.sort(key=lambda file: len(file.same.items() & run.same.items()))
                levels.append({f.path: f.same.items() & run.same.items() for f in fitting})
        return levels

    def _fits(self, file: File, run: File) -> bool:
        own = file.same.items()
        return all(
            run.same.get(entity) == value
            for entity, value in own
            if self._only is None or entity in self._only
        )

    def _list(self, folder: pathlib.Path) -> list[File]:
        """Returns the files in a folder, sorted by name."""
        if folder not in self._listed:
            found = map(parse, visible(folder.glob(f"*{self._suffix}{self._ext}")))
            self._listed[folder] = [file for file in found if file.suffix == self._suffix]
        return self._listed[folder]


class Facts(NamedTuple):
    """The values in a run's sidecars, and the sidecar that each comes from."""

    values: dict[str, Any]
    origin: dict[str, pathlib.Path]
    files: list[pathlib.Path]  # from the root to the nearest folder

    def refuse(self, key: str, found: str, expected: str) -> InputError:
        """Returns the error for a value that cannot be used; it names the sidecar.

        Args:
          key: key of the value.
          found: the value, in words.
          expected: a usable value, in words.
        """
        return InputError(self.origin[key], found, expected)


class Sidecars:
    """The JSON sidecars of a data set, each read once."""

    def __init__(self, root: pathlib.Path, raw: pathlib.Path | None = None):
        """Prepares to read sidecars.

        Args:
          root: root of the data set.
          raw: root of the raw data from which it was derived.
        """
        self._own = Inherited(root, "bold", ".json")
        self._raw = None
        if raw is not None and raw != root:
            self._raw = Inherited(raw, "bold", ".json", of_acquisition=True)
        self._read: dict[pathlib.Path, dict[str, Any]] = {}

    def of(self, run: File) -> Facts:
        """Returns the facts in a run's sidecars; the nearest wins, and null values are ignored.

        If a derivative does not state the pauses between volumes, those of its raw data are used.

        Args:
          run: BOLD image of the run.

        Raises:
          InputError: a sidecar is not JSON, or raw sidecars disagree on a pause.
        """
        folder = run.path.parent.relative_to(self._own.root)
        files = [path for level in self._own.of(run, folder) for path in level]
        found = Facts({}, {}, files)
        for path in files:
            said = self._said(path)
            found.values.update(said)
            found.origin.update(dict.fromkeys(said, path))
        if self._raw is not None and not any(key in found.values for key in PAUSES):
            for level in self._raw.matches(run, folder):
                self._add_pauses(found, level, run)
            found.files.extend(dict.fromkeys(found.origin[k] for k in PAUSES if k in found.origin))
        return found

    def _add_pauses(self, found: Facts, level: Mapping[pathlib.Path, Shared], run: File) -> None:
        """Adds the pauses in the sidecars of one folder, for any echo or part."""
        shared_of: dict[str, Shared] = {}
        for path, shared in level.items():
            said = self._said(path)
            for key in [key for key in PAUSES if key in said]:
                if shared_of.get(key) == shared and _differ(found.values[key], said[key]):
                    other = found.origin[key].name
                    expected = f"one for {run.label}; or write {key} into the JSON of {run.path}"
                    raise InputError(path, f"another {key} than {other}", expected)
                shared_of[key] = shared
                found.values[key], found.origin[key] = said[key], path

    def _said(self, path: pathlib.Path) -> dict[str, Any]:
        """Returns the values in one sidecar, without nulls."""
        if path not in self._read:
            self._read[path] = read_json(path)
        return {key: value for key, value in self._read[path].items() if value is not None}


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON sidecar.

    Args:
      path: path of the sidecar.

    Raises:
      InputError: it is not a JSON object in UTF-8, has two values for one key, or holds NaN, which
        JSON does not allow.
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


def _differ(one: Any, other: Any) -> bool:
    """Returns whether two values of a sidecar differ by more than rounding."""
    try:
        a, b = np.array(one, float), np.array(other, float)
    except (TypeError, ValueError, OverflowError):
        return one != other
    return a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=ROUNDING)


def _refuse(constant: str):
    raise ValueError(f"{constant}, which JSON does not allow")


def _refuse_twins(shared: Mapping[pathlib.Path, Shared]) -> None:
    """Raises an InputError if two differing files match a run equally, as run-1 and run-01 do."""
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
