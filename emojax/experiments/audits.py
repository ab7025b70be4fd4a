"""The audit of a run: some folds of every arm are made again from perturbed data."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emojax import audit
from emojax.errors import InputError
from emojax.experiments import fits, stand_ins
from emojax.experiments.base import Experiment
from emojax.provenance import LeakageError, Ledger
from emojax.records import Arm, FoldData
from emojax.training import epoch
from emojax.training.feeds import Streamed

Sources = Mapping[int | None, tuple[Any, Any]]


def audit_arms(
    experiment: Experiment,
    config: Any,
    sources: Sources,
    arms: Sequence[Arm],
    made: Mapping[str, Sequence[FoldData]],
    plan: fits.Plan | None,
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Audits two folds of every trained arm: the first, and one that depends on the seed.

    Different arms draw different second folds where there are enough folds.

    Args:
      experiment: see `Experiment`.
      config: config of the run.
      sources: noise draw (None: measured values) -> (cohort, its view).
      arms: the arms.
      made: arm -> data of each fold. Their ledgers are closed.
      plan: training settings of the networks; None without networks.
      tick: called with 1 for every audited fold.

    Returns:
      Plain data for metrics.json: arm -> audited folds, perturbations, and which steps moved.

    Raises:
      LeakageError: a result moved that the provenance record does not explain, or the audit did not
        catch a leaky arm at the steps that it names.
    """
    for arm in arms:
        _check_steps(arm, made[arm.name])
    trained = [pair for arm in arms for pair in fits.trainings(arm, made[arm.name])]
    if plan is not None:
        _check_predictions(plan, trained[0][1])
    found: dict[str, list[audit.Audited]] = {arm.name: [] for arm in arms}
    todo = [(0, arm) for arm in arms] + _second(config.seed, arms, made)
    cache = _Cache()
    for number, arm in sorted(todo, key=lambda pair: (pair[0], pair[1].on_noise, pair[1].draw)):
        cache.clear_unless((number, arm.source))  # perturbed cohorts of one fold at a time
        one = _one(
            experiment, config, sources, arms, arm, number, made[arm.name][number], plan, cache
        )
        found[arm.name].append(one)
        tick(1)
    return {"measured": True, "arms": {arm.name: _plain(arm, found[arm.name]) for arm in arms}}


def _second(seed: int, arms: Sequence[Arm], made) -> list[tuple[int, Arm]]:
    """Returns (number, arm) of each arm's second audited fold."""
    rng, orders, out = np.random.default_rng(seed), {}, []
    for arm in arms:
        count = len(made[arm.name])
        if count > 1:
            if count not in orders:
                orders[count] = itertools.cycle((1 + rng.permutation(count - 1)).tolist())
            out.append((next(orders[count]), arm))
    return out


class _Cache(dict):
    """Perturbed cohorts and their views."""

    place = None

    def clear_unless(self, place):
        """Empties the cache if the place has changed."""
        if place != self.place:
            self.clear()
            self.place = place

    def get_or_make(self, key, make):
        """Returns the cached value of a key, or makes it."""
        if key not in self:
            self[key] = make()
        return self[key]


def _one(experiment, config, sources, arms, arm: Arm, number: int, before: FoldData, plan, cache):
    cohort, view = sources[arm.source]

    def view_of(perturbed):
        if perturbed is cohort:
            return view
        key = "view", id(perturbed)
        return cache.get_or_make(key, lambda: experiment.view(config, perturbed, like=view))

    def make(perturbed):
        ledger = Ledger(view_of(perturbed))
        again = experiment.features(config, ledger, before.fold, arm, number)
        ledger.close()
        return again

    def perturb():
        masks = getattr(view, "other_mask", lambda test, seed: None)(before.fold.test, config.seed)
        together = (audit.SOME_VALUES if number else audit.ALL_VALUES,)
        seed = config.seed, number
        return audit.perturb(cohort, before, seed=seed, masks=masks, together=together)

    before.ledger.close()
    assert before.unit is not None  # set by the skeleton
    scopes = [rows.tobytes() for rows, _ in before.ledger.seen(before.fold.test)]
    place = "changes", before.fold.test.tobytes(), before.unit.tobytes(), *scopes
    changes = cache.get_or_make(place, perturb)
    _check_design(experiment, config, view_of, arms, arm, number, before, changes)
    small = stand_ins.stand_in(experiment, config, arm, plan, len(cohort.classes))
    found = audit.audit(make, before, changes, stand_in=small, name=arm.name)
    _check_leaks(arm, before, changes)
    return found


def _check_predictions(plan: fits.Plan, data: FoldData) -> None:
    """Checks with an untrained network that predictions do not depend on the rest of a batch.

    Raises:
      LeakageError: they do.
    """
    rows = data.fold.train[: plan.program.batch_size]
    feed = Streamed(data.read, data.labels, rows, np.float32, plan.program.mesh)
    state = epoch.begin(plan.program, data.keys[0], feed.example).state
    alone, together = (
        epoch.predict(plan.program, feed, some, state.params, state.batch_stats)[0]
        for some in (rows[:1], rows)
    )
    if not np.array_equal(alone, together):
        raise LeakageError(
            "step 'scoring' depends on what it is scored with: other volumes of a batch were "
            "replaced, and the network's probabilities of a volume moved"
        )


def _check_steps(arm: Arm, made: Sequence[FoldData]) -> None:
    """Rejects a fold in which a step reads nothing although it reads in another fold.

    Raises:
      LeakageError: names step and fold.
    """
    steps = {}
    for data in made:
        seen = data.ledger.seen(data.fold.test, prior=False)
        steps[data.fold.name] = {step for _, record in seen for step in record.steps}
    every = sorted(set().union(*steps.values()))
    for fold, own in steps.items():
        if missing := [step for step in every if step not in own]:
            raise LeakageError(
                f"{arm.name}: step {missing[0]!r} read nothing in fold {fold}, unlike in others: a "
                "fit that is kept from another fold has seen the scored volumes"
            )


def _check_design(experiment, config, view_of, arms, arm, number, before, changes) -> None:
    """Rejects folds or arms that depend on scored values.

    Splits may depend on labels, e.g. to have all classes in each part.

    Raises:
      LeakageError: names "folds" or "arms".
    """

    def fold_of(cohort):
        folds = experiment.folds(config, view_of(cohort), arm)
        return folds[number][1:] if number < len(folds) else ()

    def arms_of(cohort):
        return [a for a in experiment.arms(config, cohort) if not a.shares]

    makers = [("folds", fold_of, before.fold[1:])]
    if arm is arms[0] and not arm.on_noise:
        makers.append(("arms", arms_of, list(arms)))
    for step, make, mine in makers:
        for names in changes.rounds:
            values = tuple(name for name in names if name not in (audit.LABELS, audit.ALL_LABELS))
            tried = (changes.of(names).cohort, changes.of(values).cohort)
            if any(_same(make, mine, cohort) for cohort in tried):
                continue
            if not _same(make, mine, changes.cohort):
                continue  # it differs on every call, whatever the data
            said = " and ".join(values)
            raise LeakageError(
                f"{arm.name}: step {step!r} depends on what it is scored on: {said} (fold "
                f"{before.fold.name}), and they moved"
            )


def _same(make, mine, cohort) -> bool:
    try:
        again = make(cohort)
    except InputError:  # e.g. labels that a split cannot use
        return False
    if mine and isinstance(mine[0], Arm):
        return again == mine
    return len(again) == len(mine) and all(map(np.array_equal, again, mine))


def _check_leaks(arm: Arm, before: FoldData, changes: audit.Changes) -> None:
    """Rejects a leaky arm whose named step has not read any scored volume.

    Raises:
      LeakageError: names the step.
    """
    for step in arm.leaks:
        if not audit.read_by(before.ledger.reads, step, changes.all):
            raise LeakageError(
                f"{arm.name} is declared leaky at step {step!r}, but in fold {before.fold.name} it "
                "has not read any scored volume"
            )


def _plain(arm: Arm, found: Sequence[audit.Audited]) -> dict[str, Any]:
    moved = list(dict.fromkeys(step for one in found for step in one.moved))
    if missed := [step for step in arm.leaks if step not in moved]:
        raise LeakageError(
            f"{arm.name} is declared leaky at step {missed[0]!r}, but the audit found that nothing "
            "moves there when scored volumes are changed"
        )
    return {
        "folds": [one.fold for one in found],
        "perturbations": list(dict.fromkeys(p for one in found for p in one.perturbations)),
        "compared": sum(one.compared for one in found),
        "moved": moved,
        "expected": list(arm.leaks),
    }
