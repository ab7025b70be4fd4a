"""What every step reads: rows, values, order; and runs that do not belong together."""

import numpy as np
import pytest

from emojax.data import cohort
from emojax.data.cohort import Run
from emojax.errors import InputError

CLASSES = ("rest", "face")


def make_run(subject="01", name="run-1", length=6, seed=0, **changes):
    frames = np.random.default_rng(seed).integers(0, 100, (length, 4, 3, 2)).astype(np.int16)
    return Run(subject, name, frames, **({"tr": 2.0, "affine": np.eye(4)} | changes))


def make_cohort():
    runs = [
        make_run("02", seed=2),
        make_run("01", "run-2", 5, seed=1, slope=2.0, intercept=1.0),
        make_run(),
    ]
    labels = [
        np.array([-1, 0, 0, 1, 1, -1]),
        np.array([0, 1, 0, 1, -1]),
        np.array([1, 1, -1, 0, 0, 0]),
    ]
    return cohort.build(runs, CLASSES, labels)


def test_rows_are_the_labelled_volumes_in_order_of_subject_and_run():
    c = make_cohort()
    assert c.subjects == ("01", "02") and c.tr == 2.0
    assert c.subject.tolist() == ["01"] * 9 + ["02"] * 4
    assert c.run.tolist() == ["run-1"] * 5 + ["run-2"] * 4 + ["run-1"] * 4
    assert c.labels.tolist() == [1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 1]
    assert c.time[:5].tolist() == [0, 2, 6, 8, 10]
    assert np.unique(c.run_index).size == 3
    assert [row["unused"] for row in c.counts()] == [1, 1, 2]
    assert c.counts()[0] == {
        "subject": "01",
        "run": "run-1",
        "volumes": 6,
        "rest": 3,
        "face": 2,
        "unused": 1,
    }


def test_values_in_scan_units_however_they_are_indexed():
    c = make_cohort()
    every = c.volumes[:]
    assert every.dtype == np.float32 and c.volumes.shape == every.shape == (13, 4, 3, 2)
    np.testing.assert_array_equal(every[5], c.runs[1].frames[0] * 2.0 + 1)
    np.testing.assert_array_equal(c.volumes[[7, 0, 12]], every[[7, 0, 12]])
    np.testing.assert_array_equal(c.volumes[c.labels == 1], every[c.labels == 1])
    np.testing.assert_array_equal(c.volumes[-1], every[12])
    np.testing.assert_array_equal(np.asarray(c.volumes), every)


def test_chunks_cover_every_row_once():
    c = make_cohort().select([12, 3, 5, 4, 0])
    rows = np.concatenate([rows for rows, _ in c.chunks(2)])
    assert sorted(rows) == list(range(5))
    for part, values in c.chunks(2):
        np.testing.assert_array_equal(values, c.volumes[part])


def test_features_are_masked_volumes():
    c = make_cohort()
    mask = np.random.default_rng(0).random((4, 3, 2)) < 0.5
    np.testing.assert_array_equal(c.features(mask), c.volumes[:][:, mask])
    with pytest.raises(ValueError, match=r"want a mask of shape \(4, 3, 2\).*got \(4, 3\)"):
        c.features(mask[..., 0])


def test_select_keeps_runs_and_shares_values():
    c = make_cohort()
    part = c.select(c.subject == "02")
    assert part.runs is c.runs and part.subjects == ("02",) and len(part.volumes) == 4
    np.testing.assert_array_equal(part.volumes[:], c.volumes[9:])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({}, "subject '01' run 'run-1' a second time"),
        ({"name": "run-2", "tr": 2.5}, "TR 2.5 s; expected 2.0 s"),
        ({"name": "run-2", "affine": np.diag([2.0, 1, 1, 1])}, r"another affine .*off by 1\)"),
        ({"name": "run-2", "affine": None}, "another affine"),
        (
            {"name": "run-2", "frames": np.zeros((6, 4, 3, 5))},
            r"shape \(4, 3, 5\); expected \(4, 3, 2\)",
        ),
    ],
)
def test_runs_that_do_not_belong_together(changes, match):
    other = Run(
        **(
            {
                "subject": "01",
                "name": "run-1",
                "frames": make_run().frames,
                "tr": 2.0,
                "affine": np.eye(4),
            }
            | changes
        )
    )
    with pytest.raises(InputError, match=match):
        cohort.build([make_run(), other], CLASSES, [np.zeros(6, int)] * 2)


def test_nothing_to_decode():
    with pytest.raises(InputError, match="no run"):
        cohort.build([], CLASSES, [])
    with pytest.raises(InputError, match="no labelled volume in 1 runs"):
        cohort.build([make_run()], CLASSES, [np.full(6, -1)])
    with pytest.raises(InputError, match="6 volumes and 5 labels"):
        cohort.build([make_run()], CLASSES, [np.zeros(5, int)])


def test_subjects_on_other_grids_have_no_common_shape():
    other = Run("02", "run-1", np.zeros((6, 5, 3, 2)), 2.0, np.eye(4))
    c = cohort.build([make_run(), other], CLASSES, [np.zeros(6, int)] * 2)
    with pytest.raises(InputError, match=r"\(5, 3, 2\) \(02 run-1\); expected one shape"):
        _ = c.volumes.shape
