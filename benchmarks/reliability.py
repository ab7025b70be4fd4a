"""Full runs of the acceptance tools, with their counts and times.

    python -m benchmarks.reliability                        # kill9, faults, fuzz, leaks
    python -m benchmarks.reliability kill9 --seed=3         # one of them, with another seed

Each tool runs on this checkout. Its last line of counts, failures, seed and time go to
benchmarks/results/reliability_cpu.json, with device, versions and commit.
"""

import datetime
import re
import subprocess
import sys
import time

from benchmarks.record import ROOT, keep, make_parser

TOOLS = {  # name -> flags of the whole set
    "kill9": ("--kills=22", "--minutes=30"),
    "faults": (),
    "fuzz": ("--minutes=60",),
    "leaks": (),
}


def measure(name, seed):
    """Runs a tool and returns its counts, failures and seconds."""
    flags = [*TOOLS[name], *([] if name == "leaks" else [f"--seed={seed}"])]
    tool = ROOT / "tests" / "acceptance" / f"{name}.py"
    start, lines = time.time(), []
    command = [sys.executable, str(tool), str(ROOT), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None  # a pipe
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.strip())
    counts = [line for line in lines if re.match(r"\d+ (kills|faults|malformed|held)", line)]
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python", f"tests/acceptance/{name}.py", "CHECKOUT", *flags]),
        "exit_code": process.returncode,
        "counts": counts[-1] if counts else None,
        "failures": [line for line in lines if line.startswith("FAILED")],
        "seconds": round(time.time() - start),
    }


def main():
    parser = make_parser(__doc__)
    parser.add_argument("tools", nargs="*", default=list(TOOLS), metavar="TOOL")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.tools:
        keep("reliability_cpu", f"{name}, seed {args.seed}", measure(name, args.seed))


if __name__ == "__main__":
    main()
