"""Labels of SPM folders: tables of volumes and of onsets, condition files, refusals."""

import numpy as np
import pytest
import scipy.io
from spm_study import (
    NO_LAG,
    TR,
    alternating,
    check_haxby,
    haxby_runs,
    onset_table,
    small,
    small_study,
    table,
    write,
    write_haxby,
)

from emojax.data import events
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.sources import spm


@pytest.fixture
def root(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def haxby(shared):
    return haxby_runs(shared)


@pytest.mark.parametrize("name", ["onsets.csv", "onsets.tsv"])
@pytest.mark.parametrize("column", ["name", "trial_type"])
def test_onset_tables(haxby, root, store, name, column):
    write_haxby(root, haxby)
    header = f"subject,run,{column},onset,duration"
    labels = onset_table(root, haxby, header, name=name)
    check_haxby(spm.read(root, store, labels=labels, timing=NO_LAG), haxby)


def conditions(e, scale=1.0):
    """Returns SPM's cell arrays; a duration per condition, or one for each onset."""
    values = sorted(set(e.value))
    onsets, durations = (np.empty((1, len(values)), object) for _ in range(2))
    for i, value in enumerate(values):
        here = [j for j, v in enumerate(e.value) if v == value]
        onsets[0, i] = e.onset[here] / scale
        durations[0, i] = e.duration[here][0] / scale if i % 2 else e.duration[here] / scale
    return {"names": np.array([values], object), "onsets": onsets, "durations": durations}


@pytest.mark.parametrize("unit", ["s", "scans"])
@pytest.mark.parametrize("per_name", [False, True])
def test_condition_files(haxby, root, store, unit, per_name):
    """Condition files are found in folders of runs, and for several 4-D files in one folder."""
    write_haxby(root, haxby, "S1/{run}.nii" if per_name else "S1/{run}/raf.nii")
    for run, (_, e) in haxby.items():
        path = root / ("S1/cond_{}.mat" if per_name else "S1/{}/cond.mat").format(run)
        scipy.io.savemat(path, conditions(e, TR if unit == "scans" else 1))
    labels = "cond_{run}.mat" if per_name else "cond.mat"
    options = {"labels": labels, "timing": NO_LAG, "onset_unit": unit}
    pattern = "run*" if per_name else "ra*"
    check_haxby(spm.read(root, store, pattern=pattern, **options), haxby)


def test_tables_of_volumes(root, store):
    given = small_study(root)
    rows = [(s, r, v, ["rest", "bad", "", "n/a"][v % 4]) for s, r in given for v in range(7)]
    cohort = spm.read(root, store, labels=table(root, rows))
    assert cohort.classes == ("bad", "rest")
    for i, (key, values) in enumerate(given.items()):
        run = cohort.runs[i]
        assert (run.subject, run.name) == key
        own = cohort.run_index == i
        assert cohort.frame[own].tolist() == [0, 1, 4, 5]
        assert cohort.labels[own].tolist() == [1, 0, 1, 0]
        np.testing.assert_array_equal(np.moveaxis(run.read(slice(None)), 0, -1), values)
    np.testing.assert_array_equal(cohort.volumes[0], given["S1", "r1"][..., 0])
    table(root, rows, "subject,run,volume,trial_type")
    dropped = spm.read(
        root,
        store,
        labels="labels.csv",
        label_map="rest=rest;bad=bad",
        timing=events.Timing(drop_first=1),
    )
    assert dropped.classes == ("rest", "bad")
    assert dropped.frame[:3].tolist() == [1, 4, 5]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], "subject,run,volume,label", "found no rows"),
        ([("S1", "r1", 0, "a")], "subject,session,volume,label", "expected a column 'run'"),
        ([("S1", "r1", 0)], "subject,run,label", "expected columns volume and trial_type or label"),
        ([("S1", "r1", 0)], "subject,run,volume", "expected columns volume and trial_type or lab"),
        ([("S1", "r1", 0, 1)], "subject,run,onset,name", "expected columns onset, duration and"),
        ([("S1", "r9", 0, "a")], "subject,run,volume,label", "found rows of S1 r9; .* S1 run r1"),
        ([("S1", "r1", "x", "a")], "subject,run,volume,label", "'x' in line 2, column 'volume'"),
        ([("S1", "r1", 0.5, "a")], "subject,run,volume,label", "volume 0.5 in line 2; expected 0"),
        ([("S1", "r1", -1, "a")], "subject,run,volume,label", "volume -1 in line 2"),
        (
            [("S1", "r1", 1, "a"), ("S1", "r1", 1, "b")],
            "subject,run,volume,label",
            "volume 1 in line 3 as in line 2",
        ),
        (
            [("S1", "r1", 0, "a"), ("S1", "r1", 8, "b")],
            "subject,run,volume,label",
            "found volume 8; expected volumes of a run of 8",
        ),
        ([("S1", "r1", 0, "a")], "subject,run,volume,label", "found classes a; expected two or"),
        ([("S1", "r1", 0)], "subject,run,volume,label", "found 3 cells in line 2; expected 4"),
        (
            [("S1", "r1", "a", 30, 5), ("S1", "r1", "a", 40, 5), ("S1", "r1", "b", 0, 5)],
            "subject,run,name,onset,duration",
            "an onset at 40 s; expected onsets before the end of the run, 20 s",
        ),
        (
            [("S1", "r1", "a", "n/a", 5)],
            "subject,run,name,onset,duration",
            "'n/a' in line 2, column 'onset'",
        ),
    ],
)
def test_refuses_tables(root, store, rows, header, message):
    small_study(root)
    labels = table(root, rows, header)
    with pytest.raises(InputError, match=message) as error:
        spm.read(root, store, labels=labels, subjects=("S1",), runs=("r1",))
    assert "\n" not in str(error.value)


def test_names_of_conditions_are_read_without_blanks(root, store):
    """MATLAB pads names to one length; the blanks are removed."""
    for i, (run, name) in enumerate((("run1", "neutral"), ("run2", "neutral "))):
        write(root / "S1" / run / "raf.nii", small(i))
        given = {key: np.empty((1, 2), object) for key in ("names", "onsets", "durations")}
        given["names"][0] = name, "negative"
        given["onsets"][0], given["durations"][0] = (0.0, 10.0), (5.0, 5.0)
        scipy.io.savemat(root / "S1" / run / "cond.mat", given)
    cohort = spm.read(root, store, labels="cond.mat", timing=NO_LAG)
    assert cohort.classes == ("negative", "neutral")
    assert cohort.labels.tolist() == [1, 1, 0, 0] * 2
    assert {(loss.run, loss.value) for loss in cohort.lost} == {
        (run, name) for run in ("run1", "run2") for name in ("negative", "neutral")
    }


def test_events_of_no_or_of_unknown_duration(root, store):
    """Unknown durations leave volumes without a class (TR 2.5 s)."""
    write(root / "S1" / "r1" / "raf.nii", small())
    rows = [("S1", "r1", "a", 2.5, 5), ("S1", "r1", "b", 7.5, 5), ("S1", "r1", "b", 12.5, "n/a")]
    labels = table(root, rows, "subject,run,name,onset,duration")
    options = {"labels": labels, "label_map": "a=a;b=b;rest="}
    cohort = spm.read(root, store, timing=NO_LAG, **options)
    assert cohort.frame.tolist() == [0, 1, 2, 3, 4] and cohort.labels.tolist() == [2, 0, 0, 1, 1]
    assert [(loss.value, loss.unknown) for loss in cohort.lost] == [("a", 0), ("b", 1)]
    longer = NO_LAG._replace(event_duration_s=5.0)
    cohort = spm.read(root, store, timing=longer, **options)
    assert cohort.labels.tolist() == [2, 0, 0, 1, 1, 1, 1, 2]
    table(
        root, [("S1", "r1", "a", 1, 1), ("S1", "r1", "b", 2, 0)], "subject,run,name,onset,duration"
    )
    with pytest.raises(InputError, match=r"duration 0 of 'b' at 5 s; .*event_duration_s=4.0"):
        spm.read(root, store, timing=NO_LAG, onset_unit="scans", **options)
    cohort = spm.read(root, store, timing=longer, onset_unit="scans", **options)
    assert cohort.labels.tolist() == [2, 0, 1, 1, 2, 2, 2, 2]  # 5 s, not 5 scans


def test_a_table_may_name_subjects_and_runs_in_another_way(root, store):
    write(root / "sub-01" / "run-1" / "raf.nii", small())
    write(root / "sub-Mu\u0308ller" / "run-1" / "raf.nii", small(1))
    keys = [("1", "01"), ("M\u00fcller ", "01")]
    cohort = spm.read(root, store, labels=table(root, alternating(keys)))
    assert [run.subject for run in cohort.runs] == ["sub-01", "sub-M\u00fcller"]
    assert cohort.labels.tolist() == [0, 1] * 8
    only = spm.read(root, store, labels="labels.csv", subjects=("01",))
    assert [run.subject for run in only.runs] == ["sub-01"]


def test_volumes_of_no_class_are_counted(root, store):
    given = small_study(root)
    rows = [(s, r, v, ("a", "b", "cue", "n/a")[v % 4]) for s, r in given for v in range(8)]
    cohort = spm.read(root, store, labels=table(root, rows), label_map="x=a;y=b")
    assert cohort.notes == ("values of no class: cue (8), n/a (8)",) and cohort.lost == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"durations": None}, "found variables names, onsets; expected names, onsets, durations"),
        ({"onsets": np.zeros((1, 2))}, "found onsets of type float64"),
        ({"names": np.array([["a"]], object)}, "found 1 names, 2 onsets and 2 durations"),
        (
            {"durations": np.array([[np.array([1.0, 2, 3]), 1.0]], object)},
            "found 2 onsets and 3 durations of 'a'",
        ),
        (
            {"durations": np.array([[np.array([1.0, np.nan]), 1.0]], object)},
            "found NaN or infinite times of 'a'",
        ),
    ],
)
def test_refuses_condition_files(root, store, changes, message):
    write(root / "S1" / "r1" / "raf.nii", small())
    with pytest.raises(InputError, match=r"r1/cond.mat: found no such file"):
        spm.read(root, store, labels="cond.mat")
    given = {
        "names": np.array([["a", "b"]], object),
        "onsets": np.array([[np.array([0.0, 4.0]), np.array([2.0])]], object),
        "durations": np.array([[2.0, 2.0]], object),
    }
    given = {key: value for key, value in (given | changes).items() if value is not None}
    scipy.io.savemat(root / "S1" / "r1" / "cond.mat", given)
    with pytest.raises(InputError, match=message):
        spm.read(root, store, labels="cond.mat")


def test_refuses_rows_without_images(root, store):
    keys = [*small_study(root), ("S3", "r1")]
    labels = table(root, alternating(keys))
    with pytest.raises(InputError, match="found rows of subject S3 run r1, without images"):
        spm.read(root, store, labels=labels)
    assert len(spm.read(root, store, labels=labels, subjects=("S1", "S2")).runs) == 4


@pytest.mark.parametrize(
    "names", [("a", ""), ("a", " "), ("a", 3.0), (np.array([["a"]], object), "b")]
)
def test_refuses_names_that_are_no_text(root, store, names):
    write(root / "S1" / "r1" / "raf.nii", small())
    cells = {key: np.empty((1, 2), object) for key in ("names", "onsets", "durations")}
    for key, values in (("names", names), ("onsets", (0.0, 4.0)), ("durations", (2.0, 2.0))):
        cells[key][0] = values
    scipy.io.savemat(root / "S1" / "r1" / "cond.mat", cells)
    with pytest.raises(InputError, match=r"cond.mat: found .* among the names; expected a text"):
        spm.read(root, store, labels="cond.mat")
