"""Fitted estimators of scikit-learn as plain arrays, for networks that fold into a decoder."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC

from emojax.scoring import bag

LINEAR = (LinearDiscriminantAnalysis, LinearSVC, LogisticRegression, RidgeClassifier)


class Weights(NamedTuple):
    """The parameters of an estimator, as a network of `models.find` folds them."""

    network: str
    params: tuple[Mapping[str, Any], ...]  # of each member of a bag, or the one
    C: tuple[float, ...] = ()  # of a bag: the penalty of each member


def of(model: Any) -> Weights | None:
    """Returns the weights of a fitted estimator whose probabilities they give.

    Those of a linear one are the softmax of its decision values, as the report has them.

    Returns:
      The weights; None of an estimator that is neither linear nor a multilayer perceptron.
    """
    if isinstance(model, MLPClassifier):
        return Weights(f"mlp_{model.activation}", ({"layers": _layers(model)},))
    if (found := bag.linear_weights(model)) is not None:
        names = ("coef", "intercept", "temperature")
        each = zip(*(found[name] for name in names), strict=True)
        params = tuple(dict(zip(names, own, strict=True)) for own in each)
        return Weights("linear", params, tuple(found["C"].tolist()))
    if not isinstance(model, LINEAR) or _one_against_the_rest(model):
        return None
    coef, intercept = bag.weights_of(model)
    params = {"coef": coef, "intercept": intercept, "temperature": np.ones(())}
    return Weights("linear", (params,))


def _one_against_the_rest(model: Any) -> bool:
    """Returns whether probabilities are not the softmax of the decision values."""
    return getattr(model, "solver", "") == "liblinear" and len(model.classes_) > 2


def _layers(model: MLPClassifier) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns kernel and bias of each layer, with one logit a class even of two."""
    layers = [
        (np.asarray(kernel, np.float64), np.asarray(bias, np.float64))
        for kernel, bias in zip(model.coefs_, model.intercepts_, strict=True)
    ]
    kernel, bias = layers[-1]
    if model.out_activation_ == "logistic":
        halves = np.array([[-0.5, 0.5]])
        layers[-1] = kernel @ halves, bias @ halves
    return layers
