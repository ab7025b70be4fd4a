"""The result of an experiment, as used by notebooks and the command line."""

import dataclasses
import functools
import html
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emojax.errors import InputError
from emojax.report import page, predictions, tables, texts
from emojax.report.cells import Table as Table
from emojax.report.outcomes import NETWORK

HIDDEN = ("converged", "peak_bytes", "uncalibrated", "members")


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """Scores, predictions and figures of an experiment.

    `summary` and `folds` are data frames of balanced accuracy and the other scores, `predictions`
    is one of the scored volumes, and `metrics` is the content of metrics.json.
    """

    metrics: dict[str, Any]
    predictions: pd.DataFrame
    figures: Mapping[str, Figure] = dataclasses.field(default_factory=dict)
    captions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Mapping[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    maps: Mapping[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | pathlib.Path) -> "Result":
        """Reads the numbers and predictions of a finished run, without its figures.

        Args:
          folder: the run's workdir.

        Raises:
          InputError: the folder holds no finished run of this version.
        """
        path = pathlib.Path(folder) / "metrics.json"
        if not path.exists():
            raise InputError(str(folder), "no metrics.json", "the workdir of a finished run")
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(str(path), f"damaged JSON ({error})", "an intact file") from None
        if not isinstance(metrics, dict) or metrics.get("schema") != 2:
            raise InputError(str(path), "a result of another version", '"schema": 2')
        table = predictions.read(path.with_name("predictions.csv"), metrics["classes"])
        return cls(metrics, table)

    @functools.cached_property
    def summary(self) -> pd.DataFrame:
        """One row per arm and classifier; mean, sd, low and high refer to balanced accuracy."""
        return pd.DataFrame([_summary_row(row) for row in tables.rows(self.metrics)])

    @functools.cached_property
    def folds(self) -> pd.DataFrame:
        """One row per arm, fold and classifier, with all scalar scores."""
        found = []
        for arm in self.metrics["arms"]:
            for fold in arm["folds"]:
                place = {"arm": arm["name"], "fold": fold["test"]}
                scored = {NETWORK: fold["network"]} | fold["baselines"]
                for classifier, scores in scored.items():
                    if scores:
                        numbers = _numbers(scores)
                        epoch = fold["epoch"] if classifier == NETWORK else None
                        row = place | {"classifier": classifier, "rows": fold["rows"]}
                        found.append(row | {"epoch": epoch} | numbers)
        return pd.DataFrame(found)

    def save(self, folder: str | pathlib.Path) -> None:
        """Writes the files of the report: metrics.json, predictions.csv, report.html and others.

        Args:
          folder: folder for the files, created if it is missing.

        Raises:
          InputError: the result was read by `load` and has no figures.
        """
        if not self.figures:
            found = "a result that was read from its files, without figures"
            raise InputError("Result.save", found, "the result of a run (or copy its folder)")
        page.write(
            pathlib.Path(folder),
            self.metrics,
            {str(name): _empty(self.predictions[name].to_numpy()) for name in self.predictions},
            figures=self.figures,
            captions=self.captions,
            curves=self.curves,
            maps=self.maps,
        )

    def __repr__(self) -> str:
        return f"{texts.title(self.metrics)}\n{texts.headline(self.metrics)}"

    def _repr_html_(self) -> str:
        title, headline = texts.title(self.metrics), texts.headline(self.metrics)
        parts = [f"<h3>{html.escape(title)}</h3>", f"<p>{html.escape(headline)}</p>"]
        return "".join(parts) + page.render_table(tables.make(self.metrics)[0])


def _empty(values: np.ndarray) -> np.ndarray:
    """Returns the values of a column, with "" in place of NaN."""
    missing = pd.isna(values)
    return np.where(missing, "", values.astype(object)) if missing.any() else values


def _numbers(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the scalar scores; those before a temperature have the prefix "uncalibrated_"."""
    before = scores.get("uncalibrated") or {}
    plain = {k: v for k, v in scores.items() if not isinstance(v, list) and k not in HIDDEN}
    return plain | {f"uncalibrated_{name}": value for name, value in before.items()}


def _summary_row(row: tables.Row) -> dict[str, Any]:
    """Returns the columns of one line of the main table."""
    main = row.summary["balanced_accuracy"]
    low, high = main["ci95"] or (np.nan, np.nan)
    test = row.summary.get("network_minus_it") or {}
    hidden = ("balanced_accuracy", "network_minus_it", "uncalibrated")
    others = {name: entry["mean"] for name, entry in row.summary.items() if name not in hidden}
    before = row.summary.get("uncalibrated") or {}
    others |= {f"uncalibrated_{name}": entry["mean"] for name, entry in before.items()}
    return {
        "arm": row.arm["name"],
        "classifier": row.classifier,
        "protocol": row.arm["protocol"],
        "mean": main["mean"],
        "sd": main["sd"],
        "low": low,
        "high": high,
        **others,
        "network_minus_it": test.get("difference", np.nan),
        "p": test.get("p", np.nan),
        "on_noise": row.arm["on_noise"],
        "folds": len(row.arm["folds"]),
    }
