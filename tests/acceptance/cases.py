"""The failing inputs of ../shared/cases, run with the calls of this version.

    python tests/acceptance/cases.py CHECKOUT [--only 08,10] [--cases DIR]

Each file there makes its input, runs emojax, prints what came out and what is right, and ends with
exit code 0 (handled) or 1. They call functions that have moved since; here the calls are those of
today, and inputs and right values stay theirs. Prints a line per case; exit code 1 if one failed.
"""

import argparse
import os
import pathlib
import subprocess
import sys

MARK = "# ---- the case ----"
CALLS = """
def cohort(root, store, label_map=LM, **kwargs):
    from emojax.data.store import Store
    from emojax.sources import bids as source

    return source.read(root, Store(store), label_map=label_map, **kwargs)


def strict(root, store, **keys):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    from emojax import sources
    from emojax.experiments import experiment_a
    from emojax.provenance import Ledger, classify

    found = config(root, store, **keys)
    read = sources.load(found)
    arm, view = experiment_a.arms(found, read)[0], experiment_a.view(found, read)
    scores, iscs, leaks = [], [], {}
    for i, fold in enumerate(experiment_a.folds(found, view, arm)):
        made = experiment_a.features(found, Ledger(view), fold, arm, i)
        seen = made.ledger.seen(fold.test)
        leaks |= classify(seen, subject=view.subject, claimed=arm.protocol)[1]
        rows = made.train[0]
        fitted = LogisticRegression(C=0.1, max_iter=200).fit(made.read(rows), made.labels[rows])
        predicted = fitted.predict(made.read_test(fold.test))
        scores.append(balanced_accuracy_score(view.labels[fold.test], predicted))
        iscs.append(made.notes["isc"])
    isc = np.round(np.mean(iscs, axis=0), 2).tolist()
    return float(np.mean(scores)), np.round(scores, 2).tolist(), isc, leaks


def run_a(root, work, **keys):
    from emojax import experiments

    experiments.run(config(root, **keys), str(work))
    metrics = json.loads((pathlib.Path(work) / "metrics.json").read_text())
    return metrics["summary"]["nested"]["balanced_accuracy"]["mean"]


def data(root, work, **keys):
    from emojax import experiments

    experiments.run(config(root, **keys), str(work), until="data")
    return list(csv.DictReader(open(pathlib.Path(work) / "counts.csv")))


import types

import emojax

def _deploy():
    from emojax.decoder import commands
    from emojax.experiments.exports.command import export

    def calibrate(bundle, path, workdir, subject, run):
        return commands.calibrate(bundle, path, workdir, subject, run or "")

    return types.SimpleNamespace(export=export, decode=commands.decode, calibrate=calibrate)

if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))
emojax.deploy = _deploy()
sys.modules["emojax.deploy"] = emojax.deploy
"""


def source(path: pathlib.Path) -> str:
    """Returns the text of a case with the calls of this version."""
    before, _, case = path.read_text().partition(MARK)
    assert case, f"{path} has no line {MARK!r}"
    return before + CALLS + case


def run(path: pathlib.Path, checkout: pathlib.Path, seconds: float = 600) -> tuple[int, str]:
    """Runs a case; returns its exit code and output."""
    own = {"EMOJAX": str(checkout), "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", source(path)],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    """Runs the cases; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=pathlib.Path)
    parser.add_argument("--cases", type=pathlib.Path)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    checkout = given.checkout.resolve()
    folder = given.cases or checkout.parent / "shared" / "cases"
    wanted = tuple(filter(None, given.only.split(",")))
    failed = 0
    for path in sorted(folder.glob("[0-9]*.py")):
        if wanted and not path.name.startswith(wanted):
            continue
        code, said = run(path, checkout)
        failed += code != 0
        lines = [line for line in said.splitlines() if line.startswith(("VERDICT", "  emojax"))]
        shown = " | ".join(lines or said.splitlines()[-1:])
        print("ok    " if code == 0 else "FAILED", path.stem, shown[:400], flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
