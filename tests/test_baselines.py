"""The classical classifiers: all learn, repeat themselves, and say what they are given."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from emojax.scoring import baselines
from emojax.scoring.baselines import Job


def make(classes=3, n=120, m=20):
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, m)).astype(np.float32)
    x[:, :classes] += 2.5 * np.eye(classes)[y]
    return x[:60], y[:60], x[60:], y[60:]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", sorted(set(baselines.BASELINES) - {"SVM-RBF unscaled"}))
def test_learns_and_repeats(name, classes):
    x, y, test_x, test_y = make(classes, n=121)
    job = Job(name, x, y, test_x, classes)
    got, again = baselines.fit_predict(job), baselines.fit_predict(job)
    assert (got.predicted == test_y).mean() > 1 / classes + 0.2
    assert got.probabilities.shape == (len(test_y), classes)
    np.testing.assert_allclose(got.probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(got.predicted, again.predicted)
    np.testing.assert_array_equal(got.probabilities.argmax(1), got.predicted)


def test_rbf_predicts_its_highest_value_where_pairs_of_classes_disagree():
    rng = np.random.default_rng(0)  # nothing to learn: many rows have one vote for each class
    x, y, test_x = rng.normal(size=(150, 4)), np.arange(150) % 3, rng.normal(size=(2000, 4))
    votes = SVC().fit(x, y).predict(test_x)
    got = baselines.fit_predict(Job("SVM-RBF", x, y, test_x, 3))
    np.testing.assert_array_equal(got.probabilities.argmax(1), got.predicted)
    assert (votes != got.predicted).any()


def test_logistic_does_not_live_on_the_commonest_class():
    rng = np.random.default_rng(0)
    y, test_y = np.repeat([0, 1, 2], [200, 100, 100]), np.repeat([0, 1, 2], 500)
    x, test_x = (rng.normal(size=(len(k), 8)) + 0.2 * np.eye(3, 8)[k] for k in (y, test_y))
    plain = LogisticRegression(C=1e-2).fit(x, y).predict(test_x)
    got = baselines.fit_predict(Job("logistic", x, y, test_x, 3)).predicted
    assert (plain == 0).mean() > 0.95 and (np.bincount(got) > 300).all()
    assert (got == test_y).mean() > (plain == test_y).mean()


def test_logistic_weights_change_nothing_on_balanced_rows():
    x, y, test_x, _ = make()
    want = LogisticRegression(C=1e-2).fit(x, y).predict_proba(test_x)
    got = baselines.fit_predict(Job("logistic", x, y, test_x, 3)).probabilities
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_many_jobs_keep_their_order():
    x, y, test_x, _ = make()
    jobs = [Job(name, x, y, test_x[i:], 3) for i in range(3) for name in ("LDA", "logistic")]
    ticks = []
    got = baselines.run(jobs, ticks.append, workers=2)
    assert [len(f.predicted) for f in got] == [len(j.test_x) for j in jobs] and sum(ticks) == 6
    for job, fitted in zip(jobs, got, strict=True):
        np.testing.assert_array_equal(fitted.predicted, baselines.fit_predict(job).predicted)


def test_says_when_it_did_not_converge():
    x, y, test_x, _ = make()
    hard = np.random.default_rng(1).normal(size=x.shape)
    assert not baselines.fit_predict(Job("MLP", 100 * hard, y, test_x, 3)).converged
    assert baselines.fit_predict(Job("LDA", x, y, test_x, 3)).converged


def test_refuses():
    x, y, test_x, _ = make()
    with pytest.raises(ValueError, match=r"want a baseline of .* got 'kNN'"):
        baselines.fit_predict(Job("kNN", x, y, test_x, 3))
    with pytest.raises(ValueError, match=r"training rows of 4 classes; got \[0, 1, 2\]"):
        baselines.fit_predict(Job("LDA", x, y, test_x, 4))
