"""The choice between bag and network: by inner folds that never see who is scored.

For every test subject the study is looked at as if this subject were not there. Inner folds of what
is left train both decoders as the outer ones are trained, with their own monitored subjects, and
score them on a subject that neither trained them nor chose an epoch, a penalty or a temperature.
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
LEAST = 5  # one is scored, and four are left to inner folds


class Choice(NamedTuple):
    """The better decoder of inner folds, and the balanced accuracy of both."""

    chosen: str
    inner: dict[str, float]


def check(view: Any) -> None:
    """Refuses a study of which inner folds leave too little, before anything is trained.

    Raises:
      InputError: fewer than five subjects (or runs).
    """
    units = np.unique(getattr(view, "units", view.subject))
    if len(units) < LEAST:
        expected = f"{LEAST} to choose between bag and network (--config.headline=bag)"
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
      config: with `inner`, the number of inner folds of each choice; 0 is all.
      view: what ledgers read.
      plan: of the networks.
      bag: the arm of the bag.
      network: the arm of the network.
      made: outer folds, whose test rows stay unseen.
      store: of finished inner trainings, and of the choices where several processes divide them.
      tick: called with 1 for every outer fold.

    Returns:
      Of each outer fold the decoder with the better mean balanced accuracy over its inner folds;
      the bag where they are equal.
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
    """Returns the better of the two; the bag where they are equal."""
    inner = {name: float(scored[name]) for name in (bag, NETWORK)}
    return Choice(NETWORK if inner[NETWORK] > inner[bag] else bag, inner)


def _inner(experiment: Experiment, config, view, plan, arm: Arm, store) -> float:
    """Returns the mean balanced accuracy of an arm over inner folds."""
    assert experiment.folds is not None and experiment.features is not None
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
    """Enters the predictions of the chosen decoders beside those of the bag.

    Args:
      choices: of each outer fold.
      bag: the arm of the bag.
      network: the arm of the network.
      made: arm -> its folds.
      outcomes: arm -> fold -> outcome of each network.
      classical: (arm, fold) -> name -> predictions; they are added under `AUTO`.
      temper: whether a network's probabilities get their temperature.
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
    """Returns a network's probabilities of the test rows, with its temperature."""
    p = np.asarray(outcome[pick])
    if temper and "monitored_rows" in outcome:  # else its members have theirs
        labels, monitored = data.labels[outcome["monitored_rows"]], outcome[f"monitored_{pick}"]
        p = scores.with_temperature(p, scores.fit_temperature(labels, np.asarray(monitored)))
    return Fitted(p.argmax(1).astype(np.int32), p, True, None)
