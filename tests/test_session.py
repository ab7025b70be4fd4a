"""Statistics of a session and its report, from journals with known faults."""

import hashlib
import html
import json

import numpy as np
import pytest

from emojax.errors import InputError
from emojax.online import session
from emojax.online.session import checklist, measures
from emojax.online.watching import journal, meaning, record

CLASSES, TR, BEGUN = ("rest", "fear"), 2.0, 1.7e9
FACTS = {"provenance": [["network", 144, 144], ["<i>mask</i>", 72, 0]], "fit": [["lag", 0.0]]}
FACTS |= {"subject": "07", "trained_on": ["01", "02"], "preprocessing": [], "online": ""}
BLOCKS = "onset\tduration\ttrial_type\n3\t8\tfear\n19\t8\tfear\n"  # volumes 5-8 and 13-16


def start(**more):
    choices = meaning.Choices(events=((3.0, 8.0), (19.0, 8.0)), target="fear")
    own = {"kind": "start", "format": journal.FORMAT, "time": BEGUN, "decoder": "ab" * 32}
    own |= {"classes": list(CLASSES), "tr": TR, "folder": "/scans"}
    own |= {"settings": {"correct": "auto"}, "versions": {"emojax": "1"}, "facts": FACTS}
    return own | {"meaning": choices._asdict()} | more


def lines_of(n=20, first=1, took_ms=10.0, faults=None, extra=(), **more):
    """Returns lines of a session whose volumes are right except where `faults` change records."""
    head = start(**more)
    reader, out = meaning.Reader(CLASSES, TR, meaning.Choices(**head["meaning"])), [head]
    for seq in range(n):
        number, closed = first + seq, BEGUN + TR * (seq + 1)
        fear = 0.9 if seq % 8 >= 4 else 0.1
        own = record.build(seq, number, record.OK, [], time_closed=closed, files=[f"{number}.nii"])
        own |= {"p": {"rest": 1 - fear, "fear": fear}, "decision": CLASSES[fear > 0.5]}
        own |= {"fd_mm": 0.1, "gain": 1.0, "correlation": 0.999, "time_decoded": closed + 0.004}
        own |= {"stages_ms": {"wait": 1.0, "decode": 2.0}, **(faults or {}).get(number, {})}
        own["evidence"], own["feedback"] = reader(own)
        sent = {"kind": "sent", "seq": seq, "time_sent": closed + took_ms / 1000, "dropped": {}}
        out += [own, sent | {"stages_ms": {"journal": 0.5}}]
    return [*out, *extra]


def lost(status=record.MISSING, why="no file came"):
    none = dict.fromkeys(("p", "fd_mm", "gain", "correlation", "time_closed"))
    return none | {"status": status, "reasons": [why], "decision": "", "stages_ms": {}}


def write(folder, lines):
    path = folder / "journal.jsonl"
    made = journal.Journal(path)
    for own in lines:
        made.add(own, wait=False)
    made.close()
    return path


def table(folder):
    (folder / "events.tsv").write_text(BLOCKS)
    return folder / "events.tsv"


def test_counts_reasons_and_gaps():
    marked = {"status": record.MARKED, "reasons": ["correlation 0.4, less than 0.9975", "frozen"]}
    faults = {3: marked, 9: lost(), 10: lost(), 12: lost(record.UNREADABLE, "12.nii: found bytes")}
    faults[20] = lost()
    found = session.statistics(lines_of(faults=faults))
    assert found.volumes == {"ok": 15, "marked": 1, "missing": 3, "unreadable": 1}
    assert found.gaps == ((9, 10), (20, 20))
    assert found.reasons == {
        "no file came": 3,
        "correlation #, less than #": 1,
        "frozen": 1,
        "#.nii: found bytes": 1,
    }


def test_percentiles_are_those_of_the_journal():
    took = np.random.default_rng(0).gamma(2, 5, 200)
    lines = lines_of(200)
    for seq, ms in enumerate(took):
        lines[2 + 2 * seq]["time_sent"] = lines[1 + 2 * seq]["time_closed"] + ms / 1000
    found = session.statistics(lines).latency_ms
    own = found[measures.SENT]
    assert own["volumes"] == 200
    assert own["p99"] == pytest.approx(np.percentile(took, 99), abs=1e-3)
    assert own["max"] == pytest.approx(took.max(), abs=1e-3)
    assert list(found) == [measures.SENT, "wait", "decode", "journal"]
    assert found["journal"]["p50"] == 0.5


def test_late_records_and_files_that_were_there_before():
    faults = {1: {"time_closed": BEGUN - 100.0}}
    lines = lines_of(faults=faults)
    lines[6]["time_sent"] += 3.0
    found = session.statistics(lines)
    assert (found.late, found.earlier) == (1, 1)
    assert found.latency_ms[measures.SENT]["volumes"] == 19


def test_a_record_sent_again_counts_once_and_an_unsent_one_is_told():
    lines = lines_of()
    again = lines[2] | {"time_sent": lines[2]["time_sent"] + 50.0}
    note = {"kind": "note", "time": BEGUN, "what": "restart", "text": "", "volume": None}
    found = session.statistics([*lines[:-1], note, again])
    assert found.latency_ms[measures.SENT]["max"] == pytest.approx(10.0, abs=1e-2)
    assert found.unsent == 1 and found.notes == {"restart": 1}


def test_dropped_records_are_summed_over_restarts():
    lines = lines_of()
    for own, n in zip(lines[2::2], [0, 1, 4, 4, 0, 2] + [2] * 14, strict=True):
        own["dropped"] = {"tcp": n}
    assert session.statistics(lines).dropped == {"tcp": 6}


def test_motion_and_ranges():
    moved = {5: {"fd_mm": 0.9}, 6: {"fd_mm": 0.7, "gain": 1.1}, 7: {"correlation": 0.9}}
    labels = {n: "fear" if n in (5, 6) else "rest" for n in range(1, 21)}
    found = session.statistics(lines_of(faults=moved), labels)
    assert found.motion["max"] == 0.9 and found.motion["share"] == pytest.approx(0.1)
    assert found.motion["task"] == pytest.approx(
        abs(np.corrcoef([n in (5, 6) for n in labels], [0.1] * 4 + [0.9, 0.7] + [0.1] * 14)[0, 1])
    )
    assert found.measures["gain"] == (1.0, 1.0, 1.1)
    assert found.measures["correlation"] == (0.9, 0.999, 0.999)
    assert "task" not in session.statistics(lines_of()).motion


def test_labels_are_assigned_as_in_training(tmp_path):
    labels = session.labels_of(lines_of(), table(tmp_path))
    assert [n for n, name in labels.items() if name == "fear"] == [5, 6, 7, 8, 13, 14, 15, 16]
    later = session.labels_of(lines_of(first=101), table(tmp_path))
    assert [n for n, name in later.items() if name == "fear"][:2] == [105, 106]


def test_accuracy_by_class_and_by_place_in_the_block(tmp_path):
    wrong = {"p": {"rest": 0.8, "fear": 0.2}, "decision": "rest"}
    lines = lines_of(faults={5: wrong, 13: wrong, 15: lost()})
    found = session.statistics(lines, session.labels_of(lines, table(tmp_path)))
    own = found.accuracy["volume"]
    assert own.by_class == {"rest": (12, 12), "fear": (5, 7)}
    assert own.balanced == pytest.approx((1 + 5 / 7) / 2)
    assert own.by_position == ((3, 5), (5, 5), (4, 4), (5, 5))
    assert found.accuracy["evidence"].by_position[3] == (5, 5)


def test_a_test_that_abstains_is_counted(tmp_path):
    choices = meaning.Choices(evidence="sprt:.1", events=((3.0, 8.0), (19.0, 8.0)))._asdict()
    lines = lines_of(meaning=choices)
    own = session.statistics(lines, session.labels_of(lines, table(tmp_path))).accuracy["evidence"]
    assert own.abstained == 10  # the first two of each of five windows
    assert own.by_position == ((0, 0), (0, 0), (5, 5), (5, 5)) and own.balanced == 1.0


def test_a_report_is_one_page_that_says_it_all(tmp_path):
    end = {"kind": "end", "time": BEGUN + 50, "text": "20 volumes"}
    marked = {"status": record.MARKED, "reasons": ["correlation 0.4, less than 0.9975"]}
    path = write(tmp_path, lines_of(faults={3: marked, 9: lost()}, extra=[end]))
    out = tmp_path / "session.html"
    found = session.report(path, out, table(tmp_path))
    page = out.read_text()
    assert found.accuracy["volume"].balanced == 1.0
    assert page.count("data:image/png;base64,") == 3 and "http" not in page.split("<body>")[1]
    last = hashlib.sha256(path.read_bytes().splitlines()[-1]).hexdigest()
    for text in (last, "ab" * 32, "18 as expected, 1 marked, 1 missing", "correlation 0.4", "144"):
        assert text in page
    for name in ("quality", "log", "seen", "limits", "marks", "accuracy"):
        assert f'id="{name}"' in page
    assert "is broken" not in page and "not known here" in page


def test_texts_of_files_and_network_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    note = {"kind": "note", "time": BEGUN, "what": evil, "text": evil, "volume": 1}
    faults = {3: {"status": record.MARKED, "reasons": [evil]}}
    extra = {"folder": evil, "decoder": evil, "versions": {evil: evil}}
    extra["facts"] = FACTS | {"subject": evil, "inputs": [[evil, evil]]}
    path = write(tmp_path, lines_of(faults=faults, extra=[note], **extra))
    session.report(path, tmp_path / "session.html")
    page = (tmp_path / "session.html").read_text()
    assert "<script" not in page and "<i>" not in page
    assert html.escape(evil) in page


def test_a_broken_chain_is_shown_up_to_where_it_breaks(tmp_path):
    path = write(tmp_path, lines_of())
    lines = path.read_bytes().splitlines(keepends=True)
    lines[21] = lines[21].replace(b'"fd_mm": 0.1', b'"fd_mm": 0.2')  # of volume 11
    path.write_bytes(b"".join(lines))
    found = session.report(path, tmp_path / "session.html")
    page = (tmp_path / "session.html").read_text()
    assert "The journal is broken" in page and "line 23" in page
    assert sum(found.volumes.values()) == 10 and found.motion["max"] == 0.1


def test_an_unfinished_last_line_is_told(tmp_path):
    path = write(tmp_path, lines_of(5))
    with open(path, "ab") as file:
        file.write(b'{"kind": "vol')
    session.report(path, tmp_path / "session.html")
    assert "13 bytes of an unfinished line" in (tmp_path / "session.html").read_text()


def test_a_sealed_session_stays_blind_until_asked(tmp_path):
    choices = meaning.Choices(target="fear", allocation="cd" * 32)._asdict()
    path = write(tmp_path, lines_of(meaning=choices))
    out, events = tmp_path / "session.html", table(tmp_path)
    assert session.report(path, out, events).accuracy == {}
    page = out.read_text()
    assert "sealed file" in page and "cd" * 32 in page and 'id="accuracy"' not in page
    assert session.report(path, out, events, unblind=True).accuracy
    assert 'id="accuracy"' in out.read_text()


@pytest.mark.parametrize("n, faults", [(0, {}), (1, {}), (3, {n: lost() for n in (1, 2, 3)})])
def test_sessions_of_next_to_nothing_have_a_report(tmp_path, n, faults):
    path = write(tmp_path, lines_of(n, faults=faults, facts=None))
    session.report(path, tmp_path / "session.html", table(tmp_path) if n > 2 else None)
    assert (tmp_path / "session.html").stat().st_size > 1000


def test_what_is_no_journal_is_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "journal.jsonl"
    for content in ("", "{}\n", "[1]\n", "text\n"):
        path.write_text(content)
        with pytest.raises(InputError):
            session.report(path, tmp_path / "session.html")
    path.unlink()
    write(tmp_path, [start(), {"kind": "volume", "seq": 0, "volume": 1}])
    with pytest.raises(InputError, match="an incomplete line"):
        session.report(path, tmp_path / "session.html")
    assert not (tmp_path / "session.html").exists()


def test_steps_are_told_from_what_the_journal_says():
    def status(**more):
        lines = lines_of(4, **more)
        volumes = [own for own in lines if own["kind"] == "volume"]
        return {
            item.name: item.status
            for item in checklist.items(lines[0], volumes, session.statistics(lines))
        }

    plain = status()
    assert plain["Motion correction"] == checklist.NOT
    assert plain["Drift removal"] == checklist.DONE
    assert status(settings={"correct": "none"})["Drift removal"] == checklist.NOT
    causal = status(facts=FACTS | {"online": "drift:1+motion"}, settings={"correct": "none"})
    assert causal["Drift removal"] == causal["Regression of head motion parameters"] == "done"
    moved = status(faults={1: {"motion": [0.1] * 6}})
    assert moved["Motion correction"] == checklist.DONE


def test_statistics_are_plain_data():
    found = session.statistics(lines_of(), {1: "rest", 5: "fear"})
    assert json.loads(json.dumps(found._asdict(), allow_nan=False))
