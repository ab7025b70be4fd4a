"""Linear classifiers for many labellings of one training set, fitted together.

In principal coordinates of the training rows, the curvature of the loss has a diagonal bound
(Boehning, 1992), so that a step for all labellings takes two matrix products. Steps have momentum,
which restarts when it leads uphill (O'Donoghue and Candes, 2015).
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

STEPS = 2000
TOLERANCE = 1e-4  # size of a step, in units of the curvature, per training row

Fit = Callable[..., Float[np.ndarray, "p t classes"]]


def coordinates(
    x: Float[np.ndarray, "n v"], x_test: Float[np.ndarray, "t v"]
) -> tuple[Float[np.ndarray, "n r"], Float[np.ndarray, "t r"]]:
    """Returns centred training and test rows on the principal axes of the training rows.

    Linear classifiers with a spherical penalty give the same predictions in these coordinates.
    """
    x, x_test = np.asarray(x, np.float64), np.asarray(x_test, np.float64)
    mean = x.mean(0)
    x, x_test = x - mean, x_test - mean
    if len(x) < x.shape[1]:
        values, vectors = np.linalg.eigh(x @ x.T)
        keep = values > 1e-9 * values[-1]
        axes = x.T @ (vectors[:, keep] / np.sqrt(values[keep]))
    else:
        values, vectors = np.linalg.eigh(x.T @ x)
        axes = vectors[:, values > 1e-9 * values[-1]]
    return x @ axes, x_test @ axes


def svm(
    train: Float[np.ndarray, "n r"],
    labels: Int[np.ndarray, "p n"],
    test: Float[np.ndarray, "t r"],
    num_classes: int,
    C: float = 1.0,
) -> Float[np.ndarray, "p t classes"]:
    """Returns decision values of a linear SVM, each class against the others.

    Minimises ||v||^2 / 2 + C sum_i max(0, 1 - s_i f_i)^2 with the intercept in v, the objective of
    scikit-learn's LinearSVC.

    Args:
      train: principal coordinates of the training rows.
      labels: [p, n] labellings of the training rows.
      test: test rows in the same coordinates.
      num_classes: number of classes.
      C: inverse penalty, as in scikit-learn.
    """
    signs = np.where(_one_hot(labels, num_classes), 1.0, -1.0)
    rows = _with_one(train)
    bound = 1 + 2 * C * (rows**2).sum(0)

    def gradient(v):
        slack = np.maximum(1 - signs * (v @ rows.T), 0)
        return v - 2 * C * (signs * slack) @ rows

    return _scores(_minimise(gradient, (*signs.shape[:2], rows.shape[1]), bound, len(rows)), test)


def logistic(
    train: Float[np.ndarray, "n r"],
    labels: Int[np.ndarray, "p n"],
    test: Float[np.ndarray, "t r"],
    num_classes: int,
    C: float = 1e-2,
) -> Float[np.ndarray, "p t classes"]:
    """Returns logits of a multinomial logistic regression with class weights "balanced".

    The objective is that of scikit-learn's LogisticRegression. Arguments are those of `svm`.
    """
    true = _one_hot(labels, num_classes).astype(float)
    count = true.sum(2, keepdims=True)
    weight = (true * len(train) / (num_classes * np.maximum(count, 1))).sum(1, keepdims=True)
    rows = _with_one(train)
    penalty = np.ones(rows.shape[1])
    penalty[-1] = 0
    if num_classes == 2:  # scikit-learn then has one vector, of which these are the halves
        penalty *= 2
    bound = penalty + C * weight.max((1, 2))[:, None, None] / 2 * (rows**2).sum(0)

    def gradient(v):
        f = v @ rows.T
        odds = np.exp(f - f.max(1, keepdims=True))
        return penalty * v + C * (weight * (odds / odds.sum(1, keepdims=True) - true)) @ rows

    return _scores(_minimise(gradient, (*true.shape[:2], rows.shape[1]), bound, len(rows)), test)


CLASSIFIERS: Mapping[str, Fit] = {"SVM-linear hard": svm, "logistic": logistic}  # names of rows


def _one_hot(labels, num_classes: int) -> np.ndarray:
    return labels[:, None] == np.arange(num_classes)[:, None]


def _with_one(x) -> np.ndarray:
    return np.column_stack([x, np.ones(len(x))])


def _scores(v, test) -> np.ndarray:
    return np.swapaxes(v @ _with_one(test).T, 1, 2)


def _minimise(gradient, shape: tuple[int, ...], bound, size: int) -> np.ndarray:
    """Returns the minima of convex functions, one for each entry of the first axis.

    Args:
      gradient: function that returns the gradients of all of them.
      shape: shape (p, classes, r) of their arguments.
      bound: diagonal upper bound of the curvature.
      size: number of training rows.
    """
    here = there = np.zeros(shape)
    age = np.ones((shape[0], 1, 1))
    for _ in range(STEPS):
        slope = gradient(there)
        new = there - slope / bound
        if ((slope**2 / bound).sum((1, 2)) < TOLERANCE**2 * size).all():
            return new
        uphill = ((slope * (new - here)).sum((1, 2)) > 0)[:, None, None]
        age = np.where(uphill, 1, age)
        after = (1 + np.sqrt(1 + 4 * age**2)) / 2
        there = new + (age - 1) / after * (new - here)
        here, age = new, after
    return here
