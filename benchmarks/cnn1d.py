"""Training step and forward pass of the 1D CNN beside its peers: one process each, in turns.

    pip install -r requirements.txt -r requirements-bench.txt
    python -m benchmarks.cnn1d               # about 5 minutes on 2 cores
    python -m benchmarks.cnn1d --also=.venv311/bin/python    # also emojax with another jax

The network of the paper on 300 voxels, 3 classes. A step is forward, backward and Adam on a batch
of 64 with dropout, without penalty; forward is 600 vectors without dropout. `emojax` composes the
six convolutions, `plain flax` runs them one by one with the same parameters (compose=False),
PyTorch and Keras 3 are written as their users would; "compiled" is torch.compile, in the forward
pass with frozen weights. Times are medians of calls after two warm-up calls. Tools take turns,
because machines drift: trust the ratios. The spread is the range of the rounds' medians.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.record import keep, make_parser

VOXELS, CLASSES, BATCH, MANY = 300, 3, 64, 600
FILTERS, DENSE = (128, 128, 128, 64, 64, 64), (1024, 512, 256, 128, 64, 32, 16)
RATE = 1e-4


def arrays():
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((MANY, VOXELS)).astype("float32")
    return x, (np.arange(MANY) % CLASSES).astype("int32")


def flax_pair(compose):
    import jax
    import jax.numpy as jnp

    from emojax import plateau
    from emojax.models.cnn1d import CNN1D
    from emojax.training import optimizer, pages, steps

    pages.keep()  # as the command line does
    x, y = map(jnp.asarray, arrays())
    model, tx = CNN1D(CLASSES, compose=compose), optimizer.adam(RATE)
    rule = plateau.reduce_on_plateau(base_lr=RATE)
    held = [steps.init_state(jax.random.key(0), model, tx, rule, x)]
    step = jax.jit(steps.make_train_step(model, tx), donate_argnums=0)
    predict = jax.jit(lambda params, x: model.apply({"params": params}, x))
    batch = {"x": x[:BATCH], "y": y[:BATCH]}

    def train():
        held[0], metrics = step(held[0], batch)
        jax.block_until_ready((held[0].params, metrics))

    return train, lambda: predict(held[0].params, x).block_until_ready()


def torch_model():
    from torch import nn  # pyright: ignore[reportMissingImports] a peer

    layers, channels = [], 1
    for width in FILTERS:
        layers.append(nn.Conv1d(channels, width, 10))
        channels = width
    layers += [nn.Flatten(), nn.Dropout(0.25)]
    size = (VOXELS - 9 * len(FILTERS)) * channels
    for i, width in enumerate(DENSE):
        layers += [nn.Linear(size, width), nn.ReLU(), *([nn.Dropout(0.5)] if i == 0 else [])]
        size = width
    return nn.Sequential(*layers, nn.Linear(size, CLASSES))


def torch_pair(compiled):
    import torch  # pyright: ignore[reportMissingImports] a peer
    from torch import nn  # pyright: ignore[reportMissingImports] a peer

    torch._inductor.config.freezing = compiled  # weights are constants without gradients
    model = torch_model()
    quick = torch.compile(model, dynamic=False) if compiled else model
    adam = torch.optim.Adam(model.parameters(), RATE, eps=1e-7)
    x, y = map(torch.from_numpy, arrays())
    x, y = x[:, None], y.long()

    def train():
        model.train()
        adam.zero_grad()
        nn.functional.cross_entropy(quick(x[:BATCH]), y[:BATCH]).backward()
        adam.step()

    def forward():
        model.eval()
        with torch.no_grad():
            quick(x)

    return train, forward


def keras_pair(jit):
    import keras  # pyright: ignore[reportMissingImports] a peer
    from keras import layers as k  # pyright: ignore[reportMissingImports] a peer

    x, y = arrays()
    model = keras.Sequential([k.Input((VOXELS, 1)), *(k.Conv1D(width, 10) for width in FILTERS)])
    model.add(k.Flatten())
    model.add(k.Dropout(0.25))
    for i, width in enumerate(DENSE):
        model.add(k.Dense(width, activation="relu"))
        if i == 0:
            model.add(k.Dropout(0.5))
    model.add(k.Dense(CLASSES, activation="softmax"))
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(RATE), loss, jit_compile=jit)
    x = x[..., None]
    return (
        lambda: model.train_on_batch(x[:BATCH], y[:BATCH]),
        lambda: model.predict_on_batch(x),
    )


TOOLS = {
    "emojax": lambda: flax_pair(True),
    "plain flax": lambda: flax_pair(False),
    "pytorch": lambda: torch_pair(False),
    "pytorch, compiled": lambda: torch_pair(True),
    "keras 3, tensorflow": lambda: keras_pair(False),  # XLA is slower
    "keras 3, jax": lambda: keras_pair(True),
}


def work(tool):
    train, forward = TOOLS[tool]()
    out = {"jax": importlib.metadata.version("jax")}
    for name, call in (("train_step_ms", train), ("forward_600_ms", forward)):
        for _ in range(2):
            call()
        times = []
        for _ in range(7):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        out[name] = statistics.median(times)
    print(json.dumps(out))


def measure(tool: str, python: str) -> dict[str, Any] | None:
    """Measures a tool in a process of its own; returns None if it is not installed."""
    command = [python, "-m", "benchmarks.cnn1d", f"--worker={tool}"]
    backend = "jax" if tool == "keras 3, jax" else "tensorflow"
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{tool}: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--also", metavar="PYTHON", help="also measure emojax with this Python")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    wanted = {tool: (tool, sys.executable) for tool in TOOLS}
    if args.also:
        wanted["emojax, another jax"] = "emojax", args.also
    rounds = {tool: [] for tool in wanted}
    for _ in range(args.rounds):
        for tool, call in wanted.items():
            rounds[tool].append(measure(*call))
    results = []
    for tool, found in rounds.items():
        if None in found:
            continue
        row = {"tool": tool, "rounds": found, "jax": found[0]["jax"]}
        for name in (n for n in found[0] if n.endswith("_ms")):
            times = [r[name] for r in found]
            row |= {name: statistics.median(times), f"{name}_spread": [min(times), max(times)]}
            ratios = [
                theirs[name] / ours[name]
                for theirs, ours in zip(found, rounds["emojax"], strict=True)
            ]
            row[f"{name}_over_emojax"] = statistics.median(ratios)
        results.append(row)
        print({k: round(v, 2) for k, v in row.items() if isinstance(v, float)} | {"tool": tool})
    import jax

    keep(f"cnn1d_{jax.default_backend()}", "cnn1d", results)


if __name__ == "__main__":
    main()
