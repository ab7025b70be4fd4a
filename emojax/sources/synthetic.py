"""The paper's cohort, simulated: the same design and size, made of a key instead of people.

What is realistic, with the figures that set it:

* Design: 20 s blocks at TR 2 s, pictures alternating with rest. A: 11 subjects, 2 runs of 200
  volumes, 50 % rest, 25 % neutral, 25 % negative. B: 22 subjects, 39 runs, 1524 neutral and 1524
  negative volumes. How long the runs of the other 11 subjects were is not published: here 80 to 134
  volumes, which give that sum. Events start at 15 s, so that with a lag of 5 s blocks fall on
  whole volumes.
* Responses: 35 dimensions that all subjects share (Haxby et al., Neuron 72, 2011), each subject
  mixing them by an orthogonal matrix of its own; changes of 1 to 3 % of the mean in the most active
  voxels. A block and every picture have responses of their own, and subjects fluctuate by
  themselves in the same dimensions.
* Haemodynamics: the canonical response of SPM (Friston et al., NeuroImage 7, 1998).
* Noise: temporal SNR of about 60 in the brain, where it levels off at 3 T and 3 mm (Triantafyllou
  et al., NeuroImage 26, 2005; Murphy et al., NeuroImage 34, 2007, work with 50); AR(1) with
  coefficients of 0.35 +- 0.08 that vary smoothly in space (Woolrich et al., NeuroImage 14, 2001,
  show that they do); slow drift; networks; a global pulse; movement whose rest after realignment
  is seen at edges, with jerks in 1 % of volumes that darken the volume (Power et al., NeuroImage
  59, 2012). Magnitudes are Rician, air is dark.

What is not: brains are ellipsoids without folds, so that noise and topography do not follow a
cortex; the response is linear and the same in all places, subjects and sessions, without
habituation; regions and their strengths are round guesses; no respiration or heartbeat of its own
frequency, no slice timing, no distortion; groups (patients, controls) do not differ. The strength of
signal 1 is set so that accuracies resemble the paper's, it was not measured: a figure from this
cohort says that a pipeline works, never how well real emotions are decoded.
"""

import hashlib
import json
import pathlib
from typing import NamedTuple

import jax
import numpy as np
import rich.progress
from jaxtyping import Array, Float, Key

from emojax import cohort
from emojax.cohort import Cohort, Run
from emojax.errors import InputError
from emojax.sources import _simulation as simulation
from emojax.sources import events as tables
from emojax.sources import names, part
from emojax.sources.store import Store, default

VERSION = 1  # of the values: a change of the simulation counts it up
ORDERS = ("shared", "independent")
KINDS = ("neutral", "negative")
CLASSES = {"A": ("rest", *KINDS), "B": KINDS}
START, CYCLE = 15.0, 40.0  # s: first picture block, and from one to the next
SMALLEST = (12, 12, 10)  # voxels; smaller brains have no inside

# Volumes of each run of each subject; of A the subjects with two runs.
RUNS = (
    ((200, 200), (134,), (200, 200), (80,), (200, 200), (120, 80, 120), (200, 200), (120,))
    + ((200, 200), (80,), (200, 200), (80, 134, 80), (200, 200), (120,), (200, 200), (80,))
    + ((200, 200), (80, 120, 80), (200, 200), (120,), (200, 200), (80,))
)


class Settings(NamedTuple):
    """What is simulated; the keys of `config.data.synthetic`."""

    seed: int = 0
    design: str = "A"  # or "B"
    subjects: int = 0  # 0 is the paper's number
    volumes: int = 0  # no run is longer; 0 is the paper's lengths
    grid: tuple[int, int, int] = (64, 64, 44)  # voxels of the box of 192 x 192 x 132 mm
    signal: float = 1.0  # strength of the response
    order: str = "shared"  # of blocks: "shared" by all subjects, or "independent"
    null: bool = False  # no response, everything else the same


class Event(NamedTuple):
    """A block of pictures."""

    onset: float  # s
    duration: float  # s
    trial_type: str


class Scan(NamedTuple):
    """Which run this is, counted from 0, and its length."""

    subject: int
    run: int
    volumes: int

    @property
    def names(self) -> tuple[str, str]:
        """Of subject and run, as in BIDS."""
        return f"{self.subject + 1:02d}", f"run-{self.run + 1:02d}"


def load(config) -> Cohort:
    """The cohort of `config.data.synthetic`, in the store of `config.data`.

    Args:
      config: with `data`, or that part alone.

    Raises:
      InputError: a setting is out of range, or names subjects or runs that there are not.
    """
    data = part(config)
    return simulate(
        settings(data),
        Store(default(data)),
        tables.timing(data),
        subjects=names(data.subjects),
        runs=names(data.runs),
        progress=data.progress,
    )


def settings(config) -> Settings:
    """The checked settings of `config.data.synthetic`."""
    values = part(config).synthetic
    return check(Settings(**{name: values[name] for name in Settings._fields}))


def simulate(
    settings: Settings,
    store: Store,
    timing: tables.Timing = tables.Timing(),
    *,
    subjects: tuple[str, ...] = (),
    runs: tuple[str, ...] = (),
    progress: bool = False,
) -> Cohort:
    """Simulates a cohort into a store, or opens what is there; memory holds one run at a time.

    Args:
      settings: what is simulated, e.g. Settings(subjects=6, grid=(32, 32, 22)).
      store: where the volumes go, int16.
      timing: how blocks become labels.
      subjects, runs: names of those to simulate, e.g. ("01", "02"); () is all.
      progress: draw a bar.

    Raises:
      InputError: a setting is out of range, or names subjects or runs that there are not.
    """
    scans = _chosen(_scans(check(settings)), subjects, runs)
    labelling = tables.Labelling(
        CLASSES[settings.design],
        {kind: CLASSES[settings.design].index(kind) for kind in KINDS},
        baseline=0 if settings.design == "A" else -1,
    )
    made, labels = [], []
    for scan in rich.progress.track(scans, "simulating runs", transient=True, disable=not progress):
        made.append(_run(settings, scan, store))
        blocks = _blocks(settings, scan)
        place = pathlib.Path(next(iter(made[-1].hashes)))
        events = tables.from_columns(place, *zip(*blocks, strict=True))
        labels.append(tables.assign(events, labelling, timing, scan.volumes, simulation.TR))
    return cohort.build(made, labelling.classes, labels)


def events(config, subject: str, run: str) -> list[Event]:
    """The true blocks of a run of the cohort that `load` gives, in order; rest has no event.

    Args:
      config: as of `load`.
      subject, run: names as in the cohort.

    Raises:
      InputError: there is no such run.
    """
    checked = settings(config)
    (scan,) = _chosen(_scans(checked), (subject,), (run,))
    return _blocks(checked, scan)


def check(settings: Settings) -> Settings:
    """The settings with a grid of ints.

    Raises:
      InputError: one is out of range.
    """
    grid = tuple(settings.grid)
    most = sum(settings.design == "B" or len(runs) == 2 for runs in RUNS)
    rules = (
        ("seed", settings.seed >= 0, "a number >= 0"),
        ("design", settings.design in CLASSES, f"one of {', '.join(CLASSES)}"),
        ("subjects", settings.subjects == 0 or 2 <= settings.subjects <= most, f"0, or 2 to {most}"),
        ("volumes", settings.volumes == 0 or settings.volumes >= 40, "0, or 40 or more"),
        (
            "grid",
            len(grid) == 3 and all(n == int(n) >= low for n, low in zip(grid, SMALLEST, strict=False)),
            f"three numbers of voxels >= {SMALLEST}",
        ),
        ("signal", 0 <= settings.signal < 10, "a strength in [0, 10)"),
        ("order", settings.order in ORDERS, f"one of {', '.join(ORDERS)}"),
    )
    for name, fine, expected in rules:
        if not fine:
            raise InputError(f"data.synthetic.{name}", repr(getattr(settings, name)), expected)
    return settings._replace(grid=tuple(int(n) for n in grid))


def _scans(settings: Settings) -> list[Scan]:
    """All runs of the design."""
    subjects = [runs for runs in RUNS if settings.design == "B" or len(runs) == 2]
    return [
        Scan(s, r, min(volumes, settings.volumes or volumes))
        for s, runs in enumerate(subjects[: settings.subjects or None])
        for r, volumes in enumerate(runs)
    ]


def _chosen(scans: list[Scan], subjects, runs) -> list[Scan]:
    """Those that the filters name; "1", "01" and "run-01" are the same run."""
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
    return name.removeprefix("run-").lstrip("0")


def _keys(settings: Settings) -> dict[str, Key[Array, ""]]:
    """One independent key for each part of the cohort."""
    parts = ("order", "subjects", "maps", "classes", "pictures")
    keys = jax.random.split(jax.random.key(settings.seed), len(parts))
    return dict(zip(parts, keys, strict=True))


def _blocks(settings: Settings, scan: Scan) -> list[Event]:
    """Pairs of a neutral and a negative block in random order, as many as the run has time for."""
    onsets = np.arange(START, scan.volumes * simulation.TR, CYCLE)
    key = jax.random.fold_in(_keys(settings)["order"], scan.run)
    if settings.order == "independent":
        key = jax.random.fold_in(key, scan.subject)
    first = simulation.coins(key, -(-len(onsets) // 2)).tolist()
    kinds = [kind for f in first for kind in (f, 1 - f)][: len(onsets)]
    if settings.design == "B" and len(kinds) % 2:
        kinds[-1] = scan.subject // 8  # the two runs that stop early: one of each class
    return [
        Event(float(onset), simulation.BLOCK, KINDS[kind])
        for onset, kind in zip(onsets, kinds, strict=True)
    ]


def _stimuli(blocks: list[Event], num_volumes: int) -> simulation.Stimuli:
    """The blocks step by step."""
    time = np.arange(int(num_volumes * simulation.TR / simulation.FINE)) * simulation.FINE
    out = simulation.Stimuli(*(np.full(len(time), -1, np.int32) for _ in range(3)))
    seen = dict.fromkeys(KINDS, 0)
    for block in blocks:
        here = (time >= block.onset) & (time < block.onset + block.duration)
        out.kind[here] = KINDS.index(block.trial_type)
        out.block[here] = seen[block.trial_type]
        out.picture[here] = (time[here] - block.onset) // simulation.PICTURE
        seen[block.trial_type] += 1
    return out


def _run(settings: Settings, scan: Scan, store: Store) -> Run:
    """One run, computed into the store unless it is there."""
    keys, grid = _keys(settings), settings.grid
    key_subject = jax.random.fold_in(keys["subjects"], scan.subject)
    key_anatomy, key_runs = jax.random.split(key_subject)
    names = ("motion", "courses", "noise", "air")
    key_run = jax.random.fold_in(key_runs, scan.run)
    own = dict(zip(names, jax.random.split(key_run, len(names)), strict=True))
    moves = simulation.motion(own["motion"], scan.volumes)

    def fill(out):
        where = simulation.near_brain(grid)
        size = np.divide(simulation.FIELD, grid)
        places = simulation.places(grid)[where]
        subject = simulation.subject(key_anatomy, keys["maps"], places, size)
        key_pictures = jax.random.fold_in(keys["pictures"], scan.run)
        stimuli = _stimuli(_blocks(settings, scan), scan.volumes)
        activity = simulation.responses(keys["classes"], key_pictures, stimuli)
        strength = 0.0 if settings.null else settings.signal
        task = strength * simulation.haemodynamic(activity, scan.volumes)
        courses = simulation.courses(own["courses"], task, moves)
        inside = np.asarray(simulation.series(own["noise"], subject, courses))
        for t, values in enumerate(inside):
            volume = simulation.volume(own["air"], t, values, where, int(np.prod(grid)))
            out[t] = volume.reshape(grid)

    subject, run = scan.names
    key = json.dumps(["synthetic", VERSION, *settings._replace(subjects=0), *scan])
    frames = store.derived(key, (scan.volumes, *grid), np.int16, fill)
    return Run(
        subject,
        run,
        frames,
        tr=simulation.TR,
        affine=simulation.affine(grid),
        motion=np.asarray(moves),
        hashes={f"synthetic sub-{subject} {run}": hashlib.sha256(key.encode()).hexdigest()},
    )
