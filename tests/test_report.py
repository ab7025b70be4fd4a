"""The files of a report: whole, self-contained, and safe against what names may hold."""

import csv
import io
import json

import nibabel as nib
import numpy as np
import rich.console
from matplotlib.figure import Figure

from emojax import report
from emojax.report import Result, Table


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
    report.write(tmp_path, make())
    report.write(tmp_path, make())  # again, over the first
    assert json.loads((tmp_path / "metrics.json").read_text())["device"] == "cpu"
    assert json.loads((tmp_path / "curves.json").read_text())["nested"]["loss"][0] == [1, 1, 1]
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert rows[1] == {"subject": "02", "nested:p_a": "0.333333"}
    assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 1000
    assert nib.load(tmp_path / "chosen.nii.gz").shape == (2, 3, 4)
    assert not list(tmp_path.glob("**/*.partial*"))


def test_page_needs_nothing_else_and_escapes_names(tmp_path):
    report.write(tmp_path, make())
    page = (tmp_path / "report.html").read_text()
    assert "<voxels>" not in page and "&lt;voxels&gt;" in page and "python x &lt;y&gt;" in page
    assert 'class="leak"' in page and page.count("LEAK") == 1
    assert "src=" in page and page.count("src=") == page.count('src="data:image/png;base64,')
    assert "the number to quote" in page and "Optimistic" in page and "final epoch" not in page


def test_terminal_table_fits_80_columns():
    console = rich.console.Console(width=80, file=io.StringIO())
    header = ["", "balanced accuracy", "95 % interval", "accuracy", "nested minus it", "p"]
    row = ["leaky voxels and alignment", "0.921 (0.015)", "0.911 - 0.930", "0.9", "+0.100", "0.031"]
    report.print_table(make(tables=[Table("Mean", header, [row])]), console)
    text = console.file.getvalue()
    assert all(cell in text for cell in (row[0], row[1], row[2], row[4], row[5]))
    assert "0.9 " not in text.replace("0.911", "").replace("0.921", "")
