"""Leaks that are planted: quick ones in this process, and all of `acceptance/leaks.py`, slowly."""

import dataclasses
import pathlib
import re
from types import SimpleNamespace

import majority
import numpy as np
import pytest
from acceptance import leaks
from acceptance.leaks import planted
from small_studies import make_cohort, make_values

from emojax import experiments, splits
from emojax.data.cohort import Prior
from emojax.experiments import audits, fits
from emojax.provenance import LeakageError, Ledger, classify
from emojax.records import Arm
from emojax.scoring import baselines

ROOT = pathlib.Path(__file__).resolve().parents[1]
COHORT = make_cohort(*make_values(), tr=2.0)


@pytest.fixture
def plan(config, tmp_path, monkeypatch):
    """Plans the third experiment, with parts of it replaced."""

    def run(cohort=COHORT, **parts):
        changed = dataclasses.replace(majority.EXPERIMENT, **parts)
        monkeypatch.setattr(majority, "EXPERIMENT", changed)
        config.experiment = "majority:EXPERIMENT"
        return experiments.run(config, tmp_path / "run", cohort=cohort, until="plan")

    return run


def refused(plan, pattern, **parts):
    """Asserts that a plan ends with one line that matches."""
    with pytest.raises(LeakageError) as error:
        plan(**parts)
    line = str(error.value)
    assert "\n" not in line and re.search(pattern, line), line


def with_features(change):
    """Returns the experiment's features, changed by change(data, ledger, fold, arm)."""

    def features(config, ledger, fold, arm, number):
        data = majority.features(config, ledger, fold, arm, number)
        return dataclasses.replace(data, **change(data, ledger, fold, arm))

    return features


def shifted(data, shift):
    """Returns a reader of training rows minus something that was learnt."""
    return {"read": lambda rows: data.read(rows) - shift}


def test_the_unchanged_experiment_passes(plan):
    assert plan() is None


# past the ledger


@pytest.mark.parametrize(
    "peek",
    [
        lambda ledger, test: ledger.scored(test).mean(0),
        lambda ledger, test: ledger.scored(test[:5]).mean(0),  # a baseline before the task
        lambda ledger, test: np.float32(ledger._cohort.labels[test] @ np.arange(len(test))),
        lambda ledger, test: np.float32(np.bincount(ledger._cohort.labels[test]).max()),
    ],
    ids=["values", "the first values", "labels", "numbers of labels"],
)
def test_training_rows_that_depend_on_scored_ones(plan, peek):
    change = lambda data, ledger, fold, arm: shifted(data, peek(ledger, fold.test))  # noqa: E731
    refused(plan, "^plain: step 'network' depends on what", features=with_features(change))


def test_a_leak_on_noise_only(plan):
    def change(data, ledger, fold, arm):
        return shifted(data, ledger.scored(fold.test).mean(0)) if arm.on_noise else {}

    refused(plan, "^noise: step 'network' depends on what", features=with_features(change))


def test_scored_rows_that_depend_on_each_other(plan):
    def own(data, ledger, fold, arm):
        return {"read_test": lambda rows: data.read_test(rows) - data.read_test(fold.test).mean(0)}

    def together(data, ledger, fold, arm):
        return {"read_test": lambda rows: data.read_test(rows) - data.read_test(rows).mean(0)}

    for change in (own, together):
        refused(plan, "^plain: step 'scoring' depends on what", features=with_features(change))


def test_an_array_of_labels_is_no_array_of_values(plan):
    def change(data, ledger, fold, arm):
        return shifted(data, ledger.array("labels").scored(fold.test).sum())

    refused(plan, "'labels' is no array of values", features=with_features(change))


# classical classifiers


def jobs_with(change):
    def jobs(config, data, names):
        for job in majority.jobs(config, data, names):
            yield job._replace(**change(data, job))

    return jobs


def both(job, labels):
    """Returns training rows and test rows."""
    return {
        "train_x": np.concatenate([job.train_x, job.test_x]),
        "train_y": np.concatenate([job.train_y, labels]),
    }


def test_classifiers_that_are_fitted_to_test_rows(plan):
    def past(data, job):
        return both(job, data.ledger._cohort.labels[data.fold.test])

    def late(data, job):  # on a record that was judged before
        return both(job, data.ledger.labels("baselines", data.fold.test))

    refused(plan, "^plain: step 'baselines' depends on what", baselines=jobs_with(past))
    refused(plan, "step 'baselines' reads after the record", baselines=jobs_with(late))


def test_classifiers_that_are_fitted_to_test_rows_behind_their_jobs(plan, monkeypatch):
    run = baselines.run

    def tampered(jobs, *options):
        guessed = (job._replace(**both(job, np.arange(len(job.test_x)) % 3)) for job in jobs)
        return run(guessed, *options)

    monkeypatch.setattr(fits.baselines, "run", tampered)
    refused(plan, "^plain: step 'baselines' depends on what")


def test_classifiers_that_train_themselves_on_test_rows(plan, monkeypatch):
    fit_predict = baselines.fit_predict

    def twice(job):
        guess = fit_predict(job).predicted
        return fit_predict(job._replace(**both(job, guess)))

    monkeypatch.setattr(baselines, "fit_predict", twice)
    refused(plan, "^plain: step '(scoring|baselines)' depends on what")


class ByTheirMean(baselines.LogisticRegression):
    def predict_proba(self, x):
        return super().predict_proba((x - x.mean(0)) / x.std(0))


def test_a_classifier_that_looks_at_all_that_it_is_asked(plan):
    def change(data, job):
        return {"estimator": ByTheirMean(max_iter=500)}

    refused(plan, "^plain: step 'scoring' .* predictions of ", baselines=jobs_with(change))


# who trains, and with which settings


def test_folds_that_depend_on_scored_values(plan):
    def folds(config, cohort, arm):
        out = []
        for fold in splits.leave_one_out(cohort.subject):
            seen = cohort.volumes[fold.test].mean(0)
            like = cohort.volumes[fold.train] @ (seen - seen.mean())
            out.append(fold._replace(train=fold.train[like > np.median(like)]))
        return out

    refused(plan, "^plain: step 'folds' depends on what", folds=folds)


def test_arms_that_depend_on_values(plan):
    def arms(config, cohort):
        size = float(np.square(cohort.volumes[:]).mean())
        return [dataclasses.replace(a, factor=size) for a in majority.arms(config, cohort)]

    refused(plan, "^plain: step 'arms' depends on what", arms=arms)


# the kept part


def test_what_is_kept_from_the_first_fold(plan):
    kept = {}

    def features(config, ledger, fold, arm, number):
        if arm.name not in kept:
            kept[arm.name] = ledger.values("voxels", fold.train)
        return majority.features(config, ledger, fold, arm, number)

    refused(plan, "^plain: step 'voxels' read nothing in fold b", features=features)


def test_what_is_kept_by_the_name_of_the_fold(plan):
    kept = {}

    def change(data, ledger, fold, arm):
        key = arm.name, fold.name
        if key not in kept:
            ledger.values("shift", fold.train)
            kept[key] = ledger.scored(fold.test).mean(0)
        return shifted(data, kept[key])

    refused(
        plan, "^plain: step 'shift' depends .* what it reads moved", features=with_features(change)
    )


# declared leaky


def test_an_arm_that_does_not_leak_where_it_says(plan):
    def arms(config, cohort):
        leaky = {"protocol": "leaky", "leaks": ("scaler", "classifier"), "settings": "all"}
        return [dataclasses.replace(majority.arms(config, cohort)[0], **leaky)]

    refused(plan, "^plain is declared leaky at step 'classifier', but in fold a", arms=arms)


def test_different_arms_have_different_second_folds():
    arms = [Arm(name, "strict") for name in "uvwxyz"]
    made = dict.fromkeys("uvwxyz", [None] * 5)
    found = audits._second(0, arms, made)
    assert {number for number, _ in found} == {1, 2, 3, 4}
    assert [arm.name for _, arm in found] == list("uvwxyz")
    assert audits._second(0, arms[:1], {"u": [None]}) == []


# the record


def test_reads_for_some_scores_add_up():
    """A read for all test rows counts even after reads for each of their runs."""
    rows = np.arange(8)
    cohort = SimpleNamespace(labels=rows % 2, volumes=np.zeros((8, 2)), prior=())
    ledger = Ledger(cohort)
    for here, others in ((rows[4:6], rows[6:]), (rows[6:], rows[4:6])):
        ledger.scoring(here).values("alignment", others)
    ledger.scoring(rows[4:]).values("scaler", rows[4:])
    subject = np.repeat([0, 1], 4)
    seen = ledger.seen(rows[4:])
    assert classify(seen, subject=subject) == ("transductive", {"scaler": 4})


def test_what_came_before_breaks_no_claim_unless_it_saw_labels():
    rows = np.arange(8)
    subject = np.repeat([0, 1], 4)
    for labels in (False, True):
        prior = (Prior("cleaning", labels=labels),)
        ledger = Ledger(SimpleNamespace(labels=rows % 2, volumes=np.zeros((8, 2)), prior=prior))
        ledger.values("scaler", rows[:4])

        def judge(ledger=ledger):
            return classify(
                ledger.seen(rows[4:], prior=False),
                subject=subject,
                claimed="strict",
                prior=ledger.prior,
            )

        if not labels:
            assert judge() == ("transductive", {"cleaning": 4})
            ledger.values("scaler", rows)
            with pytest.raises(LeakageError, match="step 'scaler' saw values of 4 scored volumes"):
                judge()
            continue
        with pytest.raises(LeakageError, match=r"'cleaning' saw labels of 4 .*protocols=paper"):
            judge()


# the tool


def test_every_planted_leak_fits_the_code(tmp_path):
    """A planted edit that no longer applies must not look like a caught leak."""
    everything = (*planted.TEN, *planted.OTHERS, *planted.UNSEEN)
    assert len({leak.name for leak in everything}) == len(everything)
    code = leaks.copy(ROOT, tmp_path / "code")
    for leak in everything:
        assert set(leak.where) <= planted.SETTINGS.keys() and leak.by in leaks.KINDS
        before = {path: (code / path).read_text() for path, _, _ in leak.edits}
        leaks.plant(code, leak)
        for path, text in before.items():
            compile((code / path).read_text(), path, "exec")
            (code / path).write_text(text)


def test_the_ten_leaks_exist_through_the_ledger_and_around_it():
    names = {leak.name.split()[0] for leak in planted.TEN}
    assert names == {f"M{i}" for i in range(1, 11)}
    for name in names:
        assert {leak.by for leak in planted.TEN if leak.name.split()[0] == name} >= {"audit"}
        assert {leak.by for leak in planted.TEN if leak.name.split()[0] == name} & {
            "record",
            "guard",
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["M1 audit B", "M7 audit", "M10 record A", "bag, monitored labels"]
)
def test_planted_leaks_are_refused_by_the_command(name, tmp_path):
    assert leaks.main([str(ROOT), f"--only=^{name}$", f"--keep={tmp_path}"]) == 0
