"""The registry of experiments; `run` takes any of them from a config to its report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from emojax.registry import Registry

if TYPE_CHECKING:
    from emojax.experiments.base import Experiment
    from emojax.report.schema import Result

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
    until: Literal["data", "plan", "report"] = "report",
    restart: bool = False,
    members: int = 1,
) -> Result | None:
    """Runs the experiment that a config names.

    Args:
      config: a ConfigDict, e.g. from `configs/expA.py`. `config.experiment` is a name in
        `EXPERIMENTS`, or "package.module:name" for an `Experiment` of your own.
      workdir: folder of the results; created if missing, otherwise resumed.
      cohort: the data; default: loaded as `config.data` specifies.
      command: the command line, for the report.
      until: "data", "plan" or "report"; see `skeleton.run`.
      restart: whether to delete the results of an earlier run in the workdir first.
      members: number of identical processes that share the work; see `skeleton.run`.

    Returns:
      A `report.schema.Result`: `summary`, `folds` and `predictions` as data frames, `metrics`,
      `save(folder)`. None if `until` stops before the report, or if another process writes it.

    Raises:
      InputError: data or settings are unusable, or the workdir belongs to other data or settings.
      LeakageError: an arm saw more of its test volumes than its protocol class allows.
    """
    from emojax.experiments import base, skeleton

    experiment = base.check_experiment(config.experiment, EXPERIMENTS[config.experiment])
    return skeleton.run(
        experiment,
        config,
        workdir,
        cohort=cohort,
        command=command,
        until=until,
        restart=restart,
        members=members,
    )


def __getattr__(name: str):
    if name == "Experiment":
        from emojax.experiments.base import Experiment

        return Experiment
    raise AttributeError(f"module 'emojax.experiments' has no attribute {name!r}")
