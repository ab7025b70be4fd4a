"""The classical classifiers: all learn, repeat themselves, and say what they are given."""

import numpy as np
import pytest

from emojax import baselines
from emojax.baselines import Job


def make(classes=3, n=120, m=20):
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, m)).astype(np.float32)
    x[:, :classes] += 2.5 * np.eye(classes)[y]
    return x[:60], y[:60], x[60:], y[60:]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", baselines.BASELINES)
def test_learns_and_repeats(name, classes):
    x, y, test_x, test_y = make(classes, n=121)
    job = Job(name, x, y, test_x, classes)
    got, again = baselines.fit_predict(job), baselines.fit_predict(job)
    assert (got.predicted == test_y).mean() > 1 / classes + 0.2
    assert got.probabilities.shape == (len(test_y), classes)
    np.testing.assert_allclose(got.probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(got.predicted, again.predicted)
    if name != "SVM-RBF":  # decision values of one-against-one may order classes otherwise
        np.testing.assert_array_equal(got.probabilities.argmax(1), got.predicted)


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
