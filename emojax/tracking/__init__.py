"""Loggers that follow training by epoch: TensorBoard, MLflow or your own code.

    with tracking.opened("tensorboard,mypkg.logs:Mine", workdir, config) as track:
        track("nested", "01", 3, {"loss": 1.1, "accuracy": 0.4})

They get the same values as metrics.jsonl, and no result depends on them. Each runs in its own
thread: if one fails or hangs, a line is printed, it is abandoned, and training continues.
"""

import contextlib
import functools
import importlib.metadata
import importlib.util
import pathlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from emojax.errors import InputError, say
from emojax.files import split_list
from emojax.registry import Registry

KEY = "train.loggers"
GROUP = "emojax.loggers"  # group of entry points through which other packages offer loggers
FOLDER = "tracking"  # folder in the workdir
SHIPPED = {
    "tensorboard": "emojax.tracking.tensorboard:TensorBoard",
    "mlflow": "emojax.tracking.mlflow:MLflow",
}
PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}
MOST = 10_000  # maximum number of epochs in the queue of a slow logger
PATIENCE = 30.0  # seconds to wait for a logger at the end of training

Track = Callable[[str, str, int, Mapping[str, float]], None]


class Run(NamedTuple):
    """The run that a logger follows."""

    workdir: pathlib.Path
    folder: pathlib.Path  # the logger's own folder; its files are kept when the run resumes
    config: Mapping[str, Any]  # plain data, nested


class Logger(Protocol):
    """A follower of training runs, made by a function of a `Run`, such as its class."""

    def log(self, training: str, fold: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Logs an epoch.

        A resumed run may repeat epochs that were logged before, with the same metrics.

        Args:
          training: name of the arm.
          fold: name of the fold.
          epoch: number of the epoch, from 1.
          metrics: the values in metrics.jsonl.
        """

    def close(self, finished: bool) -> None:
        """Ends logging; `finished` is False if training was stopped and may be resumed."""


def loggers() -> Registry:
    """Returns the known loggers: those of emojax and the entry points of other packages."""
    others = importlib.metadata.entry_points(group=GROUP)
    return Registry(KEY, {point.name: point.value for point in others} | SHIPPED)


def check(names: str) -> None:
    """Rejects unavailable loggers, before anything is trained.

    Args:
      names: comma-separated names or dotted paths.

    Raises:
      InputError: an unknown name, an invalid path, or a package that is not installed.
    """
    for name in split_list(names):
        package = PACKAGES.get(name, "")
        if package and importlib.util.find_spec(package) is None:
            expected = "the package (pip install 'emojax[tracking]')"
            raise InputError(KEY, f"{name!r} without the package {package}", expected)
        if not callable(found := loggers()[name]):
            expected = "a class or function that makes a logger"
            raise InputError(
                KEY, f"{name!r}, an object of the class {type(found).__name__}", expected
            )


@contextlib.contextmanager
def opened(names: str, workdir: pathlib.Path, config: Mapping[str, Any]) -> Iterator[Track]:
    """Starts loggers; yields track(training, fold, epoch, metrics), which never waits or fails.

    Args:
      names: comma-separated names or dotted paths; "" is none.
      workdir: folder of the run.
      config: the configuration as plain data.
    """
    threads = []
    for name in dict.fromkeys(split_list(names)):
        slug = "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
        run = Run(workdir, workdir / FOLDER / slug, config)
        threads.append(_Thread(name, functools.partial(_make, name, run)))

    def track(*epoch):
        for thread in threads:
            thread.put(epoch)

    finished = False
    try:
        yield track
        finished = True
    finally:
        for thread in threads:
            thread.end(finished)


def _make(name: str, run: Run) -> Logger:
    run.folder.mkdir(parents=True, exist_ok=True)
    return loggers()[name](run)


class _Thread:
    """A logger in a thread, which takes epochs from a queue."""

    def __init__(self, name: str, make: Callable[[], Logger]):
        self._name, self._make = name, make
        self._queue: queue.Queue = queue.Queue(MOST)
        self._finished = self._failed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, epoch: tuple) -> None:
        """Adds an epoch to the queue, unless the logger has failed or is far behind."""
        if self._failed:
            return
        try:
            self._queue.put_nowait(epoch)
        except queue.Full:
            self._give_up(f"it is {MOST} epochs behind")

    def end(self, finished: bool) -> None:
        """Waits until the logger has taken all epochs, up to a time limit."""
        self._finished = finished
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._give_up(f"it did not end within {PATIENCE:g} s")

    def _work(self) -> None:
        try:
            logger = self._make()
            while (epoch := self._queue.get()) is not None and not self._failed:
                training, fold, number, metrics = epoch
                logger.log(training, fold, number, metrics)
            logger.close(self._finished)
        except BaseException as error:  # from other code, disk or server, even SystemExit
            self._give_up(f"{type(error).__name__}: {error}")

    def _give_up(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            say(f"{KEY}: {self._name} no longer follows the run ({why}); training continues")
