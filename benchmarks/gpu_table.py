"""Latency of 1, 8 and 256 volumes from the device, the host and a file.

    python -m benchmarks.gpu_table --network=resnet3d
    python -m benchmarks.gpu_table --network=cnn1d --short      # one volume and 2, on a CPU

Both networks have the paper's size and random weights, and run in float32 and bfloat16 on int16
volumes of 64 x 64 x 44 voxels. `device`: the compiled network on volumes that are on the device;
`host`: NumPy volumes to NumPy probabilities; `file`: an uncompressed .nii in the page cache to
probabilities. `decoder` is `decoder.decode_file` on one volume, with its checks. `missed` counts
calls that take longer than a TR of .5 s and of 2 s. On a GPU both libraries may round products in
float32 to TF32.

The peer is the same network in torch: eager, and compiled by torch.compile with frozen weights in
channels_last_3d and, on a GPU, CUDA graphs. Each tool and dtype has a process of its own.
"""

import argparse
import functools
import json
import tempfile
import time
from typing import Any

from benchmarks.children import measure_or_say
from benchmarks.record import keep, make_parser
from benchmarks.tables.speed import PAPER_MS

TRS = (0.5, 2.0)  # s
CASES = (  # (tool, dtype), the most informative first, in case time runs out
    ("emojax", "bfloat16"),
    ("torch, compiled", "bfloat16"),
    ("emojax", "float32"),
    ("torch, compiled", "float32"),
    ("torch", "float32"),
)


def distribution(call, seconds):
    """Measures single calls in ms for that many seconds, at least ten, after two warm-up calls."""
    import numpy as np

    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 10:
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    names = ("p50", "p95", "p99", "max")
    found = dict(zip(names, np.percentile(times, (50, 95, 99, 100)).tolist(), strict=True))
    missed = {f"missed_{tr:g}s": int((np.array(times) > 1e3 * tr).sum()) for tr in TRS}
    return found | missed | {"calls": len(times), "first_ms": 1e3 * first}


@functools.cache
def _decoder(network):
    from benchmarks import latency

    return latency.MAKERS[network]()


def emojax_calls(case, volumes, path):
    """Yields sources and calls of emojax' network on a batch; a call returns probabilities."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from emojax import decoder, fusion
    from emojax.models import onednn

    network, dtype = case["network"], jnp.dtype(case["dtype"])
    made = _decoder(network)
    weights = dict(made.weights)
    voxels, centre = weights.pop("voxels", None), weights.pop("centre", 0)
    scale = {name: jnp.asarray(weights.pop(name)) for name in ("mean", "sd") if name in weights}
    weights = jax.tree.map(lambda a: jnp.asarray(a, dtype), weights) | scale  # scales in float32

    @onednn.jit
    def network_call(weights, x):
        x = x if voxels is None else (x - centre).astype(dtype)
        return fusion.apply_to_inputs(network, weights, x)

    def inputs(volumes):  # only what the network reads goes to the device
        x = volumes if voxels is None else volumes.reshape(len(volumes), -1)[:, voxels]
        return jnp.asarray(x)

    def decode(volumes):
        return np.asarray(network_call(weights, inputs(volumes)))

    def decode_file():
        values = decoder.read_image(path)[0]
        return decode(np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None])

    there = inputs(volumes)
    yield "device", lambda: network_call(weights, there).block_until_ready()
    yield "host", lambda: decode(volumes)
    yield "file", decode_file
    if len(volumes) == 1 and case["dtype"] == "float32":
        on_device = made.replace(weights=jax.tree.map(jnp.asarray, made.weights))
        yield "decoder", lambda: decoder.decode_file(on_device, path)


@functools.cache
def torch_network(network, dtype, compiled):
    """Returns the same network in torch: module, device and layout."""
    import torch  # pyright: ignore[reportMissingImports] a peer

    torch.set_float32_matmul_precision("high")  # TF32, as XLA's default
    if network == "cnn1d":
        from benchmarks.cnn1d import torch_model as make

        layout = torch.contiguous_format
    else:
        from benchmarks.resnet3d_peers import torch_network as make

        layout = torch.channels_last_3d if compiled else torch.contiguous_format
    place = "cuda" if torch.cuda.is_available() else "cpu"
    model = make().eval().to(place, getattr(torch, dtype)).to(memory_format=layout)
    torch._inductor.config.freezing = compiled
    if compiled:
        graphs = "reduce-overhead" if place == "cuda" else "default"
        model = torch.compile(model, mode=graphs, dynamic=False)
    return model, place, layout


def torch_calls(case, volumes, path):
    """Yields sources and calls of the same network in torch on a batch."""
    import nibabel as nib
    import numpy as np
    import torch  # pyright: ignore[reportMissingImports] a peer

    model, place, layout = torch_network(case["network"], case["dtype"], "compiled" in case["tool"])
    kept = np.arange(300)  # the number of voxels of the CNN's decoder

    def inputs(volumes):
        x = volumes if case["network"] == "resnet3d" else volumes.reshape(len(volumes), -1)[:, kept]
        x = (torch.from_numpy(np.ascontiguousarray(x)).to(place).float() - 200) / 300
        return x[:, None].to(getattr(torch, case["dtype"]), memory_format=layout)

    def decode(x):
        with torch.no_grad():
            return torch.softmax(model(x).float(), -1)

    def decode_file():
        values = np.asarray(nib.Nifti1Image.from_filename(path).dataobj)
        return decode(inputs(np.moveaxis(values, -1, 0))).cpu()

    there = inputs(volumes)

    def on_device():
        decode(there)
        if place == "cuda":
            torch.cuda.synchronize()

    yield "device", on_device
    yield "host", lambda: decode(inputs(volumes)).cpu()
    yield "file", decode_file


def work(case):
    """Times one tool in the child, and prints one line of JSON."""
    import nibabel as nib
    import numpy as np

    from benchmarks.latency import AFFINE, volume

    rows = []
    calls_of = emojax_calls if case["tool"] == "emojax" else torch_calls
    with tempfile.TemporaryDirectory() as folder:
        for batch in case["batches"]:
            volumes, path = np.stack([volume()[0]] * batch), f"{folder}/{batch}.nii"
            nib.save(nib.Nifti1Image(np.moveaxis(volumes, 0, -1), AFFINE), path)
            for source, call in calls_of(case, volumes, path):
                found = distribution(call, case["seconds"])
                rows.append({"from": source, "batch": batch} | found)
    print(json.dumps({"rows": rows}))


def table(results):
    """Returns the table of one network."""
    network = results["network"]
    head = ("tool", "dtype", "from", "batch", "p50 ms", "p95", "p99", "max", "missed .5 s", "2 s")
    lines = [f"| {' | '.join(head)} | volumes/s | times the paper's |", "|---" * 12 + "|"]
    for row in results["rows"]:
        cells = [row["tool"], row["dtype"], row["from"], str(row["batch"])]
        cells += [f"{row[name]:.3g}" for name in ("p50", "p95", "p99", "max")]
        cells += [f"{row[f'missed_{tr:g}s']} of {row['calls']}" for tr in TRS]
        speed = 1e3 * row["batch"] / row["p50"]
        lines.append(
            f"| {' | '.join(cells)} | {speed:,.0f} | {speed * PAPER_MS[network] / 1e3:.3g} |"
        )
    lines.append(f"\nThe paper, on its GPU: {PAPER_MS[network]} ms per volume of a large batch.")
    lines += [
        f"left out: {own['tool']}, {own['dtype']}: {own['why']}" for own in results["left_out"]
    ]
    return "\n".join(lines)


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--network", choices=PAPER_MS, default="resnet3d")
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of each distribution")
    parser.add_argument("--short", action="store_true", help="a trial on a CPU: 1 and 2 volumes")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(json.loads(args.worker))
    shape = {"network": args.network, "seconds": 0.1 if args.short else args.seconds}
    shape["batches"] = (1, 2) if args.short else (1, 8, 256)
    results: dict[str, Any] = {"network": args.network, "paper_ms": PAPER_MS[args.network]}
    results |= {"rows": [], "left_out": []}
    for tool, dtype in CASES:
        found = measure_or_say("benchmarks.gpu_table", shape | {"tool": tool, "dtype": dtype})
        head = {"tool": tool, "dtype": dtype}
        if why := found.get("left_out"):
            results["left_out"].append(head | {"why": why})
            continue
        results["rows"] += [head | row for row in found["rows"]]
        keep("gpu_table", args.network, results)  # kept if time runs out
    print(table(results))


if __name__ == "__main__":
    main()
