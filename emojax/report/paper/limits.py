"""What a run does not show: a list that is made from its own numbers."""

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

FEW = 12  # folds or groups; with fewer an interval says little
SURE = designs.SURE
Arm = Mapping[str, Any]


def sentences(metrics: Metrics) -> list[str]:
    """Returns what a reader must not conclude from a run; [] where nothing was scored."""
    arm = head(metrics)
    if arm is None or not texts.first(arm)[0]:
        return []
    parts = (_data, _protocol, _chance, _floor, _within, _levels, _design, _network, _folds)
    parts += (_probabilities, _groups, _measured)
    return [text for part in parts for text in part(metrics, arm)]


def _data(metrics: Metrics, arm: Arm) -> Iterator[str]:
    if setting(metrics, "null", False):
        yield "All values are noise: whatever is above chance here is an error of the procedure."
    elif setting(metrics, "data.source") == "synthetic":
        yield "The data are simulated: the numbers say how the procedure works, nothing of people."
    if arm.get("learned_nothing"):
        yield f"{arm['name']} learned nothing ({arm['learned_nothing']}): its score is no evidence."


def _protocol(metrics: Metrics, arm: Arm) -> Iterator[str]:
    name = name_of(arm)
    if is_leaky(arm):
        yield (
            f"{name} is leaky by name: labels of the scored volumes, or of their neighbours in "
            "time, entered its fits. It is no estimate of the accuracy on new data."
        )
        return
    seen = {row["step"]: row["of_other_runs"] for row in arm["seen"]}
    values, labels = (any(row[kind] for row in seen.values()) for kind in ("values", "labels"))
    if values or labels:
        in_time = seen.get("alignment", {}).get("values")
        what = "labelled volumes" if labels else "volumes"
        what += ", matched in time with those of the others," if in_time and not labels else ""
        yield (
            f"{name} used {what} of other runs of whom it is scored on. For a person without such "
            f"runs it says nothing{_uncalibrated(metrics, arm)}."
        )
    if arm["protocol"] == "transductive":
        yield (
            f"{name} saw values of the scored volumes before it decoded them, so that it is no "
            "measure of decoding volume by volume, as they come."
        )
    if arm["split"] in ("by_run", "by_block"):
        yield f"The split {arm['split']} tests people who also trained: it is not about new people."


def _uncalibrated(metrics: Metrics, arm: Arm) -> str:
    """Returns the best row that saw nothing of whom it is scored on, or ""."""
    rows = [a for a in texts.real(metrics) if a["protocol"] == "strict" and texts.first(a)[0]]
    if not rows:
        return ""
    best = max(rows, key=lambda a: texts.first(a)[1]["balanced_accuracy"]["mean"])
    reached = texts.first(best)[1]["balanced_accuracy"]["mean"]
    return f"; the row that saw nothing of them, {name_of(best)}, reaches {reached:.3f}"


def _chance(metrics: Metrics, arm: Arm) -> Iterator[str]:
    found, classifier = metrics.get("permutation"), texts.first(arm)[0]
    if not found:
        off = " (permutations=0)" if setting(metrics, "permutations", 0) == 0 else ""
        yield f"The headline was not tested against chance by permutations of the labels{off}."
        return
    if found["least_p"] > SURE:
        yield (
            f"{len(found['null'])} permutations are too few to tell the headline from chance: p "
            f"cannot be below {permutations.number(found['least_p'])}."
        )
    elif found["p"] > SURE:
        yield (
            f"The headline is not told from chance: p = {permutations.number(found['p'])} over "
            f"{len(found['null'])} permutations."
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
            yield "The choice itself was not made on noise; bag and network were fitted to it."
        elif not arm["on_noise"] and not setting(metrics, "null", False):
            key = "noise.draws=0" if setting(metrics, "null_floor", False) else "null_floor=False"
            yield f"What the procedure finds in noise was not measured ({key})."
        return
    if found["ci95"] and found["ci95"][0] > chance:
        yield (
            f"On noise the procedure reaches {score(found)}, above chance ({chance:.3f}): that "
            "part of the headline is no response to the events."
        )
    if ours["ci95"] and ours["ci95"][0] <= max(found["mean"], found.get("high", 0)):
        yield (
            f"The headline, {score(ours)}, does not stand clear of what the same procedure finds "
            f"in noise, {found['mean']:.3f}."
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
                "A decoder of the scored person's other runs alone is the obvious rival; it was "
                f"not fitted ({why})."
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
            f"That other people help is not shown: the scored person's own runs alone ({best}) "
            f"reach {reached}, {gain['difference']:+.3f} ({texts.interval(gain)}) more than "
            "logistic regression of the other people."
        )
    elif high >= 0:
        yield (
            f"That other people help is not shown: the scored person's own runs alone ({best}) "
            f"reach {reached}, a difference of {gain['difference']:+.3f} ({texts.interval(gain)}) "
            "to logistic regression of the other people."
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
                yield f"Whether {classifier} holds for new levels of {factor} was not tested."
            elif entry["p"] > SURE:
                known = entry["leaving_subjects_out"]["mean"]
                yield (
                    f"{classifier} is not shown to know the labels at new levels of {factor}: "
                    f"{score(entry)} lies inside its null (p = {permutations.number(entry['p'])}), "
                    f"whatever the {known:.3f} at known levels."
                )
    if not tested:
        on = setting(metrics, "crossed", "")
        why = "the study has no column that can be crossed" if on else "crossed=''"
        yield (
            "Scored volumes show the stimuli and conditions that trained the decoder: new ones "
            f"were not tested ({why})."
        )


def _design(metrics: Metrics, arm: Arm) -> Iterator[str]:
    found = metrics.get("design")
    if not found:
        off = "" if setting(metrics, "design", False) else " (design=False)"
        yield f"Whether the design gives the labels away was not asked{off}."
        return
    lookup = found.get("lookup")
    if lookup and lookup["accuracy"] > lookup["chance"] + 0.05:
        yield (
            f"The time in the run tells the label without any image (right in "
            f"{lookup['accuracy']:.3f} of the volumes, commonest label {lookup['chance']:.3f}): "
            "accuracy does not prove that the response to the events was decoded."
        )
    above = [
        f"{name} {score(entry)}"
        for name, entry in (found.get("nuisance") or {}).items()
        if name != "columns" and entry.get("ci95") and entry["ci95"][0] > metrics["chance"]
    ]
    if above:
        yield f"Nuisance columns without any image are above chance: {listed(above)}."
    both = found.get("subject_and_run_out")
    gain = (both or {}).get("minus_subject_out") or {}
    if gain.get("ci95") and gain["ci95"][1] < 0:
        yield (
            f"A new run costs accuracy: new participant and new run {score(both)}, "
            f"{gain['difference']:+.3f} ({texts.interval(gain)}) to a new participant alone."
        )


def _network(metrics: Metrics, arm: Arm) -> Iterator[str]:
    """Compares the network with the best of the other rows, and with its linear path."""
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
                f"{other['name']}: that the network adds anything to its linear path is not shown, "
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
            f"Every network was trained once, from seed {setting(metrics, 'seed', 0)}: how much "
            "another seed changes the score was not measured."
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
            f"Probabilities are worse than quoting the classes' shares: {nll:.3f} nats against "
            f"{base:.3f}. Use the predicted class alone."
        )


def _groups(metrics: Metrics, arm: Arm) -> Iterator[str]:
    names = [name for name in metrics.get("groups") or {} if name]
    if len(names) > 1:
        yield f"Scores of {listed(names)} stand side by side; their difference was not tested."


def _measured(metrics: Metrics, arm: Arm) -> Iterator[str]:
    if not (metrics.get("audit") or {}).get("measured"):
        yield "Who saw what is what the reads wrote down: no audit measured it (audit=False)."
    if any("voxels" in fold for fold in arm["folds"]):
        yield (
            "The map of chosen voxels is no test of where the brain differs: voxels were chosen to "
            "decode, and others may carry as much."
        )
