"""Settings of causal correction, the text of `data.online`. This module does not import jax."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from emojax.errors import InputError

EXPECTED = (
    "steps joined by +: gain, drift:1, motion, one of first:20, cumulative and ema:30, and zscore "
    "or zscore:20, such as gain+ema:30 ('' for none)"
)
PRIOR = "online "
OFF = "--config.data.online=''"
BASELINES = ("first", "cumulative", "ema")

_NUMBER = ":[1-9][0-9]{0,5}"
_STEPS = {  # name -> pattern of what may follow it, in order of application
    "gain": "",
    "drift": ":[1-5]",
    "motion": "",
    "first": _NUMBER,
    "cumulative": "",
    "ema": _NUMBER,
    "zscore": f"({_NUMBER})?",
}


class Regression(NamedTuple):
    """A recursive regression, which leaves the residual."""

    degree: int = 0  # of the polynomial in time; 0 for the mean alone
    motion: bool = False


class Running(NamedTuple):
    """A running mean that is subtracted, and optionally a running sd to divide by."""

    kind: str  # one of BASELINES
    size: int = 0  # volumes: number of first ones, or half-life
    divide: bool = False  # whether to divide by the sd


class Correction(NamedTuple):
    """A parsed correction; static."""

    text: str  # the steps in order
    gain: bool
    steps: tuple[Regression | Running, ...]  # steps with a memory for each voxel

    @property
    def needs_motion(self) -> bool:
        """True if each volume needs six realignment parameters."""
        return any(isinstance(own, Regression) and own.motion for own in self.steps)


def parse(text: str) -> Correction:
    """Parses a correction; "" is none.

    Raises:
      ValueError: a step or size is unknown or occurs twice, or there is a second baseline.
    """
    sizes: dict[str, str] = {}
    for part in text.split("+") if text else ():
        name = part.partition(":")[0]
        size = part.removeprefix(name)
        if name in sizes or not re.fullmatch(_STEPS.get(name, "(?!)"), size):
            raise ValueError(f"want {EXPECTED}; got {part!r} in {text!r}")
        sizes[name] = size
    baselines = [name for name in BASELINES if name in sizes]
    if len(baselines) > 1:
        raise ValueError(f"want {EXPECTED}; got {' and '.join(baselines)}")
    number = {name: int(size[1:] or 0) for name, size in sizes.items()}
    steps: list[Regression | Running] = []
    if "drift" in number or "motion" in number:
        steps.append(Regression(number.get("drift", 0), "motion" in number))
    steps += [Running(name, number[name]) for name in baselines]
    if "zscore" in number:
        size = number["zscore"]
        steps.append(Running("first" if size else "cumulative", size, divide=True))
    ordered = "+".join(name + sizes[name] for name in _STEPS if name in sizes)
    return Correction(ordered, "gain" in sizes, tuple(steps))


def prior_of(correction: Correction) -> str:
    """Returns the name under which a correction with a memory is declared as a prior."""
    return f"{PRIOR}{correction.text}"


def is_prior(step: Any) -> bool:
    """Returns whether a prior is a causal correction."""
    return str(step).startswith(PRIOR)


def is_known(text: Any) -> bool:
    """Returns whether a value is a valid text of a correction, or ""."""
    try:
        return isinstance(text, str) and bool(parse(text))
    except ValueError:
        return False


def check(text: str, asked: Mapping[str, Any]) -> None:
    """Refuses an unknown correction, or one combined with cleaning of whole runs.

    Smoothing, which comes first, and scrubbing, which only removes labels, may be combined with it.

    Args:
      text: the correction; "" for none.
      asked: keys of cleaning that are in use -> their values.

    Raises:
      InputError: the correction is unknown, or is combined with cleaning.
    """
    if not is_known(text):
        raise InputError("data.online", repr(text), EXPECTED)
    whole = [key for key in asked if key not in ("smooth_mm", "scrub_fd_mm")]
    if text and whole:
        found = f"{text!r} beside {', '.join(f'data.{key}={asked[key]}' for key in whole)}"
        expected = (
            f"one of them: {OFF} leaves the cleaning of whole runs, which a decoder cannot repeat"
        )
        raise InputError("data.online", found, expected)
