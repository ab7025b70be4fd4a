"""The headline against chance: the pipeline on permuted labels, made by hand and by the module."""

import dataclasses
import functools

import hand_made
import numpy as np
import pytest
from small_studies import NAMES, VOXELS, make_cohort, make_values, read

from configs import common
from emojax.errors import InputError
from emojax.experiments import exchange, experiment_a, experiment_b, fits, permutation, refits
from emojax.features import across_subjects
from emojax.provenance import Ledger

VALUES, Y = make_values()


def config_of(**changes):
    config = common.get_config()
    config.voxels.keep, config.balance, config.permutations = 10, 6, 19
    config.align.regimes, config.protocols, config.null_floor = "none", "nested", False
    config.baselines = "logistic"
    with config.unlocked():
        for name, value in changes.items():
            config[name] = value
    return config


def made_of(config, view, experiment=experiment_a.EXPERIMENT, cohort=None):
    """Returns the headline and its folds as the skeleton makes them."""
    arm = experiment.arms(config, view if cohort is None else cohort)[0]
    folds = experiment.folds(config, view, arm)
    pairs = enumerate(folds)
    return arm, [experiment.features(config, Ledger(view), f, arm, i) for i, f in pairs]


@functools.cache
def study(signal=True, tr=2.0):
    """Returns settings, view, headline and folds; block orders differ by subject."""
    rng = np.random.default_rng(5)
    labels = [rng.permutation(Y) if tr is None else Y for _ in NAMES]
    values = VALUES if signal and tr else rng.normal(size=(len(NAMES), len(Y), VOXELS))
    config, view = config_of(), read(make_cohort(values.astype(np.float32), labels, tr=tr))
    if signal and tr:  # each subject's response is rotated differently
        config.align.regimes = "independent_runs"
    return config, view, *made_of(config, view, cohort=view.cohort)


def analyse(config, view, arm, made, **options):
    return permutation.analyse(experiment_a.EXPERIMENT, config, view, arm, made, **options)


def by_hand(config, view, arm, made, labels, name="logistic"):
    """Returns the statistic of labels, with everything read and fitted again."""
    cohort = view.cohort.with_labels(labels)
    other, scores = dataclasses.replace(view, cohort=cohort), []
    arm = dataclasses.replace(arm, baselines=(name,))
    for i, data in enumerate(made):
        data = experiment_a.features(config, Ledger(other), data.fold, arm, i)
        found = fits.fit_classifiers(experiment_a.EXPERIMENT, config, [(arm, i, data)], workers=1)
        predicted = found[arm.name, i][name].predicted
        truth = labels[data.fold.test]
        hits = [(predicted[truth == k] == k).mean() for k in np.unique(truth)]
        scores.append(np.mean(hits))
    return np.mean(scores)


@pytest.mark.slow
def test_every_permutation_goes_through_the_whole_pipeline(monkeypatch):
    config, view, arm, made = study(signal=False)
    chosen, select = [], across_subjects.anova.select_top

    def spy(f, keep):
        chosen.append(np.asarray(select(f, keep)))
        return chosen[-1]

    monkeypatch.setattr(across_subjects.anova, "select_top", spy)
    monkeypatch.setattr(refits, "WORTH", np.inf)  # in this process
    ticks = []
    found = analyse(config, view, arm, made, tick=ticks.append)
    assert ticks == [1] * 19
    assert len({tuple(sorted(row)) for row in chosen}) > 50  # voxels are chosen again, 20 x 5 times
    drawn = permutation.arrangements(
        config, view, arm, permutation.design(config, view, arm), [d.fold for d in made]
    )
    assert found["observed"] == pytest.approx(by_hand(config, view, arm, made, view.labels))
    for i in (0, 7):
        want = by_hand(config, view, arm, made, drawn[i])
        assert found["null"][i] == pytest.approx(want, abs=1e-6)
    assert found["scheme"] == "blocks within runs, one order for all subjects"
    assert found["classifier"] == "logistic" and len(found["null"]) == 19
    reached = sum(value >= found["observed"] - 1e-6 for value in found["null"])
    assert found["p"] == (1 + reached) / 20 and found["least_p"] == 0.05


@pytest.mark.slow
def test_signal_is_found_and_noise_is_not():
    _, view, arm, made = study()
    assert analyse(config_of(permutations=9), view, arm, made)["p"] == 0.1
    found = analyse(*study(signal=False))
    assert found["p"] > 0.05 and abs(np.mean(found["null"]) - 1 / 3) < 0.05


@pytest.mark.slow
def test_the_bag_is_permuted_with_its_members():
    _, view, arm, made = study(signal=False)
    config = config_of(permutations=2, permute="bag")
    assert arm.decoder == "bag" and len(made[0].members) == len(NAMES) - 1
    found = analyse(config, view, arm, made)
    assert (found["arm"], found["classifier"]) == ("bag", "bag")
    drawn = permutation.arrangements(
        config, view, arm, permutation.design(config, view, arm), [d.fold for d in made]
    )
    want = [by_hand(config, view, arm, made, own, "bag") for own in (view.labels, *drawn)]
    assert [found["observed"], *found["null"]] == pytest.approx(want, abs=1e-6)


@pytest.mark.slow
def test_maps_are_permuted_within_subject_and_run():
    config, view, arm, made = study(tr=None)
    found = analyse(config, view, arm, made)
    assert found["scheme"] == "rows within runs" and found["blocks"] == view.labels.size
    matched = config_of()
    matched.align.regimes = "independent_runs"
    arm = experiment_a.arms(matched, view.cohort)[0]  # rows are matched by time: they have times
    assert permutation.design(matched, view, arm).scheme.startswith("blocks within runs")
    matched.align.match = "class"
    arm = experiment_a.arms(matched, view.cohort)[0]
    assert permutation.design(matched, view, arm).scheme == "rows within runs"


@pytest.mark.slow
def test_processes_change_no_number(monkeypatch):
    _, view, arm, made = study(signal=False)
    config = config_of(permutations=6)
    alone = analyse(config, view, arm, made)
    monkeypatch.setattr(refits, "WORTH", 0.0)
    monkeypatch.setattr(refits.joblib, "cpu_count", lambda: 2)
    assert analyse(config, view, arm, made) == alone


@pytest.mark.slow
def test_the_seed_decides():
    config, view, arm, made = study()
    folds, found = [d.fold for d in made], permutation.design(config, view, arm)
    draws = [permutation.arrangements(config, view, arm, found, folds) for _ in range(2)]
    assert np.array_equal(*draws)
    fewer = permutation.arrangements(config_of(permutations=5), view, arm, found, folds)
    assert np.array_equal(fewer, draws[0][:5])  # more permutations continue where fewer ended
    other = permutation.arrangements(config_of(seed=1), view, arm, found, folds)
    assert not np.array_equal(other, draws[0])
    assert len({row.tobytes() for row in draws[0]}) == 19
    assert view.labels.astype(np.int32).tobytes() not in {row.tobytes() for row in draws[0]}


# what cannot be tested


def blocked(runs=1, order=(0, 1, 2)):
    """Returns a cohort of one block per class and run."""
    labels = np.concatenate([np.repeat(order, 8)] * runs)
    return read(make_cohort(VALUES[:, : 24 * runs], labels, tr=2.0))


def test_too_few_arrangements_are_one_line():
    view = blocked()
    config = config_of()
    arm, made = made_of(config, view, cohort=view.cohort)
    with pytest.raises(InputError) as caught:
        analyse(config, view, arm, made)
    text = str(caught.value)
    assert "permutations" in text and "3 blocks have 5 other orders" in text
    assert "p of 0.17 or more" in text and "--config.permutations=5" in text and "\n" not in text
    config.permutations = 5
    found = analyse(config, view, arm, made)  # all of them
    assert len(found["null"]) == 5 and found["least_p"] == 1 / 6


def test_where_no_number_is_asked_for_there_are_as_many_as_there_are():
    view, config = blocked(), config_of(permutations=-1)
    arm, made = made_of(config, view, cohort=view.cohort)
    found = analyse(config, view, arm, made)
    assert len(found["null"]) == 5 and found["all"] and found["least_p"] == 1 / 6
    _, view, arm, made = study()
    folds, design = [d.fold for d in made], permutation.design(config, view, arm)
    draws = permutation.arrangements(config, view, arm, design, folds)
    assert len(draws) == 99 == permutation.asked(config)
    asked = permutation.arrangements(config_of(permutations=19), view, arm, design, folds)
    assert np.array_equal(draws[:19], asked)


def test_no_other_order_is_left_out_unless_it_was_asked_for():
    labels = np.repeat([0, 1], 24)
    view, config = read(make_cohort(VALUES, labels, tr=2.0)), config_of(permutations=-1)
    arm = experiment_a.arms(config, view.cohort)[0]
    found = analyse(config, view, arm, [])
    assert found == {
        "left out": f"{permutation.design(config, view, arm).scheme}: 2 blocks have no other order"
    }


def test_a_single_block_per_run_leaves_nothing():
    labels = np.repeat([0, 1], 24)
    view = read(make_cohort(VALUES, labels, tr=2.0))
    config = config_of(permutations=1)
    arm = experiment_a.arms(config, view.cohort)[0]
    with pytest.raises(InputError, match=r"0 other orders.*--config.permutations=0"):
        permutation.arrangements(config, view, arm, permutation.design(config, view, arm), [])


def test_folds_keep_their_classes():
    view = blocked(runs=2)
    config = config_of(permutations=12)
    arm, made = made_of(config, view, cohort=view.cohort)
    found = permutation.design(config, view, arm)
    half = made[0].fold._replace(train=np.flatnonzero(view.frame < 16), monitor=np.arange(0))
    for labels in permutation.arrangements(config, view, arm, found, [half]):
        assert np.isin(np.unique(view.labels[half.train]), labels[half.train]).all()


def test_off_sweeps_and_unknown_names():
    config, view, arm, made = study()
    assert analyse(config_of(permutations=0), view, arm, made) is None
    assert analyse(config, view, dataclasses.replace(arm, factor=0.1), made) is None
    with pytest.raises(InputError, match="baselines"):
        analyse(config_of(permute="magic"), view, arm, made)


# experiment B, and networks


def test_inputs_that_read_no_label_are_made_once(monkeypatch):
    cohort = hand_made.make_cohort(6)
    config = common.get_config("B")
    config.model.name, config.fractions = "strangers:Volumes", (0.5, 0.17, 0.33)
    config.permutations, config.null_floor = 4, False
    experiment = experiment_b.EXPERIMENT
    arm, made = made_of(config, cohort, experiment)
    found = permutation.analyse(experiment, config, cohort, arm, made)
    assert found["scheme"].endswith("one order for all subjects") and found["blocks"] == 12
    monkeypatch.setattr(refits, "keeps_values", lambda data: False)
    whole = permutation.analyse(experiment, config, cohort, arm, made)
    assert whole == found
    folds = [data.fold for data in made]
    design = exchange.design(cohort, True)
    (labels, *_) = permutation.arrangements(config, cohort, arm, design, folds)
    assert (labels != cohort.labels).any() and labels.dtype == np.int32


@pytest.mark.slow
def test_networks_are_trained_anew():
    config, view, arm, made = study()
    config = config_of(permutations=2, permute="network")
    config.model.filters, config.model.window, config.model.dense = (2,) * 6, 2, (8,)
    config.train.epochs = 2
    found = analyse(config, view, arm, made)
    assert found["classifier"] == "network" and found["least_p"] == 1 / 3
    assert len(found["null"]) == 2 and found["null"][0] != found["null"][1]
    assert analyse(config, view, arm, made) == found
