"""Speed and memory of the functional core beside its peers, on the same arrays.

    pip install -r requirements.txt -r requirements-bench.txt
    python -m benchmarks.core                 # everything, about 12 minutes on 2 cores
    python -m benchmarks.core --only=anova    # or: hyperalignment, methods, wide, subjects

Every measurement runs in a process of its own, so that peak memory and threads are its own. emojax
and its peers take turns for several rounds, because machines drift. A round is the median of a
process's timed calls after one warm-up call, which includes compilation. Times are wall seconds of
the call alone, with the arrays in memory. Results go to benchmarks/results/core_cpu.json, or on a
GPU to core_gpu.json; `--only=methods` and `--only=subjects` need no peers.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.record import ROOT, accelerator, keep, make_parser

if TYPE_CHECKING:  # threads are set in the child, before NumPy is imported
    import numpy as np

MEMORY_LIMIT = 20 * 2**30  # address space of one process; the machines have 24 GiB
TIME_LIMIT = 100  # of one process; no peer that finishes a case here needs more


def planted(subjects, rows, voxels, dtype):
    """Returns [subjects, rows, voxels]: a shared signal in each subject's topography, and noise."""
    import numpy as np

    rng = np.random.default_rng(1002)
    shared = rng.standard_normal((rows, min(rows, voxels))) * np.linspace(2, 0.5, min(rows, voxels))
    data = np.empty((subjects, rows, voxels), dtype)
    for x in data:
        topography = rng.standard_normal((shared.shape[1], voxels)) / shared.shape[1] ** 0.5
        x[:] = shared @ topography + 0.5 * rng.standard_normal((rows, voxels))
    return data


def emojax_fit(data: "np.ndarray", method: Literal["svd", "polar"] = "svd"):
    import jax

    from emojax import hyperalignment

    return lambda: jax.block_until_ready(hyperalignment.fit(data, method=method))


def emojax_polar(data):
    return emojax_fit(data, "polar")


def fmralign_fit(data):
    """Returns the call of GroupAlignment.fit(y="template"), with emojax's three passes."""
    import numpy as np
    from fmralign.alignment.utils import _fit_template  # pyright: ignore[reportMissingImports] a peer
    from fmralign.methods import Procrustes  # pyright: ignore[reportMissingImports] a peer

    whole = np.ones(data.shape[2], int)
    return lambda: _fit_template(list(data), Procrustes(), whole, n_iter=3)


def hyperalignment_fit(data):
    from hyperalignment.local_template import compute_template  # pyright: ignore[reportMissingImports] a peer
    from hyperalignment.procrustes import procrustes  # pyright: ignore[reportMissingImports] a peer
    from scipy.stats import zscore

    data = zscore(data, axis=1)

    def fit():
        template = compute_template(data, kind="procrustes")
        return template, [procrustes(x, template, scaling=True) for x in data]

    return fit


def emojax_anova(x, y):
    import jax

    from emojax import anova

    return lambda: jax.block_until_ready(anova.f_scores(x, y, 3))


def emojax_anova_device(x, y):
    import jax.numpy as jnp

    return emojax_anova(jnp.asarray(x), y)


def sklearn_anova(x, y):
    from sklearn.feature_selection import f_classif

    return lambda: f_classif(x, y)


TOOLS: dict[str, Callable[..., Callable[[], Any]]] = {
    "emojax": emojax_fit,
    "emojax polar": emojax_polar,
    "fmralign": fmralign_fit,
    "hyperalignment": hyperalignment_fit,
    "emojax f_scores (NumPy array)": emojax_anova,
    "emojax f_scores (jax array)": emojax_anova_device,
    "scikit-learn f_classif": sklearn_anova,
}


def work(case):
    """Times the calls of one case in the child, and prints one line of JSON."""
    import numpy as np

    warnings.filterwarnings("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    if case["dtype"] == "float64" and case["tool"].startswith("emojax"):
        import jax

        jax.config.update("jax_enable_x64", True)
    if "f_" in case["tool"]:
        samples, voxels = case["shape"]
        rng = np.random.default_rng(0)
        y = np.repeat(np.arange(3), -(-samples // 3))[:samples]
        x = rng.standard_normal((samples, voxels), dtype=np.float32)
        x *= 50  # scanner units
        x += 10_000
        x[:, : voxels // 10] += 5 * y[:, None]
        x = x.astype(case["dtype"])
        call = TOOLS[case["tool"]](x, y)
    else:
        subjects, rows, voxels = case["shape"]
        call = TOOLS[case["tool"]](planted(subjects, rows, voxels, case["dtype"]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    call()
    first, times = time.perf_counter() - start, []
    for _ in range(case["calls"]):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "seconds": statistics.median(times or [first]),
                "first_seconds": first,
                "peak_mib": round(peak / 1024),
                "before_mib": round(before / 1024),
            }
        )
    )


def measure(case):
    """Returns one round of one case from a child process; a failure is a result, too."""
    cpus = sorted(os.sched_getaffinity(0))[: case["threads"]]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = dict(os.environ, PYTHONPATH=path)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        # emojax decomposes subjects in parallel; nested BLAS threads slow it down.
        env[name] = "1" if case["tool"].startswith("emojax") else str(case["threads"])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.core", "--worker", json.dumps(case)],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no result within {TIME_LIMIT} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(title, tools, shape, *, threads=2, rounds=3, calls=3):
    """Returns a summary of each tool, from rounds in which all tools take turns."""
    cases = [
        {
            "title": title,
            "tool": tool,
            "dtype": dtype,
            "shape": shape,
            "threads": threads,
            "calls": calls,
        }
        for tool, dtype in tools
    ]
    found = [[] for _ in cases]
    for _ in range(rounds):
        for case, rows in zip(cases, found, strict=True):
            if not (rows and "failed" in rows[0]):
                rows.append(measure(case))
                print(
                    case["tool"], case["dtype"], shape, f"{threads} threads", rows[-1], flush=True
                )
    return [dict(case, **summary(rows)) for case, rows in zip(cases, found, strict=True)]


def summary(rows):
    if "failed" in rows[0]:
        return rows[0]
    seconds = [row["seconds"] for row in rows]
    return {
        "seconds": statistics.median(seconds),
        "seconds_rounds": seconds,
        "first_seconds": statistics.median(row["first_seconds"] for row in rows),
        "peak_mib": max(row["peak_mib"] for row in rows),
        "before_mib": max(row["before_mib"] for row in rows),
    }


def run_anova():
    out = []
    for dtype in ("float32", "float64"):
        tools = [(name, dtype) for name in TOOLS if "f_" in name]
        out += compare("F-scores", tools, [2000, 20_000], calls=5)
    tools = [(name, "float32") for name in TOOLS if "f_" in name]
    return out + compare("F-scores", tools, [4000, 50_000], rounds=2, calls=5)


def run_hyperalignment():
    both = [("emojax", "float32"), ("emojax", "float64"), ("fmralign", "float64")]
    out = []
    for threads in (2, 1):
        for voxels, peers in ((300, True), (1000, True), (3000, False)):
            tools = [*both, ("hyperalignment", "float64")] if peers else both
            small = voxels == 300
            shape, rounds, calls = [11, 400, voxels], 2 if small else 1, 3 if small else 1
            out += compare(
                "hyperalignment", tools, shape, threads=threads, rounds=rounds, calls=calls
            )
    return out


def run_methods():
    """Returns both ways of finding rotations; matrix products are meant to win on a GPU."""
    tools, out = [("emojax", "float32"), ("emojax polar", "float32")], []
    for voxels in (300, 1000, 3000):
        out += compare("methods", tools, [11, 400, voxels], rounds=1)
    return out


def run_wide():
    tools = [("emojax", "float32"), ("fmralign", "float64"), ("hyperalignment", "float64")]
    return compare("whole brain", tools, [11, 400, 40_000], rounds=1, calls=1)


def run_subjects():
    out = []
    for subjects in (11, 44, 176):
        out += compare("subjects", [("emojax", "float32")], [subjects, 400, 300], rounds=2)
    return out


RUNS = {
    "anova": run_anova,
    "hyperalignment": run_hyperalignment,
    "methods": run_methods,
    "wide": run_wide,
    "subjects": run_subjects,
}


def table(results):
    """Returns all rows as a table, for the terminal."""
    lines = ["| what | threads | tool | dtype | seconds | peak MiB |", "|---|---|---|---|---|---|"]
    for row in results:
        shape = " x ".join(f"{n:,}" for n in row["shape"])
        seconds = f"{row['seconds']:.3g}" if "seconds" in row else row["failed"]
        lines.append(
            f"| {row['title']} {shape} | {row['threads']} | {row['tool']} | {row['dtype']} "
            f"| {seconds} | {row.get('peak_mib', '')} |"
        )
    return "\n".join(lines)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--only", choices=RUNS, help="one part; the others stay as stored")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(json.loads(args.worker))
    for name in [args.only] if args.only else RUNS:
        results = RUNS[name]()
        keep(f"core_{accelerator()[0]}", name, results)
        print(table(results))


if __name__ == "__main__":
    main()
