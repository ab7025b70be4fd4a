"""What one step of an experiment hands to the next."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped

from emojax.provenance import Ledger, Provenance
from emojax.splits import Fold


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of the result table: a way to fit, and to choose, what is scored.

    Arms that differ only in how a training is scored share it: `shares` names the arm that trains.
    """

    name: str  # in every table, figure, file and message
    protocol: str  # the class of protocol that it claims, of `provenance.PROTOCOLS`
    settings: Any = None  # the experiment's own, e.g. the alignment regime
    split: str = ""  # name in `splits.SPLITS`; "" is leave one subject (or run) out
    regime: str = ""  # name in `alignment.REGIMES`
    leaks: tuple[str, ...] = ()  # leaky by name: the steps at which the audit must catch it
    on_noise: bool = False  # fitted to noise without any response
    draw: int = 0  # of the noise, where it is fitted to that
    shares: str = ""
    pick: str = "best"  # the scored network: "best" monitored epoch, or the "last" one
    oversampled: bool = False  # test rows are balanced as the training rows, as published
    factor: float | None = None  # of the penalty; None: the config's
    instances: int = 1  # networks of each fold
    baselines: tuple[str, ...] = ()  # names in `scoring.baselines.BASELINES`, or dotted paths
    decoder: str = ""  # the classical classifier that it is about; "" is the network
    members: bool = False  # a network for each subject that is monitored; their mean is scored
    setting: tuple[tuple[str, Any], ...] = ()  # of a sweep: keys and their own values
    among: tuple[str, ...] = ()  # arms of a sweep: each fold takes one by what it monitors

    @property
    def source(self) -> int | None:
        """The draw of the noise that it is fitted to; None: measured values."""
        return self.draw if self.on_noise else None


@dataclasses.dataclass(frozen=True)
class FoldData:
    """The data that the fits of one fold see, in rows of the cohort.

    Labels of rows that no step read are -1, those of the test rows among them.
    """

    fold: Fold
    ledger: Ledger  # the record of this fold's reads
    read: Callable[[np.ndarray], Float[np.ndarray, "k ..."]]  # features of training, monitored rows
    read_test: Callable[[np.ndarray], Float[np.ndarray, "k ..."]]  # features of test rows
    labels: Int[np.ndarray, " n"]
    train: tuple[Int[np.ndarray, " r"], ...]  # of each instance; a row may occur several times
    monitor: Int[np.ndarray, " m"]  # a row may occur several times
    keys: tuple[jax.Array, ...]  # [] typed, of each instance's network
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # for report and export
    rounding: float = 0.0  # error of bfloat16, in units of a feature's sd
    unit: Shaped[np.ndarray, " n"] | None = None  # set by the skeleton, see `Experiment.units`
    members: tuple["FoldData", ...] = ()  # of a bag: each monitors another subject, on one ledger


class FoldResult(NamedTuple):
    """The outcome of one fold of an arm: all that is scored."""

    fold: Fold
    outcomes: tuple[Mapping[str, np.ndarray], ...]  # of each instance, see `training.loop`
    baselines: Mapping[str, Any]  # name -> `scoring.baselines.Fitted`
    seen: tuple[tuple[np.ndarray, Provenance], ...]
    leaks: Mapping[str, int]  # step -> volumes that it saw against the rules of strict protocols
    notes: Mapping[str, Any]


class ArmResult(NamedTuple):
    """A row of the result table, fold by fold."""

    arm: Arm
    protocol: str  # the class that its reads belong to, never worse than `arm.protocol`
    folds: tuple[FoldResult, ...]
