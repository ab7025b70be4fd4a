"""Measurements of one tool in a process of its own, as several benchmarks make them."""

import json
import os
import resource
import subprocess
import sys

from benchmarks.record import ROOT

PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # slow kernels, for old builds; no tool needs them


def measure(module, case):
    """Runs `python -m module --worker CASE`, and returns what its last line says, as JSON."""
    environment = {name: value for name, value in os.environ.items() if name not in PINS}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path[1:]])
    done = subprocess.run(
        [sys.executable, "-m", module, "--worker", json.dumps(case)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{case['tool']}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_or_say(module, case):
    """Returns what `measure` does; of a peer that fails or is not installed {"left_out": why}."""
    try:
        return measure(module, case)
    except SystemExit as error:
        if case["tool"].startswith("emojax"):
            raise
        return {"left_out": str(error).strip().splitlines()[-1]}


def peak_mib():
    """The most memory that this process and its children had."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return round(sum(resource.getrusage(who).ru_maxrss for who in both) / 1024)
