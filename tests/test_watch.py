"""Watching as a whole: files in a folder, records in a journal and with each listener."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import nibabel as nib
import numpy as np
import pytest
from tiny_decoder import AFFINE, CLASSES, made

from emojax import cli, locks, online
from emojax.decoder import bundle
from emojax.online.watching import journal as journals
from emojax.online.watching import loop, opening, record

COUNT, TR = 12, 0.4
FLAGS = dict.fromkeys(("host", "token", "udp", "tcp", "http", "lsl", "page"), "")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Returns a decoder as a bundle, and volumes as the scanner has them."""
    folder = tmp_path_factory.mktemp("decoder")
    decoder, later, labels = made()
    bundle.save(decoder, folder / "decoder")
    values = later[:COUNT].round().astype(np.int16)
    return folder / "decoder", values, labels


def save(path, values, affine=AFFINE):
    aside = path.with_name("." + path.name)
    nib.save(nib.Nifti1Image(values, affine), aside)
    os.replace(aside, path)


class Scanner(threading.Thread):
    """Writes volumes into a folder, one every few milliseconds, in any order."""

    def __init__(self, folder, values, numbers, pause=0.03):
        super().__init__(daemon=True)
        self.folder, self.values, self.numbers, self.pause = folder, values, numbers, pause
        self.start()

    def run(self):
        time.sleep(0.5)
        for number in self.numbers:
            save(self.folder / f"vol_{number:04}.nii", self.values[number - 1])
            time.sleep(self.pause)


def watch(decoder, folder, out, *flags):
    words = [f"--{flag}" for flag in (f"tr={TR}", "reorder_ms=300", *flags)]
    return cli.main(["emojax", "watch", str(decoder), str(folder), f"--out={out}", *words])


def lines(out, kind="volume"):
    return [own for own in journals.verify(out / journals.NAME).lines if own["kind"] == kind]


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("poll", ["", "poll_ms=20"])
def test_a_run_is_decoded_as_from_its_file(tmp_path, scans, study, poll, capsys):
    decoder, values, _ = study
    Scanner(scans, values, range(1, COUNT + 1))
    out = tmp_path / "out"
    assert watch(decoder, scans, out, f"volumes={COUNT}", *filter(None, [poll])) == 0
    expected = online.replay(bundle.load(decoder), values.astype(np.float32), AFFINE)
    found = lines(out)
    assert [own["volume"] for own in found] == list(range(1, COUNT + 1))
    for own, known in zip(found, expected, strict=True):
        assert [own["p"][name] for name in CLASSES] == list(map(float, known.probabilities))
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == COUNT
    assert f"ended: {COUNT} volumes" in printed.err and "session.html" in printed.err
    assert (out / "session.html").read_text().startswith("<!doctype html>")
    start, end = journals.verify(out / journals.NAME).lines[0], lines(out, "end")
    assert start["facts"]["subject"] == "01" and start["series"] == "vol_{n}.nii"
    assert end[0]["text"] == f"{COUNT} volumes"
    assert {path.name for path in out.iterdir()} == {"journal.jsonl", "session.html"}


def test_lost_late_and_doubled_volumes(tmp_path, scans, study):
    decoder, values, _ = study

    class Faulty(Scanner):
        def run(self):
            super().run()
            save(self.folder / "vol_0003.nii", values[2])  # after its gap was declared
            save(self.folder / "vol_0007.nii", values[6])  # the same again
            save(self.folder / "vol_0009.nii", values[0])  # others

    order = [1, 2, 5, 4, 6, 7, 8, 10, 9, 11, 12]
    Faulty(scans, values, order, pause=0.05)
    out = tmp_path / "out"
    assert watch(decoder, scans, out, "idle_s=2") == 0
    found = lines(out)
    assert [own["volume"] for own in found] == list(range(1, COUNT + 1))
    assert [own["status"] for own in found] == ["ok"] * 2 + ["missing"] + ["ok"] * 9
    assert [own["missed"] for own in found] == [0, 0, *[1] * 10]
    notes = {(own["what"], own["volume"]) for own in lines(out, "note")}
    assert {("late", 3), ("duplicate", 7), ("conflict", 9)} <= notes


def test_a_session_goes_on_where_it_ended(tmp_path, scans, study, capsys):
    decoder, values, _ = study
    out, whole = tmp_path / "out", tmp_path / "whole"
    for number in range(1, COUNT + 1):
        save(scans / f"vol_{number:04}.nii", values[number - 1])
    assert watch(decoder, scans, whole, f"volumes={COUNT}") == 0
    assert watch(decoder, scans, out, "volumes=5") == 0
    assert watch(decoder, scans, out, f"volumes={COUNT}") == 0
    pairs = zip(lines(whole), lines(out), strict=True)
    assert [record.same(one, other) for one, other in pairs] == [[]] * COUNT
    assert [own["what"] for own in lines(out, "note")].count("restart") == 1
    capsys.readouterr()
    assert watch(decoder, scans, out, "correct=none") == 2
    assert "other settings" in capsys.readouterr().err
    assert watch(decoder, scans, out, f"volumes={COUNT}", "evidence=ema:3") == 2
    assert "other meaning" in capsys.readouterr().err


def test_listeners_get_every_record(tmp_path, scans, study):
    decoder, values, _ = study
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as free:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(30)
        free.bind(("127.0.0.1", 0))
        port, target = free.getsockname()[1], f"127.0.0.1:{udp.getsockname()[1]}"
        free.close()
        Scanner(scans, values, range(1, COUNT + 1))
        got = []

        def ask():
            while len(got) < 2:
                try:
                    url = f"http://127.0.0.1:{port}/latest"
                    with urllib.request.urlopen(url, timeout=5) as answer:
                        if answer.status == 200:
                            got.append(json.load(answer))
                except OSError:
                    pass
                time.sleep(0.05)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        out = tmp_path / "out"
        flags = f"volumes={COUNT}", f"udp={target}", f"http={port}", "target=fear"
        assert watch(decoder, scans, out, *flags) == 0
        datagrams = [json.loads(udp.recv(65536)) for _ in range(COUNT)]
        asking.join(30)
    assert [own["seq"] for own in datagrams] == list(range(COUNT))
    hashes = {own["before"] for own in journals.verify(out / journals.NAME).lines}
    assert {own["line"] for own in datagrams} <= hashes
    assert all(0 <= own["feedback"] <= 1 for own in datagrams)
    assert got and got[0]["kind"] == "volume" and got[0]["decision"] in CLASSES


def test_a_signal_leaves_a_whole_journal_and_its_report(tmp_path, scans, study):
    decoder, values, _ = study
    for number in range(1, 4):
        save(scans / f"vol_{number:04}.nii", values[number - 1])
    out = tmp_path / "out"
    words = ("watch", str(decoder), str(scans), f"--out={out}", f"--tr={TR}")
    command = [sys.executable, "-m", "emojax", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert any(line.startswith("    3  ") for line in process.stdout)
        process.send_signal(signal.SIGTERM)  # Ctrl-C may be ignored where tests run
        assert process.wait(60) == 143
    assert lines(out, "end")[0]["text"] == "stopped: SIGTERM"
    assert (out / "session.html").exists()


def test_sealed_feedback_shows_nothing_else(tmp_path, scans, study, capsys):
    decoder, values, _ = study
    sealed, out = tmp_path / "sealed.json", tmp_path / "out"
    seal = ["emojax", "seal", str(sealed), "--subjects=01", "--kinds=real"]
    assert cli.main(seal) == 0
    digest = capsys.readouterr().out.split()[-1]
    for number in range(1, 4):
        save(scans / f"vol_{number:04}.nii", values[number - 1])
    flags = "volumes=3", "target=fear", f"feedback={sealed}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(30)
        assert watch(decoder, scans, out, *flags, f"udp=127.0.0.1:{udp.getsockname()[1]}") == 0
        sent = [json.loads(udp.recv(65536)) for _ in range(3)]
    assert all(own["p"] is None and own["decision"] == "" for own in sent)
    assert all(own["feedback"] is not None for own in sent)
    said = capsys.readouterr().out
    assert not any(name in said for name in CLASSES)
    assert all(own["p"] for own in lines(out))
    path = out / journals.NAME
    assert journals.verify(path).lines[0]["meaning"]["allocation"] == digest
    again = tmp_path / "again"
    assert cli.main(["emojax", "replay", str(path), f"--out={again}"]) == 0
    assert all(own["feedback"] is None for own in lines(again))
    listener = opening._listen(FLAGS | {"http": "0"}, path)  # without the file, p stays hidden
    with contextlib.closing(listener), urllib.request.urlopen(f"{listener.page}records") as got:
        records = [json.loads(line) for line in got.read().splitlines()]
    assert [own["p"] for own in records] == [None] * 3


def test_a_lost_last_volume_does_not_keep_the_run_open(tmp_path, scans, study, monkeypatch):
    decoder, values, _ = study
    monkeypatch.setattr(loop, "PATIENCE", 3)  # TRs
    Scanner(scans, values, range(1, COUNT))
    assert watch(decoder, scans, tmp_path / "out", f"volumes={COUNT}") == 0
    assert [own["status"] for own in lines(tmp_path / "out")][-2:] == ["ok", "missing"]


def test_no_more_volumes_than_there_were_to_be(tmp_path, scans, study):
    decoder, values, _ = study
    for number in range(1, COUNT + 1):
        save(scans / f"vol_{number:04}.nii", values[number - 1])
    assert watch(decoder, scans, tmp_path / "out", "volumes=5") == 0
    assert [own["volume"] for own in lines(tmp_path / "out")] == [1, 2, 3, 4, 5]


def test_numbers_that_begin_later_are_said(tmp_path, scans, study, capsys):
    decoder, values, _ = study
    for number in range(4, 7):
        save(scans / f"vol_{number:04}.nii", values[number - 1])
    assert watch(decoder, scans, tmp_path / "out", "idle_s=1") == 0
    found = lines(tmp_path / "out")
    assert [own["status"] for own in found] == ["missing"] * 3 + ["ok"] * 3
    said = capsys.readouterr().err
    assert "volume 4 came first" in said and "--first=4" in said
    assert "3 files exist already" in said
    assert watch(decoder, scans, tmp_path / "other", "idle_s=1", "first=4") == 0
    assert [own["volume"] for own in lines(tmp_path / "other")] == [4, 5, 6]


def test_an_empty_folder_ends_when_asked(tmp_path, scans, study):
    decoder, _, _ = study
    assert watch(decoder, scans, tmp_path / "out", "idle_s=0.5", "volumes=3") == 0
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("table", ["380\t20\tfear", "0\t1\thappy"])
def test_events_that_do_not_fit_cost_the_accuracy_alone(tmp_path, scans, study, capsys, table):
    decoder, values, _ = study
    events, out = tmp_path / "events.tsv", tmp_path / "out"
    events.write_text(f"onset\tduration\ttrial_type\n{table}\n")
    for number in range(1, 4):
        save(scans / f"vol_{number:04}.nii", values[number - 1])
    assert watch(decoder, scans, out, "volumes=3", f"events={events}") == 0
    said = capsys.readouterr().err
    assert ("no accuracy in the report" in said) == ("happy" in table)
    assert (out / "session.html").exists()
    words = "volumes=3", f"events={events}", "label_map=rest=;fear=happy"
    if "happy" in table:
        assert watch(decoder, scans, tmp_path / "mapped", *words) == 0
        assert "no accuracy" not in capsys.readouterr().err


def test_a_journal_that_was_cut_in_its_first_line_begins_again(tmp_path, scans, study):
    decoder, values, _ = study
    out = tmp_path / "out"
    out.mkdir()
    (out / journals.NAME).write_bytes(b'{"kind": "start", "for')
    save(scans / "vol_0001.nii", values[0])
    assert watch(decoder, scans, out, "volumes=1") == 0
    assert len(lines(out)) == 1


def test_a_flood_of_triggers_delays_no_volume(tmp_path, scans, study):
    decoder, values, _ = study
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended = threading.Event()

    def shout():
        while not ended.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as client:
                    for i in range(2000):
                        client.sendall(f"onset {i / 1000} x\n".encode())
            except OSError:
                time.sleep(0.05)

    shouting = threading.Thread(target=shout, daemon=True)
    shouting.start()
    Scanner(scans, values, range(1, COUNT + 1))
    assert watch(decoder, scans, tmp_path / "out", f"volumes={COUNT}", f"tcp={port}") == 0
    ended.set()
    shouting.join(10)
    assert len(lines(tmp_path / "out")) == COUNT
    events = lines(tmp_path / "out", "event")
    assert events and events[0]["source"] == "tcp"


def refused(capsys, code):
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2, said
    return said[-1]


def test_what_cannot_work_is_refused_before_the_first_volume(tmp_path, scans, study, capsys):
    decoder, _, _ = study
    out = tmp_path / "out"
    assert "no such folder" in refused(capsys, watch(decoder, tmp_path / "no", out))
    assert "--out" in refused(capsys, cli.main(["emojax", "watch", str(decoder), str(scans)]))
    assert "manifest" in refused(capsys, watch(scans, scans, out))
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        line = refused(capsys, watch(decoder, scans, out, f"tcp={used.getsockname()[1]}"))
        assert "in use" in line
    for flag, said in [
        ("http=x", "port"),
        ("evidence=wrong", "evidence"),
        ("target=nobody", "nobody"),
        ("events=absent.tsv", "absent.tsv"),
        ("correct=all", "correct"),
        ("volumes=-1", "--volumes"),
        ("tr=nan", "--tr"),
        ("pattern=vol.nii", "{n}"),
        ("host=0.0.0.0", "token"),
        ("feedback=sealed.json", "--target"),
        ("tr=", "--tr"),
    ]:
        more = ("tcp=0",) if flag.startswith("host") else ()
        assert said in refused(capsys, watch(decoder, scans, out, flag, *more)), flag
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("wrong", ["shape", "affine"])
def test_a_first_volume_on_another_grid_ends_the_command(tmp_path, scans, study, capsys, wrong):
    decoder, values, _ = study
    other = values[0][:-1] if wrong == "shape" else values[0]
    affine = np.diag([3.0, 4, 4, 1]) if wrong == "affine" else AFFINE
    save(scans / "vol_0001.nii", other, affine)
    line = refused(capsys, watch(decoder, scans, tmp_path / "out"))
    assert wrong in line and "vol_0001.nii" in line
    assert not (tmp_path / "out" / journals.NAME).exists()


def test_a_later_one_is_a_record(tmp_path, scans, study):
    decoder, values, _ = study
    for number in range(1, 6):
        save(scans / f"vol_{number:04}.nii", values[number - 1])
    save(scans / "vol_0002.nii", values[1][:-1])
    (scans / "vol_0003.nii").write_bytes(b"no header" * 400)
    assert watch(decoder, scans, tmp_path / "out", "volumes=5") == 0
    found = lines(tmp_path / "out")
    assert [own["status"] for own in found] == ["ok", "unreadable", "unreadable", "ok", "ok"]


def test_a_replay_is_the_same_and_keeps_to_a_budget(tmp_path, scans, study, capsys):
    decoder, values, _ = study
    out = tmp_path / "out"
    for number in (1, 2, 3, 5, 6):
        save(scans / f"vol_{number:04}.nii", values[number - 1])
    assert watch(decoder, scans, out, "idle_s=1") == 0
    path = str(out / journals.NAME)
    events = tmp_path / "events.tsv"
    events.write_text("onset\tduration\ttrial_type\n0\t2\tfear\n")
    capsys.readouterr()
    argv = ["emojax", "replay", path, f"--events={events}"]
    assert cli.main([*argv, f"--out={tmp_path / 'again'}"]) == 0
    said = capsys.readouterr().out
    assert "6 of 6 records are the same" in said and "5 ok, 1 missing" in said
    assert "balanced accuracy" in said
    again = lines(tmp_path / "again")
    assert [record.same(*pair) for pair in zip(lines(out), again, strict=True)] == [[]] * 6
    assert cli.main([*argv, "--budget_ms=0.001"]) == 1
    assert "above the budget" in capsys.readouterr().out
    save(scans / "vol_0002.nii", values[0])
    (scans / "vol_0005.nii").unlink()
    assert cli.main(argv) == 1
    said = capsys.readouterr().out
    assert "volume 2: another status" in said and "other values than in the session" in said
    assert "volume 5: another status" in said and "no such file" in said
    assert "of 6 records are the same" in said and "6 of 6 records" not in said


@pytest.mark.parametrize("entry", [{"kind": "start", "format": 1}, {"kind": "volume"}])
def test_a_chain_of_other_lines_is_no_journal(tmp_path, scans, study, capsys, entry):
    decoder, values, _ = study
    path = tmp_path / "journal.jsonl"
    own = journals.Journal(path)
    if entry["kind"] == "volume":
        save(scans / "vol_0001.nii", values[0])
        assert watch(decoder, scans, tmp_path / "out", "volumes=1") == 0
        own.add(journals.verify(tmp_path / "out" / journals.NAME).lines[0])
    own.add(entry)
    own.close()
    assert journals.WANTED in refused(capsys, cli.main(["emojax", "replay", str(path)]))


def test_the_log_is_verified_by_command(tmp_path, scans, study, capsys):
    decoder, values, _ = study
    save(scans / "vol_0001.nii", values[0])
    out = tmp_path / "out"
    assert watch(decoder, scans, out, "volumes=1") == 0
    path = out / journals.NAME
    capsys.readouterr()
    assert cli.main(["emojax", "verify-log", str(path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert cli.main(["emojax", "verify-log", str(path), f"--expect={last}"]) == 0
    assert cli.main(["emojax", "verify-log", str(path), "--expect=abc"]) == 2
    text = path.read_text()
    path.write_text(text.replace('"status": "ok"', '"status": "no"'))
    assert "does not follow" in refused(capsys, cli.main(["emojax", "verify-log", str(path)]))
    page = tmp_path / "s.html"
    path.write_text(text)
    assert cli.main(["emojax", "session", str(path), f"--out={page}"]) == 0
    assert "Session of subject 01" in page.read_text()


def test_two_watchers_do_not_write_into_one_folder(tmp_path, scans, study, capsys):
    decoder, _, _ = study
    out = tmp_path / "out"
    out.mkdir()
    with locks.Lock(out / "lock"):
        assert "at work" in refused(capsys, watch(decoder, scans, out))
