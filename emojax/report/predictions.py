"""The predictions of a run as a data frame: predictions.csv."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from emojax.data.cohort import Cohort
from emojax.records import Arm, ArmResult
from emojax.report import outcomes


def table(cohort: Cohort, results: Sequence[ArmResult]) -> pd.DataFrame:
    """Returns the predictions: a row per scored volume, or with splits per arm and instance too."""
    results = [r for r in results if r.folds]
    head = [fold.fold.test for fold in results[0].folds] if results else []
    wide = all(
        not r.arm.split
        and r.arm.instances == 1
        and len(r.folds) == len(head)
        and all(np.array_equal(f.fold.test, rows) for f, rows in zip(r.folds, head, strict=True))
        for r in results
    )
    return _wide(cohort, results) if wide else _long(cohort, results)


def places(cohort: Cohort, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the columns that say which volumes the rows are, and their labels."""
    out = {name: getattr(cohort, name)[rows] for name in ("subject", "run", "frame", "time")}
    return out | {"label": np.array(cohort.classes)[cohort.labels[rows]]}


def _wide(cohort, results: Sequence[ArmResult]) -> pd.DataFrame:
    """Returns one row per scored volume, and columns for each arm and classical classifier."""
    if not results:
        return pd.DataFrame()
    classes, folds = np.array(cohort.classes), results[0].folds
    rows = np.concatenate([fold.fold.test for fold in folds])
    out = {"fold": np.repeat([f.fold.name for f in folds], [len(f.fold.test) for f in folds])}
    out |= places(cohort, rows)
    _, probabilities = outcomes.pooled(results[0]._replace(arm=once(results[0].arm)))
    out["predicted"] = classes[probabilities.argmax(1)]
    shown: set[tuple[str, str]] = set()
    many = sum(bool(r.folds[0].baselines) for r in results) > 1
    for r in results:
        same = (r.arm.shares or r.arm.name, r.arm.pick)  # other than in which volumes are scored
        if not r.arm.on_noise and r.folds[0].outcomes and same not in shown:
            shown.add(same)
            _, probabilities = outcomes.pooled(r._replace(arm=once(r.arm)))
            out[r.arm.name] = classes[probabilities.argmax(1)]
            for k, label in enumerate(cohort.classes):
                out[f"{r.arm.name}:p_{label}"] = probabilities[:, k]
        for name in r.folds[0].baselines:
            predicted = np.concatenate([fold.baselines[name].predicted for fold in r.folds])
            out[f"{r.arm.name}: {name}" if many else name] = classes[predicted]
    return pd.DataFrame(out)


def once(arm: Arm) -> Arm:
    """Returns the arm with every test volume scored once."""
    return dataclasses.replace(arm, oversampled=False)


def _long(cohort, results: Sequence[ArmResult]) -> pd.DataFrame:
    """Returns one row per scored volume, arm and instance."""
    classes, parts = np.array(cohort.classes), []
    for r in results:
        for fold in r.folds:
            found = outcomes.first_predictions(once(r.arm), fold)
            for number, probabilities in enumerate(found.networks):
                part = {
                    "arm": r.arm.name,
                    "split": r.arm.split,
                    "values": "noise" if r.arm.on_noise else "real",
                    "fold": fold.fold.name,
                    "instance": number,
                }
                part |= places(cohort, found.rows)
                part["predicted"] = classes[probabilities.argmax(1)]
                for k, label in enumerate(cohort.classes):
                    part[f"p_{label}"] = probabilities[:, k]
                for name, fitted in fold.baselines.items():
                    part[name] = classes[fitted.predicted]
                parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True).fillna("") if parts else pd.DataFrame()
