"""Time of each part of ResNet-50, against the limits of this device.

    python -m benchmarks.roofline                 # about 2 minutes on 2 cores
    python -m benchmarks.roofline --dtype=bfloat16 --batches=1,256
    python -m benchmarks.roofline --step          # a training step of the 1D CNN, 20 s

Limits are measured first: a large matrix product and a large copy. Then each part of the folded
network runs alone, on input of its shape, and so does each kind of convolution in it. `floor` is
the least time on this device: the larger of multiply-adds divided by the matrix product's rate, and
bytes of weights, input and output divided by the copy's rate. XLA counts the FLOPs of the compiled
part, and the bytes that it reads and writes (`traffic`). Parts far above their floor are worth
optimising.
"""

import collections
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp

from benchmarks import roofline_step
from benchmarks.latency import GRID, MAKERS
from benchmarks.record import keep, make_parser
from emojax.models import resnet3d_folded
from emojax.models.convolution import conv3d
from emojax.training import pages

NAMES = ("stem", "stage 1", "stage 2", "stage 3", "stage 4", "head")


def seconds(call, *args, least=1.0):
    """Returns the median time of repeated calls."""
    for _ in range(3):
        jax.block_until_ready(call(*args))
    times, end = [], time.perf_counter() + least
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        jax.block_until_ready(call(*args))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def ceilings(dtype):
    """Returns FLOP/s of a matrix product and bytes/s of a copy."""
    n = 2048 if jax.default_backend() == "cpu" else 16384
    a = jnp.ones((n, n), dtype)
    product = 2 * n**3 / seconds(jax.jit(jnp.matmul), a, a)
    x = jnp.ones(2**25 if jax.default_backend() == "cpu" else 2**28, jnp.float32)
    held, add = [x], jax.jit(lambda x: x + 1, donate_argnums=0)  # in place: no fresh pages

    def copy():
        held[0] = add(held[0])
        return held[0]

    return product, 2 * x.nbytes / seconds(copy)


def measured(call, ceiling, *args):
    """Returns the time of a compiled program, its floor, and XLA's counts."""
    compiled = jax.jit(call).lower(*args).compile()
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    assert cost is not None and memory is not None  # CPUs and GPUs report both
    flops = float(cost["flops"])
    least = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return {
        "ms": 1e3 * seconds(compiled, *args),
        "floor_ms": 1e3 * max(flops / ceiling[0], least / ceiling[1]),
        "gflop": flops / 1e9,
        "least_mb": least / 1e6,
        "traffic_mb": float(cost.get("bytes accessed", float("nan"))) / 1e6,
    }


def convolutions(name, blocks, x):
    """Counts the convolutions of a stage by (kernel shape, stride, input shape)."""
    count = collections.Counter()
    for j, own in enumerate(blocks):
        stride = 2 if name != "stage 1" and not j else 1
        inside = (x.shape[0], *(-(-n // stride) for n in x.shape[1:4]))
        for part in (p for p in own if p.startswith(("conv", "shortcut"))):
            kernel = own[part][0]
            strided = stride if part in ("conv1", "shortcut") else 1
            space = (x.shape[:4] if not j else inside) if strided == stride == 2 else inside
            count[kernel.shape, strided, (*space, kernel.shape[-2])] += 1
        x = jax.ShapeDtypeStruct((*inside, own["conv3"][0].shape[-1]), x.dtype)
    return count


def rows_of(batch, weights, dtype, ceiling):
    parts = resnet3d_folded.resnet3d_parts(weights)
    x = jnp.ones((batch, *GRID), dtype)
    whole = {"batch": batch, "part": "whole network"}
    whole |= measured(resnet3d_folded.apply_resnet3d, ceiling, weights, x)
    rows = []
    for name, (part, own) in zip(NAMES, parts, strict=True):
        rows.append({"batch": batch, "part": name} | measured(part, ceiling, own, x))
        kinds = collections.defaultdict(collections.Counter)
        found = convolutions(name, own, x) if name.startswith("stage") else {}
        for (window, stride, shape), times in found.items():
            kernel, inputs = jnp.ones(window, dtype), jnp.ones(shape, dtype)
            one = measured(lambda x, k, s=stride: conv3d(x, k, (s,) * 3), ceiling, inputs, kernel)
            kind = f"{name}, {'x'.join(map(str, window[:3]))}"
            kinds[kind].update({key: times * value for key, value in one.items()})
        rows += [{"batch": batch, "part": kind} | dict(total) for kind, total in kinds.items()]
        x = jax.jit(part)(own, x)
    return [whole, *rows]


def table(rows):
    head = "| batch | part | us per volume | floor | times floor | GFLOP/s | MB read and written |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for r in rows:
        us, floor = 1e3 * r["ms"] / r["batch"], 1e3 * r["floor_ms"] / r["batch"]
        lines.append(
            f"| {r['batch']} | {r['part']} | {us:,.0f} | {floor:,.0f} | {us / floor:.1f} | "
            f"{r['gflop'] / r['ms'] * 1e3:,.0f} | {r['traffic_mb']:,.0f} |"
        )
    return "\n".join(lines)


def main():
    pages.keep()
    parser = make_parser(__doc__)
    cpu = jax.default_backend() == "cpu"
    parser.add_argument("--dtype", default="float32" if cpu else "bfloat16")
    parser.add_argument("--batches", default="1,8" if cpu else "1,256")
    parser.add_argument("--step", action="store_true", help="measure a step of the 1D CNN instead")
    args = parser.parse_args()
    if args.step:
        found = roofline_step.measure()
        print(roofline_step.table(found))
        keep(f"roofline_{jax.default_backend()}", "step of the 1D CNN", found)
        return
    dtype = jnp.dtype(args.dtype)
    ceiling = ceilings(dtype)
    print(f"matrix product {ceiling[0] / 1e9:,.0f} GFLOP/s, copy {ceiling[1] / 1e9:,.0f} GB/s")
    weights = MAKERS["resnet3d"]().weights
    weights = {k: v for k, v in weights.items() if k not in ("mean", "sd")}
    weights = jax.tree.map(lambda a: jnp.asarray(a, dtype), weights)
    rows = [
        row for n in args.batches.split(",") for row in rows_of(int(n), weights, dtype, ceiling)
    ]
    print(table(rows))
    found = {"flops_per_s": ceiling[0], "bytes_per_s": ceiling[1], "rows": rows}
    keep(f"roofline_{jax.default_backend()}", args.dtype, found)


if __name__ == "__main__":
    main()
