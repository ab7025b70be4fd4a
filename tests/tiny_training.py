"""Networks, volumes, vectors and stores that train in a blink."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from emojax import plateau
from emojax.files import flatten
from emojax.training import feeds, loop, optimizer
from emojax.training.trial import CURVES

N = 64  # rows of the data, and who trains, is monitored, is tested
STEPS = 5  # steps of an epoch: batches of 8
TRAIN, MONITOR, TEST = np.arange(35), np.arange(35, 48), np.arange(48, 64)


class Small(nn.Module):
    """A network for volumes with batch norm that compiles in a second."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        types = {"dtype": self.dtype, "param_dtype": self.dtype}
        x = nn.Dense(8, **types)(x.reshape(len(x), -1))
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, **types)(x))
        return nn.Dense(2, **types)(x)


class Dropped(nn.Module):
    """A network for vectors with dropout and no state."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        types = {"dtype": self.dtype, "param_dtype": self.dtype}
        x = nn.Dropout(0.2)(nn.tanh(nn.Dense(8, **types)(x)), deterministic=not train)
        return nn.Dense(2, **types)(x)


def penalty(params, factor):
    return factor * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


@contextlib.contextmanager
def quick_compile():
    """Compiles with fewer optimisations for a module, so that all results round alike."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@functools.cache  # the same object, the same compiled functions
def program(devices=1, model=None, batch_size=8, lr=1e-2, patience=100, **options):
    mesh = feeds.data_mesh(jax.devices()[:devices])
    rule = plateau.reduce_on_plateau(0.5, patience, min_lr=lr / 2, base_lr=lr)
    parts = model or Small(), optimizer.adam(lr), rule, penalty, batch_size, mesh
    return loop.Program(*parts, **options)


@functools.cache
def data(kind="volumes", seed=0, n=N):
    """Returns standardised volumes or vectors of two classes, and the classes."""
    rng, shape = np.random.default_rng(seed), {"volumes": (6, 5, 4), "vectors": (12,)}[kind]
    y = np.arange(n) % 2
    x = rng.normal(size=(n, *shape)).astype(np.float32)
    x[:, 2:4] += y.reshape(-1, *[1] * len(shape))
    return ((x - x[TRAIN].mean(0)) / x[TRAIN].std(0)).astype(np.float32), y


def feed(program, kind=feeds.Resident, dtype=np.float32, of="volumes", seed=0):
    x, y = data(of, seed)
    return kind(lambda rows: x[rows], y, np.arange(N), dtype, program.mesh)


def task(program, name="a", seed=0, train=TRAIN, monitor=MONITOR, **options):
    made = functools.partial(feed, program, seed=seed, **options)
    return loop.Task(name, jax.random.key(seed), made, train, monitor)


def outcome(program, task, trained):
    """Returns all numbers of a training: curves, epochs, predictions and weights."""
    source = task.feed()
    networks = {"last": trained.last, "best": trained.best}
    odds = {
        name: loop.predict(program, source, TEST, network.params, network.batch_stats)
        for name, network in networks.items()
    }
    weights = {
        name: {"params": network.params, "batch_stats": network.batch_stats}
        for name, network in networks.items()
    }
    ends = {"epoch": np.asarray(trained.best.epoch), "done": np.int32(trained.done)}
    return odds | ends | trained.curves | flatten({"weights": weights})


def trained(program, *args, epochs=4, every=2, factor=1e-3, strategy="loop", **options):
    """Trains one network and returns its outcome."""
    names = ("stop", "store", "log")
    fitting = {name: options.pop(name) for name in names if name in options}
    made = task(program, *args, **options)
    fitting |= {"epochs": epochs, "every": every, "factor": factor, "strategy": strategy}
    ((_, found),) = loop.fit(program, [made], **fitting)
    return outcome(program, made, found)


def same(got, want, rtol=1e-4, atol=1e-5, names=(*CURVES, "best", "last")):
    """Asserts that two outcomes agree."""
    for name in names:
        np.testing.assert_allclose(got[name], want[name], rtol=rtol, atol=atol, err_msg=name)
    assert got["epoch"] == want["epoch"] and got["done"] == want["done"]


class Memory:
    """A store that keeps copies, and counts."""

    def __init__(self):
        self.kept, self.saved = {}, []

    def load(self, name, like):
        return self.kept.get(name)

    def save(self, name, steps, tree):
        self.kept[name] = jax.tree.map(lambda leaf: leaf.copy(), tree)
        self.saved.append((name, steps))

    def drop(self, name):
        self.kept.pop(name, None)


def stop_at(name, number):
    """Returns a log that a user's Ctrl-C interrupts once an epoch of a training is done."""

    def log(task, epoch, metrics):
        if (task, epoch) == (name, number) and metrics:
            raise KeyboardInterrupt

    return log
