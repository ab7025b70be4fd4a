"""Questions that are asked of the headline beside its score: each has a key that turns it off."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import joblib

from emojax import stops
from emojax.experiments import crossed, permutation
from emojax.experiments.base import Experiment
from emojax.records import Arm, FoldData
from emojax.report.console import duration

ANALYSES: Mapping[str, tuple[str, str]] = {  # key of metrics.json -> module, key of the config
    "design": ("emojax.experiments.design", "design"),
    "within_subject": ("emojax.experiments.within_subject", "within_subject"),
    "crossed": ("emojax.experiments.crossed", "crossed"),
    "floor": ("emojax.experiments.floors", "null_floor"),
    "permutation": ("emojax.experiments.permutation", "permutations"),
}


def check_columns(config: Any, cohort: Any) -> None:
    """Refuses columns of the design that are not there.

    Raises:
      InputError: names the column.
    """
    if config.get("crossed"):
        crossed.check(config, cohort)


def check(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    seconds: float = 0.0,
) -> str:
    """Refuses before the training what cannot be answered after it; returns what it will cost.

    Args:
      experiment: see `base.Experiment`.
      config: its configuration.
      view: what ledgers read.
      arm: the headline.
      made: its folds.
      seconds: s that their features took; 0: no time is named.

    Returns:
      A line for the plan of a run; "" without analyses.

    Raises:
      InputError: fewer arrangements of the labels than are asked for.
    """
    names = [name for name, (_, key) in ANALYSES.items() if config.get(key)]
    if not permutation.applies(experiment, config, arm):
        names = [name for name in names if name != "permutation"]
        return f"analyses: {', '.join(names)}" if names else ""
    arm, folds = permutation.tested(experiment, config, view, arm, made)
    found = permutation.design(config, view, arm)
    count = len(permutation.arrangements(config, view, arm, found, folds))
    text = f"analyses: {', '.join(names)}; {count} permutations through the pipeline"
    if config.permute == permutation.NETWORK:
        return f"{text}, each as long as all trainings of {arm.name}"
    cores = min(joblib.cpu_count(), count) or 1
    return text + (f": up to {duration(count * seconds / cores)}" if seconds else "")


def run(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    bar: Callable[[str, int], AbstractContextManager],
) -> dict[str, Any]:
    """Returns what every analysis that is asked for has found: name -> plain data.

    Args:
      experiment: see `base.Experiment`.
      config: its configuration.
      view: what ledgers read.
      arm: the headline.
      made: its folds.
      bar: (name of an analysis, number of its steps) -> a context that yields tick(number done).
    """
    found = {}
    for name, (module, key) in ANALYSES.items():
        if not config.get(key):
            continue
        steps = permutation.asked(config) if name == "permutation" else len(made)
        steps = config.noise.draws if name == "floor" else steps
        with bar(name, steps) as tick:
            analyse = importlib.import_module(module).analyse
            found[name] = analyse(experiment, config, view, arm, made, tick)
        stops.check()
    return {name: value for name, value in found.items() if value is not None}
