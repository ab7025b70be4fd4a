"""The bag of monitored subjects, alone and as the headline of Experiment A."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from small_studies import make_cohort, make_values, read

from configs import common
from emojax.experiments import experiment_a
from emojax.experiments.base import check_arms
from emojax.provenance import Ledger, classify
from emojax.scoring import bag, baselines

VIEW = read(make_cohort(*make_values(), tr=2.0))


def rows(seed=0, n=60, m=5, classes=3, shift=1.0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    means = np.random.default_rng(99).normal(size=(classes, m)) * shift
    return (means[y] + rng.normal(size=(n, m))).astype(np.float32), y


def small(**changes):
    config = common.get_config()
    config.voxels.keep, config.balance, config.baselines = 10, 6, "logistic"
    config.protocols, config.null_floor = "nested", False
    config.align.regimes = "independent_runs"
    config.model.filters, config.model.window, config.model.dense = (2,), 3, (4,)
    config.update(changes)
    return config


def test_a_member_takes_the_penalty_and_temperature_that_its_monitor_likes_best():
    (x, y), (monitor_x, monitor_y) = rows(), rows(1, 30)
    found = bag.fit_member(x, y, monitor_x, monitor_y)
    losses = {}
    for C in bag.PENALTIES:
        model = LogisticRegression(C=C, class_weight="balanced", max_iter=500).fit(x, y)
        logits = model.decision_function(monitor_x)
        temperature, losses[C] = bag.fit_temperature(logits, monitor_y)
        if found.C == C:
            np.testing.assert_allclose(
                found.logits(x), model.decision_function(x) / temperature, atol=0.02
            )
    assert min(losses, key=losses.get) == found.C


def test_the_temperature_is_the_best_one_with_classes_of_one_weight():
    x, y = rows(2, 90)
    y = np.where(np.arange(90) < 60, 0, y)  # most rows are of class 0
    logits = 4 * x[:, :3].astype(float)
    found, loss = bag.fit_temperature(logits, y)
    weights = (np.eye(3)[y] + 1 / 270) / np.bincount(y)[y, None]

    def at(temperature):
        return -(weights / weights.sum() * log_softmax(logits / temperature, axis=1)).sum()

    assert loss == pytest.approx(at(found), rel=1e-9)
    assert loss <= min(map(at, np.linspace(0.05, 20, 2000))) + 1e-5


def test_a_perfect_classifier_of_few_rows_is_not_taken_for_infallible():
    y = np.arange(6) % 3
    temperature, _ = bag.fit_temperature(np.eye(3)[y], y)
    assert softmax(np.array([1, 0, 0]) / temperature)[0] < 0.98


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_weights_give_the_probabilities_of_scikit_learn(classes):
    x, y = rows(3, classes=classes)
    model = LogisticRegression(C=0.1).fit(x, y)
    found = bag.linear_weights(model)
    assert found is not None
    assert found["coef"].shape == (1, 5, classes)
    logits = (x @ found["coef"][0] + found["intercept"][0]) / found["temperature"][0]
    np.testing.assert_allclose(softmax(logits, axis=1), model.predict_proba(x), atol=1e-6)


def test_the_bag_is_the_mean_of_members_that_hold_back_one_group_each():
    (x, y), groups = rows(4, 90), np.repeat([0, 1, 2], 30)
    features = np.stack([x, x[:, ::-1], 2 * x], 1)
    made = bag.Bag().fit(features, y, groups)
    expected = []
    for j in range(3):
        train, held = groups != j, groups == j
        own = bag.fit_member(features[train, j], y[train], features[held, j], y[held])
        expected.append(softmax(own.logits(features[:, j]), axis=1))
    found = made.predict_proba(features)
    np.testing.assert_allclose(found, np.mean(expected, 0), rtol=1e-12)
    weights = bag.linear_weights(made)
    assert weights is not None
    assert weights["coef"].shape == (3, 5, 3)
    logits = np.einsum("njm,jmk->njk", features, weights["coef"]) + weights["intercept"]
    again = softmax(logits / weights["temperature"][:, None], axis=2).mean(1)
    np.testing.assert_allclose(found, again, atol=1e-6)


def test_rows_that_nobody_monitors_train_every_member():
    (x, y), groups = rows(5, 90), np.repeat([0, 1, -1], 30)
    features = np.stack([x, x], 1)
    made = bag.Bag().fit(features, y, groups)
    changed = np.where((groups == -1)[:, None, None], 0, features)
    other = bag.Bag().fit(changed, y, groups)
    for mine, theirs in zip(made.members_, other.members_, strict=True):
        assert not np.allclose(mine.coef, theirs.coef)


def made_of(config, number=0):
    arm = check_arms(experiment_a.arms(config, VIEW.cohort))[0]
    fold = experiment_a.folds(config, VIEW, arm)[number]
    return arm, fold, experiment_a.features(config, Ledger(VIEW), fold, arm, number)


def test_every_other_subject_is_monitored_once_and_nothing_sees_the_tested_one():
    arm, fold, data = made_of(small())
    assert (arm.name, arm.decoder, len(fold.monitor)) == ("bag", "bag", 0)
    others = sorted(set(VIEW.subject) - {fold.name})
    assert [str(VIEW.subject[m.fold.monitor[0]]) for m in data.members] == others
    for member in data.members:
        trained = set(VIEW.subject[member.fold.train])
        assert trained == set(others) - {str(VIEW.subject[member.fold.monitor[0]])}
        np.testing.assert_array_equal(member.fold.test, fold.test)
    seen = data.ledger.seen(fold.test, prior=False)
    assert classify(seen, subject=VIEW.subject, claimed=arm.protocol)[0] == "calibrated"
    assert not data.ledger.reads.steps["network"].labels[fold.test].any()


def test_a_bag_has_at_most_so_many_members_as_asked():
    assert len(made_of(small(members=2))[2].members) == 2
    assert len(made_of(small(members=0))[2].members) == 4


def test_the_job_of_the_bag_gives_each_member_its_own_features():
    _, fold, data = made_of(small())
    (job,) = experiment_a.jobs(small(), data, ("bag",))
    np.testing.assert_array_equal(job.train_y, VIEW.labels[fold.train])
    for j, member in enumerate(data.members):
        np.testing.assert_array_equal(job.train_x[:, j], member.read(fold.train))
        np.testing.assert_array_equal(job.test_x[:, j], member.read_test(fold.test))
        np.testing.assert_array_equal(fold.train[job.groups == j], member.fold.monitor)
    fitted = baselines.fit_predict(job)
    assert (fitted.predicted == VIEW.labels[fold.test]).mean() > 0.8
    assert fitted.weights is not None
    assert set(fitted.weights) == {"coef", "intercept", "temperature", "C"}


def test_the_headline_chooses_the_first_row():
    names = {}
    for headline in ("bag", "network", "auto"):
        found = check_arms(experiment_a.arms(small(headline=headline), VIEW.cohort))
        names[headline] = [arm.name for arm in found]
    assert names["bag"] == ["bag", "logistic n-1", "nested"]
    assert names["network"] == ["nested"]
    assert names["auto"] == ["auto", "bag", "logistic n-1", "nested"]


def test_the_bag_is_no_classifier_of_the_network_rows():
    with pytest.raises(experiment_a.InputError, match="headline=bag"):
        experiment_a.check(small(baselines="bag,logistic"))
