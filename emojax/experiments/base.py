"""The `Experiment` record: the few functions that the skeleton needs to run an experiment."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from emojax.errors import InputError
from emojax.files import split_list
from emojax.provenance import PROTOCOLS, Ledger
from emojax.records import Arm, FoldData
from emojax.scoring import baselines
from emojax.scoring.baselines import Job
from emojax.splits import SPLITS, Fold
from emojax.training.checkpoint import slug
from emojax.training.loop import Program


def _nothing(config: Any) -> None:
    """Accepts every configuration."""


def _as_it_is(config: Any, cohort: Any, like: Any = None) -> Any:
    """Returns the cohort."""
    return cohort


def _groups(config: Any, view: Any, arm: Arm) -> np.ndarray:
    """Returns the groups of the arm's split, or subjects."""
    return SPLITS[arm.split].groups(view) if arm.split else view.subject


def _no_jobs(config: Any, data: FoldData, names: Sequence[str]) -> Iterable[Job]:
    """Returns no jobs."""
    return ()


def _missing(*args: Any) -> Any:
    """Marks a required part that was not given; `check_experiment` rejects it."""
    raise TypeError("a required part of the experiment is missing")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of an experiment: `arms`, `folds` and `features` are required, the rest optional.

    Without `program` there is no network, only classical classifiers.
    """

    arms: Callable[[Any, Any], Sequence[Arm]] = _missing  # (config, cohort); the headline first
    folds: Callable[[Any, Any, Arm], Sequence[Fold]] = _missing  # (config, view, arm)
    features: Callable[[Any, Ledger, Fold, Arm, int], FoldData] = _missing  # int: fold number
    check: Callable[[Any], None] = _nothing  # rejects settings before data is read
    # (config, view, arm) -> the group of each row; a scored row must share no group with training
    units: Callable[[Any, Any, Arm], np.ndarray] = _groups
    view: Callable[..., Any] = _as_it_is  # (config, cohort, like=None) -> the data ledgers read
    program: Callable[[Any, int], Program] | None = None  # (config, number of classes)
    baselines: Callable[[Any, FoldData, Sequence[str]], Iterable[Job]] = _no_jobs
    label: Callable[[Any], str] = lambda config: "network"  # the network's name in tables
    # (exports.parts.Made, exports.parts.Trained, run) -> exports.parts.Packed: a decoder
    pack: Callable[..., Any] | None = None
    notes: Callable[[Any, Any], Sequence[str]] = lambda config, view: ()  # sentences for the report
    files: Callable[[Any], Sequence[str]] = lambda config: ()  # input files besides the cohort's


def installed(names: str) -> tuple[str, ...]:
    """Returns the classifiers of a comma-separated setting whose packages are installed."""
    return tuple(name for name in split_list(names) if baselines.available(name))


def check_experiment(name: str, experiment: Any) -> Experiment:
    """Returns an experiment that can be run; rejects anything else.

    Raises:
      InputError: it is not an `Experiment`, or lacks a required part.
    """
    if not isinstance(experiment, Experiment):
        expected = "an emojax.experiments.Experiment"
        raise InputError("experiment", f"{name!r}, a {type(experiment).__name__}", expected)
    for part in ("arms", "folds", "features"):
        if getattr(experiment, part) in (None, _missing):
            raise InputError("experiment", f"{name!r} without {part}", f"a function as its {part}")
    return experiment


def check_arms(arms: Sequence[Arm]) -> list[Arm]:
    """Returns the arms as a list; rejects contradictory ones.

    Raises:
      InputError: no arms, two arms with the same name, an unknown protocol class, a leaky arm that
        names no leaky step, a non-leaky arm that names one, or an arm that shares the training of
        an arm that is not trained.
    """
    if not arms:
        raise InputError("experiment", "no arm", "one arm or more")
    trained = {arm.name for arm in arms if not arm.shares}
    seen: set[str] = set()
    for arm in arms:
        where = f"arm {arm.name!r}"
        if (file := slug(arm.name)) in seen:
            raise InputError(where, "a second arm of this name", "another name")
        seen.add(file)
        if arm.protocol not in PROTOCOLS:
            expected = f"one of {', '.join(PROTOCOLS)}"
            raise InputError(where, f"protocol {arm.protocol!r}", expected)
        if (arm.protocol == "leaky") != bool(arm.leaks):
            found = f"protocol {arm.protocol!r} with leaks {arm.leaks}"
            expected = "'leaky' with the steps that leak, or another protocol without any"
            raise InputError(where, found, expected)
        if arm.shares and arm.shares not in trained:
            expected = f"one of {', '.join(sorted(trained))}"
            raise InputError(where, f"shares {arm.shares!r}", expected)
    return list(arms)
