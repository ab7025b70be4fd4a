"""The common base class of networks as scikit-learn classifiers."""

import functools
import json
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped
from ml_collections import ConfigDict
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from emojax import models, plateau, resampling, rules
from emojax.features import scaling
from emojax.scoring import scores
from emojax.training import feeds, loop, optimizer
from emojax.training.feeds import Resident
from emojax.training.loop import Program, Task
from emojax.training.trial import By

RULES = {  # ranges of the parameters that all networks share
    "scale": rules.one_of(*scaling.KINDS),
    "penalty_factor": rules.number("[0, inf)"),
    "lr": rules.number("(0, inf)"),
    "epochs": rules.whole("[1, inf)"),
    "batch_size": rules.whole("[1, inf)"),
    "held_back": rules.number("[0, 1)"),
    "patience": rules.whole("[1, inf)"),
    "best_by": rules.one_of("accuracy", "nll"),
    "balanced": rules.flag,
    "temperature": rules.flag,
}
_validate: Any = validate_data  # the types inferred from its defaults are too narrow
LEAST_RATE = 0.02  # minimum rate relative to the first: two reductions by 5, and one to this
TRIES = 50  # maximum number of draws of groups to hold back, until both sides have every class


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A network that trains until held-back rows stop improving.

    Parameters of every network:
      scale: scaling fitted to the training rows: "voxel", "global" (one mean and sd) or "none".
      penalty_factor: weight of the sum of squared kernels in the loss.
      lr: rate of Adam; it falls to a fifth after `patience` epochs without a lower held-back loss.
      epochs: maximum number of epochs; training ends earlier once loss and rate stop falling.
      batch_size: number of rows in a step.
      held_back: fraction of the rows, or of the groups, that chooses the epoch instead of training.
        0: all rows train for all epochs with their own loss, the last epoch is kept, and there is
        no temperature.
      patience: number of epochs, see `lr`.
      best_by: criterion of the kept epoch: "accuracy", or class-balanced "nll".
      balanced: whether all classes are drawn equally often.
      temperature: whether a temperature, fitted to the held-back rows, scales probabilities.
      random_state: seed of weights, order and held-back rows; an int repeats on one machine.

    Attributes:
      classes_: the classes, sorted.
      params_, batch_stats_: variables of the network in the kept epoch, as NumPy arrays.
      scale_: mean and sd, an `emojax.features.scaling.Scale`.
      epoch_: the kept epoch, from 1; n_iter_: the number of epochs.
      curves_: name -> [epochs] losses, accuracies and rate.
      temperature_: temperature that logits are divided by.
      monitored_: rows that were held back.
    """

    _network = ""  # name in `models.NETWORKS`
    _own: tuple[str, ...] = ()  # parameters that are fields of the network's config
    scale: scaling.Kind
    penalty_factor: float
    lr: float
    epochs: int
    batch_size: int
    held_back: float
    patience: int
    best_by: By
    balanced: bool
    temperature: bool
    random_state: Any

    def fit(
        self,
        X: Float[np.ndarray, "n ..."],
        y: Shaped[np.ndarray, " n"],
        groups: Shaped[np.ndarray, " n"] | None = None,
    ) -> "NetworkClassifier":
        """Trains the network.

        Args:
          X: [n, ...] training rows.
          y: [n] class of each row, numbers or strings.
          groups: [n] run or subject of each row; whole groups are held back. None: single rows are
            held back; as their neighbours in time train, a later epoch may be kept than a new run
            would choose.

        Raises:
          ValueError: bad rows, labels or parameters, or too few rows or groups to hold some back.
        """
        X, y = _validate(self, X, y, dtype=np.float32, allow_nd=True, ensure_min_samples=2)
        check_classification_targets(y)
        self._check()
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            only = self.classes_.tolist()[0]
            raise ValueError(f"want rows of two classes or more; got one class: {only!r}")
        self.shape_ = self._shape(X)
        self._check_size()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        train, monitor = self._split(jax.random.key(seed), labels, groups)
        self.scale_ = scaling.fit_scale(lambda rows: self._inputs(X[rows]), train, self.scale)
        feed = self._feed(X, labels, np.concatenate([train, monitor]))
        program = self._program(len(self.classes_))
        ((_, trained),) = loop.fit(
            program,
            [Task("fit", jax.random.key(seed), lambda: feed, train, monitor)],
            epochs=int(self.epochs),
            every=50,
            factor=float(self.penalty_factor),
            strategy=loop.default_strategy(),
            stop=(self.lr * LEAST_RATE, int(self.patience)) if self.held_back else None,
        )
        network = trained.best if self.held_back else trained.last
        self.params_ = jax.tree.map(np.asarray, network.params)
        self.batch_stats_ = jax.tree.map(np.asarray, network.batch_stats)
        self.n_iter_ = int(trained.done)
        self.epoch_ = int(trained.best.epoch) if self.held_back else self.n_iter_
        self.curves_ = {name: line[: self.n_iter_] for name, line in trained.curves.items()}
        self.monitored_, self.temperature_ = monitor if self.held_back else monitor[:0], 1.0
        if self.temperature and self.held_back:
            said = loop.predict(program, feed, monitor, self.params_, self.batch_stats_)
            self.temperature_ = scores.fit_temperature(labels[monitor], said)
        return self

    def predict_proba(self, X: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n classes"]:
        """Returns the probability of each class, in the order of `classes_`; float32.

        Raises:
          ValueError: rows of another shape than the training rows.
        """
        check_is_fitted(self)
        X = _validate(self, X, dtype=np.float32, allow_nd=True, reset=False)
        if self._shape(X) != self.shape_:
            raise ValueError(f"want rows of shape {self.shape_}; got {self._shape(X)}")
        program, rows = self._program(len(self.classes_)), np.arange(len(X))
        feed = self._feed(X, np.zeros(len(X), int), rows)
        found = loop.predict(program, feed, rows, self.params_, self.batch_stats_)
        return scores.with_temperature(found, self.temperature_)

    def predict(self, X: Float[np.ndarray, "n ..."]) -> Shaped[np.ndarray, " n"]:
        """Returns the most probable class of each row; raises as for `predict_proba`."""
        chosen = self.predict_proba(X).argmax(1)
        return self.classes_[chosen]

    def _shape(self, X: np.ndarray) -> tuple[int, ...]:
        """Returns the shape of one input of the network."""
        if X.ndim != 2:
            raise ValueError(f"want rows of voxels [n, v]; got X {X.shape}")
        return X.shape[1:]

    def _inputs(self, x: np.ndarray) -> np.ndarray:
        """Returns rows in the form that the network takes, not yet scaled."""
        return x

    def _check(self) -> None:
        """Raises ValueError if a parameter is out of range."""
        rules.check(RULES, {name: getattr(self, name) for name in RULES})
        own = models.find(self._network).rules
        rules.check(
            {name: own[name] for name in self._own},
            {name: getattr(self, name) for name in self._own},
        )

    def _check_size(self) -> None:
        least = models.find(self._network).least(self._config())
        if min(self.shape_) < least:
            axes = " along each axis" if len(self.shape_) > 1 else ""
            raise ValueError(
                f"want {least} voxels or more{axes} for {type(self).__name__} with these layers; "
                f"got {' x '.join(map(str, self.shape_))}"
            )

    def _split(
        self, key: jax.Array, labels: Int[np.ndarray, " n"], groups: Any
    ) -> tuple[np.ndarray, ...]:
        """Returns the training rows and the held-back rows."""
        everything = np.arange(len(labels))
        if not self.held_back:
            return everything, everything
        shares = [1 - self.held_back, float(self.held_back)]
        if groups is not None:
            groups = np.asarray(groups)
            groups = groups.astype(str) if groups.dtype == object else groups
            if groups.shape != labels.shape:
                raise ValueError(f"want groups [{len(labels)}]; got shape {groups.shape}")
            return _split_groups(key, groups, shares, labels)
        count = np.bincount(labels)
        if count.min() < 2:
            raise ValueError(
                f"want 2 rows or more of every class, one of them to hold back; class "
                f"{self.classes_.tolist()[count.argmin()]!r} has 1 (held_back=0 holds none back)"
            )
        size = max(len(count), round(self.held_back * len(labels)))
        return resampling.stratified_split(key, labels, [len(labels) - size, size])

    def _feed(self, X: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> Resident:
        def read(rows):
            return scaling.apply_scale(self.scale_, self._inputs(X[rows]))

        program = self._program(len(self.classes_))
        return Resident(read, labels, rows, np.float32, program.mesh)

    def _config(self) -> ConfigDict:
        """Returns the `model` part of a config."""
        return ConfigDict({name: getattr(self, name) for name in self._own})

    def _program(self, classes: int) -> Program:
        """Returns the static parts of the training run; equal ones are compiled once."""
        own = {name: getattr(self, name) for name in self._own}
        text = json.dumps(own, sort_keys=True, default=lambda value: value.tolist())
        draws = "classes" if self.balanced else "rows"
        rate = float(self.lr), int(self.patience)
        return _program(
            self._network, text, classes, int(self.batch_size), rate, self.best_by, draws
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.random_state is None
        return tags


def _split_groups(key, groups, shares, labels) -> tuple[np.ndarray, ...]:
    """Draws whole groups to hold back, so that both sides have every class."""
    refused: object = None
    for i in range(TRIES):
        try:
            return resampling.group_split(jax.random.fold_in(key, i), groups, shares, labels=labels)
        except ValueError as error:
            refused = error
    raise ValueError(
        f"no draw of groups to hold back has every class on both sides: {refused} "
        "(held_back=0 holds none back)"
    )


@functools.lru_cache(maxsize=16)
def _program(
    name: str,
    text: str,
    classes: int,
    batch_size: int,
    rate: tuple[float, int],
    best_by: By,
    draws: Literal["rows", "classes"],
) -> Program:
    network, (lr, patience) = models.find(name), rate
    return Program(
        network.make(ConfigDict(json.loads(text)), classes),
        optimizer.adam(lr),
        plateau.reduce_on_plateau(
            factor=0.2, patience=patience, min_lr=lr * LEAST_RATE, base_lr=lr
        ),
        lambda params, factor: network.penalty(params, "l2", factor),
        batch_size,
        feeds.data_mesh(jax.local_devices()[:1]),
        best_by=best_by,
        draws=draws,
    )
