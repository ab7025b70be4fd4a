"""The audit: whatever moves when what is scored is changed must be on the record."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from hand_made import GRID, make_cohort

from emojax import provenance, splits
from emojax.audit import LABELS, MASK, VALUES, Audited, audit, perturb
from emojax.data.cohort import Prior
from emojax.provenance import LeakageError, Ledger, classify
from emojax.records import FoldData

MASKS = {f"0{i}": np.random.default_rng(i).random(GRID) < 0.7 for i in range(1, 5)}


def integers(cohort):
    """Integer values, whose sums do not depend on their order."""
    rng = np.random.default_rng(0)
    runs = [
        dataclasses.replace(run, frames=rng.integers(0, 999, run.frames.shape).astype(np.float32))
        for run in cohort.runs
    ]
    return dataclasses.replace(cohort, runs=tuple(runs))


COHORT = integers(make_cohort()).with_masks(MASKS)
FOLD = splits.leave_one_out(COHORT.subject)[0]
OTHER_MASKS = {"01": MASKS["01"] & (np.random.default_rng(9).random(GRID) < 0.5)}


def nothing(ledger, cohort, fold):
    return 0.0


def make_with(leak=nothing, **changes):
    """A function cohort -> fold: volumes minus a mean of training rows, plus what `leak` returns.

    Args:
      leak: (ledger, cohort, fold) -> what is subtracted, too; it may read past the ledger.
      changes: field of `FoldData` -> (cohort, fold) -> its value.
    """

    def make(cohort):
        ledger = Ledger(cohort)
        mean = ledger.values("scaler", FOLD.train).mean(0) + leak(ledger, cohort, FOLD)
        ledger.keep("scaler", mean)
        return fold_data(ledger, cohort, mean, changes)

    return make


def fold_data(ledger, cohort, mean, changes=None):
    labels = np.full(ledger.cohort_size, -1)
    labels[FOLD.train] = ledger.labels("network", FOLD.train)
    labels[FOLD.monitor] = ledger.labels("epoch choice", FOLD.monitor)
    read = ledger.reader({"network": FOLD.train, "epoch choice": FOLD.monitor})
    read_test = ledger.scored_reader(FOLD.test)
    data = FoldData(
        FOLD,
        ledger,
        lambda rows: read(rows) - mean,
        lambda rows: read_test(rows) - mean,
        labels,
        (FOLD.train,),
        FOLD.monitor,
        (jax.random.key(0),),
        unit=cohort.subject,
    )
    made = {name: change(cohort, data) for name, change in (changes or {}).items()}
    return dataclasses.replace(data, **made)


def run(make, cohort=COHORT, masks=OTHER_MASKS, **options):
    before = make(cohort)
    changes = perturb(cohort, before, seed=0, masks=masks)
    return audit(make, before, changes, name="nested", **options)


def refused(make, step, what, said, **options):
    """Asserts that the audit refuses in one line, which names the step and the perturbation."""
    with pytest.raises(LeakageError) as error:
        run(make, **options)
    line = str(error.value)
    expected = (
        f"nested: step '{step}' depends on what it is scored on: {said} "
        r"\(row \d+, fold 01\), "
        f"and {what} moved, which no read on the record explains"
    )
    assert re.fullmatch(expected, line), line


# perturb


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
    """Cells of equal labels must not survive: whoever only groups by label would go unnoticed."""
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


# audit


def test_an_honest_fold_passes():
    assert audit is provenance.audit
    got = run(make_with())
    assert got == Audited("01", (VALUES, LABELS, MASK), (), got.compared)
    assert got.compared >= 9  # a fit; rows, labels and features twice each; the scored features
    assert run(make_with(), masks=None).perturbations == (VALUES, LABELS)


def invisible(statistic):
    """A leak of values that is on nobody's record."""
    return lambda ledger, cohort, fold: statistic(ledger.scored(fold.test))


@pytest.mark.parametrize(
    "statistic",
    [
        lambda x: x.mean(0),
        lambda x: x.mean(),  # whichever way round the volumes are
        lambda x: x.std(),
        lambda x: x.max(),
        lambda x: np.sort(x.sum((1, 2, 3)))[len(x) // 2],
    ],
    ids=["mean volume", "mean", "sd", "maximum", "median of global signals"],
)
def test_a_leak_by_values_is_caught(statistic):
    refused(make_with(invisible(statistic)), "scaler", "its fit", VALUES)


def test_a_leak_by_labels_is_caught():
    def peek(ledger, cohort, fold):
        return cohort.volumes[fold.train][cohort.labels[fold.test][0] == 1].mean()

    def peek_counts(ledger, cohort, fold):
        return float(np.bincount(cohort.labels[fold.test], minlength=3).max())

    def peek_any(ledger, cohort, fold):
        return float(cohort.labels[fold.test].sum())

    for leak in (peek_counts, peek_any):
        refused(make_with(leak), "scaler", "its fit", LABELS)


def test_a_leak_by_who_shares_a_label_is_caught():
    """Cells of the design, centred one by one: the values are on the record, the labels are not."""

    def make(cohort):
        ledger = Ledger(cohort)
        ledger.scoring(FOLD.test).values("centring", FOLD.test)
        mean = ledger.values("scaler", FOLD.train).mean(0)
        ledger.keep("scaler", mean)
        data = fold_data(ledger, cohort, mean)
        cells = cohort.labels[FOLD.test]

        def read_test(rows):
            means = {k: data.read_test(FOLD.test[cells == k]).mean(0) for k in np.unique(cells)}
            return data.read_test(rows) - np.stack([means[k] for k in cohort.labels[rows]])

        return dataclasses.replace(data, read_test=read_test)

    refused(make, "scoring", "the features of another scored volume", LABELS)


def test_a_leak_by_the_mask_is_caught_and_a_recorded_mask_explained():
    def hidden(ledger, cohort, fold):
        return cohort.masks["01"].astype(np.float32)

    refused(make_with(hidden), "scaler", "its fit", MASK)

    def recorded(ledger, cohort, fold):
        ledger.values("mask", fold.test)
        return cohort.masks["01"].astype(np.float32)

    got = run(make_with(recorded))
    assert got.moved[0] == "scaler" and "network" in got.moved


def test_what_the_record_explains_is_reported():
    def everybody(ledger, cohort, fold):
        return ledger.values("scaler", np.arange(ledger.cohort_size)).mean(0)

    got = run(make_with(everybody))
    assert got.moved == ("scaler", "network", "epoch choice", "scoring")


def test_values_on_the_record_explain_no_labels():
    def both(ledger, cohort, fold):
        ledger.values("scaler", fold.test)
        return float(cohort.labels[fold.test].sum())

    refused(make_with(both), "scaler", "its fit", LABELS)

    def labels_only(ledger, cohort, fold):
        ledger.labels("scaler", fold.test)
        return ledger.scored(fold.test).mean(0)

    refused(make_with(labels_only), "scaler", "its fit", VALUES)


def test_a_prior_explains_nothing():
    """Cleaning came before the perturbation, which it cannot pass on."""
    cleaned = dataclasses.replace(COHORT, prior=(Prior("cleaning", labels=True),))
    leak = invisible(lambda x: x.mean(0))
    refused(make_with(leak), "scaler", "its fit", VALUES, cohort=cleaned)
    assert run(make_with(), cohort=cleaned).moved == ()


def transductive(ledger, cohort, fold):
    """A mean of the test subject's own rows, for its own scores only."""
    part = ledger.scoring(fold.test)
    mean = part.values("centring", fold.test).mean(0)
    part.keep("centring", mean)
    return mean


def make_transductive(cohort):
    ledger = Ledger(cohort)
    own = transductive(ledger, cohort, FOLD)
    mean = ledger.values("scaler", FOLD.train).mean(0)
    ledger.keep("scaler", mean)
    data = fold_data(ledger, cohort, mean)
    return dataclasses.replace(data, read_test=lambda rows: data.read_test(rows) - own)


def test_a_transductive_step_moves_scores_and_no_training():
    got = run(make_transductive)
    assert got.moved == ("centring", "scoring")
    data = make_transductive(COHORT)
    protocol, counts = classify(
        data.ledger.seen(FOLD.test), subject=COHORT.subject, unit=COHORT.subject
    )
    assert (protocol, counts) == ("transductive", {"centring": len(FOLD.test)})


def test_reads_for_some_scores_explain_nothing_of_the_training():
    """The record of the test subject's own map does not excuse a scaler that sees its rows."""

    def make(cohort):
        ledger = Ledger(cohort)
        own = transductive(ledger, cohort, FOLD)
        mean = ledger.values("scaler", FOLD.train).mean(0) + own
        ledger.keep("scaler", mean)
        return fold_data(ledger, cohort, mean)

    refused(make, "scaler", "its fit", VALUES)


@pytest.mark.parametrize(
    ("field", "change", "step", "what"),
    [
        (
            "train",
            lambda cohort, data: (np.roll(data.fold.train, cohort.labels[FOLD.test].sum()),),
            "network",
            "its rows",
        ),
        (
            "monitor",
            lambda cohort, data: np.roll(data.fold.monitor, cohort.labels[FOLD.test].sum()),
            "epoch choice",
            "its rows",
        ),
        (
            "labels",
            lambda cohort, data: data.labels + cohort.labels[FOLD.test].sum(),
            "network",
            "the labels of its rows",
        ),
        (
            "read",
            lambda cohort, data: lambda rows: data.read(rows) + cohort.labels[FOLD.test].sum(),
            "network",
            "the features of its rows",
        ),
        (
            "read_test",
            lambda cohort, data: (
                lambda rows: data.read_test(rows) * (cohort.labels[rows] > 1).mean()
            ),
            "scoring",
            "the features of another scored volume",
        ),
    ],
)
def test_every_part_of_a_fold_is_compared(field, change, step, what):
    refused(make_with(**{field: change}), step, what, LABELS)


def test_the_number_of_fits_is_compared():
    def sometimes(ledger, cohort, fold):
        if cohort.labels[fold.test][:24].sum() == COHORT.labels[fold.test][:24].sum():
            ledger.keep("voxels", np.ones(2))
        return 0.0

    with pytest.raises(LeakageError, match=LABELS):
        run(make_with(sometimes))


def test_stand_ins_are_compared_row_by_row():
    def fits(data):
        x = data.read_test(data.fold.test).reshape(len(data.fold.test), -1)
        weights = data.read(data.fold.train).mean(0)
        return {"network": weights, "scored": {"prediction": x @ weights.ravel()}}

    got = run(make_with(), stand_in=fits)
    assert got.moved == () and got.compared == run(make_with()).compared + 2

    def learns_from_test(data):
        return {"network": data.read_test(data.fold.test).mean(0)}

    refused(make_with(), "network", "what it learns", VALUES, stand_in=learns_from_test)

    def batch_norm(data):  # predictions of a row depend on the others
        x = data.read_test(data.fold.test)
        return {"scored": {"prediction": x - x.mean(0)}}

    what = "the prediction of another scored volume"
    refused(make_with(), "scoring", what, VALUES, stand_in=batch_norm)


def test_the_last_bit_counts():
    def tiny(ledger, cohort, fold):
        moved = cohort.labels[fold.test].sum() != COHORT.labels[fold.test].sum()
        return np.spacing(np.float32(500)) if moved else 0.0

    refused(make_with(tiny), "scaler", "its fit", LABELS)


def test_what_is_not_a_number_is_equal_to_itself():
    holes = lambda ledger, cohort, fold: np.where(MASKS["02"], np.nan, 0.0)  # noqa: E731
    assert run(make_with(holes)).moved == ()
