"""Linear classifiers of many labellings against scikit-learn, one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from emojax.scoring import linear

ROWS, TESTS = 45, 7


def make_data(voxels, classes):
    rng = np.random.default_rng(voxels)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, ROWS - classes)])
    x, x_test = rng.normal(3, 1, (ROWS, voxels)), rng.normal(3, 1, (TESTS, voxels))
    x[:, 0] += y
    labels = np.stack([y, rng.permutation(y), rng.permutation(y)])
    return x, x_test, labels


@pytest.mark.parametrize("voxels", [8, 200])
def test_coordinates_keep_inner_products(voxels):
    x, x_test, _ = make_data(voxels, 3)
    a, b = linear.coordinates(x, x_test)
    assert a.shape[1] == min(voxels, ROWS - 1)
    np.testing.assert_allclose(a @ a.T, (x - x.mean(0)) @ (x - x.mean(0)).T, atol=1e-8)
    np.testing.assert_allclose(b @ a.T, (x_test - x.mean(0)) @ (x - x.mean(0)).T, atol=1e-8)
    np.testing.assert_allclose(a.T @ a, np.diag((a**2).sum(0)), atol=1e-8)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("voxels", [8, 200])
def test_are_those_of_scikit_learn(voxels, classes, monkeypatch):
    monkeypatch.setattr(linear, "TOLERANCE", 1e-7)
    x, x_test, labels = make_data(voxels, classes)
    x, x_test = linear.coordinates(x, x_test)
    makers = {
        "SVM-linear hard": lambda: LinearSVC(C=1.0, tol=1e-9, max_iter=10**6),
        "logistic": lambda: LogisticRegression(
            C=1e-2, class_weight="balanced", tol=1e-10, max_iter=5000
        ),
    }
    assert {*makers} == {*linear.CLASSIFIERS}
    for name, make in makers.items():
        got = linear.CLASSIFIERS[name](x, labels, x_test, classes)
        assert got.shape == (3, TESTS, classes)
        for y, own in zip(labels, got, strict=True):
            want = make().fit(x, y).decision_function(x_test)
            if classes == 2:  # one value for both classes
                own = own[:, 1] if name == "SVM-linear hard" else own[:, 1] - own[:, 0]
            elif name == "logistic":
                own, want = own - own.mean(1)[:, None], want - want.mean(1)[:, None]
            np.testing.assert_allclose(own, want, atol=2e-4)


def test_a_labelling_does_not_depend_on_the_others():
    x, x_test, labels = make_data(200, 3)
    x, x_test = linear.coordinates(x, x_test)
    for fit in linear.CLASSIFIERS.values():
        alone = fit(x, labels[:1], x_test, 3)[0]
        np.testing.assert_allclose(fit(x, labels, x_test, 3)[0], alone, atol=2e-2)
