"""A comparison of alignment methods with the same classifier, folds and permutations."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from emojax.errors import InputError
from emojax.experiments import arms_a, audits, crossed, floors, permutation, refits
from emojax.experiments.base import Experiment
from emojax.files import split_list
from emojax.provenance import PROTOCOLS
from emojax.records import Arm, FoldData
from emojax.scoring import baselines, scores


def analyse(
    experiment: Experiment,
    config: Any,
    view: Any,
    arm: Arm,
    made: Sequence[FoldData],
    tick: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any] | None:
    """Scores the permuted classifier with each alignment method, leaving out whole subjects.

    Every step of the headline is fitted again for each method: voxels, alignment, scaler, rows.
    Every row of the table has its own provenance record and is audited like an arm.

    Args:
      experiment: see `base.Experiment`.
      config: config with `alignments` ("" turns this off), `permute`, `permutations`,
        `noise.draws`, `null_floor` and `seed`.
      view: the data that ledgers read.
      arm: the headline.
      made: folds of the headline; not used.
      tick: called with 1 for every permutation and draw of every row.

    Returns:
      "classifier", and "rows": name -> "mean" and "ci95" of balanced accuracy over folds, "folds",
      "protocol", "audited" (folds), "parcels" (counts of each fold, see `Piecewise.counts`), "isc"
      before and after (mean over folds), "null" (mean, sd, draws) and "p" against chance or None,
      "floor" (see `floors.summary`) or None, "minus_first" (see `scores.paired_difference`; None
      in the first row). None if turned off.

    Raises:
      LeakageError: a row saw more than its regime claims, by its record or by the audit.
    """
    if not split_list(config.alignments):
        return None
    cohort = getattr(view, "cohort", view)
    arms = rows_of(config, cohort, arm)
    noisy = [floors.Floor(own.name, replace(own, on_noise=True)) for own in arms]
    drawn = config.null_floor and config.noise.draws and not config.null
    floor = floors.score(experiment, config, cohort, noisy, tick) if drawn else {}
    rows = {own.name: _row(experiment, config, view, own, tick) for own in arms}
    first = next(iter(rows.values()))
    for name, row in rows.items():
        row["floor"] = floor.get(name, {}).get(config.permute)
        own = None if row is first else scores.paired_difference(row["folds"], first["folds"])
        row["minus_first"] = own
    return {"classifier": config.permute, "rows": rows}


def check(config: Any) -> None:
    """Rejects the network as the classifier of the comparison.

    Raises:
      InputError: names the key.
    """
    if split_list(config.alignments) and config.permute == permutation.NETWORK:
        expected = "a classical classifier: --config.permute=logistic, or --config.alignments="
        raise InputError("permute", repr(config.permute), expected)


def rows_of(config: Any, cohort: Any, arm: Arm) -> list[Arm]:
    """Returns an arm for each alignment method that `config.alignments` names.

    A name is one of `alignment.REGIMES`, or "piecewise:method".
    """
    out = []
    for name in split_list(config.alignments):
        regime, _, method = name.partition(":")
        settings = arm.settings.settings._replace(regime=regime)
        if method:
            settings = settings._replace(piecewise=method)
        protocol = arms_a.protocol_of(config, cohort, settings)
        own = Arm(name, protocol, arms_a.Setup(settings), regime=regime, decoder=config.permute)
        out.append(replace(own, baselines=(config.permute,)))
    return out


def _row(experiment, config, view, arm: Arm, tick) -> dict[str, Any]:
    """Scores, audits and permutes one alignment method."""
    cohort = getattr(view, "cohort", view)
    made = list(floors.features(experiment, config, view, arm))
    jobs = [job for data in made for job in experiment.baselines(config, data, arm.baselines)]
    fitted = baselines.run(jobs)
    each = [
        scores.scores(cohort.labels[data.fold.test], own.probabilities)["balanced_accuracy"]
        for data, own in zip(made, fitted, strict=True)
    ]
    isc = np.array([data.notes.get("isc", (np.nan, np.nan)) for data in made]).mean(0)
    worst = max((data.notes["protocol"] for data in made), key=PROTOCOLS.index)
    row = crossed.mean(each) | {"folds": each, "protocol": worst, "audited": []}
    row["parcels"] = [data.notes["parcels"] for data in made if "parcels" in data.notes]
    row |= {"isc": None if np.isnan(isc).any() else isc.tolist(), "null": None, "p": None}
    if config.audit:
        sources: audits.Sources = {None: (cohort, view)}
        found = audits.audit_arms(experiment, config, sources, [arm], {arm.name: made}, None)
        row["audited"] = found["arms"][arm.name]["folds"]
    return row | _against_chance(experiment, config, view, arm, made, tick)


def _against_chance(experiment, config, view, arm: Arm, made, tick) -> dict[str, Any]:
    """Tests a row against chance by permuting labels through its whole pipeline.

    Returns {} without permutations.
    """
    if not config.permutations:
        return {}
    folds = [data.fold for data in made]
    found = permutation.design(config, view, arm)
    labels = permutation.arrangements(config, view, arm, found, folds)
    if not labels:
        return {}
    observed, null = refits.classical(experiment, config, view, arm, made, labels, tick)
    assert observed is not None  # the row has this classifier
    return {
        "null": {"mean": float(null.mean()), "sd": float(null.std()), "draws": len(null)},
        "p": permutation.p_value(observed, null),
    }
