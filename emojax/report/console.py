"""Output to the terminal: tables that fit, times, progress, and one line of JSON per epoch."""

import contextlib
import csv
import importlib.metadata
import json
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import jax
import rich.console
import rich.progress

import emojax
from emojax import files
from emojax.data import losses
from emojax.data.cohort import Cohort
from emojax.report import floors, layout, permutations, probabilities, tables, texts
from emojax.report.outcomes import CURVES
from emojax.report.plain import plain
from emojax.report.schema import Result

VERSIONS = ("jax", "flax", "optax", "numpy", "scikit-learn", "xgboost-cpu", "xgboost")
VERSIONS += ("nibabel", "nilearn", "pandas", "scipy")
COLUMNS = (  # of the first table, as the terminal shows it
    *("", "balanced accuracy", "95 % interval", "network minus it", "p"),
    *("adds to its linear path", "protocol"),
    *("epoch kept", "training accuracy", "validation accuracy"),
)
MOST_RUNS = 24  # printed; counts.csv lists all
LONGEST = 65536  # bytes, more than any line of metrics.jsonl
SECONDS = 30.0  # between log lines if the output is not a terminal


class Literally(TypedDict):
    """The options of `rich` that decide whether text is printed literally."""

    markup: bool
    emoji: bool
    highlight: bool


LITERAL: Literally = {"markup": False, "emoji": False, "highlight": False}  # for names of a study


def make(quiet: bool = False) -> rich.console.Console:
    """Returns the console of a run, which prints names literally, without markup or emoji codes.

    Args:
      quiet: whether to print nothing, for all processes but the first.
    """
    return rich.console.Console(soft_wrap=True, quiet=quiet, **LITERAL)


@contextlib.contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the seconds that the block takes to `seconds[stage]`, rounded to ms."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - start, 3)


@contextlib.contextmanager
def bar(
    console: rich.console.Console, title: str, total: int, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Draws a progress bar if `shown` and on a terminal; yields a function tick(number done)."""
    with _bar(console, shown) as drawn:
        task = drawn.add_task(title, total=total, said="")
        yield lambda done: drawn.advance(task, done)


def _bar(console, shown: bool) -> rich.progress.Progress:
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.fields[said]}", markup=False),
    )
    off = not (shown and console.is_terminal)
    return rich.progress.Progress(*columns, console=console, transient=True, disable=off)


def duration(seconds: float) -> str:
    """Returns a time as text, in s, min or h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def device() -> str:
    """Returns the kind and number of devices, and the backend."""
    return (
        f"{jax.devices()[0].device_kind}, {jax.device_count()} device(s), {jax.default_backend()}"
    )


def versions() -> dict[str, str]:
    """Returns the versions of Python, emojax and the numerical packages that are installed."""
    found = {"python": sys.version.split()[0], "emojax": emojax.__version__}
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def print_rows(
    console: rich.console.Console, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Prints a table; no cell is ever cut off."""
    head, body = layout.lay_out(header, rows, console.width)
    for lines, style in ((head, "bold"), (body, None)):
        for line in lines:
            console.print(line, style=style, soft_wrap=True, **LITERAL)


def print_table(result: Result, console: rich.console.Console) -> None:
    """Prints the main columns of the first table, the headline, and remarks on both."""
    metrics = result.metrics
    table = tables.make(metrics)[0]
    keep = [i for i, name in enumerate(table.header) if name in COLUMNS]
    rows = [[row[i] for i in keep] for row in table.rows]
    print_rows(console, [table.header[i] for i in keep], rows)
    by_group = tables.groups(metrics)
    if by_group.rows:
        console.print(f"\n{layout.clean(by_group.title)}", **LITERAL)
        print_rows(console, by_group.header, by_group.rows)
    said = (permutations.corrected(metrics), texts.headline(metrics))
    said += (floors.line(metrics), permutations.line(metrics), probabilities.line(metrics))
    said += (texts.unconverged(metrics), texts.audit(metrics))
    for text in filter(None, said):
        console.print(layout.clean(text), **LITERAL)


def show_counts(console: rich.console.Console, cohort: Cohort) -> None:
    """Prints the volumes of each class in each run, the totals, and the events that were lost."""
    rows = cohort.counts()
    shown = rows if len(rows) <= MOST_RUNS else rows[: MOST_RUNS - 1]
    cells = [[str(value) for value in row.values()] for row in shown]
    if len(rows) > len(shown):
        left_out = [f"... {len(rows) - len(shown)} more", "counts.csv"]
        cells.append([*left_out, *[""] * (len(rows[0]) - 2)])
    totals = [str(sum(row[column] for row in rows)) for column in list(rows[0])[2:]]
    whole = [_count(len(cohort.subjects), "subject"), _count(len(rows), "run")]
    print_rows(console, list(rows[0]), [*cells, [*whole, *totals]])
    shapes = sorted({run.frames.shape[1:] for run in cohort.runs})
    sizes = [" x ".join(map(str, shape)) for shape in (shapes[0], shapes[-1])]
    about = ["volumes of " + " to ".join(dict.fromkeys(sizes)) + " voxels"]
    if cohort.tr is not None:
        about.append(f"TR {cohort.tr:g} s")
    for prior in cohort.prior:
        saw = "all volumes and their labels" if prior.labels else "all volumes"
        about.append(f"applied before: {prior.step} (saw {saw})")
    console.print(layout.clean(", ".join(about)), **LITERAL)
    if cohort.lost:
        print_rows(console, *losses.table(cohort.lost, cohort.classes))
    for text in (*losses.remarks(cohort.lost), *cohort.notes):
        console.print(layout.clean(text), **LITERAL)


def write_counts(folder: pathlib.Path, cohort: Cohort) -> None:
    """Writes counts.csv, one row per run, and events.csv, the events that were used and lost."""
    _write_rows(folder / "counts.csv", cohort.counts())
    if cohort.lost:
        _write_rows(folder / "events.csv", [loss._asdict() for loss in cohort.lost])


def _write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with (
        files.atomic_write(path) as partial,
        open(partial, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


class TrainingLog:
    """A log of finished epochs: lines of metrics.jsonl, and a progress bar or log lines.

        with TrainingLog(folder / "metrics.jsonl", console, "training", total_epochs) as log:
            log.advance(epochs_done_before)
            log.epoch("nested", "01", 1, {"loss": 1.1, "accuracy": 0.4})

    The file is appended to. Epochs that a resumed run trains again appear twice; the last line of
    an epoch counts.
    """

    def __init__(
        self,
        path: pathlib.Path,
        console: rich.console.Console,
        title: str,
        total_epochs: int,
        progress: bool = True,
        quiet: bool = False,
    ):
        """Stores the settings; entering the context opens the file and starts the bar.

        Args:
          path: file that gets one line of JSON per epoch.
          console: console that shows the bar or the log lines.
          title: title of the bar.
          total_epochs: number of epochs of all trainings together.
          progress: whether to show the bar or log lines.
          quiet: whether to write nothing at all, for all processes but the first.
        """
        self._path, self._console, self._title = path, console, title
        self._total, self._quiet = total_epochs, quiet
        self._bar = _bar(console, progress and not quiet)
        self._lines = progress and not quiet and not console.is_terminal
        self._waiting: dict[tuple[str, str], tuple[int, str]] = {}  # last epoch of open trainings
        self._done = self._trained = 0
        self._file: Any = None

    def __enter__(self) -> "TrainingLog":
        if not self._quiet:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _drop_partial_line(self._path)
            self._file = open(self._path, "a", encoding="utf-8")
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=self._total, said="")
        self._start = self._printed = time.monotonic()
        return self

    def __exit__(self, *error) -> None:
        for _, line in self._waiting.values():
            self._print(line)
        self._waiting.clear()
        self._bar.stop()
        if self._file is not None:
            self._file.close()

    def epoch(self, training: str, fold: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Records one finished epoch of one fold.

        Args:
          training: name of the arm.
          fold: name of the fold.
          epoch: number of the epoch, counted from 1.
          metrics: any of "train_loss", "train_accuracy", "loss", "accuracy", "rate".
        """
        values = {name: plain(metrics.get(name)) for name in CURVES}
        if self._file is not None:
            line = {"training": training, "fold": fold, "epoch": int(epoch)} | values
            self._file.write(json.dumps(line, allow_nan=False) + "\n")
            self._file.flush()
        self._trained += 1
        said = f"loss {_number(values['loss'])}, accuracy {_number(values['accuracy'])}"
        self._bar.update(self._task, said=f"{training} {fold}: {said}")
        self.advance(1)
        if self._lines:
            self._log((training, fold), int(epoch), said, values)

    def advance(self, epochs: int) -> None:
        """Counts epochs that were finished before, or that early stopping skips."""
        self._done += epochs
        self._bar.advance(self._task, epochs)

    def _log(self, key: tuple[str, str], epoch: int, said: str, values) -> None:
        """Prints an epoch if it is time to; the last epoch of a training is always printed."""
        if key not in self._waiting:  # a training begins, so those at later epochs have ended
            for other in [k for k, (last, _) in self._waiting.items() if last > epoch]:
                self._print(self._waiting.pop(other)[1])
        text = f"{key[0]}, fold {key[1]}, epoch {epoch}: {said}"
        text += f" (training {_number(values['train_loss'])}, {_number(values['train_accuracy'])})"
        text += f", rate {_number(values['rate'], '.2g')}; {self._done} of {self._total} epochs"
        self._waiting[key] = epoch, text
        now = time.monotonic()
        if now - self._printed >= SECONDS:
            left = (self._total - self._done) * (now - self._start) / self._trained
            self._print(f"{text}, about {duration(left)} left")
            self._waiting[key] = epoch, ""
            self._printed = now

    def _print(self, line: str) -> None:
        if line:
            self._console.print(layout.clean(line), **LITERAL)


def _drop_partial_line(path: pathlib.Path) -> None:
    """Removes an incomplete last line, left by a run that was killed."""
    if not path.exists():
        return
    with open(path, "r+b") as file:
        start = max(file.seek(0, 2) - LONGEST, 0)
        file.seek(start)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(start + whole)


def _number(value: float | None, form: str = ".3f") -> str:
    return "none" if value is None else format(value, form)
