"""Training steps per second of Experiment A's folds, in a host loop and side by side.

    python -m benchmarks.folds                          # CPU: about 3 minutes
    python -m benchmarks.folds --folds=11 --epochs=3    # GPU

The real network, penalty and optimiser on random features of the paper's size (9 subjects x
600 rows x 300 voxels, batches of 64). "loop" is one fold, step after step from the host; "scan" is
all folds in one program, epochs on the device. After one warm-up; ms per fold and step, and what
the paper's 11 folds x 5000 epochs would take at that rate: an extrapolation, not a run.
"""

import argparse
import time

import jax
import jax.numpy as jnp

from benchmarks.record import keep
from configs import expA
from emojax.experiments import folds
from emojax.training import crossval
from emojax.training.crossval import Task

SUBJECTS, PER_CLASS, VOXELS, CLASSES = 9, 200, 300, 3
FOLDS, EPOCHS = 11, 5000  # of the paper


def make_task(key, rows):
    x = jax.random.normal(key, (rows, VOXELS))
    y = jnp.arange(rows, dtype=jnp.int32) % CLASSES
    return Task(x, y, x[:600], y[:600])


def loop(program, task, epochs):
    compiled = crossval.compile_program(program, "loop")
    trial = compiled.init(jax.random.key(0), task)
    trial, _ = crossval.looped_epoch(compiled, trial, task)
    jax.block_until_ready(trial.epoch)
    start = time.perf_counter()
    for _ in range(epochs):
        trial, metrics = crossval.looped_epoch(compiled, trial, task)
    jax.block_until_ready((trial.best, metrics))
    return time.perf_counter() - start


def scan(program, tasks, num_folds, epochs):
    keys = jax.random.split(jax.random.key(0), num_folds)
    trials = crossval.compile_program(program, "scan").init(keys, tasks)
    trials, metrics = crossval.scanned_epochs(program, trials, tasks, epochs=epochs)
    jax.block_until_ready(metrics)
    start = time.perf_counter()
    trials, metrics = crossval.scanned_epochs(program, trials, tasks, epochs=epochs)
    jax.block_until_ready((trials.epoch, metrics))
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folds", type=int, default=2, help="side by side in scan")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=640, help="per fold and epoch; 5400 in full")
    args = parser.parse_args()
    program = folds.make_program(expA.get_config(), CLASSES)
    tasks = [make_task(jax.random.key(i), args.rows) for i in range(args.folds)]
    steps = args.epochs * -(-args.rows // 64)
    full = FOLDS * EPOCHS * -(-SUBJECTS * PER_CLASS * CLASSES // 64)
    results = []
    for name, seconds, count in (
        ("loop", loop(program, tasks[0], args.epochs), 1),
        ("scan", scan(program, crossval.stack(tasks), args.folds, args.epochs), args.folds),
    ):
        each = seconds / steps / count
        row = {"strategy": name, "folds": count, "steps": steps, "seconds": seconds}
        row |= {"ms_per_fold_step": 1e3 * each, "full_run_minutes_extrapolated": full * each / 60}
        results.append(row)
        print(row)
    keep(f"folds_{jax.default_backend()}", "folds", results)


if __name__ == "__main__":
    main()
