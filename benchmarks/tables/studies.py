"""Tables of scores: the demos, the real studies, ways of aligning people."""

from collections.abc import Mapping
from typing import Any

from benchmarks.tables.stored import Part, Stored, interval, source, table

FILE = "studies_cpu"
TOLERANCE = 0.06  # of a mean on other machines, in tests/test_readme.py
SHORT = ("bag", "logistic n-1", "nested", "paper", "SVM-linear", "noise floor")
STUDIES = {
    "finger7t": "five fingers, 7 subjects, leave one subject out",
    "haxby": "eight categories, 12 runs of one subject, leave one run out",
    "haxby_b": "faces or houses, 12 runs, ResNet-18, `by_run`",
    "emotion_maps": "anger, disgust, fear, 30 people, 9 maps each",
}
NETWORKS = ("CNN", "ResNet-18", "ResNet-50")


def demo(stored: Stored) -> list[str]:
    """Returns what the command of the demo printed at its end."""
    part = stored.part(FILE, "demo")
    return ["```text", *part.results["printed"], "```", *source(_variation(stored), part)]


def demo_short(stored: Stored) -> list[str]:
    """Returns a few rows of the demo as a table."""
    part = stored.part(FILE, "demo")
    found = demo_rows(part.results)
    rows = []
    for name in SHORT:
        arm, scores = found[name]
        low, high = scores["ci95"]
        cells = [f"{scores['mean']:.3f} ({scores['sd']:.3f})", f"{low:.3f} - {high:.3f}"]
        rows.append([name, *cells, arm["protocol"]])
    head = ["", "balanced accuracy (sd)", "95 % interval", "protocol"]
    return table(head, rows) + source(_variation(stored), part)


def demo_rows(results: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Returns the arm and the balanced accuracy of each printed row, by the row's name."""
    rows = {}
    for name, arm in results["arms"].items():
        for classifier, scores in arm["classifiers"].items():
            own = classifier in NETWORKS or len(arm["classifiers"]) == 1
            rows[name if own else classifier] = arm, scores["balanced_accuracy"]
    return rows


def _variation(stored: Stored) -> str:
    first = demo_rows(stored.part(FILE, "demo").results)
    again = [part for name, part in stored.parts(FILE).items() if name.startswith("demo, ")]
    others = [demo_rows(part.results) for part in again]
    limit = f"tests allow {TOLERANCE} on other machines"
    if not others:
        return limit
    widest = max(
        abs(run[name][1]["mean"] - first[name][1]["mean"]) for run in others for name in first
    )
    more = f"{len(others)} other runs" if len(others) > 1 else "another run"
    return f"means of {more} differ by {widest:.3f} at most; {limit}"


def demo_b(stored: Stored) -> list[str]:
    """Returns the demo of Experiment B: every method under every split, and on noise."""
    part = stored.part(FILE, "demoB")
    arms, floors = part.results["arms"], part.results["floor"]
    splits = [name for name in arms if not name.endswith("on noise")]
    rows = []
    for name in arms[splits[0]]["classifiers"]:
        if name == "nuisance":
            continue
        rows.append([name, *(_score(arms[split], name) for split in splits)])
        if name in NETWORKS:
            noise = [_score(arms[f"{split} on noise"], name) for split in splits]
            rows.append([f"{name} on noise", *noise])
        elif name in floors[splits[0]]:
            draws = len(floors[splits[0]][name]["draws"])
            noise = [interval(floors[split][name]) for split in splits]
            rows.append([f"{name} on noise, {draws} draws", *noise])
    leaky = {split: " (leaky)" if arms[split]["protocol"] == "leaky" else "" for split in splits}
    head = ["balanced accuracy (95 % interval)", *(f"`{s}`{leaky[s]}" for s in splits)]
    return table(head, rows) + source("one run", part)


def _score(arm: Mapping[str, Any], classifier: str) -> str:
    return interval(arm["classifiers"][classifier]["balanced_accuracy"])


def studies(stored: Stored) -> list[str]:
    """Returns the headline of each real study beside its rivals."""
    parts = [stored.part(FILE, name) for name in STUDIES]
    rows = [_study(part, said) for part, said in zip(parts, STUDIES.values(), strict=True)]
    head = ["", "chance", "bag", "one classical classifier", "network"]
    head += ["the test subject's other runs alone", "on noise", "p (permutations)"]
    return table(head, rows) + source("one run of each", *parts)


def _study(part: Part, said: str) -> list[str]:
    found = part.results
    arms, (floor, *_) = found["arms"], found["floor"].values()
    first = next(iter(arms))
    network = next(own for own in arms.values() if set(NETWORKS) & own["classifiers"].keys())
    classical = {
        name: own["balanced_accuracy"]
        for name, own in arms[first]["classifiers"].items()
        if name not in (*NETWORKS, "bag")
    }
    if "logistic n-1" in arms:
        bag, one = _score(arms["bag"], "bag"), _score(arms["logistic n-1"], "logistic")
        one = f"logistic {one}"
    else:
        best = max(classical, key=lambda name: classical[name]["mean"])
        bag, one = "", f"{best} {interval(classical[best])}, the best of {len(classical)}"
    own = found["within_subject"] or {}
    own = max(own.items(), key=lambda item: item[1]["mean"], default=None)
    noise, scores = next(iter(floor.items()))
    test, protocol = found["permutation"], arms[first]["protocol"]
    return [
        f"`{part.name}`: {said} ({protocol})",
        f"{found['chance']:.3f}",
        bag,
        one,
        next(_score(network, name) for name in NETWORKS if name in network["classifiers"]),
        f"{own[0]} {interval(own[1])}" if own else "",
        f"{noise} {interval(scores)}",
        f"{test['p']:.2g} ({test['classifier']})",
    ]


def alignments_emotions(stored: Stored) -> list[str]:
    """Returns ways of aligning the people of the emotion maps."""
    return _alignments(stored.part(FILE, "emotions_wholebrain"))


def alignments_demo(stored: Stored) -> list[str]:
    """Returns ways of aligning the people of the simulated cohort."""
    return _alignments(stored.part(FILE, "wholebrain"))


def _alignments(part: Part) -> list[str]:
    rows = []
    for name, row in part.results["alignments"]["rows"].items():
        gain, cells = row["minus_first"], ["", ""]
        if gain is not None:
            low, high = gain["ci95"]
            cells = [
                f"{gain['difference']:+.3f} ({low:+.3f} to {high:+.3f})",
                f"{gain['p_holm']:.2g}",
            ]
        cells += [f"{row['floor']['mean']:.3f}", f"{row['p']:.2f}"]
        rows.append([f"`{name}`", interval(row), *cells])
    head = ["aligned by", "balanced accuracy (95 %)", "minus `none` (95 %)"]
    head += ["p (Holm)", "on noise", "p (chance)"]
    return table(head, rows) + source("one run", part)
