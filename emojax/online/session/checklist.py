"""Quality checklist of a session, with the items that studies are asked to report.

The first ten items are the real-time processing steps that Heunis et al. (Human Brain Mapping 41,
2020, doi:10.1002/hbm.25010) code in 128 studies; their COBIDAS-style checklist is at
https://osf.io/kjwhf. The others are measures of signal quality and timing. Items that emojax cannot
know are listed too, since they have to be reported as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from emojax.online.evidence_settings import parse
from emojax.online.session.measures import LARGE_MM, SENT, Statistics

DONE, NOT, MEASURED, UNKNOWN = "done", "not done", "measured", "not known here"
Line = Mapping[str, Any]


class Item(NamedTuple):
    """One row of the table."""

    name: str
    status: str  # one of the four above
    found: str


def items(start: Line, volumes: Sequence[Line], found: Statistics) -> list[Item]:
    """Returns the rows of the checklist.

    Args:
      start: first line of the journal.
      volumes: records of the volumes.
      found: see `statistics`.
    """
    return [*_steps(start, volumes, found), *_quality(found), *_outside()]


def _steps(start: Line, volumes: Sequence[Line], found: Statistics) -> Iterator[Item]:
    """Yields the processing steps."""
    facts, meaning = start.get("facts") or {}, start.get("meaning") or {}
    earlier = "; ".join(facts.get("preprocessing") or ()) or "none stated"
    online = facts.get("online") or ""
    steps = online.split("+") if online else []
    moved = any(own["motion"] is not None for own in volumes)
    yield Item("Slice-timing correction", NOT, "volumes are decoded whole, as scanned")
    yield Item(
        "Motion correction",
        DONE if moved else NOT,
        "rigid, each volume to the reference of the subject"
        if moved
        else "no reference image of the subject, or switched off (--correct)",
    )
    yield Item("Spatial smoothing", NOT, f"preprocessing that the decoder expects: {earlier}")
    drift = [step for step in steps if not step.startswith("motion")]
    level = str((start.get("settings") or {}).get("correct", ""))
    yield Item(
        "Drift removal",
        DONE if drift or (found.measures.get("gain") and level != "none") else NOT,
        f"causal, as in training: {online}"
        if drift
        else f"gain and offset of each volume against the reference (--correct={level or '?'})",
    )
    regressed = "motion" in steps
    yield Item(
        "Regression of head motion parameters",
        DONE if regressed else NOT,
        f"causal, as in training: {online}" if regressed else "motion is corrected, not regressed",
    )
    text = meaning.get("evidence") or ""
    smooth = [f"evidence: {text}"] if text else []
    smooth += [f"feedback: {meaning['target']}"] if meaning.get("target") else []
    yield Item(
        "Temporal smoothing or averaging", DONE if smooth else NOT, "; ".join(smooth) or "none"
    )
    yield Item("Frequency filtering", NOT, "except for drift removal")
    yield _outliers(start, found)
    yield Item("Differential region of interest", NOT, "the decoder reads a pattern of voxels")
    yield Item("Correction of respiration and pulse", NOT, "neither is recorded")


def _outliers(start: Line, found: Statistics) -> Item:
    counts = found.volumes
    text = (start.get("meaning") or {}).get("evidence") or ""
    counted = bool(text) and parse(text, len(start["classes"])).marked
    rest = "they count in the evidence" if counted else "they add nothing to the evidence"
    said = f"{counts['marked']} volumes marked ({rest}), {counts['unreadable']} unreadable"
    return Item("Outliers and spikes", DONE, said)


def _quality(found: Statistics) -> Iterator[Item]:
    """Yields the measures of quality."""
    motion, total = found.motion, sum(found.volumes.values())
    yield Item(
        "Displacement between volumes",
        MEASURED if motion else UNKNOWN,
        f"mean {motion['mean']:.2f} mm, largest {motion['max']:.2f} mm, "
        f"{motion['share']:.1%} above {LARGE_MM:g} mm"
        if motion
        else "no motion was estimated",
    )
    task = motion.get("task")
    yield Item(
        "Task-correlated motion",
        UNKNOWN if task is None else MEASURED,
        "needs an events file (--events) and an estimate of motion"
        if task is None
        else f"largest correlation of displacement with a class: |r| = {task:.2f}",
    )
    for name, label in (
        ("correlation", "Correlation with the reference, as scanned"),
        ("aligned", "Correlation with the reference, corrected"),
        ("gain", "Gain against the reference"),
    ):
        ends = found.measures.get(name)
        said = f"{ends[0]:.4f} to {ends[2]:.4f}, median {ends[1]:.4f}" if ends else "no reference"
        yield Item(label, MEASURED if ends else UNKNOWN, said)
    counts, gaps = found.volumes, len(found.gaps)
    lost = f"{counts['missing']} missing (in {gaps} gap{'s' * (gaps != 1)})"
    yield Item("Volumes lost", MEASURED, f"{lost}, {counts['unreadable']} unreadable, of {total}")
    took = found.latency_ms.get(SENT)
    said = f"median {took['p50']:.1f} ms, 99 % within {took['p99']:.1f} ms" if took else "none sent"
    yield Item("Delay of the feedback signal", MEASURED if took else UNKNOWN, said)
    for name, own in found.accuracy.items():
        if own.balanced is not None:
            of = {"volume": "of single volumes"}.get(name, f"of the {name}")
            yield Item(f"Balanced accuracy {of}", MEASURED, f"{own.balanced:.3f}")


def _outside() -> Iterator[Item]:
    """Yields the items that a session cannot measure."""
    for name, said in (
        ("Temporal signal-to-noise ratio", "needs the time courses of voxels: offline"),
        ("Contrast-to-noise ratio, percent signal change", "needs a model of the task: offline"),
        ("Display of the feedback", "when it was visible: from the program that shows it"),
        ("Scanner and sequence", "vendor, field, coil, sequence: from the protocol"),
        ("Visual check of the images", "by a person, after the session"),
    ):
        yield Item(name, UNKNOWN, said)
