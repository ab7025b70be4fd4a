"""The choice between bag and network, on inner folds that never see the test subject.

For every test subject, that subject is removed from the study. Inner folds of the remaining
subjects train both decoders like the outer folds, with their own monitored subjects, and score them
on a subject that neither trained them nor chose an epoch, a penalty or a temperature.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from emojax.cluster import pieces
from emojax.errors import InputError
from emojax.experiments import fits, held_out
from emojax.experiments.base import Experiment
from emojax.experiments.refits import balanced
from emojax.provenance import Ledger, classify
from emojax.records import Arm, FoldData
from emojax.scoring import scores
from emojax.scoring.baselines import Fitted

AUTO, NETWORK = "auto", "network"
LEAST = 5  # one subject is scored, which leaves four for inner folds


class Choice(NamedTuple):
    """The better decoder on inner folds, and the balanced accuracy of both."""

    chosen: str
    inner: dict[str, float]


def check(view: Any) -> None:
    """Rejects a study that is too small for inner folds, before anything is trained.

    Raises:
      InputError: fewer than five subjects (or runs).
    """
    units = np.unique(getattr(view, "units", view.subject))
    if len(units) < LEAST:
        expected = f"at least {LEAST} to choose between bag and network (or --config.headline=bag)"
        raise InputError("subjects or runs", f"{len(units)}", expected)


def choose(
    experiment: Experiment,
    config: Any,
    view: Any,
    plan: fits.Plan,
    bag: Arm,
    network: Arm,
    made: Sequence[FoldData],
    store: Any,
    tick: Callable[[int], Any] = lambda done: None,
) -> list[Choice]:
    """Chooses a decoder for every fold.

    Args:
      experiment: see `base.Experiment`.
      config: config with `inner`, the number of inner folds of each choice (0: all).
      view: the data that ledgers read.
      plan: training settings of the networks.
      bag: the arm of the bag.
      network: the arm of the network.
      made: outer folds, whose test rows stay unseen.
      store: store of finished inner training runs, and of choices that several processes share.
      tick: called with 1 for every outer fold.

    Returns:
      For each outer fold, the decoder with the higher mean balanced accuracy over inner folds; the
      bag in a tie.
    """
    numbers = {f"choice {i}": i for i in range(len(made))}

    def compute(titles):
        for title in titles:
            data = made[numbers[title]]
            rows = np.setdiff1d(np.arange(len(view.labels)), data.fold.test)
            inner, scored = held_out.part(view, rows), {}
            for arm in (bag, network):
                name = f"auto {data.fold.name} {arm.name}"
                names = (bag.decoder,) * bool(arm.decoder)
                own = dataclasses.replace(arm, name=name, baselines=names)
                value = _inner(experiment, config, inner, plan, own, store)
                scored[arm.decoder or NETWORK] = np.float64(value)
            yield title, scored
            tick(1)

    found = pieces.each(store, list(numbers), compute, wait=not store.serves)
    return [_better(found[title], bag.decoder) for title in numbers if title in found]


def _better(scored: Mapping[str, np.ndarray], bag: str) -> Choice:
    """Returns the better of the two; the bag in a tie."""
    inner = {name: float(scored[name]) for name in (bag, NETWORK)}
    return Choice(NETWORK if inner[NETWORK] > inner[bag] else bag, inner)


def _inner(experiment: Experiment, config, view, plan, arm: Arm, store) -> float:
    """Returns the mean balanced accuracy of an arm over inner folds."""
    folds = list(experiment.folds(config, view, arm))[: config.inner or None]
    made = []
    for i, fold in enumerate(folds):
        ledger = Ledger(view)
        made.append(experiment.features(config, ledger, fold, arm, i))
        ledger.close()
        seen = ledger.seen(fold.test, prior=False)
        classify(seen, subject=view.subject, claimed=arm.protocol, name=f"{arm.name} {fold.name}")
    if arm.decoder:
        done = fits.fit_classifiers(experiment, config, [(arm, i, d) for i, d in enumerate(made)])
        predicted = [done[arm.name, i][arm.decoder].predicted for i in range(len(made))]
    else:
        networks = fits.fit_networks(
            plan, arm, fits.trainings(arm, made), store=store, log=lambda *epoch: None
        )
        outcomes = fits.joined(arm, made, networks, config.temperature)
        predicted = [outcomes[i][0][arm.pick].argmax(1) for i in range(len(made))]
    return balanced(view, folds, predicted)


def enter(
    choices: Sequence[Choice],
    bag: Arm,
    network: Arm,
    made: Mapping[str, Sequence[FoldData]],
    outcomes: Mapping[str, Mapping[int, Sequence[Mapping[str, np.ndarray]]]],
    classical: dict[tuple[str, int], dict[str, Fitted]],
    temper: bool = True,
) -> None:
    """Adds the predictions of the chosen decoders to `classical`, under the name `AUTO`.

    Args:
      choices: choice of each outer fold.
      bag: the arm of the bag.
      network: the arm of the network.
      made: arm -> its folds; the choice is added to the notes of the bag's folds.
      outcomes: arm -> fold -> outcome of each network.
      classical: (arm, fold) -> name -> predictions; changed in place.
      temper: whether to calibrate a network's probabilities with a temperature.
    """
    for i, choice in enumerate(choices):
        fitted = classical[bag.name, i]
        fitted[AUTO] = fitted[bag.decoder]
        if choice.chosen == NETWORK:
            outcome = outcomes[network.name][i][0]
            fitted[AUTO] = _as_fitted(made[network.name][i], outcome, network.pick, temper)
        notes = made[bag.name][i].notes
        assert isinstance(notes, dict)
        notes["chosen"] = choice._asdict()


def _as_fitted(
    data: FoldData, outcome: Mapping[str, np.ndarray], pick: str, temper: bool
) -> Fitted:
    """Returns a network's predictions of the test rows, calibrated with a temperature."""
    p = np.asarray(outcome[pick])
    if temper and "monitored_rows" in outcome:  # otherwise each member is already calibrated
        labels, monitored = data.labels[outcome["monitored_rows"]], outcome[f"monitored_{pick}"]
        p = scores.with_temperature(p, scores.fit_temperature(labels, np.asarray(monitored)))
    return Fitted(p.argmax(1).astype(np.int32), p, True, None)
