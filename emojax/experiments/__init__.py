"""The experiments, by name; `run` takes any of them from a config to its report."""

from __future__ import annotations

import os
from typing import Any

from emojax.registry import Registry

EXPERIMENTS = Registry(
    "experiment",
    {
        "A": "emojax.experiments.experiment_a:EXPERIMENT",
        "B": "emojax.experiments.experiment_b:EXPERIMENT",
    },
)

__all__ = ["EXPERIMENTS", "Experiment", "run"]


def run(
    config: Any,
    workdir: str | os.PathLike,
    cohort: Any = None,
    *,
    command: str = "",
    until: str = "report",
    restart: bool = False,
    members: int = 1,
):
    """Runs the experiment that a config names.

    Args:
      config: a ConfigDict, e.g. of `configs/expA.py`. `config.experiment` is a name in
        `EXPERIMENTS`, or "package.module:name" for an `Experiment` of your own.
      workdir: folder of the results; made, or continued.
      cohort: the data; None: read as `config.data` says.
      command: the command line, for the report.
      until: "data", "plan" or "report", see `skeleton.run`.
      restart: removes what an earlier run has left in the workdir.
      members: number of processes that are called alike and divide the work, see `skeleton.run`.

    Returns:
      A `report.schema.Result`: `summary`, `folds` and `predictions` as data frames, `metrics`,
      `save(folder)`. None if `until` ends before the report, or another process writes it.

    Raises:
      InputError: data or settings cannot be used, or the workdir belongs to other ones.
      LeakageError: an arm saw more of what it is scored on than its class of protocol allows.
    """
    from emojax.experiments import base, skeleton

    experiment = base.check_experiment(config.experiment, EXPERIMENTS[config.experiment])
    given = {"cohort": cohort, "command": command, "until": until, "restart": restart}
    return skeleton.run(experiment, config, workdir, members=members, **given)


def __getattr__(name: str):
    if name == "Experiment":
        from emojax.experiments.base import Experiment

        return Experiment
    raise AttributeError(f"module 'emojax.experiments' has no attribute {name!r}")
