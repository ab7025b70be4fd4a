"""The journal: records can be read again, and no line can be changed unnoticed."""

import errno
import json
import math
import os

import hypothesis
import pytest
from hypothesis import strategies as st

from emojax.errors import InputError
from emojax.online.watching import journal

START = {"kind": "start", "format": 1, "decoder": "d", "settings": {"tr": 2.0}}


def volume(seq, **more):
    return {"kind": "volume", "seq": seq, "volume": seq + 1, "p": {"a": 0.1, "b": 0.9}} | more


def sent(seq, time):
    return {"kind": "sent", "seq": seq, "time_sent": time}


def write(path, entries):
    own = journal.Journal(path)
    for entry in entries:
        own.add(entry)
    own.close()
    return own.last


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda own: st.lists(own, max_size=3) | st.dictionaries(st.text(), own, max_size=3),
    max_leaves=8,
)


@hypothesis.given(
    st.lists(st.dictionaries(st.text(min_size=1), json_values, max_size=4), max_size=5)
)
def test_lines_come_back_as_they_went(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("journal") / journal.NAME
    entries = [own | {"kind": "note"} for own in entries]
    last = write(path, [START, *entries])
    found = journal.verify(path)
    assert found.last == last and found.size == path.stat().st_size
    for line, entry in zip(found.lines, [START, *entries], strict=True):
        assert {k: v for k, v in line.items() if k != "before"} == {
            k: v for k, v in entry.items() if k != "before"
        }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null(tmp_path, value):
    write(tmp_path / "j", [START, volume(0, gain=value, motion=[value, 1.0])])
    text = (tmp_path / "j").read_text()
    assert "NaN" not in text and "Infinity" not in text
    line = json.loads(text.splitlines()[1])
    assert line["gain"] is None and line["motion"] == [None, 1.0]


def test_every_change_is_found(tmp_path):
    """Changes are a bit, a digit, a removed line, two swapped lines, an added line."""
    path = tmp_path / "j"
    write(path, [START, *(volume(i) for i in range(5))])
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    others = [
        whole.replace(b'"b": 0.9', b'"b": 0.8', 1),
        b"".join([*lines[:2], *lines[3:]]),
        b"".join([*lines[:2], lines[3], lines[2], *lines[4:]]),
        b"".join([*lines[:3], lines[2], *lines[3:]]),
        b"".join(lines[1:]),
        whole[:40] + bytes([whole[40] ^ 1]) + whole[41:],
        b"[1]\n" + whole,
        b"",
    ]
    for other in others:
        path.write_bytes(other)
        with pytest.raises(InputError) as caught:
            journal.verify(path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    path.write_bytes(b"".join(lines[:-1]))  # a shorter one is whole, but not the same
    assert journal.verify(path).last == json.loads(lines[-1])["before"]


def test_an_unfinished_line_is_cut_off_and_the_chain_goes_on(tmp_path):
    path = tmp_path / "j"
    write(path, [START, volume(0)])
    with open(path, "ab") as file:
        file.write(b'{"kind": "volume", "se')
    found = journal.verify(path)
    assert len(found.lines) == 2 and found.size < path.stat().st_size
    own = journal.Journal(path, found)
    own.add(volume(1))
    own.close()
    assert [line["kind"] for line in journal.verify(path).lines] == ["start", "volume", "volume"]


def test_the_hash_of_a_line_is_what_the_next_one_holds(tmp_path):
    path = tmp_path / "j"
    own = journal.Journal(path)
    hashes = [own.add(entry) for entry in (START, volume(0), volume(1))]
    own.close()
    found = journal.verify(path)
    assert [found.hash_of(line) for line in found.lines] == hashes


def test_records_are_those_from_a_number_on_with_their_times(tmp_path):
    path = tmp_path / "j"
    note = {"kind": "note", "what": "late", "text": "x"}
    write(path, [START, volume(0), sent(0, 5.0), volume(1), note, sent(1, 6.0), volume(2)])
    found = list(journal.records(path, 1))
    assert [own["seq"] for own in found] == [1, 2]
    assert [own["time_sent"] for own in found] == [6.0, None]
    whole = journal.verify(path)
    assert found[0]["line"] == whole.hash_of(whole.lines[3])
    assert all("before" not in own for own in found)
    assert len(list(journal.records(path))) == 3


@pytest.mark.parametrize("written", [0, 10])
def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch, written):
    path = tmp_path / "j"
    own = journal.Journal(path)
    own.add(START)
    before, real = path.read_bytes(), os.write

    def full(file, data):
        if written:
            return real(file, data[:written])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        own.add(volume(0))
    assert path.read_bytes() == before
    monkeypatch.undo()
    own.add(volume(0))
    assert len(journal.verify(path).lines) == 2


def test_a_name_in_any_script_is_kept_and_half_a_letter_does_no_harm(tmp_path):
    write(tmp_path / "j", [START, volume(0, files=["läuft_\udcff.nii"])])
    line = journal.verify(tmp_path / "j").lines[1]
    assert line["files"][0].startswith("läuft_")
