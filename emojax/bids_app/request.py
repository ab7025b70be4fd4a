"""One call of the app: its data sets, its level and its config."""

import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from emojax.bids_app.output import FOLDER, RUN, STORE, check_output
from emojax.data.acquisitions import natural, number
from emojax.data.paths import require_folder
from emojax.errors import InputError
from emojax.files import split_list
from emojax.nearest import hint, nearest
from emojax.sources import bids_names, versions

LEVELS = ("participant", "group")
LABEL = "--participant-label"
FILTER = "--bids-filter-file"
LONG = {  # names of entities in filter files -> those of file names
    "acquisition": "acq",
    "ceagent": "ce",
    "chunk": "chunk",
    "density": "den",
    "description": "desc",
    "direction": "dir",
    "inversion": "inv",
    "reconstruction": "rec",
    "resolution": "res",
    "session": "ses",
}
PARTS = (  # sections of filter files in other apps
    *("bold", "sbref", "fmap", "t1w", "t2w", "flair", "roi", "mask", "dwi", "asl", "perf", "pet"),
    *("meg", "eeg", "anat"),
)
SAID_ANYWAY = {  # filter keys, with the values that every scan read here has
    "datatype": ("func",),
    "suffix": ("bold",),
    "extension": (".nii", ".nii.gz", "nii", "nii.gz"),
}
KEYS = {"ses": "sessions", "run": "runs", "task": "task", "space": "space"}  # in config.data


class Request(NamedTuple):
    """The checked arguments of a call."""

    bids_dir: pathlib.Path
    out: pathlib.Path
    level: str  # one of LEVELS
    root: pathlib.Path  # folder of the scans: BIDS_DIR, or its derivatives
    labels: tuple[str, ...]  # the requested subjects, or all, as written on disk
    config: Any  # a ConfigDict with data.root, data.events_root, data.store and filters set
    typed: str = ""  # the command line
    command: str = ""  # `emojax run` of the same experiment in the same workdir, for the report
    restart: bool = False

    @property
    def workdir(self) -> pathlib.Path:
        """Workdir of the group run."""
        return self.out / FOLDER / RUN


def make(
    bids_dir: str,
    out: str,
    level: str,
    config: Any,
    *,
    labels: Sequence[str] = (),
    derivatives: str = "",
    filters: Mapping[str, str] | None = None,
    filter_file: str = "",
    label_map: str = "",
    work_dir: str = "",
    typed: str = "",
    run: Sequence[str] = ("emojax", "run", "study"),
    restart: bool = False,
) -> Request:
    """Returns the checked request of a call; nothing is written.

    Args:
      bids_dir: the data set, raw or a derivative.
      out: the output folder.
      level: one of LEVELS.
      config: a ConfigDict of an experiment on BIDS data; changed in place.
      labels: participants, with or without "sub-"; () for those of the config, or all.
      derivatives: folder of the scans, if BIDS_DIR holds only the events; "" is BIDS_DIR.
      filters: entity -> value, from the flags --task, --space, --res and --session-label.
      filter_file: JSON file with the filters of "bold", as for fMRIPrep; "" is none.
      label_map: see `data.label_map`; "" keeps the config's.
      work_dir: folder of decoded scans; "" is inside the output.
      typed: the command line.
      run: words of an `emojax run` of the same config, without a workdir.
      restart: whether to remove the results of an earlier run first.

    Raises:
      InputError: unknown level, no such folder or participant, an unusable filter, an output
        inside the data, or one that holds another data set.
    """
    if level not in LEVELS:
        found = repr(level) + hint(level, LEVELS)
        raise InputError("analysis level", found, f"one of {', '.join(LEVELS)}")
    data = config.data
    if data.source != "bids":
        found = f"a config with data.source={data.source}"
        raise InputError("--config", found, "one that reads BIDS, such as --config=study")
    source = require_folder(bids_dir, "the root of a BIDS data set (BIDS_DIR)")
    root = require_folder(derivatives or bids_dir, "the root of BIDS derivatives (--derivatives)")
    target = check_output(source, root, pathlib.Path(out))
    before = data.to_dict()
    asked = labels or split_list(data.subjects)
    subjects = _labels(root, asked)
    data.root, data.subjects = str(root), ",".join(subjects) if asked else ""
    if derivatives and not data.events_root:
        data.events_root = str(source)
    wanted = _merged(dict(filters or {}), _filters_of(filter_file) if filter_file else {})
    for entity, value in wanted.items():
        _set(data, entity, value)
    if label_map:
        data.label_map = label_map
    data.store = work_dir or data.store or str(target / FOLDER / STORE)
    command = _command(run, target, before, data.to_dict())
    return Request(source, target, level, root, subjects, config, typed, command, restart)


def _command(run: Sequence[str], out: pathlib.Path, before: Mapping, after: Mapping) -> str:
    """Returns the `emojax run` of the same experiment: `run`, the workdir and keys of data."""
    changed = {key: value for key, value in after.items() if value != before[key]}
    words = [*run, f"--workdir={out / FOLDER / RUN}"]
    return shlex.join([*words, *(f"--config.data.{key}={value}" for key, value in changed.items())])


def _labels(root: pathlib.Path, asked: Sequence[str]) -> tuple[str, ...]:
    """Returns labels as written on disk: "sub-1" and "1" are "01" if that is unambiguous.

    Raises:
      InputError: the data set has no subjects, or lacks a requested one.
    """
    named = (file.written.get("sub") for file in bids_names.files(root))
    known = sorted({label for label in named if label}, key=natural)
    if not known:
        raise InputError(root, "no sub-*/**/sub-* file", "the root of a BIDS data set")
    if not asked:
        return tuple(known)
    found = []
    for text in asked:
        label = text.removeprefix("sub-")
        alike = [own for own in known if number(own) == number(label)]
        if label not in known and len(alike) != 1:
            listed = ", ".join(known[:50]) + (" and more" if len(known) > 50 else "")
            raise InputError(LABEL, repr(text) + hint(label, known), f"one of {listed}")
        found.append(label if label in known else alike[0])
    return tuple(dict.fromkeys(found))


def _filters_of(path: str) -> dict[str, str]:
    """Reads the filters of BOLD scans from a filter file: entity -> "value|value".

    Raises:
      InputError: it is not a filter file, or filters by something that is not in file names.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            path, f"no readable JSON ({why})", 'a table such as {"bold": {}}'
        ) from None
    if isinstance(content, dict):
        _check_parts(path, content)
    wanted = content.get("bold", {}) if isinstance(content, dict) else None
    if not isinstance(wanted, dict):
        raise InputError(path, "another structure", 'a table such as {"bold": {"task": "faces"}}')
    found = {}
    for name, value in wanted.items():
        values = value if isinstance(value, list) else [value]
        if name in SAID_ANYWAY:
            if not all(one in SAID_ANYWAY[name] for one in values):
                raise InputError(path, f"{name} {value!r}", f"{name} {SAID_ANYWAY[name][0]}")
            continue
        entity = LONG.get(name, name)
        if entity == "sub" or name == "subject":
            raise InputError(path, f"a filter by {name}", f"{LABEL}, which chooses subjects")
        if entity not in bids_names.known():
            found = f"a filter by {name!r}{hint(name, [*LONG, *sorted(bids_names.known())])}"
            raise InputError(path, found, "an entity of BIDS, such as run")
        if values == ["*"]:
            continue  # any value, or none, as without the filter
        if not all(one is None or _is_value(one) for one in values) or not values:
            expected = "texts, numbers, null for files without it, or a list of these"
            raise InputError(path, f"{name} {json.dumps(value)}", expected)
        found[entity] = "|".join(versions.NONE if one is None else str(one) for one in values)
    return found


def _check_parts(path: str, content: Mapping[str, Any]) -> None:
    """Rejects a filter file with a misspelt "bold", which would filter nothing.

    Raises:
      InputError: a section name similar to "bold", or only unknown ones.
    """
    for name in content:
        like = nearest(name, ["bold"]) and name != "bold"
        if like or (name.casefold() not in PARTS and "bold" not in content):
            found = f"filters of {name!r}{hint(name, PARTS)}"
            raise InputError(
                path, found, 'filters of "bold" (those of other images have no effect)'
            )


def _is_value(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return False
    return str(value).isalnum()


def _merged(flags: dict[str, str], file: dict[str, str]) -> dict[str, str]:
    """Returns both, unless they contradict each other."""
    for entity, value in flags.items():
        if file.get(entity, value) != value:
            found = f"{entity} {file[entity]!r}, and {value!r} as a flag"
            raise InputError(FILTER, found, "one of the two")
    return file | flags


def _set(data: Any, entity: str, value: str) -> None:
    """Sets the filter of one entity in the config."""
    key = KEYS.get(entity)
    if entity in ("task", "space") and "|" in value:
        raise InputError(FILTER, f"{entity} {value}", f"one {entity} (a run of emojax decodes one)")
    if key in ("sessions", "runs"):
        value = value.replace("|", ",")
    if key:
        data[key] = value
        return
    before = {filter.entity: "|".join(filter.values) for filter in versions.parse(data.entities)}
    data.entities = ",".join(f"{e}={v}" for e, v in {**before, entity: value}.items())
