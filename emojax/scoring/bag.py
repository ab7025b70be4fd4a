"""The bag of monitored subjects: logistic regressions that each hold back another subject.

Each member trains on all subjects but one, which chooses its penalty and its temperature. The
probabilities of the members are averaged. So no subject is lost to training, and nothing is chosen
on training or scored data.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # C of scikit-learn, strongest penalty first
TEMPERATURES = (0.01, 20.0)


class Linear(NamedTuple):
    """A linear classifier: softmax((x coef + intercept) / temperature)."""

    coef: Float[np.ndarray, "m classes"]
    intercept: Float[np.ndarray, " classes"]
    temperature: float
    C: float

    def logits(self, x: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "k classes"]:
        """Returns logits divided by the temperature."""
        return (x @ self.coef + self.intercept) / self.temperature


def fit_member(
    x: Float[np.ndarray, "n m"],
    y: Int[np.ndarray, " n"],
    monitor_x: Float[np.ndarray, "k m"],
    monitor_y: Int[np.ndarray, " k"],
    penalties: Sequence[float] = PENALTIES,
) -> Linear:
    """Fits logistic regression; a held-back subject chooses penalty and temperature.

    Classes have equal weight in training (class weights "balanced") and in the choice: the lowest
    negative log-likelihood with the best-fitting temperature.

    Args:
      x: training rows.
      y: their classes, 0 to k - 1, each of which occurs.
      monitor_x: rows of the held-back subject.
      monitor_y: their classes.
      penalties: values of C, tried in this order.
    """
    model = LogisticRegression(class_weight="balanced", max_iter=500, warm_start=True)
    best, least = None, np.inf
    for C in penalties:
        model.set_params(C=C).fit(x, y)
        coef, intercept = weights_of(model)
        temperature, loss = fit_temperature(monitor_x @ coef + intercept, monitor_y)
        if loss < least:
            best, least = Linear(coef, intercept, temperature, C), loss
    assert best is not None
    return best


def weights_of(
    model: Any,
) -> tuple[Float[np.ndarray, "m classes"], Float[np.ndarray, " classes"]]:
    """Returns the weights of a fitted linear classifier, with one column per class even for two.

    Args:
      model: a fitted linear estimator of scikit-learn.
    """
    coef = np.asarray(model.coef_, np.float64).T
    intercept = np.asarray(model.intercept_, np.float64)
    if coef.shape[1] == 1:  # scikit-learn has one vector for two classes
        coef = np.concatenate([-coef, coef], 1) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    return coef, intercept


def fit_temperature(
    logits: Float[np.ndarray, "k classes"], labels: Int[np.ndarray, " k"]
) -> tuple[float, float]:
    """Returns the temperature with the lowest class-balanced loss, and this loss in nats.

    One extra row, spread evenly over all rows and classes, keeps a classifier that is right on all
    of a few rows from looking infallible. One row for each class, as in Platt's scaling, is too
    much if there are many classes. `scores.fit_temperature` does the same with equal row weights.
    """
    k, classes = logits.shape
    count = np.bincount(labels, minlength=classes)
    weights = (np.eye(classes)[labels] + 1 / (k * classes)) / np.maximum(count, 1)[labels, None]
    weights /= weights.sum()

    def loss(log_inverse):
        return -(weights * log_softmax(np.exp(log_inverse) * logits, axis=1)).sum()

    limits = tuple(-np.log(TEMPERATURES[::-1]))
    found = minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(-found.x)), float(found.fun)


class Bag:
    """The bag as an estimator: every member has its own features.

    It is fitted to x [n, members, m], y [n] and groups [n]: the member that monitors a row instead
    of training on it, or -1.
    """

    def __init__(self, penalties: Sequence[float] = PENALTIES):
        """Args: penalties: values of C to choose from."""
        self.penalties = penalties

    def fit(
        self,
        x: Float[np.ndarray, "n members m"],
        y: Int[np.ndarray, " n"],
        groups: Int[np.ndarray, " n"],
    ) -> "Bag":
        """Fits all members."""
        self.members_ = [
            fit_member(x[groups != j, j], y[groups != j], x[groups == j, j], y[groups == j])
            for j in range(x.shape[1])
        ]
        return self

    def predict_proba(self, x: Float[np.ndarray, "t members m"]) -> Float[np.ndarray, "t classes"]:
        """Returns the mean of the members' probabilities."""
        each = [softmax(own.logits(x[:, j]), axis=1) for j, own in enumerate(self.members_)]
        return np.mean(each, axis=0)


def linear_weights(model: Any) -> dict[str, np.ndarray] | None:
    """Returns the weights of a fitted bag or logistic regression, as plain arrays.

    Returns:
      "coef" [members, m, classes], "intercept" [members, classes], "temperature" [members], "C"
      [members]; None for other estimators. Probabilities are the mean over members of
      softmax((x coef + intercept) / temperature).
    """
    if isinstance(model, Bag):
        members = model.members_
    elif isinstance(model, LogisticRegression) and model.solver != "liblinear":
        members = [Linear(*weights_of(model), 1.0, float(model.C))]
    else:
        return None
    return {name: np.stack([getattr(own, name) for own in members]) for name in Linear._fields}
