"""Every distinct convolution of ResNet-50, forward and both gradients, beside torch.

    python -m benchmarks.gpu_layers                  # batches of 32, bfloat16 and float32
    python -m benchmarks.gpu_layers --short          # two layers on one volume, on a CPU
    python -m benchmarks.gpu_layers --dtypes=float32 --batch=8    # all of them on a CPU, 2 minutes

`dx` is the gradient with respect to the input, `dw` to the kernel. Times are ms of one call:
medians of rounds of calls that are waited for at their end. torch has channels_last_3d and cuDNN's
search for the fastest algorithm (cudnn.benchmark); each direction is the operator that autograd
would call. `ratio` is torch's time divided by emojax's. `difference` is the largest difference of
sampled values, relative to their largest magnitude; the stem has none, because its padding differs.
"""

import argparse
import collections
import functools
import json
import math
import statistics
import time
from typing import Any, NamedTuple

from benchmarks.children import measure_or_say
from benchmarks.record import accelerator, keep, make_parser
from benchmarks.resnet3d_peers import BLOCKS

WAYS = ("forward", "dx", "dw")
SAMPLES = 64  # compared values of each result


class Layer(NamedTuple):
    """A convolution: shape of the kernel, stride, and shape of the input without the batch."""

    kernel: tuple[int, ...]
    stride: int
    input: tuple[int, ...]

    def __str__(self):
        window, space = "x".join(map(str, self.kernel[:3])), "x".join(map(str, self.input[:3]))
        strided = f" / {self.stride}" if self.stride > 1 else ""
        return f"{window}{strided}, {self.kernel[3]} -> {self.kernel[4]} at {space}"

    @property
    def output(self):
        """The shape of the output without the batch."""
        return (*(-(-n // self.stride) for n in self.input[:3]), self.kernel[4])

    @property
    def gmac(self):
        """The multiplications of one volume, in billions, those with the padding included."""
        return math.prod(self.kernel) * math.prod(self.output[:3]) / 1e9


def layers():
    """Returns {layer: number of times} of ResNet-50 on 64 x 64 x 44 voxels, the stem first."""
    found = collections.Counter()

    def conv(window, features, out, space, stride=1):
        layer = Layer((*(window,) * 3, features, out), stride, (*space, features))
        found[layer] += 1
        return layer.output[:3]

    space = conv(7, 1, 64, (64, 64, 44), 2)
    space, features = tuple(-(-n // 2) for n in space), 64  # max pooling
    for stage, blocks in enumerate(BLOCKS):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            inside = conv(1, features, width, space, stride)
            if not block:
                conv(1, features, 4 * width, space, stride)
            conv(1, width, 4 * width, conv(3, width, width, inside))
            space, features = inside, 4 * width
    return found


def timed(call, wait, seconds):
    """Returns the median ms of a call, over rounds of calls with one wait at their end."""
    wait(call())
    start = time.perf_counter()
    wait(call())
    many = max(1, min(50, int(0.01 / (time.perf_counter() - start))))
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        out = call()
        for _ in range(many - 1):
            out = call()
        wait(out)
        times.append(1e3 * (time.perf_counter() - start) / many)
    return statistics.median(times)


def arrays(layer, batch):
    """Returns input, kernel and gradient of the output, channels last."""
    import numpy as np

    rng = np.random.default_rng(0)
    shapes = (batch, *layer.input), layer.kernel, (batch, *layer.output)
    x, kernel, gradient = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return x, kernel / max(1, kernel[..., 0].size) ** 0.5, gradient


def sample(values):
    """Returns evenly spaced values of an array."""
    return values.reshape(-1)[:: max(1, values.size // SAMPLES)].astype("float64").tolist()


def emojax_ways(layer, batch, dtype):
    """Returns {way: call} of emojax' convolution, and functions that wait for and read a result."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from emojax.models import onednn
    from emojax.models.convolution import conv3d

    x, kernel, gradient = (jnp.asarray(a, dtype) for a in arrays(layer, batch))

    def forward(x, kernel):
        return conv3d(x, kernel, (layer.stride,) * 3)

    programs = {
        "forward": forward,
        "dx": lambda x, k: jax.vjp(lambda x: forward(x, k), x)[1](gradient)[0],
        "dw": lambda x, k: jax.vjp(lambda k: forward(x, k), k)[1](gradient)[0],
    }
    compiled = {name: onednn.jit(own) for name, own in programs.items()}
    calls = {name: functools.partial(own, x, kernel) for name, own in compiled.items()}
    return calls, jax.block_until_ready, lambda a: np.asarray(a.astype(jnp.float32))


def torch_ways(layer, batch, dtype):
    """Returns the same for torch's convolution in channels_last_3d."""
    import torch  # pyright: ignore[reportMissingImports] a peer

    place = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32, as XLA's default
    kind = {"device": place, "dtype": getattr(torch, dtype)}

    def there(values, axes):  # axes in torch's order, channels last in memory
        out = torch.from_numpy(values).permute(axes).to(**kind)
        return out.to(memory_format=torch.channels_last_3d)

    x, kernel, gradient = arrays(layer, batch)
    x, gradient = (there(a, (0, 4, 1, 2, 3)) for a in (x, gradient))
    kernel = there(kernel, (4, 3, 0, 1, 2))
    rest = [[layer.stride] * 3, [layer.kernel[0] // 2] * 3, [1] * 3, False, [0] * 3, 1]

    def backward(mask):
        return torch.ops.aten.convolution_backward(gradient, x, kernel, None, *rest, mask)

    calls = {
        "forward": lambda: torch.ops.aten.convolution(x, kernel, None, *rest),
        "dx": lambda: backward([True, False, False])[0],
        "dw": lambda: backward([False, True, False])[1],
    }

    def read(a):
        axes = (2, 3, 4, 1, 0) if a.shape == kernel.shape else (0, 2, 3, 4, 1)
        return a.float().cpu().permute(axes).contiguous().numpy()

    return calls, lambda _: torch.cuda.synchronize() if place == "cuda" else None, read


def work(case):
    """Times every layer with one tool in the child, and prints one line of JSON."""
    if case["tool"] == "emojax":
        from emojax.training import pages

        pages.keep()  # as the command line does
    rows, ways = [], emojax_ways if case["tool"] == "emojax" else torch_ways
    for kernel, stride, space in case["layers"]:
        layer = Layer(tuple(kernel), stride, tuple(space))
        calls, wait, read = ways(layer, case["batch"], case["dtype"])
        row = {}
        for name, call in calls.items():
            ms = timed(call, wait, case["seconds"])
            row[name] = {"ms": ms, "values": sample(read(call()))}
        rows.append(row)
    print(json.dumps({"rows": rows}))


def compare(shape, dtype, counts):
    """Returns a row for each layer and way, and the reason if torch was left out."""
    found = {
        tool: measure_or_say("benchmarks.gpu_layers", shape | {"tool": tool, "dtype": dtype})
        for tool in ("emojax", "torch")
    }
    why, rows = found["torch"].get("left_out"), []
    for i, layer in enumerate(shape["layers"]):
        for way in WAYS:
            ours = found["emojax"]["rows"][i][way]
            row: dict[str, Any] = {"layer": str(layer), "times": counts[layer]}
            row |= {"dtype": dtype, "way": way}
            row["emojax_ms"] = ours["ms"]
            if why is None:
                theirs = found["torch"]["rows"][i][way]
                row |= {"torch_ms": theirs["ms"], "ratio": theirs["ms"] / ours["ms"]}
                if layer.kernel[0] < 7:
                    row["difference"] = _difference(ours["values"], theirs["values"])
            rows.append(row)
    return rows, why


def _difference(ours, theirs):
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / max(map(abs, theirs))


def table(rows):
    """Returns the rows as a table, with the sum of each way over the network."""
    lines = ["| convolution | times | dtype | way | emojax ms | torch ms | ratio | difference |"]
    lines.append("|---" * 8 + "|")
    total = collections.defaultdict(lambda: [0.0, 0.0])
    for row in rows:
        cells = [row["layer"], str(row["times"]), row["dtype"], row["way"]]
        keys = ("emojax_ms", "torch_ms", "ratio", "difference")
        cells += [f"{row[name]:.3g}" if name in row else "" for name in keys]
        lines.append(f"| {' | '.join(cells)} |")
        own = total[row["dtype"], row["way"]]
        own[0] += row["times"] * row["emojax_ms"]
        own[1] += row["times"] * row.get("torch_ms", float("nan"))
    for (dtype, way), (ours, theirs) in total.items():
        lines.append(
            f"| all | | {dtype} | {way} | {ours:.3g} | {theirs:.3g} | {theirs / ours:.3g} | |"
        )
    return "\n".join(lines)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--seconds", type=float, default=0.2, help="duration of each measurement")
    parser.add_argument("--short", action="store_true", help="a trial on a CPU: two layers")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(json.loads(args.worker))
    counts = layers()
    chosen = [*counts]
    if args.short:
        chosen = chosen[:1] + [own for own in chosen if own.kernel[0] == 3][-1:]
    shape = {"layers": chosen, "batch": 1 if args.short else args.batch}
    shape["seconds"] = 0.01 if args.short else args.seconds
    results: dict[str, Any] = {"batch": shape["batch"], "rows": []}
    whole = not args.short and accelerator()[0] == "cpu"
    stored = ("layers_cpu", f"batch {args.batch}") if whole else ("gpu_layers", "layers")
    for dtype in args.dtypes.split(","):
        rows, why = compare(shape, dtype, counts)
        results["rows"] += rows
        if why:
            results["left_out"] = {"torch": why}
        keep(*stored, results)
    print(table(results["rows"]))


if __name__ == "__main__":
    main()
