"""Made-up results of experiments: small cohorts, and records as the skeleton makes them."""

import functools

import numpy as np

from emojax import splits
from emojax.data import cohort as cohorts
from emojax.data.run import Run
from emojax.provenance import Provenance
from emojax.records import Arm, ArmResult, FoldResult
from emojax.report import results
from emojax.scoring.baselines import Fitted

CLASSES = ("rest", "neutral", "negative")
GRID = (6, 5, 4)
EPOCHS = 4
CONFIG = {"experiment": "A", "seed": 0, "null": False, "data": {"source": "synthetic"}}
LEAKY = ("voxels", "alignment", "epoch choice")


def make_cohort(subjects=4, runs=2, volumes=24, classes=CLASSES):
    """Returns a cohort of blocks of four volumes, each class in turn."""
    made, labels = [], []
    for s in range(subjects):
        for r in range(runs):
            frames = np.random.default_rng([s, r]).random((volumes, *GRID), np.float32)
            name = f"sub-{s + 1:02d}_run-{r + 1}"
            made.append(
                Run(f"{s + 1:02d}", f"run-{r + 1}", frames, 2.0, np.eye(4), hashes={name: "0f"})
            )
            labels.append(np.arange(volumes) // 4 % len(classes))
    return cohorts.build(made, classes, labels)


def probabilities(cohort, rows, skill, seed=0):
    """Returns probabilities of the rows, right more often the larger the skill is."""
    logits = np.random.default_rng([seed, len(rows)]).normal(size=(len(rows), len(cohort.classes)))
    logits[np.arange(len(rows)), cohort.labels[rows]] += skill
    odds = np.exp(logits)
    return (odds / odds.sum(1, keepdims=True)).astype(np.float32)


def outcome(cohort, rows, skill, seed=0, loss=1.0):
    """Returns what a training gives: predictions, epochs and curves."""
    falling = (loss / np.arange(1, EPOCHS + 1)).astype(np.float32)
    return {
        "best": probabilities(cohort, rows, skill, seed),
        "last": probabilities(cohort, rows, 0.8 * skill, seed + 1),
        "epoch": np.asarray(3),
        "done": np.int32(EPOCHS),
        "train_loss": falling,
        "loss": 1.2 * falling,
        "train_accuracy": 1 - 0.5 * falling,
        "accuracy": 1 - 0.6 * falling,
        "rate": np.full(EPOCHS, 1e-3, np.float32),
    }


def classical(cohort, rows, skills, seed=0, converged=True):
    """Returns one classical classifier per name and skill."""
    found = {}
    for i, (name, skill) in enumerate(skills.items()):
        odds = probabilities(cohort, rows, skill, seed + 10 * i + 5)
        found[name] = Fitted(odds.argmax(1).astype(np.int32), odds, converged, 2 * 10**8)
    return found


def record(cohort, fold, protocol):
    """Returns the record of a fold whose arm is of some class of protocol."""
    n = len(cohort.labels)
    saw = Provenance.of("voxels", n, values=fold.train, labels=fold.train)
    scored = fold.test[cohort.run_index[fold.test] == cohort.run_index[fold.test[0]]]
    others = np.setdiff1d(np.flatnonzero(np.isin(cohort.subject, cohort.subject[scored])), scored)
    values = {"strict": fold.train, "calibrated": others}.get(protocol, np.arange(n))
    saw |= Provenance.of("alignment", n, values=values)
    if protocol == "leaky":
        saw |= Provenance.of("voxels", n, values=fold.test, labels=fold.test)
    return ((scored, saw | Provenance.of("network", n, values=fold.train, labels=fold.train)),)


def left_out(cohort=None, noise=True, skills=None):
    """Returns a cohort and the arms of an experiment that leaves one subject out."""
    cohort = cohort or make_cohort()
    skills = {"LDA": 1.5, "nuisance only (logistic)": 0.0} if skills is None else skills
    paper = {"protocol": "leaky", "leaks": LEAKY, "regime": "transductive"}
    arms = [
        (Arm("nested", "calibrated", regime="independent_runs"), 1.5),
        (Arm("last", "calibrated", regime="independent_runs", shares="nested", pick="last"), 1.5),
        (Arm("paper", oversampled=True, **paper), 4.0),
        (Arm("paper, test volumes once", shares="paper", **paper), 4.0),
        (Arm("leaky voxels and alignment", **paper), 3.5),
        (Arm("leaky voxels", "leaky", regime="independent_runs", leaks=("voxels",)), 2.2),
        (Arm("nested, none", "strict", regime="none"), 0.6),
    ]
    if noise:
        arms.append((Arm("noise floor", "calibrated", regime="independent_runs", on_noise=True), 0))
    found_arms = []
    for arm, skill in arms:
        folds = []
        monitored = arm.name.startswith("paper")
        for i, fold in enumerate(splits.leave_one_out(cohort.subject, monitor_test=monitored)):
            own = int(arm.name.startswith("paper")) + i
            found = classical(cohort, fold.test, skills, 100 + i) if arm.name == "nested" else {}
            notes = {"voxels": np.arange(i, i + 30), "isc": (0.1 + 0.01 * i, 0.5), "rounding": 0.0}
            notes["oversampled"] = np.repeat(np.arange(len(fold.test)), 2)
            leaks = {"voxels": len(fold.test)} if arm.protocol == "leaky" else {}
            seen = record(cohort, fold, arm.protocol)
            outcomes = (outcome(cohort, fold.test, skill, own),)
            folds.append(FoldResult(fold, outcomes, found, seen, leaks, notes))
        found_arms.append(ArmResult(arm, arm.protocol, tuple(folds)))
    return cohort, found_arms


def by_split(cohort=None, folds=2, instances=2, network=True):
    """Returns a cohort and the arms of an experiment with splits, each on noise, too."""
    cohort = cohort or make_cohort(6)
    found_arms = []
    for on_noise in (False, True):
        for kind, skill in (("by_subject", 1.0), ("by_run", 1.5), ("random", 4.0)):
            protocol = splits.SPLITS[kind].protocol
            name = f"{kind} on noise" if on_noise else kind
            leaks = splits.SPLITS[kind].leaks
            arm = Arm(name, protocol, split=kind, on_noise=on_noise, leaks=leaks)
            if not on_noise:
                arm = Arm(name, protocol, split=kind, leaks=leaks, instances=instances)
            made = []
            for i, fold in enumerate(folds_of(cohort, kind, folds)):
                skill_here = 0.0 if on_noise and kind != "random" else skill
                outcomes = tuple(
                    outcome(cohort, fold.test, skill_here, 7 * i + j)
                    for j in range(arm.instances if network else 0)
                )
                skills = {"1-NN": skill_here} | ({} if on_noise else {"RF": 1.2})
                found = classical(cohort, fold.test, skills, i)
                seen = record(cohort, fold, protocol)
                leak = {"network": 10} if protocol == "leaky" else {}
                made.append(FoldResult(fold, outcomes, found, seen, leak, {"rounding": 0.001}))
            found_arms.append(ArmResult(arm, protocol, tuple(made)))
    return cohort, found_arms


def folds_of(cohort, kind, count):
    """Returns folds of a split, each of which tests a third of the groups."""
    groups = (
        np.arange(len(cohort.labels)) if kind == "random" else splits.SPLITS[kind].groups(cohort)
    )
    names = np.unique(groups)
    made = []
    for i in range(count):
        test = np.isin(groups, names[i::count][: len(names) // 3])
        monitor = ~test & np.isin(groups, names[(i + 1) % len(names) :: count][:1])
        rest = ~test & ~monitor
        made.append(splits.Fold(str(i + 1), *map(np.flatnonzero, (rest, monitor, test))))
    return made


def sweep(factors=(1e-4, 1e-2)):
    """Returns a cohort and the arms of a sweep of the penalty's factor."""
    cohort = make_cohort(6)
    (fold,) = folds_of(cohort, "by_subject", 1)
    found_arms = []
    for i, factor in enumerate(factors):
        arm = Arm(f"L2 {factor:g}", "strict", split="by_subject", factor=factor)
        found = outcome(cohort, fold.test, 1.0 + i, i, loss=1.0 - 0.2 * i)
        seen = record(cohort, fold, "strict")
        found_arms.append(ArmResult(arm, "strict", (FoldResult(fold, (found,), {}, seen, {}, {}),)))
    return cohort, found_arms


def audited(found_arms):
    """Returns the report of an audit."""
    said = ["the values of one scored volume were replaced"]
    said.append("the labels of the scored unit were rotated")
    arms = {
        r.arm.name: {
            "folds": ["01", "03"],
            "perturbations": said,
            "compared": 12,
            "moved": list(r.arm.leaks),
            "expected": list(r.arm.leaks),
        }
        for r in found_arms
    }
    return {"measured": True, "arms": arms}


EXTRAS = {"mean": np.random.default_rng(0).random(GRID), "affine": np.diag([2.0, 2, 2, 1])}


@functools.cache
def finished(kind):
    """Returns the result of an experiment: "left_out", "by_split", "sweep" or "classical"."""
    makers = {"left_out": left_out, "by_split": by_split, "sweep": sweep}
    make = makers.get(kind, functools.partial(by_split, network=False))
    cohort, found = make()
    metrics = results.summarise(
        "A",
        CONFIG,
        cohort,
        found,
        audit=audited(found),
        network="ResNet-50",
        command="emojax run",
        seconds={"training": 3.25},
    )
    return results.build(metrics, cohort, found, extras=EXTRAS), cohort, found
