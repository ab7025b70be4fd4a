"""Experiment B's arms, folds and rows: splits, each on noise, too, and the factors of a sweep."""

import dataclasses

import jax
import numpy as np
import pytest
from hand_made import GRID, make_cohort

from configs import common
from emojax import splits
from emojax.data.cohort import Prior
from emojax.experiments import experiment_b
from emojax.experiments.base import check_arms
from emojax.features import scaling
from emojax.provenance import LeakageError, Ledger, classify

COHORT = make_cohort(6, classes=("neutral", "negative"))
BIASED = COHORT.select((COHORT.labels == 1) | (COHORT.frame % 3 > 0))


@pytest.fixture
def config(tmp_path):
    """Returns every key with its default, and a network without a minimum size."""
    config = common.get_config("B")
    config.data.update({"progress": False, "store": str(tmp_path / "store")})
    config.model.name, config.fractions = "strangers:Volumes", (0.5, 0.17, 0.33)
    return config


def arms_of(config, cohort=COHORT):
    return {arm.name: arm for arm in check_arms(experiment_b.arms(config, cohort))}


def make(config, name="by_subject", cohort=COHORT):
    arm = arms_of(config, cohort)[name]
    fold, *_ = experiment_b.folds(config, cohort, arm)
    return arm, experiment_b.features(config, Ledger(cohort), fold, arm, 0)


def test_arms_are_splits_and_the_same_on_noise(config):
    config.instances = 3
    arms = arms_of(config)
    names = ["by_subject", "by_run", "random"]
    assert [*arms] == names + [f"{name} on noise" for name in names]
    assert [arm.protocol for arm in arms.values()] == ["strict", "calibrated", "leaky"] * 2
    assert arms["random"].leaks == arms["random on noise"].leaks == ("network",)
    assert {arm.instances for arm in arms.values() if arm.on_noise} == {1}
    assert arms["by_run"].instances == 3 and len(arms["by_run"].baselines) == 8
    assert arms["by_run on noise"].baselines == ("1-NN", "SVM-linear hard")
    config.null_floor = False
    assert [*arms_of(config)] == names
    config.null_floor, config.null = True, True
    assert [*arms_of(config)] == names
    cleaned = dataclasses.replace(COHORT, prior=(Prior("cleaning"),))
    claims = [arm.protocol for arm in arms_of(config, cleaned).values()]
    assert claims == ["strict", "calibrated", "leaky"]  # their own steps' claims


def test_a_sweep_is_one_split_with_many_factors(config):
    config.update({"sweep": (0.1, 0.01), "splits": "by_run,random", "folds": 4})
    arms = arms_of(config)
    assert [*arms] == ["L2 0.1", "L2 0.01"]
    for arm, factor in zip(arms.values(), (0.1, 0.01), strict=True):
        assert (arm.factor, arm.split, arm.baselines) == (factor, "by_run", ())
        assert len(experiment_b.folds(config, COHORT, arm)) == 1


def test_folds_are_those_of_the_split(config):
    config.folds = 3
    for name in ("by_subject", "by_run", "random"):
        made = experiment_b.folds(config, COHORT, arms_of(config)[name])
        want = splits.make(jax.random.key(0), COHORT, name, config.fractions, 3)
        assert len(made) == len(want) == (1 if name == "random" else 3)
        for a, b in zip(made, want, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a[1:], b[1:], strict=True))


@pytest.mark.parametrize("kind", ["global", "voxel", "none"])
def test_volumes_are_scaled_by_the_training_volumes(config, kind):
    config.scale = kind
    _, data = make(config)
    fold = data.fold
    want = scaling.fit_scale(lambda rows: COHORT.volumes[rows], fold.train, kind)
    for read, rows in ((data.read, fold.train), (data.read_test, fold.test)):
        np.testing.assert_array_equal(read(rows), scaling.apply_scale(want, COHORT.volumes[rows]))
    assert data.rounding == want.rounding == data.notes["rounding"]
    np.testing.assert_array_equal(data.notes["raw"](fold.train), COHORT.volumes[fold.train])


def test_padded_volumes(config):
    config.pad = 7
    _, data = make(config)
    x = data.read(data.fold.train)
    assert x.shape[1:] == (7, 7, 7) and np.isfinite(x).all()
    assert (x[:, :, 0] == 0).all() and (x[:, :, :, 0] == 0).all()  # 5 and 4 of 7 are theirs
    assert np.ptp(x[:, 1, 3, 3]) > 0 and GRID == (6, 5, 4)


def test_what_the_steps_have_read(config):
    arm, data = make(config)
    fold, steps = data.fold, data.ledger.shared.steps
    rows = {step: np.flatnonzero(seen.values).tolist() for step, seen in steps.items()}
    train = np.unique(fold.train).tolist()
    assert rows == {"scaler": train, "network": train, "epoch choice": fold.monitor.tolist()}
    assert (data.labels[fold.test] == -1).all() and (data.labels[fold.train] >= 0).all()
    judged = classify(
        data.ledger.seen(fold.test), subject=COHORT.subject, unit=COHORT.subject, claimed="strict"
    )
    assert arm.protocol == "strict" and judged == ("strict", {})
    with pytest.raises(LeakageError, match=r"steps network, epoch choice asked for row \d+, which"):
        data.read(fold.test)
    with pytest.raises(LeakageError, match="the scoring asked for row"):
        data.notes["raw test"](fold.train)


def test_rows_are_oversampled_and_each_instance_has_its_own(config):
    config.instances = 2
    _, data = make(config, cohort=BIASED)
    for rows in data.train:
        assert len(set(np.bincount(BIASED.labels[rows]))) == 1
        assert set(rows) <= set(data.fold.train)
    assert not np.array_equal(*data.train) and len(data.keys) == 2
    config.instances, config.oversample = 1, False
    _, data = make(config, cohort=BIASED)
    np.testing.assert_array_equal(np.sort(data.train[0]), data.fold.train)
    _, again = make(config, cohort=BIASED)
    np.testing.assert_array_equal(again.train[0], data.train[0])


def test_classifiers_get_what_they_need(config):
    _, data = make(config)
    names = ("1-NN", "RF", "SVM-RBF unscaled")  # distances, voxels, values as scanned
    found = {job.name: job for job in experiment_b.jobs(config, data, names)}
    assert [*found] == list(names)
    near, voxels, raw = found.values()
    rows, test = data.train[0], data.fold.test
    np.testing.assert_array_equal(voxels.train_x, data.read(rows).reshape(len(rows), -1))
    np.testing.assert_array_equal(voxels.test_x, data.read_test(test).reshape(len(test), -1))
    np.testing.assert_allclose((near.train_x**2).sum(1).mean(), 300, rtol=0.05)
    scanned = COHORT.volumes[rows].reshape(len(rows), -1) / np.prod(GRID) ** 0.5
    want = ((scanned[:5, None] - scanned) ** 2).sum(-1)
    got = ((raw.train_x[:5, None] - raw.train_x) ** 2).sum(-1)
    np.testing.assert_allclose(got, want, atol=1e-3)
    for job in found.values():
        np.testing.assert_array_equal(job.train_y, COHORT.labels[rows])
    assert list(experiment_b.jobs(config, data, ())) == []
