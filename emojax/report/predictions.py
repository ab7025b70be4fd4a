"""The predictions of a run as a data frame, for predictions.csv.

`predicted` and `p_<class>` are the headline's, as in the predictions of a decoder. Each row of the
result table has the same columns, prefixed with its name. No name has a comma or a colon.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from emojax.data.cohort import Cohort
from emojax.records import Arm, ArmResult
from emojax.report import outcomes, tables, texts
from emojax.report.outcomes import NETWORK

NUMBERS = ("frame", "time", "instance")  # other columns are text, apart from probabilities
PREDICTED = "predicted"


def table(metrics: Mapping[str, Any], cohort: Cohort, results: Sequence[ArmResult]) -> pd.DataFrame:
    """Returns one row per scored volume; with splits, one per volume, arm and instance.

    Probabilities are NaN if a classifier only predicts a class.

    Args:
      metrics: content of metrics.json.
      cohort: the labelled volumes that rows refer to.
      results: the arms as returned by `outcomes.calibrated`, the headline first.
    """
    results = [r for r in results if r.folds]
    head = [fold.fold.test for fold in results[0].folds] if results else []
    wide = all(
        not r.arm.split
        and r.arm.instances == 1
        and len(r.folds) == len(head)
        and all(np.array_equal(f.fold.test, rows) for f, rows in zip(r.folds, head, strict=True))
        for r in results
    )
    if not results:
        return pd.DataFrame()
    return _wide(metrics, cohort, results) if wide else _long(cohort, results)


def read(path: Any, classes: Sequence[str]) -> pd.DataFrame:
    """Reads predictions.csv; an empty probability becomes NaN.

    Args:
      path: path of the file.
      classes: names of the classes.
    """
    header = list(pd.read_csv(path, nrows=0))
    ends = tuple(f" {name}" for name in columns(classes))
    given = {name for name in header if f" {name}".endswith(ends)}
    text = {name: str for name in header if name not in given | set(NUMBERS)}
    empty = {name: [""] for name in given}
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=empty)


def places(cohort: Cohort, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the columns that identify volumes, and their labels."""
    out = {name: getattr(cohort, name)[rows] for name in ("subject", "run", "frame", "time")}
    return out | {"label": np.array(cohort.classes)[cohort.labels[rows]]}


def columns(classes: Sequence[str]) -> list[str]:
    """Returns the names of the columns of probabilities."""
    return list(_names(f"p_{name}" for name in classes).values())


def prefix(metrics: Mapping[str, Any], arm: str, classifier: str, by_arm: bool) -> str:
    """Returns the prefix of the column names of a row of the result table.

    Args:
      metrics: content of metrics.json.
      arm: name of the row's arm.
      classifier: name of the row's classifier.
      by_arm: whether the predictions have one row per arm.
    """
    if by_arm:
        return "" if classifier == NETWORK else f"{_names([classifier])[classifier]} "
    return _prefixes(metrics)[arm, classifier]


def _prefixes(metrics: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Returns the prefix of the columns of each (arm, classifier) on measured values."""
    real = [arm["name"] for arm in texts.real(metrics)]
    rows = [row for row in tables.rows(metrics) if row.arm["name"] in real]
    names = _names(row.name for row in rows)
    return {(row.arm["name"], row.classifier): f"{names[row.name]} " for row in rows}


def _names(names: Iterable[str]) -> dict[str, str]:
    """Returns each name's replacement without commas and colons; replacements are unique."""
    out: dict[str, str] = {}
    for name in dict.fromkeys(names):
        new = re.sub(r"\s*[,:]\s*", "-", name)
        while new in out.values():
            new += "-2"
        out[name] = new
    return out


def _wide(metrics, cohort, results: Sequence[ArmResult]) -> pd.DataFrame:
    """Returns one row per scored volume, and columns for each row of the result table."""
    head = results[0].folds
    out = {"fold": np.repeat([f.fold.name for f in head], [len(f.fold.test) for f in head])}
    out |= places(cohort, np.concatenate([fold.fold.test for fold in head]))
    arms = {r.arm.name: r for r in results}
    first = next(arm for arm in metrics["arms"] if arm["name"] == results[0].arm.name)
    out |= _said(cohort, results[0], texts.first(first)[0], "")
    for (name, classifier), before in _prefixes(metrics).items():
        out |= _said(cohort, arms[name], classifier, before)
    return pd.DataFrame(out)


def _said(cohort, result: ArmResult, classifier: str, prefix: str) -> dict[str, np.ndarray]:
    """Returns the columns of one classifier, with all folds concatenated."""
    if classifier == NETWORK:
        _, given = outcomes.pooled(result._replace(arm=once(result.arm)))
        return _columns(cohort, given.argmax(1), given, prefix)
    folds = [fold.baselines[classifier] for fold in result.folds]
    given = np.concatenate([np.asarray(fitted.probabilities) for fitted in folds])
    return _columns(cohort, np.concatenate([f.predicted for f in folds]), given, prefix)


def _columns(cohort, predicted, given, prefix: str) -> dict[str, np.ndarray]:
    if np.isin(given, (0, 1)).all():  # the classifier only predicts a class
        given = np.full_like(given, np.nan)
    out = {prefix + PREDICTED: np.array(cohort.classes)[predicted]}
    return out | {prefix + name: given[:, k] for k, name in enumerate(columns(cohort.classes))}


def once(arm: Arm) -> Arm:
    """Returns the arm without oversampling, so that every scored volume counts once."""
    return dataclasses.replace(arm, oversampled=False)


def _long(cohort, results: Sequence[ArmResult]) -> pd.DataFrame:
    """Returns one row per scored volume, arm and instance."""
    parts = []
    names = _names(name for r in results for name in r.folds[0].baselines)
    for r in results:
        for fold in r.folds:
            found = outcomes.first_predictions(once(r.arm), fold)
            for number, given in enumerate(found.networks):
                part = {
                    "arm": r.arm.name,
                    "split": r.arm.split,
                    "values": "noise" if r.arm.on_noise else "real",
                    "fold": fold.fold.name,
                    "instance": number,
                }
                part |= places(cohort, found.rows) | _columns(cohort, given.argmax(1), given, "")
                for name, fitted in fold.baselines.items():
                    own = np.asarray(fitted.probabilities)
                    part |= _columns(cohort, fitted.predicted, own, f"{names[name]} ")
                parts.append(pd.DataFrame(part))
    out = pd.concat(parts, ignore_index=True)
    said = [name for name in out if str(name).endswith(PREDICTED)]
    return out.fillna(dict.fromkeys(said, ""))
