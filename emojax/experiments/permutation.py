"""The headline against chance: its whole pipeline on labels that were exchanged.

Values never change. Voxels, alignment, rows and classifier are made again for every arrangement of
the labels (Ojala and Garriga, 2010), which is then what is scored, too. The statistic is the mean
over folds of balanced accuracy; p = (1 + number of arrangements that reach it) / (1 + number).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from emojax.alignment import REGIMES
from emojax.cluster import pieces
from emojax.errors import InputError
from emojax.experiments import exchange, refits
from emojax.experiments.base import Experiment
from emojax.experiments.exchange import Exchange
from emojax.records import Arm, FoldData
from emojax.scoring import baselines
from emojax.splits import Fold

NETWORK = "network"
LEFT_OUT = "left out"  # in place of the test
KEY = 14  # of `jax.random.fold_in`: no other step of a run has this number
MOST = 99  # permutations where no number is asked for
ROUNDING = 1e-6  # of a mean of float32 accuracies


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
    store: pieces.Store = refits.ALONE,
) -> dict[str, Any] | None:
    """Tests the headline's folds and features against exchanged labels.

    With `config.permute` "network" every arrangement costs a training of every fold, as long as
    those of the headline: `config.permutations` times the whole run. It is meant for small ones.

    Args:
      experiment: see `base.Experiment`.
      config: with `permutations` (0 turns this off; -1: 99, or as many as there are), `permute` and
        `seed`.
      view: what ledgers read.
      arm: the headline.
      made: its folds, whose rows stay as they are.
      tick: called with 1 for every arrangement.
      store: keeper of claims and results, where several processes divide the arrangements.

    Returns:
      "arm", "classifier", "p", "observed", "null" (a value for each arrangement), "scheme" (what is
      exchanged), "blocks" (their number), "least_p", "all": whether no other arrangement is left.
      "left out": the reason, where no other arrangement exists and none was asked for. None where
      there is nothing to test: turned off, a sweep, or an experiment without this classifier.

    Raises:
      InputError: fewer different arrangements than `config.permutations` asks for.
    """
    if not applies(experiment, config, arm):
        return None
    arm, folds = tested(experiment, config, view, arm, made)
    found = design(config, view, arm)
    labels = arrangements(config, view, arm, found, folds)
    if not labels:
        return {LEFT_OUT: f"{found.scheme}: {len(found.label)} blocks have no other order"}
    ask = (experiment, config, view, arm)
    if config.permute == NETWORK:
        observed, null = refits.network(*ask, folds, labels, tick, store)
    else:
        observed, null = refits.classical(*ask, made, labels, tick, store)
    if observed is None:
        return None
    return {
        "arm": arm.name,
        "classifier": config.permute,
        "p": p_value(observed, null),
        "observed": observed,
        "null": null.tolist(),
        "scheme": found.scheme,
        "blocks": len(found.label),
        "least_p": 1 / (1 + len(null)),
        "all": len(null) < asked(config),
    }


def p_value(observed: float, null: Float[np.ndarray, " p"]) -> float:
    """Returns (1 + number of permutations that reach the observed score) / (1 + their number)."""
    return (1 + int((null >= observed - ROUNDING).sum())) / (1 + len(null))


def applies(experiment: Experiment, config: Any, arm: Arm) -> bool:
    """Returns whether the headline of this run is tested.

    Raises:
      InputError: `config.permute` is no classifier.
    """
    if not config.get("permutations", 0) or arm.factor is not None:
        return False
    if config.permute == NETWORK:
        return experiment.program is not None
    return baselines.available(config.permute)


def tested(
    experiment: Experiment, config: Any, view: Any, arm: Arm, made: Sequence[FoldData]
) -> tuple[Arm, list[Fold]]:
    """Returns arm and folds that are permuted: the headline's, but of a network its own.

    A headline that is about a classical classifier may have folds in which nobody is monitored.

    Raises:
      InputError: no network is trained.
    """
    if config.permute != NETWORK:
        return arm, [data.fold for data in made]
    assert experiment.arms is not None and experiment.folds is not None
    if arm.decoder:
        every = experiment.arms(config, getattr(view, "cohort", view))
        networks = [a for a in every if not (a.decoder or a.on_noise or a.leaks)]
        if not networks:
            raise InputError("permute", repr(NETWORK), "a run that trains a network, or logistic")
        arm = networks[0]
    return dataclasses.replace(arm, baselines=()), list(experiment.folds(config, view, arm))


def design(config: Any, view: Any, arm: Arm) -> Exchange:
    """Finds what may be exchanged: blocks where rows have times, or are matched as if they had."""
    cohort = getattr(view, "cohort", view)
    timed = all(run.tr is not None or run.starts is not None for run in cohort.runs)
    if arm.regime and REGIMES[arm.regime].needs_template:
        timed = timed or config.align.match == "time"
    return exchange.design(cohort, timed)


def asked(config: Any) -> int:
    """Returns how many permutations are wanted."""
    return MOST if config.permutations < 0 else config.permutations


def arrangements(
    config: Any, view: Any, arm: Arm, found: Exchange, folds: Sequence[Fold]
) -> list[Int[np.ndarray, " n"]]:
    """Draws different arrangements of the labels, none of them the true one.

    Folds keep their rows. An arrangement after which a fold or a unit lacks a class that it has now
    is drawn again, as the true one could not have been it.

    Raises:
      InputError: there are fewer than `config.permutations`; below 0 there may be any number.
    """
    cohort = getattr(view, "cohort", view)
    units = getattr(view, "units", cohort.subject)
    parts = [rows for fold in folds for rows in (fold.train, fold.monitor) if len(rows)]
    parts += [np.flatnonzero(units == name) for name in np.unique(units)]
    before = [np.unique(cohort.labels[rows]) for rows in parts]

    def fits_in(labels):
        pairs = zip(parts, before, strict=True)
        return all(np.isin(classes, labels[rows]).all() for rows, classes in pairs)

    key = jax.random.fold_in(jax.random.key(config.seed), KEY)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    count, possible = asked(config), found.arrangements - 1
    if config.permutations < 0:
        count = min(count, possible)
    elif possible < count:
        raise _too_few(count, possible, found)
    out = found.different(rng, cohort.labels, count, fits_in)
    if len(out) < config.permutations:
        raise _too_few(count, len(out), found)
    return out


def _too_few(count: int, possible: int, found: Exchange) -> InputError:
    what = f"{count}, but {found.scheme}: {len(found.label)} blocks have {possible} other orders"
    expected = "0: no test"
    if possible:
        least = 1 / (1 + possible)
        expected = f"at most {possible}, for p of {least:.2g} or more (0: no test; -1: all)"
    return InputError("permutations", what, f"{expected}: --config.permutations={possible}")
