"""The audit of a run: some folds of every arm, perturbed and made again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from emojax import audit
from emojax.experiments import fits
from emojax.experiments.base import Experiment
from emojax.provenance import LeakageError, Ledger
from emojax.records import Arm, FoldData


def audit_arms(
    experiment: Experiment,
    config: Any,
    sources: Mapping[bool, tuple[Any, Any]],
    arms: Sequence[Arm],
    made: Mapping[str, Sequence[FoldData]],
    plan: fits.Plan | None,
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Audits the first fold and one more, drawn by the seed, of every arm that is trained.

    Args:
      experiment: see `Experiment`.
      config: of the run.
      sources: on noise or not -> (cohort, its view).
      arms: the arms.
      made: arm -> data of each fold.
      plan: of the networks; None where there are none.
      tick: called with 1 for every audited fold.

    Returns:
      Plain data for metrics.json: arm -> audited folds, perturbations, what moved.

    Raises:
      LeakageError: something moved that its record does not explain, or a leaky arm was not caught
        at the steps that it names.
    """
    found: dict[str, list[audit.Audited]] = {arm.name: [] for arm in arms}
    cache: dict[Any, Any] = {}
    rng = np.random.default_rng(config.seed)
    second = {arm.name: int(rng.integers(1, max(2, len(made[arm.name])))) for arm in arms}
    for first in (True, False):
        for on_noise in sources:
            cache.clear()  # perturbed cohorts of one fold at a time
            for arm in arms:
                number = 0 if first else second[arm.name]
                if arm.on_noise == on_noise and number < len(made[arm.name]):
                    before = made[arm.name][number]
                    found[arm.name].append(
                        _one(experiment, config, sources, arm, number, before, plan, cache)
                    )
                    tick(1)
    return {"measured": True, "arms": {arm.name: _plain(arm, found[arm.name]) for arm in arms}}


def _one(experiment, config, sources, arm: Arm, number: int, before: FoldData, plan, cache):
    cohort, view = sources[arm.on_noise]
    seed = (config.seed, number)

    def cached(key, make):
        if key not in cache:
            cache[key] = make()
        return cache[key]

    def make(perturbed):
        own = cached(("view", id(perturbed)), lambda: experiment.view(config, perturbed, like=view))
        return experiment.features(config, Ledger(own), before.fold, arm, number)

    masks = getattr(view, "other_mask", lambda test, seed: None)(before.fold.test, config.seed)
    place = before.fold.test.tobytes(), before.unit.tobytes()
    changes = cached(
        ("changes", place), lambda: audit.perturb(cohort, before, seed=seed, masks=masks)
    )
    small = fits.stand_in(experiment, config, arm, plan, len(cohort.classes))
    return audit.audit(make, before, changes, stand_in=small, name=arm.name)


def _plain(arm: Arm, found: Sequence[audit.Audited]) -> dict[str, Any]:
    moved = list(dict.fromkeys(step for one in found for step in one.moved))
    if missed := [step for step in arm.leaks if step not in moved]:
        raise LeakageError(
            f"{arm.name} is leaky by name at step {missed[0]!r}, but the audit found that nothing "
            "moves there when what is scored is changed"
        )
    return {
        "folds": [one.fold for one in found],
        "perturbations": list(dict.fromkeys(p for one in found for p in one.perturbations)),
        "compared": sum(one.compared for one in found),
        "moved": moved,
        "expected": list(arm.leaks),
    }
