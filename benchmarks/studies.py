"""The result tables of finished runs, stored for the README.

    python -m benchmarks.studies demo=runs/demo demoB=runs/demoB finger7t=runs/finger7t

Each run's scores, intervals and command go to benchmarks/results/studies_cpu.json,
with device, versions and commit.
"""

import json
import pathlib
import sys

from benchmarks.record import keep

SCORES = ("balanced_accuracy", "accuracy", "auc_macro", "nll")


def summarise(folder):
    """Returns a run's table as plain data: arm -> classifier -> score -> mean, sd, interval."""
    metrics = json.loads((pathlib.Path(folder) / "metrics.json").read_text())
    table = {}
    for arm in metrics["arms"]:
        summary = arm["summary"]
        found = {metrics["network"]: summary["network"]} | summary["baselines"]
        table[arm["name"]] = {
            "protocol": arm["protocol"],
            "folds": len(arm["folds"]),
            "classifiers": {
                name: {score: scores[score] for score in SCORES if score in scores}
                | {"network_minus_it": scores.get("network_minus_it")}
                for name, scores in found.items()
                if scores
            },
        }
    return {
        "command": metrics["command"],
        "chance": metrics["chance"],
        "audit": metrics["audit"]["measured"],
        "arms": table,
    }


def main(arguments):
    for argument in arguments:
        name, _, folder = argument.partition("=")
        keep("studies_cpu", name, summarise(folder))
        print(f"{name}: {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
