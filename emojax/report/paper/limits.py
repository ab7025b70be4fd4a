"""The limits of a run: a list of conclusions that its numbers do not support."""

from collections.abc import Iterator, Mapping
from typing import Any

from emojax.report import designs, floors, gains, permutations, texts
from emojax.report.paper.words import (
    Metrics,
    count,
    head,
    is_leaky,
    listed,
    name_of,
    network_tests,
    score,
    setting,
)
from emojax.scoring.baselines import NUISANCE

FEW = 12  # folds or groups; with fewer, intervals are rough
SURE = designs.SURE
Arm = Mapping[str, Any]


def sentences(metrics: Metrics) -> list[str]:
    """Returns sentences on what a reader must not conclude from a run; [] without a score."""
    arm = head(metrics)
    if arm is None or not texts.first(arm)[0]:
        return []
    parts = (_data, _protocol, _chance, _floor, _within, _levels, _design, _network, _folds)
    parts += (_probabilities, _groups, _measured)
    return [text for part in parts for text in part(metrics, arm)]


def _data(metrics: Metrics, arm: Arm) -> Iterator[str]:
    if setting(metrics, "null", False):
        yield "All values are noise: any accuracy above chance is an error of the procedure."
    elif setting(metrics, "data.source") == "synthetic":
        yield "The data are simulated: the numbers describe the procedure, not human brains."
    if arm.get("learned_nothing"):
        yield f"{arm['name']} learned nothing ({arm['learned_nothing']}): its score is no evidence."


def _protocol(metrics: Metrics, arm: Arm) -> Iterator[str]:
    name = name_of(arm)
    if is_leaky(arm):
        yield (
            f"{name} is declared leaky: labels of the scored volumes, or of their neighbours in "
            "time, entered its fits. It is no estimate of the accuracy on new data."
        )
        return
    seen = {row["step"]: row["of_other_runs"] for row in arm["seen"]}
    values, labels = (any(row[kind] for row in seen.values()) for kind in ("values", "labels"))
    if values or labels:
        in_time = seen.get("alignment", {}).get("values")
        what = "labelled volumes" if labels else "volumes"
        how = " (matched in time with those of other subjects)" if in_time and not labels else ""
        yield (
            f"{name} used {what} from other runs of the test subject{how}. It does not apply to a "
            f"subject without such runs{_uncalibrated(metrics, arm)}."
        )
    if arm["protocol"] == "transductive":
        yield (
            f"{name} saw values of the scored volumes before it decoded them, so it does not "
            "measure decoding volume by volume, as in real time."
        )
    if arm["split"] in ("by_run", "by_block"):
        yield f"The split {arm['split']} tests subjects that are also in the training set."


def _uncalibrated(metrics: Metrics, arm: Arm) -> str:
    """Returns a clause on the best row that saw nothing of the test subject, or ""."""
    rows = [a for a in texts.real(metrics) if a["protocol"] == "strict" and texts.first(a)[0]]
    if not rows:
        return ""
    best = max(rows, key=lambda a: texts.first(a)[1]["balanced_accuracy"]["mean"])
    reached = texts.first(best)[1]["balanced_accuracy"]["mean"]
    return f"; the best row that saw nothing of the subject, {name_of(best)}, reaches {reached:.3f}"


def _chance(metrics: Metrics, arm: Arm) -> Iterator[str]:
    found, classifier = metrics.get("permutation"), texts.first(arm)[0]
    if not found:
        off = " (permutations=0)" if setting(metrics, "permutations", 0) == 0 else ""
        yield f"The headline was not tested against chance by permutations of the labels{off}."
        return
    if found["least_p"] > SURE:
        yield (
            f"{len(found['null'])} permutations are too few to show that the headline is above "
            f"chance: p cannot be below {permutations.number(found['least_p'])}."
        )
    elif found["p"] > SURE:
        yield (
            f"The headline is not shown to be above chance: p = {permutations.number(found['p'])} "
            f"over {len(found['null'])} permutations."
        )
    if found["classifier"] != classifier:
        tested = permutations.name_of(metrics)
        yield f"The permutation test is of {tested}, not of the headline {name_of(arm)}."


def _floor(metrics: Metrics, arm: Arm) -> Iterator[str]:
    classifier, summary = texts.first(arm)
    ours, chance = summary["balanced_accuracy"], metrics["chance"]
    found = floors.of(metrics, arm, classifier)
    if not found and (noise := texts.floor(metrics, arm)):
        found = texts.first(noise)[1].get("balanced_accuracy")
    if not found:
        if arm.get("decoder") == "auto":
            yield "The noise floor covers bag and network, but not the choice between them."
        elif not arm["on_noise"] and not setting(metrics, "null", False):
            key = "noise.draws=0" if setting(metrics, "null_floor", False) else "null_floor=False"
            yield f"The noise floor was not measured ({key})."
        return
    if found["ci95"] and found["ci95"][0] > chance:
        yield (
            f"The noise floor is {score(found)}, above chance ({chance:.3f}): this part of the "
            "headline is not a response to the events."
        )
    if ours["ci95"] and ours["ci95"][0] <= max(found["mean"], found.get("high", 0)):
        yield (
            f"The interval of the headline, {score(ours)}, reaches down to the noise floor, "
            f"{found['mean']:.3f}."
        )


def _within(metrics: Metrics, arm: Arm) -> Iterator[str]:
    found = metrics.get("within_subject") or {}
    if not found:
        own = [row["step"] for row in arm["seen"] if any(row["of_other_runs"].values())]
        if {"voxels", "alignment"} & set(own):
            if setting(metrics, "units") == "run":
                return  # the headline trains on them
            on = setting(metrics, "within_subject", False)
            why = "these runs lack a class" if on else "within_subject=False"
            yield (
                "The obvious alternative, a decoder trained on the test subject's other runs "
                f"alone, was not fitted ({why})."
            )
        return
    gains = {name: entry.get("minus_cross_subject") for name, entry in found.items()}
    best = max(found, key=lambda name: found[name]["mean"])
    gain, reached = gains[best], score(found[best])
    if not gain or not gain.get("ci95"):
        return
    low, high = gain["ci95"]
    if low > 0:
        yield (
            "A benefit from other subjects is not shown: trained on the test subject's own runs "
            f"alone, {best} reaches {reached}, better by {gain['difference']:.3f} "
            f"({texts.interval(gain)}) than logistic regression trained on the other subjects."
        )
    elif high >= 0:
        yield (
            "A benefit from other subjects is not shown: trained on the test subject's own runs "
            f"alone, {best} reaches {reached}, a difference of {gain['difference']:+.3f} "
            f"({texts.interval(gain)}) to logistic regression trained on the other subjects."
        )


def _levels(metrics: Metrics, arm: Arm) -> Iterator[str]:
    found = metrics.get("crossed") or {}
    tested = False
    for factor, entries in found.items():
        if "left out" in entries:
            continue
        tested = True
        for classifier, entry in entries.items():
            if entry.get("null") is None or entry["null"]["draws"] < designs.LEAST_DRAWS:
                yield f"Whether {classifier} works at new levels of {factor} was not tested."
            elif entry["p"] > SURE:
                known = entry["leaving_subjects_out"]["mean"]
                yield (
                    f"{classifier} is not shown to decode the labels at new levels of {factor}: "
                    f"{score(entry)} lies within its null (p = {permutations.number(entry['p'])}), "
                    f"although it reaches {known:.3f} at known levels."
                )
    if not tested:
        on = setting(metrics, "crossed", "")
        why = "the study has no column that can be crossed" if on else "crossed=''"
        yield (
            "Training and scored volumes share their stimuli and conditions; new ones were not "
            f"tested ({why})."
        )


def _design(metrics: Metrics, arm: Arm) -> Iterator[str]:
    found = metrics.get("design")
    if not found:
        off = "" if setting(metrics, "design", False) else " (design=False)"
        yield f"Whether labels can be known from the design alone was not tested{off}."
        return
    lookup = found.get("lookup")
    if lookup and lookup["accuracy"] > lookup["chance"] + 0.05:
        yield (
            "The time in the run predicts the label without any image (accuracy "
            f"{lookup['accuracy']:.3f}, commonest label {lookup['chance']:.3f}): decoding accuracy "
            "does not prove that the response to the events was decoded."
        )
    above = [
        f"{name} {score(entry)}"
        for name, entry in (found.get("nuisance") or {}).items()
        if name != "columns" and entry.get("ci95") and entry["ci95"][0] > metrics["chance"]
    ]
    if above:
        yield f"Nuisance columns alone, without any image, are above chance: {listed(above)}."
    both = found.get("subject_and_run_out")
    gain = (both or {}).get("minus_subject_out") or {}
    if gain.get("ci95") and gain["ci95"][1] < 0:
        yield (
            f"Accuracy is lower in new runs: new subject and new run {score(both)}, "
            f"{gain['difference']:+.3f} ({texts.interval(gain)}) relative to a new subject in a "
            "known run."
        )


def _network(metrics: Metrics, arm: Arm) -> Iterator[str]:
    """Yields comparisons of the network with the best other row, and with its linear path."""
    tests = {name: test for name, test in network_tests(metrics).items() if NUISANCE not in name}
    if tests:
        best = min(tests, key=lambda name: tests[name]["difference"])
        test = tests[best]
        if not test["ci95"] or test["ci95"][0] <= 0:
            limits = f" ({texts.interval(test)})" if test["ci95"] else ""
            worse = bool(test["ci95"]) and test["ci95"][1] < 0
            yield (
                f"The network {'is worse than' if worse else 'is not shown to beat'} {best}: "
                f"{test['difference']:+.3f}{limits} in the same folds."
            )
    for other in metrics["arms"]:
        gain = other.get("gain")
        if gain and not (gain["counts"] and gain["ci95"] and gain["ci95"][0] > 0):
            yield (
                f"{other['name']}: the network is not shown to add anything to its linear path: "
                f"{gains.cell(gain)}."
            )


def _folds(metrics: Metrics, arm: Arm) -> Iterator[str]:
    if arm["split"]:
        groups = arm["summary"].get("by_group") or ()
        if groups and len(groups) < FEW:
            yield f"Only {count(len(groups), arm['unit'])} were tested: the interval is rough."
    elif len(arm["folds"]) < FEW:
        least = 2.0 ** (1 - len(arm["folds"]))
        yield (
            f"{len(arm['folds'])} folds are few: intervals are rough, and no sign-flip p can be "
            f"below {least:.2g}."
        )
    many = max((len(fold["instances"]) for fold in arm["folds"]), default=0)
    if arm["summary"]["network"] and many < 2:
        yield (
            f"Each network was trained once, with seed {setting(metrics, 'seed', 0)}: the "
            "variation over seeds was not measured."
        )
    if said := texts.unconverged(metrics):
        yield said


def _probabilities(metrics: Metrics, arm: Arm) -> Iterator[str]:
    _, summary = texts.first(arm)
    if "nll" not in summary or "base_rate_nll" not in summary:
        return
    nll, base = summary["nll"]["mean"], summary["base_rate_nll"]["mean"]
    if nll >= base:
        yield (
            f"Probabilities are worse than the class base rates: {nll:.3f} against {base:.3f} "
            "nats. Use the predicted class alone."
        )


def _groups(metrics: Metrics, arm: Arm) -> Iterator[str]:
    names = [name for name in metrics.get("groups") or {} if name]
    if len(names) > 1:
        yield f"Scores of {listed(names)} are listed separately; their difference was not tested."


def _measured(metrics: Metrics, arm: Arm) -> Iterator[str]:
    if not (metrics.get("audit") or {}).get("measured"):
        yield "The record of who saw what was not checked by an audit (audit=False)."
    if any("voxels" in fold for fold in arm["folds"]):
        yield (
            "The map of chosen voxels is not a test of where the brain responds: voxels were "
            "selected for decoding, and others may carry as much information."
        )
