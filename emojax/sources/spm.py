"""SPM12 folders: images of each subject, labelled by a table or SPM's condition files.

    <root>/<subject>/<run>/ra*.nii    one 4-D file, or one 3-D file per volume, in the order of the
                                      numbers in their names; .nii, .nii.gz or .img with .hdr
    <root>/<subject>/ra*.nii          the same without run folders: each 4-D file is a run with
                                      its name; 3-D files form one run, "run-1"
    .../rp_*.txt                      realignment parameters beside the images, optional

`ra*` are realigned images; `data.images` names others, such as `swra*`.

Labels come from one of these (see `spm_labels`):

    a table of volumes    .csv or .tsv: subject, run, volume (from 0), label
    a table of onsets     .csv or .tsv: subject, run, name, onset, duration
    condition files       .mat beside the images of each run: names, onsets, durations
"""

import pathlib
import re
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

from emojax.data import events, nifti, tables
from emojax.data import motion as parameters
from emojax.data.acquisitions import natural
from emojax.data.cohort import Cohort, build
from emojax.data.hashes import sha256
from emojax.data.label_map import EVERY_VALUE
from emojax.data.names import tidy
from emojax.data.paths import require_folder
from emojax.data.run import Run
from emojax.data.store import Store, default
from emojax.errors import InputError
from emojax.files import split_list
from emojax.sources import spm_labels
from emojax.sources import timing as times

PAPER = events.Timing()
REALIGNED = "ra*"
IMAGES = (".nii", ".nii.gz", ".img", ".hdr")
ONLY_RUN = "run-1"


class Found(NamedTuple):
    """The files of one run."""

    subject: str
    name: str
    files: list[pathlib.Path]  # one 4-D file, or 3-D files in order
    motion: pathlib.Path | None  # realignment parameters


def load(data: Any) -> Cohort:
    """Returns the cohort of `config.data`, see `read`."""
    return read(
        data.root,
        Store(default(data), data.progress),
        labels=data.labels,
        subjects=split_list(data.subjects),
        runs=split_list(data.runs),
        pattern=data.images,
        label_column=data.label_column,
        label_map=data.label_map,
        timing=events.timing(data),
        onset_unit=data.onset_unit,
        tr=data.tr or None,
        motion=data.motion or data.scrub_fd_mm > 0,
    )


def read(
    root: str | pathlib.Path,
    store: Store,
    *,
    labels: str,
    subjects: Sequence[str] = (),
    runs: Sequence[str] = (),
    pattern: str = REALIGNED,
    label_column: str = "trial_type",
    label_map: str = EVERY_VALUE,
    timing: events.Timing = PAPER,
    onset_unit: str = "s",
    tr: float | None = None,
    motion: bool = False,
) -> Cohort:
    """Reads folders of images as this module describes, and labels their volumes.

    Args:
      root: folder with one folder per subject.
      store: store of decoded scans, and of runs joined from 3-D files.
      labels: the table, relative to root; or the name of the .mat file in the folder of each run,
        in which {run} stands for the run's name.
      subjects: names of the subject folders to read; all if empty.
      runs: names of the run folders (or files) to read; all if empty.
      pattern: pattern of the images' names, without extensions.
      label_column: column of a table that holds labels, if the table has it.
      label_map: "rest=;neutral=value;negative=value|value" (see `data.label_map`); "" makes every
        value a class.
      timing: lag, overlap, conflicts and dropped volumes; a table of volumes only uses the last.
      onset_unit: unit of onsets and durations, "s" or "scans".
      tr: TR in s, which overrules the headers. 3-D files and Analyze headers have none.
      motion: whether realignment parameters are needed; if not, those that are whole are taken.

    Raises:
      InputError: nothing is found, a filter names what does not exist, a folder mixes 3-D and 4-D
        images, a run has no TR, one outside of 0.1 to 30 s or no labels, labels no images, or
        anything that `Store.images`, `data.motion`, `events`, `spm_labels` and `cohort.build`
        refuse.
    """
    root = require_folder(root, "a folder of subjects (data.root)")
    if not pattern or "/" in pattern:
        raise InputError("data.images", repr(pattern), f"names of files, such as {REALIGNED}")
    found = _find(root, pattern)
    keys = [(run.subject, run.name) for run in found]
    found = [found[i] for i in tables.choose(root, keys, subjects, runs)]
    folders = {(run.subject, run.name): run.files[0].parent for run in found}
    onsets = spm_labels.read(
        root, labels, folders, label_column, onset_unit, subjects=subjects, runs=runs
    )
    labeller = spm_labels.labeller(onsets, label_map, timing, onset_unit)
    images = store.images([run.files if len(run.files) > 1 else run.files[0] for run in found])
    out, numbers, lost = [], [], []
    for i, (run, image) in enumerate(zip(found, images, strict=True)):
        if (seconds := tr or image.tr) is None:
            raise InputError(image.path, "no TR in its header", f"data.tr in s: {times.TYPE}")
        if tr is None:
            times.check_range(image.path, "a TR", seconds)
        count = len(image.frames)
        moved = parameters.read_if_needed(run.motion, count, motion)
        read_too = [onsets[i].path, *([] if moved is None else [run.motion])]
        out.append(
            Run(
                subject=run.subject,
                name=run.name,
                frames=image.frames,
                tr=seconds,
                affine=image.affine,
                slope=image.slope,
                intercept=image.intercept,
                motion=moved,
                hashes=image.hashes | {str(path): sha256(path) for path in read_too},
            )
        )
        assigned = labeller.assign(i, count, seconds, subject=run.subject, run=run.name)
        numbers.append(assigned.labels)
        lost += assigned.lost
    notes = parameters.notes([run.motion for run in found], [run.motion for run in out])
    return build(out, labeller.classes, numbers, lost=lost, notes=[*labeller.notes, *notes])


def _find(root: pathlib.Path, pattern: str) -> list[Found]:
    """Returns all runs below root, in natural order of subjects and runs."""
    found = []
    for subject in _folders(root):
        direct = _runs(subject, pattern)
        nested = {folder: _runs(folder, pattern) for folder in _folders(subject)}
        nested = {folder: runs for folder, runs in nested.items() if runs}
        if direct and nested:
            expected = f"images in run folders such as {next(iter(nested))} only"
            raise InputError(subject, f"{pattern} images beside folders of runs", expected)
        for files in direct:
            name = _stem(files[0]) if _is_4d(files[0]) else ONLY_RUN
            moved = _motion(files, len(direct) == 1)
            found.append(Found(tidy(subject.name), tidy(name), files, moved))
        for folder, runs in nested.items():
            if len(runs) > 1:
                raise InputError(folder, f"{len(runs)} 4-D images {pattern}", "one run")
            moved = _motion(runs[0], True)
            found.append(Found(tidy(subject.name), tidy(folder.name), runs[0], moved))
    if not found:
        raise _no_images(root, pattern)
    seen: dict[tuple[str, str], Found] = {}
    for run in found:
        if (first := seen.setdefault((run.subject, run.name), run)) is not run:
            where = f"subject {run.subject!r} run {run.name!r} a second time ({first.files[0]})"
            raise InputError(
                run.files[0], where, "each run once (names that look alike count as equal)"
            )
    return found


def _no_images(root: pathlib.Path, pattern: str) -> InputError:
    """Returns the error for a folder without matching images; it names one that is there."""
    deep = [path for glob in ("*/*", "*/*/*") for path in root.glob(glob)]
    other = min((path.name for path in deep if path.name.endswith(IMAGES)), default="")
    found = f"no images {pattern}" + f", but {other}" * bool(other)
    start = other[: len(other) - len(other.lstrip(string.ascii_lowercase))] or "swra"
    expected = f"<subject>/<run>/{pattern}.nii, .nii.gz or .img (data.root"
    return InputError(root, found, f"{expected}, or --config.data.images={start}*)")


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(filter(pathlib.Path.is_dir, folder.iterdir()), key=_order)


def _order(path: pathlib.Path) -> tuple:
    return natural(path.name)


def _stem(path: pathlib.Path) -> str:
    return pathlib.Path(path.name.removesuffix(".gz")).stem


def _runs(folder: pathlib.Path, pattern: str) -> list[list[pathlib.Path]]:
    """Returns the images of each run in a folder: each 4-D file, or all 3-D files together."""
    files: dict[str, pathlib.Path] = {}
    for path in sorted(folder.glob(pattern), key=_order):
        if not path.name.endswith(IMAGES):
            continue
        other = files.get(_stem(path))
        if other and (other.suffix, path.suffix) != (".hdr", ".img"):
            raise InputError(folder, f"both {other.name} and {path.name}", "one of them")
        files[_stem(path)] = path  # for a pair, the .img, which is sorted second
    images = list(files.values())
    whole = [path for path in images if _is_4d(path)]
    if whole and len(whole) < len(images):
        single = next(path for path in images if path not in whole)
        found = f"{single.name} with one volume and {whole[0].name} with more"
        raise InputError(folder, found, "either 3-D or 4-D images")
    return [[path] for path in whole] or ([images] if images else [])


def _is_4d(path: pathlib.Path) -> bool:
    """Returns whether an image has more than one volume, according to its header."""
    shape = nifti.load(path).shape
    return len(shape) > 3 and shape[3] > 1


def _motion(files: Sequence[pathlib.Path], alone: bool) -> pathlib.Path | None:
    """Returns the rp_*.txt of a run: the only one beside its images, or the one with their name.

    SPM names the file after the image before realignment: rp_aX.txt belongs to raX and swraX.
    """
    folder, stem = files[0].parent, _stem(files[0])
    beside = sorted(folder.glob("rp_*.txt"))
    bases = {path.stem.removeprefix("rp_"): path for path in beside}
    fitting = [base for base in bases if re.fullmatch(f"[a-z]+{re.escape(base)}", stem)]
    own = [bases[max(fitting, key=len)]] if fitting else beside if alone else []
    if len(own) > 1:
        listed = ", ".join(path.name for path in own)
        raise InputError(folder, f"{listed} for one run", f"one of them, or rp_{stem[1:]}.txt")
    return own[0] if own else None
