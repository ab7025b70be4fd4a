"""Time of a training step of the 1D CNN, against its parts alone; see `benchmarks.roofline`.

The step has the paper's size: a batch of 64, 300 voxels, 3 classes, penalty and dropout. Its floor
is a sum, because each part waits for the one before: matrix products and random numbers take the
time that each takes alone, and Adam crosses memory at the rate of x + a y in place. Adam reads and
writes parameters and both moments, and reads the gradient: 28 bytes for each parameter.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import expA
from emojax.experiments import programs
from emojax.models import cnn1d
from emojax.training import epoch

BATCH, VOXELS, CLASSES, POSITIONS, TAPS = 64, 300, 3, 246, 55
ROUNDS = 5


def triad():
    """Returns a call that computes x + a y in place, and the number of bytes that it moves."""
    held, y = [jnp.ones(2**25)], jnp.ones(2**25)
    add = jax.jit(lambda x, y: x + 0.5 * y, donate_argnums=0)

    def call():
        held[0] = add(held[0], y).block_until_ready()

    return call, 3 * y.nbytes


def product(rows, inner, columns, axes):
    """Returns a call of a matrix product, contracted over one axis of each factor."""
    shapes = [(rows, inner), (inner, columns)]
    a, b = (
        jnp.ones(s if i == j else s[::-1]) for s, i, j in zip(shapes, axes, (1, 0), strict=True)
    )
    multiply = jax.jit(lambda a, b: jax.lax.dot_general(a, b, ((axes[:1], axes[1:]), ((), ()))))
    return lambda: multiply(a, b).block_until_ready()


def products(params):
    """Returns calls of the large products of a step: forward, and both gradients."""
    sizes = [(BATCH * POSITIONS, TAPS, params["conv6"]["kernel"].shape[-1])]
    sizes += [(BATCH, *params[f"dense{i}"]["kernel"].shape) for i in range(1, 4)]
    calls = {}
    for (n, inner, out), name in zip(
        sizes, ("convolutions, composed", "dense1", "dense2", "dense3"), strict=True
    ):
        calls[f"{name}: forward"] = product(n, inner, out, (1, 0))
        calls[f"{name}: gradient of weights"] = product(inner, n, out, (0, 0))
        if name != "convolutions, composed":
            calls[f"{name}: gradient of input"] = product(n, out, inner, (1, 1))
    return calls


def composition(params):
    """Returns a call that composes the kernels, with the gradients of all six."""
    own = {name: layer for name, layer in params.items() if name.startswith("conv")}
    both = jax.jit(jax.grad(lambda p: sum((a**2).sum() for a in cnn1d.composed(p))))
    return lambda: jax.block_until_ready(both(own))


def noise():
    """Returns a call that draws the random numbers of the features' dropout."""
    key = jax.random.key(0)
    draw = jax.jit(lambda key: jax.random.bernoulli(key, 0.75, (BATCH, POSITIONS * 64)))
    return lambda: draw(key).block_until_ready()


def whole():
    """Returns a call of the step, as in `epoch.run_looped`, and its parameters."""
    config = expA.get_config()
    program = programs.make_program(config, CLASSES)
    x = np.random.default_rng(0).standard_normal((BATCH, VOXELS), np.float32)
    held = [epoch.begin(program, jax.random.key(0), x[:1])]
    batch = jnp.asarray(x), jnp.arange(BATCH, dtype=jnp.int32) % CLASSES
    factor = jnp.float32(config.train.penalty_factor)

    def call():
        held[0], metrics = epoch.step(program, held[0], *batch, factor, 1)
        jax.block_until_ready((held[0].state.params, metrics))

    return call, jax.tree.map(np.asarray, held[0].state.params)


def rounds(calls):
    """Returns the median ms of each call; calls take turns."""
    found = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            call()
            for _ in range(5):
                start = time.perf_counter()
                call()
                found[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in found.items()}


def measure():
    """Measures the step and its parts."""
    step, params = whole()
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    move, bytes_ = triad()
    parts = {"composition, with its gradient": composition(params)} | products(params)
    parts["random numbers of dropout"] = noise()
    took = rounds({"step": step, "x + a y": move} | parts)
    rate = bytes_ / took["x + a y"] * 1e3  # per second
    rows = [{"part": name, "floor_ms": took[name]} for name in parts]
    adam = 1e3 * 28 * size / rate
    rows.append({"part": f"Adam, {size / 1e6:.1f} M parameters", "floor_ms": adam})
    floor = sum(row["floor_ms"] for row in rows)
    found = {"step_ms": took["step"], "floor_ms": floor}
    return found | {"times_floor": took["step"] / floor, "triad_bytes_per_s": rate, "rows": rows}


def table(found):
    """Returns the parts as a table, with the whole step last."""
    lines = ["| part of a step of the 1D CNN | ms |", "|---|---|"]
    lines += [f"| {row['part']} | {row['floor_ms']:.2f} |" for row in found["rows"]]
    lines.append(f"| sum | {found['floor_ms']:.1f} |")
    lines.append(
        f"| the step ({found['times_floor']:.2f} times the sum) | {found['step_ms']:.1f} |"
    )
    return "\n".join(lines)
