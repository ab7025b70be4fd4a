"""The classical classifiers: all learn and repeat themselves; those of a user go the same way."""

import gc
import json
import os
import subprocess
import sys
import weakref

import joblib
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from emojax.errors import InputError
from emojax.scoring import baselines, processes
from emojax.scoring.baselines import BAG, BASELINES, NUISANCE, Baseline, Job, make_job


def make(classes=3, n=120, m=20):
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, m)).astype(np.float32)
    x[:, :classes] += 2.5 * np.eye(classes)[y]
    return x[:60], y[:60], x[60:], y[60:]


def fit(name, x, y, test_x, classes, seed=0):
    return baselines.fit_predict(make_job(name, seed, x, y, test_x, classes))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"SVM-RBF unscaled", BAG}))
def test_learns_and_repeats(name, classes):
    x, y, test_x, test_y = make(classes, n=121)
    job = make_job(name, 0, x, y, test_x, classes)
    got, again = baselines.fit_predict(job), baselines.fit_predict(job)
    assert (got.predicted == test_y).mean() > 1 / classes + 0.2
    assert got.probabilities.shape == (len(test_y), classes)
    np.testing.assert_allclose(got.probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(got.predicted, again.predicted)
    np.testing.assert_array_equal(got.probabilities, again.probabilities)
    np.testing.assert_array_equal(got.probabilities.argmax(1), got.predicted)
    assert not hasattr(job.estimator, "classes_")  # a copy was fitted


def test_rbf_predicts_its_highest_value_where_pairs_of_classes_disagree():
    rng = np.random.default_rng(0)  # nothing to learn: many rows have one vote for each class
    x, y, test_x = rng.normal(size=(150, 4)), np.arange(150) % 3, rng.normal(size=(2000, 4))
    votes = SVC().fit(x, y).predict(test_x)
    got = fit("SVM-RBF", x, y, test_x, 3)
    np.testing.assert_array_equal(got.probabilities.argmax(1), got.predicted)
    assert (votes != got.predicted).any()
    want = SVC(break_ties=True).fit(x, y).predict(test_x)
    np.testing.assert_array_equal(got.predicted, want)


def test_logistic_does_not_live_on_the_commonest_class():
    rng = np.random.default_rng(0)
    y, test_y = np.repeat([0, 1, 2], [200, 100, 100]), np.repeat([0, 1, 2], 500)
    x, test_x = (rng.normal(size=(len(k), 8)) + 0.2 * np.eye(3, 8)[k] for k in (y, test_y))
    plain = LogisticRegression(C=1e-2).fit(x, y).predict(test_x)
    got = fit("logistic", x, y, test_x, 3).predicted
    assert (plain == 0).mean() > 0.95 and (np.bincount(got) > 300).all()
    assert (got == test_y).mean() > (plain == test_y).mean()


def test_logistic_weights_change_nothing_on_balanced_rows():
    x, y, test_x, _ = make()
    want = LogisticRegression(C=1e-2).fit(x, y).predict_proba(test_x)
    np.testing.assert_allclose(fit("logistic", x, y, test_x, 3).probabilities, want, atol=1e-6)


def test_says_when_it_did_not_converge():
    x, y, test_x, _ = make()
    hard = np.random.default_rng(1).normal(size=x.shape)
    assert not fit("MLP", 100 * hard, y, test_x, 3).converged
    assert fit("LDA", x, y, test_x, 3).converged


# the registry


def test_every_entry_says_what_it_needs():
    needs = {name: BASELINES[name].needs for name in BASELINES}
    other = {"RF": "voxels", "XGB-voxels": "voxels", "SVM-RBF unscaled": "raw", BAG: "members"}
    assert needs == dict.fromkeys(BASELINES, "features") | other | {NUISANCE: "nuisance"}
    assert all(baselines.find(name) is BASELINES[name] for name in BASELINES)


def test_finds_functions_and_entries_of_a_user():
    own = Baseline(lambda seed: RidgeClassifier(), "raw")
    assert baselines.find(own) is own

    def ridge(seed):
        return RidgeClassifier(alpha=10.0)

    assert baselines.find(ridge) == Baseline(ridge, "features")
    ridge.needs = "voxels"
    assert baselines.find(ridge) == Baseline(ridge, "voxels")
    ridge.needs = "everything"
    with pytest.raises(InputError, match=r"needs 'everything'; expected of .*'voxels'"):
        baselines.find(ridge)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kNN", "baselines: found 'kNN'; expected one of SVM-linear, .*, or 'package.module:name'"),
        ("nowhere.models:f", "found 'nowhere.models:f' .no module 'nowhere'"),
        ("sklearn.svm:nothing", "found 'sklearn.svm:nothing' .*has no attribute 'nothing'"),
        ("sklearn:__version__", "found 'sklearn:__version__'; .* function seed -> estimator"),
        # The seed would be its first setting: alpha.
        ("sklearn.linear_model:RidgeClassifier", "RidgeClassifier'; .* function seed -> estimator"),
        ("sklearn:show_versions", "found 'sklearn:show_versions'; .* function seed -> estimator"),
        ("sklearn.utils:check_random_state", "which makes RandomState; .* with fit and one of"),
    ],
)
def test_refuses_what_is_no_classifier_in_one_line(name, message):
    x, y, test_x, _ = make()
    with pytest.raises(InputError, match=message) as caught:
        make_job(name, 0, x, y, test_x, 3)
    assert "\n" not in str(caught.value)


def test_settings_are_what_differs_from_the_defaults():
    assert baselines.settings("SVM-linear") == {"class": "LinearSVC", "C": 1e-3}
    assert baselines.settings("LDA") == {"class": "LinearDiscriminantAnalysis"}
    assert baselines.settings("1-NN") == {"class": "KNeighborsClassifier", "n_neighbors": 1}
    assert baselines.settings("LDA-shrinkage")["shrinkage"] == 0.5
    assert baselines.settings("RF")["n_estimators"] == 200
    assert baselines.settings("MLP-modern")["hidden_layer_sizes"] == [256, 64]
    want = {"class": "XGBClassifier", "max_bin": 64, "colsample_bytree": 0.1}
    assert baselines.settings("XGB-voxels").items() >= want.items()
    for name in BASELINES:
        json.dumps(baselines.settings(name), allow_nan=False)


def test_settings_of_what_a_user_hands_in():
    class Own:
        def __init__(self, seed):
            self.rate, self.rule, self.limit = np.float32(0.5), make, np.inf

        def fit(self, x, y): ...

        def predict(self, x): ...

    own = {"class": "Own", "rate": 0.5, "rule": "make", "limit": "inf"}
    assert baselines.settings(lambda seed: Own(seed)) == own
    chain = baselines.settings(lambda seed: make_pipeline(StandardScaler(), SVC(C=10)))
    assert chain["steps"] == [["standardscaler", "StandardScaler()"], ["svc", "SVC(C=10)"]]
    json.dumps(chain, allow_nan=False)


def test_without_xgboost_the_others_work(monkeypatch):
    x, y, test_x, _ = make()
    assert baselines.available("XGB") and baselines.available("LDA")
    monkeypatch.setitem(sys.modules, "xgboost", None)  # as if it were not installed
    assert not baselines.available("XGB") and not baselines.available("XGB-voxels")
    assert baselines.available("LDA") and fit("LDA", x, y, test_x, 3).converged
    for call in (lambda: make_job("XGB", 0, x, y, test_x, 3), lambda: baselines.settings("XGB")):
        with pytest.raises(InputError, match="no package xgboost"):
            call()


def test_importing_the_module_needs_neither_xgboost_nor_jax():
    code = "import sys; sys.modules['xgboost'] = None; import emojax.scoring.baselines as b; "
    code += "assert not b.available('XGB') and 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# estimators without probabilities


class Majority:
    """Nothing but fit and predict."""

    def fit(self, x, y):
        self.label = np.bincount(y).argmax()

    def predict(self, x):
        return np.full(len(x), self.label)


def test_decision_values_become_probabilities_by_softmax():
    x, y, test_x, test_y = make()
    got = fit(lambda seed: RidgeClassifier(), x, y, test_x, 3)
    want = softmax(RidgeClassifier().fit(x, y).decision_function(test_x), axis=1)
    np.testing.assert_allclose(got.probabilities, want, rtol=1e-5)
    assert (got.predicted == test_y).mean() > 0.7


def test_predicted_classes_become_probabilities_of_one():
    x, _, test_x, _ = make()
    y = np.repeat([0, 1, 2], [10, 30, 20])
    got = fit(lambda seed: Majority(), x, y, test_x, 3)
    np.testing.assert_array_equal(got.predicted, np.ones(60))
    np.testing.assert_array_equal(got.probabilities, np.tile([0, 1, 0], (60, 1)))


def test_refuses():
    x, y, test_x, _ = make()
    with pytest.raises(ValueError, match=r"training rows of 4 classes; got \[0, 1, 2\]"):
        fit("LDA", x, y, test_x, 4)

    class Regressor(Majority):
        def predict(self, x):
            return np.full(len(x), 0.5)

    class OneColumn(Majority):
        def predict_proba(self, x):
            return np.ones(len(x))

    class NoProbabilities(Majority):
        def predict_proba(self, x):
            return np.full((len(x), 3), np.nan)

    for made, message in (
        (Regressor, r"a prediction of 0\.5; expected labels from 0 to 2"),
        (OneColumn, r"predictions of shape \(60,\); expected \(60, 3\)"),
        (NoProbabilities, "rows that are no probabilities"),
    ):
        with pytest.raises(InputError, match=message):
            fit(lambda seed, made=made: made(), x, y, test_x, 3)


# many jobs


def test_many_jobs_keep_their_order():
    x, y, test_x, _ = make()
    jobs = [
        make_job(name, 0, x, y, test_x[i:], 3) for i in range(3) for name in ("LDA", "logistic")
    ]
    ticks = []
    got = baselines.run(jobs, ticks.append, workers=2)
    assert [len(f.predicted) for f in got] == [len(j.test_x) for j in jobs] and sum(ticks) == 6
    for job, fitted in zip(jobs, got, strict=True):
        np.testing.assert_array_equal(fitted.predicted, baselines.fit_predict(job).predicted)
    alone = baselines.run(iter(jobs), workers=1)
    for one, two in zip(alone, got, strict=True):
        np.testing.assert_array_equal(one.probabilities, two.probabilities)
    assert baselines.run([]) == []


@pytest.mark.slow
def test_jobs_are_made_when_a_process_is_free_and_then_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    x, y, test_x, _ = make(m=6000)  # more than a megabyte: goes through a file
    made, alive, stored = [], [], []
    finished = []

    def jobs():
        for _ in range(12):
            rows = x.copy()
            made.append(weakref.ref(rows))
            gc.collect()
            alive.append(sum(ref() is not None for ref in made))
            stored.append(len(list(tmp_path.rglob("*.npy"))))
            assert len(made) - len(finished) <= 4
            yield make_job("1-NN", 0, rows, y, test_x, 3)

    got = baselines.run(jobs(), finished.append, workers=2)
    assert len(got) == 12 and max(alive) <= 2
    assert 0 < max(stored) <= 8 and not list(tmp_path.iterdir())  # 4 jobs of two arrays
    want = fit("1-NN", x, y, test_x, 3)
    assert all((f.predicted == want.predicted).all() for f in got)


def test_joblib_goes_on_with_its_processes_behind_ours():
    x, y, test_x, _ = make()
    for _ in range(2):
        assert len(baselines.run([make_job("LDA", 0, x, y, test_x, 3)], workers=2)) == 1
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(i) for i in (-2, 3)) == [2, 3]


def test_failures_in_a_process_are_told_and_what_they_leave_behind_is_not_broken():
    x, y, test_x, _ = make()

    class Strange(Exception):
        def __init__(self, one, two):  # lost by pickling
            super().__init__(f"{one} and {two}")

    class Fails(Majority):
        def predict(self, x):
            raise Strange(1, 2)

    with pytest.raises(RuntimeError, match="Strange: 1 and 2"):
        baselines.run([make_job(lambda seed: Fails(), 0, x, y, test_x, 3)], workers=2)
    with pytest.raises(ValueError, match="training rows of 4 classes"):
        baselines.run([make_job("LDA", 0, x, y, test_x, 4)], workers=2)

    def jobs():
        yield make_job("LDA", 0, x, y, test_x, 3)
        raise InputError("volumes", "none", "some")

    with pytest.raises(InputError, match="volumes: found none; expected some"):
        baselines.run(jobs(), workers=2)
    unsendable = LogisticRegression()
    unsendable.verbose = (value for value in ())
    with pytest.raises(InputError, match=r"'own': found .*generator.*; expected an estimator that"):
        baselines.run([Job("own", unsendable, x, y, test_x, 3)], workers=2)
    assert len(baselines.run([make_job("LDA", 0, x, y, test_x, 3)], workers=2)) == 1


MODELS = """
import os

from sklearn.linear_model import RidgeClassifier

from their_helpers import Base, double


class Ridge(Base):
    def __init__(self, alpha):
        self.alpha = alpha

    def fit(self, x, y):
        self.model = RidgeClassifier(alpha=double(self.alpha)).fit(x, y)


def ridge(seed):
    return Ridge(alpha=2.0)


ridge.needs = "voxels"


class Process:
    'Predicts class 1 in the process whose id is the seed, and class 2 in any other.'

    def __init__(self, seed):
        self.caller = seed

    def fit(self, x, y): ...

    def predict(self, x):
        return [1 + (os.getpid() != self.caller)] * len(x)
"""

HELPERS = """
import numpy as np

UNIT = 2


def double(x):
    return UNIT * x


class Base:
    def predict_proba(self, x):
        p = np.exp(self.model.decision_function(x))
        return p / p.sum(1, keepdims=True)
"""


def test_a_dotted_path_of_modules_that_only_the_caller_can_import(tmp_path, monkeypatch):
    x, y, test_x, _ = make()
    baselines.run([make_job("LDA", 0, x, y, test_x, 3)], workers=2)  # starts the processes
    (tmp_path / "theirs").mkdir()  # a package without __init__.py
    files = {tmp_path / "theirs" / "models.py": MODELS, tmp_path / "their_helpers.py": HELPERS}
    for path, text in files.items():
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    name = "theirs.models:ridge"
    assert baselines.find(name).needs == "voxels" and name not in BASELINES
    assert baselines.settings(name) == {"class": "Ridge", "alpha": 2.0}
    jobs = [make_job(name, 0, x, y, test_x[i:], 3) for i in range(5)]
    for path in files:
        path.unlink()  # no other process can import them now
    want = softmax(RidgeClassifier(alpha=4.0).fit(x, y).decision_function(test_x), axis=1)
    for i, fitted in enumerate(baselines.run(jobs, workers=2)):
        np.testing.assert_allclose(fitted.probabilities, want[i:], rtol=1e-4)
    job = make_job("theirs.models:Process", os.getpid(), x, y, test_x, 3)
    assert set(baselines.run([job], workers=1)[0].predicted) == {1}
    assert set(baselines.run([job], workers=2)[0].predicted) == {2}
    assert not processes.cloudpickle.list_registry_pickle_by_value()
