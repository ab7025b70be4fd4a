"""Additional analyses of the headline; each has a config key that turns it off."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import joblib
import numpy as np

from emojax import stops
from emojax.cluster import pieces
from emojax.experiments import crossed, permutation, refits, saliencies, searchlight_rows
from emojax.experiments.base import Experiment
from emojax.files import split_list
from emojax.records import Arm, FoldData
from emojax.report.console import duration
from emojax.report.plain import plain

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
DIVIDED = "permutation"  # the analysis that several processes share piece by piece
NETWORKS = "maps"  # the analysis that loads kept networks
PERCENT = 100  # ticks of an analysis that counts neither folds nor draws


def check_columns(config: Any, cohort: Any) -> None:
    """Rejects design columns that do not exist.

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
    """Rejects impossible analyses before training, and returns a line with their cost.

    Args:
      experiment: see `base.Experiment`.
      config: its configuration.
      view: the data that ledgers read.
      arm: the headline.
      made: folds of the headline.
      seconds: time in seconds that their features took; 0: no time is given.

    Returns:
      A line for the plan of a run; "" without analyses.

    Raises:
      InputError: fewer arrangements of the labels exist than are requested.
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
    """Returns the number of ticks of an analysis; by default, one for each fold."""
    if name == "alignments":
        rows, draws = len(split_list(config.alignments)), config.noise.draws * config.null_floor
        return rows * permutation.asked(config) + draws
    counts = {"permutation": permutation.asked(config), "floor": config.noise.draws}
    return (counts | {"searchlight": PERCENT}).get(name, folds)


def _asked(config: Any, key: str) -> Any:
    """Returns the value of a key such as "searchlight.radius_mm", or None if it is missing."""
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
    store: pieces.Store = refits.ALONE,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Runs every requested analysis.

    Args:
      experiment: see `base.Experiment`.
      config: its configuration.
      view: the data that ledgers read.
      arm: the headline.
      made: folds of the headline.
      bar: (name of an analysis, number of its steps) -> a context that yields tick(number done).
      load: name of a kept network -> its parameters, or None; see `Workdir.load_model`.
      store: keeper of claims and results, through which several processes share the analyses and
        the arrangements of the permutation test.

    Returns:
      Name of an analysis -> plain data, and name of a NIfTI file -> its values [X, Y, Z]. An
      analysis returns its maps under "volumes".
    """
    names = [name for name, (_, key) in ANALYSES.items() if _asked(config, key)]

    def answer(name, **more):
        with bar(name, _steps(name, config, len(made))) as tick:
            analyse = importlib.import_module(ANALYSES[name][0]).analyse
            more |= {"load": load} if name == NETWORKS else {}
            return analyse(experiment, config, view, arm, made, tick, **more)

    whole = [name for name in names if name != DIVIDED]
    if store.serves:
        whole = [name for name in whole if name != NETWORKS]  # others may still be training
    found = _divided(whole, answer, store)
    if DIVIDED in names:
        found[DIVIDED] = answer(DIVIDED, store=store)
        stops.check()
    if not store.serves and store.members > 1:
        left = [name for name in names if name not in found]
        found |= _divided(left, answer, store, wait=True)
    found = {name: found[name] for name in names if found.get(name) is not None}
    volumes = {}
    for own in found.values():
        volumes |= own.pop("volumes", {})
    return found, volumes


def _divided(names, answer, store: pieces.Store, wait: bool = False) -> dict[str, Any]:
    """Returns the results of whole analyses, which several processes share.

    With several processes they are converted to plain data as in metrics.json, so that they do not
    depend on which process computed them.
    """
    if store.members == 1:
        found = {}
        for name in names:
            found[name] = answer(name)
            stops.check()
        return found

    def compute(titles):
        for title in titles:
            found = answer(title.partition(" ")[2])
            volumes = None if found is None else found.pop("volumes", {})
            text = np.array(json.dumps(plain(found)))
            yield title, {"answer": text} | {f"volume {k}": v for k, v in (volumes or {}).items()}
            stops.check()

    out = {}
    titles = [f"analysis {name}" for name in names]
    for title, arrays in pieces.each(store, titles, compute, wait=wait).items():
        found = json.loads(str(arrays["answer"]))
        parts = {k.partition(" ")[2]: v for k, v in arrays.items() if k.startswith("volume ")}
        out[title.partition(" ")[2]] = found if found is None else found | {"volumes": parts}
    return out
