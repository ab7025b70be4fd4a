"""Measurement of one tool in a process of its own."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.record import ROOT

PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # force slow kernels


def measure(module: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """Runs `python -m module --worker CASE` and returns its last line, read as JSON."""
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


def measure_or_say(module: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the result of `measure`, or {"left_out": why} if a peer fails or is not installed."""
    try:
        return measure(module, case)
    except SystemExit as error:
        if case["tool"].startswith("emojax"):
            raise
        return {"left_out": str(error).strip().splitlines()[-1]}


def peak_mib() -> int:
    """Returns the peak memory of this process and its children in MiB."""
    both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return round(sum(resource.getrusage(who).ru_maxrss for who in both) / 1024)
