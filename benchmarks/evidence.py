"""Accuracy of evidence after each volume of a block, and errors of its sequential tests.

    python launch.py --config=configs/expA.py:demo030 --workdir=runs/demo030
    python -m benchmarks.evidence --workdir=runs/demo030
    python -m benchmarks.evidence --print              # the stored tables

The probabilities come from the run's predictions.csv; each is by a decoder that has not seen the
subject's labels. Windows come from onsets and durations of the simulated blocks. The numbers go to
benchmarks/results/evidence_cpu.json and, by `python -m benchmarks.tables`, to docs/realtime.md.
"""

import csv

import numpy as np

from benchmarks.record import demo030_arguments, keep
from benchmarks.tables import methods
from benchmarks.tables.stored import Stored
from configs import expA
from emojax.data.events import Timing
from emojax.online import evidence
from emojax.sources import synthetic

BLOCK, TR = 10, 2.0  # volumes, s
ERRORS = (0.2, 0.1, 0.05, 0.01)
PREFIX = "p_"


def runs(workdir):
    """Returns the classes, and of each run its subject, name, rows of class -> p, and labels."""
    with open(workdir / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    classes = [name.removeprefix(PREFIX) for name in rows[0] if name.startswith(PREFIX)]
    found = {}
    for row in sorted(rows, key=lambda row: int(row["frame"])):
        p, labels = found.setdefault((row["subject"], row["run"]), ([], []))
        p.append({name: float(row[PREFIX + name]) for name in classes})
        labels.append(row["label"])
    return classes, [(subject, run, *own) for (subject, run), own in sorted(found.items())]


def decisions(classes, own, text, data):
    """Returns decisions [blocks, BLOCK] of the evidence over one run, "" where it abstains."""
    subject, run, rows, _ = own
    events = [evidence.Event(e.onset, e.duration) for e in synthetic.events(data, subject, run)]
    state, out = evidence.init(classes, text, tr=TR, events=events), []
    for i, p in enumerate(rows):
        state, found = evidence.step(state, p, i + 1, i * TR)
        assert found is not None  # every volume is in a window
        out.append(found["decision"])
    return np.array(out).reshape(-1, BLOCK)


def balanced(said, labels, classes):
    """Returns the balanced accuracy of decisions [b] about blocks with labels [b]."""
    return float(np.mean([(said[labels == name] == name).mean() for name in classes]))


def pair_correlation(classes, found):
    """Returns the correlation of log-odds between volumes of a block, class means removed."""
    x = np.log([[list(p.values()) for p in rows] for _, _, rows, _ in found])
    x = np.clip(x - x.mean(-1, keepdims=True), -3, 3).reshape(-1, len(classes))
    labels = np.concatenate([own[3] for own in found])
    for name in classes:
        x[labels == name] -= x[labels == name].mean(0)
    x = x.reshape(-1, BLOCK, len(classes))
    # The mean square of a sum of n volumes is n (1 + (n - 1) rho) times that of one volume.
    sums = (x.sum(1) ** 2).mean() / (x**2).mean()
    return float((sums / BLOCK - 1) / (BLOCK - 1))


def measure(classes, found, data):
    """Returns all measurements of a run."""
    labels = np.concatenate([np.array(own[3])[::BLOCK] for own in found])

    def said(text):
        return np.concatenate([decisions(classes, own, text, data) for own in found])

    def by_volume(text):
        own = said(text)
        return [balanced(own[:, i], labels, classes) for i in range(BLOCK)]

    rows = np.concatenate([[max(p, key=p.get) for p in own[2]] for own in found])
    single = rows.reshape(-1, BLOCK)
    out = {
        "blocks": len(labels),
        "pair_correlation": pair_correlation(classes, found),
        "single": [balanced(single[:, i], labels, classes) for i in range(BLOCK)],
        "block": by_volume("block"),
        "block, base=.5/.25/.25": by_volume("block,base=.5/.25/.25"),
        "ema:1": by_volume("ema:1"),
        "tests": {},
    }
    for error in ERRORS:
        for options in ("rho=.5", "rho=.5,least=1", "rho=0,least=1"):
            own = said(f"sprt:{error},{options}")
            there = own != ""
            decided = there.any(1)
            first = there.argmax(1)[decided]
            wrong = own[decided, first] != labels[decided]
            out["tests"].setdefault(options, {})[str(error)] = {
                "decided": float(decided.mean()),
                "wrong": float(wrong.mean()),
                "volumes": float(first.mean() + 1),
            }
    return out


def main():
    args = demo030_arguments(__doc__)
    if not args.print:
        data = expA.get_config("demo030").data
        assert data.hrf_delay_s == Timing().hrf_delay_s
        keep("evidence_cpu", "demo030", measure(*runs(args.workdir), data))
    for table in (methods.evidence_volumes, methods.evidence_tests):
        print("\n".join(table(Stored())), end="\n\n")


if __name__ == "__main__":
    main()
