"""BIDS data sets: raw data, or derivatives named as by fMRIPrep."""

import dataclasses
import functools
import pathlib
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from emojax.data import events, motion
from emojax.data.cohort import Cohort, build
from emojax.data.hashes import sha256
from emojax.data.label_map import EVERY_VALUE, labelling
from emojax.data.labels import assign
from emojax.data.paths import require_file, require_folder
from emojax.data.run import Run
from emojax.data.store import Store, default
from emojax.errors import InputError
from emojax.files import split_list
from emojax.sources import participants, raw, versions
from emojax.sources.beside import Beside, masks
from emojax.sources.bids_names import File, files
from emojax.sources.inheritance import Facts, Sidecars
from emojax.sources.timing import Acquired
from emojax.sources.timing import read as read_times

PAPER = events.Timing()
NAMED = ("ses", "acq", "dir", "run")  # entities of a run's name


class Scans(NamedTuple):
    """The runs of a study, the times of their volumes, and the paths of their brain masks."""

    runs: list[Run]
    times: list[Acquired]
    masks: list[pathlib.Path | None]
    notes: list[str]


def load(data: Any) -> Cohort:
    """Returns the cohort of `config.data`, see `read`."""
    return read(
        data.root,
        Store(default(data), data.progress),
        subjects=split_list(data.subjects),
        sessions=split_list(data.sessions),
        runs=split_list(data.runs),
        task=data.task,
        space=data.space,
        entities=data.entities,
        events_root=data.events_root,
        label_column=data.label_column,
        label_map=data.label_map,
        timing=events.timing(data),
        tr=data.tr or None,
        motion=data.motion,
        group=data.group,
    )


def read(
    root: str | pathlib.Path,
    store: Store,
    *,
    subjects: Sequence[str] = (),
    sessions: Sequence[str] = (),
    runs: Sequence[str] = (),
    task: str = "",
    space: str = "",
    entities: str = "",
    events_root: str | pathlib.Path = "",
    label_column: str = "trial_type",
    label_map: str = EVERY_VALUE,
    timing: events.Timing = PAPER,
    tr: float | None = None,
    motion: bool = False,
    group: str = "",
) -> Cohort:
    """Reads the BOLD runs of a BIDS data set and labels their volumes from events.tsv.

    A run is an acquisition, of which one version is used (see `versions`). Events and JSON files
    are inherited as in BIDS 1.8: the nearest folder wins. A TR in the header counts only if the
    header has a unit of time.

    Args:
      root: root of the data set, raw or derivatives.
      store: store of the decoded scans.
      subjects: labels of the subjects to read, such as "01"; all if empty.
      sessions: labels of the sessions to read; all if empty.
      runs: labels of the runs to read; all if empty.
      task: label of the task; "" if the data set has only one.
      space: label of the space; "" if the data set has only one.
      entities: filters by any entity, such as "echo=2,rec=norm|raw,res=none".
      events_root: root of the data set that holds the events; "" means `root`, or the raw data
        from which it was derived.
      label_column: column of events.tsv.
      label_map: "rest=;neutral=value;negative=value|value" (see `data.label_map`); "" makes every
        value a class.
      timing: lag, overlap, conflicts and dropped volumes.
      tr: TR in s, which overrules header and JSON.
      motion: whether realignment parameters are required; if not, complete ones are read.
      group: column of participants.tsv with the group of each subject; "" for none.

    Returns:
      The cohort, with brain masks and realignment parameters of fMRIPrep if they exist.

    Raises:
      InputError: nothing matches, a filter names something that does not exist, tasks or versions
        are ambiguous, a run has no events or no TR, timing facts disagree, or `Store.images`,
        `events`, `participants` or `cohort.build` refuses the data.
    """
    root = require_folder(root, "the root of a BIDS data set (data.root)")
    there = files(root)
    filters = (
        ("data.subjects", "sub", tuple(subjects)),
        ("data.sessions", "ses", tuple(sessions)),
        ("data.runs", "run", tuple(runs)),
        ("data.task", "task", (task,) if task else ()),
        ("data.space", "space", (space,) if space else ()),
    )
    wanted = [versions.Filter(*parts) for parts in filters if parts[-1]]
    chosen = versions.choose(root, there, [*wanted, *versions.parse(entities)])
    for scan in chosen.files:
        require_file(scan.path, "a scan")
    tables = raw.event_tables(chosen.files, root, events_root)
    parsed = {table: events.read(table, label_column) for table in dict.fromkeys(tables.paths)}
    per_run = [parsed[table] for table in tables.paths]
    mapped = labelling(per_run, label_map, label_column)
    scans = _scans(
        Sidecars(root, tables.root), there, chosen.files, tables.paths, store, tr, motion
    )
    people = list(dict.fromkeys(run.subject for run in scans.runs))
    groups = participants.read([root, tables.root], group, people) if group else None
    assigned = [
        assign(table, mapped, timing, times.windows, subject=run.subject, run=run.name)
        for table, times, run in zip(per_run, scans.times, scans.runs, strict=True)
    ]
    hashed = {} if groups is None else groups.hashes
    return build(
        [dataclasses.replace(run, hashes={**run.hashes, **hashed}) for run in scans.runs],
        mapped.classes,
        [found.labels for found in assigned],
        masks(scans.runs, scans.masks),
        groups=None if groups is None else groups.of,
        lost=[loss for found in assigned for loss in found.lost],
        notes=[*chosen.notes, *tables.notes, *scans.notes],
    )


def _scans(
    sidecars: Sidecars,
    there: Sequence[File],
    chosen: Sequence[File],
    tables: Sequence[pathlib.Path],
    store: Store,
    tr: float | None,
    needed: bool,
) -> Scans:
    """Reads the runs and the files beside them; sidecars come first, since images take long."""
    beside, hashed, out = Beside(there), functools.cache(sha256), Scans([], [], [], [])
    facts = [_facts(sidecars, scan, tr, out.notes) for scan in chosen]
    out.masks.extend(beside.mask(scan) for scan in chosen)
    images = store.images([scan.path for scan in chosen])
    moved = [beside.confounds(scan) for scan in chosen]
    for scan, image, known, *paths in zip(
        chosen, images, facts, tables, out.masks, moved, strict=True
    ):
        times = read_times(image.path, image.tr, known, len(image.frames), tr)
        confounds = paths[-1]
        parameters = motion.read_if_needed(confounds, len(image.frames), needed)
        if parameters is None:
            paths.pop()
        read_too = [*filter(None, paths), *known.files]
        out.times.append(times)
        out.runs.append(
            Run(
                subject=scan.same["sub"],
                name=_name(scan),
                frames=image.frames,
                tr=times.tr,
                affine=image.affine,
                slope=image.slope,
                intercept=image.intercept,
                motion=parameters,
                hashes=image.hashes | {str(path): hashed(path) for path in read_too},
                starts=times.starts,
                confounds=confounds,
            )
        )
    out.notes.extend(motion.notes(moved, [run.motion for run in out.runs]))
    if unused := [times.unused for times in out.times if times.unused]:
        what = f"AcquisitionDuration is that of a whole run in {len(unused)} of {len(chosen)} runs"
        out.notes.append(f"{what}, so it was not used (first: {unused[0]})")
    return out


def _facts(sidecars: Sidecars, scan: File, tr: float | None, notes: list[str]) -> Facts:
    """Returns the facts in a run's sidecars; if the user gave the TR, they may be damaged."""
    try:
        return sidecars.of(scan)
    except InputError as error:
        if tr is None:
            raise
        said = f"data.tr was used, since a sidecar cannot be read: {error}"
        if said not in notes:
            notes.append(said)
        return Facts({}, {}, [])


def _name(scan: File) -> str:
    """Returns the name of a run: session, acquisition, direction and run, as in the file's name."""
    kept = [f"{entity}-{scan.written[entity]}" for entity in NAMED if entity in scan.written]
    return unicodedata.normalize("NFC", "_".join(kept)) or "run-1"
