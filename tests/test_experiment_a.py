"""Experiment A's arms, folds and rows: what protocols, regimes and leaks ask for."""

import dataclasses

import numpy as np
import pytest
from small_studies import NAMES, ROWS, make_cohort, make_values, read

from emojax.data.cohort import Prior
from emojax.errors import InputError
from emojax.experiments import experiment_a
from emojax.experiments.arms_a import FLOOR
from emojax.experiments.base import check_arms
from emojax.features.across_subjects import STRICT, Leaks
from emojax.provenance import Ledger
from emojax.scoring.baselines import NUISANCE

VALUES, Y = make_values()
COHORT = make_cohort(VALUES, Y, tr=2.0)
VIEW = read(COHORT)


@pytest.fixture
def small(config):
    """Returns settings for these vectors."""
    config.voxels.keep, config.balance = 10, 6
    config.update({"baselines": "LDA", "null_floor": False})
    return config


def arms_of(config, cohort=COHORT):
    return {arm.name: arm for arm in check_arms(experiment_a.arms(config, cohort))}


# arms


def test_arms_follow_protocols_and_regimes(config):
    arms = arms_of(config)
    assert [*arms] == [
        *("bag", "logistic n-1", "nested", "last", "paper", "paper, test volumes once"),
        *("leaky voxels and alignment", "leaky voxels"),
        *("nested, group", "nested, transductive", "nested, none", FLOOR),
    ]
    assert [arm.regime for arm in arms.values()] == [
        *["independent_runs"] * 4,
        *("transductive", "transductive"),
        *("transductive", "independent_runs", "group", "transductive", "none", "independent_runs"),
    ]
    trained = [name for name, arm in arms.items() if not arm.shares]
    assert len(trained) == 9 and arms["last"].pick == "last" and arms["last"].shares == "nested"
    config.protocols, config.align.regimes, config.null_floor = "nested", "none", False
    config.headline = "network"
    (only,) = arms_of(config).values()
    setup = only.settings
    assert setup.settings.regime == "none" and setup.leaks == STRICT and not setup.on_test
    config.protocols = "last"
    (only,) = arms_of(config).values()
    assert (only.name, only.pick, only.shares) == ("last", "last", "")


def test_the_published_procedure_and_its_leaks_one_by_one(config):
    arms = arms_of(config)
    paper, once = arms["paper"], arms["paper, test volumes once"]
    assert paper.settings.on_test and paper.settings.leaks == Leaks(True, True)
    assert paper.leaks == ("voxels", "alignment", "epoch choice") and paper.protocol == "leaky"
    assert paper.oversampled and not once.oversampled and once.shares == "paper"
    both, voxels = arms["leaky voxels and alignment"], arms["leaky voxels"]
    assert both.settings.leaks == Leaks(True, True) and both.leaks == ("voxels", "alignment")
    assert voxels.settings.leaks == Leaks(voxels=True) and voxels.leaks == ("voxels",)
    assert not both.settings.on_test and not voxels.settings.on_test
    config.leaks = False
    assert not {"leaky voxels", "leaky voxels and alignment"} & arms_of(config).keys()
    config.leaks, config.voxels.own, config.align.match = True, True, "class"
    own = arms_of(config)  # no voxels in common that all subjects could choose
    assert own["paper"].leaks == ("alignment", "epoch choice") and "leaky voxels" not in own
    assert own["paper"].settings.leaks == Leaks(voxels=False, alignment=True)


def test_the_noise_floor_is_the_headline_on_noise(config):
    arms = arms_of(config)
    floor, headline = arms[FLOOR], arms["nested"]
    assert (
        dataclasses.replace(floor, name="nested", on_noise=False, baselines=headline.baselines)
        == headline
    )
    assert floor.baselines == () and headline.baselines[-1] == NUISANCE
    config.null = True
    assert FLOOR not in arms_of(config)  # all of it is noise already


def test_options_of_the_alignment_come_from_the_config(config):
    config.align.update({"level2_iters": 3, "alpha": 0.5, "scaling": False, "method": "polar"})
    options = dict(arms_of(config)["nested"].settings.settings.options)
    assert options == {
        **{"level2_iters": 3, "zscore_common": True, "alpha": 0.5, "scaling": False},
        **{"reflection": True, "weight": 0.5, "method": "polar"},
    }


@pytest.mark.parametrize(
    ("regime", "changes", "protocol"),
    [
        ("group", {}, "strict"),
        ("independent_runs", {}, "calibrated"),
        ("transductive", {}, "transductive"),
        ("none", {}, "calibrated"),  # centred by the unit's other runs
        ("none", {"voxels.centre": False}, "strict"),
        ("group", {"voxels.own": True}, "calibrated"),
        ("group", {"units": "run"}, "calibrated"),
    ],
)
def test_classes_that_arms_claim(config, regime, changes, protocol):
    config.update_from_flattened_dict(changes)
    config.align.regimes = regime
    assert arms_of(config)["nested"].protocol == protocol
    cleaned = dataclasses.replace(COHORT, prior=(Prior("cleaning"),))
    assert arms_of(config, cleaned)["nested"].protocol == protocol  # its own steps' claim


# folds and units


def test_published_folds_train_on_everybody_else(small):
    arms = arms_of(small)
    strict, paper = (experiment_a.folds(small, VIEW, arms[name]) for name in ("nested", "paper"))
    assert [fold.name for fold in strict] == [fold.name for fold in paper] == list(NAMES)
    assert [len(fold.train) // ROWS for fold in (strict[0], paper[0])] == [3, 4]
    assert set(VIEW.units[paper[0].monitor]) == set(VIEW.units[paper[0].test]) == {"a"}
    assert set(VIEW.units[strict[0].monitor]) == {"b"}


def test_labels_of_other_runs_may_be_seen_where_runs_are_scored(small):
    arm = arms_of(small)["nested"]
    np.testing.assert_array_equal(experiment_a.units(small, VIEW, arm), COHORT.subject)
    small.align.match = "class"
    arms = arms_of(small)
    np.testing.assert_array_equal(experiment_a.units(small, VIEW, arms["nested"]), VIEW.run_index)
    np.testing.assert_array_equal(
        experiment_a.units(small, VIEW, arms["nested, group"]), COHORT.subject
    )
    small.units = "run"
    np.testing.assert_array_equal(
        experiment_a.units(small, VIEW, arms["nested, group"]), VIEW.run_index
    )


def rows_where(keep):
    """Returns the study with those rows of subject c for which keep(labels, run) holds."""
    c = COHORT.subject == "c"
    rows = ~c | keep(COHORT.labels, COHORT.run)
    return read(COHORT.select(rows))


@pytest.mark.parametrize(
    ("keep", "match"),
    [
        (lambda y, run: y != 2, "subject c: found no volume of class negative; expected every cl"),
        (lambda y, run: run == "1", "subject c: found one run; expected two or more for independ"),
    ],
)
def test_rows_that_cannot_be_used(small, keep, match):
    with pytest.raises(InputError, match=match):
        experiment_a.folds(small, rows_where(keep), arms_of(small)["nested"])


def test_subjects_whose_voxels_do_not_correspond(small):
    narrow = [x[:, : 40 - i] for i, x in enumerate(VALUES)]
    view = read(make_cohort(narrow, Y))
    arm = arms_of(small)["nested"]
    with pytest.raises(InputError, match=r"subjects with 36 to 40 voxels; .* or voxels.own=True"):
        experiment_a.folds(small, view, arm)
    small.voxels.own, small.align.match = True, "class"
    assert len(experiment_a.folds(small, view, arms_of(small)["nested"])) == 5


# features


@pytest.fixture
def made(small, quick_compile):
    """Returns made(name) -> data of the first fold of an arm."""
    arms = arms_of(small)

    def make(name, number=0):
        arm = arms[name]
        fold = experiment_a.folds(small, VIEW, arm)[number]
        return experiment_a.features(small, Ledger(VIEW), fold, arm, number)

    return make


def test_rows_are_balanced_and_the_same_in_every_arm(made):
    data = made("nested, none")
    (train,), monitor = data.train, data.monitor
    assert train.shape == (3 * 18,) and np.bincount(COHORT.labels[train]).tolist() == [18] * 3
    for name in "cde":  # every subject the same number of every class
        own = train[COHORT.subject[train] == name]
        assert np.bincount(COHORT.labels[own]).tolist() == [6, 6, 6]
    assert np.bincount(COHORT.labels[monitor]).tolist() == [6, 6, 6]
    assert set(COHORT.subject[monitor]) == {"b"}
    again, aligned = made("nested, none"), made("nested, group")
    for other in (again, aligned):
        np.testing.assert_array_equal(other.train[0], train)
        np.testing.assert_array_equal(other.monitor, monitor)
        assert other.keys == data.keys
    np.testing.assert_array_equal(again.read(train), data.read(train))
    assert not np.array_equal(aligned.read(train), data.read(train))


def test_labels_that_no_step_read_are_not_there(made):
    data = made("nested, none")
    fold = data.fold
    for rows in (fold.train, fold.monitor):
        np.testing.assert_array_equal(data.labels[rows], COHORT.labels[rows])
    assert (data.labels[fold.test] == -1).all()
    steps = data.ledger.shared.steps
    # Centred voxels of the monitored subject are for all scores, those of the test subject not.
    assert {"mask", "voxels", "centring", "scaler", "network", "epoch choice"} == steps.keys()
    assert not any(seen.labels[fold.test].any() for seen in steps.values())
    paper = made("paper")  # the test subject is monitored
    np.testing.assert_array_equal(paper.labels[fold.test], COHORT.labels[fold.test])


def test_test_rows_are_read_by_the_scoring_alone(made):
    data = made("nested, none")
    assert data.read_test(data.fold.test).shape == (ROWS, 10)
    assert np.isfinite(data.read_test(data.fold.test)).all()
    with pytest.raises(Exception, match="network, epoch choice asked for row 0, which was not"):
        data.read(data.fold.test)
    with pytest.raises(Exception, match="the scoring asked for row"):
        data.read_test(data.fold.train)


def test_only_the_published_arm_scores_balanced_volumes(made):
    assert "oversample" not in made("nested, none").notes
    drawn = made("paper").notes["oversample"](COHORT.labels[:ROWS])
    assert np.bincount(COHORT.labels[:ROWS][drawn]).tolist() == [6, 6, 6]


def test_classical_classifiers_see_the_networks_rows_and_nuisance_its_own(small, made):
    data = made("nested")
    jobs = list(experiment_a.jobs(small, data, ("LDA", NUISANCE)))
    assert [job.name for job in jobs] == ["LDA", NUISANCE]
    np.testing.assert_array_equal(jobs[0].train_x, data.read(data.train[0]))
    np.testing.assert_array_equal(jobs[0].train_y, COHORT.labels[data.train[0]])
    np.testing.assert_array_equal(jobs[0].test_x, data.read_test(data.fold.test))
    assert jobs[1].train_x.shape == (3 * ROWS, 2)  # global signal and time
    np.testing.assert_array_equal(jobs[1].train_y, COHORT.labels[data.fold.train])
