"""Loggers: the epochs of a training, as they end, in TensorBoard, MLflow or code of one's own.

    with tracking.opened("tensorboard,mypkg.logs:Mine", workdir, config) as track:
        track("nested", "01", 3, {"loss": 1.1, "accuracy": 0.4})

They get what metrics.jsonl gets, and no result depends on them. Each works in a thread of its own:
one that fails or hangs is left behind with one line, and the training goes on.
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
GROUP = "emojax.loggers"  # of entry points, in which other packages offer loggers
FOLDER = "tracking"  # in the workdir
SHIPPED = {
    "tensorboard": "emojax.tracking.tensorboard:TensorBoard",
    "mlflow": "emojax.tracking.mlflow:MLflow",
}
PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}
MOST = 10_000  # epochs that may wait for a slow logger; later ones are lost to it
PATIENCE = 30.0  # s that the end of a training waits for a logger

Track = Callable[[str, str, int, Mapping[str, float]], None]


class Run(NamedTuple):
    """The run that a logger follows."""

    workdir: pathlib.Path
    folder: pathlib.Path  # the logger's own; what it keeps there is found again on resumption
    config: Mapping[str, Any]  # plain data, nested


class Logger(Protocol):
    """A follower of trainings. It is made by a function of a `Run`, such as its class."""

    def log(self, training: str, fold: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Takes an epoch: the arm, its fold, the number from 1, and the numbers of metrics.jsonl.

        A resumed run may train epochs again that came before; their numbers are the same.
        """

    def close(self, finished: bool) -> None:
        """Ends; not finished is a training that was stopped, and may be resumed."""


def loggers() -> Registry:
    """Returns the known loggers: those of emojax, and the entry points of other packages."""
    others = importlib.metadata.entry_points(group=GROUP)
    return Registry(KEY, {point.name: point.value for point in others} | SHIPPED)


def check(names: str) -> None:
    """Refuses loggers that cannot be had, before anything is trained.

    Args:
      names: comma-separated names, or dotted paths.

    Raises:
      InputError: an unknown name, a path that leads nowhere, a package that is not installed.
    """
    for name in split_list(names):
        package = PACKAGES.get(name, "")
        if package and importlib.util.find_spec(package) is None:
            expected = "it to be installed (pip install 'emojax[tracking]')"
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
      names: comma-separated names, or dotted paths; "" is none.
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
    """A logger at work: epochs wait in a queue until it has taken them."""

    def __init__(self, name: str, make: Callable[[], Logger]):
        self._name, self._make = name, make
        self._queue: queue.Queue = queue.Queue(MOST)
        self._finished = self._failed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, epoch: tuple) -> None:
        """Hands an epoch over, unless the logger has failed or is far behind."""
        if self._failed:
            return
        try:
            self._queue.put_nowait(epoch)
        except queue.Full:
            self._give_up(f"it is {MOST} epochs behind")

    def end(self, finished: bool) -> None:
        """Waits until the logger has taken what there is, but not for long."""
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
        except BaseException as error:  # of somebody else's code, disk or server; SystemExit, too
            self._give_up(f"{type(error).__name__}: {error}")

    def _give_up(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            say(f"{KEY}: {self._name} follows no longer ({why}); the training goes on")
