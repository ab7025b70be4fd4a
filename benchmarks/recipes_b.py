"""Recipes of networks for Experiment B, beside linear ones.

    python -m benchmarks.recipes_b                  # all studies: 10 minutes on an idle core
    python -m benchmarks.recipes_b haxby_b          # one of them

Every recipe trains on the same rows. C, epoch and temperature are chosen by monitored groups that
neither train nor are scored, and so is the recipe ("chosen"): no test score chooses anything. Each
fold has one network, trained for 150 steps of 32 volumes by Adam with a rate of 1e-3; epoch 0 may
be the best. Results are in docs/statistics.md and benchmarks/results/recipes_b_cpu.json.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from scipy.special import softmax

from benchmarks.record import keep
from configs import emotion_maps, expB, haxby_b
from emojax import plateau, sources
from emojax.data import roi
from emojax.models.network import penalty_l2
from emojax.scoring import bag, linear, scores
from emojax.splits import Fold
from emojax.training import feeds, loop, optimizer

STEPS, BATCH, NORM = 150, 32, 300.0
CONFIGS = {
    "demo": (lambda: expB.get_config("demo"), 6),
    "haxby_b": (haxby_b.get_config, 4),
    "emotion_maps": (emotion_maps.get_config, 5),
}  # config, number of folds


class Recipe(nn.Module):
    """A network on flattened volumes, each followed by the logits of a linear path."""

    shape: tuple[int, int, int]
    classes: int
    body: str  # "mlp" or "convolutions"
    linear: bool  # whether the linear path's logits are added

    @nn.compact
    def __call__(self, x, *, train=False):
        """Returns logits [batch, classes]."""
        x, logits = x[:, : -self.classes], x[:, -self.classes :]
        volumes = x.reshape(len(x), *self.shape)
        if self.body == "convolutions":
            x = volumes[..., None]
            for width in (8, 16, 32):
                x = nn.gelu(nn.Dense(width)(_cubes(x)))
            x = x.reshape(len(x), -1)
        else:
            x = nn.Dropout(0.2)(x, deterministic=not train)
            x = nn.gelu(nn.Dense(256, kernel_init=nn.initializers.glorot_normal())(x))
        x = nn.Dropout(0.5)(x, deterministic=not train)
        x = nn.Dense(self.classes, kernel_init=nn.initializers.zeros)(x)
        return logits + x if self.linear else x


def _cubes(x):
    """Returns cubes of 2 x 2 x 2 voxels as channels, so that a dense layer is a convolution."""
    x = jnp.pad(x, [(0, 0), *((0, n % 2) for n in x.shape[1:4]), (0, 0)])
    n, *size, channels = x.shape
    x = x.reshape(n, *(part for s in size for part in (s // 2, 2)), channels)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(*x.shape[:4], 8 * channels)


LINEAR = {"linear": 1, "linear, means of 2 voxels": 2, "linear, means of 4 voxels": 4}
NETWORKS = {
    "MLP": ("mlp", 2, False),
    "linear + MLP": ("mlp", 2, True),
    "convolutions": ("convolutions", 1, False),
    "linear + convolutions": ("convolutions", 1, True),
}


def pooled(x, size):
    """Returns means over cubes of `size` voxels along each axis; axes are padded with zeros."""
    pads = [(0, -n % size) for n in x.shape[1:]]
    x = np.pad(x, [(0, 0), *pads])
    cut = [part for n in x.shape[1:] for part in (n // size, size)]
    return x.reshape(len(x), *cut).mean((2, 4, 6))


def read(name):
    """Returns volumes [n, X, Y, Z], labels [n], groups [n], and the number of classes."""
    config = CONFIGS[name][0]()
    cohort = sources.load(config.data)
    x = np.asarray((roi.cut(cohort) if config.data.mask else cohort).volumes, np.float32)
    some = np.flatnonzero((x != 0).any(0).reshape(-1))
    box = [np.unique(at) for at in np.unravel_index(some, x.shape[1:])]
    x = x[:, box[0][0] : box[0][-1] + 1, box[1][0] : box[1][-1] + 1, box[2][0] : box[2][-1] + 1]
    if x[0].size > 20_000:
        x = pooled(x, 2)
    x = np.pad(x, [(0, 0), *((0, max(9 - n, 0)) for n in x.shape[1:])])
    groups = (
        cohort.run_index if name == "haxby_b" else np.unique(cohort.subject, return_inverse=True)[1]
    )
    return x, np.asarray(cohort.labels), groups, len(cohort.classes)


def folds(groups, count):
    """Yields folds: a share of the groups is scored, the next share is monitored."""
    parts = np.array_split(np.random.default_rng(0).permutation(np.unique(groups)), count)
    for i, test in enumerate(parts):
        monitor = parts[(i + 1) % count]
        which = [np.flatnonzero(np.isin(groups, part)) for part in (monitor, test)]
        yield Fold(str(i), np.setdiff1d(np.arange(len(groups)), np.concatenate(which)), *which)


def scaled(x, fold):
    """Returns rows minus the training mean, scaled to mean squared norm `NORM` in training."""
    x = x.reshape(len(x), -1) - x[fold.train].reshape(len(fold.train), -1).mean(0)
    return x * np.sqrt(NORM / (x[fold.train] ** 2).sum(1).mean())


def fit_linear(x, y, fold):
    """Returns logits of all rows, with a temperature from the monitored ones."""
    x = scaled(x, fold)
    rest = np.setdiff1d(np.arange(len(x)), fold.train)
    own, others = linear.coordinates(x[fold.train], x[rest])
    out = np.empty((len(x), own.shape[1]), np.float32)
    out[fold.train], out[rest] = own, others
    return bag.fit_member(own, y[fold.train], out[fold.monitor], y[fold.monitor]).logits(out)


def fit_network(recipe, x, logits, y, fold, classes):
    """Returns the log-probabilities of monitored and test rows, and the best epoch."""
    body, size, added = recipe
    x = pooled(x, size) if size > 1 else x
    sd = x[fold.train].std()
    vectors = np.concatenate([x.reshape(len(x), -1) / sd, logits], 1, dtype=np.float32)
    model = Recipe(x.shape[1:], classes, body, added)
    rule = plateau.reduce_on_plateau(0.5, 1000, base_lr=1e-3)
    options = {"best_by": "nll", "draws": "classes", "warmup": 1, "epoch_zero": True}
    mesh = feeds.data_mesh(jax.devices()[:1])
    program = loop.Program(model, optimizer.adam(1e-3), rule, _penalty, BATCH, mesh, **options)
    rows = np.concatenate([fold.train, fold.monitor])
    feed = feeds.Resident(vectors.__getitem__, y, rows, np.float32, mesh)
    task = loop.Task("a", jax.random.key(0), lambda: feed, fold.train, fold.monitor)
    epochs = max(3, -(-STEPS // -(-len(fold.train) // BATCH)))
    ((_, found),) = loop.fit(program, [task], epochs=epochs, every=epochs, factor=0.05)
    scored = feeds.Streamed(vectors.__getitem__, y, np.arange(len(x)), np.float32, mesh)
    odds = [
        loop.predict(program, scored, part, found.best.params, found.best.batch_stats)
        for part in (fold.monitor, fold.test)
    ]
    return [np.log(np.maximum(p, 1e-30)) for p in odds], int(found.best.epoch)


def _penalty(params, factor):
    return penalty_l2(params, "l2", factor)


def score(monitored, test, y, fold):
    """Returns the monitored NLL, and the test rows' accuracy and NLL at the same temperature."""
    temperature, inner = bag.fit_temperature(monitored, y[fold.monitor])
    p = softmax(test / temperature, axis=1)
    found = scores.scores(y[fold.test], p)
    return {"inner": inner, "accuracy": found["balanced_accuracy"], "nll": found["nll"]}


def run(name):
    """Returns recipe -> scores of each fold, with "chosen", the recipe that the monitor prefers."""
    x, y, groups, classes = read(name)
    found = {recipe: [] for recipe in (*LINEAR, *NETWORKS)}
    print(f"{name}: {x.shape}, {np.bincount(y)} of {len(np.unique(groups))} groups", flush=True)
    for fold in folds(groups, CONFIGS[name][1]):
        for recipe, size in LINEAR.items():
            logits = fit_linear(pooled(x, size), y, fold)
            found[recipe].append(score(logits[fold.monitor], logits[fold.test], y, fold))
        logits = fit_linear(x, y, fold)
        for recipe, parts in NETWORKS.items():
            start = time.perf_counter()
            (monitored, test), epoch = fit_network(parts, x, logits, y, fold, classes)
            row = score(monitored, test, y, fold) | {"epoch": epoch}
            if parts[2]:
                row["agreement"] = float((test.argmax(1) == logits[fold.test].argmax(1)).mean())
            found[recipe].append(row)
            took = time.perf_counter() - start
            print(f"  {fold.name} {recipe}: {row['accuracy']:.3f}, {took:.0f} s", flush=True)
    inner = np.array([[row["inner"] for row in rows] for rows in found.values()])
    best = [[*found.values()][k][i] for i, k in enumerate(inner.argmin(0))]
    return found | {"chosen": best}


def table(found):
    """Returns lines of accuracy, difference to the linear recipe, NLL and agreement."""
    lines = []
    for recipe, rows in found.items():
        ours, theirs = ([r["accuracy"] for r in part] for part in (rows, found["linear"]))
        gap = scores.paired_difference(ours, theirs)
        low, high = gap["ci95"] or (np.nan, np.nan)
        nll, inner = (np.mean([row[key] for row in rows]) for key in ("nll", "inner"))
        agrees = [row["agreement"] for row in rows if "agreement" in row]
        same = f"{np.mean(agrees):.2f}" if len(agrees) == len(rows) else ""
        between = f"{gap['difference']:+.3f} ({low:+.3f} .. {high:+.3f})"
        lines.append(
            f"| {recipe} | {np.mean(ours):.3f} | {between} | {inner:.3f} | {nll:.3f} | {same} |"
        )
    return lines


def main():
    """Runs the recipes on the named studies, by default on all."""
    for name in sys.argv[1:] or CONFIGS:
        found = run(name)
        print("\n".join(table(found)), flush=True)
        keep("recipes_b_cpu", name, found)


if __name__ == "__main__":
    main()
