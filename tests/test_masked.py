"""The cohort as folds read it, for volumes, vectors and runs as units."""

import numpy as np
import pytest
from hand_made import make_cohort

from emojax import sources
from emojax.data.cohort import build
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.features import masked
from emojax.features.masked import UnitRows
from emojax.provenance import Ledger

MASK = {"lower": 0.2, "upper": 0.85, "opening": 2}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    from configs import expA

    config = expA.get_config("demo")
    config.data.update({"progress": False, "store": str(tmp_path_factory.mktemp("store"))})
    config.data.synthetic.update({"subjects": 4, "grid": (16, 16, 12), "volumes": 60})
    return sources.load(config)


@pytest.fixture(scope="module")
def view(cohort):
    return masked.read(cohort, MASK, "subject")


def test_rows_are_masked_volumes_of_each_subject(cohort, view):
    assert view.names == ["01", "02", "03", "04"] and view.union.shape == (16, 16, 12)
    for name in view.names:
        rows = view.rows(name)
        assert (cohort.subject[rows] == name).all() and (view.units[rows] == name).all()
        np.testing.assert_array_equal(view.volumes[rows][7], cohort.volumes[rows[7]][view.union])
        assert np.unique(view.run[rows]).tolist() == [0, 1]
        assert 0.1 < view.inside[name].mean() <= 1
    assert view.nuisance.shape == (len(view.labels), 7)  # time, six of motion
    np.testing.assert_array_equal(view.nuisance[:, 0], cohort.time)
    want = cohort.volumes[:].reshape(4, -1, 16, 16, 12).mean((0, 1))
    np.testing.assert_allclose(view.mean, want, rtol=1e-4)
    for name in ("labels", "subject", "run_index", "prior"):
        np.testing.assert_array_equal(getattr(view, name), getattr(cohort, name))


def test_a_ledger_reads_a_view_and_the_masks_that_it_has(view):
    ledger = Ledger(view)
    np.testing.assert_array_equal(ledger.design("union"), view.union)
    for name in ("units", "subject", "run", "run_index", "frame"):
        assert ledger.design(name).shape == view.labels.shape, name
    np.testing.assert_array_equal(ledger.mask("mask", "02"), view.inside["02"])
    seen = ledger.shared.steps["mask"].values
    np.testing.assert_array_equal(np.flatnonzero(seen), view.rows("02"))


def test_masks_of_the_source_come_first(cohort):
    own = np.zeros(cohort.shape, bool)
    own[5:10, 5:10, 4:8] = True
    given = cohort.with_masks(dict.fromkeys(cohort.subjects, own))
    assert masked.read(given, MASK, "subject").union.sum() == own.sum()


def test_a_mask_that_cannot_be_made_is_named(cohort):
    with pytest.raises(InputError, match=r"mask of 01: .*expected a brain in its mean volume"):
        masked.read(cohort, MASK | {"lower": 1.0, "upper": 1.0}, "subject")


def test_runs_as_units(cohort):
    one = cohort.select(np.isin(cohort.subject, ["01", "02"]))
    got = masked.read(one, MASK, "run")
    assert got.names == ["01/run-01", "01/run-02", "02/run-01", "02/run-02"]
    assert (got.run == 0).all()
    with pytest.raises(InputError, match="units: found 'session'; expected subject or run"):
        masked.read(one, MASK, "session")


def test_vectors_of_any_width_have_no_mask():
    rng = np.random.default_rng(0)
    runs = [Run(f"{i}", "1", rng.normal(size=(12, 20 + i)).astype(np.float32)) for i in range(3)]
    got = masked.read(build(runs, ("a", "b"), [np.arange(12) % 2] * 3), MASK, "subject")
    assert got.union is None and got.mean is None
    assert [got.volumes[got.rows(name)].shape[1] for name in got.names] == [20, 21, 22]
    assert got.nuisance.shape == (36, 0)  # rows that are not in time have no time
    assert got.other_mask(got.rows("1"), 0) is None


def test_what_is_not_finite_is_0_and_outside_of_the_mask():
    x = np.random.default_rng(0).normal(size=(2, 12, 5)).astype(np.float32)
    x[0, 3, 2] = np.nan
    runs = [Run(name, "1", values) for name, values in zip("ab", x, strict=True)]
    got = masked.read(build(runs, ("a", "b"), [np.arange(12) % 2] * 2), MASK, "subject")
    assert got.inside["a"].tolist() == [True, True, False, True, True] and got.inside["b"].all()
    assert got.volumes[np.array([3])][0, 2] == 0
    np.testing.assert_array_equal(got.volumes[got.rows("b")], x[1])


def test_another_reading_takes_the_same_columns(cohort, view):
    smaller = cohort.with_masks({"01": np.zeros(cohort.shape, bool)})
    again = masked.read(smaller, MASK, "subject", like=view)
    np.testing.assert_array_equal(again.union, view.union)
    assert not again.inside["01"].any()
    np.testing.assert_array_equal(again.inside["02"], view.inside["02"])
    np.testing.assert_array_equal(again.volumes[view.rows("02")], view.volumes[view.rows("02")])


def test_the_audits_mask_has_half_of_the_test_subjects_voxels(view):
    found = view.other_mask(view.rows("03"), seed=4)
    assert list(found) == ["03"] and found["03"].shape == view.union.shape
    inside = found["03"][view.union]
    assert not (inside & ~view.inside["03"]).any() and not found["03"][~view.union].any()
    assert 0.4 < inside.sum() / view.inside["03"].sum() < 0.6
    np.testing.assert_array_equal(view.other_mask(view.rows("03"), seed=4)["03"], found["03"])


def test_where_other_runs_of_the_subject_train_its_mask_may_matter():
    by_run = masked.read(make_cohort(subjects=1), {"opening": 0}, "run")
    assert by_run.other_mask(by_run.rows(by_run.names[0]), seed=0) is None


def test_rows_are_taken_unit_by_unit_in_any_order():
    rng = np.random.default_rng(0)
    blocks = {"a": rng.normal(size=(4, 3)), "b": rng.normal(size=(5, 3))}
    places = {"a": np.array([0, 2, 4, 6]), "b": np.array([1, 3, 5, 7, 8])}
    whole = np.empty((9, 3), np.float32)
    for name, rows in places.items():
        whole[rows] = blocks[name]
    got = UnitRows(places, blocks, 9)
    assert len(got) == 9
    some = np.array([8, 0, 3, 3, 6])
    np.testing.assert_array_equal(got[some], whole[some])
    np.testing.assert_array_equal(got[:], whole)
    assert got[np.zeros(0, int)].shape == (0, 3)
    view = got[places["b"]]
    np.testing.assert_array_equal(view, blocks["b"])
    assert np.shares_memory(view, blocks["b"])  # consecutive rows of a unit are not copied
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_subjects_of_other_shapes_have_columns_of_their_own():
    """Native images have no common mask; each subject has its own voxels and maps (voxels.own)."""
    rng, runs, masks = np.random.default_rng(0), [], {}
    for i, (subject, shape) in enumerate((("a", (4, 5, 6)), ("b", (5, 5, 4)))):
        frames = rng.normal(100, 1, (12, *shape)).astype(np.float32)
        runs.append(Run(subject, "run-1", frames, 2.0, np.eye(4)))
        masks[subject] = np.zeros(shape, bool)
        masks[subject][: 2 + i] = True
    cohort = build(runs, ("x", "y"), [np.arange(12) % 2] * 2, masks)
    view = masked.read(cohort, {}, "subject")
    assert view.union is None and view.mean is None
    for run in runs:
        own = view.volumes[view.rows(run.subject)]
        np.testing.assert_array_equal(own, run.frames[:, masks[run.subject]])
        assert view.inside[run.subject].all() and view.inside[run.subject].size == own.shape[1]
