"""The files of a report: whole, self-contained, and safe against what names may hold."""

import copy
import csv
import dataclasses
import html
import io
import json
import re

import hand_made
import nibabel as nib
import numpy as np
import pytest
import rich.console
from matplotlib.figure import Figure

from emojax.data.losses import Loss
from emojax.report import console, page, results, tables
from emojax.report.cells import Table


def make(metrics=None, **changes):
    """Returns a small report: few files, and metrics that a test may change."""
    result, _, _ = hand_made.finished("left_out")
    figure = Figure()
    figure.subplots().plot([0, 1])
    values = {
        "metrics": copy.deepcopy(result.metrics) | (metrics or {}),
        "figures": {"accuracy": figure},
        "captions": {"accuracy": "a caption"},
        "curves": {"nested": {"loss": np.ones((2, 3))}},
        "maps": {"chosen": (np.ones((2, 3, 4), np.int16), np.eye(4))},
    }
    return dataclasses.replace(result, **(values | changes))


def printed(result, width):
    out = rich.console.Console(width=width, file=io.StringIO())
    console.print_table(result, out)
    return out.file.getvalue()


def page_of(result):
    return page.render(result.metrics, {}, {})


@pytest.mark.slow
def test_everything_is_written_whole(tmp_path):
    result = make()
    result.save(tmp_path)
    result.save(tmp_path)  # again, over the first
    assert json.loads((tmp_path / "metrics.json").read_text())["device"] == result.metrics["device"]
    assert json.loads((tmp_path / "curves.json").read_text())["nested"]["loss"][0] == [1, 1, 1]
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert len(rows) == 192 and rows[0]["subject"] == "01"
    third = f"{result.predictions['nested p_rest'][0]:.6g}"
    assert rows[0]["nested p_rest"] == third
    assert (tmp_path / "figures" / "accuracy.png").stat().st_size > 1000
    assert nib.load(tmp_path / "chosen.nii.gz").shape == (2, 3, 4)
    assert not list(tmp_path.glob("**/*.partial*"))


def test_equal_maps_are_equal_files(tmp_path):
    for name in ("a", "b"):
        make().save(tmp_path / name)
    a, b = ((tmp_path / name / "chosen.nii.gz").read_bytes() for name in ("a", "b"))
    assert a == b


def test_curves_that_diverged_are_still_json(tmp_path):
    loss = np.array([[1.5, np.nan], [np.inf, 2]], np.float32)
    make(curves={"nested": {"loss": loss, "epoch": np.arange(2)}}).save(tmp_path)
    text = (tmp_path / "curves.json").read_text()
    assert json.loads(text)["nested"] == {"loss": [[1.5, None], [None, 2]], "epoch": [0, 1]}


def test_metrics_are_missing_if_writing_failed(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        make({"chance": float("nan")}).save(tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    assert not list(tmp_path.glob("**/*.partial*"))


def test_page_needs_nothing_else_and_escapes_names(tmp_path):
    result = make({"experiment": "<A>", "command": "python x <y>"})
    result.metrics["arms"][0]["seen"][0]["step"] = "<voxels>"
    result.save(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "<voxels>" not in text and "&lt;voxels&gt;" in text and "python x &lt;y&gt;" in text
    assert "<A>" not in text and "http" not in text
    assert 'class="leak"' in text and text.count('class="leak"') == text.count("LEAK") == 5
    assert "src=" in text and text.count("src=") == text.count('src="data:image/png;base64,')
    assert "the number to quote" in text and "Optimistic" in text
    assert text.lstrip().startswith("<!doctype html>") and "<p>Time: training 3.2 s.</p>" in text


def test_page_explains_only_what_occurs():
    result = make()
    arms = [arm for arm in result.metrics["arms"] if arm["strict"]]
    text = page_of(make({"arms": arms}))
    assert text.index("alignment independent_runs") < text.index("alignment none")
    assert "alignment transductive" not in text and "protocol leaky" not in text
    assert "as nested, but the final epoch" in text
    assert "final epoch" not in page_of(make({"arms": arms[:1]}))


def test_a_leaky_headline_is_not_the_number_to_quote():
    result = make()
    result.metrics["arms"][0] |= {"protocol": "leaky", "strict": False}
    assert "number to quote" not in page_of(result)


def test_baselines_that_did_not_converge_are_named():
    result = make()
    result.metrics["arms"][0]["folds"][1]["baselines"]["LDA"]["converged"] = False
    want = "Did not converge: LDA (1 of 4 folds)."
    assert want in page_of(result) and want in printed(result, 80)
    assert "converge:" not in page_of(make())


def test_terminal_shows_names_in_brackets():
    result = make()
    result.metrics["arms"][0]["name"] = "[bold]"
    text = printed(result, 80)
    assert "\n[bold] " in text and "[bold]: balanced accuracy" in text


def test_terminal_table_fits_80_columns():
    text = printed(make(), 80)
    assert max(map(len, text.splitlines())) <= 80
    (line,) = [line for line in text.splitlines() if line.startswith("leaky voxels and alignment")]
    arm = next(a for a in make().metrics["arms"] if a["name"] == "leaky voxels and alignment")
    score = arm["summary"]["network"]["balanced_accuracy"]
    low, high = score["ci95"]
    for cell in (f"  {score['mean']:.3f} ({score['sd']:.3f})", f"{low:.3f} - {high:.3f}", "leaky"):
        assert cell in line
    loss = f"{arm['summary']['network']['loss']['mean']:.3f}"
    assert loss not in line


@pytest.mark.parametrize("width", [40, 60, 200])
@pytest.mark.parametrize("kind", ["left_out", "by_split", "sweep", "classical"])
def test_no_cell_is_cut_off_or_dropped(kind, width):
    result, _, _ = hand_made.finished(kind)
    lines = printed(result, width).splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    first = tables.make(result.metrics)[0]
    for row in first.rows:
        kept = [
            cell for name, cell in zip(first.header, row, strict=True) if name in console.COLUMNS
        ]
        assert all(cell in text for cell in kept[1:])
        assert all(word in text for word in row[0].split())


def test_the_page_says_what_the_audit_moved():
    text = page_of(make())
    assert "the values of one scored volume were replaced" in text and "bit by bit" in text
    assert "Declared leaky, and caught: paper;" in text
    audit = next(t for t in tables.make(make().metrics) if t.title == "Audit")
    rows = {row[0]: row for row in audit.rows}
    assert rows["nested"][4] == "nothing" and rows["leaky voxels"][4:] == ["voxels", "voxels"]
    none = page_of(make({"audit": {"measured": False}}))
    assert "no audit measured it" in none and "bit by bit" not in none


def test_the_page_says_what_its_intervals_leave_out():
    text = page_of(make())
    assert "Student&#39;s t over folds" in text and "not independent" in text
    assert "cannot be below 0.12 with 4 folds" in text
    other, _, _ = hand_made.finished("by_split")
    assert "jackknife over the subjects, runs or blocks" in page_of(other)


def test_table_of_notebooks_is_escaped():
    table = Table("a <b>", ["", "p"], [["<x>", "0.5"], ["LEAK: y", "3 of 4"]])
    text = page.render_table(table)
    assert "<b>" not in text and "&lt;x&gt;" in text
    assert text.count('class="leak"') == 1 and text.count("<td>") == 2


@pytest.mark.filterwarnings("error")
def test_names_are_drawn_as_they_are(tmp_path):
    """Dollar signs in names start no formula, and scripts without a font cause no warning."""
    names = ("$\\frac{$", "b$ $c$", "\N{CJK UNIFIED IDEOGRAPH-4E2D}")
    cohort, found = hand_made.left_out(hand_made.make_cohort(classes=names))
    audit = hand_made.audited(found)
    metrics = results.summarise(
        "A", hand_made.CONFIG, cohort, found, audit=audit, network="x", command="y", seconds={}
    )
    results.build(metrics, cohort, found, extras=hand_made.EXTRAS).save(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(html.escape(name) in text for name in names)


def test_the_page_has_counts_notes_events_and_links(tmp_path):
    cohort, found = hand_made.left_out()
    lost = (
        Loss("01", "run-1", "Look_<Neg>", "negative", 6, 2, 0, 0, 3),
        Loss("02", "run-1", "Look_<Neg>", "negative", 4, 0, 1, 0, 0),
        Loss("02", "run-1", "cue", "", 10, 0, 0, 0, 0),
    )
    cohort = dataclasses.replace(cohort, lost=lost, notes=("run-3 of <02> is left out.",))
    metrics = results.summarise("A", hand_made.CONFIG, cohort, found)
    assert metrics["events"][0]["dropped"] == 3 and metrics["notes"] == list(cohort.notes)
    assert metrics["data"]["counts"] == cohort.counts()
    (tmp_path / "counts.csv").write_text("subject\n")
    results.build(metrics, cohort, found, extras=hand_made.EXTRAS).save(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "run-3 of &lt;02&gt; is left out." in text
    table = next(t for t in tables.make(metrics) if t.title == "Events")
    assert table.rows == [
        ["Look_<Neg>", "negative", "10", "2", "1", "0", "3"],
        ["cue", "", "10", "0", "0", "0", "0"],
    ]
    table = next(t for t in tables.make(metrics) if t.title == "Volumes")
    assert len(table.rows) == 9 and table.rows[-1] == ["all", "8 runs", "192", *["64"] * 3, "0"]
    links = re.findall(r'<a href="([^"]*)">', text)
    wanted = {"metrics.json", "predictions.csv", "counts.csv", "chosen_voxels.nii.gz"}
    assert wanted | {"figures/voxels.png", "figures/accuracy.png"} <= set(links)
    assert all((tmp_path / name).exists() for name in links)
    assert "events.csv" not in links


def test_long_tables_are_folded():
    cohort, found = hand_made.left_out(hand_made.make_cohort(14))
    metrics = results.summarise("A", hand_made.CONFIG, cohort, found)
    text = page.render(metrics, {}, {})
    assert "<summary>Volumes: 29 rows</summary>" in text
