"""fMRIPrep's confounds of a run, selected by nilearn's strategies, and framewise displacement."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from emojax.data import motion
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.files import cause

KEY = "data.confounds"
STRATEGIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {  # nilearn's strategy and its options
    "motion6": ("motion", {"motion": "basic"}),
    "motion12": ("motion", {"motion": "derivatives"}),
    "motion24": ("motion", {"motion": "full"}),
    "wm_csf": ("wm_csf", {"wm_csf": "basic"}),
    "wm_csf8": ("wm_csf", {"wm_csf": "full"}),
    "global_signal": ("global_signal", {"global_signal": "basic"}),
    "global_signal4": ("global_signal", {"global_signal": "full"}),
    "compcor": ("compcor", {"compcor": "anat_combined", "n_compcor": "all"}),
    "compcor5": ("compcor", {"compcor": "anat_combined", "n_compcor": 5}),
    "compcor_temporal": ("compcor", {"compcor": "temporal", "n_compcor": "all"}),
    "high_pass": ("high_pass", {}),
    "ica_aroma": ("ica_aroma", {"ica_aroma": "basic"}),  # for scans without AROMA's own cleaning
}
ENDING = "_desc-confounds_timeseries.tsv"
DISPLACEMENT = "framewise_displacement"
HEAD = 50.0  # mm, radius of a head, which converts rotations to mm (Power et al. 2012)


class Confounds(NamedTuple):
    """Time courses that are removed from a run."""

    values: Float[np.ndarray, "t k"]
    steady: Bool[np.ndarray, " t"]  # False where the scanner was not yet in its steady state


def options(names: Sequence[str]) -> dict[str, Any]:
    """Returns the arguments of nilearn's `load_confounds` for names of strategies.

    Args:
      names: names in `STRATEGIES`.

    Raises:
      InputError: a name is unknown, two belong to one strategy, or compcor lacks high_pass.
    """
    known = ", ".join(STRATEGIES)
    found: dict[str, str] = {}
    for name in names:
        if name not in STRATEGIES:
            more = " (volumes are scrubbed by --config.data.scrub_fd_mm=0.5)"
            raise InputError(KEY, repr(name), f"names of {known}{more if name == 'scrub' else ''}")
        strategy = STRATEGIES[name][0]
        if strategy in found:
            raise InputError(KEY, f"{found[strategy]} and {name}", "one of the two")
        found[strategy] = name
    if "compcor" in found and "high_pass" not in found:
        typed = ",".join((*names, "high_pass"))
        expected = f"--config.data.confounds={typed}: compcor was computed from filtered scans"
        raise InputError(KEY, f"{found['compcor']} without high_pass", expected)
    chosen = [STRATEGIES[name] for name in names]
    merged = {key: value for _, own in chosen for key, value in own.items()}
    return {"strategy": [strategy for strategy, _ in chosen], **merged}


def require(run: Run) -> pathlib.Path:
    """Returns the path of a run's confounds.

    Raises:
      InputError: the run has none.
    """
    if run.confounds is None:
        folder = pathlib.Path(run.place).parent if run.hashes else "beside it"
        expected = (
            f"fMRIPrep's *{ENDING} in {folder} (data.source=bids with its output as data.root, "
            "or --config.data.confounds='')"
        )
        raise InputError(run.place, "no confounds", expected)
    return run.confounds


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the table of confounds, and its JSON sidecar if there is one."""
    described = path.with_suffix(".json")
    return [path, described] if os.path.lexists(described) else [path]


def read(path: pathlib.Path, names: Sequence[str], num_volumes: int) -> Confounds:
    """Reads the confounds of one run, as selected by nilearn's strategies.

    n/a in the first row, as of derivatives, is replaced by the value of the second row.

    Args:
      path: fMRIPrep's table.
      names: one or more names in `STRATEGIES`.
      num_volumes: length of the run, t.

    Raises:
      InputError: as `options`, or the table lacks a column, has a cell that is not a number, or
        does not have one row per volume.
    """
    from nilearn.interfaces import fmriprep  # 2 s

    chosen, typed = options(names), ",".join(names)
    expected = f"what {typed} needs, or other names in {KEY} of {', '.join(STRATEGIES)}"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # nilearn finds the table by fMRIPrep's name of the scan, among all tables in the folder.
        for part in files(path):
            shutil.copy(part, pathlib.Path(folder, f"sub-1_desc-confounds_timeseries{part.suffix}"))
        scan = str(pathlib.Path(folder, "sub-1_desc-preproc_bold.nii.gz"))
        try:
            table, kept = fmriprep.load_confounds(scan, demean=False, **chosen)
            assert table is not None  # None only without scans
            values = table.to_numpy(float)
        except Exception as error:  # pandas and nilearn raise many types
            said = _text(path) or " ".join(str(error).replace(folder, str(path.parent)).split())
            raise InputError(path, f"none of it for {typed} ({said})", expected) from None
    if "high_pass" in names and not any("cosine" in name for name in table):
        more = "other names, and --config.data.high_pass_hz=0.008 instead"
        raise InputError(path, "no column cosine00 for high_pass", more)
    if len(values) != num_volumes:
        raise InputError(path, f"{len(values)} rows", f"one for each of {num_volumes} volumes")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        found = f"no number in line {row + 2}, column {table.columns[column]!r}"
        raise InputError(path, found, "n/a in the first row only")
    steady = np.ones(num_volumes, bool)
    if kept is not None:
        steady[:] = False
        steady[kept] = True
    return Confounds(values, steady)


def displacement(run: Run, path: pathlib.Path | None) -> Float[np.ndarray, " t"]:
    """Returns the framewise displacement of each volume, mm; 0 for the first.

    It is fMRIPrep's column, or else the sum of the changes of the six realignment parameters, with
    rotations as arcs on a sphere of 50 mm (Power et al. 2012).

    Args:
      run: the run; without `motion`, the parameters are read from the table.
      path: fMRIPrep's table of the run, or None.

    Raises:
      InputError: there is neither, or the table does not have one row per volume or has a cell that
        is not a number.
    """
    if path is not None and (column := _column(path)) is not None:
        if len(column) != len(run.frames):
            expected = f"one for each of {len(run.frames)} volumes"
            raise InputError(path, f"{len(column)} rows", expected)
        return column
    moved = run.motion
    if moved is None and path is not None:
        moved = motion.read(path, len(run.frames))
    if moved is None:
        expected = (
            f"a column {DISPLACEMENT} in fMRIPrep's confounds, or six parameters per volume (or "
            "--config.data.scrub_fd_mm=0)"
        )
        raise InputError(run.place, "no realignment parameters", expected)
    change = np.abs(np.diff(moved, axis=0, prepend=moved[:1]))
    return change[:, :3].sum(1) + HEAD * change[:, 3:].sum(1)


def _column(path: pathlib.Path) -> Float[np.ndarray, " t"] | None:
    """Returns the displacements in a table, 0 for n/a in its first row; None without the column."""
    import pandas as pd

    try:
        table = pd.read_csv(path, sep="\t", usecols=lambda name: name.strip() == DISPLACEMENT)
        column = np.array(table, float)[:, :1].reshape(-1)  # a copy
    except Exception as error:  # pandas raises many types
        raise InputError(path, f"no readable table ({cause(error)})", "tabs and numbers") from None
    if not table.shape[1]:
        return None
    if len(column) and np.isnan(column[0]):
        column[0] = 0
    if (bad := np.flatnonzero(~np.isfinite(column))).size:
        found = f"no number in line {bad[0] + 2}, column {DISPLACEMENT!r}"
        raise InputError(path, found, "n/a in the first row only")
    return column


def _text(path: pathlib.Path) -> str:
    """Describes the first cell that is not a number; "" if there is none."""
    import pandas as pd

    with contextlib.suppress(Exception):  # the first error already says that it is not a table
        table = pd.read_csv(path, sep="\t")
        bad = table.notna() & table.apply(pd.to_numeric, errors="coerce").isna()
        for row, column in np.argwhere(bad.to_numpy()):
            cell, name = table.iloc[row, column], table.columns[column]
            return f"{str(cell)!r} in line {row + 2}, column {name!r}"
    return ""
