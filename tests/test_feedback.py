"""Feedback, sham and yoked values, and the sealed file that says who gets what."""

import collections
import hashlib
import json
import math

import numpy as np
import pytest

from emojax.cli import seal as command
from emojax.errors import InputError
from emojax.online import allocation, feedback
from emojax.online.watching import journal

CLASSES = ("rest", "fear", "calm")


def p(fear):
    return {"rest": (1 - fear) / 2, "fear": fear, "calm": (1 - fear) / 2}


def run(text, rows, own=None, **options):
    state, out = feedback.init(text, CLASSES, own), []
    for i, row in enumerate(rows):
        state, value = feedback.step(state, row, None, i + 1, **options)
        out.append(value)
    return out


def write_journal(path, values):
    """Writes a journal of a session that has shown these values."""
    path.unlink(missing_ok=True)
    made = journal.Journal(path)
    made.add({"kind": "start", "format": journal.FORMAT})
    for number, value in values.items():
        made.add({"kind": "volume", "volume": number, "feedback": value}, wait=False)
    made.close()
    return path


def test_chance_is_a_half_and_the_limits_are_0_and_1():
    found = run("fear,limit=2", [p(1 / 3), p(1.0), p(0.0), p(0.9999), p(0.6)])
    want = 0.5 + math.log(0.6 / 0.4 * 2) / 4
    np.testing.assert_allclose(found, [0.5, 1.0, 0.0, 1.0, want])


def test_smoothing_is_an_exponential_mean_of_the_values_there_are():
    plain = run("fear", [p(0.2), p(0.7), p(0.5)])
    found = run("fear,smooth=1", [p(0.2), None, p(0.7), p(0.5)])
    first, second, third = plain
    want = [first, None, (first + second) / 2, ((first + second) / 2 + third) / 2]
    assert found == [None if own is None else pytest.approx(own) for own in want]


def test_missing_and_marked_volumes_have_none():
    assert run("fear", [None, p(0.5)], marked=True) == [None, None]
    assert run("fear,marked=yes", [p(1 / 3)], marked=True) == [pytest.approx(0.5)]


def test_evidence_may_stand_for_the_volume():
    state = feedback.init("fear,of=evidence,limit=3", CLASSES)
    found = {"log_odds": {"rest": 0.0, "fear": -math.log(2) + 1.5, "calm": 0.0}}
    assert feedback.step(state, p(0.9), found, 1)[1] == pytest.approx(0.75)
    assert feedback.step(state, p(0.9), None, 1)[1] is None


@pytest.mark.parametrize(
    "text",
    ["", "anger", "fear,limit=0", "fear,smooth=-1", "fear,of=both", "fear,limit=nan", "fear,"],
)
def test_settings_that_mean_nothing_are_refused(text):
    with pytest.raises(InputError, match="feedback"):
        feedback.init(text, CLASSES)


def test_the_seal_opens_for_each_subject_and_its_hash_is_that_of_the_file(tmp_path):
    path = tmp_path / "allocation.json"
    given = {"01": "real", "02": "sham", "03": "real"}
    digest = feedback.seal(path, given)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    opened = {name: feedback.open_sealed(path, name) for name in given}
    assert {name: own.kind for name, own in opened.items()} == given
    assert {own.sha256 for own in opened.values()} == {digest}
    assert "sham" not in path.read_text() and "02" not in json.loads(path.read_text())["about"]
    with pytest.raises(InputError, match="a new name"):
        feedback.seal(path, given)


def test_equal_allocations_have_different_hashes(tmp_path):
    digests = {feedback.seal(tmp_path / f"{i}.json", {"01": "real"}) for i in range(3)}
    assert len(digests) == 3
    assert feedback.seal(tmp_path / "a", {"01": "real"}, 7) == feedback.seal(
        tmp_path / "b", {"01": "real"}, 7
    )


def test_sham_has_the_distribution_and_autocorrelation_of_a_real_run(tmp_path):
    rng, z, values = np.random.default_rng(3), 0.0, {}
    for number in range(1, 401):
        z = 0.8 * z + 0.6 * rng.normal()
        values[number] = float(np.clip(0.4 + 0.3 * z, 0, 1))
    write_journal(tmp_path / "pilot.jsonl", values)
    feedback.seal(tmp_path / "a.json", {"01": "sham:pilot.jsonl", "02": "real"}, seed=1)
    own = feedback.open_sealed(tmp_path / "a.json", "01", "run-1")
    found = np.array(run("fear", [p(0.5)] * 3000, own))
    real = np.array(list(values.values()))
    assert np.quantile(found, [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(real, [0.1, 0.5, 0.9]), abs=0.1
    )
    assert np.corrcoef(found[1:], found[:-1])[0, 1] == pytest.approx(
        np.corrcoef(real[1:], real[:-1])[0, 1], abs=0.08
    )
    assert abs(np.corrcoef(found[:400], real)[0, 1]) < 0.3  # not that run again
    again = feedback.open_sealed(tmp_path / "a.json", "01", "run-1")
    assert run("fear", [p(0.1)] * 50, again) == found[:50].tolist()  # whatever the volumes are
    other = feedback.open_sealed(tmp_path / "a.json", "01", "run-2")
    assert run("fear", [p(0.5)] * 50, other) != found[:50].tolist()


def test_sham_without_a_run_stays_in_range_and_wanders(tmp_path):
    feedback.seal(tmp_path / "a.json", {"01": "sham"}, seed=1)
    found = np.array(run("fear", [p(0.5)] * 2000, feedback.open_sealed(tmp_path / "a.json", "01")))
    assert found.min() == 0 and found.max() == 1 and abs(found.mean() - 0.5) < 0.06
    assert np.corrcoef(found[1:], found[:-1])[0, 1] == pytest.approx(0.75, abs=0.07)


def test_yoked_values_are_those_of_the_same_volume(tmp_path):
    write_journal(tmp_path / "other.jsonl", {1: 0.2, 2: None, 3: 0.4})
    feedback.seal(tmp_path / "a.json", {"01": "yoked:other.jsonl"})
    own = feedback.open_sealed(tmp_path / "a.json", "01")
    assert run("fear", [p(0.9)] * 4, own) == [0.2, 0.2, 0.4, 0.4]
    assert run("fear", [p(0.9), None, None, p(0.9)], own) == [0.2, None, None, 0.4]


def test_listed_values_are_those_of_the_file(tmp_path):
    (tmp_path / "sham.txt").write_text("0.1\n0.9\n")
    feedback.seal(tmp_path / "a.json", {"01": "list:sham.txt"})
    own = feedback.open_sealed(tmp_path / "a.json", "01")
    assert run("fear", [p(0.9)] * 3, own) == [0.1, 0.9, 0.9]


def test_control_values_are_absent_where_real_ones_are(tmp_path):
    rows = [p(0.9) if i % 3 else None for i in range(12)]
    feedback.seal(tmp_path / "a.json", {"01": "real", "02": "sham"}, seed=2)
    both = [run("fear", rows, feedback.open_sealed(tmp_path / "a.json", s)) for s in ("01", "02")]
    assert [[own is None for own in values] for values in both] == [
        [i % 3 == 0 for i in range(12)]
    ] * 2


def test_what_is_sent_of_a_sealed_session_is_feedback_alone():
    record = {"volume": 1, "p": p(0.5), "decision": "fear", "evidence": {"p": {}}, "feedback": 0.7}
    shown = feedback.visible(record, sealed=True)
    assert shown == {"volume": 1, "p": None, "decision": "", "evidence": None, "feedback": 0.7}
    assert list(shown) == list(record) and record["decision"] == "fear"
    assert feedback.visible(record, sealed=False) == record


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", '{"format": 1, "sealed": "?"}', '{"format": 1, "sealed": "W10="}'),
        "[" * 100_000,
    ],
)
def test_files_that_are_no_allocation_are_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match="no allocation file"):
        feedback.open_sealed(tmp_path / "a.json", "01")


def test_refusals_do_not_unblind(tmp_path):
    gone, bad = write_journal(tmp_path / "gone.jsonl", {1: 0.5}), tmp_path / "bad.txt"
    bad.write_text("0.5 0.7")
    feedback.seal(tmp_path / "a.json", {"01": "yoked:gone.jsonl", "02": "list:bad.txt"})
    gone.unlink()
    bad.write_text("0.5 seven")
    for subject in ("01", "02", "03"):
        with pytest.raises(InputError) as caught:
            feedback.open_sealed(tmp_path / "a.json", subject)
        said = str(caught.value).replace(str(tmp_path), "")
        assert "yoked" not in said and "gone" not in said and "bad" not in said
    with pytest.raises(InputError, match="allocation of 01"):
        feedback.seal(tmp_path / "b.json", {"01": "placebo"})
    with pytest.raises(InputError, match="gone"):
        feedback.seal(tmp_path / "b.json", {"01": "sham:gone.jsonl"})
    with pytest.raises(InputError, match="no such folder"):
        feedback.seal(tmp_path / "absent" / "b.json", {"01": "real"})


def test_a_draw_is_balanced_and_repeatable():
    subjects = [f"{i:02}" for i in range(9)]
    found = feedback.draw(subjects, ("real", "sham"), seed=5)
    assert found == feedback.draw(subjects, ("real", "sham"), seed=5)
    assert sorted(collections.Counter(found.values()).values()) == [4, 5]
    assert found != feedback.draw(subjects, ("real", "sham"), seed=6)
    many = [feedback.draw(subjects)[subjects[0]] for _ in range(40)]
    assert set(many) == {"real", "sham"}
    with pytest.raises(InputError, match="different names"):
        feedback.draw(["01", "01"])


def test_the_command_draws_or_reads_a_table(tmp_path, capsys):
    out = tmp_path / "a.json"
    command.seal(["emojax seal", str(out), "--subjects=01,02,03,04"])
    assert capsys.readouterr().out.split() == ["sha256", feedback.open_sealed(out, "01").sha256]
    kinds = [feedback.open_sealed(out, f"0{i}").kind for i in range(1, 5)]
    assert sorted(kinds) == ["real", "real", "sham", "sham"]
    (tmp_path / "t.tsv").write_text("subject\tfeedback\n01\tsham\n02\treal\n")
    command.seal(["emojax seal", str(tmp_path / "b.json"), f"--table={tmp_path / 't.tsv'}"])
    assert feedback.open_sealed(tmp_path / "b.json", "01").kind == allocation.SHAM
    for flags in ([], ["--subjects=01", f"--table={tmp_path / 't.tsv'}"]):
        with pytest.raises(InputError, match="--subjects"):
            command.seal(["emojax seal", str(tmp_path / "c.json"), *flags])
