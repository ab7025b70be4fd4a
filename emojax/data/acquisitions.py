"""Names of acquisitions: numbers in them count as numbers, so that run-1 is run-01."""

import re

DIGITS = re.compile(r"(\d+)")


def natural(name: str) -> tuple:
    """Returns a key that sorts by the numbers in a name: run-2 before run-10."""
    parts = DIGITS.split(name)
    return tuple((int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts))


def canonical(name: str) -> str:
    """Returns the name without leading zeros, equal for the same acquisition of all subjects."""
    return DIGITS.sub(lambda number: str(int(number[0])), name)
