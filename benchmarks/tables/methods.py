"""Tables of what was measured about settings, recipes, evidence and damaged scans."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.tables.stored import Stored, short, source, table

CORRECTIONS = ("none", "auto")
PENALTIES = ("L2 5e-2", "L2 1e-3", "L1 5e-3", "none")
MAPS = {"saliency": "integrated gradients", "weights": "its weights"}
EVIDENCE = ("single", "block", "block, base=.5/.25/.25", "ema:1")
STUDIES = {
    "demo": "`expB.py:demo`, 6 folds by subject",
    "haxby_b": "`haxby_b.py`, 4 folds by run",
    "emotion_maps": "`emotion_maps.py` as volumes, 5 folds by person",
}
RECIPES = {
    "linear": "linear: logistic regression of all voxels",
    "linear, means of 2 voxels": "linear, means of 2 x 2 x 2 voxels",
    "linear, means of 4 voxels": "linear, means of 4 x 4 x 4 voxels",
    "MLP": "MLP 256, zero head, of means of 2",
    "linear + MLP": "linear + that MLP",
    "convolutions": "convolutions: 8, 16, 32 channels, 2 x 2 x 2",
    "linear + convolutions": "linear + these convolutions",
    "chosen": "chosen by the monitored groups of each fold",
}
T_QUANTILE = {4: 3.182446, 5: 2.776445, 6: 2.570582}  # folds -> Student's t, .975


def paper_settings(stored: Stored) -> list[str]:
    """Returns accuracy after two epochs by penalty, rate and batch norm."""
    part = stored.part("paper_settings_cpu", "experiment A")
    most = max(line["seeds"] for line in part.results["summary"])
    said = f"monitored / test accuracy; one seed, or the mean and range of {most}"
    return settings(part.results) + source(said, part)


def settings(found: Mapping[str, Any]) -> list[str]:
    """Returns the table of `paper_settings`, from its results as measured."""
    cells = {}
    for line in found["summary"]:
        (low, mean, high), test = line["monitored"], line["test"][1]
        seeds = f" ({low:.2f}-{high:.2f})" if line["seeds"] > 1 else ""
        cells[line["penalty"], line["rate"], line["norm"]] = f"{mean:.2f}{seeds} / {test:.2f}"
    _, rates, norms = (list(dict.fromkeys(own)) for own in zip(*cells, strict=True))
    rows = [
        [penalty, f"{rate:g}", *(cells.get((penalty, rate, norm), "") for norm in norms)]
        for penalty, rate in itertools.product(PENALTIES, rates)
    ]
    return table(["penalty", "rate", *norms], [row for row in rows if any(row[2:])])


def recipes_b(stored: Stored) -> list[str]:
    """Returns recipes of networks for Experiment B beside linear ones."""
    parts = {name: stored.part("recipes_b_cpu", name) for name in STUDIES}
    rows = [
        [words, *(_recipe(part.results, recipe) for part in parts.values())]
        for recipe, words in RECIPES.items()
    ]
    said = "balanced accuracy (95 % interval of the difference to the first row); NLL; one seed"
    return table(["recipe", *STUDIES.values()], rows) + source(said, *parts.values())


def _recipe(found: dict[str, Any], recipe: str) -> str:
    ours, linear = ([row["accuracy"] for row in found[name]] for name in (recipe, "linear"))
    nll = short(statistics.mean(row["nll"] for row in found[recipe]))
    gap = "" if recipe == "linear" else f" ({_gap(ours, linear)})"
    return f"{short(statistics.mean(ours))}{gap}; {nll}"


def _gap(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Returns Student's t interval over folds of a difference."""
    gaps = [own - other for own, other in zip(ours, theirs, strict=True)]
    half = T_QUANTILE[len(gaps)] * statistics.stdev(gaps) / len(gaps) ** 0.5
    low, high = (statistics.mean(gaps) + side * half for side in (-1, 1))
    return f"{low:+.3f} to {high:+.3f}".replace("0.", ".")


def maps_planted(stored: Stored) -> list[str]:
    """Returns how well maps find the voxels that respond in the simulated cohort."""
    part = stored.part("maps_cpu", "planted")
    rows = []
    for row in part.results:
        random = short(row["random"]) if "random" in row else ""
        random += f" ({short(row['random_over_sd'])})" if "random_over_sd" in row else ""
        name = f"{row['decoder']}, {row['voxels']:,} voxels"
        name += f", {row['epochs']} epochs" if "epochs" in row else ""
        rows.append([name, MAPS.get(row["map"], row["map"]), short(row["real"]), random])
    said = "ROC AUC of one fold of one cohort (in brackets: divided by each voxel's sd)"
    return table(["decoder", "map", "trained", "random weights"], rows) + source(said, part)


def evidence_volumes(stored: Stored) -> list[str]:
    """Returns the accuracy of evidence after each volume of a block."""
    part = stored.part("evidence_cpu", "demo030")
    rows = [[name, *(f"{own:.3f}" for own in part.results[name])] for name in EVIDENCE]
    count = len(part.results["single"])
    head = ["volume of the block", *(str(i + 1) for i in range(count))]
    return table(head, rows) + source(f"{part.results['blocks']} blocks of one cohort", part)


def evidence_tests(stored: Stored) -> list[str]:
    """Returns how often sequential tests decide, and how often they are wrong."""
    part = stored.part("evidence_cpu", "demo030")
    rows = []
    for options, tests in part.results["tests"].items():
        for error, row in tests.items():
            cells = [f"{row['decided']:.0%}", f"{row['wrong']:.3f}", f"{row['volumes']:.1f}"]
            rows.append([options, error, *cells])
    head = ["test", "stated error", "decided", "share of decisions that are wrong", "volumes"]
    return table(head, rows) + source(f"{part.results['blocks']} blocks of one cohort", part)


def decoder_corrected(stored: Stored) -> list[str]:
    """Returns accuracy and confidence of changed volumes, as they come and corrected."""
    part = stored.part("scanner_cpu", "demo030")
    rows = []
    for name, subjects in part.results["changed"].items():
        found = [row[correct] for row in subjects.values() for correct in CORRECTIONS]
        cells = [f"{own['balanced_accuracy']:.3f} ({own['confidence']:.2f})" for own in found]
        rows.append([name, *cells])
    head = ["volumes", "01: as they come", "corrected", "02, calibrated: as they come", "corrected"]
    said = "balanced accuracy (mean of the highest probability) in one run of one cohort"
    return table(head, rows) + source(said, part)


def decoder_marked(stored: Stored) -> list[str]:
    """Returns the share of damaged volumes that is marked."""
    part = stored.part("scanner_cpu", "demo030")
    rows = [
        [name, *(f"{share:.0%}" for share in subjects.values())]
        for name, subjects in part.results["damaged"].items()
    ]
    head = ["volumes", "marked, subject 01", "marked, subject 02"]
    return table(head, rows) + source("one cohort", part)


def decoder_clean(stored: Stored) -> list[str]:
    """Returns how many clean volumes are marked."""
    part = stored.part("scanner_cpu", "demo030")
    rows = [
        [name, f"{marked} of {total:,}"] for name, (marked, total) in part.results["clean"].items()
    ]
    return table(["clean volumes of", "marked"], rows) + source("", part)


def decoder_calibration(stored: Stored) -> list[str]:
    """Returns what `calibrate` says of the right run and of wrong ones."""
    part = stored.part("scanner_cpu", "demo030")
    rows = [
        [name, said.removeprefix("calibration run: found ")]
        for name, said in part.results["calibrations"].items()
    ]
    return table(["calibration run of subject 02", "answer"], rows) + source("one cohort", part)
