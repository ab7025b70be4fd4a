"""The audit: everything that moves with the scored values must be on the record."""

import dataclasses
import re

import numpy as np
import pytest
from toy_folds import COHORT, FOLD, MASKS, OTHER_MASKS, fold_data, make_by_run, make_with

from emojax import provenance
from emojax.audit import ALL_VALUES, LABELS, MASK, SOME_VALUES, VALUES, Audited, audit, perturb
from emojax.data.cohort import Prior
from emojax.provenance import LeakageError, Ledger, classify


def run(make, cohort=COHORT, masks=OTHER_MASKS, together=(), **options):
    before = make(cohort)
    changes = perturb(cohort, before, seed=0, masks=masks, together=together)
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


def test_an_honest_fold_passes():
    assert audit is provenance.audit
    got = run(make_with())
    assert got == Audited("01", (VALUES, LABELS, MASK), (), got.compared)
    assert got.compared >= 9  # a fit; rows, labels and features twice each; the scored features
    assert run(make_with(), masks=None).perturbations == (VALUES, LABELS)


def invisible(statistic):
    """Leaks values without a record."""
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


def test_what_one_volume_hides_all_of_them_show():
    darkest = invisible(lambda x: x.mean((1, 2, 3)).min())
    assert run(make_with(darkest)).moved == ()  # another one is darker
    refused(make_with(darkest), "scaler", "its fit", ALL_VALUES, together=(ALL_VALUES,))


def test_runs_that_are_centred_by_the_others_pass_every_round():
    got = run(make_by_run, together=(SOME_VALUES,))
    assert got.moved == ("centring", "scoring")
    assert got.perturbations == (VALUES, LABELS, MASK, SOME_VALUES)
    data = make_by_run(COHORT)
    seen = data.ledger.seen(FOLD.test)
    assert classify(seen, subject=COHORT.subject, unit=COHORT.subject) == ("calibrated", {})


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
    """Cleaning runs before the perturbation and so cannot pass it on."""
    cleaned = dataclasses.replace(COHORT, prior=(Prior("cleaning", labels=True),))
    leak = invisible(lambda x: x.mean(0))
    refused(make_with(leak), "scaler", "its fit", VALUES, cohort=cleaned)
    assert run(make_with(), cohort=cleaned).moved == ()


def transductive(ledger, cohort, fold):
    """Subtracts the mean of the test subject's own rows, for its own scores only."""
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
