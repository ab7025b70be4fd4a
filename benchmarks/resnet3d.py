"""3D ResNet-50 on 64 x 64 x 44 volumes beside its peers: forward and training step.

    pip install -r requirements.txt -r requirements-bench.txt
    python -m benchmarks.resnet3d            # about 7 minutes on 2 cores
    python -m benchmarks.resnet3d --also=.venv311/bin/python    # also emojax with another jax
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m benchmarks.resnet3d    # with huge pages

`benchmarks.resnet3d_peers` has the peers and their settings. By default the fastest of each library
run, and MONAI as its users run it. `gmac` has the multiplications per volume, in billions. A step
is forward, backward and Adam, without penalty. On a GPU `emojax` computes in bfloat16 as the
experiment does, also at batch 256, and peers run only on request. Times are medians after two
warm-up calls; each tool has a process of its own, and tools take turns: trust the ratios. The
spread is the range of the rounds' medians.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time

from benchmarks.gpu_layers import layers
from benchmarks.record import accelerator, keep, make_parser
from benchmarks.resnet3d_peers import CLASSES, GRID, PEERS, RATE, volumes


def emojax(short):
    import jax
    import jax.numpy as jnp

    from emojax import plateau
    from emojax.models import onednn, resnet3d
    from emojax.training import epoch, feeds, optimizer, pages, trial

    pages.keep()
    model = resnet3d.resnet50(CLASSES, dtype=jnp.bfloat16 if short else jnp.float32)
    rule = plateau.reduce_on_plateau(base_lr=RATE)
    weights = jax.jit(lambda x: model.init(jax.random.key(0), x))(jnp.zeros((1, *GRID)))
    predict = onednn.jit(lambda weights, x: model.apply(weights, x))

    def forward(count):
        x = jnp.asarray(volumes(count)[0], model.dtype)
        return lambda: predict(weights, x).block_until_ready()

    def train(count):
        program = epoch.Program(
            model, optimizer.adam(RATE), rule, lambda p, f: f, count, feeds.data_mesh()
        )
        begin = jax.jit(trial.begin, static_argnums=(1, 2, 3))
        state = begin(jax.random.key(0), model, program.tx, rule, jnp.zeros((1, *GRID)))
        held = [feeds.replicate(state, program.mesh)]
        x, y = map(jnp.asarray, volumes(count))

        def step():
            held[0], metrics = epoch.step(program, held[0], x, y, jnp.float32(0))
            jax.block_until_ready((held[0].state.params, metrics))

        return step

    # XLA's own count lacks oneDNN's convolutions.
    return forward, train, sum(own.gmac * times for own, times in layers().items())


def tools(short):
    """Returns {name: function}, emojax first."""
    return {"emojax": lambda: emojax(short)} | PEERS


# The fastest of each library (see docs/optimisation.md for the others), and MONAI as it is.
BEST = ("emojax", "torch, compiled", "monai", "monai, compiled", "keras 3, tensorflow")


def work(tool, short, forwards, step):
    forward, train, gmac = tools(short)[tool]()
    out = {"gmac": gmac, "jax": importlib.metadata.version("jax")}
    calls = {f"forward_{n}_ms": forward(n) for n in forwards} | {f"step_{step}_ms": train(step)}
    for name, call in calls.items():
        for _ in range(2):
            call()
        times = []
        for _ in range(9):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        out[name] = statistics.median(times)
    print(json.dumps(out))


def measure(tool, python):
    """Measures a tool in a process of its own; returns None if it is not installed."""
    command = [python, "-m", "benchmarks.resnet3d", f"--worker={tool}"]
    backend = "jax" if tool == "keras 3, jax" else "tensorflow"
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{tool}: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def summarise(rounds):
    """Returns a row for each tool: medians of its rounds, their range, and the ratio to emojax."""
    rows = []
    for tool, found in rounds.items():
        if None in found:
            continue
        row = {"tool": tool, "rounds": found, "gmac": found[0]["gmac"], "jax": found[0]["jax"]}
        for name in (n for n in found[0] if n.endswith("_ms")):
            times = [r[name] for r in found]
            row |= {name: statistics.median(times), f"{name}_spread": [min(times), max(times)]}
            ours = rounds["emojax"]
            ratios = [theirs[name] / own[name] for theirs, own in zip(found, ours, strict=True)]
            row[f"{name}_over_emojax"] = statistics.median(ratios)
        rows.append(row)
    return rows


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tools", default="", help="names, separated by |")
    parser.add_argument("--also", metavar="PYTHON", help="also measure emojax with this Python")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    platform = os.environ.get("EMOJAX_BENCH_PLATFORM") or accelerator()[0]
    os.environ["EMOJAX_BENCH_PLATFORM"] = platform
    gpu = platform != "cpu"
    if args.worker:
        forwards, step = ((1, 8, 256), 32) if gpu else ((1, 8), 4)
        return work(args.worker, gpu, forwards, step)
    wanted = args.tools.split("|") if args.tools else (["emojax"] if gpu else BEST)
    wanted = {tool: (tool, sys.executable) for tool in wanted}
    if args.also:
        wanted["emojax, another jax"] = "emojax", args.also
    rounds = {tool: [] for tool in wanted}
    pages = ", huge pages" if "hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "") else ""
    results = []
    for _ in range(args.rounds):
        for tool, call in wanted.items():
            rounds[tool].append(measure(*call))
        results = summarise(rounds)
        keep(f"resnet3d_{platform}", "resnet3d" + pages, results)  # even if the next is stopped
    for row in results:
        numbers = {key: round(value, 2) for key, value in row.items() if isinstance(value, float)}
        print(numbers | {"tool": row["tool"], "jax": row["jax"]})


if __name__ == "__main__":
    main()
