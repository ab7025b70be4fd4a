"""Questions that are asked of the headline beside its score: each has a key that turns it off."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import joblib
import numpy as np

from emojax import stops
from emojax.experiments import crossed, permutation, saliencies, searchlight_rows
from emojax.experiments.base import Experiment
from emojax.files import split_list
from emojax.records import Arm, FoldData
from emojax.report.console import duration

ANALYSES: Mapping[str, tuple[str, str]] = {  # key of metrics.json -> module, key of the config
    "design": ("emojax.experiments.design", "design"),
    "within_subject": ("emojax.experiments.within_subject", "within_subject"),
    "crossed": ("emojax.experiments.crossed", "crossed"),
    "floor": ("emojax.experiments.floors", "null_floor"),
    "permutation": ("emojax.experiments.permutation", "permutations"),
    "alignments": ("emojax.experiments.alignments", "alignments"),
    "maps": ("emojax.experiments.patterns", "maps"),
    "searchlight": ("emojax.experiments.searchlights", "searchlight.radius_mm"),
}
PERCENT = 100  # ticks of an analysis that counts neither folds nor draws


def check_columns(config: Any, cohort: Any) -> None:
    """Refuses columns of the design that are not there.

    Raises:
      InputError: names the column.
    """
    if config.get("crossed"):
        crossed.check(config, cohort)
    if config.get("searchlight"):
        searchlight_rows.check(config, cohort)


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
    names = [name for name, (_, key) in ANALYSES.items() if _asked(config, key)]
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


def _steps(name: str, config: Any, folds: int) -> int:
    """Returns how often an analysis ticks, where the folds do not say it."""
    if name == "alignments":
        rows, draws = len(split_list(config.alignments)), config.noise.draws * config.null_floor
        return rows * permutation.asked(config) + draws
    counts = {"permutation": permutation.asked(config), "floor": config.noise.draws}
    return (counts | {"searchlight": PERCENT}).get(name, folds)


def _asked(config: Any, key: str) -> Any:
    """Returns the value of a key such as "searchlight.radius_mm"; None where it is not there."""
    for part in key.split("."):
        config = None if config is None else config.get(part)
    return config


def run(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    bar: Callable[[str, int], AbstractContextManager],
    load: Callable[[str], Any] = saliencies.nothing,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what every analysis that is asked for has found: name -> plain data, and its maps.

    Args:
      experiment: see `base.Experiment`.
      config: its configuration.
      view: what ledgers read.
      arm: the headline.
      made: its folds.
      bar: (name of an analysis, number of its steps) -> a context that yields tick(number done).
      load: name of a kept network -> its parameters, or None; see `Workdir.load_model`.

    Returns:
      Name of an analysis -> plain data, and name of a NIfTI file -> its values [X, Y, Z]; analyses
      return the latter as their "volumes".
    """
    found, volumes = {}, {}
    for name, (module, key) in ANALYSES.items():
        if not _asked(config, key):
            continue
        with bar(name, _steps(name, config, len(made))) as tick:
            analyse = importlib.import_module(module).analyse
            more = {"load": load} if name == "maps" else {}
            answer = analyse(experiment, config, view, arm, made, tick, **more)
        if answer is not None:
            volumes |= answer.pop("volumes", {})
            found[name] = answer
        stops.check()
    return found, volumes
