"""The identity of a cohort: the files, runs and labels that a training run reads, as plain data.

A resumed run must read the same data as before. An error names the first file or run that differs.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from emojax.data import hashes
from emojax.data.cohort import Cohort
from emojax.errors import InputError

Identity = dict[str, Any]  # plain data, see `describe`
CHOICES = "the same as when the run began (or --restart to begin anew, or another --workdir)"


def describe(cohort: Cohort, files: Iterable[str] = ()) -> Identity:
    """Returns the identity of the data that a training run on this cohort reads.

    Args:
      cohort: the data.
      files: additional files that the run reads, such as an atlas.

    Returns:
      "files": source file -> sha256; "runs": run -> its values, labels, motion, TR and affine, long
      ones as hashes; "masks": subject -> hash; "classes"; "before": earlier steps; "factors" of the
      design as hashes; "groups" of subjects.
    """
    runs = {}
    for index, run in enumerate(cohort.runs):
        rows = cohort.run_index == index
        runs[f"{run.subject} {run.name}"] = {
            "values": hashes.short(run.content),
            "volumes": len(run.frames),
            "labels": _hash(cohort.frame[rows], cohort.labels[rows]),
            "motion": _hash(run.motion),
            "TR": run.tr,
            "starts": _hash(run.starts),
            "affine": _hash(run.affine),
        }
    return {
        "files": cohort.hashes | {path: hashes.sha256(pathlib.Path(path)) for path in files},
        "runs": runs,
        "masks": {subject: _hash(mask) for subject, mask in cohort.masks.items()},
        "classes": list(cohort.classes),
        "before": [[str(prior), prior.labels] for prior in cohort.prior],
        "factors": {name: _hash(values.astype(str)) for name, values in cohort.factors.items()},
        "groups": dict(cohort.groups),
    }


def digest(plain: Any) -> str:
    """Returns the sha256 of plain data."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def stamps(identity: Identity) -> dict[str, list[int]]:
    """Returns size and modification times (ns) of every source file that exists."""
    return {path: found for path in identity["files"] if (found := _stamp(path))}


def check_same(theirs: Identity, ours: Identity) -> None:
    """Refuses another cohort than the one that a run began with.

    Args:
      theirs: identity of the data that the run began with.
      ours: identity of the present data.

    Raises:
      InputError: they differ; the message names the first file, run or other part.
    """
    for path, sha in theirs["files"].items():
        now = ours["files"].get(path, sha)
        if now != sha:
            raise InputError(path, "other content than the run in this workdir has read", CHOICES)
    for part, noun in (("files", ""), ("runs", "run "), ("masks", "mask of ")):
        old, new = theirs[part], ours[part]
        for name in [*(old.keys() - new.keys()), *(new.keys() - old.keys())]:
            found = "nothing any more" if name in old else "data that the run has not read"
            raise InputError(f"{noun}{name}", found, CHOICES)
    for name, facts in theirs["runs"].items():
        for key, value in facts.items():
            if ours["runs"][name][key] != value:
                raise InputError(f"run {name}", f"other {key} than before", CHOICES)
    for key in ("masks", "classes", "before", "factors", "groups"):
        if ours[key] != theirs[key]:
            raise InputError(key, "others than the run in this workdir has read", CHOICES)


def check_files(identity: Identity, known: Mapping[str, list[int]]) -> None:
    """Refuses source files that have changed since a run read them.

    Missing files do not count, and files of the same size and time are not read.

    Args:
      identity: identity of the data that the run has read.
      known: `stamps` at that time.

    Raises:
      InputError: a file differs; the message names the first.
    """
    for path, stamp in known.items():
        now = _stamp(path)
        if now and now != stamp and hashes.sha256(path) != identity["files"].get(path):
            raise InputError(path, "other content than the run in this workdir has read", CHOICES)


def _stamp(path: str) -> list[int] | None:
    """Returns size and times of a file, but no inode, which differs between cluster nodes."""
    try:
        found = hashes.stamp(path)
    except InputError:
        return None
    return [found[key] for key in ("size", "time", "status_time")]


def _hash(*arrays: np.ndarray | None) -> str | None:
    """Returns a hash of arrays with their dtypes and shapes; None if one is None."""
    known = {str(i): array for i, array in enumerate(arrays) if array is not None}
    return hashes.of_arrays(known) if len(known) == len(arrays) else None
