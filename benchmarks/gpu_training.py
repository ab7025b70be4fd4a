"""Throughput of training A and B at the paper's size, beside torch.

    python -m benchmarks.gpu_training
    python -m benchmarks.gpu_training --short        # steps of two volumes, on a CPU

A is the 1D CNN of configs/expA.py on 300 voxels, batches of 64, 5400 rows: one fold, and eleven
folds as one program. B is the ResNet-50 of configs/expB.py on 1950 volumes of 64 x 64 x 44, batches
of 32, in bfloat16 and float32. Epochs include monitoring and penalty, and run as in experiments: on
an accelerator as one program, with the rows on it.

torch takes the same steps without penalty and monitoring, on one batch that is on the device: eager
(A), and in channels_last_3d compiled by torch.compile, with autocast for bfloat16 (B). `epoch_s` is
the duration of one epoch of one fold; for torch, that of a step times the number of steps. The
whole training is extrapolated from it.
"""

import argparse
import json
import time

from benchmarks.children import measure_or_say
from benchmarks.record import keep, make_parser

PAPER = {  # network: rows, monitored rows, epochs and folds of the published training
    "A": {"rows": 5400, "monitored": 600, "epochs": 5000, "folds": 11},
    "B": {"rows": 1950, "monitored": 488, "epochs": 1250, "folds": 1},
}
CASES = (
    {"experiment": "A", "tool": "emojax", "dtype": "float32", "side_by_side": 1},
    {"experiment": "A", "tool": "emojax", "dtype": "float32", "side_by_side": 11},
    {"experiment": "A", "tool": "torch", "dtype": "float32", "side_by_side": 1},
    # The most informative first, in case time runs out.
    {"experiment": "B", "tool": "emojax", "dtype": "bfloat16", "side_by_side": 1},
    {"experiment": "B", "tool": "torch", "dtype": "bfloat16", "side_by_side": 1},
    {"experiment": "B", "tool": "emojax", "dtype": "float32", "side_by_side": 1},
    {"experiment": "B", "tool": "torch", "dtype": "float32", "side_by_side": 1},
)


def run_emojax(case):
    """Returns the seconds of an epoch of all folds, and of the first epoch, which compiles."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from configs import expA, expB
    from emojax.experiments import programs
    from emojax.training import epoch, loop
    from emojax.training.feeds import Resident

    config = (expA if case["experiment"] == "A" else expB).get_config()
    config.train.batch_size = case["batch"]
    if case["experiment"] == "B":
        config.model.dtype = case["dtype"]
    classes, shape = (3, (300,)) if case["experiment"] == "A" else (2, (64, 64, 44))
    program = programs.make_program(config, classes)
    rows, total = case["rows"], case["rows"] + case["monitored"]
    x = np.random.default_rng(0).standard_normal((total, *shape), np.float32)
    y = np.arange(total) % classes
    feed = Resident(x.__getitem__, y, np.arange(total), np.float32, program.mesh)
    train, monitor = np.split(np.arange(total), [rows])
    folds, many = case["side_by_side"], case["side_by_side"] > 1
    keys = [jax.random.key(fold) for fold in range(folds)]
    states = [epoch.begin(program, key, feed.example) for key in keys]
    state = loop.stack(states) if many else states[0]
    inputs = epoch.scan_inputs(program, feed, train, monitor)
    inputs = loop.stack([inputs] * folds) if many else inputs
    factor, taken = jnp.float32(config.train.penalty_factor), []
    looped = not many and loop.default_strategy() == "loop"
    for _ in range(3):
        start = time.perf_counter()
        if looped:
            state, _ = epoch.run_looped(program, state, feed, train, monitor, factor)
        else:
            state, _ = epoch.run_scanned(program, state, inputs, factor, count=1, folds=many)
        jax.block_until_ready(state.best)
        taken.append(time.perf_counter() - start)
    return {"seconds": min(taken[1:]), "first_seconds": taken[0]}


def run_torch(case):
    """Returns the seconds of an epoch's steps, from the median of some steps."""
    import statistics

    import torch  # pyright: ignore[reportMissingImports] a peer

    from benchmarks.cnn1d import torch_model
    from benchmarks.resnet3d_peers import torch_network

    torch.set_float32_matmul_precision("high")  # TF32, as XLA's default
    torch.backends.cudnn.benchmark = True
    place = "cuda" if torch.cuda.is_available() else "cpu"
    if case["experiment"] == "A":
        model, shape, classes, layout = torch_model(), (1, 300), 3, torch.contiguous_format
    else:
        model, shape, classes = torch_network(), (1, 64, 64, 44), 2
        layout = torch.channels_last_3d
    model = model.train().to(place).to(memory_format=layout)
    quick = torch.compile(model, dynamic=False) if case["experiment"] == "B" else model
    adam = torch.optim.Adam(model.parameters(), 5e-4, eps=1e-7, fused=place == "cuda")
    x = torch.randn(case["batch"], *shape, device=place).to(memory_format=layout)
    y = torch.arange(case["batch"], device=place) % classes
    short = torch.autocast(place, torch.bfloat16, enabled=case["dtype"] == "bfloat16")

    def step():
        adam.zero_grad()
        with short:
            loss = torch.nn.functional.cross_entropy(quick(x), y)
        loss.backward()
        adam.step()
        return loss.item()  # waits for the device

    taken = []
    for _ in range(2 + case["steps"]):
        start = time.perf_counter()
        step()
        taken.append(time.perf_counter() - start)
    steps = -(-case["rows"] // case["batch"])
    return {"seconds": statistics.median(taken[2:]) * steps, "first_seconds": taken[0]}


def work(case):
    """Times one tool in the child, and prints one line of JSON."""
    run = run_emojax if case["tool"] == "emojax" else run_torch
    print(json.dumps(run(case)))


def row_of(case, found):
    """Returns a case with its throughput and the extrapolated time of the published training."""
    each = found["seconds"] / case["side_by_side"]
    paper = PAPER[case["experiment"]]
    steps = -(-case["rows"] // case["batch"])
    whole = each * paper["epochs"] * paper["folds"] * paper["rows"] / case["rows"] / 60
    return case | {
        "first_s": found["first_seconds"],
        "epoch_s": each,
        "step_ms": 1e3 * each / steps,
        "per_second": case["rows"] / each,
        "training_minutes_extrapolated": whole,
    }


def table(rows):
    """Returns the rows as a table."""
    lines = [
        "| experiment | tool | dtype | folds | batch | step ms | rows/s | epoch s | all, min |"
    ]
    lines.append("|---" * 9 + "|")
    for row in rows:
        cells = [row[name] for name in ("experiment", "tool", "dtype", "side_by_side", "batch")]
        cells += [f"{row[name]:.3g}" for name in ("step_ms", "per_second", "epoch_s")]
        cells.append(f"{row['training_minutes_extrapolated']:.3g}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--only", choices=PAPER, help="one experiment")
    parser.add_argument("--short", action="store_true", help="a trial on a CPU: small steps")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(json.loads(args.worker))
    results = {"rows": [], "left_out": []}
    for case in (case for case in CASES if args.only in (None, case["experiment"])):
        size = {"batch": 64 if case["experiment"] == "A" else 32, "steps": 10}
        size |= {name: PAPER[case["experiment"]][name] for name in ("rows", "monitored")}
        if args.short:
            size = {"batch": 2, "rows": 4, "monitored": 2, "steps": 1}
            size["side_by_side"] = min(case["side_by_side"], 2)
        found = measure_or_say("benchmarks.gpu_training", case | size)
        if why := found.get("left_out"):
            results["left_out"].append(case | {"why": why})
        else:
            results["rows"].append(row_of(case | size, found))
        keep("gpu_training", args.only or "both", results)
    print(table(results["rows"]))
    for own in results["left_out"]:
        print(f"left out: {own['experiment']}, {own['tool']}, {own['dtype']}: {own['why']}")


if __name__ == "__main__":
    main()
