"""The terminal: tables that fit, counts, times, and every epoch as it ends."""

import csv
import dataclasses
import io
import json

import hand_made
import numpy as np
import pytest
import rich.console
from rich.cells import cell_len

from emojax.data import losses
from emojax.data.cohort import Prior
from emojax.data.losses import Loss
from emojax.report import console, layout

CLASSES = tuple(f"class {i}" for i in range(12))
METRICS = {"train_loss": 1.5, "train_accuracy": 0.4, "loss": 1.2, "accuracy": 0.5, "rate": 5e-4}


def plain(width=80, **options):
    """Returns a console that is not a terminal, and its output."""
    out = rich.console.Console(width=width, file=io.StringIO(), **options)
    return out, out.file.getvalue


@pytest.fixture
def clock(monkeypatch):
    """Returns a clock that a test moves."""
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_times_add_up():
    seconds = {"reading": 1.0}
    with console.timed(seconds, "reading"):
        pass
    assert 1 <= seconds["reading"] < 1.5
    assert [console.duration(s) for s in (3, 600, 7200)] == ["3 s", "10 min", "2.0 h"]


def test_versions_and_device():
    found = console.versions()
    assert {"python", "emojax", "jax", "numpy"} <= found.keys() and "cpu" in console.device()


def test_bar_is_drawn_on_terminals_only():
    out, said = plain()
    with console.bar(out, "baselines", 3) as tick:
        tick(2)
    assert said() == ""
    for shown in (True, False):
        out, said = plain(force_terminal=True)
        with console.bar(out, "[b]base{lines}", 3, shown) as tick:
            tick(3)
        assert ("[b]base{lines}" in said() and "3/3" in said()) == shown


def test_table_in_three_widths():
    header = ["", "balanced accuracy", "p"]
    rows = [["a name of several words", "0.741 (0.085)", "0.031"], ["b", "0.5 (0.1)", ""]]
    head, body = layout.lay_out(header, rows, 80)
    assert head == ["                         balanced accuracy     p"]
    assert body == [
        "a name of several words      0.741 (0.085) 0.031",
        "b                                0.5 (0.1)",
    ]
    head, body = layout.lay_out(header, rows, 46)
    assert head == [
        "                              balanced",
        "                              accuracy     p",
    ]
    assert body[0] == "a name of several words  0.741 (0.085) 0.031"
    head, body = layout.lay_out(header, rows, 40)
    assert [line.rstrip() for line in body] == [
        "a name of several    0.741 (0.085) 0.031",
        "words",
        "b                        0.5 (0.1)",
    ]
    head, body = layout.lay_out(header, rows, 30)
    assert head == []
    assert body == [
        "a name of several words",
        "  balanced accuracy 0.741",
        "  (0.085), p 0.031",
        "b",
        "  balanced accuracy 0.5 (0.1)",
    ]


def test_long_and_wide_words_are_broken_not_cut():
    assert layout.wrap("abcdefghij kl", 4) == ["abcd", "efgh", "ij", "kl"]
    assert layout.wrap("", 4) == [""] and layout.wrap("a  b", 4) == ["a b"]
    _, body = layout.lay_out(["", "p"], [["中性情绪" * 8, "0.5"]], 40)
    assert max(map(cell_len, body)) <= 40 and "".join(body).count("中") == 8


def test_names_cannot_move_the_cursor():
    assert layout.clean("a\x1b[2Jb\nc\r") == "a?[2Jb c "
    out, said = plain()
    console.print_rows(out, ["", "p"], [["\x1b[31mred", "[/x]"]])
    assert "\x1b" not in said() and "[/x]" in said()


def test_counts_are_printed_whole(tmp_path):
    cohort = hand_made.make_cohort(subjects=15, volumes=48, classes=CLASSES)
    for width in (40, 300):
        out, said = plain(width)
        console.show_counts(out, cohort)
        text = said()
        assert max(map(len, text.splitlines())) <= width
        for cell in (
            "run-2",
            "... 7 more",
            "15 subjects",
            "30 runs",
            "class 11",
            "1440",
            "counts.csv",
        ):
            assert cell in text
        assert "volumes of 6 x 5 x 4 voxels, TR 2 s" in " ".join(text.split())
    console.write_counts(tmp_path, cohort)
    rows = list(csv.DictReader((tmp_path / "counts.csv").open()))
    assert len(rows) == 30 and rows[0]["volumes"] == "48" and rows[0]["unused"] == "0"


def test_counts_name_what_saw_the_volumes_before():
    made = hand_made.make_cohort(1)
    cohort = console.Cohort(
        made.runs,
        ("a", "b", "[/x]"),
        made.labels,
        made.run_index,
        made.frame,
        prior=(Prior("cleaning"), Prior("alignment of the files", labels=True)),
    )
    out, said = plain(300)
    console.show_counts(out, cohort)
    before = "applied before: cleaning (saw all volumes), applied before: alignment of the files"
    assert before in said()
    assert "all volumes and their labels" in said() and "[/x]" in said()


LOST = (
    Loss("01", "run-1", "calm", "neutral", 6, 6, 0, 0, 0),
    Loss("01", "run-2", "fear", "negative", 6, 0, 1, 0, 0),
    Loss("01", "run-2", "[b]cue", "", 3, 0, 0, 1, 0),
)


def test_what_became_of_the_events_is_printed_beside_the_counts(tmp_path):
    cohort = dataclasses.replace(hand_made.make_cohort(2), lost=LOST, notes=("A note :x:.",))
    out, said = plain(300)
    console.show_counts(out, cohort)
    lines = said().splitlines()[-9:]
    assert lines[0].split() == [
        *("events", "read", "label", "no", "volume"),
        *("after", "the", "scan", "unknown", "duration"),
    ]
    assert [line.split()[-4:] for line in lines[1:4]] == [
        ["6", "6", "0", "0"],
        ["6", "0", "1", "0"],
        ["3", "0", "0", "1"],
    ]
    assert [line.split()[0] for line in lines[1:4]] == ["neutral", "negative", "(no"]
    assert lines[4:] == [*losses.remarks(LOST), "A note :x:."] and "[b]cue (3)" in lines[-2]
    console.write_counts(tmp_path, cohort)
    rows = list(csv.DictReader((tmp_path / "events.csv").open(encoding="utf-8")))
    assert rows[2] == {
        **{"subject": "01", "run": "run-2", "value": "[b]cue", "name": "", "events": "3"},
        **{"unlabelled": "0", "behind": "0", "unknown": "1", "dropped": "0"},
    }
    assert {path.name for path in tmp_path.iterdir()} == {"counts.csv", "events.csv"}


def test_every_epoch_is_a_line_at_once(tmp_path, clock):
    path = tmp_path / "work" / "metrics.jsonl"
    with console.TrainingLog(path, plain()[0], "training", 4) as log:
        log.advance(1)
        log.epoch("nested", "01", 2, METRICS)
        assert lines_of(path) == [{"training": "nested", "fold": "01", "epoch": 2} | METRICS]
        log.epoch("nested", "01", 3, {"loss": float("nan"), "accuracy": np.float32(0.5)})
    line = lines_of(path)[1]
    assert list(line) == ["training", "fold", "epoch", *METRICS]
    assert line["loss"] is None and line["rate"] is None and line["accuracy"] == 0.5


def test_a_resumed_run_appends_behind_the_last_whole_line(tmp_path, clock):
    path = tmp_path / "metrics.jsonl"
    whole = json.dumps({"epoch": 1, "training": "x" * 100_000}) + "\n"
    for text in (whole + '{"epoch": 2, "los', whole, "", '{"epo'):
        path.write_text(text)
        with console.TrainingLog(path, plain()[0], "training", 4) as log:
            log.epoch("nested", "01", 2, METRICS)
        assert [line["epoch"] for line in lines_of(path)] == [1, 2] if whole in text else [2]
        assert path.read_text().endswith("\n")


def test_log_lines_away_from_a_terminal(tmp_path, clock):
    out, said = plain(200)
    with console.TrainingLog(tmp_path / "m.jsonl", out, "training", 8) as log:
        for fold in ("01", "02"):
            for epoch in range(1, 5):
                clock[0] += 8
                log.epoch("nested", fold, epoch, METRICS)
    lines = said().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("nested, fold 01, epoch 4: loss 1.200, accuracy 0.500")
    assert "(training 1.500, 0.400), rate 0.0005; 4 of 8 epochs, about 32 s left" in lines[0]
    assert lines[1].startswith("nested, fold 02, epoch 4") and "left" in lines[1]


def test_the_last_epoch_of_each_training_is_printed_once(tmp_path, clock):
    out, said = plain(200)
    with console.TrainingLog(tmp_path / "m.jsonl", out, "training", 100) as log:
        for arm in ("nested", "paper"):
            for epoch in range(1, 4):  # folds side by side
                for fold in ("01", "02"):
                    log.epoch(arm, fold, epoch, METRICS)
        assert said().count("\n") == 2 and said().count("nested, fold 0") == 2
        log.epoch("single", "01", 1, METRICS)
    lines = said().splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "nested, fold 01, epoch 3",
        "nested, fold 02, epoch 3",
        "paper, fold 01, epoch 3",
        "paper, fold 02, epoch 3",
        "single, fold 01, epoch 1",
    ]


def test_bar_shows_loss_and_accuracy(tmp_path):
    out, said = plain(120, force_terminal=True)
    with console.TrainingLog(tmp_path / "m.jsonl", out, "training", 4) as log:
        log.epoch("nested", "01", 1, METRICS)
        log.advance(3)
    assert "nested 01: loss 1.200, accuracy 0.500" in said() and "4/4" in said()
    assert "epoch 1" not in said()


def test_other_processes_and_quiet_runs_say_nothing(tmp_path, clock):
    for options in ({"quiet": True}, {"progress": False}):
        out, said = plain()
        path = tmp_path / f"{next(iter(options))}.jsonl"
        with console.TrainingLog(path, out, "training", 4, **options) as log:
            clock[0] += 100
            log.epoch("nested", "01", 1, METRICS)
        assert said() == "" and path.exists() == ("quiet" not in options)


def test_a_failure_closes_the_log(tmp_path, clock):
    out, said = plain(200)
    path = tmp_path / "m.jsonl"
    with pytest.raises(KeyboardInterrupt), console.TrainingLog(path, out, "training", 4) as log:
        log.epoch("nested", "01", 1, METRICS)
        raise KeyboardInterrupt
    assert len(lines_of(path)) == 1 and said().startswith("nested, fold 01, epoch 1")


NAMES = ("[/red]", "[b]x", ":x:", "$a$", "\N{SNOWMAN}", "[red]", ":smile:", "=1+1")
NAMES += ("\u4e2d\u6027\u60c5\u7eea", "\u0441\u0442\u0440\u0430\u0445", "a|b;c=d\\e", "neutral" * 8)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_and_written_as_they_are(tmp_path, capsys, monkeypatch, name):
    lost = (Loss("01", "run-1", name, "", 6, 0, 0, 0, 0),)
    made = hand_made.make_cohort(2, 1, classes=(name, "a", "b"))
    cohort = dataclasses.replace(made, lost=lost)
    monkeypatch.setenv("COLUMNS", "200")
    console.show_counts(console.make(), cohort)
    console.make().print(f"report: {name}")
    said = capsys.readouterr().out
    assert said.count(name) == 3 and f"values of no class: {name} (6)" in said
    assert said.rstrip().endswith(f"report: {name}")
    console.write_counts(tmp_path, cohort)
    (row, *_) = csv.DictReader((tmp_path / "counts.csv").read_text(encoding="utf-8").splitlines())
    assert row[name] == "8"
    (row,) = csv.DictReader((tmp_path / "events.csv").read_text(encoding="utf-8").splitlines())
    assert row["value"] == name
