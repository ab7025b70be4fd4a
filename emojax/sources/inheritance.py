"""Files that the runs of a BIDS data set inherit: tables of events, and sidecars in JSON."""

import json
import pathlib
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import numpy as np

from emojax.data.paths import require_file, visible
from emojax.errors import InputError
from emojax.files import cause
from emojax.sources.bids_names import ACQUISITION, File, parse

PAUSES = ("VolumeTiming", "DelayTime", "AcquisitionDuration")  # none: volumes fill their TR
ROUNDING = 1e-3  # s, to which two facts must agree
Shared = Set[tuple[str, str]]  # entities that a file has in common with a run
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
        levels = self.matches(run, folder)
        for level in levels:
            _refuse_twins(level)
        return [list(level) for level in levels]

    def matches(self, run: File, folder: pathlib.Path) -> list[dict[pathlib.Path, Shared]]:
        """Returns the files of a run as `of`, however many fit as well, and what they share."""
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
        self._own = Inherited(root, "bold", ".json")
        self._raw = None
        if raw is not None and raw != root:
            self._raw = Inherited(raw, "bold", ".json", of_acquisition=True)
        self._read: dict[pathlib.Path, dict[str, Any]] = {}

    def of(self, run: File) -> Facts:
        """Returns what the sidecars of a run say; the nearest wins, and null says nothing.

        A derivative that leaves out the pauses between volumes has those of its raw data.

        Raises:
          InputError: one is no JSON, or raw sidecars disagree on a pause.
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
        """Adds the pauses in the sidecars of one folder, of whatever echo or part they are."""
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
        """Returns what one sidecar says."""
        if path not in self._read:
            self._read[path] = read_json(path)
        return {key: value for key, value in self._read[path].items() if value is not None}


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


def _differ(one: Any, other: Any) -> bool:
    """Returns whether two values of a sidecar differ by more than rounding."""
    try:
        a, b = np.array(one, float), np.array(other, float)
    except (TypeError, ValueError, OverflowError):
        return one != other
    return a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=ROUNDING)


def _refuse(constant: str):
    raise ValueError(f"{constant}, which JSON does not know")


def _refuse_twins(shared: Mapping[pathlib.Path, Shared]) -> None:
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
