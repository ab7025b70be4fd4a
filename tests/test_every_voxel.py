"""Classical classifiers on every voxel: their inputs, the record, the audit, refusals."""

import numpy as np
import pytest
from small_studies import NAMES, PER_RUN, ROWS, VOXELS, make_cohort, make_values, read

from emojax import experiments, splits
from emojax.errors import InputError
from emojax.experiments import experiment_a
from emojax.features import every_voxel as voxels
from emojax.features.across_subjects import Settings
from emojax.provenance import Ledger, classify
from emojax.scoring.baselines import NUISANCE

VALUES, Y = make_values()
COHORT = make_cohort(VALUES, Y, tr=2.0)
VIEW = read(COHORT)
FOLD = splits.leave_one_out(VIEW.units)[0]
SETTINGS = Settings(10, 3, "none")
MASK = np.arange(VOXELS) % 3 > 0


@pytest.fixture
def small(config):
    """Returns settings for these vectors."""
    config.update({"protocols": "nested", "baselines": "LDA,1-NN", "null_floor": False})
    config.headline = "network"
    config.voxels.keep, config.balance = 20, 6
    config.align.regimes, config.voxels.classical = "none", "all"
    config.model.update({"filters": (8,), "window": 3, "dense": (8,)})
    return config


@pytest.mark.parametrize("centre", [True, False])
def test_are_centred_without_a_look_and_standardised_by_training_rows(centre):
    ledger = Ledger(VIEW)
    got = voxels.every_voxel(ledger, FOLD, SETTINGS._replace(centre=centre), MASK)
    people = [NAMES.index(name) for name in NAMES if name not in NAMES[:2]]
    train = VALUES[people][:, :, MASK].astype(np.float64)
    train = train - train.mean(1, keepdims=True) if centre else train
    mean, sd = train.reshape(-1, MASK.sum()).mean(0), train.reshape(-1, MASK.sum()).std(0)
    want = (train.reshape(-1, MASK.sum()) - mean) / sd
    np.testing.assert_allclose(got.read(FOLD.train), want, atol=2e-3)
    some = np.array([FOLD.train[5], FOLD.train[-1], FOLD.train[5]])
    np.testing.assert_array_equal(got.read(some), got.read(FOLD.train)[[5, -1, 5]])
    test = VALUES[0][:, MASK].astype(np.float64)
    if centre:  # each run by the other one
        first, second = test[:PER_RUN], test[PER_RUN:]
        test = np.concatenate([first - second.mean(0), second - first.mean(0)])
    np.testing.assert_allclose(got.read_test(FOLD.test), (test - mean) / sd, atol=2e-3)
    assert got.size == MASK.sum()


def test_reads_are_on_the_record():
    ledger = Ledger(VIEW)
    got = voxels.every_voxel(ledger, FOLD, SETTINGS, MASK)
    ledger.close()
    got.read(FOLD.train[:3]), got.read_test(FOLD.test)  # granted before
    steps = ledger.shared.steps
    assert [*steps] == ["baselines"] and not steps["baselines"].labels.any()
    np.testing.assert_array_equal(np.flatnonzero(steps["baselines"].values), FOLD.train)
    seen = ledger.seen(FOLD.test)
    assert len(seen) == 2  # a run each, centred by the other
    assert classify(seen, subject=VIEW.subject, claimed="calibrated") == ("calibrated", {})
    assert [step for step, *_ in ledger.kept] == ["baselines"]
    ledger = Ledger(VIEW)
    voxels.every_voxel(ledger, FOLD, SETTINGS._replace(centre=False), MASK)
    assert classify(ledger.seen(FOLD.test), subject=VIEW.subject, claimed="strict")[0] == "strict"


def test_classifiers_of_distances_have_coordinates_where_rows_are_few():
    got = voxels.every_voxel(Ledger(VIEW), FOLD, SETTINGS, MASK)
    needs = ("features", "voxels")
    rows = np.array([FOLD.train[7], FOLD.train[2], FOLD.train[7]])
    many = voxels.inputs(got, FOLD, rows, needs, 10)
    for train, test in many.values():  # 144 rows and 26 voxels
        np.testing.assert_array_equal(train, got.read(rows))
        np.testing.assert_array_equal(test, got.read_test(FOLD.test))
    few = FOLD._replace(train=FOLD.train[::8])
    made = voxels.inputs(got, few, few.train[[3, 0, 3, 1]], needs, 10)
    (a, b), (x, x_test) = made["features"], made["voxels"]
    np.testing.assert_array_equal(x, got.read(few.train[[3, 0, 3, 1]]))
    assert a.shape[1] < x.shape[1] and (a[0] == a[2]).all()
    scale = np.linalg.norm(a[0] - a[1]) / np.linalg.norm(x[0] - x[1])
    distances = [np.linalg.norm(u[:, None] - v, axis=2) for u, v in ((b, a), (x_test, x))]
    np.testing.assert_allclose(distances[0], scale * distances[1], rtol=1e-3)
    whole = voxels.inputs(got, few, few.train, needs, 10)["features"][0]
    np.testing.assert_allclose((whole**2).sum(1).mean(), 10, rtol=1e-5)


def test_jobs_see_every_voxel_and_the_network_its_own(small):
    experiment_a.check(small)
    (arm,) = experiment_a.arms(small, COHORT)
    fold = experiment_a.folds(small, VIEW, arm)[0]
    data = experiment_a.features(small, Ledger(VIEW), fold, arm, 0)
    assert data.read(fold.train).shape[1] == 20
    made = {job.name: job for job in experiment_a.jobs(small, data, arm.baselines)}
    assert {*made} == {"LDA", "1-NN", NUISANCE}
    assert made["LDA"].train_x.shape == (3 * 3 * 6, VOXELS)
    assert made["1-NN"].test_x.shape == (ROWS, VOXELS) and made[NUISANCE].test_x.shape == (ROWS, 2)
    np.testing.assert_array_equal(made["LDA"].train_y, data.labels[data.train[0]])
    small.voxels.classical = "keep"
    data = experiment_a.features(small, Ledger(VIEW), fold, arm, 0)
    assert next(iter(experiment_a.jobs(small, data, ("LDA",)))).train_x.shape[1] == 20


@pytest.mark.slow
def test_the_audit_passes(small, tmp_path):
    assert experiments.run(small, tmp_path / "run", cohort=COHORT, until="plan") is None


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("align", "regimes", "independent_runs,none"),
        ("voxels", "own", True),
        ("", "protocols", "paper"),
    ],
)
def test_what_aligns_or_has_voxels_of_its_own_is_refused(small, section, key, value):
    (small[section] if section else small)[key] = value
    with pytest.raises(InputError, match=r"voxels.classical: found 'all'; .*align.regimes=none"):
        experiment_a.check(small)
