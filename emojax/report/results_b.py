"""From the trainings of Experiment B to its report: scores per split, tables, figures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from emojax import metrics, provenance, splits
from emojax.data.cohort import Cohort
from emojax.report import console, plots
from emojax.report.page import Result, Table
from emojax.scoring import scores
from emojax.scoring.baselines import Fitted
from emojax.splits import Design
from emojax.training.fitting import Split

CURVES = ("train_loss", "train_accuracy", "loss", "accuracy", "rate")


class Tested(NamedTuple):
    """One fold of one split: what was trained, and what it says of the test volumes."""

    kind: str  # of `splits.KINDS`
    noisy: bool  # the noise floor
    split: Split
    outcomes: Sequence[Mapping[str, np.ndarray]]  # of `fitting.fit`, one per instance
    baselines: Mapping[str, Fitted]
    leaks: Mapping[str, int]  # step -> volumes that it saw, against the rule of strict splits
    rounding: float  # error of bfloat16 in units of a voxel's sd over time


def collect(config, cohort: Cohort, design: Design, tested: Sequence[Tested]) -> Result:
    """Scores everything and lays it out; the first split is the headline."""
    network = f"ResNet-{config.model.depth}"
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(t.kind for t in tested):
        real = [t for t in tested if t.kind == kind and not t.noisy]
        floor = [t for t in tested if t.kind == kind and t.noisy]
        found[kind] = _split(design, kind, network, real)
        found[kind]["null_floor"] = _split(design, kind, network, floor) if floor else None
    first = next(iter(found))
    heads = [t for t in tested if t.kind == first and not t.noisy]
    measured = _measured(config, cohort) | {"headline_split": first, "splits": found}
    curves = {}
    for kind in found:
        lines = [o for t in tested if t.kind == kind and not t.noisy for o in t.outcomes]
        curves[kind] = {name: np.stack([line[name] for line in lines]) for name in CURVES}
    return Result(
        title="Experiment B: " + ("noise" if config.null else f"source {config.data.source}"),
        headline=_headline(measured, network),
        metrics=measured,
        predictions=_predictions(cohort, tested),
        curves=curves,
        tables=_tables(measured, network, tested, design),
        figures=_figures(measured, network, heads, design, curves),
        protocols=list(found),
    )


def _measured(config, cohort: Cohort) -> dict[str, Any]:
    return {
        "experiment": "B",
        "config": config.to_dict(),
        "command": "",
        "device": console.device(),
        "versions": console.versions(),
        "seconds": {},
        "classes": list(cohort.classes),
        "chance": 1 / len(cohort.classes),
        "data": {
            "hashes": cohort.hashes,
            "subjects": len(cohort.subjects),
            "runs": len(cohort.runs),
            "volumes": len(cohort.labels),
        },
    }


def _split(design: Design, kind: str, network: str, tested: Sequence[Tested]) -> dict[str, Any]:
    """Scores of the network (over folds and instances) and the classifiers under one split."""
    groups = design.groups(kind)
    folds = []
    for t in tested:
        labels = design.labels[t.split.test]
        rows = []
        for outcome in t.outcomes:
            row = scores.scores(labels, outcome["best"])
            row |= {"last": scores.scores(labels, outcome["last"])["balanced_accuracy"]}
            rows.append(row | {"epoch": int(outcome["epoch"]), "epochs": int(outcome["done"])})
        others = {
            name: scores.scores(labels, f.probabilities)
            | {"converged": f.converged, "peak_bytes": f.peak_bytes}
            for name, f in t.baselines.items()
        }
        sizes = [len(np.unique(part)) for part in t.split]
        folds.append(
            {
                "volumes": sizes,
                "test_groups": np.unique(groups[t.split.test]).tolist(),
                "instances": rows,
                "baselines": others,
                "leaks": dict(t.leaks),
                "rounding": t.rounding,
            }
        )
    labels = np.concatenate([design.labels[t.split.test] for t in tested])
    where = np.concatenate([groups[t.split.test] for t in tested])
    count = int(design.labels.max()) + 1
    ours = [[o["best"].argmax(1) for o in t.outcomes] for t in tested]
    each = np.array([np.concatenate(parts) for parts in zip(*ours, strict=True)])  # [instance, n]
    many = len(each)
    summary = scores.summary([row for fold in folds for row in fold["instances"]])
    interval = scores.clustered_interval(
        np.tile(labels, many), each.ravel(), np.tile(where, many), count
    )
    by_group = np.mean([scores.by_group(labels, line, where) for line in each], axis=0)
    out = {
        "folds": folds,
        "summary": summary,
        "ci95_groups": interval,
        "group": {"by_subject": "subject", "by_block": "block"}.get(kind, "run"),
        "by_group": by_group.tolist(),
        "baselines": {},
    }
    for name in tested[0].baselines:
        predicted = np.concatenate([t.baselines[name].predicted for t in tested])
        peaks = [t.baselines[name].peak_bytes for t in tested]
        theirs = scores.by_group(labels, predicted, where)
        out["baselines"][name] = {
            "summary": scores.summary([fold["baselines"][name] for fold in folds]),
            "ci95_groups": scores.clustered_interval(labels, predicted, where, count),
            "peak_bytes": max(p for p in peaks) if None not in peaks else None,
            "network_minus_it": scores.against(by_group, theirs),
        }
    return out


def _headline(measured, network: str) -> str:
    parts = []
    for kind, found in measured["splits"].items():
        score = found["summary"]["balanced_accuracy"]["mean"]
        low, high = found["ci95_groups"]
        text = f"{kind} {score:.3f} ({low:.3f} to {high:.3f}"
        if found["null_floor"]:
            floor = found["null_floor"]["summary"]["balanced_accuracy"]["mean"]
            text += f"; on noise {floor:.3f}"
        parts.append(text + ")")
    return (
        f"Balanced accuracy of {network} on new volumes, by what is new: {', '.join(parts)}; "
        f"chance {measured['chance']:.3f}; in brackets 95 % intervals over runs or subjects."
    )


def _predictions(cohort: Cohort, tested: Sequence[Tested]) -> dict[str, np.ndarray]:
    """One row per scored volume, fold and instance."""
    columns: dict[str, list] = {}
    classes = np.array(cohort.classes)

    def put(name, values):
        columns.setdefault(name, []).append(np.asarray(values))

    for t in tested:
        rows = t.split.test
        for number, outcome in enumerate(t.outcomes):
            put("split", [t.kind] * len(rows))
            put("values", ["noise" if t.noisy else "real"] * len(rows))
            put("instance", [number] * len(rows))
            for name in ("subject", "run", "frame", "time"):
                put(name, getattr(cohort, name)[rows])
            put("label", classes[cohort.labels[rows]])
            put("predicted", classes[outcome["best"].argmax(1)])
            for k, name in enumerate(cohort.classes):
                put(f"p_{name}", outcome["best"][:, k])
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def _tables(measured, network, tested, design) -> list[Table]:
    header = ["", "balanced accuracy", "95 % interval", "accuracy", "AUC (macro)", "loss"]
    rows = []
    for kind, found in measured["splits"].items():
        floor = found["null_floor"]
        rows.append([f"{kind}: {network}", *_cells(found), "", "", ""])
        if floor:
            rows.append([f"{kind}: {network} on noise", *_cells(floor), "", "", ""])
        for name, other in found["baselines"].items():
            test, peak = other["network_minus_it"], other["peak_bytes"]
            gain = [f"{test['difference']:+.3f}", "" if test["p"] is None else f"{test['p']:.3f}"]
            size = "" if peak is None else f"{peak / 1e9:.2f}"
            rows.append([f"{kind}: {name}", *_cells(other), *gain, size])
            if floor and name in floor["baselines"]:
                cells = _cells(floor["baselines"][name])
                rows.append([f"{kind}: {name} on noise", *cells, "", "", ""])
    out = [
        Table(
            "What is new to the network",
            [*header, "network minus it", "p", "peak memory (GB)"],
            rows,
            "Mean (sd over folds and instances); intervals for new runs (subjects, blocks): "
            "jackknife over those of the test, Student's t. p: sign-flip test of accuracies in "
            "these groups, not corrected. "
            "Classical classifiers have the same volumes, scaled alike. "
            f"Chance: {measured['chance']:.3f}.",
        )
    ]
    rows = []
    for kind, found in measured["splits"].items():
        for number, fold in enumerate(found["folds"]):
            for i, row in enumerate(fold["instances"]):
                cells = [f"{row[n]:.3f}" for n in ("balanced_accuracy", "last")]
                epochs = f"{row['epoch']} of {row['epochs']}"
                sizes = " / ".join(map(str, fold["volumes"]))
                rows.append([kind, str(number + 1), str(i + 1), sizes, epochs, *cells])
    names = ["split", "fold", "instance", "train / validate / test", "epoch kept"]
    out.append(Table("Trainings", [*names, "balanced accuracy", "at the last epoch"], rows))
    rows = []
    for kind, found in measured["splits"].items():
        for k, name in enumerate(measured["classes"]):
            scores = [row for fold in found["folds"] for row in fold["instances"]]
            cells = [np.mean([row[s][k] for row in scores]) for s in ("precision", "recall", "f1")]
            rows.append([kind, name, *(f"{c:.3f}" for c in cells)])
    out.append(Table("Per class", ["split", "class", "precision", "recall", "F1"], rows))
    out.append(_seen(tested, design))
    return out


def _cells(found) -> list[str]:
    summary = found["summary"]
    main = summary["balanced_accuracy"]
    cells = [f"{main['mean']:.3f} ({main['sd']:.3f})"]
    cells.append("{:.3f} - {:.3f}".format(*found["ci95_groups"]))
    for name in ("accuracy", "auc_macro", "loss"):
        cells.append(f"{summary[name]['mean']:.3f}" if name in summary else "")
    return cells


def _seen(tested: Sequence[Tested], design: Design) -> Table:
    """Who saw what, in the first fold of each split."""
    rows = []
    for kind in dict.fromkeys(t.kind for t in tested):
        first = next(t for t in tested if t.kind == kind)
        for row in provenance.table(splits.seen(design, first.split)):
            said = "no"
            if row["step"] in first.leaks:
                what = "LEAK" if kind == "random" else "declared"
                said = f"{what}: {first.leaks[row['step']]} volumes, scored or of scored runs"
            rows.append([kind, row["step"], str(row["values"]), str(row["labels"]), said])
        for step in first.leaks:
            if step not in ("scaler", "network", "epoch choice"):
                said = f"declared: {first.leaks[step]} scored volumes, without labels"
                rows.append([kind, step, str(len(design.labels)), "0", said])
    return Table(
        "Who saw what",
        ["split", "step", "volumes seen", "labels seen", "saw what it is scored on"],
        rows,
        "Counts of the first fold. Under `random`, volumes of the scored runs train the network: "
        "neighbours in time are alike whatever is shown.",
    )


def _panels(measured, network):
    """Split -> method -> (mean, interval, mean on noise) for the figure: the network first."""

    def one(found, noise):
        mean = found["summary"]["balanced_accuracy"]["mean"]
        floor = noise["summary"]["balanced_accuracy"]["mean"] if noise else None
        return mean, tuple(found["ci95_groups"]), floor

    panels = {}
    for kind, found in measured["splits"].items():
        floor = found["null_floor"] or {"baselines": {}}
        panels[kind] = {network: one(found, found["null_floor"])} | {
            name: one(other, floor["baselines"].get(name))
            for name, other in found["baselines"].items()
        }
    return panels


def _figures(measured, network, heads: Sequence[Tested], design: Design, curves):
    out = {}
    out["accuracy"] = (
        plots.by_split(_panels(measured, network), measured["chance"]),
        "Balanced accuracy by what is new: subjects, runs, or (red) only volumes. Diamonds: the "
        "same design on noise without any response; what is right of chance there was remembered.",
    )
    labels = np.concatenate([design.labels[t.split.test] for t in heads for _ in t.outcomes])
    probabilities = np.concatenate([o["best"] for t in heads for o in t.outcomes])
    first = measured["headline_split"]
    table = metrics.confusion_matrix(
        labels, probabilities.argmax(1).astype(labels.dtype), len(measured["classes"])
    )
    out["confusion"] = (
        plots.confusion(np.asarray(table), measured["classes"]),
        f"Confusion, {first}, all folds and instances.",
    )
    lines = {}
    for k, name in enumerate(measured["classes"]):
        curve = metrics.roc_curve(labels == k, probabilities[:, k])
        area = float(metrics.auc(labels == k, probabilities[:, k]))
        lines[name] = (curve.false_positive_rate, curve.true_positive_rate, area)
    out["roc"] = (plots.roc(lines), f"One-vs-rest ROC curves, {first}, all test volumes pooled.")
    titles = {
        "by_subject": "monitored: other subjects",
        "by_run": "monitored: other runs",
        "by_block": "monitored: other blocks",
        "random": "monitored: neighbouring volumes",
    }
    shown = {kind: {n: v[: plots.MANY_FOLDS] for n, v in c.items()} for kind, c in curves.items()}
    out["curves"] = (
        plots.curves(shown, titles),
        "Learning curves; thin lines are folds and instances (at most six).",
    )
    return out


def collect_sweep(config, cohort: Cohort, design: Design, found) -> Result:
    """The L2 sweep: chosen by the monitored volumes, and only then scored on the test volumes."""
    tested, by_factor = found
    labels = design.labels[tested.split.test]
    rows = []
    for factor, outcome in by_factor.items():
        at = int(outcome["epoch"]) - 1
        row = {"factor": factor, "epoch": at + 1, "epochs": int(outcome["done"])}
        row |= {name: float(outcome[name][at]) for name in CURVES[:4]}
        rows.append(row)
    best = max(rows, key=lambda row: (row["accuracy"], -row["loss"]))
    outcome = by_factor[best["factor"]]
    scored = scores.scores(labels, outcome["best"])
    measured = _measured(config, cohort) | {
        "split": tested.kind,
        "sweep": rows,
        "chosen": best["factor"],
        "test": scored,
    }
    header = ["L2", "epoch kept", "training accuracy", "validation accuracy"]
    header += ["training loss", "validation loss"]
    cells = [
        [f"{r['factor']:g}", f"{r['epoch']} of {r['epochs']}"]
        + [f"{r[n]:.3f}" for n in ("train_accuracy", "accuracy", "train_loss", "loss")]
        for r in rows
    ]
    note = "At the epoch with the best validation accuracy. Losses contain the penalty."
    lines = {f"{factor:g}": o for factor, o in by_factor.items()}
    return Result(
        title="Experiment B: sweep of the L2 factor",
        headline=(
            f"L2 {best['factor']:g} has the best validation accuracy ({best['accuracy']:.3f}, "
            f"split {tested.kind}); its balanced accuracy on the test volumes is "
            f"{scored['balanced_accuracy']:.3f}, chance {measured['chance']:.3f}."
        ),
        metrics=measured,
        predictions={},
        curves={n: {c: o[c][None] for c in CURVES} for n, o in lines.items()},
        tables=[Table("L2 sweep", header, cells, note)],
        figures={
            "sweep": (
                plots.sweep([r["factor"] for r in rows], rows),
                "Loss and accuracy by L2 factor, at the epoch kept.",
            )
        },
        protocols=[tested.kind],
    )
