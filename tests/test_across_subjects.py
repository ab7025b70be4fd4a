"""Features of a fold: who touched what, the regimes, and leaks that must be caught."""

import dataclasses

import numpy as np
import pytest
from small_studies import NAMES, PER_RUN, ROWS, VOXELS, make_cohort, make_values, nearest_mean, read

from emojax import splits
from emojax.data.cohort import Prior
from emojax.errors import InputError
from emojax.features import across_subjects
from emojax.features.across_subjects import STRICT, Leaks, Settings
from emojax.provenance import LeakageError, Ledger, classify

pytestmark = pytest.mark.usefixtures("quick_compile")

KEEP = 10
SETTINGS = Settings(KEEP, 3, "independent_runs")
VALUES, Y = make_values()
COHORT = make_cohort(VALUES, Y)
VIEW = read(COHORT)
FOLD, *_ = splits.leave_one_out(VIEW.units)
SECOND_RUN = FOLD.test[VIEW.run[FOLD.test] == 1]
# Of 0.3.0, on these values: sums of features weighted by cos 0, cos 1, ... of the test and the
# monitored subject, and the correlation between training subjects before and after alignment.
NUMBERS = {
    ("group", STRICT): (6.891, -7.123, 0.1785, 0.2462),
    ("independent_runs", STRICT): (-9.985, -1.128, 0.1785, 0.9362),
    ("transductive", STRICT): (-9.005, -2.576, 0.1785, 0.9362),
    ("none", STRICT): (-19.496, -13.206, 0.1785, 0.1785),
    ("independent_runs", Leaks(voxels=True)): (11.993, 1.579, 0.1748, 0.9143),
    ("transductive", Leaks(True, True)): (11.778, 1.633, 0.1748, 0.9202),
}


def make(view=VIEW, settings=SETTINGS, leaks=STRICT, fold=FOLD):
    """Returns features of a fold, and the ledger after all reads of a training."""
    ledger = Ledger(view)
    made = across_subjects.fold_features(ledger, fold, settings, leaks)
    ledger.derive(made.x).reader({"network": fold.train, "epoch choice": fold.monitor})
    ledger.labels("network", fold.train)
    ledger.labels("epoch choice", fold.monitor)
    return made, ledger


def judge(ledger, claimed="leaky", by_run=False, fold=FOLD, name=""):
    unit = VIEW.run_index if by_run else VIEW.subject
    seen = ledger.seen(fold.test)
    return classify(seen, subject=VIEW.subject, unit=unit, claimed=claimed, name=name)


def accuracy(made, view=VIEW, fold=FOLD):
    train, test = fold.train, fold.test
    predicted = nearest_mean(made.x[train], view.labels[train], made.x[test])
    return (predicted == view.labels[test]).mean()


@pytest.mark.parametrize(("regime", "leaks"), NUMBERS)
def test_numbers_are_those_of_0_3_0(regime, leaks):
    made, _ = make(settings=SETTINGS._replace(regime=regime), leaks=leaks)
    weights = np.cos(np.arange(ROWS * KEEP)).reshape(ROWS, KEEP)
    got = [(made.x[rows] * weights).sum() for rows in (FOLD.test, FOLD.monitor)]
    np.testing.assert_allclose((*got, *made.isc), NUMBERS[regime, leaks], atol=2e-3)


def test_alignment_finds_what_topographies_hide():
    got = {
        regime: accuracy(make(settings=SETTINGS._replace(regime=regime))[0])
        for regime in ("none", "independent_runs", "transductive")
    }
    assert got["none"] < 0.6 < 0.8 < got["independent_runs"] <= got["transductive"] + 0.1


@pytest.mark.parametrize(
    ("regime", "match", "protocol", "counts"),
    [
        ("group", "time", "strict", {}),
        ("group", "class", "strict", {}),
        ("independent_runs", "time", "calibrated", {}),
        ("independent_runs", "class", "calibrated", {}),  # labels of other runs, too
        ("transductive", "time", "transductive", {"alignment": 48}),
        ("none", "time", "calibrated", {}),  # centred by its other runs
        ("none", "class", "calibrated", {}),
    ],
)
def test_shapes_scale_and_class_of_protocol(regime, match, protocol, counts):
    made, ledger = make(settings=SETTINGS._replace(regime=regime, match=match))
    assert made.x.shape == (len(VIEW.labels), KEEP) and np.isfinite(made.x).all()
    pooled = made.x[FOLD.train]
    np.testing.assert_allclose(pooled.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(pooled.std(0), 1, atol=1e-3)
    by_run = (regime, match) == ("independent_runs", "class")
    assert judge(ledger, protocol, by_run) == (protocol, counts)
    scored = np.concatenate([rows for rows, _ in ledger.seen(FOLD.test)])
    np.testing.assert_array_equal(np.sort(scored), FOLD.test)
    if by_run:
        with pytest.raises(LeakageError, match="'alignment' saw labels of 24 other volumes"):
            judge(ledger, protocol)


def test_transductive_alignment_by_class_reads_scored_labels():
    _, ledger = make(settings=SETTINGS._replace(regime="transductive", match="class"))
    with pytest.raises(LeakageError, match="step 'alignment' saw labels of 48 scored"):
        judge(ledger, "transductive", name="nested")


def test_uncentred_voxels_without_alignment_are_strict():
    _, ledger = make(settings=SETTINGS._replace(regime="none", centre=False))
    assert judge(ledger) == ("strict", {})


def changed(name, rows, by=500.0):
    """Returns the same study with other values in some rows of one subject."""
    values = VALUES.copy()
    x = values[NAMES.index(name)]
    x[rows] += by * np.random.default_rng(9).normal(size=x[rows].shape)
    return read(make_cohort(values, Y))


def same_training(a, b):
    return np.array_equal(a.x[FOLD.train], b.x[FOLD.train])


@pytest.mark.parametrize("own_voxels", [False, True])
@pytest.mark.parametrize("match", ["time", "class"])
def test_scored_volumes_and_labels_of_the_test_subject_touch_nothing(match, own_voxels):
    """Changing a run's values or labels changes that run's own features at most."""
    settings = SETTINGS._replace(match=match, own_voxels=own_voxels)
    before, _ = make(settings=settings)
    run = VIEW.run[FOLD.test]
    after, _ = make(changed(FOLD.name, run == 1), settings)
    assert same_training(before, after)
    np.testing.assert_array_equal(before.x[FOLD.monitor], after.x[FOLD.monitor])
    moved = (before.x[FOLD.test] != after.x[FOLD.test]).any(1)
    assert moved[run == 1].all()  # its own values; and run 0 is aligned by run 1
    y = COHORT.labels.copy()
    y[SECOND_RUN] = (y[SECOND_RUN] + 1) % 3
    after, _ = make(read(COHORT.with_labels(y)), settings)
    assert same_training(before, after)
    np.testing.assert_array_equal(before.x[SECOND_RUN], after.x[SECOND_RUN])
    if match == "time" and not own_voxels:
        np.testing.assert_array_equal(before.x, after.x)


@pytest.mark.parametrize("leaks", [Leaks(voxels=True), Leaks(alignment=True), Leaks(True, True)])
def test_planted_leaks_are_caught_and_real(leaks):
    made, ledger = make(leaks=leaks)
    with pytest.raises(LeakageError, match="voxels" if leaks.voxels else "alignment"):
        judge(ledger, "calibrated", name="nested")
    protocol, counts = judge(ledger)
    # Values in the alignment without labels are transductive; voxels by F-scores need labels.
    assert protocol == ("leaky" if leaks.voxels else "transductive")
    assert set(counts) == {n for n in ("voxels", "alignment") if getattr(leaks, n)}
    after, _ = make(changed(FOLD.name, slice(None)), leaks=leaks)
    assert not same_training(made, after)


def test_monitoring_the_test_subject_is_a_leak():
    fold = splits.leave_one_out(VIEW.units, monitor_test=True)[0]
    _, ledger = make(fold=fold)
    with pytest.raises(LeakageError, match="epoch choice"):
        judge(ledger, "calibrated", fold=fold)
    assert judge(ledger, fold=fold)[1]["epoch choice"] == 48


def test_cleaning_of_scored_runs_is_reported():
    cleaned = read(dataclasses.replace(COHORT, prior=(Prior("cleaning"),)))
    assert judge(make(cleaned)[1]) == ("transductive", {"cleaning": 48})
    chosen = read(dataclasses.replace(COHORT, prior=(Prior("vectors of others", labels=True),)))
    assert judge(make(chosen)[1]) == ("leaky", {"vectors of others": 48})


def test_noise_is_at_chance_where_nothing_leaks():
    hits = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(len(NAMES), ROWS, VOXELS)).astype(np.float32)
        view = read(make_cohort(x, np.stack([rng.permutation(ROWS) % 3 for _ in NAMES])))
        for regime in ("independent_runs", "none"):
            made, _ = make(view, SETTINGS._replace(regime=regime))
            hits.append(accuracy(made, view))
    assert abs(np.mean(hits) - 1 / 3) < 0.07


def test_own_voxels_serve_subjects_whose_columns_do_not_correspond():
    rng = np.random.default_rng(0)
    shuffled = []
    for x in VALUES:
        width = VOXELS - int(rng.integers(0, 5))
        columns = np.r_[np.arange(12), 12 + rng.permutation(VOXELS - 12)][:width]
        shuffled.append(x[:, rng.permutation(columns)])
    view = read(make_cohort(shuffled, Y))
    made, ledger = make(view, SETTINGS._replace(own_voxels=True, match="class"))
    assert made.voxels is None and made.mask is None
    assert np.isnan(made.isc[0]) and accuracy(made, view) > 0.6
    assert judge(ledger, "calibrated", by_run=True) == ("calibrated", {})
    with pytest.raises(LeakageError, match="step 'voxels' saw labels of 24 other volumes"):
        judge(ledger, "calibrated")


def test_correlation_between_subjects_rises():
    before, after = make()[0].isc
    assert after > before + 0.2


def test_only_voxels_inside_every_training_mask_are_chosen():
    odd = {name: np.arange(VOXELS) % 2 == 0 for name in NAMES}
    held_out = np.arange(VOXELS) < 2  # masks of the test and the monitored subject have no part
    inside = {**odd, NAMES[0]: held_out, NAMES[1]: held_out}
    made, ledger = make(dataclasses.replace(VIEW, inside=inside))
    assert (made.voxels % 2 == 0).all() and made.mask.tolist() == odd["c"].tolist()
    masks = ledger.shared.steps["mask"]
    np.testing.assert_array_equal(np.flatnonzero(masks.values), FOLD.train)
    assert not masks.labels.any()
    few = {**inside, "d": np.arange(VOXELS) < 4}
    with pytest.raises(InputError, match=r"voxels.keep: found 10; expected at most 2"):
        make(dataclasses.replace(VIEW, inside=few))


def test_rows_that_a_subject_lacks_leave_the_template():
    """A row missing in one subject gives the same alignment as a row missing in all."""
    lacks = np.arange(len(Y)) != 5
    one = COHORT.select((COHORT.subject != "c") | np.tile(lacks, len(NAMES)))
    found = []
    for view in (read(one), read(COHORT.select(np.tile(lacks, len(NAMES))))):
        fold, *_ = splits.leave_one_out(view.units)
        made, _ = make(view, SETTINGS._replace(centre=False), fold=fold)
        found.append(np.asarray(made.space.model.template))
        assert made.space.keys.tolist() == [[*divmod(i, PER_RUN)] for i in np.flatnonzero(lacks)]
    assert found[0].shape == found[1].shape
    assert np.abs(found[0] - found[1]).max() < 0.2  # voxels are chosen by one row more


def test_subjects_without_a_common_row_are_refused():
    run = {"c": "1", "d": "2"}
    keep = [run.get(s, r) == r for s, r in zip(COHORT.subject, COHORT.run, strict=True)]
    view = read(COHORT.select(np.array(keep)))
    fold, *_ = splits.leave_one_out(view.units)
    with pytest.raises(InputError, match=r"alignment: found no volume .*align.match=class"):
        make(view, fold=fold)


def test_every_fit_is_kept_for_the_audit():
    _, ledger = make()
    kept = [(step, scope is None) for step, scope, _ in ledger.kept]
    shared = [("mask", True), ("voxels", True), ("alignment", True)]
    monitored = [("alignment", True)] * 2  # one map per run
    assert kept == [
        *shared,
        *monitored,
        ("alignment", False),
        ("alignment", False),
        ("scaler", True),
    ]
    scopes = [scope for _, scope, _ in ledger.kept if scope is not None]
    np.testing.assert_array_equal(np.concatenate(scopes), FOLD.test)


def test_nuisance_is_global_signal_time_and_motion_without_the_test_mask():
    timed = read(make_cohort(VALUES, Y, tr=2.0))
    fold = splits.leave_one_out(timed.units)[0]
    ledger = Ledger(timed)
    mask = np.arange(VOXELS) < 7
    train, test = across_subjects.nuisance_features(ledger, fold, mask)
    assert train.shape == (3 * ROWS, 2) and test.shape == (ROWS, 2)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-4)
    signal = VALUES[2:, :, :7].mean(2).ravel()
    want = (VALUES[0][:, :7].mean(1) - signal.mean()) / signal.std()
    np.testing.assert_allclose(test[:, 0], want, rtol=1e-3, atol=1e-3)
    seen = ledger.shared.steps["baselines"]
    np.testing.assert_array_equal(np.flatnonzero(seen.values), fold.train)
    assert not seen.labels.any() and len(ledger.shared.steps) == 1
    everywhere, _ = across_subjects.nuisance_features(ledger, fold, None)
    assert not np.array_equal(everywhere[:, 0], train[:, 0])
