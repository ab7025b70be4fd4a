"""Start-up times: imports, the help, first compilations, the first decoded volume.

    python -m benchmarks.startup                # about 3 minutes on 2 cores
    python -m benchmarks.startup --only=decode  # or imports, training, alignment

Each measurement is a process of its own; times are medians of rounds, in seconds. Caches of
programs are in a new home folder: `cold` is the first process, `warm` are the later ones, with the
cache of emojax's commands. `load` opens a decoder, hashes included; `first` is the first volume,
host to host with all checks, and `next` a later one. `programs` counts compiled programs, `compile`
is XLA's share of the time. Networks have random weights and the paper's size (volumes 64 x 64 x
44).
"""

import importlib.metadata
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.record import ROOT, keep, make_parser

ROUNDS = 3
HELP = (["launch.py", "--help"], ["-m", "emojax", "--help"], ["-m", "emojax", "run", "--help"])
NETWORKS = ("linear", "cnn1d", "resnet3d")
ALIGNED = (11, 120, 300)  # subjects, volumes, voxels of a template, as in the demo
PARTS = ("imports", "training", "alignment", "decode")


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--worker", type=json.loads)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(globals()[args.worker["do"]](**args.worker["with"])))
        return
    for part in [args.only] if args.only else PARTS:
        with tempfile.TemporaryDirectory() as home:
            rows = globals()[f"measure_{part}"](pathlib.Path(home))
        for row in rows:
            print({name: round(v, 3) if isinstance(v, float) else v for name, v in row.items()})
        keep("startup_cpu", f"{part}, jax {importlib.metadata.version('jax')}", rows)


def measure_imports(home):
    """Returns rows of imports and of the help, which use no cache."""
    rows = []
    for name in ("jax", "emojax", "emojax.decoder", "emojax.experiments"):
        code = (
            f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
        )
        found = [float(python(home, "-c", code)) for _ in range(ROUNDS)]
        rows.append({"what": f"import {name}", "seconds": statistics.median(found)})
    for words in HELP:
        found = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            python(home, *words)
            found.append(time.perf_counter() - start)
        rows.append({"what": " ".join(words), "seconds": statistics.median(found)})
    return rows


def measure_training(home):
    """Returns rows of the first forward pass and the first step of both networks."""
    cases = [{"network": network, "what": what} for network in NETWORKS[1:] for what in WHAT]
    return [case | row for case in cases for row in cold_and_warm(home, "train", case, rounds=1)]


def measure_alignment(home):
    """Returns rows of a template's first fit and second fit."""
    return list(cold_and_warm(home, "align", {}))


def measure_decode(home):
    """Returns rows of the first volume of each kind of decoder."""
    python(home, "-m", "benchmarks.startup", "--worker", job("save", {"folder": str(home)}))
    rows = []
    for network in NETWORKS:
        case = {"folder": str(home), "network": network}
        rows += [{"network": network} | row for row in cold_and_warm(home, "decode", case)]
    return rows


def cold_and_warm(home, what, case, rounds=ROUNDS):
    """Yields a row of the first process, and one with the medians and rounds of later ones."""
    command = ("-m", "benchmarks.startup", "--worker", job(what, case))
    found = [json.loads(python(home, *command).splitlines()[-1]) for _ in range(1 + rounds)]
    yield {"cache": "cold"} | found[0]
    later = {name: [own[name] for own in found[1:]] for name in found[0]}
    medians = {name: statistics.median(own) for name, own in later.items()}
    yield {"cache": "warm"} | medians | {"rounds": later}


def job(what, case):
    return json.dumps({"do": what, "with": case})


def python(home, *words):
    """Runs Python with a home folder of its own, and returns its output."""
    skipped = ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in skipped}
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    if "--worker" in words and done.stderr.strip():
        print(done.stderr.strip())
    return done.stdout.strip()


def counted(call):
    """Returns seconds of a call, XLA's share, and the number of compiled programs."""
    import jax

    taken = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            taken.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    start = time.perf_counter()
    call()
    whole = time.perf_counter() - start
    return {"seconds": whole, "compile": sum(taken), "programs": len(taken)}


WHAT = ("forward", "step")


def train(network, what):
    """Measures the first forward pass or step of a network at the paper's size."""
    from emojax.cli.commands import start_jax

    start_jax()
    import jax
    import jax.numpy as jnp
    import optax

    from emojax.models import onednn
    from emojax.models.cnn1d import CNN1D
    from emojax.models.resnet3d import resnet50

    model, shape = (CNN1D(3), (4, 300)) if network == "cnn1d" else (resnet50(3), (4, 64, 64, 44))
    x, y = jnp.zeros(shape), jnp.zeros(4, jnp.int32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda own: jnp.zeros(own.shape, own.dtype), dict(shapes))
    params = variables.pop("params")

    def logits(params, rest, x, train):
        options = {"train": train, "mutable": list(rest) if train else False}
        options["rngs"] = {"dropout": jax.random.key(1)} if train else None
        found: Any = model.apply({"params": params, **rest}, x, **options)
        return found[0] if train else found

    def loss(params, rest, x, y):
        own = logits(params, rest, x, True)
        return optax.softmax_cross_entropy_with_integer_labels(own, y).mean()

    forward = onednn.jit(lambda params, rest, x: logits(params, rest, x, False))
    gradient = onednn.jit(jax.value_and_grad(loss))
    if what == "forward":
        return counted(lambda: jax.block_until_ready(forward(params, variables, x)))
    return counted(lambda: jax.block_until_ready(gradient(params, variables, x, y)))


def align():
    """Measures a first and a second fit of a template, and the alignment of a new subject."""
    from emojax.cli.commands import start_jax

    start_jax()
    import numpy as np

    from emojax import hyperalignment

    rng = np.random.default_rng(0)
    data = rng.normal(size=ALIGNED).astype(np.float32)

    def fit():
        model = hyperalignment.fit(data)
        found = hyperalignment.align(model, data[:1])
        np.asarray(hyperalignment.transform(found, data[:1]))

    first = counted(fit)
    start = time.perf_counter()
    fit()
    return first | {"next": time.perf_counter() - start}


def decode(folder, network):
    """Measures the load of a decoder and its first volumes."""
    from emojax.cli.commands import start_jax

    start = time.perf_counter()
    start_jax()
    import jax
    import numpy as np

    from emojax import decoder

    x = np.load(pathlib.Path(folder, "x.npy"))
    jax.devices()
    times = [start, time.perf_counter()]
    loaded = decoder.load(pathlib.Path(folder, network))
    jax.block_until_ready(loaded.weights)
    times.append(time.perf_counter())
    found = counted(lambda: decoder.decode(loaded, x))
    times.append(time.perf_counter())
    for _ in range(5):
        decoder.decode(loaded, x)
    times.append(time.perf_counter())
    row = {"imports": times[1] - times[0], "load": times[2] - times[1], "first": found["seconds"]}
    return row | {"compile": found["compile"], "next": (times[4] - times[3]) / 5}


def save(folder):
    """Saves a volume and a decoder of each network."""
    import numpy as np

    from benchmarks import latency
    from emojax import decoder

    x, mask = latency.volume()
    rng, keep = np.random.default_rng(1), latency.KEEP

    def linear():
        members = [
            decoder.Member(
                np.sort(rng.choice(mask.sum(), keep, replace=False)),
                np.full(keep, 800.0),
                np.full(keep, 80.0),
                rng.normal(size=(keep, 3)) / keep,
                np.zeros(3),
            )
            for _ in range(9)
        ]
        options = {"mask": mask, "affine": latency.AFFINE}
        made = decoder.from_linear(latency.facts(("a", "b", "c")), members, **options)
        return latency.referenced(made)

    for network, make in {"linear": linear, **latency.MAKERS}.items():
        decoder.save(make(), pathlib.Path(folder, network))
    np.save(pathlib.Path(folder, "x.npy"), x.astype(np.float32))
    return {}


if __name__ == "__main__":
    main()
