"""The outermost call of a command: errors and signals become one line and an exit code."""

import os
import pathlib
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence

from emojax import stops
from emojax.errors import InputError, say

REFUSED = 2  # exit code of every error that is not a signal
MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "bad_alloc")


def run(command: Callable[[], int | None], argv: Sequence[str], resumes: bool = False) -> int:
    """Calls a command; a signal or an error becomes one line on stderr.

    Args:
      command: the command to call.
      argv: the words of the command line; a traceback is kept in their `--workdir`.
      resumes: whether the same command resumes after a signal.

    Returns:
      The exit code: 0, 2 for an error, 130 for Ctrl-C, 143 for other signals.
    """
    with stops.listening():
        try:
            return command() or 0
        except (stops.Stopped, KeyboardInterrupt) as stop:
            hint = "; the same command resumes from what is kept" if resumes else ""
            say(f"interrupted{hint}")
            if isinstance(stop, KeyboardInterrupt):  # raised by code, or outside the main thread
                return stops.CODES["SIGINT"]
            sys.stdout.flush()
            stops.leave(stop.code)  # does not wait for threads and processes of libraries
        except InputError as error:
            say(error)
            return REFUSED
        except Exception as error:
            say(explain(error) or _unforeseen(error, argv))
            return REFUSED


def show(text: str) -> None:
    """Prints a text; a reader that closes early, such as `| head`, is not an error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error: Exception) -> str:
    """Returns a message with a remedy for an error caused by the machine, or ""."""
    text = f"{type(error).__name__}: {error}"
    if type(error).__name__ == "LeakageError":  # by name, because its module imports jax
        return str(error)
    if isinstance(error, MemoryError) or any(said in text for said in MEMORY):
        found = (str(error).splitlines() or ["not enough"])[0] or "not enough"
        return str(InputError("memory", found, "more memory, or smaller settings (emojax plan)"))
    if "nable to initialize backend" in text or _comes_from(error, "xla_bridge.py"):
        asked = os.environ.get("JAX_PLATFORMS", "")
        said = f" ({str(error).splitlines()[0]})" if str(error) else ""
        expected = "an available device (JAX_PLATFORMS=cpu chooses the CPU)"
        return str(InputError("jax", f"no device for JAX_PLATFORMS={asked!r}{said}", expected))
    if type(error).__name__ in ("TerminatedWorkerError", "BrokenProcessPool"):
        expected = "enough memory for all of them (a worker is killed when it runs out)"
        return str(InputError("baselines", "a worker process that ended", expected))
    if isinstance(error, OSError) and error.strerror:
        where = error.filename if error.filename is not None else "system"
        return str(InputError(where, error.strerror, "a file or folder that can be used"))
    return ""


def _comes_from(error: Exception, file: str) -> bool:
    """Returns whether an error was raised in a file, such as jax's assertions about devices."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.endswith(file)


def _unforeseen(error: Exception, argv: Sequence[str]) -> str:
    """Writes the traceback of an error to a file, and returns a line that names the file."""
    name = f"traceback-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    given = [word.partition("=")[2] for word in argv if word.lstrip("-").startswith("workdir=")]
    folders = [pathlib.Path(folder) for folder in given if os.path.isfile(f"{folder}/config.json")]
    said = f"{type(error).__name__}: {error}"
    for folder in (*folders, pathlib.Path(tempfile.gettempdir())):
        try:
            text = "".join(traceback.format_exception(error))
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except (OSError, ValueError):
            continue
        return f"unforeseen: {said}; please report this bug with the traceback: {folder / name}"
    return f"unforeseen: {said}"
