"""BIDS data sets, raw or derivatives (fMRIPrep's names), indexed with bids2table."""

import functools
import logging
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import bids2table
import nibabel as nib
import numpy as np

from emojax.data import events, motion
from emojax.data.cohort import Cohort, build
from emojax.data.hashes import sha256
from emojax.data.image import Image
from emojax.data.paths import require_file, require_folder
from emojax.data.run import Run
from emojax.data.store import Store, default
from emojax.errors import InputError
from emojax.files import cause, split_list
from emojax.sources.inheritance import ABOUT_THE_IMAGE, Inherited, Sidecars, entities

PAPER = events.Timing()
LONGEST = sys.float_info.max  # s


def load(data) -> Cohort:
    """The cohort of `config.data`; see `read` for what it needs and refuses."""
    return read(
        data.root,
        Store(default(data), data.progress),
        subjects=split_list(data.subjects),
        sessions=split_list(data.sessions),
        runs=split_list(data.runs),
        task=data.task,
        space=data.space,
        events_root=data.events_root,
        label_column=data.label_column,
        label_map=data.label_map,
        timing=events.timing(data),
        tr=data.tr or None,
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
    events_root: str | pathlib.Path = "",
    label_column: str = "trial_type",
    label_map: str = events.EVERY_VALUE,
    timing: events.Timing = PAPER,
    tr: float | None = None,
) -> Cohort:
    """Reads the BOLD runs of a BIDS data set and labels their volumes from events.tsv.

    Events and JSON files are inherited as BIDS 1.8 says (the nearest folder wins). A TR in the
    header that comes without a unit of time does not count.

    Args:
      root: of the data set, raw or derivatives.
      store: for the decoded scans.
      subjects, sessions, runs: only these, as in "01"; empty for all.
      task, space: which one; "" where the data set has only one.
      events_root: BIDS folder that holds the events of a derivatives folder; "" is `root`.
      label_column: column of events.tsv.
      label_map: "rest=;neutral=value;negative=value|value" (see `events.parse_label_map`); "" makes
        every value a class.
      timing: lag, overlap, conflicts, dropped volumes.
      tr: s; overrules header and JSON.

    Returns:
      The cohort; brain masks and motion of fMRIPrep are taken along where they exist.

    Raises:
      InputError: nothing matches, a filter names what does not exist, tasks or spaces are
        ambiguous, a run has no events or no TR, header and JSON disagree on it, or anything that
        `Store.images`, `events` and `cohort.build` refuse.
    """
    root = require_folder(root, "the root of a BIDS data set (data.root)")
    if events_root:
        require_folder(events_root, "the root of a BIDS data set (data.events_root)")
    index = _index(root)
    bold = _choose(index, root, subjects, sessions, runs, task, space)
    paths = [root / row["path"] for row in bold]
    for path in paths:
        require_file(path, "a scan")
    tables = _event_tables(paths, root, pathlib.Path(events_root or root))
    parsed = {table: events.read(table, label_column) for table in dict.fromkeys(tables)}
    per_run = [parsed[table] for table in tables]
    labelling = events.labelling(per_run, label_map, label_column)
    images = store.images(paths)
    found, labels, sidecars = [], [], Sidecars(root)
    confounds = _derivatives(index, root, "timeseries", "confounds", (".tsv",))
    brains = _derivatives(index, root, "mask", "brain", (".nii", ".nii.gz"))
    hashed = functools.cache(sha256)
    for row, image, table in zip(bold, images, per_run, strict=True):
        seconds = tr or _tr(image, sidecars.of(image.path))
        count, place = len(image.frames), _identity(row)
        moved, brain = confounds.get((None, place)), brains.get((row["space"], place))
        read_too = [table.path, *sidecars.files(image.path), *filter(None, (moved, brain))]
        found.append(
            Run(
                subject=row["sub"],
                name=_name(row),
                frames=image.frames,
                tr=seconds,
                affine=image.affine,
                slope=image.slope,
                intercept=image.intercept,
                motion=None if moved is None else motion.read(moved, count),
                hashes=image.hashes | {str(path): hashed(path) for path in read_too},
            )
        )
        labels.append(events.assign(table, labelling, timing, count, seconds))
    masks = _masks(found, [brains.get((row["space"], _identity(row))) for row in bold])
    return build(found, labelling.classes, labels, masks)


def _index(root: pathlib.Path) -> list[dict[str, Any]]:
    logging.getLogger("bids2table").setLevel(logging.ERROR)  # it warns of every foreign file
    return bids2table.index_dataset(root).to_pylist() if any(root.glob("sub-*")) else []


def _choose(index, root, subjects, sessions, runs, task, space) -> list[dict[str, Any]]:
    """The rows of the BOLD runs that are wanted, one per run."""
    bold = [r for r in index if r["suffix"] == "bold" and r["ext"] in (".nii", ".nii.gz")]
    if not bold:
        raise InputError(root, "no sub-*/func/*_bold.nii(.gz)", "the root of a BIDS data set")
    wanted = (
        ("sub", subjects),
        ("ses", sessions),
        ("run", runs),
        ("task", (task,) if task else ()),
    )
    for entity, values in wanted:
        have = {_plain(row[entity]) for row in bold}
        for value in values:
            if _plain(value) not in have:
                raise InputError(root, f"no {entity}-{value}", f"one of {_listed(have)}")
        if values:
            bold = [row for row in bold if _plain(row[entity]) in {_plain(v) for v in values}]
    if not bold:
        raise InputError(
            root, "no run that all filters allow", "subjects, sessions, runs and a task"
        )
    bold = _only(root, bold, "task", "", "data.task")
    bold = _only(root, bold, "space", space, "data.space")
    if any(row["desc"] == "preproc" for row in bold):
        bold = [row for row in bold if row["desc"] == "preproc"]
    return sorted(bold, key=lambda row: row["path"])


def _only(root, rows, entity: str, value: str, key: str) -> list[dict[str, Any]]:
    have = {row[entity] for row in rows}
    if value and value not in have:
        raise InputError(root, f"no {entity}-{value}", f"{key} one of {_listed(have)}")
    if not value and len(have) > 1:
        raise InputError(root, f"{entity}s {_listed(have)}", f"one of them as {key}")
    return [row for row in rows if not value or row[entity] == value]


def _listed(values) -> str:
    return ", ".join(sorted(str(v) for v in values))


def _plain(value) -> str:
    """ "01" and 1 are the same run."""
    text = str(value)
    return text.lstrip("0") or "0" if text.isdecimal() else text


def _name(row: Mapping[str, Any]) -> str:
    """Session, acquisition and run as in the file's name."""
    entities = bids2table.parse_bids_entities(row["path"])
    kept = [f"{e}-{entities[e]}" for e in ("ses", "acq", "dir", "run", "echo") if e in entities]
    return "_".join(kept) or "run-1"


def _event_tables(paths, root, events_root) -> list[pathlib.Path]:
    """The events.tsv of each run: of the nearest folder upwards whose entities the run shares."""
    inherited, out = Inherited(events_root, "*events.tsv", ABOUT_THE_IMAGE), []
    for path in paths:
        folder = path.parent.relative_to(root)
        fitting = inherited.of(path, folder)
        if not fitting:
            expected = f"*_events.tsv in {events_root / folder} or above (data.events_root)"
            raise InputError(path, "no events", expected)
        out.append(fitting[-1])
    return out


def _tr(image: Image, sidecar: Mapping[str, Any]) -> float:
    """TR in s of JSON and header, which must agree where both have one."""
    tr = sidecar.get("RepetitionTime")
    if tr is None and image.tr is None:
        found = (
            "VolumeTiming in its JSON" if "VolumeTiming" in sidecar else "no TR in header or JSON"
        )
        raise InputError(image.path, found, "RepetitionTime in s (or data.tr)")
    if tr is None:
        return image.tr
    if isinstance(tr, bool) or not isinstance(tr, (int, float)) or not 0 < tr <= LONGEST:
        raise InputError(
            image.path, f"RepetitionTime {tr!r} in its JSON", "seconds > 0 (or data.tr)"
        )
    if image.tr is not None and abs(tr - image.tr) > 1e-3:
        found = f"TR {image.tr:g} s in the header and {tr:g} s in the JSON"
        raise InputError(image.path, found, "the same (or the right one as data.tr)")
    return float(tr)


def _derivatives(index, root, suffix: str, desc: str, ext: tuple[str, ...]):
    """(space, entities) of a run -> path of what fMRIPrep derived from it."""
    return {
        (row["space"], _identity(row)): root / row["path"]
        for row in index
        if row["suffix"] == suffix and row["desc"] == desc and row["ext"] in ext
    }


def _identity(row) -> frozenset:
    return frozenset(entities(pathlib.Path(row["path"])).items())


def _masks(runs: Sequence[Run], paths: Sequence[pathlib.Path | None]) -> dict[str, np.ndarray]:
    """Subject -> voxels that are brain in all of its runs, where there are masks."""
    masks: dict[str, np.ndarray] = {}
    for run, path in zip(runs, paths, strict=True):
        if path is not None:
            mask = _mask(path, run.frames.shape[1:])
            masks[run.subject] = masks.get(run.subject, True) & mask
    return masks


def _mask(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
    """A brain mask; its header is checked before its values are read."""
    require_file(path, "a brain mask")
    try:
        image = nib.load(path)
        kind = image.get_data_dtype().kind
        if image.shape == shape and kind in "biuf":
            mask = np.asarray(image.dataobj) > 0
    except Exception as error:  # nibabel raises many types on damaged files
        raise InputError(path, f"no readable image ({cause(error)})", "a brain mask") from None
    if image.shape != shape or kind not in "biuf":
        found = f"a mask of {image.shape}, {image.get_data_dtype()}"
        raise InputError(path, found, f"real numbers, {shape} as its run")
    if not mask.any():
        raise InputError(path, "a mask without voxels", "a brain mask")
    return mask
