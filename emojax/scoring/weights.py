"""Weights of fitted scikit-learn estimators as plain arrays, for folding into a decoder."""

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
    """The parameters of an estimator, for folding by a network of `models.find`."""

    network: str  # name of the network
    params: tuple[Mapping[str, Any], ...]  # one for each member of a bag, or a single one
    C: tuple[float, ...] = ()  # penalties of the members of a bag


def of(model: Any) -> Weights | None:
    """Returns weights that reproduce the probabilities of a fitted estimator.

    Probabilities of a linear estimator are the softmax of its decision values, as in the report.

    Args:
      model: a fitted estimator of scikit-learn, or a `bag.Bag`.

    Returns:
      The weights; None for an estimator that is neither linear nor a multilayer perceptron.
    """
    if isinstance(model, MLPClassifier):
        return Weights(f"mlp_{model.activation}", ({"layers": _layers(model)},))
    if (found := bag.linear_weights(model)) is not None:
        names = ("coef", "intercept", "temperature")
        each = zip(*(found[name] for name in names), strict=True)
        members: list[Mapping[str, Any]] = [dict(zip(names, own, strict=True)) for own in each]
        return Weights("linear", tuple(members), tuple(found["C"].tolist()))
    if not isinstance(model, LINEAR) or _one_against_the_rest(model):
        return None
    coef, intercept = bag.weights_of(model)
    params = {"coef": coef, "intercept": intercept, "temperature": np.ones(())}
    return Weights("linear", (params,))


def _one_against_the_rest(model: Any) -> bool:
    """Returns whether probabilities are not the softmax of the decision values."""
    return getattr(model, "solver", "") == "liblinear" and len(model.classes_) > 2


def _layers(model: MLPClassifier) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns kernel and bias of each layer, with one logit per class even for two."""
    layers = [
        (np.asarray(kernel, np.float64), np.asarray(bias, np.float64))
        for kernel, bias in zip(model.coefs_, model.intercepts_, strict=True)
    ]
    kernel, bias = layers[-1]
    if model.out_activation_ == "logistic":
        halves = np.array([[-0.5, 0.5]])
        layers[-1] = kernel @ halves, bias @ halves
    return layers
