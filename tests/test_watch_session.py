"""A session: every volume has one record, in the journal before it is sent; restarts resume."""

import errno
import json
import os

import numpy as np
import pytest
from tiny_decoder import AFFINE, CLASSES, made

from emojax import online
from emojax.online.watching import journal as journals
from emojax.online.watching import record
from emojax.online.watching.scans import Scan, digest
from emojax.online.watching.session import ANEW, Session

TEXTS = ("", "gain+cumulative", "gain+drift:1+zscore")


def scan(number, values, affine=AFFINE, reason=""):
    own = None if reason else np.asarray(values, np.float32)
    hashed = "" if own is None else digest(own)
    return Scan(number, own, affine, 2.0, None, 10.0, 10.001, (f"v{number}.nii",), hashed, reason)


class Listener:
    """A listener that checks whether the journal already has what is sent."""

    def __init__(self, path):
        self.path, self.got, self.journaled = path, [], []

    def __call__(self, line, own):
        assert json.loads(line) == journals.as_read(own)
        self.got.append(own)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.journaled.append(any(f'"seq": {own["seq"]},' in text for text in lines))


def session(folder, decoder, earlier=None, correct="auto"):
    folder.mkdir(exist_ok=True)
    path = folder / journals.NAME
    own = journals.Journal(path, earlier)
    found = Session(online.init(decoder, correct), own)
    found.send = Listener(path)
    if earlier:
        found.resume(earlier)
    else:
        found.start({"decoder": "x", "tr": 2.0})
    return found


def volumes(path):
    return [own for own in journals.verify(path).lines if own["kind"] == "volume"]


@pytest.fixture(scope="module", params=TEXTS)
def study(request):
    decoder, later, _ = made(online_text=request.param)
    return decoder, later[:10]


def test_records_are_those_of_online_step(tmp_path, study):
    decoder, run = study
    own = session(tmp_path, decoder)
    for i, values in enumerate(run):
        own.emit(i + 1, scan(i + 1, values))
    own.end("over")
    expected = online.replay(decoder, run, AFFINE)
    for line, known in zip(volumes(tmp_path / journals.NAME), expected, strict=True):
        assert [line["p"][name] for name in CLASSES] == list(map(float, known.probabilities))
        assert (line["decision"], line["status"]) == (known.decision, known.status)
        assert line["correlation"] == float(known.marks.correlation)
        assert line["motion"] == list(map(float, known.motion))
        assert line["stages_ms"]["wait"] == pytest.approx(1, abs=0.1)
    assert own.send.journaled == [True] * len(run)
    sent = own.send.got
    assert [line["seq"] for line in sent] == list(range(len(run)))
    assert all(line["time_sent"] >= line["time_decoded"] for line in sent)
    whole = journals.verify(own.journal.path)
    lines = [line for line in whole.lines if line["kind"] == "volume"]
    assert [line["line"] for line in sent] == [whole.hash_of(line) for line in lines]


@pytest.mark.parametrize("place", [1, 4, 9])
def test_a_restart_at_any_volume_ends_with_the_same_records(tmp_path, study, place):
    decoder, run = study
    whole = session(tmp_path / "whole", decoder)
    for i, values in enumerate(run):
        whole.emit(i + 1, scan(i + 1, values))
    first = session(tmp_path / "cut", decoder)
    for i, values in enumerate(run[:place]):
        first.emit(i + 1, scan(i + 1, values))
    os.close(first.journal._file)  # as a kill leaves it
    path = tmp_path / "cut" / journals.NAME
    second = session(tmp_path / "cut", decoder, journals.verify(path))
    for i, values in enumerate(run[place:], place):
        second.emit(i + 1, scan(i + 1, values))
    second.end("over")
    pairs = zip(volumes(whole.journal.path), volumes(path), strict=True)
    assert [record.same(one, other) for one, other in pairs] == [[]] * len(run)


def test_a_record_that_may_not_have_been_sent_is_sent_again_with_its_number(tmp_path, study):
    decoder, run = study
    first = session(tmp_path, decoder)
    for i, values in enumerate(run[:3]):
        first.emit(i + 1, scan(i + 1, values))
    os.close(first.journal._file)
    path = tmp_path / journals.NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))  # killed between the record and the note of its sending
    again = session(tmp_path, decoder, journals.verify(path))
    assert [own["seq"] for own in again.send.got] == [2]
    assert again.send.got[0]["line"] == first.send.got[-1]["line"]
    assert record.same(again.send.got[0], first.send.got[-1]) == []
    os.close(again.journal._file)
    assert session(tmp_path, decoder, journals.verify(path)).send.got == []  # once is enough


def test_gaps_and_unreadable_files_are_records(tmp_path, study):
    decoder, run = study
    own = session(tmp_path, decoder)
    own.emit(1, scan(1, run[0]))
    gap = own.emit(2, None, "half written: 3 of 5 MB")
    bad = own.emit(3, scan(3, None, reason="damaged"))
    other = own.emit(4, scan(4, np.ones((3, 3, 3))))
    nans = own.emit(5, scan(5, run[4] * np.nan))
    good = own.emit(6, scan(6, run[5]))
    assert [x["status"] for x in (gap, bad, other, nans)] == ["missing", *["unreadable"] * 3]
    assert gap["reasons"] == ["half written: 3 of 5 MB"] and bad["reasons"] == ["damaged"]
    assert "(3, 3, 3)" in other["reasons"][0] and "not finite" in nans["reasons"][0]
    assert gap["p"] is None and gap["decision"] == "" and gap["files"] == []
    assert [x["missed"] for x in (gap, bad, other, nans, good)] == [1, 2, 3, 4, 4]
    assert good["p"] is not None and good["seq"] == 5
    assert {len(x) for x in (gap, bad, other, nans, good)} == {len(good)}


def test_a_frozen_scanner_is_marked_behind_a_restart_too(tmp_path, study):
    decoder, run = study
    first = session(tmp_path, decoder)
    first.emit(1, scan(1, run[0]))
    os.close(first.journal._file)
    second = session(tmp_path, decoder, journals.verify(first.journal.path))
    assert "the same as the volume before" in second.emit(2, scan(2, run[0]))["reasons"]


def test_a_good_volume_behind_two_bad_ones_is_good(tmp_path, study):
    decoder, run = study
    own = session(tmp_path, decoder)
    bad = scan(2, run[1] * np.nan)
    own.emit(1, scan(1, run[0]))
    own.emit(2, bad)
    own.emit(3, bad._replace(number=3))
    assert own.emit(4, scan(4, run[3]))["reasons"] == []


def test_lost_memory_is_said(tmp_path):
    decoder, run, _ = made(online_text="gain+cumulative")
    first = session(tmp_path, decoder)
    for i in range(3):
        first.emit(i + 1, scan(i + 1, run[i]))
    os.close(first.journal._file)
    for path in tmp_path.glob("memory-*.npz"):
        path.write_bytes(path.read_bytes()[:50])
    second = session(tmp_path, decoder, journals.verify(first.journal.path))
    assert ANEW in second.emit(4, scan(4, run[3]))["reasons"]
    assert ANEW not in second.emit(5, scan(5, run[4]))["reasons"]


def test_a_full_disk_does_not_end_the_run_and_the_journal_has_it_all_in_the_end(
    tmp_path, monkeypatch, capsys
):
    decoder, run, _ = made()
    own = session(tmp_path, decoder)
    own.emit(1, scan(1, run[0]))
    real = os.write

    def full(file, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    for i in (1, 2, 3):
        sent = own.emit(i + 1, scan(i + 1, run[i]))
        assert sent["p"] is not None and "not in the journal" in sent["reasons"][-1]
    assert "No space left" in capsys.readouterr().err
    monkeypatch.setattr(os, "write", real)
    sent = own.emit(5, scan(5, run[4]))
    assert sent["reasons"] == [] and sent["line"]
    own.end("over")
    assert [line["seq"] for line in volumes(own.journal.path)] == [0, 1, 2, 3, 4]
    notes = [line for line in journals.verify(own.journal.path).lines if line["kind"] == "note"]
    assert [line["what"] for line in notes] == ["disk"]


def test_evidence_and_feedback_are_read_in_order_and_again_at_a_restart(tmp_path):
    decoder, run, _ = made()

    def reader():
        seen = []

        def read(line):
            if line["kind"] in ("volume", "event"):
                seen.append(line["kind"])
            return {"n": len(seen)}, len(seen) / 10

        return read

    first = session(tmp_path, decoder)
    first.read = reader()
    first.emit(1, scan(1, run[0]))
    first.event({"onset": 3.0, "label": "fear"})
    assert first.emit(2, scan(2, run[1]))["evidence"] == {"n": 3}
    os.close(first.journal._file)
    found = journals.verify(first.journal.path)
    journal = journals.Journal(first.journal.path, found)
    second = Session(online.init(decoder), journal, read=reader())
    second.resume(found)
    assert second.emit(3, scan(3, run[2]))["feedback"] == 0.4


def test_what_may_not_be_seen_is_not_sent_but_kept(tmp_path):
    decoder, run, _ = made()
    own = session(tmp_path, decoder)
    own.visible = lambda found: found | {"p": None}
    own.emit(1, scan(1, run[0]))
    assert own.send.got[0]["p"] is None
    assert volumes(own.journal.path)[0]["p"] is not None


def test_a_record_has_no_other_keys():
    with pytest.raises(TypeError, match="unknown keys"):
        record.build(0, 1, record.OK, [], extra=1)
