"""Random events in a folder: no exception, no stall, and the right values under each number."""

import gzip
import os
import threading
import time

import dicom_files
import nibabel as nib
import numpy as np
import pytest

from emojax.online.watching.folder import Folder
from emojax.online.watching.intake import Intake
from emojax.online.watching.order import Order

WINDOW = 1.0  # s
PACE = 0.02  # s from event to event
SHAPE = (16, 12, 40)
PATIENCE = 1.5 * WINDOW
GOOD, BAD = {}, {}  # kinds of events: those whose volume must be decoded, and those that lose it


def event(kinds):
    return lambda write: kinds.setdefault(write.__name__, write)


class Place:
    """The place of one event: the folder, one beside it, and the content of the volume."""

    def __init__(self, folder, number, ending):
        self.folder, self.beside, self.number = folder, folder.parent, number
        self.path = folder / f"vol_{number:04}{ending}"
        whole = nib.Nifti1Image(content(number), np.diag([3, 3, 3, 1.0])).to_bytes()
        self.data = gzip.compress(whole) if ending.endswith("gz") else whole

    def aside(self, name):
        path = self.beside / f"{name}_{self.number}"
        path.write_bytes(self.data)
        return path


def content(number):
    return dicom_files.volumes(shape=SHAPE, seed=number)[0]


@event(GOOD)
def plain(at):
    at.path.write_bytes(at.data)


@event(GOOD)
def partial_then_renamed(at):
    partial = at.path.with_name(f"{at.path.name}.partial")
    partial.write_bytes(at.data)
    time.sleep(0.03)
    partial.rename(at.path)


@event(GOOD)
def moved_here(at):
    at.aside("moved").rename(at.path)


@event(GOOD)
def linked_here(at):
    os.link(at.aside("linked"), at.path)


@event(GOOD)
def slowly_by_4_kb(at):
    with open(at.path, "wb", buffering=0) as file:
        for start in range(0, len(at.data), 4096):
            file.write(at.data[start : start + 4096])
            time.sleep(0.02)


@event(GOOD)
def half_then_whole(at):
    at.path.write_bytes(at.data[: len(at.data) // 2])
    time.sleep(0.15)
    at.path.write_bytes(at.data)


@event(GOOD)
def room_is_made_first(at):
    with open(at.path, "wb", buffering=0) as file:
        file.truncate(len(at.data))
        time.sleep(0.05)
        file.write(at.data)


@event(GOOD)
def twice(at):
    at.path.write_bytes(at.data)
    at.path.with_name("copy_of_" + at.path.name).write_bytes(at.data)
    time.sleep(0.03)
    at.path.write_bytes(at.data)


@event(GOOD)
def named_otherwise_first(at):
    other = at.path.with_name("scan in progress")
    other.write_bytes(at.data)
    other.rename(at.path)


@event(GOOD)
def late_within_the_window(at):
    time.sleep(WINDOW / 3)
    at.path.write_bytes(at.data)


@event(BAD)
def lost(at):
    pass


@event(BAD)
def too_late(at):
    time.sleep(1.5 * WINDOW)
    at.path.write_bytes(at.data)


@event(BAD)
def half(at):
    at.path.write_bytes(at.data[: len(at.data) // 2])


@event(BAD)
def removed(at):
    at.path.write_bytes(at.data)
    at.path.unlink()


@event(BAD)
def removed_while_it_is_written(at):
    with open(at.path, "wb") as file:
        file.write(at.data[:4096])
        time.sleep(0.1)
        at.path.unlink()


@event(BAD)
def damaged(at):
    at.path.write_bytes(b"x" * len(at.data))


@event(BAD)
def a_pipe(at):
    os.mkfifo(at.path)


@event(BAD)
def a_folder(at):
    at.path.mkdir()
    (at.path / "inside.nii").write_bytes(at.data)


@event(BAD)
def a_link_out(at):
    at.path.symlink_to(at.aside("secret"))


@event(BAD)
def another_series(at):
    at.path.with_name(f"t1_{at.number}.nii").write_bytes(at.data)


@event(BAD)
def another_ending(at):
    at.path.with_name(f"vol_{at.number}.txt").write_bytes(at.data)


@event(BAD)
def an_image_of_the_scanner_beside(at):
    data = dicom_files.mosaic(content(at.number), dicom_files.oblique(), at.number)
    dicom_files.save(data, at.path.with_suffix(".dcm"))


def write_all(folder, kinds, ending):
    """Runs all events, each in its thread: slow ones overlap with those behind them."""
    threads = []
    for number, kind in kinds.items():
        place = Place(folder, number, ending)
        threads.append(threading.Thread(target=(GOOD | BAD)[kind], args=(place,)))
        threads[-1].start()
        time.sleep(PACE)
    for thread in threads:
        thread.join()


def watch(folder, writer, last):
    """Returns {number: scan or None}, and the longest turn of the loop, s."""
    intake, order, out = Intake(pattern="vol_{n}.nii"), Order(window_s=WINDOW), {}
    end, longest = None, 0.0
    while end is None or time.monotonic() < end:
        if end is None and not writer.is_alive():
            end = time.monotonic() + PATIENCE
        paths = folder.get(order.wait(time.monotonic()))
        now = time.monotonic()
        found = [scan for path in paths for scan in intake.offer(path, now)]
        for scan in found + intake.retry(now):
            order.add(scan.number, scan, scan.sha256, now)
        ready = order.pop(now)
        if end is not None and time.monotonic() > end:
            ready += order.finish(last)
        for number, scan in ready:
            assert number not in out
            out[number] = scan
            assert isinstance(intake.incomplete(number), str)
        intake.notes()
        longest = max(longest, time.monotonic() - now)
    return out, longest


def check(tmp_path, seed, count, poll_ms, ending):
    rng = np.random.default_rng(seed)
    names = [*GOOD, *GOOD, *BAD]
    kinds = {n: str(rng.choice(names)) for n in range(1, count)} | {count: "plain"}
    inside = tmp_path / "in"
    inside.mkdir()
    with Folder(inside, poll_ms=poll_ms) as folder:
        writer = threading.Thread(target=write_all, args=(inside, kinds, ending))
        writer.start()
        out, longest = watch(folder, writer, count)
    assert list(out) == list(kinds)
    assert longest < WINDOW
    for number, kind in kinds.items():
        scan = out[number]
        assert kind in BAD or (scan is not None and not scan.reason), f"{number}: {kind}, {scan}"
        if scan is not None and scan.values is not None:
            assert kind in GOOD or kind == "removed", f"{number}: {kind}"
            np.testing.assert_array_equal(scan.values, content(number))


@pytest.mark.parametrize("poll_ms", [None, 20.0], ids=["events", "polling"])
def test_40_events(tmp_path, poll_ms):
    check(tmp_path, 0, 40, poll_ms, ".nii")


@pytest.mark.slow
@pytest.mark.parametrize("poll_ms", [None, 20.0], ids=["events", "polling"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("seed", [1, 2])
def test_200_events(tmp_path, poll_ms, ending, seed):
    check(tmp_path, seed, 200, poll_ms, ending)
