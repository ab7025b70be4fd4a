"""The record of a volume: plain data, the same in the journal, in outputs and on the live page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emojax import online
from emojax.online import rigid

OK, MARKED, MISSING, UNREADABLE = "ok", "marked", "missing", "unreadable"
STATUSES = (OK, MARKED, MISSING, UNREADABLE)
LOST = (MISSING, UNREADABLE)  # volumes that were not decoded
UNCERTAIN = (  # times and hashes, which may differ when the same files are decoded again
    *("time_scan", "time_closed", "time_ready", "time_decoded", "time_sent"),
    *("stages_ms", "before", "line"),
)
_EMPTY: dict[str, Any] = {
    "p": None,
    "decision": "",
    "evidence": None,
    "feedback": None,
    "motion": None,
    "fd_mm": None,
    "gain": None,
    "offset": None,
    "correlation": None,
    "aligned": None,
}


def of_volume(found: online.Record, classes: Sequence[str]) -> dict[str, Any]:
    """Returns the part of a record that comes from decoding, with NaN for unknown numbers."""
    marks, known = found.marks, np.isfinite(found.probabilities).all()
    p = dict(zip(classes, map(float, found.probabilities), strict=True)) if known else None
    moved = list(map(float, found.motion)) if np.isfinite(found.motion).all() else None
    return {
        "status": found.status,
        "reasons": list(marks.reasons),
        "p": p,
        "decision": found.decision,
        "motion": moved,
        "fd_mm": float(found.displacement),
        "gain": float(marks.gain),
        "offset": float(marks.offset),
        "correlation": float(marks.correlation),
        "aligned": float(found.aligned),
    }


def build(
    seq: int, volume: int, status: str, reasons: Sequence[str], **more: Any
) -> dict[str, Any]:
    """Returns a record with every key, in a fixed order, with defaults for values not given."""
    own: dict[str, Any] = {"kind": "volume", "seq": seq, "volume": volume, "status": status}
    own["reasons"] = list(reasons)
    times = dict.fromkeys(("time_scan", "time_closed", "time_ready", "time_decoded"))
    own |= times | _EMPTY | {"stages_ms": {}, "missed": 0, "decoder": "", "files": []}
    own |= {"sha256": None, "pose": None}
    if unknown := more.keys() - own.keys():
        raise TypeError(f"unknown keys of a record: {sorted(unknown)}")
    return own | more


def pose_of(entry: Mapping[str, Any]) -> rigid.Pose | None:
    """Returns the exact pose in a record, for a restart."""
    if entry["pose"] is None:
        return None
    found = np.asarray(entry["pose"], np.float32)
    return rigid.Pose(found[:3], found[3:6], found[6])


def as_numbers(pose: rigid.Pose) -> list[float]:
    """Returns a pose as plain numbers, exactly."""
    return [float(value) for part in pose for value in np.ravel(part)]


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Returns the keys in which two records differ, except for times and hashes of lines."""
    names = [name for name in {**one, **other} if name not in UNCERTAIN]
    return [name for name in names if one.get(name) != other.get(name)]
