"""Tests of the accounting of events: the table of classes, and the sentences about lost volumes."""

from emojax.data import losses
from emojax.data.losses import Loss

CLASSES = ("rest", "calm", "bad")
RUNS = (
    Loss("01", "run-1", "neutral", "calm", 6, 2, 0, 0, 0),
    Loss("01", "run-2", "neutral", "calm", 6, 1, 1, 0, 0),
    Loss("01", "run-1", "fear", "bad", 4, 0, 0, 0, 0),
    Loss("01", "run-2", "anger", "bad", 3, 0, 0, 0, 0),
    Loss("01", "run-1", "cue", "", 9, 0, 1, 0, 0),
    Loss("01", "run-2", "", "", 2, 0, 0, 0, 0),
)


def test_the_table_has_a_row_per_class_and_only_columns_that_say_something():
    header, rows = losses.table(RUNS, CLASSES)
    assert header == ("events", "read", "label no volume", "after the scan")
    assert rows == [
        ("calm", "12", "3", "1"),
        ("bad", "7", "0", "0"),
        ("(no class)", "11", "0", "1"),
    ]
    assert losses.table(RUNS[2:4], CLASSES) == (("events", "read"), [("bad", "7")])


def test_what_labels_nothing_names_the_way_out():
    first, behind, values = losses.remarks(RUNS)
    assert first.startswith("3 of 19 events label no volume")
    assert "--config.data.min_overlap=0.25" in first
    assert "--config.data.event_duration_s=4.0" in first
    assert behind == "2 events after the end of the scan: left out"
    assert values == "values of no class: cue (9), n/a (2)"
    assert losses.remarks(RUNS[2:4]) == [] == losses.remarks(())


def test_unknown_durations_name_the_key():
    (text, _) = losses.remarks([Loss("1", "1", "film", "", 1, 0, 0, 1, 0)])
    assert text.startswith("1 event of unknown duration") and "event_duration_s=4.0" in text


def test_spellings_that_are_almost_alike_are_a_warning():
    runs = [
        Loss("1", "1", "neutral", "calm", 5, 0, 0, 0, 0),
        Loss("1", "1", "Neutral", "", 4, 0, 0, 0, 0),
        Loss("1", "2", "neu tral", "", 3, 0, 0, 0, 0),
        Loss("1", "2", "a|b", "bad", 3, 0, 0, 0, 0),
        Loss("1", "2", "A|b", "bad", 3, 0, 0, 0, 0),
        Loss("1", "2", "cue", "", 3, 0, 0, 0, 0),
        Loss("1", "2", "CUE", "", 3, 0, 0, 0, 0),
    ]
    (warning,) = (text for text in losses.remarks(runs) if text.startswith("warning"))
    assert "'neutral' (5) and 'Neutral' (4) and 'neu tral' (3) differ only by case" in warning
    assert '--config.data.label_map="calm=neutral|Neutral|neu tral;..."' in warning
    two = [loss._replace(name=loss.value) for loss in runs[3:5]]
    (warning,) = losses.remarks(two)
    assert r'label_map="A\|b=A\|b|a\|b;..."' in warning


def test_of_many_values_the_commonest_are_named():
    runs = [Loss("1", "1", f"v{i:03}", "", 100 - i, 0, 0, 0, 0) for i in range(25)]
    (text,) = losses.remarks(runs)
    assert text.startswith("values of no class: v000 (100), v001 (99)")
    assert text.endswith("v019 (81) and 5 more")


def test_names_are_said_as_they_are():
    for name in ("[red]", ":x:", "\u4e2d\u6027", "\u0441\u0442\u0440\u0430\u0445", "x" * 999):
        runs = [Loss("1", "1", name, "", 2, 0, 0, 0, 0), RUNS[0]._replace(name=name)]
        assert f"values of no class: {name} (2)" in losses.remarks(runs)
        assert losses.table(runs, (name,))[1][0][0] == name
