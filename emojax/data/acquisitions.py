"""Names of acquisitions, in which digits count as numbers, so that run-1 is run-01."""

import re

DIGITS = re.compile(r"([0-9]+)")


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Returns a key that sorts by the numbers in a name: run-2 before run-10."""
    parts = DIGITS.split(name)
    numbers = [number(part) for part in parts[1::2]]  # a longer one is larger
    parts[1::2] = numbers
    return tuple((len(part), part) if i % 2 else (-1, part) for i, part in enumerate(parts))


def number(text: str) -> str:
    """Returns a number without leading zeros, and any other text unchanged."""
    return (text.lstrip("0") or "0") if text.isascii() and text.isdecimal() else text


def canonical(name: str) -> str:
    """Returns a name without leading zeros, which is equal for the same acquisition."""
    return DIGITS.sub(lambda digits: number(digits[0]), name)
