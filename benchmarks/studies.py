"""Results of the demos and of the real studies, stored for the documentation.

    python -m benchmarks.studies                          # every study whose data are there
    python -m benchmarks.studies finger7t emotion_maps    # these
    python -m benchmarks.studies demo=runs/demo           # only stores a finished run
    python -m benchmarks.studies "demo, again=runs/two"   # the same as a repetition of the demo

A study runs by its documented command in runs/NAME (or --runs=DIR) and resumes where it was
stopped. Scores with their intervals, p, floors, rows within subjects, crossed rows and the printed
table go to benchmarks/results/studies_cpu.json, with device, versions and commit. Repetitions show
how much the numbers vary.
"""

import io
import json
import pathlib
import subprocess
import sys
import time
from typing import Any

import rich.console

from benchmarks.record import ROOT, VERSIONS, environment, keep
from emojax.report import console
from emojax.report.schema import Result

SCORES = ("balanced_accuracy", "accuracy", "auc_macro", "nll", "ece", "block_accuracy")
DATA = pathlib.Path("../shared/data")
STUDIES = {  # name -> config and folder of the data
    "demo": ("configs/expA.py:demo", None),
    "modern": ("configs/expA.py:modern", None),
    "demoB": ("configs/expB.py:demo", None),
    "finger7t": ("configs/finger7t.py", DATA / "finger7t"),
    "haxby": ("configs/haxby.py", DATA / "bids-haxby-1slice"),
    "haxby_b": ("configs/haxby_b.py", DATA / "bids-haxby-1slice"),
    "emotion_maps": ("configs/emotion_maps.py", DATA / "emotion-maps"),
    "wholebrain": ("configs/wholebrain.py", None),
    "emotions_wholebrain": ("configs/emotion_maps.py:wholebrain", DATA / "emotion-maps"),
    "haxby_searchlight": ("configs/haxby.py:searchlight", DATA / "bids-haxby-1slice"),
}
ANALYSES = ("permutation", "crossed", "within_subject", "design", "floor")
ANALYSES += ("alignments", "searchlight", "maps")


def summarise(folder: pathlib.Path) -> dict[str, Any]:
    """Returns a run's tables as plain data: arms, and the answers of its analyses."""
    metrics = json.loads((folder / "metrics.json").read_text())
    table = {}
    for arm in metrics["arms"]:
        summary = arm["summary"]
        found = {metrics["network"]: summary["network"]} | summary["baselines"]
        table[arm["name"]] = {
            "protocol": arm["protocol"],
            "decoder": arm["decoder"],
            "folds": len(arm["folds"]),
            "gain": arm.get("gain"),
            "classifiers": {
                name: {score: scores[score] for score in SCORES if score in scores}
                | {"network_minus_it": scores.get("network_minus_it")}
                for name, scores in found.items()
                if scores
            },
        }
    answers = {name: metrics.get(name) for name in ANALYSES}
    if answers["permutation"]:
        answers["permutation"] = answers["permutation"] | {"null": None}  # 99 numbers
    return {
        "command": metrics["command"],
        "chance": metrics["chance"],
        "audit": metrics["audit"]["measured"],
        "seconds": metrics["seconds"],
        "arms": table,
        "printed": printed(folder),
    } | answers


def printed(folder: pathlib.Path) -> list[str]:
    """Returns the lines that the run printed at its end."""
    file = io.StringIO()
    terminal = rich.console.Console(file=file, width=80, markup=False, emoji=False)
    console.print_table(Result.load(folder), terminal)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def environment_of(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the versions and date of a finished run on this machine."""
    path = folder / "metrics.json"
    versions = json.loads(path.read_text())["versions"]
    return environment() | {
        "python": versions["python"],
        "versions": {name: versions.get(name) for name in VERSIONS},
        "commit": "",  # a run does not record it
        "date": time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime)),
    }


def run(name: str, runs: pathlib.Path) -> pathlib.Path | None:
    """Runs a study and returns its workdir, or None if its data are missing."""
    config, data = STUDIES[name]
    if data is not None and not (ROOT / data).exists():
        print(f"{name}: left out, no {data}")
        return None
    workdir = runs / name
    command = [sys.executable, "launch.py", f"--config={config}", f"--workdir={workdir}"]
    command += [] if data is None else [f"--config.data.root={data}"]
    subprocess.run([*command, "--config.data.progress=False"], cwd=ROOT, check=True)
    return workdir


def main(arguments: list[str]) -> None:
    runs = next((a.partition("=")[2] for a in arguments if a.startswith("--runs=")), "runs")
    for argument in [a for a in arguments if not a.startswith("--runs=")] or STUDIES:
        name, _, finished = argument.partition("=")
        folder = pathlib.Path(finished) if finished else run(name, ROOT / runs)
        if folder is not None:
            where = environment_of(folder) if finished else None
            keep("studies_cpu", name, summarise(folder), where)
            print(f"{name}: {folder}")


if __name__ == "__main__":
    main(sys.argv[1:])
