"""Folds whose inputs do not depend on labels, which permutations therefore need only once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from emojax.experiments.base import Experiment
from emojax.provenance import Ledger
from emojax.records import Arm, FoldData
from emojax.scoring import baselines
from emojax.scoring.baselines import Job

TRAINING = ("network", "epoch choice")  # steps that read labels in every fold
Draw = Callable[[Any, int], Int[np.ndarray, " r"]]  # (view, fold) -> training rows


def keeps_values(data: FoldData) -> bool:
    """Returns whether only training itself has read labels, by the provenance record."""
    steps = data.ledger.reads.steps.items()
    return not any(saw.labels.any() for step, saw in steps if step not in TRAINING)


class Still:
    """Folds whose inputs are computed once."""

    def __init__(
        self, draw: Draw, jobs: Sequence[Job], values: Sequence[Float[np.ndarray, "n ..."]]
    ):
        self._draw = draw
        self._jobs, self._values = jobs, values  # values: the input of each cohort row, by fold

    @classmethod
    def of(
        cls, experiment: Experiment, config: Any, view: Any, arm: Arm, made: Sequence[FoldData]
    ) -> "Still | None":
        """Returns the folds with their inputs, or None if drawing rows requires values.

        Args:
          experiment: see `base.Experiment`.
          config: its configuration.
          view: the data that ledgers read, with the true labels.
          arm: an arm with one classifier.
          made: its folds, whose inputs must not depend on labels; see `keeps_values`.
        """
        if not hasattr(getattr(view, "volumes", None), "shape"):
            return None

        def draw(other, number):
            ledger = Ledger(_Blank(other))
            data = experiment.features(config, ledger, made[number].fold, arm, number)
            return data.train[0] if len(data.train) == 1 else data.fold.train

        jobs, values = [], []
        for i, data in enumerate(made):
            own = list(experiment.baselines(config, data, arm.baselines))
            rows = draw(view, i)
            if not own or not np.array_equal(own[0].train_y, view.labels[rows]):
                return None
            different, first = np.unique(rows, return_index=True)
            inputs = np.zeros((len(view.labels), *own[0].train_x.shape[1:]), np.float32)
            inputs[different] = own[0].train_x[first]
            jobs.append(own[0]._replace(train_x=None, train_y=None))
            values.append(inputs)
            if not np.isin(data.fold.train, different).all():
                return None
        return cls(draw, jobs, values)

    def predicted(self, view: Any) -> list[Int[np.ndarray, " t"]]:
        """Returns the predicted classes of each fold, trained on the labels of a view."""
        found = []
        for i, (job, inputs) in enumerate(zip(self._jobs, self._values, strict=True)):
            rows = self._draw(view, i)
            job = job._replace(train_x=inputs[rows], train_y=view.labels[rows])
            found.append(baselines.fit_predict(job).predicted)
        return found


class _Blank:
    """A view whose values are all 0, to draw rows from labels alone."""

    def __init__(self, view: Any):
        self._view = view
        n, *sizes = view.volumes.shape
        self.volumes = np.zeros((n, *[1] * len(sizes)), np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)
