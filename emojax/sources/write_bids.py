"""Writing a cohort of volumes as a BIDS data set, which `bids` reads back with the same values."""

import json
import os
import pathlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float

from emojax.data.cohort import Cohort
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.files import atomic_folder
from emojax.sources import synthetic

Blocks = Iterable[tuple[float, float, str]]  # onset and duration in s, trial_type
BIDS_VERSION = "1.8.0"
README = """{name}

{subjects} subjects, {runs} BOLD runs, written by emojax from a cohort in memory.
Events are the blocks as presented, without haemodynamic lag; rest has no events.
"""


def write_bids(
    source: Cohort | Any,
    root: str | os.PathLike,
    *,
    events: Callable[[str, str], Blocks] | None = None,
    task: str = "emotion",
    name: str = "emojax",
) -> pathlib.Path:
    """Writes a raw BIDS data set; if it fails, nothing is left behind.

    Volumes keep their stored type and scaling. Runs must have BIDS names ("run-01",
    "ses-1_run-01"). Brain masks and realignment parameters are derivatives and are not written.

    Args:
      source: a cohort; or a config (or its `data`) of the synthetic source, which is simulated.
      root: folder to write, created with its parents; it may exist if it is empty.
      events: function of (subject, run) that returns the blocks in order; not needed for a config.
      task: name of the task.
      name: name of the data set.

    Returns:
      Path of the folder.

    Raises:
      InputError: the folder is not empty, or a run has no TR, affine, volumes or BIDS name.
      ValueError: `source` is a cohort and `events` is missing.
    """
    if isinstance(source, Cohort):
        cohort = source
    else:
        data = getattr(source, "data", source)
        cohort, events = synthetic.load(data), events or _events_of(data)
    if events is None:
        raise ValueError("want events(subject, run) for a cohort; got none")
    root = pathlib.Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(root, "something there already", "a new or an empty folder")
    for run in cohort.runs:
        _check(run)
    with atomic_folder(root) as partial:
        _write_study(partial, cohort, task, name)
        sidecar = cohort.tr is None  # runs differ in TR, so each gets its own
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # compression releases the interpreter
            jobs = [
                pool.submit(
                    _write_run,
                    partial,
                    run,
                    events(run.subject, run.name),
                    task,
                    sidecar=sidecar,
                )
                for run in cohort.runs
            ]
            for job in jobs:
                job.result()
    return root


def _events_of(data) -> Callable[[str, str], Blocks]:
    return lambda subject, run: synthetic.events(data, subject, run)


def _check(run: Run) -> None:
    """Raises an InputError if a run lacks something that a BIDS data set needs."""
    entities = [entity.partition("-") for entity in run.name.split("_")]
    keys = [key for key, _, _ in entities]
    named = all(value.isalnum() for _, _, value in entities) and keys in (["run"], ["ses", "run"])
    if not named or not run.subject.isalnum():
        found = f"subject {run.subject!r} run {run.name!r}"
        raise InputError(run.place, found, 'names such as "01" and "run-01" or "ses-1_run-01"')
    _check_image(run)


def _check_image(run: Run) -> tuple[float, Float[np.ndarray, "4 4"]]:
    """Returns the TR and affine of a run; raises an InputError if it is not a series of volumes."""
    if run.frames.ndim != 4:
        raise InputError(run.place, f"rows of shape {run.frames.shape[1:]}", "volumes [X, Y, Z]")
    if run.tr is None or run.affine is None:
        raise InputError(run.place, f"TR {run.tr}, affine {run.affine}", "both")
    return run.tr, run.affine


def _write_study(root: pathlib.Path, cohort: Cohort, task: str, name: str) -> None:
    """Writes the top-level files of a data set."""
    description = {"Name": name, "BIDSVersion": BIDS_VERSION, "DatasetType": "raw"}
    _write_json(root / "dataset_description.json", description)
    subjects = sorted({run.subject for run in cohort.runs})
    lines = ["participant_id", *(f"sub-{subject}" for subject in subjects)]
    (root / "participants.tsv").write_text("\n".join(lines) + "\n")
    text = README.format(name=name, subjects=len(subjects), runs=len(cohort.runs))
    (root / "README").write_text(text)
    if cohort.tr is not None:
        _write_json(root / f"task-{task}_bold.json", _sidecar(task, cohort.tr))


def _sidecar(task: str, tr: float | None) -> dict:
    return {"TaskName": task, "RepetitionTime": tr}


def _write_run(root: pathlib.Path, run: Run, blocks: Blocks, task: str, sidecar: bool) -> None:
    """Writes the image and events of a run, and a sidecar with its TR if `sidecar`."""
    session = [entity for entity in run.name.split("_") if entity.startswith("ses-")]
    folder = root.joinpath(f"sub-{run.subject}", *session, "func")
    folder.mkdir(parents=True, exist_ok=True)
    entities = [f"sub-{run.subject}", *session, f"task-{task}", run.name.split("_")[-1]]
    stem = "_".join(entities)
    save_image(run, folder / f"{stem}_bold.nii.gz")
    rows = [("onset", "duration", "trial_type"), *((f"{o:g}", f"{d:g}", k) for o, d, k in blocks)]
    text = "".join("\t".join(row) + "\n" for row in rows)
    (folder / f"{stem}_events.tsv").write_text(text)
    if sidecar:
        _write_json(folder / f"{stem}_bold.json", _sidecar(task, run.tr))


def save_image(run: Run, path: pathlib.Path) -> None:
    """Writes a run as a NIfTI image; values keep their stored type and scaling.

    Args:
      run: a run of volumes.
      path: path of the image, .nii or .nii.gz.

    Raises:
      InputError: the run has no TR or affine, or its rows are not volumes.
    """
    tr, affine = _check_image(run)
    image = nib.Nifti1Image(np.moveaxis(run.frames, 0, -1), affine, dtype=run.frames.dtype)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    image.header.set_slope_inter(run.slope, run.intercept)
    nib.save(image, path)


def _write_json(path: pathlib.Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
