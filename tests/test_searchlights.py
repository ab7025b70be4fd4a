"""The analysis of accuracy maps: results, the record, and the report's statements."""

import dataclasses

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score

from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.errors import InputError
from emojax.experiments import analyses, experiment_a, searchlights
from emojax.experiments import settings as rules
from emojax.features import masked
from emojax.provenance import LeakageError, Ledger
from emojax.report import searchlights as report

SHAPE, PER_RUN, CLASSES = (6, 6, 5), 12, ("rest", "negative")
AFFINE = np.diag([-3.0, 3, 3, 1])  # the first axis runs to the left
AFFINE[:3, 3] = 9, -9, -6
PLANTED = np.s_[1:3, 1:4, 1:4]  # on the right


def make_cohort(subjects=4, runs=2, signal=1.5, affine=AFFINE, seed=0):
    rng, all_runs, labels = np.random.default_rng(seed), [], []
    masks = {}
    for s in range(subjects):
        name = f"s{s + 1}"
        masks[name] = np.ones(SHAPE, bool)
        masks[name][s % 2 * 5, 0, 0] = False  # all subjects lack a corner
        for r in range(runs):
            y = rng.permutation(np.arange(PER_RUN) % 2)
            x = rng.normal(100 + 9 * s, 1, (PER_RUN, *SHAPE)).astype(np.float32)
            x[(slice(None), *PLANTED)] += signal * y[:, None, None, None]
            all_runs.append(Run(name, f"{r + 1}", x, tr=None, affine=affine))
            labels.append(y)
    factors = {"set": [np.where(np.arange(PER_RUN) % 4 < 2, "a", "b") for _ in all_runs]}
    return cohorts.build(all_runs, CLASSES, labels, masks, factors=factors)


@pytest.fixture
def small(config):
    config.searchlight.update({"radius_mm": 4.5, "permutations": 39, "least": 4})
    config.align.regimes, config.protocols, config.headline = "none", "nested", "network"
    return config


def analyse(config, cohort, **tick):
    view = masked.read(cohort, {}, config.units)
    arm = experiment_a.EXPERIMENT.arms(config, cohort)[0]
    return searchlights.analyse(experiment_a.EXPERIMENT, config, view, arm, [], **tick), view


def test_new_subjects_equal_scikit_learn(small):
    ticks = []
    found, view = analyse(small, make_cohort(), tick=ticks.append)
    assert sum(ticks) == analyses.PERCENT
    assert found["folds"] == "subject" and found["protocol"] == "calibrated"
    assert found["unit"] == "mm" and found["left_out"] == 0
    assert found["spheres"] == np.prod(SHAPE) - 2  # the corners that any subject lacks
    volumes, labels, subject, run = found["volumes"], view.labels, view.subject, view.run
    x = view.volumes[np.arange(len(labels))].copy()
    for name in np.unique(subject):
        for number in np.unique(run):
            here = (subject == name) & (run == number)
            other = (subject == name) & (run != number)
            x[here] -= view.volumes[np.flatnonzero(other)].mean(0)
    places = np.argwhere(view.union) @ AFFINE[:3, :3].T
    centre = np.array([2, 2, 2])
    own = np.linalg.norm(places - centre @ AFFINE[:3, :3].T, axis=1) <= 4.5
    each = []
    for name in np.unique(subject):
        test = subject == name
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1, priors=[0.5, 0.5])
        model.fit(x[~test][:, own], labels[~test])
        each.append(balanced_accuracy_score(labels[test], model.predict(x[test][:, own])))
    np.testing.assert_allclose(volumes["searchlight_accuracy"][2, 2, 2], np.mean(each), atol=1e-6)


@pytest.mark.parametrize("correction", ["tfce", "cluster", "max"])
def test_the_planted_cluster_is_found_on_its_side(small, correction):
    small.searchlight.correction = correction
    found, _ = analyse(small, make_cohort())
    test, p = found["test"], found["volumes"]["searchlight_p"]
    assert test["p"] == test["least_p"] == 1 / 40 and p[2, 2, 2] == np.float32(1 / 40)
    assert test["clusters"][0]["side"] == "R" and test["clusters"][0]["value"] > 0.8
    assert p[0, 0, 0] == 1 and found["volumes"]["searchlight_accuracy"][0, 0, 0] == 0
    assert p[5, 5, 4] > 0.05 and test["scheme"] == "rows within runs"


def test_runs_of_each_subject_are_tested_by_their_signs(small):
    small.searchlight.update({"folds": "run", "permutations": 1000})
    found, _ = analyse(small, make_cohort(subjects=6))
    names = [f"searchlight_accuracy_s{i + 1}" for i in range(6)]
    assert {*names, "searchlight_t", "searchlight_p"} < {*found["volumes"]}
    mean = np.mean([found["volumes"][name] for name in names], axis=0)
    np.testing.assert_allclose(found["volumes"]["searchlight_accuracy"], mean, atol=1e-6)
    assert found["test"]["draws"] == 63 and found["protocol"] == "calibrated"
    assert found["test"]["clusters"][0]["side"] == "R"


def test_one_subject_is_decoded_over_its_runs(small):
    found, _ = analyse(small, make_cohort(subjects=1, runs=4))
    assert found["folds"] == "run" and found["test"]["draws"] == 39
    assert found["test"]["p"] == 1 / 40
    assert "searchlight_t" not in found["volumes"]
    assert "leaving runs out (calibrated)" in report.sentences({"searchlight": found})


def test_new_levels_of_a_column(small):
    small.searchlight.update({"folds": "set", "permutations": 0})
    found, _ = analyse(small, make_cohort())
    assert found["folds"] == "set" and found["test"] is None
    text = report.sentences({"searchlight": found})
    assert "new levels of set" in text and "no p value" in text


def test_nothing_is_found_where_nothing_is(small):
    found, _ = analyse(small, make_cohort(signal=0.0, seed=3))
    assert found["test"]["p"] > 0.05 and found["test"]["clusters"] == []
    assert abs(found["mean"] - 0.5) < 0.05
    extras = {"volumes": found["volumes"], "mean": np.ones(SHAPE), "affine": None}
    ((_, (_, caption)),) = report.draw({"searchlight": found}, extras).items()
    assert "none of them significant" in caption and "do not define left and right" in caption


def test_single_runs_and_uncentred_maps_are_strict(small):
    assert analyse(small, make_cohort(runs=1))[0]["protocol"] == "strict"
    small.voxels.centre = False
    assert analyse(small, make_cohort())[0]["protocol"] == "strict"


def test_labels_of_scored_rows_are_refused(small, monkeypatch):
    true = Ledger.labels
    everything = lambda self, step, rows: true(self, step, np.arange(self.cohort_size))  # noqa: E731
    monkeypatch.setattr(Ledger, "labels", everything)
    with pytest.raises(LeakageError, match="searchlight s1"):
        analyse(small, make_cohort())


def test_unknown_folds_are_refused_before_anything_is_fitted(small):
    small.searchlight.folds = "sets"
    with pytest.raises(InputError, match=r"searchlight.folds: found 'sets'; .* run, set$"):
        analyses.check_columns(small, make_cohort())
    small.searchlight.radius_mm = 0.0
    analyses.check_columns(small, make_cohort())


def test_reasons_for_no_map_are_in_the_report(small):
    small.searchlight.radius_mm = 1.0
    found, _ = analyse(small, make_cohort())
    assert [*found] == ["left out"]
    metrics = {"searchlight": found}
    assert "There is no accuracy map" in report.sentences(metrics)
    assert "no sphere of 1 mm has 4 voxels" in found["left out"]
    assert report.draw(metrics, {}) == {} and report.section(metrics)["table"].rows == []


def test_what_cannot_be_left_out_is_said(small):
    small.searchlight.folds = "run"
    assert "s1 has one run" in analyse(small, make_cohort(runs=1))[0]["left out"]
    small.searchlight.folds = "subject"
    assert "one subject" in analyse(small, make_cohort(subjects=1))[0]["left out"]
    cohort, small.searchlight.folds = make_cohort(), "run"
    labels = np.where(cohort.run_index % 2, cohort.labels, 0)  # only every second run has class 1
    found, _ = analyse(small, dataclasses.replace(cohort, labels=labels))
    assert found["left out"] == "fold s1/1 trains without a volume of 'negative'"


def test_other_errors_are_no_reason(small, monkeypatch):
    def broken(*args, **options):
        raise ValueError("a fault")

    monkeypatch.setattr(searchlights.searchlight, "decode", broken)
    with pytest.raises(ValueError, match="a fault"):
        analyse(small, make_cohort())


def test_vectors_and_other_radii_have_no_map(small):
    cohort = make_cohort()
    runs = [
        dataclasses.replace(run, frames=run.frames.reshape(len(run.frames), -1), affine=None)
        for run in cohort.runs
    ]
    vectors = cohorts.build(runs, CLASSES, [cohort.labels[:PER_RUN]] * len(runs))
    assert "no common grid" in analyse(small, vectors)[0]["left out"]
    small.searchlight.radius_mm = 0.0
    assert analyse(small, cohort)[0] is None
    assert report.section({"searchlight": None}) is None


def test_without_an_affine_spheres_are_counted_in_voxels(small):
    small.searchlight.update({"radius_mm": 1.5, "permutations": 0})
    found, _ = analyse(small, make_cohort(affine=None))
    assert found["unit"] == "voxels" and found["voxels"] > 10


def test_figure_and_table_name_the_side(small):
    found, _ = analyse(small, make_cohort())
    extras = {"volumes": found["volumes"], "mean": np.ones(SHAPE), "affine": AFFINE}
    ((name, (figure, caption)),) = report.draw({"searchlight": found}, extras).items()
    assert name == "searchlight" and "corrected" in caption and len(figure.axes) > 2
    table = report.section({"searchlight": found})["table"]
    assert table.rows[0][1] == "R" and "mm" in table.header[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [("radius_mm", -1.0), ("correction", "fdr"), ("classifier", "svm"), ("least", 0)],
)
def test_settings_out_of_range_are_refused(small, key, value):
    small.searchlight[key] = value
    with pytest.raises(InputError, match=f"searchlight.{key}"):
        rules.check(small)
