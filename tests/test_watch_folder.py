"""Names in a folder: by events, by sweeps, by polling; and folders that go and come back."""

import os
import pathlib
import shutil
import subprocess
import threading
import time

import pytest

from emojax.errors import InputError
from emojax.online.watching import events
from emojax.online.watching import folder as folders
from emojax.online.watching.folder import EVENTS, POLLING, Folder

KINDS = {EVENTS: None, POLLING: 20.0}
PATIENCE = 5.0  # s


@pytest.fixture(params=KINDS)
def folder(tmp_path, request):
    (tmp_path / "in").mkdir()
    with Folder(tmp_path / "in", poll_ms=KINDS[request.param]) as opened:
        assert opened.kind == request.param
        yield opened


def collect(folder, count, patience=PATIENCE):
    """Returns the first `count` names that come."""
    names, end = [], time.monotonic() + patience
    while len(names) < count and time.monotonic() < end:
        names += [path.name for path in folder.get(0.05)]
    return names


def write(path, data=b"x" * 1000):
    path.write_bytes(data)
    return path


def test_files_of_before_come_first_in_natural_order(tmp_path):
    for number in (10, 2, 1, 30, 100):
        write(tmp_path / f"vol_{number}.nii")
    with Folder(tmp_path) as folder:
        write(tmp_path / "vol_3.nii")
        names = collect(folder, 6)
    assert names == [f"vol_{n}.nii" for n in (1, 2, 10, 30, 100, 3)]


def test_written_renamed_moved_and_linked_files_come_once(folder, tmp_path):
    inside = tmp_path / "in"
    write(inside / "a.nii")
    write(inside / "b.nii.partial").rename(inside / "b.nii")
    write(tmp_path / "c.nii").rename(inside / "c.nii")
    os.link(write(tmp_path / "d"), inside / "d.nii")
    assert sorted(collect(folder, 4)) == ["a.nii", "b.nii", "c.nii", "d.nii"]
    assert collect(folder, 1, 0.4) == []


def test_temporary_names_are_not_given_out(folder, tmp_path):
    for name in (".vol_1.nii", "vol_1.nii.tmp", "vol_1.nii.12.partial", "vol_1.nii~"):
        write(tmp_path / "in" / name)
    assert collect(folder, 1, 0.5) == []


def test_a_file_that_is_written_or_replaced_comes_again(folder, tmp_path):
    path = write(tmp_path / "in" / "a.nii")
    assert collect(folder, 1) == ["a.nii"]
    with open(path, "ab") as file:
        file.write(b"more")
    assert collect(folder, 1) == ["a.nii"]
    os.replace(write(tmp_path / "b", b"y" * 1004), path)
    assert collect(folder, 1) == ["a.nii"]
    path.unlink()
    collect(folder, 1, 0.3)
    write(path)
    assert "a.nii" in collect(folder, 1)


def test_an_open_file_waits_until_it_is_closed_or_quiet(folder, tmp_path):
    with open(tmp_path / "in" / "a.nii", "wb") as file:
        for _ in range(30):  # it has grown at every look
            file.write(b"x" * 4096)
            file.flush()
            assert folder.get(0.0) == []
            time.sleep(0.005)
    assert collect(folder, 1) == ["a.nii"]


def test_what_events_lose_is_found_by_the_next_look(tmp_path, monkeypatch):
    with Folder(tmp_path) as folder:
        monkeypatch.setattr(folder, "_hear", lambda path: None)
        folder._observer.unschedule_all()
        began = time.monotonic()
        write(tmp_path / "a.nii")
        assert collect(folder, 1) == ["a.nii"]
        assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_goes_comes_back(tmp_path, kind):
    inside = tmp_path / "in"
    inside.mkdir()
    with Folder(inside, poll_ms=KINDS[kind]) as folder:
        write(inside / "a.nii")
        assert collect(folder, 1) == ["a.nii"]
        shutil.rmtree(inside)
        assert collect(folder, 1, 0.6) == []
        inside.mkdir()
        began = time.monotonic()
        write(inside / "a.nii", b"other")
        write(inside / "b.nii")
        assert sorted(set(collect(folder, 2))) == ["a.nii", "b.nii"]
        collect(folder, 1, 0.6)
        write(inside / "c.nii")
        assert collect(folder, 1) == ["c.nii"]
        assert time.monotonic() - began < PATIENCE
        assert [note.what for note in folder.notes()] == ["folder", "folder"]
        assert folder.kind == kind


def test_a_folder_that_is_replaced_at_once_is_watched_again(tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()
    with Folder(inside) as folder:
        shutil.rmtree(inside)
        inside.mkdir()
        collect(folder, 1, 0.6)
        began = time.monotonic()
        write(inside / "a.nii")
        assert collect(folder, 1) == ["a.nii"]
        assert time.monotonic() - began < folders.SWEEP_S  # by an event


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.write_text("")])
def test_a_folder_that_is_none_is_refused(tmp_path, make):
    make(tmp_path / "in")
    with pytest.raises(InputError, match="the folder that the scanner writes to"):
        Folder(tmp_path / "in")


def test_nothing_is_left_running(tmp_path):
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Folder(tmp_path):
            pass
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == before


def test_without_watches_it_polls(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(events, "listen", refuse)
    with Folder(tmp_path) as folder:
        write(tmp_path / "a.nii")
        assert collect(folder, 1) == ["a.nii"]
        assert folder.kind == POLLING
        assert folder.notes()[0].text.endswith("inotify watch limit reached; polling")


def test_names_that_are_gone_are_forgotten(tmp_path):
    with Folder(tmp_path, poll_ms=5) as folder:
        for number in range(40):
            path = write(tmp_path / f"{number}.nii", b"")
            collect(folder, 1)
            path.unlink()
        collect(folder, 1, 0.3)
        assert not folder._known and not folder._looks


def test_many_files_are_listed_seldom(tmp_path, monkeypatch):
    """A folder whose modification time is unchanged takes a twentieth of the time to list."""
    for number in range(2000):
        write(tmp_path / f"{number}.nii", b"")
    calls, scandir = [], os.scandir

    def slow(path):
        calls.append(time.monotonic())
        time.sleep(0.02)
        return scandir(path)

    with Folder(tmp_path, poll_ms=5) as folder:
        assert len(collect(folder, 2000)) == 2000
        time.sleep(0.1)
        monkeypatch.setattr(os, "scandir", slow)
        began = time.monotonic()
        assert collect(folder, 1, 1.0) == []
        assert len(calls) <= 4
        write(tmp_path / "new.nii")
        assert collect(folder, 1) == ["new.nii"]
        assert time.monotonic() - began < 2.0


MOUNTS = r"""22 27 0:21 / /proc rw - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 27 0:50 / /mnt/scanner rw master:2 - cifs //console/export rw
41 27 0:51 / /mnt/with\040space rw - nfs4 server:/x rw
42 27 0:52 / /home/lab/remote rw - fuse.sshfs lab@host: rw
43 27 8:1 / /media/stick rw - fuseblk /dev/sdb1 rw
44 40 0:53 / /mnt/scanner/local rw - tmpfs tmpfs rw
45 27 0:54 / /mnt/twice rw - ext4 /dev/sdc rw
46 27 0:55 / /mnt/twice rw - nfs server:/y rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind", "is_share"),
    [
        ("/data/in", "ext4", False),
        ("/mnt/scanner", "cifs", True),
        ("/mnt/scanner/today", "cifs", True),
        ("/mnt/scanner2", "ext4", False),
        ("/mnt/scanner/local/in", "tmpfs", False),
        ("/mnt/with space/a", "nfs4", True),
        ("/home/lab/remote/a", "fuse.sshfs", True),
        ("/media/stick/a", "fuseblk", False),
        ("/mnt/twice/a", "nfs", True),
    ],
)
def test_shares_are_polled(path, kind, is_share):
    assert events.file_system(path, MOUNTS) == kind
    assert events.is_share(kind) == is_share


def test_a_share_is_polled_by_itself(tmp_path, monkeypatch):
    table = tmp_path / "mounts"
    table.write_text(f"1 0 0:1 / {tmp_path.resolve()} rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(events, "MOUNTS", table)
    assert Folder(tmp_path).kind == POLLING
    monkeypatch.setattr(events, "MOUNTS", tmp_path / "absent")
    assert Folder(tmp_path).kind == POLLING


def test_an_overlay_has_events(tmp_path):
    parts = {name: tmp_path / name for name in ("lower", "upper", "work", "merged")}
    for part in parts.values():
        part.mkdir()
    options = "lowerdir={lower},upperdir={upper},workdir={work}".format(**parts)
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(parts["merged"])]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no overlay can be mounted here")
    try:
        with Folder(parts["merged"]) as folder:
            assert folder.kind == EVENTS
            folder.get(0.0)
            write(pathlib.Path(parts["merged"]) / "a.nii")
            assert [path.name for path in folder.get(folders.SWEEP_S / 2)] == ["a.nii"]
    finally:
        subprocess.run(["umount", str(parts["merged"])], check=True)
