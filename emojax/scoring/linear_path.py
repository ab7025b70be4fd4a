"""The linear path that a network is built on (`models.residual`): a member of the bag."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from emojax.models.residual import Path
from emojax.scoring import bag
from emojax.splits import Fold


def fit(
    read: Callable[[np.ndarray], Float[np.ndarray, "k m"]],
    labels: Int[np.ndarray, " n"],
    fold: Fold,
) -> Path:
    """Fits logistic regression to a fold's training rows; monitored rows choose its penalty.

    See `bag.fit_member`.

    Args:
      read: function from training and monitored rows to features.
      labels: [n] class of every row of the cohort; only those of these rows are read.
      fold: the fold; repeated rows count once.
    """
    train, monitor = np.unique(fold.train), np.unique(fold.monitor)
    found = bag.fit_member(read(train), labels[train], read(monitor), labels[monitor])
    return Path(found.coef / found.temperature, found.intercept / found.temperature)
