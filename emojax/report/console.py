"""What an experiment shows while it runs: times, a progress bar, the device and versions."""

import contextlib
import importlib.metadata
import sys
import time
from collections.abc import Callable, Iterator

import jax
import rich.progress

import emojax

VERSIONS = ("jax", "flax", "optax", "numpy", "scikit-learn", "xgboost-cpu", "nibabel")


@contextlib.contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds the seconds that the block takes, rounded to ms, under the name of the stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - start, 3)


@contextlib.contextmanager
def bar(console, config, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar, unless `data.progress` is off; yields tick(number done)."""
    columns = (
        what,
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    drawn = rich.progress.Progress(
        *columns, console=console, transient=True, disable=not config.data.progress
    )
    with drawn:
        task = drawn.add_task("", total=total)
        yield lambda done: drawn.advance(task, done)


def duration(seconds: float) -> str:
    """In words of a plan: s, min or h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def device() -> str:
    """Kind and number of devices, and the backend."""
    return (
        f"{jax.devices()[0].device_kind}, {jax.device_count()} device(s), {jax.default_backend()}"
    )


def versions() -> dict[str, str]:
    """Of Python and of the packages that make the numbers."""
    found = {"python": sys.version.split()[0], "emojax": emojax.__version__}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
