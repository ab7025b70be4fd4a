"""Tests of the audit's perturbations, which change nothing else."""

import numpy as np
import pytest
from hand_made import GRID
from toy_folds import COHORT, FOLD, MASKS, OTHER_MASKS, make_by_run, make_with

from emojax.audit import ALL_VALUES, LABELS, MASK, SOME_VALUES, VALUES, perturb


def changes_of(cohort=COHORT, masks=OTHER_MASKS, seed=0):
    return perturb(cohort, make_with()(cohort), seed=seed, masks=masks)


def test_one_row_is_replaced_and_every_other_volume_stays_bit_by_bit():
    changes = changes_of()
    change = changes.each[VALUES]
    assert change.row in FOLD.test and not change.rotated.any() and not change.masked.any()
    before, after = COHORT.volumes[:], change.cohort.volumes[:]
    others = np.delete(np.arange(len(before)), change.row)
    assert before[others].tobytes() == after[others].tobytes()
    assert not np.array_equal(before[change.row], after[change.row])
    assert not np.isclose(before[change.row].mean(), after[change.row].mean())
    np.testing.assert_array_equal(change.cohort.labels, COHORT.labels)
    assert change.cohort.masks.keys() == COHORT.masks.keys()


def test_labels_of_the_scored_unit_change_and_no_others():
    change = changes_of().each[LABELS]
    differ = change.cohort.labels != COHORT.labels
    np.testing.assert_array_equal(change.rotated, differ)
    assert differ.any() and (COHORT.subject[differ] == "01").all() and change.row == -1
    assert set(change.cohort.labels.tolist()) == {0, 1, 2}
    assert change.cohort.volumes[:].tobytes() == COHORT.volumes[:].tobytes()


def test_labels_change_together_with_who_shares_one():
    """Cells of equal labels must not survive, or a leak that only groups by label stays hidden."""
    change = changes_of().each[LABELS]
    own, new = COHORT.labels[FOLD.test], change.cohort.labels[FOLD.test]
    assert ((own[:, None] == own) != (new[:, None] == new)).any()
    assert not np.array_equal(np.bincount(own, minlength=3), np.bincount(new, minlength=3))


def test_the_unit_may_be_a_run():
    make = make_with(unit=lambda cohort, data: cohort.run_index)
    change = perturb(COHORT, make(COHORT), seed=1, masks=None).each[LABELS]
    assert len(np.unique(COHORT.run_index[change.rotated])) == 1
    assert set(COHORT.subject[change.rotated]) == {"01"}


def test_only_the_test_subjects_mask_changes():
    change = changes_of().each[MASK]
    np.testing.assert_array_equal(change.masked, COHORT.subject == "01")
    np.testing.assert_array_equal(change.cohort.masks["01"], OTHER_MASKS["01"])
    for name in ("02", "03", "04"):
        np.testing.assert_array_equal(change.cohort.masks[name], MASKS[name])
    assert changes_of(masks=None).each.keys() == {VALUES, LABELS}


def test_all_at_once_is_the_sum_of_each():
    each, together = changes_of().each, changes_of().all
    assert together.row == each[VALUES].row
    np.testing.assert_array_equal(together.rotated, each[LABELS].rotated)
    np.testing.assert_array_equal(together.masked, each[MASK].masked)
    np.testing.assert_array_equal(together.cohort.volumes[:], each[VALUES].cohort.volumes[:])
    np.testing.assert_array_equal(together.cohort.labels, each[LABELS].cohort.labels)
    np.testing.assert_array_equal(together.cohort.masks["01"], OTHER_MASKS["01"])


def test_the_seed_decides():
    rows = {changes_of(seed=seed).each[VALUES].row for seed in range(20)}
    assert len(rows) > 5 and rows <= set(FOLD.test.tolist())
    again, same = changes_of(seed=3), changes_of(seed=3)
    assert again.all.row == same.all.row
    np.testing.assert_array_equal(again.all.cohort.labels, same.all.cohort.labels)


def test_all_scored_volumes_may_become_noise():
    change = perturb(COHORT, make_with()(COHORT), seed=0, masks=None, together=(ALL_VALUES,)).each[
        ALL_VALUES
    ]
    scored = np.isin(np.arange(len(COHORT.labels)), FOLD.test)
    np.testing.assert_array_equal(change.replaced, scored)
    before, after = COHORT.volumes[:], change.cohort.volumes[:]
    assert before[~scored].tobytes() == after[~scored].tobytes()
    assert (before[scored] != after[scored]).any((1, 2, 3)).all()


def test_volumes_that_are_scored_together_may_become_noise():
    changes = perturb(COHORT, make_by_run(COHORT), seed=0, masks=None, together=(SOME_VALUES,))
    rows = np.flatnonzero(changes.each[SOME_VALUES].replaced)
    run = COHORT.run_index[changes.each[VALUES].row]
    np.testing.assert_array_equal(rows, np.flatnonzero(COHORT.run_index == run))


@pytest.mark.parametrize("value", [0.0, 5.0, -2.0, -0.5, 3e7, np.nan, np.inf])
def test_a_constant_volume_changes_too(value):
    cohort = COHORT
    for row in FOLD.test:
        cohort = cohort.replace_row(int(row), np.full(GRID, value))
    changes = perturb(cohort, make_with()(cohort), seed=0, masks=None)
    row = changes.each[VALUES].row
    before, after = cohort.volumes[[row]], changes.each[VALUES].cohort.volumes[[row]]
    assert not np.array_equal(before, after, equal_nan=True)
    assert np.isfinite(after).any()
