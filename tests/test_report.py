"""The files of a report: whole, self-contained, and safe against what names may hold."""

import csv
import io
import json

import nibabel as nib
import numpy as np
import pytest
import rich.console
from matplotlib.figure import Figure

from emojax.report import page
from emojax.report.page import Result, Table


def make(**changes):
    figure = Figure()
    figure.subplots().plot([0, 1])
    table = Table("Mean", ["", "balanced accuracy", "loss"], [["nested", "0.5", "1.0"]], "a note")
    seen = Table("Who saw", ["step", "saw"], [["<voxels>", "LEAK: 3"], ["alignment", "no"]])
    values = {
        "title": "Experiment <A>",
        "headline": "Accuracy 0.5 & chance 0.3",
        "metrics": {"seconds": {"a": 1.0}, "versions": {"jax": "1"}, "command": "python x <y>"}
        | {"device": "cpu", "config": {"seed": 0}},
        "predictions": {"subject": np.array(["01", "02"]), "nested:p_a": np.array([0.25, 1 / 3])},
        "curves": {"nested": {"loss": np.ones((2, 3))}},
        "tables": [table, seen],
        "figures": {"accuracy": (figure, "a caption")},
        "protocols": ["nested", "paper"],
        "maps": {"chosen": (np.ones((2, 3, 4), np.int16), np.eye(4))},
    }
    return Result(**(values | changes))


def test_everything_is_written_whole(tmp_path):
    page.write(tmp_path, make())
    page.write(tmp_path, make())  # again, over the first
    assert json.loads((tmp_path / "metrics.json").read_text())["device"] == "cpu"
    assert json.loads((tmp_path / "curves.json").read_text())["nested"]["loss"][0] == [1, 1, 1]
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert rows[1] == {"subject": "02", "nested:p_a": "0.333333"}
    assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 1000
    assert nib.load(tmp_path / "chosen.nii.gz").shape == (2, 3, 4)
    assert not list(tmp_path.glob("**/*.partial*"))


def test_equal_maps_are_equal_files(tmp_path):
    for name in ("a", "b"):
        page.write(tmp_path / name, make())
    a, b = ((tmp_path / name / "chosen.nii.gz").read_bytes() for name in ("a", "b"))
    assert a == b


def test_curves_that_diverged_are_still_json(tmp_path):
    loss = np.array([[1.5, np.nan], [np.inf, 2]], np.float32)
    page.write(tmp_path, make(curves={"nested": {"loss": loss, "epoch": np.arange(2)}}))
    text = (tmp_path / "curves.json").read_text()
    assert json.loads(text)["nested"] == {"loss": [[1.5, None], [None, 2]], "epoch": [0, 1]}


def test_metrics_are_missing_if_writing_failed(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        page.write(tmp_path, make(metrics=make().metrics | {"chance": float("nan")}))
    assert not (tmp_path / "metrics.json").exists()
    assert not list(tmp_path.glob("**/*.partial*"))


def test_page_needs_nothing_else_and_escapes_names(tmp_path):
    page.write(tmp_path, make())
    text = (tmp_path / "report.html").read_text()
    assert "<voxels>" not in text and "&lt;voxels&gt;" in text and "python x &lt;y&gt;" in text
    assert 'class="leak"' in text and text.count("LEAK") == 1
    assert "src=" in text and text.count("src=") == text.count('src="data:image/png;base64,')
    assert "the number to quote" in text and "Optimistic" in text and "final epoch" not in text


def test_page_explains_the_alignments_that_occur(tmp_path):
    metrics = make().metrics | {"regime": "independent_runs"}
    metrics["summary"] = {"nested": {}, "nested, none": {}, "paper": {}}
    text = page.page(make(figures={}, metrics=metrics), {})
    assert text.index("alignment independent_runs") < text.index("alignment none")
    assert "transductive" not in text


def test_baselines_that_did_not_converge_are_named():
    folds = [{"baselines": {"MLP": {"converged": ok}, "LDA": {"converged": True}}} for ok in (0, 1)]
    result = make(figures={}, metrics=make().metrics | {"folds": folds})
    want = "Stopped before they converged: MLP in 1 of 2 folds."
    console = rich.console.Console(width=80, file=io.StringIO())
    page.print_table(result, console)
    assert want in page.page(result, {}) and want in console.file.getvalue()
    assert "converged" not in page.page(make(figures={}), {})


def test_terminal_shows_names_in_brackets():
    console = rich.console.Console(width=80, file=io.StringIO())
    table = Table("Mean", ["", "p"], [["[bold]", "0.5"]])
    page.print_table(make(tables=[table], headline="half of [a]"), console)
    assert "[bold]" in console.file.getvalue() and "half of [a]" in console.file.getvalue()


def test_terminal_table_fits_80_columns():
    console = rich.console.Console(width=80, file=io.StringIO())
    header = ["", "balanced accuracy", "95 % interval", "accuracy", "nested minus it", "p"]
    row = ["leaky voxels and alignment", "0.921 (0.015)", "0.911 - 0.930", "0.9", "+0.100", "0.031"]
    page.print_table(make(tables=[Table("Mean", header, [row])]), console)
    text = console.file.getvalue()
    assert all(cell in text for cell in (row[0], row[1], row[2], row[4], row[5]))
    assert "0.9 " not in text.replace("0.911", "").replace("0.921", "")
