"""Consistency of runs and subjects: one grid, one TR, and volumes of every class."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from emojax.data import grid
from emojax.data.acquisitions import canonical, natural
from emojax.data.losses import Loss
from emojax.data.run import Run
from emojax.errors import InputError

if TYPE_CHECKING:
    from emojax.data.cohort import Cohort

OWN = (  # advice for images in native space
    "images in a standard space (--config.data.space), or each subject its own voxels, in "
    "Experiment A: --config.voxels.own=True --config.align.regimes=independent_runs,none"
)


def turn_runs(
    runs: Sequence[Run], masks: Mapping[str, np.ndarray]
) -> tuple[list[Run], dict[str, np.ndarray], list[str]]:
    """Turns images whose axes are in another order or direction than those of the first.

    If a subject has its own grid, its runs are turned to the first of them.

    Args:
      runs: all runs, in any order.
      masks: subject -> its brain mask, on the grid of its first given run.

    Returns:
      Runs, masks, and a sentence if some were turned.
    """
    out, masks, turned = [], dict(masks), []
    target = min(runs, key=lambda run: (run.subject, natural(run.name)))
    own: dict[str, Run] = {}  # subject -> its first given run
    for run in runs:
        begins = own.setdefault(run.subject, run) is run
        by = next(filter(None, (_turn(run, to) for to in (target, own[run.subject]))), None)
        if by is None or by.is_identity:
            out.append(run)
            continue
        out.append(_turned(run, by))
        turned.append(run.place)
        if begins and run.subject in masks:
            masks[run.subject] = by.apply(masks[run.subject])
    said = f"axes turned, without loss, to those of {target.place} or of the subject's first scan: "
    said += f"{len(turned)} scans"
    return out, masks, [f"{said} (first: {turned[0]})"] if turned else []


def _turned(run: Run, by: grid.Turn) -> Run:
    """Returns a turned run, together with its uncleaned version."""
    before = run.uncleaned
    assert run.affine is not None  # as it can be turned
    return dataclasses.replace(
        run,
        frames=by.apply(run.frames, 1),
        affine=grid.turned(run.affine, run.frames.shape[1:], by),
        changes=(*run.changes, f"turned {by.axes} {by.flipped}"),
        uncleaned=before and _turned(before, by),
    )


def _turn(run: Run, to: Run) -> grid.Turn | None:
    """Returns the turn of a run onto the grid of another; None if there is none."""
    shape, wanted = run.frames.shape[1:], to.frames.shape[1:]
    if len(shape) != 3 or len(wanted) != 3:
        return None
    return grid.turn(run.affine, shape, to.affine, wanted)


def check_same(a: Run, b: Run) -> None:
    """Refuses runs of one subject with the same name, or with another grid or TR."""
    if canonical(a.name) == canonical(b.name):
        raise InputError(
            b.place,
            f"subject {b.subject!r} run {b.name!r} a second time (first: {a.place})",
            "each run once (--config.data.sessions and --config.data.runs choose)",
        )
    shape = b.frames.shape[1:]
    if a.frames.shape[1:] != shape:
        expected = f"{a.frames.shape[1:]} as in {a.place}"
        raise InputError(b.place, f"volumes of shape {shape}", expected)
    if len(shape) == 3 and not grid.same(b.affine, a.affine, shape):
        expected = "one affine per subject (realign or resample its runs to one grid)"
        raise InputError(b.place, f"another affine than {a.place}{_apart(a, b)}", expected)
    if a.tr != b.tr:
        raise InputError(b.place, f"TR {b.tr} s", f"{a.tr} s as in {a.place}")


def check_classes(cohort: "Cohort") -> None:
    """Refuses a study in which a class has no volume; to be called after its counts were shown.

    Raises:
      InputError: a class has no volume; the message gives possible reasons.
    """
    counts = np.bincount(cohort.labels, minlength=len(cohort.classes))
    missing = [name for name, count in zip(cohort.classes, counts, strict=True) if not count]
    if missing:
        raise without_volumes(missing, len(cohort.runs), cohort.lost)


def without_volumes(missing: Sequence[str], num_runs: int, lost: Sequence[Loss]) -> InputError:
    """Returns the error of classes that have no volume."""
    found = f"no volume of class {', '.join(map(repr, missing))} in {num_runs} runs"
    own = [loss for loss in lost if loss.name in missing]
    events, behind = sum(loss.events for loss in own), sum(loss.behind for loss in own)
    expected = "volumes of every class (data.label_map says which there are)"
    if events:
        found += f", but {events} events"
    if events and events == behind:
        found += ", all of them after the end of their scan"
        expected = "scans that hold events of every class (--config.data.subjects, or other events)"
    elif events:
        expected = (
            "events inside the scan that cover enough of a volume: "
            "--config.data.min_overlap=0.25 asks for less of it, "
            "--config.data.event_duration_s=4.0 gives those of duration 0 or n/a a length"
        )
    return InputError("cohort", found, expected)


def check_grids(cohort: "Cohort", by: str = "mm") -> None:
    """Refuses subjects whose voxels do not correspond.

    Args:
      cohort: the cohort, whose columns are to be compared between subjects.
      by: "mm" if voxels with the same array index must be at the same place in space; "array" if
        not, as in the paper, which compares native images.

    Raises:
      InputError: two scans differ; the message names them.
    """
    runs = [cohort.runs[i] for i in np.unique(cohort.run_index)]
    first = runs[0]
    shape = first.frames.shape[1:]
    if len(shape) != 3:
        return
    for run in runs:
        own = run.frames.shape[1:]
        if own != shape:
            expected = f"{shape} as {first.place}: {OWN}"
            raise InputError(run.place, f"volumes of shape {own}", expected)
        if by == "mm" and not grid.same(run.affine, first.affine, shape):
            found = f"another affine than {first.place}{_apart(first, run)}"
            expected = (
                f"voxels at the same mm in all subjects: {OWN}, or --config.data.grid=array to "
                "compare voxels by their place in the array"
            )
            raise InputError(run.place, found, expected)


def _apart(a: Run, b: Run) -> str:
    """Returns a text with the distance of two grids."""
    if a.affine is None or b.affine is None:
        return ""
    off = grid.offset(b.affine, a.affine, b.frames.shape[1:])
    return f" (off by up to {off:.3g} voxels)"
