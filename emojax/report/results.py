"""From the trained folds of Experiment A to its report: scores, tables, figures, predictions."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from emojax import masking, metrics, provenance, resampling
from emojax.data.cohort import Cohort
from emojax.experiments.folds import Variant
from emojax.features.across_subjects import FoldFeatures
from emojax.features.masked import Study
from emojax.report import console, plots
from emojax.report.page import Result, Table
from emojax.scoring import scores
from emojax.scoring.baselines import Fitted

FLOOR = "noise floor"
NESTED_OF = "nested, {}"  # another regime than the headline's
LADDER = (  # what is closed, one after the other, from the published procedure down
    ("paper", "published procedure"),
    ("paper, test volumes once", "test volumes not oversampled"),
    ("leaky voxels and alignment", "epoch and rate from a held-back subject"),
    ("leaky voxels", "alignment without the scored runs"),
    ("nested", "voxels without the test subject"),
)


class Trained(NamedTuple):
    """All that the experiment made, fold by fold."""

    variants: Sequence[Variant]  # the headline first
    made: Mapping[str, list[FoldFeatures]]
    outcomes: Mapping[str, list[dict[str, np.ndarray]]]
    baselines: Sequence[Mapping[str, Fitted]]  # of each fold: name -> predictions
    leaks: Mapping[str, list[dict[str, int]]]  # step -> scored volumes that it saw wrongly


def collect(config, cohort: Cohort, study: Study, found: Trained) -> Result:
    """Scores everything and lays it out."""
    units = list(study.subjects)
    headline = found.variants[0]
    protocols = _protocols(config, found)
    folds = []
    for i, unit in enumerate(units):
        labels = found.made[headline.name][i].test_y
        folds.append(
            {
                "test_subject": unit,
                "protocols": {name: rows[i] for name, rows in protocols.items()},
                "baselines": {
                    name: scores.scores(labels, fitted.probabilities)
                    | {"converged": fitted.converged}
                    for name, fitted in found.baselines[i].items()
                },
            }
        )
    summaries = {name: scores.summary(rows) for name, rows in protocols.items()}
    floor = summaries.pop(FLOOR, None)
    measured = {
        "experiment": "A",
        "config": config.to_dict(),
        "command": "",
        "device": console.device(),
        "versions": console.versions(),
        "seconds": {},
        "classes": list(cohort.classes),
        "chance": 1 / len(cohort.classes),
        "regime": headline.settings.regime,
        "folds": folds,
        "summary": summaries,
        "baselines": _baselines(folds),
        "leaks": _ladder(summaries),
        "null_floor": floor,
        "provenance": {
            v.name: provenance.table(found.made[v.name][0].seen[0][1]) for v in found.variants
        },
        "isc": dict(zip(("before", "after"), _isc(found.made[headline.name]), strict=True)),
        "data": {
            "hashes": cohort.hashes,
            "subjects": len(cohort.subjects),
            "runs": len(cohort.runs),
        },
    }
    curves = {v.name: _curves(found.outcomes[v.name]) for v in found.variants}
    return Result(
        title="Experiment A: " + ("noise" if config.null else f"source {config.data.source}"),
        headline=_headline(measured),
        metrics=measured,
        predictions=_predictions(cohort, study, found, protocols),
        curves=curves,
        tables=_tables(measured, found),
        figures=_figures(measured, study, found, curves),
        protocols=[p for p in ("nested", "last", "paper") if p in summaries],
        maps=_maps(cohort, study, found),
    )


def _protocols(config, found: Trained) -> dict[str, list[dict[str, Any]]]:
    """Protocol -> scores of each fold."""
    out: dict[str, list[dict[str, Any]]] = {}

    def add(name, variant, which, labels_of=None):
        rows = []
        for i, (made, outcome) in enumerate(
            zip(found.made[variant.name], found.outcomes[variant.name], strict=True)
        ):
            pick = np.arange(len(made.test_y)) if labels_of is None else labels_of(i, made.test_y)
            scored = scores.scores(made.test_y[pick], outcome[which][pick])
            epoch = config.train.epochs if which == "last" else int(outcome["epoch"])
            rows.append(scored | {"epoch": epoch})
        out[name] = rows

    def oversampled(i, labels):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), i), 2)
        classes = found.variants[0].settings.num_classes
        return np.asarray(resampling.balance(key, labels, config.balance, num_classes=classes))

    for i, variant in enumerate(found.variants):
        if i == 0:
            add("nested", variant, "best")
            if "last" in config.protocols:
                add("last", variant, "last")
        elif variant.name == "paper":
            add("paper", variant, "best", oversampled)
            add("paper, test volumes once", variant, "best")
        elif variant.name == FLOOR or any(variant.leaks):
            add(variant.name, variant, "best")
        else:
            add(NESTED_OF.format(variant.name), variant, "best")
    return out


def _baselines(folds) -> dict[str, Any]:
    """Name -> summary, and the paired comparison of nested with it."""
    ours = [f["protocols"]["nested"]["balanced_accuracy"] for f in folds]
    out = {}
    for name in folds[0]["baselines"]:
        rows = [f["baselines"][name] for f in folds]
        theirs = [row["balanced_accuracy"] for row in rows]
        out[name] = scores.summary(rows) | {"nested_minus_it": scores.against(ours, theirs)}
    return out


def _ladder(summaries) -> list[dict[str, Any]]:
    """The gap between paper and nested, one leak closed per row."""
    if "paper" not in summaries:
        return []
    rows: list[dict[str, Any]] = []
    for name, text in LADDER:
        if name in summaries:
            if name == "nested" and "leaky voxels" not in summaries:
                text = LADDER[3][1]  # voxels are each subject's own: only the alignment leaked
            row = {"closed": text, "protocol": name} | summaries[name]["balanced_accuracy"]
            row["change"] = row["mean"] - rows[-1]["mean"] if rows else None
            rows.append(row)
    return rows


def _isc(made: list[FoldFeatures]):
    before, after = zip(*(m.isc for m in made), strict=True)
    return ([None if np.isnan(v) else v for v in values] for values in (before, after))


def _curves(outcomes) -> dict[str, np.ndarray]:
    names = [n for n in outcomes[0] if n not in ("best", "last", "epoch")]
    return {name: np.stack([outcome[name] for outcome in outcomes]) for name in names}


def _headline(measured) -> str:
    found = measured["summary"]["nested"]["balanced_accuracy"]
    low, high = found["ci95"]
    text = (
        f"Balanced accuracy {found['mean']:.3f} (95 % interval {low:.3f} to {high:.3f}, sd "
        f"{found['sd']:.3f} over {len(measured['folds'])} folds; chance {measured['chance']:.3f}), "
        f"epoch chosen without the test subject, alignment {measured['regime']}."
    )
    if measured["null_floor"]:
        floor = measured["null_floor"]["balanced_accuracy"]
        text += (
            f" The same on autocorrelated noise: {floor['mean']:.3f} "
            f"({floor['ci95'][0]:.3f} to {floor['ci95'][1]:.3f})."
        )
    if "paper" in measured["summary"]:
        paper = measured["summary"]["paper"]["balanced_accuracy"]["mean"]
        text += f" The published procedure, which leaks, says {paper:.3f}."
    return text


def _predictions(cohort: Cohort, study: Study, found: Trained, protocols) -> dict[str, np.ndarray]:
    """One row per scored volume, in order of the folds."""
    rows = np.concatenate([subject.rows for subject in study.subjects.values()])
    out = {
        "fold": np.repeat(list(study.subjects), [len(s.rows) for s in study.subjects.values()]),
        "subject": cohort.subject[rows],
        "run": cohort.run[rows],
        "frame": cohort.frame[rows],
        "time": cohort.time[rows],
        "label": np.array(cohort.classes)[cohort.labels[rows]],
    }
    columns = {"nested": (found.variants[0].name, "best"), "last": (found.variants[0].name, "last")}
    columns["paper"] = ("paper", "best")
    columns |= {NESTED_OF.format(v.name): (v.name, "best") for v in found.variants[1:]}
    for name, (variant, which) in columns.items():
        if name in protocols:
            outcomes = found.outcomes[variant]
            probabilities = np.concatenate([outcome[which] for outcome in outcomes])
            out[name] = np.array(cohort.classes)[probabilities.argmax(1)]
            for k, label in enumerate(cohort.classes):
                out[f"{name}:p_{label}"] = probabilities[:, k]
    for name in found.baselines[0]:
        predicted = np.concatenate([fold[name].predicted for fold in found.baselines])
        out[name] = np.array(cohort.classes)[predicted]
    return out


def _maps(cohort: Cohort, study: Study, found: Trained):
    """How many folds chose each voxel, as an image on the first subject's grid."""
    counts = _chosen(study, found)
    if counts is None:
        return {}
    affine = cohort.runs[0].affine
    return {"chosen_voxels": (counts.astype(np.int16), np.eye(4) if affine is None else affine)}


def _chosen(study: Study, found: Trained):
    made = found.made[found.variants[0].name]
    if study.union is None or made[0].voxels is None:
        return None
    counts = np.zeros(int(study.union.sum()), int)
    for m in made:
        counts[m.voxels] += 1
    return np.asarray(masking.unmask(counts, study.union, fill=0))


def _figures(measured, study: Study, found: Trained, curves):
    chance, folds, summary = measured["chance"], measured["folds"], measured["summary"]
    floor = measured["null_floor"]
    out = {}
    shown = [n for n in summary if n in ("nested", "last", "paper") or n.startswith("nested,")]
    rows = [_accuracy_row(n, [f["protocols"][n] for f in folds], summary[n]) for n in shown]
    for name, found_ in measured["baselines"].items():
        rows.append(_accuracy_row(name, [f["baselines"][name] for f in folds], found_))
    band = tuple(floor["balanced_accuracy"]["ci95"]) if floor else None
    out["accuracy"] = (
        plots.accuracies(rows, chance, band, ours=len(shown)),
        "Every fold's balanced accuracy: the network (blue) under its protocols and alignment "
        "regimes, and classical classifiers (orange) on the nested features.",
    )
    if measured["leaks"]:
        steps = [(row["closed"], row["mean"], tuple(row["ci95"])) for row in measured["leaks"]]
        out["leaks"] = (
            plots.ladder(steps, chance),
            "From the published procedure to the honest number, one leak closed per bar.",
        )
    total = np.sum([f["protocols"]["nested"]["confusion"] for f in folds], axis=0)
    out["confusion"] = (
        plots.confusion(total, measured["classes"]),
        "Confusion, nested, all folds.",
    )
    headline = found.variants[0].name
    labels = np.concatenate([m.test_y for m in found.made[headline]])
    probabilities = np.concatenate([o["best"] for o in found.outcomes[headline]])
    lines = {}
    for k, name in enumerate(measured["classes"]):
        curve = metrics.roc_curve(labels == k, probabilities[:, k])
        area = float(metrics.auc(labels == k, probabilities[:, k]))
        lines[name] = (curve.false_positive_rate, curve.true_positive_rate, area)
    truth = np.eye(len(measured["classes"]), dtype=bool)[labels].ravel()
    curve = metrics.roc_curve(truth, probabilities.ravel())
    area = float(metrics.auc(truth, probabilities.ravel()))
    lines["micro-average"] = (curve.false_positive_rate, curve.true_positive_rate, area)
    out["roc"] = (plots.roc(lines), "One-vs-rest ROC curves, nested, volumes of all folds pooled.")
    monitored = {"paper": "monitored: the test subject itself"}
    some = {"nested": curves[headline]} | {n: curves[n] for n in ("paper",) if n in curves}
    titles = {n: monitored.get(n, "monitored: a held-back training subject") for n in some}
    many = len(folds) > plots.MANY_FOLDS
    out["curves"] = (
        plots.curves(some, titles, [str(f["test_subject"]) for f in folds]),
        "Learning curves of each fold, by what is left out; thin: training batches, thick: what is "
        "monitored."
        if many
        else "Learning curves; thin lines are folds.",
    )
    counts = _chosen(study, found)
    if counts is not None:
        out["voxels"] = (
            plots.voxels(counts, study.mean, len(folds)),
            "Voxels chosen by F-score in each fold, on the mean volume.",
        )
    if None not in measured["isc"]["before"]:
        out["correlation"] = (
            plots.correlation(measured["isc"]["before"], measured["isc"]["after"]),
            "Correlation of each voxel's (after: each common dimension's) time course between "
            "training subjects; a line per fold.",
        )
    return out


def _accuracy_row(name, rows, summary):
    values = [row["balanced_accuracy"] for row in rows]
    return name, values, tuple(summary["balanced_accuracy"]["ci95"])


def _tables(measured, found: Trained) -> list[Table]:
    folds, summary = measured["folds"], measured["summary"]
    rows = [[name, *_cells(s), "", ""] for name, s in summary.items()]
    for name, s in measured["baselines"].items():
        test = s["nested_minus_it"]
        rows.append([name, *_cells(s), f"{test['difference']:+.3f}", f"{test['p']:.3f}"])
    if measured["null_floor"]:
        rows.append([FLOOR, *_cells(measured["null_floor"]), "", ""])
    header = ["", "balanced accuracy", "95 % interval", "accuracy", "AUC (macro)", "loss"]
    out = [
        Table(
            "Mean (sd) over folds",
            [*header, "nested minus it", "p"],
            rows,
            "Classical classifiers have the nested network's training rows and features; nuisance "
            "has none of them, but time in run, global signal and motion. p: sign-flip test over "
            f"folds, not corrected for several tests. Chance: {measured['chance']:.3f}.",
        )
    ]
    names = ["nested", *(n for n in ("paper",) if n in summary), *measured["baselines"]]
    per_fold = []
    for fold in folds:
        cells = [(fold["protocols"] | fold["baselines"])[n]["balanced_accuracy"] for n in names]
        per_fold.append([fold["test_subject"], *(f"{v:.3f}" for v in cells)])
    out.append(Table("Balanced accuracy of each fold", ["left out", *names], per_fold))
    per_class = []
    for k, name in enumerate(measured["classes"]):
        cells = []
        for score in ("precision", "recall", "f1"):
            values = np.array([f["protocols"]["nested"][score][k] for f in folds])
            cells.append(f"{values.mean():.3f} ({values.std(ddof=min(1, len(values) - 1)):.3f})")
        per_class.append([name, *cells])
    out.append(Table("Nested, per class", ["class", "precision", "recall", "F1"], per_class))
    out.append(_seen(found))
    return out


def _cells(summary) -> list[str]:
    main = summary["balanced_accuracy"]
    cells = [f"{main['mean']:.3f} ({main['sd']:.3f})", "{:.3f} - {:.3f}".format(*main["ci95"])]
    for name in ("accuracy", "auc_macro", "loss"):
        cells.append(f"{summary[name]['mean']:.3f}" if name in summary else "")
    return cells


def _seen(found: Trained) -> Table:
    """Who saw what: of each training and step, in the first fold, and leaks over all folds."""
    rows = []
    for variant in found.variants:
        if variant.name == FLOOR:
            continue
        leaked: dict[str, int] = {}
        for report in found.leaks[variant.name]:
            for step, count in report.items():
                leaked[step] = leaked.get(step, 0) + count
        strict = not (variant.on_test or any(variant.leaks))
        for row in provenance.table(found.made[variant.name][0].seen[0][1]):
            said = "no"
            if row["step"] in leaked:
                what = "declared" if strict else "LEAK"
                said = f"{what}: {leaked[row['step']]} scored volumes in all folds"
            rows.append([variant.name, row["step"], str(row["values"]), str(row["labels"]), said])
    return Table(
        "Who saw what",
        ["training", "step", "volumes seen", "labels seen", "saw what it is scored on"],
        rows,
        "Counts of the first scored run of the first fold. Declared: allowed by the name of the "
        "regime, or by a calibration on the subject's other runs.",
    )
