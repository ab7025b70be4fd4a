"""3D ResNet-50 with oneDNN's convolutions beside planes, in one process and in turns.

    python -m benchmarks.onednn            # about 5 minutes on 2 cores; jax 0.11 or newer
    python -m benchmarks.onednn --layers   # the convolutions one by one, about 6 minutes

The whole network runs on 64 x 64 x 44 volumes: forward on 1 and on 8, the gradient on 4 (forward
and backward in training mode, without the optimiser), and forward on 8 in bfloat16. `planes` is
compiled by `jax.jit`, `onednn` by `emojax.models.onednn.jit`. Times are medians of rounds in which
the variants take turns; ratios are medians of the rounds' ratios, with their range. Each row has
the largest difference between the two, relative to the largest value.
"""

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import keep, make_parser
from benchmarks.resnet3d_peers import GRID, volumes
from emojax.models import onednn, resnet3d
from emojax.models.convolution import conv3d
from emojax.training import pages

CALLS = {1: 5, 4: 1, 8: 2}  # per round, by batch
# Distinct convolutions of the ResNet-50, and strided ones of the ResNet-18:
# name, volume, channels in and out, window, stride.
LAYERS = (
    ("stem", (64, 64, 44), 1, 64, 7, 2),
    ("stage 1, 3x3x3", (16, 16, 11), 64, 64, 3, 1),
    ("stage 1, 1x1x1", (16, 16, 11), 64, 256, 1, 1),
    ("stage 2, 1x1x1 / 2", (16, 16, 11), 256, 128, 1, 2),
    ("stage 2, 3x3x3", (8, 8, 6), 128, 128, 3, 1),
    ("stage 3, 1x1x1 / 2", (8, 8, 6), 512, 256, 1, 2),
    ("stage 3, 3x3x3", (4, 4, 3), 256, 256, 3, 1),
    ("stage 4, 3x3x3", (2, 2, 2), 512, 512, 3, 1),
    ("ResNet-18, stage 2, 3x3x3 / 2", (16, 16, 11), 64, 128, 3, 2),
    ("ResNet-18, stage 3, 3x3x3 / 2", (8, 8, 6), 128, 256, 3, 2),
    ("ResNet-18, stage 4, 3x3x3 / 2", (4, 4, 3), 256, 512, 3, 2),
)


def interleaved(variants, rounds, calls):
    """Calls the variants in turns; returns {name: [ms of each round]}."""
    times = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            start = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(call())
            times[name].append(1e3 * (time.perf_counter() - start) / calls)
    return times


def compiled(fun, args, kinds):
    """Compiles a function by each kind of jit and calls it once; returns calls and facts."""
    calls, facts, first = {}, {}, None
    for name, jit in kinds.items():
        made = jit(fun).lower(*args).compile()
        found = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(made(*args))]
        first = first or found
        scale = max(np.abs(leaf).max() for leaf in first)  # one for all leaves of a gradient
        pairs = zip(found, first, strict=True)
        facts[name] = {
            "convolutions_of_onednn": made.as_text().count(f'target="{onednn.CALL}"'),
            "difference": float(max(np.abs(a - b).max() for a, b in pairs) / scale),
        }
        calls[name] = functools.partial(made, *args)
    return calls, facts


def rows_of(what, batch, times, facts, base="planes"):
    """Yields a row for each variant."""
    for name, own in times.items():
        ratios = [mine / other for mine, other in zip(own, times[base], strict=True)]
        row = {"what": what, "batch": batch, "variant": name, "ms": statistics.median(own)}
        row |= {"spread": [min(own), max(own)], f"over_{base}": statistics.median(ratios)}
        row |= {f"over_{base}_spread": [min(ratios), max(ratios)]} | facts.get(name, {})
        print({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        yield row


def network(rounds):
    kinds = {"planes": jax.jit, "onednn": onednn.jit}
    model = resnet3d.resnet50(2)
    short = resnet3d.resnet50(2, dtype=jnp.bfloat16)
    weights = jax.jit(lambda x: model.init(jax.random.key(0), x))(jnp.zeros((1, *GRID)))

    def gradient(weights, x):
        def loss(params):
            variables = weights | {"params": params}
            out, _ = model.apply(variables, x, train=True, mutable=["batch_stats"])
            return jnp.square(out - 1).mean()

        return jax.grad(loss)(weights["params"])

    for what, batch, fun in (
        ("forward", 1, model.apply),
        ("forward", 8, model.apply),
        ("gradient", 4, gradient),
    ):
        x = jnp.asarray(volumes(batch)[0])
        calls, facts = compiled(fun, (weights, x), kinds)
        if (what, batch) == ("forward", 8):
            more, also = compiled(short.apply, (weights, x), kinds)
            calls |= {f"{name}, bfloat16": call for name, call in more.items()}
            facts |= {f"{name}, bfloat16": fact for name, fact in also.items()}
        times = interleaved(calls, rounds, CALLS[batch])
        yield from rows_of(what, batch, times, facts)


def layers(rounds):
    def gradients(convolve, x, kernel, g):
        return {
            "forward": lambda x, kernel, g: convolve(x, kernel),
            "dX": lambda x, kernel, g: jax.vjp(lambda x: convolve(x, kernel), x)[1](g),
            "dW": lambda x, kernel, g: jax.vjp(lambda k: convolve(x, k), kernel)[1](g),
        }

    for name, size, inside, outside, window, stride in LAYERS:
        rng = np.random.default_rng(0)
        for part, batch in (("forward", 1), ("forward", 8), ("dX", 4), ("dW", 4)):
            if (name, part) == ("stem", "dX"):  # not needed: no parameters before it
                continue
            out = tuple(-(-n // stride) for n in size)
            shapes = (batch, *size, inside), (window,) * 3 + (inside, outside)
            x, kernel, g = (
                jnp.asarray(rng.standard_normal(s, "float32"))
                for s in (*shapes, (batch, *out, outside))
            )
            convolve = functools.partial(conv3d, strides=(stride,) * 3)
            fun = gradients(convolve, x, kernel, g)[part]
            kinds = {"planes": jax.jit, "onednn": onednn.jit}
            calls, facts = compiled(fun, (x, kernel, g), kinds)
            times = interleaved(calls, rounds, 3)
            flop = 2 * batch * np.prod(out) * window**3 * inside * outside
            for row in rows_of(f"{name}, {part}", batch, times, facts):
                yield row | {"gflop_per_s": float(flop / row["ms"] / 1e6)}


def main():
    pages.keep()  # as the command line does
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", action="store_true", help="measure the convolutions one by one")
    args = parser.parse_args()
    if onednn.path() != "onednn":
        raise SystemExit(f"no oneDNN here: convolutions are computed by {onednn.path()!r}")
    part, measure = ("layers", layers) if args.layers else ("resnet3d", network)
    keep("onednn_cpu", part, list(measure(args.rounds)))


if __name__ == "__main__":
    main()
