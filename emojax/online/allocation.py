"""Sealed allocation of subjects to real, sham or yoked feedback.

Sham values come from a seed and have the distribution and the autocorrelation of a real run; yoked
values are those that another session showed at the same volumes; a list holds one value for each
volume.

The seal is an envelope, not a lock. The file holds the allocations as base64, so that a glance does
not unblind. A random salt makes its sha256, which the journal keeps, uninformative; the sha256
later proves that the file was not changed. Anybody who decodes the file, or compares the
probabilities in a journal with the feedback, knows who got what: keep both from experimenters until
the study is over, and let `draw`, or a person who meets no participant, allocate.
"""

import base64
import hashlib
import json
import math
import pathlib
import random
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from emojax import files
from emojax.errors import InputError

REAL, SHAM, LIST, YOKED = "real", "sham", "list", "yoked"
KINDS = f"{REAL}, {SHAM}, {SHAM}:JOURNAL, {LIST}:FILE or {YOKED}:JOURNAL"
FORMAT = 1
ABOUT = "allocations of feedback, sealed by emojax: do not decode before the study is over"
LARGEST = 1 << 24  # bytes of an allocation file
AUTOCORRELATION = 0.75  # from one volume to the next, as in `demo030` without smoothing
SPREAD = 0.4  # sd of sham values without a run to copy, before they are clipped to [0, 1]
UNKNOWN = 0.5  # shown before the first value of a list or of another session


class Allocation(NamedTuple):
    """The allocation of one run of a subject."""

    kind: str = REAL
    sha256: str = ""  # of the allocation file; "" without one
    seed: int = 0  # of sham values
    autocorrelation: float = AUTOCORRELATION
    values: tuple[float, ...] = ()  # real values whose distribution sham values have
    shown: Mapping[int, float] = {}  # volume -> value, from a list or another session


class Sham(NamedTuple):
    """The state carried from one volume to the next: a normal variable, the last value shown."""

    volume: int | None = None
    z: float = 0.0
    value: float = UNKNOWN


def draw(
    subjects: Sequence[str], kinds: Sequence[str] = (REAL, SHAM), seed: int | None = None
) -> dict[str, str]:
    """Allocates subjects at random, in groups of sizes as equal as possible.

    Args:
      subjects: names of the subjects.
      kinds: kinds of feedback, see `KINDS`.
      seed: seed of a repeatable draw; None for one that nobody can repeat.

    Raises:
      InputError: there is no subject, or one occurs twice.
    """
    if not subjects or len(set(subjects)) < len(subjects):
        raise InputError("subjects", ", ".join(subjects) or "none", "different names")
    chance = random.Random(seed) if seed is not None else secrets.SystemRandom()
    order = chance.sample(list(kinds), len(kinds))  # no kind is favoured if groups differ in size
    hands = [order[i % len(order)] for i in range(len(subjects))]
    chance.shuffle(hands)
    return dict(zip(subjects, hands, strict=True))


def seal(path: str | pathlib.Path, allocations: Mapping[str, str], seed: int | None = None) -> str:
    """Writes an allocation file.

    Args:
      path: path of the file, which must not exist yet.
      allocations: subject -> kind, see `KINDS`; file names are relative to the allocation file.
      seed: seed of the salt, for tests; None for a random salt.

    Returns:
      The sha256 of the file.

    Raises:
      InputError: a kind is unknown, there is no subject, the file exists, or a file that a kind
        names holds no feedback.
    """
    path = pathlib.Path(path)
    if path.exists():
        raise InputError(path, "a file", "a new name: an allocation is drawn once")
    if not allocations:
        raise InputError("allocations", "none", "at least one subject")
    if not path.parent.is_dir():
        raise InputError(path.parent, "no such folder", "one that exists")
    for subject, kind in allocations.items():
        name, file = _split(kind, f"allocation of {subject}")
        if file:
            _source(name, path.parent / file)
    salt = secrets.token_hex(16) if seed is None else f"{random.Random(seed).getrandbits(128):032x}"
    inside = json.dumps({"salt": salt, "allocations": dict(allocations)}).encode()
    outside = {"format": FORMAT, "about": ABOUT, "sealed": base64.b64encode(inside).decode()}
    content = json.dumps(outside, indent=1).encode() + b"\n"
    with files.atomic_write(path) as partial:
        partial.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def open_sealed(path: str | pathlib.Path, subject: str, run: str = "") -> Allocation:
    """Reads the allocation of one subject.

    Args:
      path: path of an allocation file.
      subject: name of the subject, as in the file.
      run: name of the run; sham values of two runs differ.

    Raises:
      InputError: the file is not an allocation file, the subject is not in it, or a file that it
        names cannot be read. Messages do not reveal the allocation.
    """
    path = pathlib.Path(path)
    content = _bytes(path, LARGEST)
    try:
        outside = json.loads(content)
        inside = json.loads(base64.b64decode(outside["sealed"], validate=True))
        salt, allocations = inside["salt"], inside["allocations"]
        if outside["format"] != FORMAT or not isinstance(salt, str):
            raise ValueError
        known = {str(name): _split(kind, str(path)) for name, kind in allocations.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(path, "no allocation file", "a file written by emojax seal") from None
    if subject not in known:
        found = f"no allocation of subject {subject!r}"
        raise InputError(path, found, f"one of its {len(known)} subjects (--subject=NAME)")
    kind, name = known[subject]
    digest = hashlib.sha256("\0".join((salt, subject, run)).encode()).digest()
    made = Allocation(kind, hashlib.sha256(content).hexdigest(), int.from_bytes(digest[:8], "big"))
    try:
        return made._replace(**_source(kind, path.parent / name)) if name else made
    except InputError:
        found = f"a file of subject {subject!r} that holds no feedback in [0, 1], or is not there"
        raise InputError(
            path, found, "the list or journal that it was sealed with, beside it"
        ) from None


def _split(kind: str, where: str) -> tuple[str, str]:
    """Returns a kind and its file, "" without one."""
    name, _, file = str(kind).partition(":")
    if (name == REAL and kind == REAL) or kind == SHAM or (name in (SHAM, LIST, YOKED) and file):
        return name, file
    raise InputError(where, repr(kind), KINDS)


def _source(kind: str, path: pathlib.Path) -> dict[str, Any]:
    """Returns fields of an allocation from the file that it names."""
    shown = _listed(path) if kind == LIST else shown_in(path)
    if not shown:
        raise InputError(path, "no feedback", "a number for each volume")
    if kind != SHAM:
        return {"shown": shown}
    values = np.array([shown[number] for number in sorted(shown)])
    left = values - values.mean()
    power = float((left**2).sum())
    lag = float((left[1:] * left[:-1]).sum()) / power if power else 0.0
    return {"values": tuple(values.tolist()), "autocorrelation": min(max(lag, 0.0), 0.99)}


def shown_in(path: pathlib.Path) -> dict[int, float]:
    """Returns the feedback of each volume of a journal that has some.

    Raises:
      InputError: the file cannot be read as a journal.
    """
    from emojax.online.watching import journal  # imports jax, which sealing does not need

    lines = (line for line, *_ in journal.read(path) if line["kind"] == "volume")
    return {own["volume"]: _unit(own["feedback"]) for own in lines if own["feedback"] is not None}


def _listed(path: pathlib.Path) -> dict[int, float]:
    words = _bytes(path, LARGEST).decode("utf-8", "replace").split()
    return {number: _unit(word) for number, word in enumerate(words, 1)}


def _unit(value: Any) -> float:
    """Returns a number in [0, 1]."""
    try:
        if 0 <= float(value) <= 1:
            return float(value)
    except (TypeError, ValueError):
        pass
    raise InputError("feedback", repr(value), "values in [0, 1]")


def _bytes(path: pathlib.Path, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise InputError(path, files.cause(error), "a file that can be read") from None
    if len(content) > most:
        raise InputError(path, "a file that is too large", f"{most} bytes at most")
    return content


def advance(own: Allocation, state: Sham, volume: int) -> Sham:
    """Returns the state at a volume, whose `value` is shown.

    Args:
      own: allocation of another kind than "real".
      state: state at an earlier volume, or `Sham()`.
      volume: number of the volume.
    """
    if own.kind != SHAM:
        return Sham(volume, 0.0, own.shown.get(volume, state.value))
    step = 1 if state.volume is None else volume - state.volume
    keep = 0.0 if state.volume is None else own.autocorrelation**step
    noise = float(np.random.default_rng((own.seed, abs(volume))).standard_normal())
    z = keep * state.z + math.sqrt(1 - keep**2) * noise
    if not own.values:
        return Sham(volume, z, min(max(0.5 + SPREAD * z, 0.0), 1.0))
    return Sham(volume, z, float(np.quantile(own.values, 0.5 * math.erfc(-z / math.sqrt(2)))))
