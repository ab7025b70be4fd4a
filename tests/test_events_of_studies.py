"""Whole studies with irregular events: their labels and messages."""

import io
import json

import nibabel as nib
import numpy as np
import pytest
import rich.console

from emojax.data.events import Timing
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.report import console
from emojax.sources import bids

VOLUMES, TR = 52, 2.0
BLOCKS = [(10.0 + 24 * i, 16.0, ("neutral", "negative")[i % 2]) for i in range(4)]
TWO = "neutral=neutral;negative=negative"


@pytest.fixture
def read(tmp_path):
    """Returns a function that writes one run with some events and reads its labels and messages."""

    def write_and_read(rows, label_map=TWO, timing=None, volumes=VOLUMES):
        root = tmp_path / "study"
        folder = root / "sub-01" / "func"
        folder.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(0).normal(100, 9, (6, 6, 5, volumes)).astype("f4")
        image = nib.Nifti1Image(values, np.diag([3.0, 3, 3, 1]))
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = TR
        nib.save(image, folder / "sub-01_task-emo_run-1_bold.nii.gz")
        lines = ["onset\tduration\ttrial_type", *("\t".join(map(str, row)) for row in rows)]
        path = folder / "sub-01_task-emo_run-1_events.tsv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (root / "task-emo_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
        description = {"Name": "tiny", "BIDSVersion": "1.8.0"}
        (root / "dataset_description.json").write_text(json.dumps(description))
        options = {"label_map": label_map, "timing": timing or Timing()}
        cohort = bids.read(root, Store(tmp_path / "store"), **options)
        labels = np.full(volumes, -1)
        labels[cohort.frame] = cohort.labels
        out = rich.console.Console(width=999, file=io.StringIO())
        console.show_counts(out, cohort)
        return labels, out.file.getvalue()

    return write_and_read


def test_a_film_of_unknown_duration_is_no_rest(read):
    rows = [*BLOCKS[:2], (58.0, "n/a", "film")]
    labels, said = read(rows, f"rest=;{TWO}")
    assert (labels == 0).any() and not (labels[32:] == 0).any()
    assert "1 event of unknown duration" in said and "values of no class: film (1)" in said
    labels, said = read(rows, f"rest=;{TWO}", Timing(event_duration_s=10.0))
    assert (labels[37:] == 0).all() and (labels[32:36] < 0).all() and "unknown" not in said


def test_a_scan_that_stopped_early_is_labelled_by_the_events_before_its_end(read):
    labels, said = read([*BLOCKS, (106.0, 16.0, "neutral")], volumes=44)
    assert labels.tolist() == read(BLOCKS, volumes=44)[0].tolist()
    assert np.bincount(labels[labels >= 0]).tolist() == [18, 10]
    assert "1 event after the end of the scan" in said


def test_onsets_in_ms_are_refused(read):
    rows = [(1000 * onset, 1000 * duration, value) for onset, duration, value in BLOCKS]
    with pytest.raises(InputError, match=r"an onset at 82000 s; .* in ms\?"):
        read(rows)


def test_separators_in_values_can_be_written(read):
    rows = [(onset, duration, f"scene|{value}") for onset, duration, value in BLOCKS]
    labels, _ = read(rows, r"neutral=scene\|neutral;negative=scene\|negative")
    assert labels.tolist() == read(BLOCKS)[0].tolist()
    with pytest.raises(InputError) as error:
        read(rows, "neutral=scene;negative=negative")
    assert r"scene\|negative (2), scene\|neutral (2)" in str(error.value)


def test_short_events_are_counted_where_they_label_nothing(read):
    """Events of 1.2 s at a TR of 2 s; half of them lie across two volumes, and label none."""
    starts = [4.3, 13.0, 20.3, 29.0, 36.0, 45.0, 52.3, 61.0]
    rows = [(s, 1.2, ("neutral", "negative")[i % 2]) for i, s in enumerate(starts)]
    labels, said = read(rows)
    assert np.bincount(labels[labels >= 0]).tolist() == [1, 4]
    assert "3 of 8 events label no volume" in said and "data.min_overlap=0.25" in said
    assert read(rows, timing=Timing(min_overlap=0.25))[1].count("label no volume") == 0


def test_impulses_are_refused_with_the_key_that_helps(read):
    rows = [(onset, 0, value) for onset, _, value in BLOCKS]
    with pytest.raises(InputError, match=r"duration 0 of 'neutral' at 10 s.*event_duration_s=4.0"):
        read(rows)
    labels, said = read(rows, timing=Timing(event_duration_s=4.0))
    assert np.bincount(labels[labels >= 0]).tolist() == [6, 6] and "unknown" not in said
    assert read([*BLOCKS, (3.0, 0, "press")])[0].tolist() == read(BLOCKS)[0].tolist()


def test_spellings_that_lose_events_are_a_warning(read):
    rows = [*BLOCKS, (0.0, 2.0, "Neutral"), (4.0, 2.0, "neutral ")]
    _, said = read(rows)
    assert "values of no class: Neutral (1)" in said
    assert "warning: 'neutral' (3) and 'Neutral' (1) differ only by case or blanks" in said
    assert 'data.label_map="neutral=neutral|Neutral;..."' in said


@pytest.mark.parametrize(
    "name",
    [
        "[red]",
        ":smile:",
        "a b" * 60,
        "\u0441\u0442\u0440\u0430\u0445",
        "\u4e2d\u6027\u60c5\u7eea",
        "=1+1",
    ],
)
def test_any_name_is_printed_as_it_is(read, name):
    rows = [*BLOCKS, (106.0, 16.0, name)]
    _, said = read(rows, volumes=60)
    assert f"values of no class: {name} (1)" in said
    _, said = read(rows, "", volumes=60)
    assert name in said and "values of no class" not in said
    with pytest.raises(InputError) as error:
        read(rows, "a=nothing;b=neutral", volumes=60)
    assert f"{name} (1)" in str(error.value)
