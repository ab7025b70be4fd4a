"""Parallel jobs in processes; the user's code is sent by value, large arrays through files."""

import contextlib
import functools
import itertools
import os
import pathlib
import pickle
import shutil
import signal
import site
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from types import ModuleType
from typing import Any

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor, reusable_executor

from emojax.errors import InputError

try:
    import cloudpickle
except ImportError:  # joblib before 1.6 includes its own
    from joblib.externals import cloudpickle  # pyright: ignore[reportAttributeAccessIssue]

# Workers that use much memory are replaced by new ones; no job is lost.
warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
_LARGE = 2**20  # smallest size in bytes of arrays that go through a file shared by processes


def run(
    work: Callable[[Any], Any],
    jobs: Iterable[Any],
    tick: Callable[[int], Any] = lambda done: None,
    workers: int | None = None,
) -> list[Any]:
    """Runs jobs in parallel; jobs are taken from the iterable only when a process is free.

    At most two jobs per process exist at a time: one running, one waiting.

    Args:
      work: function of one job, importable by name.
      jobs: NamedTuples; their arrays and objects are not shared with the caller.
      tick: called with 1 for every finished job.
      workers: number of processes; None: one per core; 1: the caller's own process.

    Returns:
      The results of `work`, in the order of the jobs.

    Raises:
      InputError: a job that cannot be sent to another process, or no disk space for its arrays.
      Exception: whatever `work` raises; jobs that have not started are dropped.
    """
    workers = workers or joblib.cpu_count()
    results: dict[int, Any] = {}
    if workers == 1:
        for number, job in enumerate(jobs):
            results[number] = work(job)
            tick(1)
        return list(results.values())
    with _deaf_children():
        executor, pending = _own_executor(workers), {}
    jobs, counter = iter(jobs), itertools.count()
    with tempfile.TemporaryDirectory(prefix="emojax-", ignore_cleanup_errors=True) as root:
        try:
            while True:
                while len(pending) < 2 * workers and (job := next(jobs, None)) is not None:
                    number = next(counter)
                    folder = pathlib.Path(root, str(number))
                    packed = _pack(job, folder)
                    with _deaf_children():
                        future = executor.submit(_call, work, *packed)
                    pending[future] = number, folder
                    del job
                if not pending:
                    return [results[number] for number in sorted(results)]
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    number, folder = pending.pop(future)
                    results[number] = future.result()
                    shutil.rmtree(folder, ignore_errors=True)
                    tick(1)
        except BaseException:
            if pending:  # their results are no longer needed
                executor.shutdown(wait=False, kill_workers=True)
            raise


_OURS: dict[str, Any] = dict.fromkeys(("_executor", "_executor_kwargs"))


def _own_executor(workers: int) -> Any:
    """Returns an executor that later calls reuse, but joblib does not.

    loky keeps one executor for all callers. joblib takes over the one it finds there, e.g. in
    cross_validate(n_jobs=2), and fails if it is of another kind.
    """
    theirs = {name: getattr(reusable_executor, name) for name in _OURS}
    try:
        _set(_OURS)
        return get_reusable_executor(workers)
    finally:
        _OURS.update({name: getattr(reusable_executor, name) for name in _OURS})
        _set(theirs)


def _set(attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(reusable_executor, name, value)


@contextlib.contextmanager
def _deaf_children() -> Iterator[None]:
    """Blocks Ctrl-C in processes started here, which end silently with the caller."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker  # not available on Windows

    resource_tracker.ensure_running()  # if loky started it later, that would end the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # pending signals are delivered now


def _pack(job: Any, folder: pathlib.Path) -> tuple[bytes, dict[str, str]]:
    """Returns a job pickled without its large arrays, and the files of these arrays."""
    files = {}
    for name, value in job._asdict().items():
        if isinstance(value, np.ndarray) and value.nbytes >= _LARGE:
            files[name] = str(folder / f"{name}.npy")
            try:
                folder.mkdir(exist_ok=True)
                np.save(files[name], value)
            except OSError as error:
                expected = f"room for {value.nbytes / 1e9:.1f} GB (TMPDIR names another folder)"
                raise InputError(folder.parent, error.strerror, expected) from None
    try:
        with _modules_by_value():
            return cloudpickle.dumps(job._replace(**dict.fromkeys(files))), files
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        expected = "an estimator that can be sent to other processes"
        raise InputError(f"{getattr(job, 'name', 'job')!r}", error, expected) from None


def _call(work: Callable[[Any], Any], packed: bytes, files: dict[str, str]) -> Any:
    """Runs one job in a worker process."""
    arrays = {name: np.load(file, mmap_mode="r") for name, file in files.items()}
    try:
        return work(pickle.loads(packed)._replace(**arrays))
    except Exception as error:
        try:  # an exception that the caller cannot unpickle would break the pool silently
            pickle.loads(pickle.dumps(error))
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


@contextlib.contextmanager
def _modules_by_value() -> Iterator[None]:
    """Pickles modules that are not installed with their code, not by name.

    A worker has its own sys.path, which may lack a user's module.
    """
    with contextlib.ExitStack() as stack:
        for module in _own_modules():
            cloudpickle.register_pickle_by_value(module)
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        yield


def _own_modules() -> list[ModuleType]:
    """Returns the imported top-level modules and packages that are neither installed nor ours."""
    ours = ("emojax", "__main__", *cloudpickle.list_registry_pickle_by_value())
    found = []
    for name, module in list(sys.modules.items()):
        if "." in name or name in ours or not isinstance(module, ModuleType):
            continue
        # A package without __init__.py has no file, but a path.
        places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
        source = places[0].endswith(".py") or (not places[0] and len(places) > 1)
        if source and not os.path.realpath(places[0] or places[1]).startswith(_installed()):
            found.append(module)
    return found


@functools.cache
def _installed() -> tuple[str, ...]:
    paths = [sysconfig.get_path(k) for k in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({os.path.realpath(path) + os.sep for path in paths})
