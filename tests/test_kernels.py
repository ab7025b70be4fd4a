"""Coordinates have the volumes' distances; classifiers say the same on them as on voxels."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from emojax.features import kernels


def make(n=40, t=15, p=500):
    rng = np.random.default_rng(0)
    y = np.arange(n + t) % 2
    x = rng.normal(3, 1, (n + t, p)) + 0.15 * y[:, None]
    return x[:n].astype(np.float32), x[n:].astype(np.float32), y[:n], y[n:]


def coordinates(a, b, squared_norm=None):
    norms = (b.astype(np.float64) ** 2).sum(1)
    return kernels.isometry(kernels.products(a, a), kernels.products(b, a), norms, squared_norm)


def test_distances_are_those_of_the_volumes():
    a, b, *_ = make()
    z = coordinates(a, b)
    for got, want in ((z.train, a), (z.test, b)):
        np.testing.assert_allclose(
            ((got[:, None] - z.train) ** 2).sum(-1), ((want[:, None] - a) ** 2).sum(-1), atol=0.05
        )
    assert z.train.shape[1] == len(a)  # n - 1 dimensions, and the distance from them
    scaled = coordinates(a, b, 300.0)
    np.testing.assert_allclose((scaled.train**2).sum(1).mean(), 300, rtol=1e-5)


@pytest.mark.parametrize(
    "make_model",
    [
        lambda: SVC(kernel="linear", C=0.01),
        lambda: SVC(gamma=1 / 600),
        lambda: KNeighborsClassifier(1),
    ],
    ids=["linear", "RBF", "1-NN"],
)
def test_predictions_are_those_on_all_voxels(make_model):
    a, b, y, _ = make()
    z = coordinates(a, b)
    want, got = make_model().fit(a, y), make_model().fit(z.train, y)
    np.testing.assert_array_equal(got.predict(z.test), want.predict(b))


def test_lda_is_that_on_all_voxels_with_the_same_ridge():
    """Shrinkage s of p voxels adds s / (1 - s) trace / p; of r coordinates, the same with r."""
    a, b, y, _ = make()
    z, s = coordinates(a, b), 0.9
    ratio = s / (1 - s) / a.shape[1] * z.train.shape[1]
    want = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s).fit(a, y)
    again = ratio / (1 + ratio)
    got = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=again).fit(z.train, y)
    np.testing.assert_allclose(
        got.decision_function(z.test) * (1 - again), want.decision_function(b) * (1 - s), rtol=2e-3
    )


def test_rows_are_read_chunk_by_chunk():
    x = np.random.default_rng(0).normal(size=(200, 3, 4, 5)).astype(np.float32)
    sizes = []

    def read(rows):
        sizes.append(len(rows))
        return x[rows]

    rows = np.random.default_rng(1).permutation(150)
    np.testing.assert_array_equal(kernels.rows_of(read, rows), x[rows].reshape(150, -1))
    assert max(sizes) == 64
