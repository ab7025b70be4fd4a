"""Test of the paper's settings: rate, penalty and batch norm of A; cost and momentum of B.

    python -m benchmarks.paper_settings                 # A: 25 minutes on a free core
    python -m benchmarks.paper_settings --minutes 10    # begins no cell after 10 minutes
    python -m benchmarks.paper_settings --experiment B  # 10 minutes

A is one fold of `configs/expA.py` at the paper's size: 11 simulated subjects on 64 x 64 x 44
voxels, 300 of them aligned with `independent_runs`, 200 rows of each class and subject, batches of
64. The first subject is tested, the second is monitored, nine train. Each cell is a training of a
few epochs (85 steps each) with its own rate, penalty and batch norm; everything else is the
config's. Its row holds the accuracy on the training rows (with dropout, the mean over the last
epoch), the best monitored accuracy, and the balanced accuracy on the test subject at that epoch,
which chooses nothing. A logistic regression on the same rows is stored with them. Seed 0 has all
cells, seeds 1 and 2 the most informative ones.

B is the part of `configs/expB.py` that a CPU can do: time and memory of a step of its ResNet-50
(batches of 32, 64 x 64 x 44 voxels), from which an epoch and the whole training are extrapolated;
and a few epochs of the same network and settings on a subset (6 simulated subjects, 24 x 24 x 16
voxels, the published random split) with both momenta. `benchmarks/gpu.sh` has the rest.

Every finished cell is stored; a run that was stopped resumes with the next one. Cells of A that
were trained on other rows, as the logistic regression shows, are measured again.
"""

import itertools
import json
import resource
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import RESULTS, ROOT, keep, make_parser
from benchmarks.tables import methods
from configs import expA, expB
from emojax import metrics, sources
from emojax.experiments import experiment_a, experiment_b, programs
from emojax.provenance import Ledger
from emojax.scoring import baselines
from emojax.training import epoch, loop
from emojax.training.feeds import Resident

RATES = (4.5e-3, 4.5e-4)
PENALTIES = {"L2 5e-2": ("l2", 5e-2), "L2 1e-3": ("l2", 1e-3), "L1 5e-3": ("l1", 5e-3)}
PENALTIES["none"] = ("l2", 0.0)
NORMS = {"none": (False, 0.99), "dense .9": (True, 0.9), "dense .99": (True, 0.99)}
ORDER = (  # (seed, penalty, rate, norm): the most informative cells first, then the rest of seed 0
    itertools.product([0], ("L2 5e-2",), RATES, NORMS),
    itertools.product([0, 1, 2], ("none", "L1 5e-3"), (4.5e-3,), ("none",)),
    itertools.product([1, 2], ("L2 5e-2",), (4.5e-3,), ("dense .9", "none")),
    itertools.product([0], PENALTIES, RATES, NORMS),
    itertools.product([1, 2], ("L2 5e-2", "none"), (4.5e-4,), ("none", "dense .9")),
)
CELLS = {"A": list(dict.fromkeys(itertools.chain(*ORDER))), "B": [(0, 0.99), (0, 0.9)]}
KEYS = {"A": ("seed", "penalty", "rate", "norm"), "B": ("seed", "momentum")}
EPOCHS = {"A": 2, "B": 4}
VOLUMES_B = 1950  # training volumes of the paper's Experiment B


def base_config(experiment):
    """Returns the paper's config, of B on a subset, before `cell_config` sets a cell."""
    config = (expA if experiment == "A" else expB).get_config()
    config.data.progress, config.data.store = False, str(ROOT / "runs" / "store")
    config.null_floor, config.baselines = False, ""
    if experiment == "B":
        config.data.synthetic.subjects, config.data.synthetic.grid = 6, (24, 24, 16)
        config.splits = "random"
    return config


def cell_config(experiment, seed, *cell):
    config = base_config(experiment)
    if experiment == "B":
        (config.model.norm_momentum,) = cell
        return config
    penalty, config.train.lr, norm = cell
    config.train.penalty, config.train.penalty_factor = PENALTIES[penalty]
    config.model.batch_norm, config.model.norm_momentum = NORMS[norm]
    config.model.norm_layers = "dense"
    return config


def make_fold(module, config, name):
    """Returns the data of an arm's first fold, and the labels of its test rows."""
    cohort = sources.load(config.data)
    view = module.view(config, cohort)
    arm = next(arm for arm in module.arms(config, cohort) if arm.name == name)
    fold = module.folds(config, view, arm)[0]
    return module.features(config, Ledger(view), fold, arm, 0), cohort.labels[fold.test]


def logistic(data, test_y):
    """Returns the balanced accuracy of logistic regression on the networks' training rows."""
    rows, classes, out = data.train[0], int(data.labels.max()) + 1, {}
    x, y = data.read(rows), data.labels[rows]
    parts = {
        "monitored": (data.read(data.monitor), data.labels[data.monitor]),
        "test": (data.read_test(data.fold.test), test_y),
    }
    for name, (other_x, other_y) in parts.items():
        job = baselines.make_job("logistic", 0, x, y, other_x, classes)
        found = baselines.fit_predict(job).predicted
        out[name] = float(metrics.balanced_accuracy(other_y, found, num_classes=classes))
    return out


def measure(config, data, test_y, epochs, seed):
    """Trains one cell, and returns its scores."""
    classes = int(data.labels.max()) + 1
    program = programs.make_program(config, classes)
    rows = np.concatenate([data.train[0], data.monitor])

    def feed():
        return Resident(data.read, data.labels, rows, np.float32, program.mesh)

    key = jax.random.fold_in(data.keys[0], seed)
    task = loop.Task("cell", key, feed, data.train[0], data.monitor)
    start = time.perf_counter()
    factor = config.train.penalty_factor
    options = {"epochs": epochs, "every": epochs, "strategy": loop.default_strategy()}
    ((_, trained),) = loop.fit(program, [task], factor=factor, **options)
    seconds = time.perf_counter() - start
    best, x = trained.best, data.read_test(data.fold.test)
    scored = Resident(lambda rows: x[rows], test_y, np.arange(len(x)), np.float32, program.mesh)
    p = loop.predict(program, scored, np.arange(len(x)), best.params, best.batch_stats)
    curves = {name: [round(float(v), 4) for v in line] for name, line in trained.curves.items()}
    return {
        "train": curves["train_accuracy"][-1],
        "monitored": max(curves["accuracy"]),
        "epoch": int(best.epoch),
        "test": float(metrics.balanced_accuracy(test_y, p.argmax(1), num_classes=classes)),
        "curves": {name: curves[name] for name in ("train_accuracy", "accuracy", "loss")},
        "seconds": round(seconds, 1),
    }


def summarise(rows, names):
    """Returns a line for each cell: minimum, mean and maximum over its seeds."""
    out = {}
    for row in rows:
        out.setdefault(tuple(row[name] for name in names), []).append(row)
    lines = []
    for cell, found in out.items():
        line = dict(zip(names, cell, strict=True)) | {"seeds": len(found)}
        for name in ("train", "monitored", "test"):
            values = [row[name] for row in found]
            line[name] = [min(values), statistics.mean(values), max(values)]
        lines.append(line)
    return lines


def step_of_b():
    """Returns time and memory of a step at the paper's size of B, and the time of its training.

    Core seconds (of all threads) depend little on other processes of the machine.
    """
    config = expB.get_config()
    program, size = programs.make_program(config, 2), config.train.batch_size
    x = jnp.zeros((size, *config.data.synthetic.grid))
    inputs = x, jnp.zeros(size, jnp.int32), jnp.float32(config.train.penalty_factor)
    trial, taken = epoch.begin(program, jax.random.key(0), np.asarray(x[:1])), []
    compiled = epoch.step.lower(program, trial, *inputs).compile()
    for _ in range(3):  # the first warms up
        start = time.perf_counter(), time.process_time()
        trial, found = compiled(trial, *inputs)
        jax.block_until_ready(found)
        taken.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    seconds, core_seconds = np.min(taken[1:], axis=0)
    memory, steps = compiled.memory_analysis(), -(-VOLUMES_B // size)
    assert memory is not None  # CPUs and GPUs report it
    return {
        "batch": size,
        "shape": x.shape[1:],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(trial.state.params)),
        "seconds": round(float(seconds), 1),
        "core_seconds": round(float(core_seconds), 1),
        "step_gigabytes": round(
            (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e9, 1
        ),
        "process_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 1),
        "steps_of_an_epoch": steps,
        "core_minutes_of_an_epoch_extrapolated": round(steps * core_seconds / 60),
        "core_days_of_the_training_extrapolated": round(
            config.train.epochs * steps * core_seconds / 86400
        ),
    }


def read_stored(name, which, epochs):
    """Returns the results of earlier calls with the same number of epochs."""
    path = RESULTS / f"{name}.json"
    parts = json.loads(path.read_text()) if path.exists() else {}
    found = parts.get(f"experiment {which}", {}).get("results", {})
    return found if found.get("epochs") == epochs else {}


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--experiment", choices=("A", "B"), default="A")
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no cell later")
    parser.add_argument("--epochs", type=int, default=0, help="epochs of a cell; 0: 2 in A, 4 in B")
    args = parser.parse_args()
    which, begun = args.experiment, time.monotonic()
    cells, keys, epochs = CELLS[which], KEYS[which], args.epochs or EPOCHS[which]
    name = f"paper_settings_{jax.default_backend()}"
    facts = read_stored(name, which, epochs)
    rows = facts.pop("rows", [])
    if which == "B":
        facts["step"] = facts.get("step") or step_of_b()
    config = base_config(which)
    module, arm = (experiment_a, "nested") if which == "A" else (experiment_b, "random")
    data, test_y = make_fold(module, config, arm)
    facts |= {
        "grid": list(config.data.synthetic.grid),
        "epochs": epochs,
        "volumes": {
            "train": len(data.train[0]),
            "monitored": len(data.monitor),
            "test": len(test_y),
        },
    }
    if which == "A":
        measured = logistic(data, test_y)
        if facts.setdefault("logistic", measured) != measured:  # the same program, other rows
            facts["logistic"], rows = measured, []
    done = [tuple(row[key] for key in keys) for row in rows]
    for cell in (cell for cell in cells if cell not in done):
        if time.monotonic() > begun + 60 * args.minutes:
            break
        found = measure(cell_config(which, *cell), data, test_y, epochs, cell[0])
        rows.append(dict(zip(keys, cell, strict=True)) | found)
        print({key: value for key, value in rows[-1].items() if key != "curves"}, flush=True)
        facts |= {"cells": f"{len(rows)} of {len(cells)}", "summary": summarise(rows, keys[1:])}
        keep(name, f"experiment {which}", facts | {"rows": rows})
    if which == "A" and rows:
        print("\n".join(methods.settings(facts)))


if __name__ == "__main__":
    main()
