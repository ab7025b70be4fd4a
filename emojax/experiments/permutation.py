"""Permutation test of the headline: its whole pipeline on exchanged labels.

Values never change. Voxels, alignment, rows and classifier are fitted again for every arrangement
of the labels (Ojala and Garriga, 2010), and scored against that arrangement. The statistic is the
mean over folds of balanced accuracy; p = (1 + number of arrangements that reach it) / (1 + number).
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
LEFT_OUT = "left out"  # replaces the test
KEY = 14  # for `jax.random.fold_in`; no other step of a run uses this number
MOST = 99  # default number of permutations
ROUNDING = 1e-6  # rounding error of a mean of float32 accuracies


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
    store: pieces.Store = refits.ALONE,
) -> dict[str, Any] | None:
    """Tests the headline against chance by exchanging labels in its folds.

    With `config.permute` "network", every arrangement costs as much as all training runs of the
    headline, so the test takes `config.permutations` times the whole run. It is meant for small
    studies.

    Args:
      experiment: see `base.Experiment`.
      config: config with `permutations` (0 turns this off; -1: 99, or all if there are fewer),
        `permute` and `seed`.
      view: the data that ledgers read.
      arm: the headline.
      made: folds of the headline, whose rows are kept.
      tick: called with 1 for every arrangement.
      store: keeper of claims and results, through which several processes share the arrangements.

    Returns:
      "arm", "classifier", "p", "observed", "null" (one value per arrangement), "scheme" (what is
      exchanged), "blocks" (their number), "least_p", and "all": whether every arrangement was used.
      "left out", the reason, if no other arrangement exists and no number was requested. None if
      there is nothing to test: turned off, a sweep, or an experiment without this classifier.

    Raises:
      InputError: fewer distinct arrangements exist than `config.permutations` requests.
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
      InputError: `config.permute` is not a classifier.
    """
    if not config.get("permutations", 0) or arm.factor is not None:
        return False
    if config.permute == NETWORK:
        return experiment.program is not None
    return baselines.available(config.permute)


def tested(
    experiment: Experiment, config: Any, view: Any, arm: Arm, made: Sequence[FoldData]
) -> tuple[Arm, list[Fold]]:
    """Returns the arm and folds that are permuted: the headline's, or for a network its own.

    The folds of a classical headline may have no monitored subject, which a network needs.

    Raises:
      InputError: no network is trained.
    """
    if config.permute != NETWORK:
        return arm, [data.fold for data in made]

    if arm.decoder:
        every = experiment.arms(config, getattr(view, "cohort", view))
        networks = [a for a in every if not (a.decoder or a.on_noise or a.leaks)]
        if not networks:
            raise InputError("permute", repr(NETWORK), "a run that trains a network, or logistic")
        arm = networks[0]
    return dataclasses.replace(arm, baselines=()), list(experiment.folds(config, view, arm))


def design(config: Any, view: Any, arm: Arm) -> Exchange:
    """Returns the exchange of labels: in blocks if rows have times or are matched by time."""
    cohort = getattr(view, "cohort", view)
    timed = all(run.tr is not None or run.starts is not None for run in cohort.runs)
    if arm.regime and REGIMES[arm.regime].needs_template:
        timed = timed or config.align.match == "time"
    return exchange.design(cohort, timed)


def asked(config: Any) -> int:
    """Returns the requested number of permutations."""
    return MOST if config.permutations < 0 else config.permutations


def arrangements(
    config: Any, view: Any, arm: Arm, found: Exchange, folds: Sequence[Fold]
) -> list[Int[np.ndarray, " n"]]:
    """Draws distinct arrangements of the labels, excluding the true one.

    Folds keep their rows. An arrangement is rejected if a fold or a unit would lose a class that it
    has, because no study with such labels could have been run.

    Raises:
      InputError: fewer exist than `config.permutations` (unless it is negative).
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
