"""Tests of the removal of leftovers of killed processes, never of files being written."""

import os
import subprocess
import sys
import time

import pytest

from emojax.data import unfinished

NAME = "0" * 64 + ".nii"


def named(folder, *, host=None, pid=None, process=None):
    path = unfinished.beside(folder / NAME)
    writer = path.name[len(NAME) + 1 :]
    here, number, own, rest = writer.rsplit("-", 3)
    writer = f"{host or here}-{pid or number}-{process or own}-{rest}"
    return path.with_name(f"{NAME}.{writer}")


@pytest.fixture
def dead():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("days", [0, -2, 2, 6, 8, 10**4])
def test_of_whom_and_how_old(tmp_path, dead, days):
    own, alive = named(tmp_path), named(tmp_path, pid=os.getppid())
    gone, other = named(tmp_path, pid=dead), named(tmp_path, host="node-7.cluster")
    same_number = named(tmp_path, process="0123abcd")
    old_version = tmp_path / f"{NAME}.4242-140234.partial"
    foreign = [tmp_path / "paper.pdf.partial", tmp_path / "sub" / f"{NAME}.1-1.partial"]
    foreign[1].parent.mkdir()
    everything = [own, alive, gone, other, same_number, old_version, *foreign]
    for path in everything:
        path.touch()
        os.utime(path, (time.time() - days * 86400,) * 2)
    unfinished.sweep(tmp_path)
    left = [own, alive, *foreign] + ([other, old_version] if days < 7 else [])
    assert {path for path in everything if path.exists()} == set(left)


@pytest.mark.parametrize("host", ["a", "node-7.cluster.local", "émil's mac", "x" * 300, ""])
def test_any_name_of_a_machine(tmp_path, monkeypatch, host, dead):
    monkeypatch.setattr("socket.gethostname", lambda: host)
    path = unfinished.beside(tmp_path / NAME)
    path.touch()
    unfinished.sweep(tmp_path)
    assert path.exists()
    gone = named(tmp_path, pid=dead)
    gone.touch()
    unfinished.sweep(tmp_path)
    assert path.exists() and not gone.exists()
