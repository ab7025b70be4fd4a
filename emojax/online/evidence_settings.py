"""Settings of the evidence, and their parser."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from emojax.data.events import Timing
from emojax.errors import InputError

BLOCK, HRF, EMA = "block", "hrf", "ema"
HELP = "block, hrf:4-12, ema:3 or sprt:.05, then options such as block,delay=5,rho=.5"


class Settings(NamedTuple):
    """Settings of the evidence."""

    kind: str = BLOCK
    delay: float = Timing().hrf_delay_s  # s, from an event to its block of volumes
    part: tuple[float, float] = (4.0, 12.0)  # s after an onset, for "hrf"
    half_life: float = 3.0  # volumes, for "ema"
    error: tuple[float, ...] = ()  # of a sequential test: one for all classes, or one for each
    least: int = 3  # volumes in a window before a test may decide
    last: int = 10  # volumes of the sliding window, used without events
    rho: float = 0.5  # correlation of two volumes of a window
    limit: float = 3.0  # nats, largest log-odds of a volume
    base: tuple[float, ...] = ()  # rates of the classes in training; () for equal rates
    marked: bool = False  # whether marked volumes count; their p is often confidently wrong


def parse(text: str, num_classes: int, delay_s: float | None = None) -> Settings:
    """Returns settings from text.

    Args:
      text: "block", "hrf:4-12", "ema:3" or "sprt:.05"; fields of `Settings` may follow, such as
        "block,rho=.3,marked=yes" or "hrf:4-12,error=.1". Several numbers are joined by "/".
      num_classes: number of classes, k.
      delay_s: delay from events to labels in training, s; None for the default.

    Raises:
      InputError: the text cannot be read, or a value is out of range.
    """
    name, *options = (part.strip() for part in text.split(","))
    own = Settings() if delay_s is None else Settings(delay=delay_s)
    try:
        own = _of_kind(own, *name.partition(":")[::2])
        for option in options:
            key, _, value = option.partition("=")
            own = own._replace(**{key: READERS[key](value)})
    except (KeyError, ValueError):
        raise InputError("evidence", repr(text), HELP) from None
    for key, (right, expected) in _rules(own, num_classes).items():
        if not right:
            raise InputError(f"evidence {text!r}", f"{key} {getattr(own, key)}", expected)
    return own


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split("/"))


def _of_kind(own: Settings, name: str, value: str) -> Settings:
    if name == HRF and value:
        start, stop = value.split("-")
        return own._replace(kind=HRF, part=(float(start), float(stop)))
    if name == EMA:
        return own._replace(kind=EMA, half_life=float(value or own.half_life), rho=1.0)
    if name == "sprt":
        return own._replace(error=_numbers(value or ".05"))
    return {BLOCK: own, HRF: own._replace(kind=HRF)}[name if not value else ""]


READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("delay", "rho", "limit"), float),
    **dict.fromkeys(("least", "last"), int),
    **dict.fromkeys(("error", "base"), _numbers),
    "marked": {"yes": True, "no": False}.__getitem__,
}


def _rules(own: Settings, k: int) -> dict[str, tuple[bool, str]]:
    """Returns field -> (whether its value is valid, its valid values)."""
    start, stop = own.part
    sums = not own.base or (len(own.base) == k and abs(sum(own.base) - 1) < 1e-3)
    tests = not own.error or (own.kind != EMA and len(own.error) in (1, k))
    return {
        "delay": (math.isfinite(own.delay), "seconds"),
        "part": (math.isfinite(stop) and start < stop, "two times in s, such as hrf:4-12"),
        "half_life": (0 < own.half_life < math.inf, "a number of volumes > 0"),
        "error": (
            tests and all(0 < rate < 0.5 for rate in own.error),
            f"a rate in (0, .5), or {k} of them joined by /; and no ema",
        ),
        "least": (own.least >= 1, "a number of volumes >= 1"),
        "last": (own.last >= 1, "a number of volumes >= 1"),
        "rho": (
            0 <= own.rho <= 1 and (own.kind != EMA or own.rho == 1),
            "a correlation in [0, 1]; of ema none",
        ),
        "limit": (0 < own.limit < math.inf, "a number > 0"),
        "base": (
            sums and all(0 < rate < 1 for rate in own.base),
            f"{k} rates in (0, 1) whose sum is 1, joined by /",
        ),
    }
