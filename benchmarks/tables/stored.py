"""Stored results of the benchmarks, read for the documentation.

A part of a file in benchmarks/results holds what one benchmark measured, and the device, versions
and date that it belongs to.
"""

import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"
OURS = "emojax"


class Part(NamedTuple):
    """One part of a file of results."""

    file: str
    name: str
    environment: Mapping[str, Any]
    results: Any

    @property
    def jax(self) -> str:
        """The release of jax, such as 0.12."""
        return release(self.environment["versions"]["jax"])

    @property
    def place(self) -> str:
        """Device, versions, settings and date, in words."""
        found = self.environment
        device = found["device"].removeprefix("CPU: ").replace(" 1 cores", " 1 core")
        words = [device, f"Python {found['python']}", f"jax {found['versions']['jax']}"]
        words += [f"`GLIBC_TUNABLES={found['malloc']}`"] if found.get("malloc") else []
        return ", ".join([*words, found["date"]])


class Stored:
    """The files of a folder of results, each read once."""

    def __init__(self, folder: pathlib.Path = RESULTS):
        self._folder = folder
        self._read: dict[str, dict[str, Part]] = {}

    def parts(self, file: str) -> dict[str, Part]:
        """Returns the parts of a file by name."""
        if file not in self._read:
            content = json.loads((self._folder / f"{file}.json").read_text())
            self._read[file] = {
                name: Part(file, name, own["environment"], own["results"])
                for name, own in content.items()
            }
        return self._read[file]

    def part(self, file: str, name: str) -> Part:
        """Returns one part of a file."""
        return self.parts(file)[name]

    def newest_first(self, file: str, start: str) -> list[Part]:
        """Returns the parts whose names begin with `start`, the newest release of jax first."""
        found = [part for name, part in self.parts(file).items() if name.startswith(start)]
        return sorted(found, key=lambda part: [int(n) for n in part.jax.split(".")], reverse=True)


def release(version: str) -> str:
    """Returns the first two numbers of a version."""
    return ".".join(version.split(".")[:2])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    first, rule, *rest = [f"| {' | '.join(line)} |" for line in lines]
    return [first, rule.replace(" ", ""), *rest]


def source(said: str, *parts: Part) -> list[str]:
    """Returns the line under a table: where, when and how its numbers were measured."""
    places = dict.fromkeys(part.place for part in parts)
    files = dict.fromkeys(f"`benchmarks/results/{part.file}.json`" for part in parts)
    words = [*places, *([said] if said else [])]
    return ["", f"*{'; '.join(words)} ({', '.join(files)})*"]


def spread(rounds: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """Returns in words how far single rounds lie from their medians.

    Args:
      rounds: the rounds of each measurement, by tool.
    """
    cells = [own for tool in rounds.values() for own in tool]
    counts = {len(own) for own in cells}
    if max(counts) == 1:
        return "one round"
    many = " to ".join(str(n) for n in dict.fromkeys((min(counts), max(counts))))
    widths = {tool: max(map(_width, own)) for tool, own in rounds.items() if own}
    widest = max(widths, key=lambda tool: widths[tool])
    text = f"medians of {many} rounds, each within {percent(widths[widest])} of its median"
    ours = next((tool for tool in widths if tool == OURS or tool.startswith(f"{OURS},")), None)
    if len(widths) == 1 or ours is None:
        return text
    if widest == ours:
        return f"{text} (widest: {widest})"
    return f"{text} (widest: {widest}; {ours}: {percent(widths[ours])})"


def _width(rounds: Sequence[float]) -> float:
    middle = statistics.median(rounds)
    return max(abs(own / middle - 1) for own in rounds)


def percent(share: float) -> str:
    """Returns a share as "4 %", rounded up."""
    return f"{math.ceil(100 * share - 1e-9)} %"


def significant(value: float, digits: int = 3) -> str:
    """Returns a positive number with that many significant digits and no exponent."""
    after = digits - 1 - math.floor(math.log10(value)) if value else 0
    return f"{round(value, after):,.{max(0, after)}f}"


def short(value: float, digits: int = 3) -> str:
    """Returns a number between -1 and 1 without the zero before its point."""
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def interval(found: Mapping[str, Any]) -> str:
    """Returns a mean with its 95 % interval."""
    low, high = found["ci95"]
    return f"{found['mean']:.3f} ({low:.3f} - {high:.3f})"
