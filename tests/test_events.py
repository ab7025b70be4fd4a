"""Volumes from events: against an independent count, real tables, laws, and what is refused."""

import os
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax.data import events
from emojax.data.events import Labelling, Timing
from emojax.errors import InputError

PATH = pathlib.Path("sub-01_events.tsv")
LABELS = Labelling(("rest", "face", "house"), {"face": 1, "house": 2}, baseline=0)


def make(*rows):
    onset, duration, value = zip(*rows, strict=True)
    return events.from_columns(PATH, onset, duration, value)


def brute_force(table, labels, timing, num_volumes, tr, steps=1000):
    """Covers each acquisition with many moments and counts them."""
    out = np.full(num_volumes, -1)
    for k in range(timing.drop_first, num_volumes):
        moments = (k + (np.arange(steps) + 0.5) / steps) * tr - timing.hrf_delay_s
        inside = (moments[:, None] >= table.onset) & (
            moments[:, None] < table.onset + table.duration
        )
        number = np.array([labels.number.get(v, -1) for v in table.value])
        share = [inside[:, number == c].any(1).mean() for c in range(len(labels.classes))]
        members = [c for c, s in enumerate(share) if s >= timing.min_overlap - 0.5 / steps]
        if len(members) == 1:
            out[k] = members[0]
        if not members and labels.baseline >= 0:
            free = 1 - inside.any(1).mean()
            out[k] = labels.baseline if free >= timing.min_overlap - 0.5 / steps else -1
    return out


@pytest.mark.parametrize(
    "timing",
    [
        Timing(),
        Timing(0.0, 1.0),
        Timing(6.0, 0.25, "drop", 3),
        Timing(-1.0, 0.75, "drop"),
    ],
    ids=str,
)
def test_agrees_with_counting_moments(timing):
    rng = np.random.default_rng(1)
    onset = np.sort(rng.uniform(0, 115, 24).round(2))
    rows = zip(
        onset,
        rng.uniform(0.5, 4, 24).round(2),
        rng.choice(["face", "house", "cue"], 24),
        strict=True,
    )
    table = make(*rows)
    timing = timing._replace(conflicts="drop")
    got = events.assign(table, LABELS, timing, 60, 2.0)
    np.testing.assert_array_equal(got, brute_force(table, LABELS, timing, 60, 2.0))
    assert len(set(got)) >= 3


def test_lag_shifts_whole_volumes():
    table = make((0, 20, "face"), (40, 20, "house"))
    at_once = events.assign(table, LABELS, Timing(0.0), 50, 2.0)
    lagged = events.assign(table, LABELS, Timing(6.0), 50, 2.0)
    np.testing.assert_array_equal(at_once[:-3], lagged[3:])
    np.testing.assert_array_equal(np.flatnonzero(at_once == 1), np.arange(10))


def test_default_delay_of_a_block_gives_ten_volumes():
    # 5 s after 20 s: volumes 22..32 touch [45, 65); 22 and 32 by half, which is enough.
    got = events.assign(make((40, 20, "face")), LABELS, Timing(), 50, 2.0)
    np.testing.assert_array_equal(np.flatnonzero(got == 1), np.arange(22, 33))


def test_an_event_without_a_class_is_no_rest():
    got = events.assign(make((0, 20, "face"), (20, 20, "cue")), LABELS, Timing(0.0), 30, 2.0)
    np.testing.assert_array_equal(got, [1] * 10 + [-1] * 10 + [0] * 10)


def test_without_baseline_gaps_have_no_class():
    labels = LABELS._replace(baseline=-1)
    got = events.assign(make((0, 20, "face")), labels, Timing(0.0), 20, 2.0)
    np.testing.assert_array_equal(got, [1] * 10 + [-1] * 10)


def test_overlapping_events_of_one_class_count_once():
    table = make((0, 0.6, "face"), (0.2, 0.4, "face"))  # together 0.6 s of a volume of 2 s
    assert events.assign(table, LABELS, Timing(0.0, 0.4), 2, 2.0)[0] != 1
    assert events.assign(table, LABELS, Timing(0.0, 0.3), 2, 2.0)[0] == 1


def test_two_classes_at_once():
    table = make((0, 20, "face"), (10, 20, "house"))
    with pytest.raises(
        InputError, match=r"5 volumes in two classes \(first: volume 5, face and house"
    ):
        events.assign(table, LABELS, Timing(0.0), 20, 2.0)
    got = events.assign(table, LABELS, Timing(0.0, conflicts="drop"), 20, 2.0)
    np.testing.assert_array_equal(got, [1] * 5 + [-1] * 5 + [2] * 5 + [0] * 5)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([(100, 5, "face")], r"an onset at 100 s; expected onsets before the end of the run, 40 s"),
        ([(0, 0, "face")], r"duration 0 or n/a of 'face' at 0 s"),
    ],
)
def test_refuses_events_that_cannot_be_used(rows, match):
    with pytest.raises(InputError, match=match):
        events.assign(make(*rows), LABELS, Timing(), 20, 2.0)


def test_label_map_is_parsed_in_order():
    got = events.parse_label_map("rest= ; bad = fear|anger;good=joy;")
    assert list(got.items()) == [("rest", ()), ("bad", ("fear", "anger")), ("good", ("joy",))]


@pytest.mark.parametrize("text", ["a", "a=x;a=y", "a=x;b=x", "=x", "rest=;gap="])
def test_label_map_refuses(text):
    with pytest.raises(InputError, match=r"data.label_map"):
        events.parse_label_map(text)


def test_labelling_lists_what_exists():
    tables = [make((0, 1, "face"), (2, 1, "house")), make((0, 1, "face"))]
    assert events.labelling(tables, "", "trial_type").classes == ("face", "house")
    with pytest.raises(InputError, match=r"value 'faces' of class 'x'; .* face \(2\), house \(1\)"):
        events.labelling(tables, "rest=;x=faces", "trial_type")
    with pytest.raises(InputError, match="two or more"):
        events.labelling(tables, "x=face", "trial_type")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("onset\tduration\n1\t2\n", "a column 'trial_type'"),
        ("onset\tduration\ttrial_type\n", "no events; expected at least one"),
        ("", "columns none"),
        ("onset\tduration\ttrial_type\n1\tlong\ta\n", "'long' in line 2, column 'duration'"),
        ("onset\tduration\ttrial_type\nn/a\t1\ta\n", "'n/a' in line 2, column 'onset'"),
        ("onset\tduration\ttrial_type\n1\t2\n", "2 cells in line 2; expected 3"),
        ("onset\tduration\ttrial_type\n1\t-2\ta\n", "duration -2 s"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, match):
    path = tmp_path / "events.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=match) as error:
        events.read(path, "trial_type")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_byte_order_mark_and_windows_lines_are_read(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_bytes("\ufeffonset\tduration\ttrial_type\r\n4\t2\tb\r\n1\tn/a\ta\r\n".encode())
    got = events.read(path, "trial_type")
    assert got.value == ("a", "b") and got.duration.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"min_overlap": 0.0}, "data.min_overlap: found 0.0"),
        ({"conflicts": "ignore"}, "expected one of error, drop"),
        ({"drop_first": -1}, "data.drop_first"),
        ({"hrf_delay_s": float("nan")}, "data.hrf_delay_s"),
    ],
)
def test_settings_out_of_range(config, setting, match):
    config.data.update(setting)
    with pytest.raises(InputError, match=match):
        events.timing(config.data)


CELL = st.one_of(
    st.floats(-50, 500).map(lambda v: f"{v:.3f}"),
    st.sampled_from(
        ["n/a", "", "1e9", "nan", "inf", "-1", "0x1", "1,5", "face", "house", "\u00e9"]
    ),
    st.text(st.characters(blacklist_characters="\t\n\r"), max_size=4),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows=st.lists(st.lists(CELL, min_size=2, max_size=4), max_size=6), tr=st.floats(0.1, 5))
def test_any_table_gives_labels_or_one_line(tmp_path_factory, rows, tr):
    path = tmp_path_factory.getbasetemp() / "fuzz_events.tsv"
    lines = ["onset\tduration\ttrial_type"] + ["\t".join(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        table = events.read(path, "trial_type")
        got = events.assign(table, LABELS, Timing(), 30, tr)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert got.shape == (30,) and set(got) <= {-1, 0, 1, 2}


def test_every_table_of_a_real_study_is_assigned(shared):
    """34 subjects x 6 runs; the volumes of each condition against counting moments."""
    root = shared("data/bids-events/ds000108")
    paths = sorted(root.glob("sub-*/func/*_events.tsv"))
    tables = [events.read(path, "trial_type") for path in paths]
    assert len(tables) == 204
    text = "rest=;neutral=Look_Neutral_Stim;negative=Look_Neg_Stim"
    labels = events.labelling(tables, text, "trial_type")
    counts = [sum(table.value.count(v) for table in tables) for v in labels.number]
    assert counts == [814, 815]
    for table in tables[::17]:
        num_volumes = int(table.onset[-1] // 2) + 8
        got = events.assign(table, labels, Timing(conflicts="drop"), num_volumes, 2.0)
        want = brute_force(table, labels, Timing(conflicts="drop"), num_volumes, 2.0)
        assert (got != want).mean() < 0.01  # moments are 2 ms apart
        assert np.bincount(got[got >= 0], minlength=3).min() > 0


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("onset\tonset\tduration\ttrial_type\n1\t2\t3\ta\n", "two columns 'onset'"),
        ("onset\tduration\ttrial_type\n1\t2\ta\0b\n", "NUL in it"),
        ("onset\tduration\ttrial_type\n1_0\t2\ta\n", "'1_0' in line 2, column 'onset'"),
        ("onset\tduration\ttrial_type\n\u00b2\t2\ta\n", "in line 2, column 'onset'"),
    ],
)
def test_refuses_cells_and_columns(tmp_path, text, match):
    (tmp_path / "events.tsv").write_text(text)
    with pytest.raises(InputError, match=match):
        events.read(tmp_path / "events.tsv", "trial_type")


def test_an_empty_value_is_no_class():
    table = make((0, 10, "face"), (10, 10, ""), (20, 10, "n/a"), (30, 10, "house"))
    assert events.labelling([table], "", "trial_type").classes == ("face", "house")


def test_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "events.tsv")
    with pytest.raises(InputError, match="something that is no file; expected text with a header"):
        events.read(tmp_path / "events.tsv", "trial_type")
