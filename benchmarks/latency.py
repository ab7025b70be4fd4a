"""Time from one volume to its probabilities, with the tail of the distribution.

    python benchmarks/latency.py                          # under 3 minutes on 2 cores
    python benchmarks/latency.py --budget_ms=50           # exit code 1 if a p99 from file is above
    python benchmarks/latency.py --peers                  # also plain Flax, PyTorch and MONAI
    python benchmarks/latency.py --paper                  # also the paper's 1950 volumes, on a CPU
    python benchmarks/latency.py --online                 # guards and correction alone

Both networks have the paper's size and random weights; volumes are 64 x 64 x 44. Stages: `device`:
the compiled function on arrays that are on the device; `host`: NumPy volume to NumPy probabilities,
checks included (`decoder.decode`); `file`: an uncompressed .nii in the page cache to probabilities
(`decoder.decode_file`); `checks`: the guards alone (`decoder.verify`); `level`: guards, gain and
offset, and the decoder (`online.step`); `motion`: the same with rigid motion. Cold is the first
call of the process: load of the bundle, compilation or XLA's cache, and the volume. A deadline is
missed if a call takes longer than a TR. On a GPU the ResNet and its peers run in float32 and
bfloat16. PyTorch runs eagerly, and compiled with frozen weights in channels_last_3d (on a GPU with
CUDA graphs).
"""

import functools
import itertools
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
from matplotlib.figure import Figure

from benchmarks.record import ROOT, keep, make_parser
from benchmarks.tables import speed
from emojax import decoder, fusion, models, online
from emojax.decoder import guards
from emojax.models import cnn1d, onednn, resnet3d

GRID, KEEP, AFFINE = (64, 64, 44), 300, np.diag([3.5, 3.5, 3.5, 1])
PAPER_VOLUMES = 1950


def distribution(call, seconds, tr=2.0, least=20):
    """Measures single calls in ms for that many seconds, after three warm-up calls."""
    for _ in range(3):
        call()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < least:
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    found = dict(zip(("p50", "p95", "p99"), np.percentile(times, (50, 95, 99)), strict=True))
    found |= {"max": max(times), "jitter_sd": float(np.std(times)), "calls": len(times)}
    return found | {"missed": int((np.array(times) > 1e3 * tr).sum())}, times


def volume():
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID, bool)
    mask[12:52, 12:52, 8:36] = True
    x = rng.normal(20, 5, GRID)
    x[mask] = rng.normal(800, 80, mask.sum())
    return x.astype(np.int16), mask


def facts(classes):
    """Returns metadata that fit `volume`."""
    x, mask = volume()
    inside = x[mask].astype(float)
    return decoder.Facts(classes, GRID, inside.mean(), inside.std(), 2.0)


def make_cnn1d():
    mask, rng = volume()[1], np.random.default_rng(1)
    params = cnn1d.CNN1D(3).init(jax.random.key(0), jnp.zeros((1, KEEP)))["params"]
    voxels = np.sort(rng.choice(mask.sum(), KEEP, replace=False))
    mean, sd = np.full(KEEP, 800.0), np.full(KEEP, 80.0)
    where = {"mask": mask, "voxels": voxels, "affine": AFFINE}
    made = decoder.from_cnn1d(facts(("a", "b", "c")), params, mean=mean, sd=sd, **where)
    return referenced(made)


def make_resnet3d():
    model = resnet3d.resnet50(2)
    made = jax.jit(lambda x: model.init(jax.random.key(0), x))(jnp.zeros((1, *GRID)))
    options = {"mask": volume()[1], "mean": np.float32(200), "sd": np.float32(300)}
    parts = made["params"], made["batch_stats"]
    return referenced(decoder.from_resnet3d(facts(("a", "b")), *parts, affine=AFFINE, **options))


def referenced(made):
    """Returns a decoder with a reference image, from a short run."""
    rng, x = np.random.default_rng(2), volume()[0]
    run = x + rng.normal(size=(4, *GRID)).astype(np.float32) * 8
    reference, limits = guards.measured([run], made.mask)
    kept = made.facts._replace(limits=limits, reference_of="01", subject="01")
    return made.replace(reference=reference, facts=kept)


def stepper(made, x, correct):
    """Returns a call that decodes the next noisy volume of a run."""
    rng = np.random.default_rng(3)
    run = itertools.cycle(x + rng.normal(size=(8, *GRID)).astype(np.float32) * 8)
    state = online.init(made, correct)

    def call():
        nonlocal state
        state, _ = online.step(state, next(run))

    return call


MAKERS = {"cnn1d": make_cnn1d, "resnet3d": make_resnet3d}  # decoders with random weights


def stages(network, folder, seconds, tr, paper):
    """Returns the rows of one network, and the times of single calls by stage."""
    decoder.save(MAKERS[network](), folder / network)
    x = volume()[0].astype(np.float32)
    start = time.perf_counter()
    loaded = decoder.load(folder / network)
    opened = time.perf_counter()
    decoder.decode(loaded, x)
    row = {"stage": "cold", "dtype": "float32", "load_ms": 1e3 * (opened - start)}
    rows, times = [row | {"first_ms": 1e3 * (time.perf_counter() - opened)}], {}
    gpu = jax.default_backend() != "cpu"
    for short in (False, True) if gpu and has_volumes(network) else (False,):
        rows += on_device(network, loaded.weights, x, short, seconds, tr, paper or gpu)
    path = folder / "volume.nii"
    nib.save(nib.Nifti1Image(volume()[0], AFFINE), path)
    for stage, one in (
        ("host", lambda: decoder.decode(loaded, x)),
        ("file", lambda: decoder.decode_file(loaded, path)),
        ("checks", lambda: decoder.verify(loaded, x)),
        ("level", stepper(loaded, x, "level")),
        ("motion", stepper(loaded, x, "motion+level")),
    ):
        found, times[stage] = distribution(one, seconds, tr)
        rows.append(row_of(stage, 1, found) | {"dtype": "float32"})
    return [{"network": network, "tool": "emojax"} | row for row in rows], times


def corrected(seconds, tr):
    """Returns the stages of the CNN's decoder with a reference image: guards, level, motion."""
    made, x = make_cnn1d(), volume()[0].astype(np.float32)
    made = made.replace(weights=jax.tree.map(jnp.asarray, made.weights))
    calls = {"host": lambda: decoder.decode(made, x), "checks": lambda: decoder.verify(made, x)}
    calls |= {"level": stepper(made, x, "level"), "motion": stepper(made, x, "motion+level")}
    rows = [row_of(stage, 1, distribution(call, seconds, tr)[0]) for stage, call in calls.items()]
    for row in rows:
        print(row["stage"], {name: round(row[name], 3) for name in ("p50", "p95", "p99")})
    return rows


def has_volumes(network):
    return models.find(network).input == "volume"


def row_of(stage, batch, found):
    per_volume = 1e3 * found["p50"] / batch
    return {"stage": stage, "batch": batch, "us_per_volume": per_volume} | found


def on_device(network, weights, x, short, seconds, tr, paper):
    """Returns the rows of the compiled function on arrays that are on the device."""
    if short:
        kept = {name: weights[name] for name in ("mean", "sd")}  # scaling comes before rounding
        weights = jax.tree.map(lambda a: a.astype(jnp.bfloat16), weights) | kept
    call = onednn.jit(functools.partial(fusion.apply_to_inputs, network))
    if has_volumes(network):
        sizes = (1, 8) if jax.default_backend() == "cpu" else (1, 8, 64, 256)
        inputs = {n: jnp.asarray(np.tile(x, (n, 1, 1, 1))) for n in sizes}
    else:
        inputs = {n: jnp.asarray(np.tile(x.ravel()[:KEEP], (n, 1))) for n in (1, 8, 64, 600)}
    rows, dtype = [], {"dtype": "bfloat16" if short else "float32"}
    n, batch = list(inputs.items())[-1]
    for n, batch in inputs.items():
        found, _ = distribution(lambda b=batch: call(weights, b).block_until_ready(), seconds, tr)
        rows.append(row_of("device", n, found) | dtype)
    if paper and has_volumes(network):  # the last batch is full, too
        count = -(-PAPER_VOLUMES // n)
        start, last = time.perf_counter(), None
        for _ in range(count):
            last = call(weights, batch)
        jax.block_until_ready(last)
        taken = time.perf_counter() - start
        row = {"stage": f"{PAPER_VOLUMES} volumes", "batch": n, "seconds": taken} | dtype
        rows.append(row | {"us_per_volume": 1e6 * taken / PAPER_VOLUMES})
    return rows


def flax_peer():
    model = cnn1d.CNN1D(3, compose=False)
    params = model.init(jax.random.key(0), jnp.zeros((1, KEEP)))
    call = jax.jit(model.apply)
    for n in (1, 600):
        x = jnp.ones((n, KEEP))
        yield "cnn1d", "plain flax", n, lambda x=x: call(params, x).block_until_ready()


def torch_peers():
    import torch  # pyright: ignore[reportMissingImports] a peer

    from benchmarks.cnn1d import torch_model
    from benchmarks.resnet3d_peers import monai_network

    gpu = torch.cuda.is_available() and jax.default_backend() != "cpu"
    place = "cuda" if gpu else "cpu"
    vector, grid = (1, KEEP), (1, *GRID)
    sizes = (1, 8, 64, 256) if gpu else (1, 8)
    # (network, tool, what makes the module, dtype, shape, batches)
    runs: list[tuple] = [("cnn1d", "pytorch", torch_model, torch.float32, vector, (1, 600))]
    runs.append(("resnet3d", "monai", monai_network, torch.float32, grid, sizes))
    for name, *rest in list(runs):  # each also in its fastest setting
        runs.append((name, f"{rest[0]}, compiled", *rest[1:]))
    if gpu:
        for tool in ("monai, bf16", "monai, bf16, compiled"):
            runs.append(("resnet3d", tool, monai_network, torch.bfloat16, grid, sizes))
    for name, tool, make, dtype, shape, sizes in runs:
        model, compiled = make().eval().to(place, dtype), tool.endswith("compiled")
        last = name == "resnet3d" and (gpu or compiled)
        layout = torch.channels_last_3d if last else torch.contiguous_format
        model = model.to(memory_format=layout)
        torch._inductor.config.freezing = compiled  # weights are constants
        if compiled:
            model = torch.compile(model, mode="max-autotune" if gpu else "default", dynamic=False)
        for n in sizes:
            x = torch.ones(n, *shape, device=place, dtype=dtype).to(memory_format=layout)

            def call(model=model, x=x):
                with torch.no_grad():
                    model(x)
                if gpu:
                    torch.cuda.synchronize()

            yield name, tool, n, call


def peers(seconds, tr):
    rows = []
    for source in (flax_peer, torch_peers):
        try:
            for network, tool, n, call in source():
                found, _ = distribution(call, seconds, tr, least=10)
                row = {"network": network, "tool": tool, "dtype": ""}
                rows.append(row | row_of("device", n, found))
        except ImportError as error:
            print(f"left out: {error}")
    return rows


def picture(times, path):
    figure = Figure(figsize=(8, 3.2), dpi=130, layout="constrained")
    for axes, (network, found) in zip(figure.subplots(1, len(times)), times.items(), strict=True):
        for stage, values in found.items():
            ordered = np.sort(values)
            left = 1 - np.arange(len(ordered)) / len(ordered)
            axes.semilogy(ordered, left, label=f"from {stage}")
        axes.set(title=network, xlabel="ms per volume", ylabel="share of calls that take longer")
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of each distribution")
    parser.add_argument("--tr", type=float, default=2.0, help="s between volumes")
    parser.add_argument("--budget_ms", type=float, help="limit of p99 from file; exit code 1 above")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--paper", action="store_true")
    parser.add_argument("--online", action="store_true", help="measure only checks and correction")
    args = parser.parse_args()
    if args.online:
        keep(f"latency_{jax.default_backend()}", "online", corrected(args.seconds, args.tr))
        return 0
    rows, times = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for network in MAKERS:
            place = pathlib.Path(folder)
            found, times[network] = stages(network, place, args.seconds, args.tr, args.paper)
            rows += found
    if args.peers:
        rows += peers(args.seconds, args.tr)
    platform = jax.default_backend()
    keep(f"latency_{platform}", "latency", rows)
    picture(times, ROOT / "docs" / f"latency_{platform}.png")
    print("\n".join([*speed.stages(rows), "", *speed.peers(rows)]))
    for row in rows:
        if row["stage"] == "cold":
            load, first = row["load_ms"], row["first_ms"]
            print(
                f"{row['network']}: cold start {load:.0f} ms to load, {first:.0f} ms for a volume"
            )
    missed = sum(row.get("missed", 0) for row in rows if row["tool"] == "emojax")
    print(f"deadlines missed at a TR of {args.tr:g} s: {missed}")
    late = [
        r for r in rows if r["stage"] == "file" and args.budget_ms and r["p99"] > args.budget_ms
    ]
    for row in late:
        print(f"over budget: {row['network']} p99 {row['p99']:.1f} ms > {args.budget_ms:g} ms")
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())
