"""Scrubbing: removes the labels of volumes with head motion."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from emojax.data.cohort import Cohort
from emojax.errors import InputError

Kept = Bool[np.ndarray, " t"] | None  # kept volumes of one run; None for all


def drop(cohort: Cohort, kept: Sequence[Kept], fd_mm: float) -> Cohort:
    """Removes the labels of volumes that are not kept, and notes their number.

    Args:
      cohort: the cohort.
      kept: for each run, the volumes that are kept.
      fd_mm: threshold of framewise displacement; 0 if volumes are left out only because the scanner
        was not in its steady state yet.

    Raises:
      InputError: no volume of a class or a subject is left.
    """
    used = np.ones(len(cohort.labels), bool)
    for i, own in enumerate(kept):
        if own is not None:
            here = cohort.run_index == i
            used[here] = own[cohort.frame[here]]
    out = sum(int((~own).sum()) for own in kept if own is not None)
    if not out:
        return cohort
    key, why = "data.confounds", "in no steady state"
    if fd_mm:
        key, why = f"data.scrub_fd_mm={fd_mm:g}", f"framewise displacement above {fd_mm:g} mm"
    named = {"class": np.array(cohort.classes)[cohort.labels], "subject": cohort.subject}
    for noun, names in named.items():
        left = sorted(set(names[used].tolist()))
        if lost := sorted(set(names.tolist()) - {*left}):
            found = f"no volume left of {noun} {lost[0]!r}"
            raise InputError(key, found, _ways_out(noun, left, fd_mm))
    volumes = sum(len(run.frames) for run in cohort.runs)
    note = (
        f"{out} of {volumes} volumes scrubbed ({why}), {int((~used).sum())} of {len(used)} "
        "labelled ones among them"
    )
    return dataclasses.replace(cohort.select(used), notes=(*cohort.notes, note))


def _ways_out(noun: str, left: Sequence[str], fd_mm: float) -> str:
    """Returns advice for the case that no volume of a class or a subject is left."""
    ways = [f"a larger one, such as --config.data.scrub_fd_mm={2 * fd_mm:g}"] if fd_mm else []
    if not left:
        ways += [] if fd_mm else ["--config.data.confounds=''"]
    elif noun == "subject":
        ways.append(f"the others: --config.data.subjects={','.join(left)}")
    else:
        ways.append("a --config.data.label_map without the class")
    return ", or ".join(ways)
