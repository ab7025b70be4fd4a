"""The logger `mlflow`: one MLflow run, with the config as parameters and a curve for each fold.

It logs to $MLFLOW_TRACKING_URI, by default the SQLite file "mlflow.db" beside the workdir, under
the experiment $MLFLOW_EXPERIMENT_NAME, by default "emojax".
"""

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow sends usage data by default

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from emojax.tracking import Run

STORE = "mlflow.db"
BATCH = 100  # maximum number of parameters in one MLflow request


class MLflow:
    """Metrics "<training>/<fold>/<name>" by epoch; a resumed run continues its MLflow run."""

    def __init__(self, run: Run):
        store = run.workdir.absolute().parent / STORE
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it logs table setup
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.as_posix()}"
        self._client = MlflowClient(uri)
        self._id = self._open(run)

    def log(self, training: str, fold: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Adds a point to the curves of a fold."""
        now = int(time.time() * 1000)
        batch = [
            Metric(_allowed(f"{training}/{fold}/{name}"), value, now, epoch)
            for name, value in metrics.items()
        ]
        self._client.log_batch(self._id, metrics=batch)

    def close(self, finished: bool) -> None:
        """Ends the MLflow run; a stopped run has status KILLED until it is resumed."""
        self._client.set_terminated(self._id, "FINISHED" if finished else "KILLED")

    def _open(self, run: Run) -> str:
        """Returns the id of the MLflow run of an earlier process, or of a new one."""
        kept = run.folder / "run_id"
        if kept.exists():
            try:
                found = self._client.get_run(kept.read_text().strip())
                self._client.update_run(found.info.run_id, status="RUNNING")
                return found.info.run_id
            except MlflowException:  # it was removed, or is in another store
                pass
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "emojax"
        known = self._client.get_experiment_by_name(name)
        place = known.experiment_id if known else self._client.create_experiment(name)
        made = self._client.create_run(place, run_name=run.workdir.name).info.run_id
        params = [Param(key, str(value)) for key, value in _flat(run.config)]
        for i in range(0, len(params), BATCH):
            self._client.log_batch(made, params=params[i : i + BATCH])
        kept.write_text(made)
        return made


def _flat(config: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted keys with their values."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{at}{key}.")
        else:
            yield at + key, value


def _allowed(name: str) -> str:
    """Returns a name without characters that MLflow does not allow."""
    return re.sub(r"[^\w./ -]+", "", name)
