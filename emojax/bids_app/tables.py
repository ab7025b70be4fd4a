"""Volumes as BIDS events: labelled volumes, and predictions for the scored ones."""

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from emojax.bids_app import dataset
from emojax.data.cohort import Cohort
from emojax.errors import InputError
from emojax.files import atomic_write
from emojax.report import predictions, texts
from emojax.report.paper.words import head
from emojax.report.schema import Result

TIMES = {
    "onset": {"Description": "Start of the volume, from the start of the run.", "Units": "s"},
    "duration": {"Description": "Time from one volume to the next.", "Units": "s"},
}
VOLUME = {"Description": "Index of the volume in its run, from 0."}
CELLS = ("split", "fold", "instance")  # columns of predictions.csv that identify the fit
NONE = "n/a"


def labelled(cohort: Cohort, index: int) -> pd.DataFrame:
    """Returns the labelled volumes of a run as events.

    Args:
      cohort: the data.
      index: index of the run.
    """
    rows = np.flatnonzero(cohort.run_index == index)
    rows = rows[np.argsort(cohort.frame[rows])]
    return pd.DataFrame(
        {
            "onset": cohort.time[rows],
            "duration": _duration(cohort, index),
            "trial_type": np.array(cohort.classes)[cohort.labels[rows]],
            "volume": cohort.frame[rows],
        }
    )


def decoded(result: Result, cohort: Cohort, index: int) -> pd.DataFrame:
    """Returns the scored volumes of a run as events; empty if none was scored.

    Args:
      result: the group's result; only rows of the headline on measured values are used.
      cohort: its data.
      index: index of the run.

    Raises:
      InputError: the table of predictions has no column of the headline.
    """
    metrics, table, run = result.metrics, result.predictions, cohort.runs[index]
    if predictions.PREDICTED not in table:
        found = "no column 'predicted': the headline has no network"
        raise InputError("predictions.csv", found, "a headline with predictions for every arm")
    own = table.loc[(table["subject"] == run.subject) & (table["run"] == run.name)]
    by_arm = "arm" in own
    if by_arm:
        own = own.loc[own["values"] == "real"]
    own = own.sort_values(["frame", *(["arm", "instance"] if by_arm else [])], kind="stable")
    first = head(metrics)
    arms = own["arm"] if by_arm else pd.Series(first["name"] if first else "", index=own.index)
    protocols = {arm["name"]: arm["protocol"] for arm in metrics["arms"]}
    out = {
        "onset": own["time"],
        "duration": _duration(cohort, index),
        "trial_type": own["label"],
        predictions.PREDICTED: own[predictions.PREDICTED],
        **{name: own[name] for name in predictions.columns(metrics["classes"])},
        "arm": arms,
        "protocol": arms.map(protocols),
        **{name: own[name] for name in CELLS if name in own},
        "volume": own["frame"],
    }
    return pd.DataFrame(out, index=own.index).reset_index(drop=True)


def labelled_sidecar(cohort: Cohort, label_map: str, sources: list[str]) -> dict[str, Any]:
    """Returns the sidecar of `labelled`, which describes its columns."""
    return {
        "Description": "The volumes of a run that have a class.",
        **TIMES,
        "trial_type": _classes(cohort.classes, label_map),
        "volume": VOLUME,
        "Sources": sources,
    }


def decoded_sidecar(
    metrics: Mapping[str, Any], table: pd.DataFrame, sources: list[str]
) -> dict[str, Any]:
    """Returns the sidecar of `decoded`, which describes its columns."""
    label_map = (metrics["config"].get("data") or {}).get("label_map", "")
    names = predictions.columns(metrics["classes"])
    shares = {
        name: {"Description": f"Probability of {label!r}; n/a if only a class was predicted."}
        for name, label in zip(names, metrics["classes"], strict=True)
    }
    used = {name: dict.fromkeys(table[name]) for name in ("arm", "protocol")}
    said = {
        "predicted": {"Description": "The class that the decoder predicts."},
        **shares,
        "arm": {
            "Description": "Row of the result table that the decoder belongs to.",
            "Levels": {name: texts.ARMS.get(name, "see report.html") for name in used["arm"]},
        },
        "protocol": {
            "Description": "What the fits had seen of the scored person or volumes.",
            "Levels": {name: texts.PROTOCOLS[name] for name in used["protocol"]},
        },
        "split": {"Description": "What is new in the scored volumes: the kind of split."},
        "fold": {"Description": "The unit that was left out when the decoder was fitted."},
        "instance": {"Description": "Number of the training run, if a fold has several."},
        "volume": VOLUME,
    }
    return {
        "Description": "The scored volumes of a run, with their class and a decoder's prediction.",
        **TIMES,
        "trial_type": _classes(metrics["classes"], label_map),
        **{name: text for name, text in said.items() if name in table},
        "Sources": sources,
    }


def write(path: pathlib.Path, table: pd.DataFrame, sidecar: Mapping[str, Any]) -> None:
    """Writes a table as .tsv, with six significant digits, and its sidecar as .json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(table.columns)
        columns = [table[name].tolist() for name in table]
        writer.writerows([_cell(value) for value in row] for row in zip(*columns, strict=True))
    dataset.write_json(path.with_suffix(".json"), sidecar)


def _classes(classes, label_map: str) -> dict[str, Any]:
    text = "The class that the events give the volume (data.label_map)."
    if label_map:
        text = f"The class that the events give the volume: {label_map} (data.label_map)."
    return {"LongName": "True class", "Description": text, "Levels": {n: n for n in classes}}


def _duration(cohort: Cohort, index: int) -> float:
    tr = cohort.runs[index].tr
    return np.nan if tr is None else float(tr)


def _cell(value: Any) -> str:
    """Returns a cell's text; empty or unknown values are n/a."""
    if isinstance(value, float):
        return NONE if np.isnan(value) else f"{value:.6g}"
    return str(value) if str(value) else NONE
