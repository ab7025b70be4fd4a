"""The design of the simulated cohort: subjects, run lengths, and blocks of pictures."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from emojax.data.acquisitions import number
from emojax.errors import InputError
from emojax.sources import synthetic_responses as responses

ORDERS = ("shared", "independent")
KINDS = ("neutral", "negative")
CLASSES = {"A": ("rest", *KINDS), "B": KINDS}
START, CYCLE = 15.0, 40.0  # s: onset of the first block, and time from one block to the next
SMALLEST = (16, 16, 12)  # voxels; smaller brains have no interior

# Number of volumes of each run of each subject; design A has the subjects with two runs.
RUNS = (
    *((200, 200), (134,), (200, 200), (80,), (200, 200), (120, 80, 120), (200, 200), (120,)),
    *((200, 200), (80,), (200, 200), (80, 134, 80), (200, 200), (120,), (200, 200), (80,)),
    *((200, 200), (80, 120, 80), (200, 200), (120,), (200, 200), (80,)),
)


class Settings(NamedTuple):
    """The keys of `config.data.synthetic`."""

    seed: int = 0
    design: str = "A"  # or "B"
    subjects: int = 0  # number of subjects; 0: as in the paper
    volumes: int = 0  # maximum number of volumes per run; 0: as in the paper
    grid: tuple[int, int, int] = (64, 64, 44)  # voxels of the box of 192 x 192 x 132 mm
    signal: float = 1.0  # strength of the response
    order: str = "shared"  # of blocks: "shared" by all subjects, or "independent"
    null: bool = False  # whether to omit the response and keep everything else
    nonlinear: float = 0.0  # fraction of the class difference that a linear decoder cannot read
    shared: float = 1.0  # strength of the class difference that subjects share; 1: as in people


class Event(NamedTuple):
    """A block of pictures."""

    onset: float  # s
    duration: float  # s
    trial_type: str


class Scan(NamedTuple):
    """A run of the design."""

    subject: int  # index from 0
    run: int  # index from 0, within the subject
    volumes: int  # number of volumes

    @property
    def names(self) -> tuple[str, str]:
        """BIDS names of subject and run."""
        return f"{self.subject + 1:02d}", f"run-{self.run + 1:02d}"


def check(settings: Settings) -> Settings:
    """Checks the settings, and returns them with a grid of ints.

    Args:
      settings: settings of the simulation.

    Raises:
      InputError: a setting is out of range.
    """
    grid = tuple(settings.grid)
    most = sum(settings.design == "B" or len(runs) == 2 for runs in RUNS)
    rules = (
        ("seed", settings.seed >= 0, "a number >= 0"),
        ("design", settings.design in CLASSES, f"one of {', '.join(CLASSES)}"),
        (
            "subjects",
            settings.subjects == 0 or 2 <= settings.subjects <= most,
            f"0, or 2 to {most}",
        ),
        ("volumes", settings.volumes == 0 or settings.volumes >= 40, "0, or 40 or more"),
        (
            "grid",
            len(grid) == 3
            and all(n == int(n) >= low for n, low in zip(grid, SMALLEST, strict=False)),
            f"three numbers of voxels >= {SMALLEST}",
        ),
        ("signal", 0 <= settings.signal < 10, "a strength in [0, 10)"),
        ("order", settings.order in ORDERS, f"one of {', '.join(ORDERS)}"),
        ("nonlinear", 0 <= settings.nonlinear <= 1, "a part in [0, 1]"),
        ("shared", 0 <= settings.shared < 10, "a strength in [0, 10)"),
    )
    for name, fine, expected in rules:
        if not fine:
            raise InputError(f"data.synthetic.{name}", repr(getattr(settings, name)), expected)
    return settings._replace(grid=tuple(int(n) for n in grid))


def scans(settings: Settings) -> list[Scan]:
    """Returns all runs of the design."""
    subjects = [runs for runs in RUNS if settings.design == "B" or len(runs) == 2]
    return [
        Scan(s, r, min(volumes, settings.volumes or volumes))
        for s, runs in enumerate(subjects[: settings.subjects or None])
        for r, volumes in enumerate(runs)
    ]


def chosen(scans: list[Scan], subjects: Sequence[str], runs: Sequence[str]) -> list[Scan]:
    """Selects runs by subject and run; "1", "01" and "run-01" name the same run.

    Args:
      scans: runs of the design.
      subjects: names of subjects; all if empty.
      runs: names of runs; all if empty.

    Raises:
      InputError: a name does not exist, or no run is left.
    """
    for place, wanted in (("subjects", subjects), ("runs", runs)):
        have = {_plain(scan.names[place == "runs"]): scan.names[place == "runs"] for scan in scans}
        for value in wanted:
            if _plain(value) not in have:
                expected = f"some of {', '.join(sorted(have.values()))}"
                raise InputError(f"data.{place}", repr(value), expected)
        if wanted:
            keep = {_plain(value) for value in wanted}
            scans = [scan for scan in scans if _plain(scan.names[place == "runs"]) in keep]
    if not scans:
        raise InputError("data.runs", ", ".join(runs), "runs of the chosen subjects")
    return scans


def _plain(name: str) -> str:
    return number(name.removeprefix("run-"))


def keys(seed: int) -> dict[str, Key[Array, ""]]:
    """Returns an independent random key for each part of the cohort."""
    parts = ("order", "subjects", "runs", "maps", "classes", "pictures")
    keys = jax.random.split(jax.random.key(seed), len(parts))
    return dict(zip(parts, keys, strict=True))


def blocks(settings: Settings, scan: Scan) -> list[Event]:
    """Returns the blocks of a run: pairs of neutral and negative in random order, until its end.

    Args:
      settings: settings of the simulation.
      scan: the run.
    """
    onsets = np.arange(START, scan.volumes * responses.TR, CYCLE)
    key = jax.random.fold_in(keys(settings.seed)["order"], scan.run)
    if settings.order == "independent":
        key = jax.random.fold_in(key, scan.subject)
    first = _coins(key, -(-len(onsets) // 2)).tolist()
    kinds = [kind for f in first for kind in (f, 1 - f)][: len(onsets)]
    if settings.design == "B" and len(kinds) % 2:
        kinds[-1] = (scan.subject + scan.run) % 2  # balances the two runs with an odd block
    return [
        Event(float(onset), responses.BLOCK, KINDS[kind])
        for onset, kind in zip(onsets, kinds, strict=True)
    ]


@partial(jax.jit, static_argnames="count")
def _coins(key: Key[Array, ""], count: int) -> Int[Array, " count"]:
    """Draws zeros and ones; a longer vector starts with the same values as a shorter one."""
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count))
    return jax.vmap(jax.random.bernoulli)(keys).astype(int)


def stimuli(blocks: list[Event], num_volumes: int) -> responses.Stimuli:
    """Returns the stimuli in each step of FINE s.

    Args:
      blocks: blocks of the run.
      num_volumes: number of volumes of the run.
    """
    time = np.arange(int(num_volumes * responses.TR / responses.FINE)) * responses.FINE
    out = responses.Stimuli(*(np.full(len(time), -1, np.int32) for _ in range(3)))
    seen: dict[str, int] = dict.fromkeys(KINDS, 0)
    for block in blocks:
        here = (time >= block.onset) & (time < block.onset + block.duration)
        out.kind[here] = KINDS.index(block.trial_type)
        out.block[here] = seen[block.trial_type]
        out.picture[here] = (time[here] - block.onset) // responses.PICTURE
        seen[block.trial_type] += 1
    return out
