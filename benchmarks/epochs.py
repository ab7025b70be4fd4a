"""Seconds of an epoch of the 1D CNN with checkpoints, in this checkout and another one in turn.

    python -m benchmarks.epochs OTHER_CHECKOUT [--pairs 6]

Each trains in a process of its own, with a workdir and a checkpoint every seven epochs.
Medians and their ratios go to benchmarks/results/reliability_cpu.json.
"""

import json
import pathlib
import statistics
import subprocess
import sys

from benchmarks.record import ROOT, keep, make_parser

SCRIPT = """
import json, os, sys, tempfile, time
sys.path.insert(0, os.getcwd())
import jax, numpy as np
from configs import expA
from emojax.experiments import programs
from emojax.training import checkpoint, loop
from emojax.training.feeds import Resident
program = programs.make_program(expA.get_config("demo"), 3)
n, m = 600, 150
x = np.random.default_rng(0).standard_normal((n + m, 300), np.float32)
y, times = np.arange(n + m) % 3, []
feed = lambda: Resident(lambda rows: x[rows], y, np.arange(n + m), np.float32, program.mesh)
task = loop.Task("a", jax.random.key(0), feed, np.arange(n), np.arange(n, n + m))
with tempfile.TemporaryDirectory() as root:
    work = checkpoint.open_workdir(root + "/run", {"seed": 0, "data": {}})
    log = lambda name, epoch, metrics: times.append(time.perf_counter())
    options = {"epochs": 16, "every": 7, "factor": 1e-3, "strategy": "loop"}
    list(loop.fit(program, [task], store=work, log=log, **options))
print(json.dumps(np.diff(times)[1:].tolist()), flush=True)
os._exit(0)
"""


def seconds(checkout):
    """Returns the seconds of every epoch except the first, which compiles."""
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = make_parser(__doc__)
    parser.add_argument("other", type=pathlib.Path)
    parser.add_argument("--pairs", type=int, default=6)
    args = parser.parse_args()
    git = ["git", "-C", str(args.other), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    found = {"other": [], "here": [], "ratio": []}
    for _ in range(args.pairs):
        other, here = (statistics.median(seconds(place)) for place in (args.other, ROOT))
        for name, value in (("other", other), ("here", here), ("ratio", here / other)):
            found[name].append(round(value, 4))
        print(found, flush=True)
    found |= {"median_ratio": statistics.median(found["ratio"]), "other_commit": commit}
    keep("reliability_cpu", "median epoch", found)


if __name__ == "__main__":
    main()
