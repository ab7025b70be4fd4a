"""Signals that ask this process to stop, handled where its work can be saved.

    with stops.listening():          # in the main thread, at the top level
        ...                          # a signal raises `Stopped` here
        with stops.deferred():
            ...                      # here it waits for the next `check`
            stops.check()

The signals are SIGINT (Ctrl-C), SIGTERM and SIGUSR1 (which Slurm can send ahead of the others), if
the platform has them. A second Ctrl-C ends the process at once.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 143}  # exit codes
AGAIN = 0.05  # s until a stop swallowed by a callback is raised again


class Stopped(BaseException):
    """A request by a signal to end the process; `code` is its exit code."""

    def __init__(self, name: str):
        """Args: the name of the signal."""
        super().__init__(name)
        self.code = CODES[name]


class _State:
    asked = ""  # name of the signal received
    deferred = 0  # nesting depth of `deferred` blocks


def asked() -> str:
    """Returns the name of the signal that has asked this process to end, or ""."""
    return _State.asked


def check() -> None:
    """Stops here if a signal has asked for it.

    Raises:
      Stopped: a signal has asked this process to end.
    """
    if _State.asked:
        raise Stopped(_State.asked)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Defers signals to the next `check` or the end of the block."""
    _State.deferred += 1
    try:
        yield
    finally:
        _State.deferred -= 1
    if not _State.deferred:
        check()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Handles the signals inside the block; outside the main thread, does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    heard = [n for n in numbers if signal.getsignal(n) != signal.SIG_IGN]  # nohup ignores some
    before = {number: signal.signal(number, _handle) for number in heard}
    hook, sys.unraisablehook = sys.unraisablehook, _raise_again
    alarm = signal.signal(signal.SIGALRM, _remind) if hasattr(signal, "SIGALRM") else None
    ears, mouth = socket.socketpair()
    mouth.setblocking(False)
    wakeup = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_count, args=(ears,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        mouth.close()
        for number, handler in before.items():
            signal.signal(number, handler)
        if alarm is not None:
            signal.signal(signal.SIGALRM, alarm)
        sys.unraisablehook = hook
        _State.asked = ""


def leave(code: int) -> NoReturn:
    """Ends this process and its workers without waiting for threads.

    Workers are sent SIGTERM, which the processes that clean up after them ignore.
    """
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.terminate()
    os._exit(code)


def _handle(number: int, frame) -> None:
    first, _State.asked = not _State.asked, _State.asked or signal.Signals(number).name
    if first and not _State.deferred:
        raise Stopped(_State.asked)


def _remind(number: int, frame) -> None:
    if not _State.deferred:
        check()


def _raise_again(unraisable) -> None:
    """Raises a stop again that arrived where Python cannot raise, such as in a callback."""
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)
    elif hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, AGAIN)


def _count(ears: socket.socket) -> None:
    """Ends the process at the second Ctrl-C, even while compiled code runs in the main thread."""
    interrupts = 0
    with ears:
        while numbers := ears.recv(64):
            interrupts += numbers.count(signal.SIGINT)
            if interrupts > 1:
                os.write(2, b"stopped at once; the same command resumes from what is kept\n")
                leave(CODES["SIGINT"])
