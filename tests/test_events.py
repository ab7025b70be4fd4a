"""Tables of events: reading, refusals, and the settings that belong to them."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax.data import events
from emojax.data.label_map import Labelling
from emojax.data.labels import assign
from emojax.data.windows import regular
from emojax.errors import InputError

LABELS = Labelling(("rest", "face", "house"), {"face": 1, "house": 2}, baseline=0)


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
    assert got.value == ("a", "b")
    np.testing.assert_array_equal(got.duration, [np.nan, 2])


def test_what_is_unknown_is_not_zero(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tduration\ttrial_type\n1\tn/a\ta\n2\t\tb\n3\t0\tc\n4\t1.5\tn/a\n")
    got = events.read(path, "trial_type")
    np.testing.assert_array_equal(got.duration, [np.nan, np.nan, 0, 1.5])
    assert got.value == ("a", "b", "c", "")


def test_names_of_columns_get_one_spelling(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset \tduration\te\u0301motion \n1\t2\ta\n", encoding="utf-8")
    assert events.read(path, "\u00e9motion").value == events.read(path, "e\u0301motion").value


def test_values_get_one_spelling(tmp_path):
    path = tmp_path / "events.tsv"
    values = ["Cafe\u0301", "Caf\u00e9 ", "[red]", ":x:", "\u4e2d\u6027", "a|b;c=d\\", "x" * 5000]
    rows = "".join(f"{i}\t1\t{value}\n" for i, value in enumerate(values))
    path.write_text(f"onset\tduration\ttrial_type\n{rows}", encoding="utf-8")
    assert events.read(path, "trial_type").value == ("Caf\u00e9", "Caf\u00e9", *values[2:])


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"min_overlap": 0.0}, "data.min_overlap: found 0.0"),
        ({"conflicts": "ignore"}, "expected one of error, drop"),
        ({"drop_first": -1}, "data.drop_first"),
        ({"hrf_delay_s": float("nan")}, "data.hrf_delay_s"),
        ({"event_duration_s": -1.0}, "data.event_duration_s: found -1.0; expected seconds >= 0"),
        ({"event_duration_s": float("inf")}, "data.event_duration_s"),
    ],
)
def test_settings_out_of_range(config, setting, match):
    config.data.update(setting)
    with pytest.raises(InputError, match=match):
        events.timing(config.data)


def test_settings_are_those_of_the_config(config):
    assert events.timing(config.data) == events.Timing()
    config.data.update({"event_duration_s": 4.0, "min_overlap": 0.25, "conflicts": "drop"})
    assert events.timing(config.data) == events.Timing(5.0, 0.25, "drop", 0, 4.0)


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
        got = assign(table, LABELS, events.Timing(), regular(30, tr)).labels
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
    else:
        assert got.shape == (30,) and set(got) <= {-1, 0, 1, 2}


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


def test_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "events.tsv")
    with pytest.raises(
        InputError, match="something that is not a file; expected text with a header"
    ):
        events.read(tmp_path / "events.tsv", "trial_type")
