"""Locks: one living process at a time, on this machine or another one."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from emojax import locks
from emojax.errors import InputError
from emojax.locks import Lock


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


def write(path, host=None, pid=None, started=None, age=0.0):
    """Leaves the lock of another process."""
    owner = {"host": host or socket.gethostname(), "pid": pid or os.getpid(), "key": "other"}
    owner["started"] = locks._started(os.getpid()) if started is None else started
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_lock_is_held_by_one_and_leaves_nothing(path):
    with Lock(path) as lock:
        lock.check()
        with pytest.raises(InputError) as found:
            Lock(path)
        line = str(found.value)
        assert line.startswith(f"{path.parent}: found process {os.getpid()} at work in it")
        assert "wait, or choose another one" in line
    assert not list(path.parent.iterdir())
    Lock(path).release()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}', '{"pid": "x"}'])
def test_a_lock_that_nobody_can_read_goes_stale(path, content):
    path.write_text(content)
    with pytest.raises(InputError, match="at work in it"):
        Lock(path)
    os.utime(path, (time.time() - locks.STALE - 1,) * 2)
    Lock(path).release()
    assert not list(path.parent.iterdir())


def test_a_process_that_is_gone_is_recognised(path):
    """A killed process is recognised at once, even if its number was given to another process."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write(path, pid=gone.pid, started=time.time())
    Lock(path).release()
    write(path, started=12345.0)  # this process has the number now
    Lock(path).release()


def test_a_process_elsewhere_must_renew_its_lock(path):
    write(path, host="node7", pid=99999, age=locks.STALE / 2)
    with pytest.raises(InputError, match=r"found process 99999 on node7, last seen \d+ s ago"):
        Lock(path)
    write(path, host="node7", pid=99999, age=locks.STALE * 2)
    Lock(path).release()


def test_a_lock_is_renewed_and_its_loss_is_noticed(path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.02)
    lock = Lock(path)
    os.utime(path, (1, 1))
    for _ in range(100):
        if path.stat().st_mtime > 1:
            break
        time.sleep(0.02)
    assert path.stat().st_mtime > 1
    write(path, host="node7", pid=5)
    for _ in range(100):
        if lock._lost:
            break
        time.sleep(0.02)
    with pytest.raises(InputError, match="another process at work"):
        lock.check()
    lock.release()
    assert "node7" in path.read_text()  # the other one's stays


def test_of_many_only_one_takes_over_a_stale_lock(path):
    write(path, started=12345.0)
    held, refused, start = [], [], threading.Barrier(8)

    def attempt():
        start.wait()
        try:
            held.append(Lock(path))
        except InputError:
            refused.append(1)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1 and len(refused) == 7
    held[0].release()
    assert not list(path.parent.iterdir())


def test_disks_without_hard_links_have_locks_too(path, monkeypatch):
    def unable(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unable)
    with Lock(path), pytest.raises(InputError):
        Lock(path)
    assert not list(path.parent.iterdir())


def test_who_is_alive():
    assert locks.is_alive(os.getpid()) and locks.is_alive(str(os.getpid()))
    assert locks.is_alive(os.getpid(), started=locks._started(os.getpid()))
    assert not locks.is_alive(os.getpid(), started=5.0)
    for text in ("", "x", "-1", "9" * 40, "\u00b2"):
        assert not locks.is_alive(text)
