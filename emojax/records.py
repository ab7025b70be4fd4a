"""Records that one step of an experiment hands to the next."""

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
    """One row of the result table: a way to fit and choose the decoder that is scored.

    Arms that differ only in how a training run is scored share it: `shares` names the arm that
    trains.
    """

    name: str  # in every table, figure, file and message
    protocol: str  # claimed class of protocol, one of `provenance.PROTOCOLS`
    settings: Any = None  # the experiment's own, e.g. the alignment regime
    split: str = ""  # name in `splits.SPLITS`; "" is leave-one-subject-out (or run)
    regime: str = ""  # name in `alignment.REGIMES`
    leaks: tuple[str, ...] = ()  # of a leaky arm: the steps at which the audit must catch it
    on_noise: bool = False  # fitted to noise without any response
    draw: int = 0  # number of the noise draw, with `on_noise`
    shares: str = ""
    pick: str = "best"  # the scored network: "best" monitored epoch, or the "last" one
    oversampled: bool = False  # test rows are balanced like the training rows, as published
    factor: float | None = None  # penalty weight; None: the config's
    instances: int = 1  # networks of each fold
    baselines: tuple[str, ...] = ()  # names in `scoring.baselines.BASELINES`, or dotted paths
    decoder: str = ""  # the classical classifier that the arm scores; "" is the network
    members: bool = False  # one network per monitored subject; their mean is scored
    setting: tuple[tuple[str, Any], ...] = ()  # keys of a sweep and their values in this arm
    among: tuple[str, ...] = ()  # arms of a sweep, of which each fold takes one by monitoring

    @property
    def source(self) -> int | None:
        """Number of the noise draw that the arm is fitted to; None: measured values."""
        return self.draw if self.on_noise else None


@dataclasses.dataclass(frozen=True)
class FoldData:
    """The data that the fits of one fold see, by rows of the cohort.

    Labels of rows that no step read, including the test rows, are -1.
    """

    fold: Fold
    ledger: Ledger  # the record of this fold's reads
    read: Callable[[np.ndarray], Float[np.ndarray, "k ..."]]  # features of training, monitored rows
    read_test: Callable[[np.ndarray], Float[np.ndarray, "k ..."]]  # features of test rows
    labels: Int[np.ndarray, " n"]
    train: tuple[Int[np.ndarray, " r"], ...]  # for each instance; a row may occur several times
    monitor: Int[np.ndarray, " m"]  # a row may occur several times
    keys: tuple[jax.Array, ...]  # [] typed, for each instance's network
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # for report and export
    rounding: float = 0.0  # error of bfloat16, in units of a feature's sd
    unit: Shaped[np.ndarray, " n"] | None = None  # set by the skeleton, see `Experiment.units`
    members: tuple["FoldData", ...] = ()  # of a bag: each monitors another subject, on one ledger


class FoldResult(NamedTuple):
    """The outcome of one fold of an arm: everything that is scored."""

    fold: Fold
    outcomes: tuple[Mapping[str, np.ndarray], ...]  # for each instance, see `training.loop`
    baselines: Mapping[str, Any]  # name -> `scoring.baselines.Fitted`
    seen: tuple[tuple[np.ndarray, Provenance], ...]  # as from `Ledger.seen`
    leaks: Mapping[str, int]  # step -> volumes that it saw against the rules of strict protocols
    notes: Mapping[str, Any]


class ArmResult(NamedTuple):
    """One row of the result table, fold by fold."""

    arm: Arm
    protocol: str  # class of protocol of its reads, never worse than `arm.protocol`
    folds: tuple[FoldResult, ...]
