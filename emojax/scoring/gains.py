"""The gain of a network over the linear path that it was built on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from emojax.metrics import balanced_accuracy
from emojax.records import FoldData
from emojax.scoring import scores

AGREES = 0.99  # share of rows with equal predictions at which a network gains nothing


def linear_path(data: FoldData, num_classes: int) -> Float[np.ndarray, "t classes"]:
    """Returns the linear path's probabilities for a fold's test rows, averaged over members.

    Its logits are the last columns of the features, see `models.residual.Path`.
    """
    logits = [own.read_test(data.fold.test)[:, -num_classes:] for own in data.members or (data,)]
    return np.mean([softmax(one, axis=1) for one in logits], axis=0)


def gain(
    labels: Sequence[Int[np.ndarray, " t"]],
    linear: Sequence[Float[np.ndarray, "t classes"]],
    network: Sequence[Float[np.ndarray, "t classes"]],
) -> dict[str, Any]:
    """Compares a network with its linear path, fold by fold.

    Args:
      labels: the truth of each fold's test rows.
      linear: probabilities of the linear path.
      network: probabilities of the network, which contain it.

    Returns:
      Plain data: "difference" of the balanced accuracies, "ci95" and "p", see
      `scores.paired_difference`; "nll", the same for the cross-entropies; "agreement", the share of
      all rows in which both predict the same class; "counts", whether it can count as a gain.
    """
    folds = list(zip(labels, linear, network, strict=True))
    found = [np.concatenate([p.argmax(1) for p in side]) for side in (linear, network)]
    agreement = float((found[0] == found[1]).mean())

    def difference(score) -> dict[str, Any]:
        pairs = [(score(y, ours), score(y, theirs)) for y, theirs, ours in folds]
        return scores.paired_difference(*zip(*pairs, strict=True))

    return difference(_accuracy) | {
        "nll": difference(lambda y, p: scores.of_probabilities(y, p)["nll"]),
        "agreement": agreement,
        "counts": agreement < AGREES,
    }


def _accuracy(labels, probabilities) -> float:
    predicted = probabilities.argmax(1).astype(labels.dtype)
    return float(balanced_accuracy(labels, predicted, probabilities.shape[1]))
