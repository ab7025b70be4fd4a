"""Tests of decoding in the simulated cohort: aligned or not, linear or not, in new subjects."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from configs import expA
from emojax import alignment, anova, hyperalignment, masking, metrics, procrustes, statistics
from emojax.data.store import Store
from emojax.experiments import experiment_a
from emojax.provenance import Ledger
from emojax.scoring import baselines
from emojax.sources import synthetic

DEMO = synthetic.Settings(subjects=5, grid=(20, 20, 14), shared=0.0)


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    return lambda settings=DEMO, **changed: synthetic.simulate(settings._replace(**changed), store)


def zscored(cohort, features):
    out = np.empty_like(features)
    for run in range(len(cohort.runs)):
        rows = cohort.run_index == run
        x = features[rows]
        out[rows] = (x - x.mean(0)) / x.std(0)
    return out


def accuracies(cohort, voxels=100):
    """Returns the last subject's balanced accuracy, without and with alignment by its other run."""
    mask = masking.brain_mask(np.mean([run.frames.mean(0) for run in cohort.runs], 0))
    x, y = zscored(cohort, cohort.features(mask)), cohort.labels
    train = cohort.subject != cohort.subjects[-1]
    best = np.asarray(anova.select_top(anova.f_scores(x[train], y[train], 3), voxels))
    subjects = np.stack([x[cohort.subject == s][:, best] for s in cohort.subjects])
    known, test, truth = subjects[:-1], subjects[-1], y[~train]
    model = hyperalignment.fit(known)
    aligned = np.asarray(hyperalignment.transform(model.mappings, known))
    guess = np.empty((2, len(test)), int)
    fits = [
        LogisticRegression(C=0.01, class_weight="balanced").fit(rows.reshape(-1, voxels), y[train])
        for rows in (known, aligned)
    ]
    guess[0] = fits[0].predict(test)
    runs = np.split(np.arange(len(test)), 2)
    for scored, other in zip(runs, runs[::-1], strict=True):
        mapping = alignment.independent_runs(model, test[other], other)
        guess[1, scored] = fits[1].predict(procrustes.transform(mapping, test[scored]))
    return [np.mean([(g == k)[truth == k].mean() for k in range(3)]) for g in guess]


@pytest.mark.slow
def test_alignment_helps_and_null_is_chance(make):
    none, aligned = accuracies(make())
    assert aligned > 0.6 and aligned > none + 0.1
    assert np.allclose(accuracies(make(null=True)), 1 / 3, atol=0.1)


def leaving_one_subject_out(cohort, names):
    """Returns balanced accuracies [subjects, classifiers] of Experiment A."""
    config, out = expA.get_config("demo"), []
    config.headline, config.baselines = "network", ",".join(names)
    view = experiment_a.view(config, cohort)
    arm, *_ = experiment_a.arms(config, cohort)
    for number, fold in enumerate(experiment_a.folds(config, view, arm)):
        data = experiment_a.features(config, Ledger(view), fold, arm, number)
        found = [baselines.fit_predict(job) for job in experiment_a.jobs(config, data, names)]
        truth = cohort.labels[fold.test]
        out.append([float(metrics.balanced_accuracy(truth, f.predicted, 3)) for f in found])
    return np.array(out)


@pytest.mark.slow
def test_a_nonlinear_classifier_gains_where_patterns_are_opposed_and_only_there(make):
    gain = {}
    for nonlinear in (0.0, 1.0):
        cohort = make(subjects=6, shared=1.0, nonlinear=nonlinear)
        linear, rbf = leaving_one_subject_out(cohort, ("logistic", "SVM-RBF")).T
        gain[nonlinear] = statistics.mean_interval(rbf - linear)
    assert gain[0.0].low < 0 < gain[0.0].high
    assert gain[1.0].low > 0.05


def contrast_maps(cohort):
    """Returns negative minus neutral of each subject, relative to the mean, in bright voxels.

    Only voxels above .8 of the brain's mean count, as in SPM; runs are averaged.
    """
    means = np.array([run.frames.mean(0) for run in cohort.runs])
    least = 0.8 * means.mean(0)[masking.brain_mask(means.mean(0))].mean()
    inside, maps = (means > least).all(0), {name: [] for name in cohort.subjects}
    for i, run in enumerate(cohort.runs):
        rows = cohort.run_index == i
        frame, labels = cohort.frame[rows], cohort.labels[rows]
        time = frame / len(run.frames)
        design = np.stack([*(labels == k for k in range(3)), time, time**2], 1).astype(float)
        x = run.frames[frame][:, inside].astype(float)
        weights = np.linalg.lstsq(design, x, rcond=None)[0]
        maps[run.subject].append((weights[2] - weights[1]) / x.mean(0))
    return np.array([np.mean(own, 0) for own in maps.values()])


@pytest.mark.slow
def test_contrast_maps_of_subjects_agree_as_peoples_do(make):
    """The mean cosine of pairs over cohorts is near the .18 of real contrast maps of 100 people."""
    found = {}
    for shared in (0.0, 1.0):
        found[shared] = []
        for seed in range(6):
            maps = contrast_maps(make(seed=seed, shared=shared))
            maps /= np.linalg.norm(maps, axis=1, keepdims=True)
            found[shared].append((maps @ maps.T)[np.triu_indices(len(maps), 1)].mean())
    assert np.mean(found[1.0]) == pytest.approx(0.18, abs=0.03)
    assert np.mean(found[0.0]) < 0.05
