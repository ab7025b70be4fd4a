"""The plan of a simulated scanner: its writes over time, with faults drawn from a seed."""

import math
import re
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from emojax.errors import InputError

DRIFT = "drift"
FAULTS = {  # name -> (default share of the volumes, description)
    "late": (0.02, "written after several later ones"),
    "shuffled": (0.05, "written shortly after the next one"),
    "lost": (0.01, "never written"),
    "duplicate": (0.02, "written again, under its own or another name"),
    "conflict": (0.01, "followed by another image of the same number"),
    "series": (0.1, "followed by a phase image, of another series"),
    "half": (0.05, "written in two parts, more than half a TR apart"),
    "slow": (0.05, "written in eight parts, and closed after the last"),
    "prealloc": (0.05, "first zeros of its whole size, then filled"),
    "truncated": (0.01, "cut, and never completed"),
    "frozen": (0.01, "repeats the image before, under its own number"),
    "zeros": (0.01, "the last third of its slices is zero"),
    "motion": (0.02, "shifted by half a voxel in an oblique direction"),
    DRIFT: (0.03, "intensity grows over the run by this share"),
}
WHOLE = 0.0, 1.0
ROOM = None  # zeros in place of all bytes of the files
PARTS = {  # fault -> parts of a volume's bytes: (time in TRs before the end, share of the bytes)
    "half": ((0.6, (0.0, 0.5)), (0.0, (0.5, 1.0))),
    "slow": tuple((0.1 * (7 - k), (k / 8, (k + 1) / 8)) for k in range(8)),
    "prealloc": ((0.6, ROOM), (0.3, (0.0, 0.5)), (0.0, (0.5, 1.0))),
    "truncated": ((0.0, (0.0, 0.6)),),
}
AGAIN = ("duplicate", "conflict", "series")  # faults that add files after a good one
COPY, PHASE = "copy_", "phase_"  # prefixes of the names of these files


class Action(NamedTuple):
    """One write of a scanner: some bytes of one volume."""

    at: float  # TRs after the start
    volume: int  # number of the volume, as counted by the scanner
    source: int  # index of the run's volume whose image it holds, from 0
    fault: str = ""
    gain: float = 1.0
    prefix: str = ""  # prefix of the file names
    part: tuple[float, float] | None = WHOLE  # share of its bytes, from and to; or `ROOM`
    is_last: bool = True  # whether the files are complete afterwards


class Fault(NamedTuple):
    """One requested fault."""

    name: str
    rate: float
    volumes: frozenset[int] = frozenset()  # volumes with the fault; none to draw them by the rate


def parse(text: str) -> Fault:
    """Parses one fault: "lost", "lost:0.05" (a share), "lost@7+9" or "motion@100-200" (volumes).

    Raises:
      InputError: the text does not describe a fault.
    """
    name, mark, value, *_ = *re.split("([:@])", text, maxsplit=1), "", ""
    if name not in FAULTS:
        raise InputError("faults", repr(text), f"one of {', '.join(FAULTS)}")
    if mark == "@" and name != DRIFT:
        return Fault(name, 0.0, _numbers(text, value))
    try:
        share = float(value) if mark else FAULTS[name][0]
    except ValueError:
        share = math.nan
    if not (-1 if name == DRIFT else 0) <= share <= 1:
        raise InputError("faults", repr(text), f"a share up to 1, e.g. {name}:{FAULTS[name][0]}")
    return Fault(name, share)


def _numbers(text: str, spans: str) -> frozenset[int]:
    """Returns the volumes of "7+9" or "100-200"."""
    found = [re.fullmatch(r"(\d{1,7})(?:-(\d{1,7}))?", span) for span in spans.split("+")]
    ends = [(int(span[1]), int(span[2] or span[1])) for span in found if span]
    if None in found or any(low > high for low, high in ends):
        raise InputError("faults", repr(text), "numbers of volumes, as lost@7+9 or lost@100-200")
    return frozenset(number for low, high in ends for number in range(low, high + 1))


def plan(count: int, faults: Sequence[str] = (), seed: int = 0, first: int = 1) -> list[Action]:
    """Returns all actions of a run in order of time; equal arguments give equal plans.

    A volume has at most one fault, the first of those drawn for it; drift is added to it. Volumes
    given by number take precedence, and no fault is drawn for the first volume of a run.

    Args:
      count: number of volumes; volume i, from 0, is complete i + 1 TRs after the start.
      faults: see `parse`.
      seed: seed of the draws, which are independent of the other faults.
      first: number of the first volume.

    Raises:
      InputError: a fault is unknown, or a volume is not part of the run or is named twice.
    """
    asked = [parse(text) for text in faults]
    chosen = _choose(count, [f for f in asked if f.name != DRIFT], seed, first)
    growth = sum(f.rate for f in asked if f.name == DRIFT)
    how, actions, moving = np.random.default_rng(seed).random(count).tolist(), [], 0
    for i, name in enumerate(chosen):
        moving = moving if name == "frozen" else i
        gain = 1 + growth * i / max(count - 1, 1)
        sound = Action(i + 1.0, first + i, moving, name, gain)
        if name in AGAIN:
            actions += [sound._replace(fault=""), _again(sound, how[i])]
            continue
        delay = {"late": 2.3 + 3 * how[i], "shuffled": 1.2}.get(name, 0.0)
        parts = PARTS.get(name, ((0.0, WHOLE),))
        for ahead, part in parts:
            step = sound._replace(at=i + 1 + delay - ahead, part=part, is_last=ahead == 0)
            actions.append(step)
    return sorted(actions, key=lambda action: action.at)


def _choose(count: int, faults: Sequence[Fault], seed: int, first: int) -> list[str]:
    """Returns the fault of each volume, "" for most."""
    chosen = [""] * count
    for fault in faults:
        for number in sorted(fault.volumes):
            if not first <= number < first + count:
                expected = f"volumes from {first} to {first + count - 1}"
                raise InputError("faults", f"{fault.name}@{number}", expected)
            if chosen[number - first]:
                found = f"{chosen[number - first]}@{number} and {fault.name}@{number}"
                raise InputError("faults", found, "one fault for a volume")
            chosen[number - first] = fault.name
    for fault in faults:
        draws = np.random.default_rng((seed, zlib.crc32(fault.name.encode()))).random(count)
        for i in np.flatnonzero(draws < fault.rate):
            chosen[i] = chosen[i] or (fault.name if i else "")
    return chosen


def _again(sound: Action, how: float) -> Action:
    """Returns the action that follows a good file, up to two TRs later."""
    prefix = PHASE if sound.fault == "series" else COPY if how < 0.5 else ""
    return sound._replace(at=sound.at + 0.4 + 4 * (how % 0.5), prefix=prefix)
