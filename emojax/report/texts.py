"""Sentences of the report: the headline, and the meaning of arms, protocols and splits."""

from collections.abc import Mapping, Sequence
from typing import Any

from emojax import alignment, splits
from emojax.report import floors, gains
from emojax.report.outcomes import NETWORK

ARMS = {
    "bag": "logistic regressions, each of which holds back another training subject (or run) to "
    "choose its penalty and temperature; their probabilities are averaged.",
    "logistic n-1": "one logistic regression trained on all subjects (or runs) except the test "
    "subject; its penalty is fixed.",
    "auto": "the bag or the network, whichever is better on inner folds that exclude the test "
    "subject.",
    "nested": "the network; its epoch is chosen on a held-back training subject (or run).",
    "last": "as nested, but the final epoch is kept: nothing is chosen.",
    "paper": "the published procedure: voxels and alignment are fitted to all subjects, epoch and "
    "learning rate follow the scores of the test subject itself, and its volumes are oversampled. "
    "Optimistic.",
    "paper, test volumes once": "as paper, but every test volume is scored once.",
    "leaky voxels and alignment": "voxels and alignment are fitted to all subjects; the epoch is "
    "chosen on a held-back training subject.",
    "leaky voxels": "only the voxels are chosen with the labels of all subjects.",
}
LADDER = (  # one leak closed per row, from the published procedure to the strict network
    ("paper", "the published procedure"),
    ("paper, test volumes once", "test volumes are not oversampled"),
    ("leaky voxels and alignment", "epoch and learning rate from a held-back subject"),
    ("leaky voxels", "alignment without the scored runs"),
    ("nested", "voxels without the test subject"),
)
TERMS = {
    "balanced accuracy": "the share of volumes predicted correctly, averaged over classes.",
    "chance": "the balanced accuracy of guessing: 1 divided by the number of classes.",
    "noise floor": "the score of the same procedure on data that hold no response to events; "
    "compare a result with it as well as with chance.",
}
PROTOCOLS = {
    "strict": "no fitted step has seen anything of the test subject.",
    "calibrated": "other runs of the test subject were seen (their values, possibly also their "
    "labels), but never the scored volumes.",
    "transductive": "values of the scored volumes were seen, but not their labels.",
    "leaky": "labels of the scored volumes, or of their neighbours in time, were seen. Such a row "
    "is shown for comparison and is never a result.",
}


def real(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the arms on measured values; all arms if the whole run is on noise."""
    return [arm for arm in metrics["arms"] if not arm["on_noise"]] or metrics["arms"]


def floor(metrics: Mapping[str, Any], arm: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the arm that fits noise the way `arm` fits measured values, or None."""
    noisy = [a for a in metrics["arms"] if a["on_noise"] and not a.get("draw")]
    noisy = [a for a in noisy if a["split"] == arm["split"] and not arm.get("decoder")]
    same = [a for a in noisy if a["regime"] == arm["regime"]]
    return None if arm["on_noise"] else next(iter(same or noisy), None)


def ladder(metrics: Mapping[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Returns the arms of the ladder, each with the leak that it closes.

    The list is empty without the published procedure.
    """
    arms = {arm["name"]: arm for arm in metrics["arms"] if arm["summary"]["network"]}
    if "paper" not in arms or not {"nested", "last"} & arms.keys():
        return []
    rows = []
    for name, text in LADDER:
        if name == "nested" and "leaky voxels and alignment" not in arms:
            text = "voxels, alignment, epoch and learning rate without the test subject"
        elif name == "nested" and "leaky voxels" not in arms:
            text = LADDER[3][1]  # each subject has voxels of its own: only the alignment leaked
        if name in arms:
            rows.append((arms[name], text))
    return rows


def title(metrics: Mapping[str, Any]) -> str:
    """Returns the title of the page."""
    config = metrics["config"]
    source = (config.get("data") or {}).get("source", "")
    what = "noise" if config.get("null") else f"data source {source}" if source else ""
    return f"Experiment {metrics['experiment']}" + (f": {what}" if what else "")


def data(metrics: Mapping[str, Any]) -> str:
    """Returns the size of the cohort in words."""
    parts = [f"{metrics['data'][name]} {name}" for name in ("subjects", "runs", "volumes")]
    return f"{', '.join(parts)} of {len(metrics['classes'])} classes."


def headline(metrics: Mapping[str, Any]) -> str:
    """Returns the result in one or two sentences."""
    if not metrics["arms"]:
        return "No arm was run."
    if metrics["chosen_arm"]:
        said = _sweep(metrics)
    else:
        said = _splits(metrics) if metrics["arms"][0]["split"] else _left_out(metrics)
    return " ".join(filter(None, [learned_nothing(metrics), said, gains.sentence(metrics)]))


def learned_nothing(metrics: Mapping[str, Any]) -> str:
    """Returns a sentence if the first network is constant, or ""."""
    asked = metrics["chosen_arm"]
    networks = [a for a in metrics["arms"] if not a.get("decoder") and asked in (None, a["name"])]
    head = networks[0] if networks else {}
    if not head.get("learned_nothing"):
        return ""
    train = metrics["config"].get("train") or {}
    keys = ("penalty_factor", "lr")
    values = [f" (now {train[key]:g})" if key in train else "" for key in keys]
    ways = " or ".join(f"train.{key}{value}" for key, value in zip(keys, values, strict=True))
    text = f"{head['name']}: the network learned nothing: {head['learned_nothing']}; lower {ways}."
    others = [arm["name"] for arm in real(metrics) if arm.get("learned_nothing")]
    if len(others) > 1:
        same = _listed([name for name in others if name != head["name"]])
        text += f" The same holds for {same}."
    return text


def first(arm: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns an arm's main classifier and its summary: the network, else the first classical."""
    if arm["summary"]["network"]:
        return NETWORK, arm["summary"]["network"]
    return next(iter(arm["summary"]["baselines"].items()), ("", {}))


def _score(arm: Mapping[str, Any]) -> dict[str, Any]:
    return first(arm)[1].get("balanced_accuracy") or {"mean": float("nan"), "sd": 0, "ci95": None}


def interval(score: Mapping[str, Any], joint: str = " to ") -> str:
    """Returns the limits of a 95 % interval as text, or "" without an interval.

    Args:
      score: an entry with "ci95": (low, high) or None.
      joint: text between the limits.
    """
    return joint.join(f"{limit:.3f}" for limit in score["ci95"] or ())


def _left_out(metrics: Mapping[str, Any]) -> str:
    """Returns the headline of an experiment that leaves one unit out."""
    head = metrics["arms"][0]
    score, (classifier, _) = _score(head), first(head)
    own = classifier in (NETWORK, head.get("decoder"))
    name = head["name"] if own else f"{head['name']}: {classifier}"
    limits = interval(score)
    inside = [f"95 % interval {limits}"] if limits else []
    inside += [f"sd {score['sd']:.3f} over {len(head['folds'])} folds"]
    text = f"{name}: balanced accuracy {score['mean']:.3f} ({', '.join(inside)}; "
    text += f"chance {metrics['chance']:.3f}), protocol {head['protocol']}"
    text += f", alignment {head['regime']}." if head["regime"] else "."
    if entry := floors.of(metrics, head, classifier):
        scheme = entry.get("scheme", floors.NOISE)
        text += f" Noise floor ({scheme}): {floors.words(entry)}."
    elif noise := floor(metrics, head):
        inside = f" ({interval(_score(noise))})" if _score(noise)["ci95"] else ""
        text += f" Noise floor: {_score(noise)['mean']:.3f}{inside}."
    network = next((a for a in real(metrics) if a["strict"] and a["summary"]["network"]), head)
    if network is not head:
        score = _score(network)
        inside = f" ({interval(score)})" if score["ci95"] else ""
        text += f" {metrics['network']}, {network['name']}: {score['mean']:.3f}{inside}."
    leaky = next((a for a in real(metrics)[1:] if not a["strict"]), None)
    if leaky is not None:
        text += f" {leaky['name']} (leaky, for comparison): {_score(leaky)['mean']:.3f}."
    return text


def _splits(metrics: Mapping[str, Any]) -> str:
    """Returns the headline of an experiment with splits."""
    parts, units = [], []
    arms = [arm for arm in real(metrics) if arm["split"]]
    for arm in arms:
        score, noise = _score(arm), floor(metrics, arm)
        inside = [interval(score)] if score["ci95"] else []
        inside += [f"noise floor {_score(noise)['mean']:.3f}"] if noise else []
        leaky = "" if arm["strict"] else " (leaky)"
        parts.append(f"{arm['name']}{leaky} {score['mean']:.3f} ({'; '.join(inside)})")
        units.append(f"{arm['unit']}s")
    classifier, _ = first(arms[0])
    name = metrics["network"] if classifier == NETWORK else classifier
    return (
        f"Balanced accuracy of {name}, by what is new about the test volumes: {', '.join(parts)}; "
        f"chance {metrics['chance']:.3f}. In brackets: 95 % intervals over "
        f"{' or '.join(dict.fromkeys(units))}."
    )


def _sweep(metrics: Mapping[str, Any]) -> str:
    """Returns the headline of a sweep."""
    arm = next(arm for arm in metrics["arms"] if arm["name"] == metrics["chosen_arm"])
    monitored = arm["folds"][0]["monitored"]
    where = f", split {arm['split']}" if arm["split"] else ""
    return (
        f"{arm['name']} has the best validation accuracy ({monitored['accuracy']:.3f}{where}); its "
        f"balanced accuracy on the test volumes is {_score(arm)['mean']:.3f}, "
        f"chance {metrics['chance']:.3f}."
    )


def terms(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Returns the meaning of each arm, split, alignment and protocol, in order of the tables."""
    out, head = dict(TERMS), metrics["arms"][0]
    if not (metrics.get("floor") or any(arm["on_noise"] for arm in metrics["arms"])):
        del out["noise floor"]
    for arm in real(metrics):
        if arm["name"] in ARMS:
            quoted = " This is the number to quote." if arm is head and arm["strict"] else ""
            out[arm["name"]] = ARMS[arm["name"]] + quoted
        if arm["split"]:
            out[arm["split"]] = splits.SPLITS[arm["split"]].text
    for arm in real(metrics):
        if arm["regime"]:
            out[f"alignment {arm['regime']}"] = alignment.REGIMES[arm["regime"]].text
    for arm in real(metrics):
        out[f"protocol {arm['protocol']}"] = PROTOCOLS[arm["protocol"]]
    return out


def unconverged(metrics: Mapping[str, Any]) -> str:
    """Returns a sentence on classical classifiers that did not converge, or ""."""
    many = len(with_classical(metrics)) > 1
    found = []
    for arm in metrics["arms"]:
        for name in arm["summary"]["baselines"]:
            ends = [fold["baselines"][name].get("converged", True) for fold in arm["folds"]]
            if not all(ends):
                row = f"{arm['name']}: {name}" if many else name
                row = arm["name"] if name == arm.get("decoder") else row
                found.append(f"{row} ({ends.count(False)} of {len(ends)} folds)")
    return f"Did not converge: {', '.join(found)}." if found else ""


def with_classical(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the arms that have classical classifiers beside their own decoder."""
    return [
        arm for arm in metrics["arms"] if set(arm["summary"]["baselines"]) - {arm.get("decoder")}
    ]


def whom(row: Mapping[str, Any]) -> str:
    """Returns what a step (a row of `seen`) saw of the scored volumes and their subjects, or ""."""
    parts = []
    for key, of in (
        ("of_scored", "scored volumes"),
        ("of_scored_runs", "other volumes of the scored runs"),
        ("of_other_runs", "volumes of other runs of the test subjects"),
    ):
        values, labels = row[key]["values"], row[key]["labels"]
        if values and labels:
            shown = str(values) if values == labels else f"{values} and {labels}"
            parts.append(f"values and labels of {shown} {of}")
        elif values or labels:
            parts.append(f"{'values' if values else 'labels'} of {values or labels} {of}")
    return ", ".join(parts)


def audit(metrics: Mapping[str, Any]) -> str:
    """Returns one or two sentences on what the audit perturbed and what changed."""
    found = metrics["audit"]
    if not found.get("measured"):
        return "Each read of the data was recorded; no audit measured it in this run."
    entries = found["arms"]
    changes = dict.fromkeys(text for entry in entries.values() for text in entry["perturbations"])
    text = (
        f"Audit of {len(entries)} arm{'' if len(entries) == 1 else 's'}: "
        f"{_listed(list(changes))}; then everything was fitted again and compared bit by bit. "
        "Every change is explained by what the arm has read."
    )
    caught = [name for name, entry in entries.items() if entry["expected"]]
    return text + (f" Declared leaky, and caught: {'; '.join(caught)}." if caught else "")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def limits(metrics: Mapping[str, Any]) -> str:
    """Returns sentences on what intervals and p values of the main table mean and leave out."""
    arms = real(metrics)
    folds = max((len(arm["folds"]) for arm in arms), default=0)
    if arms and arms[0]["split"]:
        text = (
            "Mean (sd over folds and instances). Intervals describe new units: jackknife over the "
            "subjects, runs or blocks that were tested, with Student's t; a single unit gives 0 to "
            "1. They do not include the variation from another draw of the training volumes. p: "
            "sign-flip test of the network minus the row, over these units"
        )
    else:
        text = (
            "Mean (sd over folds). Intervals: Student's t over folds. Folds share training "
            "volumes, so they are not independent and the intervals are approximate (if anything, "
            "too narrow). p: sign-flip test of the network minus the row, over folds"
        )
        if folds > 1:
            text += f", which cannot be below {2.0 ** (1 - folds):.2g} with {folds} folds"
    return f"{text}. Chance: {metrics['chance']:.3f}."
