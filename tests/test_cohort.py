"""Tests of the cohort: rows, values, order, and runs that do not belong together."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from emojax.data import belonging, cohort, grid
from emojax.data.cohort import Prior
from emojax.data.losses import Loss
from emojax.data.run import Run
from emojax.data.store import Store
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


def image_cohort(folder, dtype, slope, suffix=".nii.gz"):
    """Returns two runs of volumes mapped from disk, in the order of NIfTI files."""
    runs = []
    for seed in range(2):
        values = np.random.default_rng(seed).integers(0, 900, (4, 3, 2, 7))
        image = nib.Nifti1Image(values.astype(dtype), np.eye(4))
        image.header.set_slope_inter(slope, 5.0 if slope != 1 else 0.0)
        nib.save(image, path := folder / f"run-{seed}{suffix}")
        (scan,) = Store(folder / "store").images([path])
        run = Run("01", f"run-{seed}", scan.frames, 2.0, np.eye(4), scan.slope, scan.intercept)
        runs.append(run)
    return cohort.build(runs, CLASSES, [np.arange(7) % 2] * 2)


def vector_cohort(folder, dtype, slope):
    runs = []
    for seed in range(2):
        values = np.random.default_rng(seed).normal(size=(7, 11)).astype(dtype)
        np.save(path := folder / f"{seed}.npy", values)
        runs.append(Run("01", f"run-{seed}", np.load(path, mmap_mode="r"), slope=slope))
    return cohort.build(runs, CLASSES, [np.arange(7) % 2] * 2)


@pytest.mark.parametrize(
    ("make", "dtype", "slope"),
    [
        (image_cohort, np.int16, 1.0),
        (image_cohort, np.int16, 0.3),
        (image_cohort, ">i2", 0.3),
        (image_cohort, np.float32, 1.0),
        (image_cohort, np.float64, 0.7),
        (vector_cohort, np.float32, 1.0),
        (vector_cohort, np.float64, 0.3),
    ],
)
def test_replacing_a_row_leaves_every_other_bit(tmp_path, make, dtype, slope):
    c, row = make(tmp_path, dtype, slope), 9
    assert all(isinstance(run.frames, np.memmap) for run in c.runs)
    before = c.volumes[:]
    values = np.random.default_rng(3).normal(0, 1e4, c.shape).astype(np.float32)
    got = c.replace_row(row, values)
    assert got.volumes[row].tobytes() == values.tobytes()
    others = np.arange(14) != row
    assert got.volumes[others].tobytes() == before[others].tobytes()
    assert c.volumes[:].tobytes() == before.tobytes()  # the first cohort is as it was
    assert got.runs[0] is c.runs[0] and got.labels is c.labels
    again = got.replace_row(row, before[row])
    assert again.volumes[:].tobytes() == before.tobytes()
    for index in (slice(None), slice(1, 6), [0, 3], np.array([6, 1])):
        here, there = c.runs[1].read(index), again.runs[1].read(index)
        assert here.tobytes() == there.tobytes()
        assert here.strides == there.strides  # sums depend on the order in memory, too
        part = (..., slice(1, None))
        np.testing.assert_array_equal(c.runs[1].read(index, part), again.runs[1].read(index, part))
    for (rows, here), (_, there) in zip(c.chunks(3), again.chunks(3), strict=True):
        assert here.sum(0).tobytes() == there.sum(0).tobytes(), rows
    twice = got.replace_row(0, values)
    assert twice.volumes[[0, row]].tobytes() == np.stack([values, values]).tobytes()
    assert twice.runs[1] is got.runs[1]


def test_a_replaced_row_has_another_content():
    c = make_cohort()
    contents = {c.runs[0].content}
    assert c.runs[0].content == make_cohort().runs[0].content
    contents |= {c.replace_row(0, np.full(c.shape, v)).runs[0].content for v in (1, 2)}
    hashed = make_run(hashes={"a": "b"})
    assert hashed.content == "b"
    contents |= {hashed.content, hashed.replace(0, np.ones((4, 3, 2))).content}
    contents |= {hashed.replace(1, np.ones((4, 3, 2))).content}
    assert len(contents) == 6


def test_replacing_refuses_other_shapes_and_rows():
    c = make_cohort()
    with pytest.raises(ValueError, match=r"want values of shape \(4, 3, 2\); got \(4, 3\)"):
        c.replace_row(0, np.zeros((4, 3)))
    with pytest.raises(IndexError):
        c.replace_row(13, np.zeros((4, 3, 2)))
    np.testing.assert_array_equal(c.replace_row(-1, np.ones((4, 3, 2))).volumes[12], 1)


def test_other_labels_and_masks():
    c = make_cohort()
    other = c.with_labels(1 - c.labels)
    np.testing.assert_array_equal(other.labels, 1 - c.labels)
    assert other.labels.dtype == np.int32 and other.runs is c.runs and other.frame is c.frame
    with pytest.raises(ValueError, match=r"want 13 integers below 2; got int32 \(12,\)"):
        c.with_labels(c.labels[1:])
    with pytest.raises(ValueError, match=r"want 13 integers below 2; got .* from 0 to 2"):
        c.with_labels(2 * c.labels)
    with pytest.raises(ValueError, match="got float64"):
        c.with_labels(c.labels * 1.0)
    masked = c.with_masks({"01": np.ones((4, 3, 2), bool)})
    assert masked.masks.keys() == {"01"} and masked.runs is c.runs and not c.masks
    assert not masked.with_masks({}).masks


def test_priors_name_their_step_and_stay_with_the_cohort():
    prior = Prior("alignment", labels=True)
    assert f"{prior}" == str(prior) == "alignment" and not Prior("cleaning").labels
    c = dataclasses.replace(make_cohort(), prior=(prior,))
    assert c.select([0, 1]).prior == c.replace_row(0, np.zeros(c.shape)).prior == (prior,)
    assert make_cohort().prior == ()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({}, "subject '01' run 'run-1' a second time"),
        ({"name": "run-2", "tr": 2.5}, "TR 2.5 s; expected 2.0 s"),
        (
            {"name": "run-2", "affine": np.diag([2.0, 1, 1, 1])},
            r"another affine .*off by up to 3 voxels\)",
        ),
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
    with pytest.raises(InputError, match=r"no volume of class .rest., .face. in 1 runs"):
        cohort.build([make_run()], CLASSES, [np.full(6, -1)])
    with pytest.raises(InputError, match="6 volumes and 5 labels"):
        cohort.build([make_run()], CLASSES, [np.zeros(5, int)])


def test_subjects_on_other_grids_have_no_common_shape():
    other = Run("02", "run-1", np.zeros((6, 5, 3, 2)), 2.0, np.eye(4))
    c = cohort.build([make_run(), other], CLASSES, [np.arange(6) % 2] * 2)
    with pytest.raises(InputError, match=r"\(5, 3, 2\) .*; expected one shape"):
        _ = c.volumes.shape


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "\x1b[2J", "\udcff"])
def test_refuses_names_that_are_no_line_of_text(name):
    labels = [np.arange(6) % 2]
    for run, classes in (
        (make_run(name), CLASSES),
        (make_run("01", name), CLASSES),
        (make_run(), ("rest", name)),
    ):
        with pytest.raises(InputError, match=r"found the name .*; expected text in one line"):
            cohort.build([run], classes, labels)


def test_classes_do_not_hide_columns_of_the_counts():
    made = cohort.build([make_run()], ("run", "unused"), [np.array([0, 0, 1, -1, -1, -1])])
    (row,) = made.counts()
    counted = {"class run": 2, "class unused": 1, "unused": 3}
    assert row == {"subject": "01", "run": "run-1", "volumes": 6} | counted


def flipped(run, turn):
    """Returns the same scan, stored with its axes in another order."""
    return dataclasses.replace(
        run,
        frames=turn.apply(run.frames, 1).copy(),
        affine=grid.turned(run.affine, run.frames.shape[1:], turn),
    )


@pytest.mark.parametrize(
    "turn",
    [
        grid.Turn((0, 1, 2), (True, False, False)),
        grid.Turn((0, 1, 2), (True, True, True)),
        grid.Turn((2, 0, 1), (False, True, False)),
    ],
    ids=str,
)
def test_another_order_of_axes_is_turned_without_loss(turn):
    affine = np.diag([2.0, 3, 4, 1])
    runs = [make_run(s, r, seed=i, affine=affine) for i, (s, r) in enumerate(PLACES)]
    masks = {s: np.random.default_rng(i).random((4, 3, 2)) < 0.5 for i, s in enumerate("ab")}
    labels = [np.arange(6) % 2] * 4
    plain = cohort.build(runs, CLASSES, labels, masks)
    other = [flipped(run, turn) if run.subject == "b" else run for run in runs]
    turned_masks = masks | {"b": turn.apply(masks["b"])}
    found = cohort.build(other, CLASSES, labels, turned_masks)
    np.testing.assert_array_equal(found.volumes[:], plain.volumes[:])
    for subject in "ab":
        np.testing.assert_array_equal(found.masks[subject], plain.masks[subject])
        np.testing.assert_allclose(found.affine(subject), plain.affine(subject), atol=1e-9)
    assert plain.notes == () and ": 2 scans (first: " in found.notes[0]
    assert found.runs[2].content != plain.runs[2].content or not runs[2].hashes
    one_run = [runs[0], flipped(runs[1], turn), *runs[2:]]  # within a subject, too
    found = cohort.build(one_run, CLASSES, labels, masks)
    np.testing.assert_array_equal(found.volumes[:], plain.volumes[:])


PLACES = [("a", "run-1"), ("a", "run-2"), ("b", "run-1"), ("b", "run-2")]


def test_subjects_on_other_grids_are_refused_where_voxels_must_correspond():
    moved = np.diag([2.0, 2, 2, 1])
    runs = [make_run(s, r, seed=i, affine=moved) for i, (s, r) in enumerate(PLACES)]
    same = cohort.build(runs, CLASSES, [np.arange(6) % 2] * 4)
    belonging.check_grids(same)
    moved = moved.copy()
    moved[0, 3] = 1.0
    runs[2:] = [dataclasses.replace(run, affine=moved) for run in runs[2:]]
    other = cohort.build(runs, CLASSES, [np.arange(6) % 2] * 4)
    line = r"subject b run run-1: found another affine than subject a run run-1 \(off by .* 0.5 vox"
    with pytest.raises(InputError, match=line + r".*--config.data.grid=array"):
        belonging.check_grids(other)
    belonging.check_grids(other, "array")


def test_runs_in_the_order_of_their_numbers():
    names = ("run-10", "run-9", "run-1")
    runs = [make_run("a", name, seed=i) for i, name in enumerate(names)]
    found = cohort.build(runs, CLASSES, [np.arange(6) % 2] * 3)
    assert [run.name for run in found.runs] == ["run-1", "run-9", "run-10"]
    with pytest.raises(
        InputError, match=r"run 'run-01' a second time \(first: subject a run run-1"
    ):
        again = make_run("a", "run-01", seed=7)
        cohort.build([*runs, again], CLASSES, [np.arange(6) % 2] * 4)


def test_a_class_without_volumes_is_refused_once_counts_were_shown():
    run = make_run()
    empty = cohort.build([run], CLASSES, [np.zeros(6, int)])
    with pytest.raises(InputError, match=r"no volume of class 'face' in 1 runs; .*data.label_map"):
        belonging.check_classes(empty)
    loss = Loss("01", "run-1", "f", "face", 5, 5, 0, 0, 0)
    lossy = cohort.build([run], CLASSES, [np.zeros(6, int)], lost=[loss])
    with pytest.raises(InputError, match=r"no volume of .*, but 5 events; .*event_duration_s=4.0"):
        belonging.check_classes(lossy)


def test_columns_of_the_design_stay_with_their_rows():
    runs = [make_run("b"), make_run("a", seed=1)]
    labels = [np.array([0, -1, 1, 0, 1, -1]), np.array([-1, 1, 0, 0, 1, 1])]
    priming = [np.array(list("uvwxyz")), np.array(list("UVWXYZ"))]
    found = cohort.build(
        runs, CLASSES, labels, factors={"priming": priming}, groups={"a": "MDD"}, notes=["said"]
    )
    assert "".join(found.factors["priming"]) == "VWXYZuwxy"
    assert "".join(found.select([0, 5]).factors["priming"]) == "Vu"
    assert found.groups == {"a": "MDD"} and found.notes == ("said",)


def test_volumes_that_are_not_tr_apart_have_their_own_times():
    starts = np.array([0.0, 2, 5, 9, 11, 20])
    run = make_run(tr=None, starts=starts)
    found = cohort.build([run], CLASSES, [np.array([-1, 0, 1, -1, 0, 1])])
    assert found.time.tolist() == [2.0, 5.0, 11.0, 20.0]


def test_runs_of_a_subject_with_a_grid_of_its_own_are_turned_to_each_other():
    own = np.diag([2.0, 2, 5, 1])
    runs = [make_run("a", "run-1"), make_run("a", "run-2", seed=1)]
    runs += [make_run("b", name, seed=i, affine=own) for i, name in ((2, "run-1"), (3, "run-2"))]
    labels = [np.arange(6) % 2] * 4
    plain = cohort.build(runs, CLASSES, labels)
    runs[3] = flipped(runs[3], grid.Turn((0, 1, 2), (False, True, False)))
    found = cohort.build(runs, CLASSES, labels)
    np.testing.assert_array_equal(found.volumes[:], plain.volumes[:])
    assert (
        found.common_affine is None
        and cohort.build(runs[:2], CLASSES, labels[:2]).common_affine is not None
    )
