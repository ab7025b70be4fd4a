"""Training steps per second of Experiment A's folds, in a host loop and side by side.

    python -m benchmarks.folds                          # CPU: about 3 minutes
    python -m benchmarks.folds --folds=11 --epochs=3    # GPU

The real network, penalty and optimiser on random features of the paper's size (9 subjects x
600 rows x 300 voxels, batches of 64). "loop" is one fold, step after step from the host; "scan" is
all folds in one program, epochs on the device. After one warm-up; ms per fold and step, with 600
monitored rows an epoch, and what the paper's 11 folds x 5000 epochs would take at that rate: an
extrapolation, not a run.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import keep, make_parser
from configs import expA
from emojax.experiments import programs
from emojax.training import epoch, loop, pages
from emojax.training.feeds import Resident

SUBJECTS, PER_CLASS, VOXELS, CLASSES, MONITORED = 9, 200, 300, 3, 600
FOLDS, EPOCHS = 11, 5000  # the paper's


def make_task(program, fold, rows):
    """Returns a fold whose features are on the device already."""
    total = rows + MONITORED
    x = np.random.default_rng(fold).standard_normal((total, VOXELS), np.float32)
    y = np.arange(total) % CLASSES
    feed = Resident(x.__getitem__, y, np.arange(total), np.float32, program.mesh)
    train, monitor = np.split(np.arange(total), [rows])
    return loop.Task(f"fold {fold}", jax.random.key(fold), lambda: feed, train, monitor)


def begin(program, task):
    return epoch.begin(program, task.key, task.feed().example)


def run_loop(program, task, factor, epochs):
    """Returns the seconds of the epochs of one fold."""
    state, feed = begin(program, task), task.feed()
    start = 0.0
    for count in (1, epochs):  # the first call compiles
        start = time.perf_counter()
        rows = task.train, task.monitor
        for _ in range(count):
            state, _ = epoch.run_looped(program, state, feed, *rows, factor)
        jax.block_until_ready(state.best)
    return time.perf_counter() - start


def run_scan(program, tasks, factor, epochs):
    """Returns the seconds of the epochs of all folds."""
    state = loop.stack([begin(program, task) for task in tasks])
    parts = [epoch.scan_inputs(program, task.feed(), task.train, task.monitor) for task in tasks]
    inputs = loop.stack(parts)
    start = 0.0
    for _ in range(2):  # the first call compiles
        start = time.perf_counter()
        state, _ = epoch.run_scanned(program, state, inputs, factor, count=epochs, folds=True)
        jax.block_until_ready(state.best)
    return time.perf_counter() - start


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--folds", type=int, default=2, help="number of folds side by side in scan")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rows", type=int, default=640, help="per fold and epoch; 5400 in full")
    args = parser.parse_args()
    pages.keep()  # as the command line does
    config = expA.get_config()
    program = programs.make_program(config, CLASSES)
    factor = jnp.float32(config.train.penalty_factor)
    tasks = [make_task(program, fold, args.rows) for fold in range(args.folds)]
    steps = args.epochs * -(-args.rows // program.batch_size)
    full = FOLDS * EPOCHS * -(-SUBJECTS * PER_CLASS * CLASSES // program.batch_size)
    results = []
    for strategy, seconds, count in (
        ("loop", run_loop(program, tasks[0], factor, args.epochs), 1),
        ("scan", run_scan(program, tasks, factor, args.epochs), args.folds),
    ):
        each = seconds / steps / count
        row = {"strategy": strategy, "folds": count, "steps": steps, "seconds": seconds}
        row |= {"ms_per_fold_step": 1e3 * each, "full_run_minutes_extrapolated": full * each / 60}
        results.append(row)
        print(row)
    keep(f"folds_{jax.default_backend()}", "folds", results)


if __name__ == "__main__":
    main()
