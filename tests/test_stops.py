"""Signals: heard where work can be kept, as one line and an exit code."""

import os
import signal
import subprocess
import sys
import time

import pytest

from emojax import stops

HEAD = """
import gc, os, signal, sys, time
from emojax import stops
from emojax.cli import guard
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
def send(name):
    signal.raise_signal(getattr(signal, name))
"""


def run(text, timeout=20):
    """Runs a command in its own process: (exit code, stdout, lines on stderr)."""
    script = HEAD + text + "\nprint('code', guard.run(command, [], resumes=True))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=timeout
    )
    return done.returncode, done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize(("name", "code"), stops.CODES.items())
def test_a_signal_is_one_line_and_an_exit_code(name, code):
    found = run(f"def command():\n    send({name!r})\n    print('went on')")
    assert found == (code, "", ["interrupted; the same command resumes from what is kept"])


def test_a_deferred_signal_waits_for_a_check():
    text = """
def command():
    with stops.deferred():
        send("SIGTERM")
        print("kept", stops.asked())
        try:
            stops.check()
        except stops.Stopped as stop:
            print("stopped", stop.code)
        with stops.deferred():
            pass
        print("still here")
    print("not here")
"""
    assert run(text)[:2] == (143, "kept SIGTERM\nstopped 143\nstill here\n")


def test_a_signal_that_a_callback_swallows_is_raised_again():
    """jax has such a callback: it cleans up at every garbage collection."""
    text = """
def callback(phase, info):
    if phase == "start" and not stops.asked():
        send("SIGINT")
def command():
    gc.callbacks.append(callback)
    gc.collect()
    assert stops.asked()
    time.sleep(10)
    print("went on")
"""
    start = time.time()
    code, out, lines = run(text)
    assert (code, out, len(lines)) == (130, "", 1) and time.time() - start < 8


def test_a_second_interrupt_ends_compiled_code():
    """The main thread cannot react while it waits in C."""
    text = """
import threading
def twice():
    for _ in range(2):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
def command():
    with stops.deferred():
        threading.Thread(target=twice).start()
        import sqlite3
        slow = "with recursive c(x) as (select 1 union all select x+1 from c) select max(x) from c"
        sqlite3.connect(":memory:").execute(slow).fetchall()
"""
    start = time.time()
    code, _, lines = run(text)
    assert code == 130 and len(lines) == 1 and "stopped at once" in lines[0]
    assert time.time() - start < 8


def test_handlers_are_put_back(monkeypatch):
    before = [signal.default_int_handler, signal.getsignal(signal.SIGTERM)]
    monkeypatch.setattr(stops, "NAMES", ("SIGINT", "SIGTERM"))
    signal.signal(signal.SIGINT, before[0])  # jobs in the background ignore it
    with pytest.raises(stops.Stopped), stops.listening():
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert not stops.asked()
    stops.check()


def test_an_ignored_signal_stays_ignored():
    """nohup and background jobs of shells leave signals ignored."""
    text = """
signal.signal(signal.SIGINT, signal.SIG_IGN)
def command():
    send("SIGINT")
    print("went on")
"""
    assert run(text)[:2] == (0, "went on\ncode 0\n")


IMPORTS = """
import os, signal, sys
from emojax.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
os.write(1, b"x")
sys.exit(main(["emojax", "data", "expA:demo", f"--workdir={sys.argv[1]}"]))
"""


@pytest.mark.parametrize("delay", [0.05, 0.1, 0.2, 0.4, 0.7])
def test_imports_end_without_a_traceback(delay, tmp_path):
    """An interrupt during the imports ends the command without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTS, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.read(1) == "x"
    time.sleep(delay)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said and len(said.splitlines()) == 1
    assert process.returncode == 130
