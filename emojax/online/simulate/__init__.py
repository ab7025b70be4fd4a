"""A simulated scanner, which writes the files of a run in real time, with realistic faults.

    simulate("RUN.nii.gz", "incoming", tr=2.0, speed=50, form="mosaic", faults=("lost@7", "half"))

The times are those of `faults.plan`, by a clock without drift. Files are prepared ahead of time, so
that little is left to do between two volumes.
"""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import math
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from emojax.errors import InputError
from emojax.online.simulate import faults as plans
from emojax.online.simulate import writers
from emojax.online.simulate.disk import Disk, line
from emojax.online.simulate.faults import Action

__all__ = ["Summary", "simulate"]
AHEAD = 256_000_000  # bytes of files that are prepared ahead of time
JOB = 4096  # bytes of overhead of each of them
LEAST = 16  # least number of volumes that are prepared ahead, however large
LARGEST = 999_999  # largest number of a volume
EXAMPLE = "as vol_{n:05}.nii, and for slices {k:03}, too"


class Summary(NamedTuple):
    """The outcome of a simulation."""

    volumes: int
    seconds: float  # from the start to the last file
    late_ms: tuple[float, float]  # delay after the schedule: median and 99th percentile


def simulate(
    run: str | os.PathLike,
    folder: str | os.PathLike,
    *,
    tr: float | None = None,
    speed: float = 1.0,
    form: str = "nifti",
    faults: Sequence[str] = (),
    seed: int = 0,
    first: int = 1,
    keep: int | None = None,
    log: str | os.PathLike | None = None,
    name: str = "",
    atomic: bool = False,
    clean: bool = False,
    repeat: int = 1,
    ready: Callable[[int, float], None] = lambda count, step: None,
) -> Summary:
    """Writes a run as a scanner does.

    Args:
      run: a 4-D NIfTI image.
      folder: destination of the files; it is created if its parent exists.
      tr: TR, s; None for that of the run.
      speed: factor by which to run faster than the scanner.
      form: file format, one of `writers.NAMES`.
      faults: see `faults.parse`.
      seed: seed of the faults.
      first: number of the first volume.
      keep: number of volumes whose files are kept; older ones are removed. None keeps all.
      log: file for JSON lines with the time at which each volume was closed.
      name: pattern of the file names, with {n} for the volume and {k} for the slice.
      atomic: whether to write under a temporary name and rename.
      clean: whether to remove all written files at the end.
      repeat: number of times that the run is written, with continued numbers.
      ready: function called before the first volume, with the number of volumes and the s between
        them.

    Raises:
      InputError: a setting cannot be used; nothing has been written then.
    """
    source = writers.read(run)
    _check(form, first, repeat=repeat, keep=keep, volumes=source.values.shape[3] * max(repeat, 1))
    tr = _positive("tr", source.tr if tr is None else tr)
    step, count = tr / _positive("speed", speed), source.values.shape[3] * repeat
    actions = plans.plan(count, faults, seed, first)
    named = functools.partial(_names, name or writers.NAMES[form], source.values.shape[2], form)
    _check_names(named, form)
    write = writers.writer(form, source, tr, run)
    size = sum(map(len, write(source.values[..., 0], first, False)))
    depth = max(AHEAD // (size + JOB), LEAST)
    encode = _encoder(source, write, form, seed, depth)
    folder = _open(pathlib.Path(folder), (n for action in actions for n in named(action)))
    with (
        open(log or os.devnull, "w", encoding="utf-8") as lines,
        Disk(folder, atomic=atomic, keep=keep, clean=clean) as disk,
        _ahead(actions, encode, depth) as files,
    ):
        ready(count, step)
        late, start, clock = [], time.time(), time.monotonic()
        for action, contents in zip(actions, files, strict=True):
            due = action.at * step
            time.sleep(max(clock + due - time.monotonic(), 0))
            names = named(action)
            if action.fault != "lost":
                disk.do(action, names, contents)
            if action.is_last:
                lines.write(line(action, names[-1], start + due))
                lines.flush()
            late.append(time.monotonic() - clock - due)
    half, most = np.percentile(np.multiply(late, 1000), [50, 99])
    return Summary(count, time.monotonic() - clock, (float(half), float(most)))


def _check(form: str, first: int, *, volumes: int, **counts: int | None) -> None:
    if form not in writers.NAMES:
        raise InputError("as", repr(form), f"one of {', '.join(writers.NAMES)}")
    for key, value in counts.items():
        if value is not None and not 1 <= value <= LARGEST:
            raise InputError(key, value, f"a number from 1 to {LARGEST}")
    least = 0 if form.startswith("nifti") else 1  # DICOM counts from 1
    if not least <= first <= LARGEST + 1 - volumes:
        raise InputError("first", first, f"a number from {least} to {LARGEST + 1 - volumes}")


def _positive(key: str, value: float | None) -> float:
    if value is None or not 0 < value < math.inf:
        found = "none in the run" if value is None else value
        raise InputError(key, found, f"a number above 0, e.g. --{key}=2")
    return value


def _names(pattern: str, slices: int, form: str, action: Action) -> list[str]:
    """Returns the names of the files of an action's volume."""
    count = slices if form == "slices" else 1
    return [action.prefix + pattern.format(n=action.volume, k=k + 1) for k in range(count)]


def _check_names(named: Callable[[Action], list[str]], form: str) -> None:
    try:
        names = [name for number in (1, 2) for name in named(Action(0.0, number, 0))]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError("pattern", f"{type(error).__name__}: {error}", EXAMPLE) from None
    end = writers.NAMES[form].partition(".")[2] if form.startswith("nifti") else ""
    if len(set(names)) < len(names) or any(os.path.basename(name) != name for name in names):
        raise InputError("pattern", names[0], f"{EXAMPLE}; names that differ, without a folder")
    if not names[0].endswith(end):
        raise InputError("pattern", names[0], f"names that end in .{end}")


def _open(folder: pathlib.Path, names: Iterable[str]) -> pathlib.Path:
    """Returns a folder that the names can be written to, creating it if necessary."""
    try:
        folder.mkdir(exist_ok=True)
        there = set(os.listdir(folder))
    except OSError as error:
        raise InputError(folder, error.strerror, "a folder, or a name for one") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(folder, "no permission to write", "a folder for the files of the scanner")
    if taken := there and there.intersection(names):
        found = f"{len(taken)} files that would be written again, such as {min(taken)}"
        raise InputError(folder, found, "an empty folder, or another --first")
    return folder


def _encoder(
    source: writers.Run, write: writers.Writer, form: str, seed: int, depth: int
) -> Callable[[Action], writers.Files]:
    """Returns a function from an action to its files, with a cache."""
    has_numbers = not form.startswith("nifti")  # files contain their numbers, and so all differ

    @functools.lru_cache(LEAST if has_numbers else depth)
    def content(action: Action) -> writers.Files:
        return write(writers.image(source, action, seed), action.volume, action.fault == "series")

    def encode(action: Action) -> writers.Files:
        if action.fault == "lost":
            return []
        fault = action.fault if action.fault in writers.CHANGES else ""
        number = action.volume if has_numbers else 0
        again = action.source % source.values.shape[3]
        return content(Action(0.0, number, again, fault, action.gain))

    return encode


@contextlib.contextmanager
def _ahead(
    actions: Sequence[Action], encode: Callable[[Action], writers.Files], depth: int
) -> Iterator[Iterator[writers.Files]]:
    """Makes the files of actions in another thread, the first ones before the block begins."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        jobs = (pool.submit(encode, action) for action in actions)
        waiting = collections.deque(itertools.islice(jobs, depth))

        def results() -> Iterator[writers.Files]:
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(itertools.islice(jobs, 1))

        try:
            concurrent.futures.wait(waiting)
            yield results()
        finally:
            pool.shutdown(cancel_futures=True)
