"""Piecewise alignment of whole brains beside fmralign's, on the same parcels.

    pip install -r requirements.txt -r requirements-bench.txt
    python -m benchmarks.wholebrain_alignment                 # 11 x 400 x 60,000 in 300 parcels
    python -m benchmarks.wholebrain_alignment --subjects=4 --voxels=6000 --parcels=30 --rounds=1

Both fit a template in three passes over all subjects (emojax: levels 1, 2 and 3; fmralign:
n_iter=3) and one map for each subject and parcel. fmralign computes in float64, emojax in float32
here. Each measurement is a process of its own, and tools take turns. Times are wall seconds of the
fit alone, with the arrays in memory; emojax has the first call, which compiles, and the median of
later ones. `ratio` is the peer's time divided by emojax's. With two jobs, each has a BLAS of one
thread. That gains more than the second core, because threads of BLAS wait for each other in
matrices of this size.
"""

import argparse
import json
import statistics
import time

from benchmarks.children import measure, peak_mib
from benchmarks.record import accelerator, keep, make_parser

TOOLS = ("emojax", "fmralign", "fmralign, 2 jobs")
PASSES = 3
SHAPE = {"subjects": 11, "rows": 400, "voxels": 60_000, "parcels": 300}


def planted(subjects, rows, voxels, parcels):
    """Returns data [s, n, v] in float32 with a shared signal, and parcels [v] of unequal size."""
    import numpy as np

    rng = np.random.default_rng(1002)
    share = rng.uniform(0.5, 1.5, parcels)
    labels = 1 + rng.choice(parcels, voxels, p=share / share.sum())
    shared = rng.standard_normal((rows, 20), np.float32)
    data = rng.standard_normal((subjects, rows, voxels), np.float32)
    for x in data:
        x += shared @ rng.standard_normal((20, voxels), np.float32)
    return data, labels


def emojax_fit(data, labels):
    import jax

    from emojax import piecewise

    return lambda: jax.block_until_ready(piecewise.fit(data, labels, level2_iters=PASSES - 2))


def fmralign_fit(jobs, data, labels):
    """Returns the call of GroupAlignment.fit(y="template"); GroupAlignment itself needs torch."""
    from fmralign.alignment.utils import _fit_template  # pyright: ignore[reportMissingImports] a peer
    from fmralign.methods import Procrustes  # pyright: ignore[reportMissingImports] a peer

    return lambda: _fit_template(list(data), Procrustes(), labels, jobs, n_iter=PASSES)


def work(case):
    """Times the calls of one case in the child, and prints one line of JSON."""
    data, labels = planted(**{name: case[name] for name in SHAPE})
    if case["tool"] == "emojax":
        call, calls = emojax_fit(data, labels), 2
    else:
        call, calls = fmralign_fit(1 + case["tool"].endswith("2 jobs"), data, labels), 1
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    found = {"first_seconds": times[0], "seconds": times[-1], "peak_mib": peak_mib()}
    print(json.dumps(found | {"data_mib": data.nbytes >> 20}))


def compare(shape, rounds, tools=TOOLS):
    """Returns a row for each tool, from rounds in which all take turns."""
    found = {tool: [] for tool in tools}
    for _ in range(rounds):
        for tool in tools:
            found[tool].append(measure("benchmarks.wholebrain_alignment", shape | {"tool": tool}))
            print(tool, found[tool][-1], flush=True)
    rows = [
        {
            "tool": tool,
            **shape,
            "seconds": statistics.median(row["seconds"] for row in own),
            "seconds_rounds": [row["seconds"] for row in own],
            "first_seconds": statistics.median(row["first_seconds"] for row in own),
            "peak_mib": max(row["peak_mib"] for row in own),
            "data_mib": own[0]["data_mib"],
        }
        for tool, own in found.items()
    ]
    ours, *peers = rows
    return [ours, *(row | {"ratio": row["seconds"] / ours["seconds"]} for row in peers)]


def table(rows):
    """Returns the rows as a table, for the terminal."""
    lines = ["| tool | seconds | first call | peak MiB (data) | emojax is |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        ratio = f"{row['ratio']:.1f} x" if "ratio" in row else ""
        lines.append(
            f"| {row['tool']} | {row['seconds']:.1f} | {row['first_seconds']:.1f} "
            f"| {row['peak_mib']} ({row['data_mib']}) | {ratio} |"
        )
    return "\n".join(lines)


def main():
    parser = make_parser(__doc__)
    for name, size in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tools", default="|".join(TOOLS), help="separated by |")
    parser.add_argument("--ours", action="store_true", help="no peers")
    parser.add_argument("--keep", action="store_true", help="store in results/wholebrain_*.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(json.loads(args.worker))
    shape = {name: getattr(args, name) for name in SHAPE}
    rows = compare(shape, args.rounds, TOOLS[:1] if args.ours else args.tools.split("|"))
    if args.keep:
        keep(f"wholebrain_{accelerator()[0]}", "alignment", rows)
    print(table(rows))


if __name__ == "__main__":
    main()
